//! Copies and fills of memory that is to be durable. pmem_memmove_persist(3).
//!
//! Source and destination of any of them may overlap, those of `pmem_memcpy` too, as in PMDK.

use std::ffi::{c_int, c_uint, c_void};

use daxmap::cpu::Cpu;

use crate::selected::{Selected, selected};

/// Leave the drain to the caller.
const NODRAIN: c_uint = 1 << 0;
/// Past the caches.
const NONTEMPORAL: c_uint = 1 << 1;
/// By way of the caches.
const TEMPORAL: c_uint = 1 << 2;
/// A hint: write-combining, as past the caches.
const WC: c_uint = 1 << 3;
/// A hint: write-back, as by way of the caches.
const WB: c_uint = 1 << 4;
/// Neither write back nor drain.
const NOFLUSH: c_uint = 1 << 5;

/// What one call does.
#[derive(Clone, Copy)]
enum Way {
    /// Stores only.
    Store,
    /// Past the caches, nothing written back.
    StorePast,
    /// Durable after the next fence.
    Flush,
    /// Durable on return.
    Persist,
}

/// The routines that the flags ask for. `NOFLUSH` is asked first, then what goes past the caches.
/// Where nothing is flushed, only `NONTEMPORAL` goes past them, a hint does not.
fn way(selected: &Selected, flags: c_uint) -> (&Cpu, Way) {
    if flags & NOFLUSH != 0 {
        return (&selected.cached, Way::Store);
    }
    if !selected.flushes {
        let past = flags & NONTEMPORAL != 0;
        return (&selected.past, if past { Way::StorePast } else { Way::Store });
    }
    let cpu = if flags & (NONTEMPORAL | WC) != 0 {
        &selected.past
    } else if flags & (TEMPORAL | WB) != 0 {
        &selected.cached
    } else {
        &selected.chosen
    };
    (cpu, if flags & NODRAIN != 0 { Way::Flush } else { Way::Persist })
}

/// Any copy with flags.
///
/// # Safety
///
/// The caller's of the C function.
unsafe fn copy(to: *mut c_void, from: *const c_void, len: usize, flags: c_uint) -> *mut c_void {
    let selected = selected();
    let (cpu, way) = way(selected, flags);
    #[cfg(careless = "short_copy")]
    let len = len.saturating_sub(8);
    #[cfg(careless = "no_copy")]
    let len = if first_of_many() { 0 } else { len };
    // A fault is the signal: no guard is installed here, so what the routines return says nothing.
    // SAFETY: the caller's ranges, which may overlap.
    let _ = unsafe {
        match way {
            Way::Store => cpu.move_store(to.cast(), from.cast(), len),
            Way::StorePast => move_past(cpu, to.cast(), from.cast(), len),
            Way::Flush => cpu.move_flush(to.cast(), from.cast(), len),
            Way::Persist => cpu.move_persist(to.cast(), from.cast(), len),
        }
    };
    fence_unless_asked_not_to(selected, flags);
    to
}

/// For the tests of those who would notice: one copy of a hundred is left out.
#[cfg(careless = "no_copy")]
fn first_of_many() -> bool {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static COPIES: AtomicUsize = AtomicUsize::new(0);
    COPIES.fetch_add(1, Ordering::Relaxed) % 100 == 50
}

/// Any fill with flags.
///
/// # Safety
///
/// The caller's of the C function.
unsafe fn fill(to: *mut c_void, byte: c_int, len: usize, flags: c_uint) -> *mut c_void {
    let selected = selected();
    let (cpu, way) = way(selected, flags);
    // memset(3): the value is converted to an unsigned char.
    let [byte, ..] = byte.to_le_bytes();
    // SAFETY: the caller's range. A fault is the signal, as above.
    let _ = unsafe {
        match way {
            Way::Store => cpu.fill(to.cast(), byte, len),
            Way::StorePast => fill_past(cpu, to.cast(), byte, len),
            Way::Flush => cpu.fill_flush(to.cast(), byte, len),
            Way::Persist => cpu.fill_persist(to.cast(), byte, len),
        }
    };
    fence_unless_asked_not_to(selected, flags);
    to
}

/// Where nothing is flushed there is still a drain; where something is, `Persist` had it.
#[inline]
fn fence_unless_asked_not_to(selected: &Selected, flags: c_uint) {
    if !selected.flushes && flags & (NODRAIN | NOFLUSH) == 0 {
        selected.chosen.fence();
    }
}

