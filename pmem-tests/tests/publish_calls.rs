//! Publishing makes exactly the system calls that its documentation names, in the release build as
//! in this one. Needs root, strace, and programs that make filesystems.

use std::ffi::OsStr;

use pmem_tests::cut::{Disk, KINDS};
use pmem_tests::scratch::Filesystem;
use pmem_tests::traced::{self, Traced};

const PUBLISHER: &str = env!("CARGO_BIN_EXE_publisher");

/// Every call after the start of the program that has to do with the file, its name or its
/// directory, `close` and `munmap` left out.
const SET: &str = "open,openat,readlinkat,newfstatat,fstat,statx,flock,ioctl,poll,ppoll,fallocate,ftruncate,\
     pwrite64,pwritev,msync,fsync,fdatasync,sync_file_range,flistxattr,fgetxattr,fsetxattr,\
     fremovexattr,fchmod,fchown,linkat,renameat,renameat2,unlinkat,write";

/// What `commit` calls to replace a file whose attributes are those of a new one: from the last
/// `pwrite64` to the `write` that says it is published.
fn commit_of(path: &std::path::Path) -> Vec<String> {
    let file = path.join("file");
    let arguments = |how| ["once", file.to_str().unwrap(), "65536", "1", how].map(OsStr::new);
    let first = traced::run(PUBLISHER, &arguments("create"), SET, &[]);
    assert!(first.status.success(), "{}", first.output);
    let traced = traced::run(PUBLISHER, &arguments("replace"), SET, &[]);
    assert!(traced.status.success(), "{}", traced.output);
    committed(&traced)
}

fn committed(traced: &Traced) -> Vec<String> {
    let last_write = traced.calls.iter().rposition(|call| call.name == "pwrite64");
    let after = &traced.calls[last_write.map_or(0, |at| at + 1)..];
    after.iter().map(|call| call.name.clone()).take_while(|name| name != "write").collect()
}

/// What is found out about the file in place: that it is the one the draft was made for. Where times
/// tell less (before Linux 6.13, and on other filesystems), it is looked at again.
const LOOK: &str = "newfstatat";

#[test]
fn with_a_journal_or_a_log() {
    for kind in [KINDS[0], KINDS[2]] {
        let disk = Disk::new(kind);
        let expected = format!("fdatasync ioctl {LOOK} linkat renameat fsync");
        assert_eq!(commit_of(disk.path()).join(" "), expected, "{}", kind.name);
    }
}

#[test]
fn on_btrfs() {
    let disk = Disk::new(KINDS[3]);
    let expected = format!("fdatasync ioctl {LOOK} linkat renameat fsync");
    assert_eq!(commit_of(disk.path()).join(" "), expected);
}

#[test]
fn without_a_journal() {
    let disk = Disk::new(KINDS[1]);
    let expected = format!("fdatasync ioctl {LOOK} renameat2 fsync unlinkat");
    assert_eq!(commit_of(disk.path()).join(" "), expected);
}

#[test]
fn in_memory() {
    let disk = Filesystem::tmpfs(env!("CARGO_TARGET_TMPDIR"), 16 << 20);
    let file = disk.path().join("file");
    let arguments = ["once", file.to_str().unwrap(), "65536", "1", "replace"].map(OsStr::new);
    let traced = traced::run(PUBLISHER, &arguments, SET, &[]);
    assert!(traced.status.success(), "{}", traced.output);
    let names = committed(&traced);
    assert!(names.ends_with(&["newfstatat".to_owned(), "linkat".to_owned()]), "{names:?}");
}

/// The descriptors that are synced: the file's, then the directory's, and nothing else.
#[test]
fn what_is_synced_is_the_file_then_the_directory() {
    for (kind, after_the_name) in KINDS.iter().zip(["directory", "directory", "directory", "file"])
    {
        let disk = Disk::new(*kind);
        let file = disk.path().join("file");
        let arguments = ["once", file.to_str().unwrap(), "65536", "1", "replace"].map(OsStr::new);
        let set = "fallocate,fsync,fdatasync,linkat,renameat2,msync,sync_file_range";
        let calls = traced::run(PUBLISHER, &arguments, set, &[]).calls;
        let descriptor = |text: &str| {
            text.trim_start_matches('(')
                .chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
        };
        let of_file = calls.iter().find(|call| call.name == "fallocate").unwrap();
        let of_file = descriptor(&of_file.text);
        let syncs: Vec<&str> = calls
            .iter()
            .filter(|call| call.name.ends_with("sync"))
            .map(|call| if descriptor(&call.text) == of_file { "file" } else { "directory" })
            .collect();
        assert_eq!(syncs, ["file", after_the_name], "{}", kind.name);
    }
}
