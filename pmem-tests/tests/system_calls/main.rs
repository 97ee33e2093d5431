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

/// Where the first call of this name on this path is; the path ends in `at`.
#[track_caller]
fn position(calls: &[Call], name: &str, at: &Path) -> usize {
    let found = calls.iter().position(|call| call.name == name && call.path.as_deref() == Some(at));
    found.unwrap_or_else(|| panic!("no {name} of {} in {calls:?}", at.display()))
}

fn creation(directory: &Path, synced_after_link: bool) {
    let calls = changes("create", &directory.join("new"));
    let link = calls.iter().position(|call| call.name == "linkat").expect("the file gets a name");
    let last_write = calls.iter().rposition(|call| call.name == "pwrite64").expect("zeros");
    assert!(calls[..last_write].iter().any(|call| call.name == "fallocate"), "{calls:?}");
    let file_synced: Vec<usize> = (0..calls.len())
        .filter(|&at| calls[at].name == "fsync" && calls[at].path.as_deref() != Some(directory))
        .collect();
    let before = file_synced.iter().any(|&at| at > last_write && at < link);
    assert!(before, "the file is not synced between its zeros and its name: {calls:?}");
    let directory_synced = position(&calls, "fsync", directory);
    assert!(directory_synced > link, "the directory is not synced after the name: {calls:?}");
    let after = file_synced.iter().any(|&at| at > link && at < directory_synced);
    assert_eq!(after, synced_after_link, "sync of the file after its name: {calls:?}");
    assert_eq!(directory_synced, calls.len() - 1, "something follows: {calls:?}");
}

#[test]
fn a_new_file_is_synced_named_and_its_directory_synced() {
    let ext4 = Filesystem::looped(HERE, "ext4", 64 << 20);
    creation(ext4.path(), false);
    // btrfs forgets an unnamed file that is linked and not synced again.
    let btrfs = Filesystem::looped(HERE, "btrfs", 128 << 20);
    creation(btrfs.path(), true);
}

#[test]
fn growth_allocates_writes_and_syncs() {
    let directory = Directory::new(HERE);
    let file = directory.path().join("region");
    std::fs::write(&file, vec![0; 100_000]).expect("a file can be written");
    let calls = changes("grow", &file);
    assert_eq!(names(&calls), ["fallocate", "pwrite64", "fsync"]);
    assert!(calls.iter().all(|call| call.path.as_deref() == Some(&*file)), "{calls:?}");
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
