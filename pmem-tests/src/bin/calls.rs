//! The calls whose system calls are examined, one at a time: `calls CASE FILE`.
//!
//! What counts lies between two breakpoints (`int3`), for whoever traces it.
//!
//! # Safety
//!
//! A breakpoint stops the program where it stands; nobody traces it, it dies.
#![allow(unsafe_code)]

use std::arch::asm;

use daxmap::{Options, Region};

/// Stops for the tracer.
fn breakpoint() {
    // SAFETY: touches no memory; the tracer resumes after it.
    unsafe { asm!("int3", options(nomem, nostack)) };
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [case, file] = arguments.as_slice() else { panic!("usage: calls CASE FILE") };
    let options = Options::new().len(if case == "long" { 2 << 20 } else { 100_000 });
    let piece = vec![7; 1 << 20];
    if case == "create" {
        breakpoint();
        let region = options.create(file);
        breakpoint();
        drop(region.expect("a region can be made"));
        return;
    }
    let region = options.open_or_create(file).expect("a region can be made");
    region.write_persist(0, b"warm").expect("the region can be written");
    breakpoint();
    let done = match case.as_str() {
        "grow" => region.grow(200_000),
        "one" => region.write_persist(0, b"12345678"),
        "again" => (0..2).try_for_each(|i| region.write_persist(i * 4096, b"12345678")),
        "last" => region.write_persist(99_000, b"12345678"),
        "long" => region.write(0, &piece),
        "eight" => (0..8)
            .try_for_each(|i| region.write_flush(i * 4096, b"12345678"))
            .and_then(|()| region.drain()),
        "drain" => region.drain(),
        "read" => region.read(0, &mut [0; 100]),
        "close" => region.write(0, b"12345678").and_then(|()| region.close()),
        "drop" => region.write(0, b"12345678").map(|()| drop(region)),
        other => panic!("no case {other}"),
    };
    breakpoint();
    done.expect("the case works");
}
