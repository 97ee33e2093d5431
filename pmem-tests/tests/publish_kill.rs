//! A program that publishes all the time is killed at random moments: its file is always one whole
//! version, never older than the last it said it had published, and what it left is cleaned up.
//! Needs root for the mounts.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use daxmap::publish::clean_leftovers;
use pmem_tests::scratch::{Directory, Filesystem};
use pmem_tests::versions;

const PUBLISHER: &str = env!("CARGO_BIN_EXE_publisher");
const HERE: &str = env!("CARGO_TARGET_TMPDIR");
const KILLS: u32 = 100;
const SEED: u64 = 0x5eed;

/// Kills a publisher that has run for a random time; returns how many drafts it left.
fn kill_one(directory: &Path, wait: Duration) -> usize {
    let path = directory.join("file");
    let mut publisher = Command::new(PUBLISHER)
        .args(["forever", path.to_str().unwrap(), "40000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(publisher.stdout.take().unwrap()).lines();
    let first = lines.next().expect("a first version is published").unwrap();
    std::thread::sleep(wait);
    publisher.kill().unwrap();
    publisher.wait().unwrap();
    let said = lines.map_while(Result::ok).last().unwrap_or(first);
    let said: u64 = said.parse().unwrap_or_else(|_| panic!("half a line: {said}"));
    let content = std::fs::read(&path).unwrap();
    let found = versions::version_of(&content).expect("the file is one whole version");
    assert!(found == said || found == said + 1, "said {said}, found {found}");
    let cleaned = clean_leftovers(directory).unwrap();
    assert_eq!((cleaned.in_use, cleaned.denied), (0, 0));
    let mut names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.all(|name| name == "file" || name == "lost+found"));
    cleaned.removed
}

fn kill_many(name: &str, directory: &Path) {
    let mut random = SEED;
    let mut left = 0;
    for _ in 0..KILLS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        left += kill_one(directory, Duration::from_micros((random >> 33) % 12_000));
    }
    println!("{name}: {KILLS} killed, seed {SEED:#x}, {left} drafts left and cleaned up");
}

#[test]
fn in_the_build_directory() {
    kill_many("build directory", Directory::new(HERE).path());
}

#[test]
fn on_ext4() {
    kill_many("ext4", Filesystem::looped(HERE, "ext4", 64 << 20).path());
}

#[test]
fn on_xfs() {
    kill_many("xfs", Filesystem::looped(HERE, "xfs", 320 << 20).path());
}

#[test]
fn on_btrfs() {
    kill_many("btrfs", Filesystem::looped(HERE, "btrfs", 128 << 20).path());
}

#[test]
fn on_tmpfs() {
    kill_many("tmpfs", Filesystem::tmpfs(HERE, 32 << 20).path());
}
