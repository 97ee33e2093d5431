//! A writing process is killed at random moments, reopened and checked, many times. What that does
//! not prove is in src/bin/kills.rs and docs/guest_runs.md.
//!
//! `DAXMAP_KILLS` sets the number of kills, 10,000 unless given; `ci/evidence` asks for 100,000.

use std::path::Path;
use std::process::{Command, Output};

use pmem_tests::scratch::{Directory, Filesystem};

const KILLS: &str = env!("CARGO_BIN_EXE_kills");
const HERE: &str = env!("CARGO_TARGET_TMPDIR");
const SEED: &str = "7";
/// Bytes of the tmpfs; the load keeps below 2 MiB.
const ROOM: u64 = 64 << 20;

fn kills() -> u64 {
    std::env::var("DAXMAP_KILLS").map_or(10_000, |n| n.parse().expect("a number of kills"))
}

fn kill(directory: &Path, what: &str, count: u64) -> Output {
    let count = count.to_string();
    let words = [directory.to_str().expect("a path of ours"), what, &count, SEED];
    Command::new(KILLS).args(words).output().expect("the program of this package runs")
}

#[track_caller]
fn nothing_is_lost(name: &str, directory: &Path, what: &str, count: u64) {
    let output = kill(directory, what, count);
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}, seed {SEED}: {error}");
    println!(
        "evidence: processes killed (SIGKILL), {name} | {} | that any flush, fence or sync is needed: \
         what a process gave to the kernel survives it",
        said.trim_end()
    );
}

/// Half of the kills in this test, a quarter in each of the next two: tests run side by side.
#[test]
fn page_cache_in_the_build_directory() {
    let directory = Directory::new(HERE);
    nothing_is_lost("page cache, build directory", directory.path(), "plain", kills() / 2);
}

#[test]
fn volatile_on_tmpfs() {
    let room = Filesystem::tmpfs(HERE, ROOM);
    nothing_is_lost("volatile, tmpfs", room.path(), "plain", kills() / 4);
}

#[test]
fn emulated_cache_lines_on_tmpfs() {
    let room = Filesystem::tmpfs(HERE, ROOM);
    nothing_is_lost(
        "emulated cache lines, tmpfs",
        room.path(),
        "emulated",
        kills() - kills() / 4 * 3,
    );
}

#[test]
fn a_claim_ahead_of_its_step_is_noticed() {
    let room = Filesystem::tmpfs(HERE, ROOM);
    let output = kill(room.path(), "early", 1000);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "nothing was lost, so the tests are void");
    assert!(error.contains("acknowledged, the commit word says"), "{error}");
}
