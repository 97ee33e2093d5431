//! `publish_mapped`: a file that is whole, durable and mapped when the call returns.

use pmem_tests::guest::Persistence;
use pmem_tests::scratch::{Directory, Filesystem};

use crate::program::{guest, run};

const HERE: &str = env!("CARGO_TARGET_TMPDIR");
const BYTES: usize = 2 << 20;

/// The published bytes, of which the program has changed the first eight in place.
fn is_whole(bytes: &[u8]) -> bool {
    let (changed, rest) = bytes.split_at(8);
    bytes.len() == BYTES
        && changed == b"in place"
        && rest.iter().zip(8..).all(|(byte, at): (_, usize)| usize::from(*byte) == at % 251)
}

#[test]
fn it_names_and_times_each_call() {
    let directory = Directory::new(HERE);
    let file = directory.path().join("published");
    let ended = run("publish_mapped", &[file.to_str().unwrap(), "2", "3"]);
    assert!(ended.success);
    assert!(ended.stdout.contains("2 MB durable under its name in "));
    for call in ["fdatasync of the file", "rename", "fsync of the directory", "no msync"] {
        assert!(ended.stdout.contains(call), "{call}");
    }
    // Written last by hand, without the change.
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(bytes.len(), BYTES);
    assert!(bytes.iter().zip(0_usize..).all(|(byte, at)| usize::from(*byte) == at % 251));
    let left = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 1, "something was left beside the file");
}

#[test]
fn in_memory_it_says_that_nothing_lasts() {
    let memory = Filesystem::tmpfs(HERE, 32 << 20);
    let file = memory.path().join("published");
    let ended = run("publish_mapped", &[file.to_str().unwrap(), "2", "2"]);
    assert!(ended.success);
    assert!(ended.stdout.contains("ProcessOnly"), "{}", ended.stdout);
    assert!(ended.stdout.contains("in memory nothing is synced"));
    assert!(is_whole(&std::fs::read(&file).unwrap()));
}

#[test]
fn on_dax_stores_are_written_back_by_the_processor() {
    let output = guest("publish_mapped")
        .persistence(Persistence::MemoryController)
        .nvdimm("512M")
        .run_script(
            "mkpmem fsdax namespace0.0
             mkfs-dax ext4 /dev/pmem0 /mnt/dax dax=always
             ./publish_mapped /mnt/dax/published 2 3
             umount /mnt/dax
             mkfs-dax xfs /dev/pmem0 /mnt/xfs dax=always
             ./publish_mapped /mnt/xfs/published 2 3
             ls -A /mnt/xfs",
        )
        .unwrap();
    print!("{}", output.stdout);
    assert_eq!(output.status, 0);
    assert_eq!(output.stdout.matches("on fsdax, stores are written back").count(), 2);
    assert_eq!(output.stdout.lines().last(), Some("published"), "something was left beside it");
}

#[test]
fn a_wrong_number_is_an_error() {
    for arguments in [&["x", "9"][..], &["x", "0"], &["x", "1", "0"], &[]] {
        assert!(!run("publish_mapped", arguments).success);
    }
}
