//! Durability on ordinary filesystems is a matter of which system calls are made, on what, in
//! which order. A page cache that nobody crashes keeps everything, so that a missing sync shows
//! nowhere else.
#![cfg(target_arch = "x86_64")]

mod trace;

use std::path::Path;

use pmem_tests::scratch::{Directory, Filesystem};
use trace::{Call, calls};

const HERE: &str = env!("CARGO_TARGET_TMPDIR");

/// The calls that change a file, a name, or what is durable.
fn changes(case: &str, file: &Path) -> Vec<Call> {
    let program = Path::new(env!("CARGO_BIN_EXE_calls"));
    let mut found = calls(program, &[case, &file.to_string_lossy()]);
    found.retain(Call::changes_files);
    println!("{case}: {found:?}");
    found
}

fn names(calls: &[Call]) -> Vec<&str> {
    calls.iter().map(|call| call.name).collect()
}

/// What makes the name durable: the sync of the directory, or of the file that got it.
#[derive(Clone, Copy, PartialEq)]
enum After {
    Directory,
    File,
}

fn creation(directory: &Path, after: After) {
    let mut calls = changes("create", &directory.join("new"));
    // Asks whether an unnamed file could get a name at all, before anything is in it: it gets none.
    let asked = calls.iter().position(|call| call.name != "linkat").expect("space is allocated");
    assert!(asked <= 1, "one question at most: {calls:?}");
    calls.drain(..asked);
    let link = calls.iter().position(|call| call.name == "linkat").expect("the file gets a name");
    let last_write = calls.iter().rposition(|call| call.name == "pwrite64").expect("zeros");
    assert!(calls[..last_write].iter().any(|call| call.name == "fallocate"), "{calls:?}");
    let synced = |of: After, range: std::ops::Range<usize>| {
        calls[range].iter().any(|call| {
            let of_directory = call.path.as_deref() == Some(directory);
            call.name == "fsync" && of_directory == (of == After::Directory)
        })
    };
    let before = synced(After::File, last_write + 1..link);
    assert!(before, "the file is not synced between its zeros and its name: {calls:?}");
    assert!(synced(after, link + 1..calls.len()), "the name is not synced: {calls:?}");
    assert_eq!(calls.len(), link + 2, "something else follows the name: {calls:?}");
}

#[test]
fn a_new_file_is_synced_named_and_the_name_synced() {
    let ext4 = Filesystem::looped(HERE, "ext4", 64 << 20);
    creation(ext4.path(), After::Directory);
    // btrfs forgets an unnamed file that is linked and not synced again; syncing it syncs its
    // names as well.
    let btrfs = Filesystem::looped(HERE, "btrfs", 128 << 20);
    creation(btrfs.path(), After::File);
}

#[test]
fn growth_allocates_writes_and_syncs() {
    let directory = Directory::new(HERE);
    let file = directory.path().join("region");
    std::fs::write(&file, vec![0; 100_000]).expect("a file can be written");
    let calls = changes("grow", &file);
    // Zeros for 100,000 to 200,000, in pieces of 16 KiB: the page cache keeps what it gets at once
    // together, and later has to handle it together.
    let mut expected = vec!["fallocate"];
    expected.extend(["pwrite64"; 7]);
    expected.push("fsync");
    assert_eq!(names(&calls), expected);
    assert!(calls.iter().all(|call| call.path.as_deref() == Some(&*file)), "{calls:?}");
}

/// No question to the kernel either: whether the file was cut, its mapping tells.
#[test]
fn a_durable_update_makes_two_system_calls_and_a_long_write_one_for_each_256_kib() {
    let ext4 = Filesystem::looped(HERE, "ext4", 64 << 20);
    let file = ext4.path().join("region").to_string_lossy().into_owned();
    let program = Path::new(env!("CARGO_BIN_EXE_calls"));
    let all = |case: &str| calls(program, &[case, &file]);
    for (case, expected) in [
        ("one", &["pwrite64", "fdatasync"][..]),
        ("again", &["pwrite64", "fdatasync", "pwrite64", "fdatasync"]),
        // Whose last page is written must ask: a cut within a page shows in no fault.
        ("last", &["other", "pwrite64", "fdatasync"]),
    ] {
        let found = all(case);
        assert_eq!(names(&found), expected, "{case}: {found:?}");
    }
    let long = ext4.path().join("long").to_string_lossy().into_owned();
    let found = calls(program, &["long", &long]);
    assert_eq!(names(&found), ["pwrite64"; 4], "{found:?}");
}

#[test]
fn a_durable_update_is_one_write_and_one_sync() {
    let ext4 = Filesystem::looped(HERE, "ext4", 64 << 20);
    let file = ext4.path().join("region");
    assert_eq!(names(&changes("one", &file)), ["pwrite64", "fdatasync"]);
    let mut eight = vec!["pwrite64"; 8];
    eight.push("fdatasync");
    assert_eq!(names(&changes("eight", &file)), eight);
    assert_eq!(names(&changes("close", &file)), ["pwrite64", "fdatasync"]);
    assert_eq!(names(&changes("drop", &file)), ["pwrite64", "fdatasync"]);
    assert!(changes("drain", &file).is_empty(), "a drain of nothing");
    assert!(changes("read", &file).is_empty(), "a read");
}

/// Memory is written by stores: no system call at all.
#[test]
fn an_update_of_memory_is_no_system_call() {
    let tmpfs = Filesystem::tmpfs(HERE, 16 << 20);
    let file = tmpfs.path().join("region");
    let program = Path::new(env!("CARGO_BIN_EXE_calls"));
    for case in ["one", "eight", "drain", "read", "close"] {
        let found = calls(program, &[case, &file.to_string_lossy()]);
        assert!(found.is_empty(), "{case}: {found:?}");
    }
}
