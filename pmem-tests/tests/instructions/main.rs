//! The release build executes the instructions that durability needs, and no others: shown on
//! the machine code of the routines, and on what the processor executes, step by step.
//!
//! A fence lost after a non-temporal copy for five releases, and eADR code that was never called,
//! are what this keeps away. It does not show that memory keeps what it is told.
#![cfg(target_arch = "x86_64")]

mod count;
mod disassembly;
mod trace;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use count::{Expected, Tally};

/// The release build of `hot`, with the library as its users build it.
fn hot() -> &'static Path {
    static HOT: OnceLock<PathBuf> = OnceLock::new();
    HOT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--release", "--package", "pmem-tests", "--bin", "hot"])
            .args(["--no-default-features", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .status();
        assert!(built.is_ok_and(|status| status.success()), "the release build of hot fails");
        target.join("release/hot")
    })
}

fn tally(case: &str, memory: &str) -> Tally {
    let tally = Tally::of(&trace::trace(hot(), &[case, memory]));
    println!("{case:20} {memory:4} {tally}");
    tally
}

#[track_caller]
fn executes(case: &str, memory: &str, expected: &Expected) {
    let faults = tally(case, memory).faults(expected);
    assert!(faults.is_empty(), "{case} on {memory}: {faults:?}");
}

fn lines(lines: impl IntoIterator<Item = u64>) -> Expected {
    Expected { write_backs: lines.into_iter().collect(), ..Expected::default() }
}

#[test]
fn persist_of_one_line_is_one_write_back_and_one_fence() {
    executes("persist", "adr", &lines([1]));
    executes("persist_dyn", "adr", &lines([1]));
    executes("persist_two", "adr", &lines([0, 1]));
}

#[test]
fn persist_under_eadr_is_one_fence() {
    executes("persist", "eadr", &lines([]));
    executes("persist_dyn", "eadr", &lines([]));
    executes("persist_two", "eadr", &lines([]));
}

#[test]
fn a_write_is_stored_once_and_written_back_once() {
    executes("write_persist_line", "adr", &Expected { stored_bytes: 64, ..lines([2]) });
    executes("write_persist_line", "eadr", &Expected { stored_bytes: 64, ..lines([]) });
    executes("batch", "adr", &Expected { stored_bytes: 1024, ..lines(0..16) });
    executes("batch", "eadr", &Expected { stored_bytes: 1024, ..lines([]) });
}

#[test]
fn a_large_write_bypasses_the_cache_and_ends_in_the_fence() {
    let whole = Expected { non_temporal_bytes: 4096, ..Expected::default() };
    executes("write_persist_4k", "adr", &whole);
    executes("write_persist_4k", "eadr", &Expected { stored_bytes: 4096, ..lines([]) });
    // 44 bytes up to the first whole line, 63 whole lines, 20 bytes after them.
    let odd = Expected { non_temporal_bytes: 63 * 64, stored_bytes: 64, ..lines([64, 64 + 64]) };
    executes("write_persist_odd", "adr", &odd);
}

/// The examination can fail.
#[test]
fn what_is_missing_or_too_much_is_found() {
    let whole = Expected { non_temporal_bytes: 4096, ..Expected::default() };
    for (case, expected, fault) in [
        ("without_fence", &lines([1]), "store fences: 0, not 1"),
        ("two_fences", &lines([1]), "store fences: 2, not 1"),
        ("store_after_fence", &whole, "after the fence: 1, not 0"),
        ("system_call", &lines([1]), "system calls: 1, not 0"),
        ("persist", &lines([]), "write-backs: 1, not 0"),
        ("persist", &lines([2]), "write-backs of line 2: 0, not 1"),
    ] {
        let faults = tally(case, "adr").faults(expected);
        assert!(faults.iter().any(|found| found.contains(fault)), "{case}: {faults:?}");
    }
}

#[test]
fn the_routines_are_what_their_names_say() {
    disassembly::check(hot());
}
