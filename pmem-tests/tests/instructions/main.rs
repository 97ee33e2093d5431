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

fn flushes(lines: impl IntoIterator<Item = u64>) -> Expected {
    Expected { flushed: lines.into_iter().collect(), ..Expected::default() }
}

fn stores(offset: u64, len: u64) -> Expected {
    Expected { stored: offset..offset + len, ..Expected::default() }
}

fn under_eadr(expected: Expected) -> Expected {
    Expected { eadr: true, flushed: Vec::new(), ..expected }
}

#[test]
fn persist_of_one_line_is_one_write_back_and_one_fence() {
    executes("persist", "adr", &flushes([1]));
    executes("persist_dyn", "adr", &flushes([1]));
    executes("persist_two", "adr", &flushes([0, 1]));
}

#[test]
fn persist_under_eadr_is_one_fence() {
    for case in ["persist", "persist_dyn", "persist_two"] {
        executes(case, "eadr", &under_eadr(Expected::default()));
    }
}

/// Each line goes past the cache or is written back once, after its last store; then one fence.
#[test]
fn a_write_leaves_no_line_in_the_cache() {
    for (case, expected) in [
        ("write_persist_line", stores(128, 64)),
        ("write_persist_odd", stores(4096 + 20, 4096)),
        ("write_persist_short", stores(61, 7)),
        ("batch", stores(0, 16 * 64)),
    ] {
        executes(case, "adr", &expected);
        executes(case, "eadr", &under_eadr(expected));
    }
}

#[test]
fn a_large_write_bypasses_the_cache_and_ends_in_the_fence() {
    let whole = stores(4096, 4096);
    executes("write_persist_4k", "adr", &Expected { past_the_cache: true, ..whole.clone() });
    executes("write_persist_4k", "eadr", &under_eadr(whole));
}

/// The examination can fail.
#[test]
fn what_is_missing_or_too_much_is_found() {
    let whole = stores(4096, 4096);
    for (case, expected, fault) in [
        ("without_fence", &flushes([1]), "store fences: 0, not 1"),
        ("without_flush", &stores(64, 8), "lines stored and not written back: 1, not 0"),
        ("two_fences", &flushes([1]), "store fences: 2, not 1"),
        ("two_flushes", &flushes([1]), "write-backs of line 1: 2, not 1"),
        ("store_after_fence", &whole, "after the fence: 1, not 0"),
        ("system_call", &flushes([1]), "system calls: 1, not 0"),
        ("persist", &flushes([]), "without a store: {1}, not {}"),
        ("persist", &flushes([2]), "without a store: {1}, not {2}"),
        ("write_persist_4k", &stores(4096, 4104), "bytes not stored: 8, not 0"),
    ] {
        let faults = tally(case, "adr").faults(expected);
        assert!(faults.iter().any(|found| found.contains(fault)), "{case}: {faults:?}");
    }
}

#[test]
fn the_routines_are_what_their_names_say() {
    disassembly::check(hot());
}

/// The library's unit tests and the stepper execute every routine whose instructions this processor has,
/// chosen or not. Of the others there is the disassembly alone; the last lines of the step name them.
#[test]
fn routines_that_this_processor_lacks_are_named() {
    disassembly::check_list(hot());
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").expect("/proc/cpuinfo");
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(": ").map_or("", |(_, value)| value).to_owned()
    };
    let flags = field("flags");
    let has = |flag: &str| flags.split(' ').any(|found| found == flag);
    let lacks = |name: &&str| {
        name.split('_').any(|part| match part {
            "avx512" => !has("avx512f") || !has("avx512vl"),
            "direct" => !has("movdir64b"),
            "clflush" => !has("clflush"),
            "avx" | "clwb" | "clflushopt" => !has(part),
            _ => false,
        })
    };
    let lacking: Vec<_> = disassembly::routines().filter(lacks).collect();
    let (count, model) = (disassembly::routines().count(), field("model name"));
    println!("{} of {count} routines executed on {model}", count - lacking.len());
    println!(
        "not executed here: {}",
        if lacking.is_empty() { "none".into() } else { lacking.join(" ") }
    );
}
