//! The calls whose machine code is examined, one at a time: `hot CASE`.
//!
//! Prints the region's first address and length, then runs the case once for the lazy parts,
//! and once between two breakpoints (`int3`) for whoever steps through it.
//!
//! # Safety
//!
//! A breakpoint stops the program where it stands; nobody traces it, it dies.
#![allow(unsafe_code)]

use std::arch::asm;

use daxmap::{AnyRegion, Emulation, Options, Region};

const LEN: u64 = 1 << 20;

/// Persist of one word in one line.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hot_persist(region: &AnyRegion) -> bool {
    region.persist(64, 8).is_ok()
}

/// The same through the trait object.
#[inline(never)]
pub fn hot_persist_dyn(region: &dyn Region) -> bool {
    region.persist(64, 8).is_ok()
}

/// Persist of a range that lies across two lines.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hot_persist_two(region: &AnyRegion) -> bool {
    region.persist(60, 8).is_ok()
}

/// Store and persist of 64 bytes.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hot_write_persist_line(region: &AnyRegion) -> bool {
    region.write_persist(128, &[7; 64]).is_ok()
}

/// Store and persist of 4 KiB.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hot_write_persist_4k(region: &AnyRegion) -> bool {
    region.write_persist(4096, &[7; 4096]).is_ok()
}

/// Store and persist of 4 KiB that begin and end within a line.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hot_write_persist_odd(region: &AnyRegion) -> bool {
    region.write_persist(4096 + 20, &[7; 4096]).is_ok()
}

/// Store and persist of 7 bytes that lie in two lines.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hot_write_persist_short(region: &AnyRegion) -> bool {
    region.write_persist(61, &[7; 7]).is_ok()
}

/// Sixteen records flushed, one drain.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hot_batch(region: &AnyRegion) -> bool {
    (0..16).all(|i| region.write_flush(i * 64, &[9; 64]).is_ok()) && region.drain().is_ok()
}

/// What the examination must find fault with: a persist without its fence.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hot_without_fence(region: &AnyRegion) -> bool {
    region.flush(64, 8).is_ok()
}

/// What the examination must find fault with: a store that is not flushed.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hot_without_flush(region: &AnyRegion) -> bool {
    region.store_u64(64, 1).is_ok() && region.drain().is_ok()
}

/// What the examination must find fault with: a flush too many.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hot_two_flushes(region: &AnyRegion) -> bool {
    region.flush(64, 8).is_ok() && region.persist(64, 8).is_ok()
}

/// What the examination must find fault with: a fence too many.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hot_two_fences(region: &AnyRegion) -> bool {
    region.persist(64, 8).is_ok() && region.drain().is_ok()
}

/// What the examination must find fault with: a store after the fence.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hot_store_after_fence(region: &AnyRegion) -> bool {
    region.write_persist(4096, &[7; 4096]).is_ok() && region.store_u64(4096, 1).is_ok()
}

/// What the examination must find fault with: a system call.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hot_system_call(region: &AnyRegion) -> bool {
    // SAFETY: getppid has no arguments and cannot fail.
    region.persist(64, 8).is_ok() && unsafe { libc::syscall(libc::SYS_getppid) } > 0
}

/// Stops for the tracer.
fn breakpoint() {
    // SAFETY: touches no memory; the tracer resumes after it.
    unsafe { asm!("int3", options(nomem, nostack)) };
}

fn between_breakpoints(call: impl Fn() -> bool) {
    assert!(call(), "the case fails");
    breakpoint();
    let done = call();
    breakpoint();
    assert!(done, "the case fails");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [case, memory] = arguments.as_slice() else { panic!("usage: hot CASE adr|eadr") };
    let memory = if memory == "eadr" { Emulation::Eadr } else { Emulation::Adr };
    let region = Options::new().len(LEN).emulate(memory).in_memory().expect("a region in memory");
    // SAFETY: the view is not read.
    let base = unsafe { region.slice(0, 1) }.expect("a region has a first byte").as_ptr();
    println!("{} {LEN}", base.addr());
    let region = &region;
    match case.as_str() {
        "persist" => between_breakpoints(|| hot_persist(region)),
        "persist_dyn" => between_breakpoints(|| hot_persist_dyn(region)),
        "persist_two" => between_breakpoints(|| hot_persist_two(region)),
        "write_persist_line" => between_breakpoints(|| hot_write_persist_line(region)),
        "write_persist_4k" => between_breakpoints(|| hot_write_persist_4k(region)),
        "write_persist_odd" => between_breakpoints(|| hot_write_persist_odd(region)),
        "write_persist_short" => between_breakpoints(|| hot_write_persist_short(region)),
        "without_flush" => between_breakpoints(|| hot_without_flush(region)),
        "two_flushes" => between_breakpoints(|| hot_two_flushes(region)),
        "batch" => between_breakpoints(|| hot_batch(region)),
        "without_fence" => between_breakpoints(|| hot_without_fence(region)),
        "two_fences" => between_breakpoints(|| hot_two_fences(region)),
        "store_after_fence" => between_breakpoints(|| hot_store_after_fence(region)),
        "system_call" => between_breakpoints(|| hot_system_call(region)),
        other => panic!("no case {other}"),
    }
}
