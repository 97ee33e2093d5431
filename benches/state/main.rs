//! An update of a state beside the same by hand and a transaction of libpmemobj, in one run,
//! interleaved.
//!
//! ```text
//! cargo bench -p daxmap --bench state                     the table of targets
//! cargo bench -p daxmap --bench state -- --quick          a tenth of the rounds
//! cargo bench -p daxmap --bench state -- --report-only    a missed target is no failure
//! cargo bench -p daxmap --bench state -- --record         writes this processor's column of docs/processors.md
//! cargo bench -p daxmap --bench state -- --count N        N updates of each size and nothing else, for a
//!                                               program that counts instructions
//! ```
//!
//! Persistent memory is emulated on DRAM: the times compare instruction sequences and say nothing
//! about a persistent medium.

#[cfg(target_arch = "x86_64")]
#[allow(dead_code)] // the other comparison uses all of it
#[path = "../compare/hand.rs"]
mod hand;
#[cfg(target_arch = "x86_64")]
#[allow(dead_code)]
#[path = "../compare/interleave.rs"]
mod interleave;
#[cfg(target_arch = "x86_64")]
mod libpmemobj;
#[cfg(target_arch = "x86_64")]
#[path = "../compare/processors.rs"]
mod processors;
#[cfg(target_arch = "x86_64")]
mod updates;

#[cfg(target_arch = "x86_64")]
fn main() -> std::process::ExitCode {
    updates::main()
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("nothing to compare: the hand-written update and libpmemobj are for x86-64");
}