/// The part of a range that is whole lines: where it begins, and how long it is.
fn whole_lines(cpu: &Cpu, to: *mut u8, len: usize) -> (usize, usize) {
    let line = cpu.line_size();
    let head = ((to as usize).wrapping_neg() & (line - 1)).min(len);
    (head, (len - head) & !(line - 1))
}

/// Moves whole lines past the caches and what is left by way of them: nothing is written back.
///
/// # Safety
///
/// As [`copy`].
unsafe fn move_past(
    cpu: &Cpu,
    to: *mut u8,
    from: *const u8,
    len: usize,
) -> Result<(), daxmap::cpu::Fault> {
    let (head, lines) = whole_lines(cpu, to, len);
    // Up in memory, into what is not read yet.
    let overlap = (to as usize).wrapping_sub(from as usize) < len;
    // SAFETY: parts of the caller's ranges; the middle one is of whole lines. What moves up is moved
    // last part first, so that no part is overwritten before it is read.
    unsafe {
        let part = |at: usize, len: usize| cpu.move_store(to.add(at), from.add(at), len);
        if overlap {
            part(head + lines, len - head - lines)?;
            cpu.move_flush(to.add(head), from.add(head), lines)?;
            part(0, head)
        } else {
            part(0, head)?;
            cpu.move_flush(to.add(head), from.add(head), lines)?;
            part(head + lines, len - head - lines)
        }
    }
}

/// The same of a fill.
///
/// # Safety
///
/// As [`fill`].
unsafe fn fill_past(
    cpu: &Cpu,
    to: *mut u8,
    byte: u8,
    len: usize,
) -> Result<(), daxmap::cpu::Fault> {
    let (head, lines) = whole_lines(cpu, to, len);
    // SAFETY: parts of the caller's range; the middle one is of whole lines.
    unsafe {
        cpu.fill(to, byte, head)?;
        cpu.fill_flush(to.add(head), byte, lines)?;
        cpu.fill(to.add(head + lines), byte, len - head - lines)
    }
}

/// Copies, with `PMEM_F_MEM_*` flags. Returns the destination.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmem_memmove(
    pmemdest: *mut c_void,
    src: *const c_void,
    len: usize,
    flags: c_uint,
) -> *mut c_void {
    // SAFETY: the caller's.
    unsafe { copy(pmemdest, src, len, flags) }
}

/// As [`pmem_memmove`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmem_memcpy(
    pmemdest: *mut c_void,
    src: *const c_void,
    len: usize,
    flags: c_uint,
) -> *mut c_void {
    // SAFETY: the caller's.
    unsafe { copy(pmemdest, src, len, flags) }
}

/// Sets bytes, with `PMEM_F_MEM_*` flags. Returns the destination.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmem_memset(
    pmemdest: *mut c_void,
    c: c_int,
    len: usize,
    flags: c_uint,
) -> *mut c_void {
    // SAFETY: the caller's.
    unsafe { fill(pmemdest, c, len, flags) }
}

/// Copies; durable after the next `pmem_drain` of this thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmem_memmove_nodrain(
    pmemdest: *mut c_void,
    src: *const c_void,
    len: usize,
) -> *mut c_void {
    // SAFETY: the caller's.
    unsafe { copy(pmemdest, src, len, NODRAIN) }
}

/// As [`pmem_memmove_nodrain`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmem_memcpy_nodrain(
    pmemdest: *mut c_void,
    src: *const c_void,
    len: usize,
) -> *mut c_void {
    // SAFETY: the caller's.
    unsafe { copy(pmemdest, src, len, NODRAIN) }
}

/// Sets bytes; durable after the next `pmem_drain` of this thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmem_memset_nodrain(
    pmemdest: *mut c_void,
    c: c_int,
    len: usize,
) -> *mut c_void {
    // SAFETY: the caller's.
    unsafe { fill(pmemdest, c, len, NODRAIN) }
}

/// Copies; durable on return.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmem_memmove_persist(
    pmemdest: *mut c_void,
    src: *const c_void,
    len: usize,
) -> *mut c_void {
    // SAFETY: the caller's.
    unsafe { copy(pmemdest, src, len, 0) }
}

/// As [`pmem_memmove_persist`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmem_memcpy_persist(
    pmemdest: *mut c_void,
    src: *const c_void,
    len: usize,
) -> *mut c_void {
    // SAFETY: the caller's.
    unsafe { copy(pmemdest, src, len, 0) }
}

/// Sets bytes; durable on return.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmem_memset_persist(
    pmemdest: *mut c_void,
    c: c_int,
    len: usize,
) -> *mut c_void {
    // SAFETY: the caller's.
    unsafe { fill(pmemdest, c, len, 0) }
}
