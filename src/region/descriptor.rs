//! The open file of a region, with its advisory lock.
//!
//! # Safety
//!
//! A forked child must be told from its parent at every drain, without a system call: by a page of
//! memory that the kernel clears in the child (madvise(2), `MADV_WIPEONFORK`). This module maps it
//! once, never unmaps it, and accesses it as an atomic only.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, FlockOperation};
use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, ProtFlags};

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
        Self { fd, process: process() }
    }

    /// False in a forked child. No system call where the kernel marks children (Linux 4.14).
    #[inline]
    pub(super) fn is_ours(&self) -> bool {
        self.process == process()
    }
}

/// A number for this process that its forked children do not have.
#[inline]
fn process() -> u64 {
    static MARK: OnceLock<Option<&'static AtomicU64>> = OnceLock::new();
    let Some(mark) = MARK.get_or_init(|| wiped_on_fork().ok()) else {
        return std::process::id().into();
    };
    match mark.load(Ordering::Relaxed) {
        // The first look, or the first in a child.
        0 => {
            let own = u64::from(std::process::id());
            mark.store(own, Ordering::Relaxed);
            own
        }
        own => own,
    }
}

/// A word that is 0 at first, and again in every forked child.
fn wiped_on_fork() -> Result<&'static AtomicU64, Errno> {
    let len = rustix::param::page_size();
    // SAFETY: a new private anonymous mapping at an address of the kernel's choice, and advice on
    // that mapping alone.
    unsafe {
        let page = mm::mmap_anonymous(
            ptr::null_mut(),
            len,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )?;
        if let Err(errno) = mm::madvise(page, len, Advice::LinuxWipeOnFork) {
            let _ = mm::munmap(page, len);
            return Err(errno);
        }
        // Page-aligned, zero, mapped until the process ends, and accessed as this atomic only.
        Ok(AtomicU64::from_ptr(page.cast()))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_is_told_from_its_parent() {
        let file = fs::memfd_create("descriptor", fs::MemfdFlags::CLOEXEC).expect("memfd_create");
        let descriptor = Descriptor::new(file);
        assert!(descriptor.is_ours());
        // SAFETY: the child calls nothing that is not async-signal-safe.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let twice = descriptor.is_ours() || descriptor.is_ours();
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(twice)) };
        }
        let mut status = 0;
        // SAFETY: waits for the child just made.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
        assert!(descriptor.is_ours(), "the parent stays the parent");
        assert!(wiped_on_fork().is_ok(), "this kernel marks children");
    }
}
