//! What the process may not have: address space, locks, copies by the kernel.

use std::path::Path;
use std::process::Command;

use daxmap::publish::clean_leftovers;
use daxmap::{Options, Region};
use pmem_tests::failing::with_failing;
use pmem_tests::scratch::{Directory, Filesystem};
use pmem_tests::snapshot::Snapshot;

use crate::{HERE, MIB, refused, without_unnamed_files};

/// Not a test of its own: with the variable set it is the process of the next one.
#[test]
#[allow(unsafe_code)]
fn process_with_little_address_space() {
    let Some(directory) = std::env::var_os("DAXMAP_LITTLE_SPACE") else { return };
    let path = Path::new(&directory).join("region");
    let limit = libc::rlimit { rlim_cur: 2 << 30, rlim_max: 2 << 30 };
    // SAFETY: reads a structure; the limit is this process's own.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    // No room to grow was asked for: less is reserved than there usually is.
    let region = Options::new().len(MIB).create(&path).expect("there is room for the region");
    region.write_persist(MIB - 5, b"works").expect("write");
    drop(region);
    let region = Options::new().open(&path).expect("there is room for the region");
    let mut found = [0; 5];
    region.read(MIB - 5, &mut found).expect("read");
    assert_eq!(&found, b"works");
    drop(region);
    // It was asked for.
    let before = Snapshot::of(Path::new(&directory));
    let grows = Options::new().len(MIB).max_len(1 << 40);
    let new = Path::new(&directory).join("new");
    refused(grows.create(&new), &new, libc::ENOMEM);
    refused(Options::new().max_len(1 << 40).open(&path), &path, libc::ENOMEM);
    before.assert_unchanged(Path::new(&directory), "max_len");
}

/// `ulimit -v`: the room to grow that nobody asked for is given up, the rest is an error.
#[test]
fn little_address_space() {
    let disk = Directory::new(HERE);
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "refused::process_with_little_address_space", "--test-threads=1"])
        .env("DAXMAP_LITTLE_SPACE", disk.path())
        .output()
        .expect("the test program runs");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

/// Without locks: a region that is not to be locked needs none, and what may be somebody's is not
/// removed.
#[test]
fn without_locks() {
    let disk = Directory::new(HERE);
    let directory = disk.path();
    let options = Options::new().len(100_000);
    let made = without_unnamed_files(|| {
        with_failing(libc::SYS_flock, libc::ENOLCK, || {
            let path = directory.join("required");
            refused(options.create(&path), &path, libc::ENOLCK);
            refused(options.draft(&path), &path, libc::ENOLCK);
            let draft = options.clone().lock(false).draft(directory.join("draft"));
            drop(draft.expect("no lock is asked for"));
            options.clone().lock(false).create(directory.join("not locked"))
        })
    });
    let region = made.expect("no lock is asked for");
    region.write_persist(0, b"works").expect("the region can be written");
    drop(region);

    let draft = without_unnamed_files(|| options.draft(directory.join("in use"))).expect("a draft");
    let before = Snapshot::of(directory);
    let cleaned = with_failing(libc::SYS_flock, libc::ENOLCK, || clean_leftovers(directory));
    let cleaned = cleaned.expect("what cannot be known is left alone");
    assert_eq!((cleaned.removed, cleaned.in_use, cleaned.denied), (0, 0, 1), "{cleaned:?}");
    before.assert_unchanged(directory, "clean_leftovers");
    let cleaned = clean_leftovers(directory).expect("a draft in use is left alone");
    assert_eq!((cleaned.removed, cleaned.in_use, cleaned.denied), (0, 1, 0), "{cleaned:?}");
    before.assert_unchanged(directory, "clean_leftovers");
    drop(draft);
}

/// Unguarded, the kernel makes the copies; a sandbox that forbids them is told before there is a file.
#[test]
fn a_kernel_that_makes_no_copies() {
    let memory = Filesystem::tmpfs(HERE, 16 * MIB);
    let path = memory.path().join("new");
    let before = Snapshot::of(memory.path());
    let create = || Options::new().len(100_000).fault_guard(false).create(&path);
    let created = with_failing(libc::SYS_process_vm_readv, libc::EPERM, create);
    refused(created, &path, libc::EPERM);
    before.assert_unchanged(memory.path(), "process_vm_readv");
    create().expect("where they are allowed");
}
