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
        let expected = format!("statx fdatasync {LOOK} linkat renameat fsync");
        assert_eq!(commit_of(disk.path()).join(" "), expected, "{}", kind.name);
    }
}

#[test]
fn on_btrfs() {
    let disk = Disk::new(KINDS[3]);
    let expected = format!("statx fdatasync {LOOK} linkat renameat fsync");
    assert_eq!(commit_of(disk.path()).join(" "), expected);
}

#[test]
fn without_a_journal() {
    let disk = Disk::new(KINDS[1]);
    let expected = format!("statx fdatasync {LOOK} renameat2 fsync unlinkat");
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

/// The calls of a draft and its commit over a file in place, in a program that publishes all the time:
/// all of them, those of the caller's own writes left out, and apart from them those that ask
/// whether the level is still what it was.
fn steady(path: &std::path::Path) -> (Vec<String>, usize) {
    const VERSIONS: usize = 6;
    let file = path.join("file");
    let count = VERSIONS.to_string();
    let arguments = ["times", file.to_str().unwrap(), "65536", &count].map(OsStr::new);
    let traced = traced::run(PUBLISHER, &arguments, "all", &[]);
    assert!(traced.status.success(), "{}", traced.output);
    // From one line that says that a version is published to the next.
    let said =
        |at: &usize| traced.calls[*at].name == "write" && traced.calls[*at].text.starts_with("(1,");
    let lines: Vec<usize> = (0..traced.calls.len()).filter(said).collect();
    let calls = &traced.calls[lines[VERSIONS - 2] + 1..lines[VERSIONS - 1]];
    // What the region before this one gave back.
    let begins = calls.iter().position(|call| call.name.starts_with("open")).unwrap();
    let asks = |call: &&traced::Call| {
        call.name.ends_with("poll")
            || call.name == "statx" && call.text.contains("AT_STATX_DONT_SYNC")
    };
    let calls = &calls[begins..];
    // The caller's writes, each of which asks for the length first. (A debug build of the standard library
    // asks before it closes.)
    let writes = |at: usize| {
        let next = calls.get(at + 1).is_some_and(|next| next.name == "pwrite64");
        calls[at].name == "pwrite64" || calls[at].name == "statx" && next
    };
    let own = |at: &usize| !asks(&&calls[*at]) && !writes(*at) && calls[*at].name != "fcntl";
    let names = (0..calls.len()).filter(own).map(|at| calls[at].name.clone()).collect();
    (names, calls.iter().filter(asks).count())
}

/// With every one of its calls, in their order: the directory and what it has of the name; the draft and
/// its lock; what the file in place hands on, which Linux 6.17 tells without opening it, and what the
/// directory gave to the draft; the limit on lengths, and space. Then the length, the data, the file in
/// place once more, and the name. (465 is listxattrat(2), 468 is file_getattr(2).)
const STEADY: &str = "open newfstatat openat flock syscall_0x1d1 syscall_0x1d4 flistxattr prlimit64 \
     fallocate statx fdatasync newfstatat linkat renameat fsync close";

#[test]
fn a_draft_and_its_commit_take_sixteen_system_calls() {
    let disk = Disk::new(KINDS[0]);
    let (calls, asked) = steady(disk.path());
    assert_eq!(asked, 2, "which mount, and whether the table of mounts has changed");
    let mut all: Vec<String> = calls;
    // An older kernel does not know the two, a newer strace knows their names.
    for (name, number) in [("listxattrat", "syscall_0x1d1"), ("file_getattr", "syscall_0x1d4")] {
        all.iter_mut().filter(|call| *call == name).for_each(|call| number.clone_into(call));
    }
    if all.iter().any(|call| call == "syscall_0x1d4") {
        assert_eq!(all.join(" "), STEADY);
        assert_eq!(all.len(), 16);
    } else {
        assert!(all.len() <= 18, "{} calls: {}", all.len(), all.join(" "));
    }
}
