//! Temporary names that a crash or a killed process left in a directory.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;
use crate::region::calls;
use crate::region::draft::{is_temporary, lock};

/// What [`clean_leftovers`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftovers {
    /// Drafts that nobody had, and that are gone now.
    pub removed: usize,
    /// Drafts that a live process is working on.
    pub in_use: usize,
    /// Drafts that this process may not open or remove, or cannot tell to be free, because the
    /// filesystem has no locks.
    pub denied: usize,
}

/// Removes the drafts in a directory that no live process holds: regular files named
/// `.daxmap-draft-` and sixteen hexadecimal digits, not locked. Every draft is locked (flock(2))
/// for as long as its process lives.
///
/// Safe at any time, while others publish in the same directory too. A program calls it when it
/// starts, if at all: a leftover takes up space and nothing else.
///
/// # Errors
///
/// `Os` if the directory cannot be opened or read. What stands in the way of one leftover is
/// counted, and the next one is looked at.
pub fn clean_leftovers(directory: impl AsRef<Path>) -> Result<Leftovers> {
    let path = directory.as_ref();
    let failed = |call| move |errno| Error::os(Operation::Open, call, errno).at(path);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = calls::open(path, flags, Mode::empty()).map_err(failed("open"))?;
    let mut leftovers = Leftovers::default();
    let mut meet = |name: &CStr| {
        if !is_temporary(name.to_bytes()) {
            return;
        }
        match remove(directory.as_fd(), OsStr::from_bytes(name.to_bytes())) {
            Ok(Fate::Removed) => leftovers.removed += 1,
            Ok(Fate::InUse) => leftovers.in_use += 1,
            Ok(Fate::NotADraft) => {}
            Err(_) => leftovers.denied += 1,
        }
    };
    calls::each_name(directory.as_fd(), &mut meet).map_err(failed("getdents64"))?;
    Ok(leftovers)
}

enum Fate {
    Removed,
    InUse,
    NotADraft,
}

fn remove(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Fate> {
    let failed = |call| move |errno| Error::os(Operation::Publish, call, errno);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let found = match calls::statat(directory, name) {
        Err(Errno::NOENT) => return Ok(Fate::NotADraft),
        result => result.map_err(failed("fstatat"))?,
    };
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Ok(Fate::NotADraft);
    }
    let fd = match calls::openat(directory, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Fate::NotADraft),
        result => result.map_err(failed("openat"))?,
    };
    match lock(fd.as_fd()) {
        Err(error) if matches!(error.kind(), ErrorKind::Locked) => return Ok(Fate::InUse),
        result => result?,
    }
    // Its process may have published it between the open and the lock, and then closed it: the
    // file that is locked must be the one that has the name.
    let locked = calls::fstat(fd.as_fd()).map_err(failed("fstat"))?;
    match calls::statat(directory, name) {
        Ok(named) if (named.st_dev, named.st_ino) == (locked.st_dev, locked.st_ino) => {
            // It may be an old version on its way out, whose place has been taken and not synced:
            // where there is no journal, it must not lose its last name before that.
            primitive!("leftovers.sync_first", calls::fsync_directory(directory), Ok(()))
                .map_err(failed("fsync of the directory"))?;
            calls::unlinkat(directory, name).map_err(failed("unlinkat"))?;
            Ok(Fate::Removed)
        }
        _ => Ok(Fate::NotADraft),
    }
}
