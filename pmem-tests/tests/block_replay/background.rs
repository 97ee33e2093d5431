//! Filesystems commit by themselves: by a timer, or because somebody else syncs. Such a commit
//! makes names and sizes durable, and no data that is still in the page cache.
//!
//! # Safety
//!
//! Two ioctls of btrfs without a safe form. Each takes a pointer to one 64-bit number, which it
//! writes or reads (include/uapi/linux/btrfs.h).
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

const BTRFS_IOC_START_SYNC: libc::Ioctl = 0x8008_9418;
const BTRFS_IOC_WAIT_SYNC: libc::Ioctl = 0x4008_9416;

/// Makes the filesystem commit, by syncing a file that has nothing to do with the others. On ext4
/// and xfs that commits the journal up to now; on btrfs it would log that file alone, so there
/// the transaction is committed, as its timer does.
pub fn commit(tick: &Path) {
    let mut file = File::options().append(true).open(tick).expect("made before the workload");
    file.write_all(b"tick").expect("written");
    file.sync_all().expect("synced");
    let mut transaction = 0_u64;
    // SAFETY: the request writes one number, to a place of its size that outlives the call.
    let begun =
        unsafe { libc::ioctl(file.as_raw_fd(), BTRFS_IOC_START_SYNC, &raw mut transaction) };
    if begun != 0 {
        let error = io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY), "not btrfs, or it failed: {error}");
        return;
    }
    // SAFETY: the request reads one number, from a place of its size that outlives the call.
    let waited =
        unsafe { libc::ioctl(file.as_raw_fd(), BTRFS_IOC_WAIT_SYNC, &raw const transaction) };
    assert_eq!(waited, 0, "{}", io::Error::last_os_error());
}
