//! The open file of a region, with its advisory lock.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, FlockOperation};

use super::process;
use crate::error::{Error, ErrorKind, Operation};

/// Gives the lock up when it is dropped, and then closes the file.
///
/// Closing alone does not: a child that another thread is just starting has a duplicate until it
/// has executed its program, and the lock lasts as long as any duplicate (flock(2)). Whoever
/// reopened the region in that moment would be told of a writer that is not there.
#[derive(Debug)]
pub(super) struct Descriptor {
    fd: OwnedFd,
    /// A forked child shares the lock, and the one report of a write-back error that an open file
    /// gets. Neither is the child's to take.
    process: u64,
}

impl Descriptor {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd, process: process::mark() }
    }

    /// False in a forked child.
    #[inline]
    pub(super) fn is_ours(&self) -> bool {
        self.process == process::mark()
    }
}

/// What a forked child is told that would take what is its parent's.
pub(super) fn in_a_child(operation: Operation) -> Error {
    let why = "in a forked child: the region is its parent's, open it anew";
    Error::new(operation, ErrorKind::Unsupported(why))
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if self.is_ours() {
            // Without a lock this does nothing.
            let _ = fs::flock(&self.fd, FlockOperation::NonBlockingUnlock);
        }
    }
}
