//! PMDK's libpmemobj, libpmemlog and libpmemblk, unchanged, on our library.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::library::{on, ours, program, run_on, text};

const LIBRARIES: [&str; 4] = ["-lpmemobj", "-lpmemlog", "-lpmemblk", "-lpmem"];

/// A run of the program on our library, in memory that is taken for persistent.
fn pools(arguments: &[&str]) -> Command {
    let mut command = on(Some(ours()), program("pools", &LIBRARIES));
    command.env("PMEM_IS_PMEM_FORCE", "1").args(arguments);
    command
}

fn run(arguments: &[&str]) -> String {
    let output = run_on(&ours().join("libpmem.so.1"), &mut pools(arguments));
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    said
}

fn check(pool: &Path) {
    let mut command = on(Some(ours()), "pmempool");
    let output = run_on(&ours().join("libpmem.so.1"), command.args(["check", "-v"]).arg(pool));
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("consistent") && !said.contains("not consistent"), "{said}");
}

#[test]
fn transactions_are_whole_when_their_process_is_killed() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let pool = directory.path().join("pool");
    let path = pool.to_str().unwrap();
    let mut opened = Vec::new();
    for kill in 0..12_u64 {
        let mut child = pools(&["obj", path, "100000000"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        opened.push(line.trim().strip_prefix("opened at ").unwrap().parse::<u64>().unwrap());
        std::thread::sleep(Duration::from_millis(10 + 7 * kill));
        child.kill().unwrap();
        child.wait().unwrap();
        check(&pool);
    }
    // Nothing that was committed is lost, and there was something.
    assert!(opened.is_sorted() && opened[11] > 100, "{opened:?}");
    let said = run(&["obj", path, "20000"]);
    assert!(said.contains("aborted 2857 right 1"), "{said}");
    check(&pool);
}

#[test]
fn a_log_and_blocks_are_read_back() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let at = |name: &str| directory.path().join(name);
    let (log, blk) = (at("log"), at("blk"));
    assert!(run(&["log", log.to_str().unwrap()]).contains("lines 5000\n"));
    assert!(run(&["blk", blk.to_str().unwrap()]).contains("blocks 4000 good 4000\n"));
    check(&log);
    check(&blk);
}
