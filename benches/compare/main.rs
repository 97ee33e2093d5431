//! The library beside libpmem, hand-written loops and memmap2, in one run, interleaved.
//!
//! ```text
//! cargo bench -p daxmap --bench compare                     every group, then the table of targets
//! cargo bench -p daxmap --bench compare -- persist eadr     these groups
//! cargo bench -p daxmap --bench compare -- --quick          a tenth of the rounds
//! cargo bench -p daxmap --bench compare -- --report-only    a missed target is no failure
//! cargo bench -p daxmap --bench compare -- --record         writes this processor's column of docs/processors.md
//! ```
//!
//! `ci/bench` runs this and the throughput curves. Persistent memory is emulated on DRAM: the
//! times compare instruction sequences and say nothing about a persistent medium.

#[cfg(target_arch = "x86_64")]
mod groups;
#[cfg(target_arch = "x86_64")]
mod hand;
#[cfg(target_arch = "x86_64")]
mod interleave;
#[cfg(target_arch = "x86_64")]
mod libpmem;
#[cfg(target_arch = "x86_64")]
mod machine;
#[cfg(target_arch = "x86_64")]
mod processors;
#[cfg(target_arch = "x86_64")]
mod session;
// The same look at executed instructions that the tests take.
#[cfg(target_arch = "x86_64")]
#[path = "../../src/cpu/stepper.rs"]
mod stepper;
#[cfg(target_arch = "x86_64")]
mod targets;

#[cfg(target_arch = "x86_64")]
fn main() -> std::process::ExitCode {
    session::main()
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("nothing to compare: the hand-written loops and libpmem are for x86-64");
}
