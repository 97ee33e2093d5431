//! Drafts on a filesystem that has no room for them, or only just.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use daxmap::publish::Commit;
use daxmap::{Options, Region};
use pmem_tests::scratch::Filesystem;

use crate::{HERE, draft};

/// Free bytes of the filesystem, as it counts them.
fn free(directory: &Path) -> u64 {
    let space = rustix::fs::statvfs(directory).unwrap();
    space.f_bfree * space.f_frsize
}

#[test]
fn a_draft_that_finds_no_room_takes_none() {
    // Programs that are being started have a copy of every descriptor for a moment, so a failed
    // draft's file may outlive the draft.
    let ext4 = Filesystem::looped_with(HERE, "ext4", 64 << 20, "data=journal");
    let path = ext4.path().join("file");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    std::process::Command::new("true").status().unwrap();
                }
            });
        }
        let drafts = || {
            for number in 0..100 {
                // The second is as long as there is room, less what ext4 needs to note it.
                for len in [1 << 40, free(ext4.path())] {
                    let error = Options::new().len(len).draft(&path).unwrap_err();
                    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
                }
                draft(&path, number).commit(Commit::Replace).unwrap();
            }
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(drafts));
        done.store(true, Ordering::Release);
        result.unwrap();
    });
}

#[test]
fn a_draft_that_cannot_fit_fills_no_disk() {
    // Whoever else writes meanwhile finds room all the time.
    let ext4 = Filesystem::looped(HERE, "ext4", 64 << 20);
    let (path, done) = (ext4.path().join("file"), AtomicBool::new(false));
    let least = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut least = u64::MAX;
            while !done.load(Ordering::Acquire) {
                least = least.min(free(ext4.path()));
            }
            least
        });
        for _ in 0..50 {
            let error = Options::new().len(1 << 40).draft(&path).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
        }
        done.store(true, Ordering::Release);
        watcher.join().unwrap()
    });
    assert!(least > 32 << 20, "{least} bytes were free");
}

#[test]
fn space_that_was_just_freed_is_room() {
    for (kind, size, mount) in [
        ("ext4", 64, "data=journal"),
        ("ext4", 64, "nodelalloc"),
        ("xfs", 320, "noatime"),
        ("btrfs", 256, "noatime"),
    ] {
        let filesystem = Filesystem::looped_with(HERE, kind, size << 20, mount);
        let space = rustix::fs::statvfs(filesystem.path()).unwrap();
        let most = space.f_bavail * space.f_frsize / 10 * 7;
        let old = filesystem.path().join("old");
        // By another process: a child that a test beside this one is just starting would have
        // a copy of a descriptor of ours, and the space with it.
        let fill = format!("head -c {most} /dev/zero > '{}'", old.display());
        let filled = std::process::Command::new("sh").args(["-c", &fill]).status().unwrap();
        assert!(filled.success(), "{kind} {mount}");
        // The mount is known to the next draft, which so comes at once.
        let path = filesystem.path().join("file");
        drop(Options::new().len(1).draft(&path).unwrap());
        fs::remove_file(&old).unwrap();
        let draft = Options::new().len(most).draft(&path);
        drop(draft.unwrap_or_else(|error| panic!("{kind} {mount}: {error}")));
    }
}

/// Where space cannot be had without being written (ext4 with the maps of ext3), it is written.
#[test]
fn a_draft_where_no_space_is_unwritten_is_whole() {
    let ext3 = Filesystem::looped(HERE, "ext3", 64 << 20);
    let path = ext3.path().join("file");
    let draft = Options::new().len(3 << 20).draft(&path).unwrap();
    draft.write(5000, &[7; 100]).unwrap();
    draft.commit(Commit::CreateOnly).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 3 << 20);
    assert!(bytes[5000..5100].iter().all(|&byte| byte == 7));
    assert_eq!(bytes.iter().filter(|&&byte| byte != 0).count(), 100);
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&path).unwrap());
    assert!(blocks * 512 >= 3 << 20, "{blocks} blocks");
}
