//! The trial mapping, which alone decides whether a file is durable through CPU write-backs.
//!
//! # Safety
//!
//! The danger here is a mapping placed over memory in use, or one that outlives its use. The kernel
//! chooses the address, nothing is read or written through it, and it is removed before the
//! function returns.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::ptr;

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::report::MapSync;

/// Maps `len` bytes from the start of the file with `MAP_SHARED_VALIDATE | MAP_SYNC` and removes the
/// mapping. `PROT_READ` is enough: the kernel checks flags, file and device before protection, and
/// a file of no length can be mapped as well.
///
/// Answers of the kernel (mm/mmap.c `do_mmap`, include/linux/dax.h `daxdev_mapping_supported`):
/// `EOPNOTSUPP` if the filesystem has no `MAP_SYNC`, the file is not DAX or its device flushes
/// asynchronously; `EINVAL` from kernels before 4.15, which know no `MAP_SHARED_VALIDATE`.
///
/// # References
///
/// mmap(2), `MAP_SYNC` and `MAP_SHARED_VALIDATE`.
pub(crate) fn map_sync(fd: BorrowedFd<'_>, len: usize) -> MapSync {
    let flags = MapFlags::SHARED_VALIDATE | MapFlags::SYNC;
    // SAFETY: a null address without MAP_FIXED lets the kernel choose a range that is not in use.
    let mapped = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ, flags, fd, 0) };
    match mapped {
        Ok(address) => {
            // SAFETY: `address` and `len` are those of the mapping just made, and no pointer or
            // reference into it was derived. A failure leaves an unused mapping behind.
            let _ = unsafe { munmap(address, len) };
            MapSync::Accepted
        }
        Err(errno @ (Errno::OPNOTSUPP | Errno::INVAL | Errno::NODEV)) => {
            MapSync::Refused(errno.raw_os_error())
        }
        Err(errno) => MapSync::NotTried(errno.raw_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// Memory has no `MAP_SYNC`, and says so by the errno of mmap(2). (QEMU's user mode has words of
    /// its own.)
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn what_is_no_persistent_memory_is_refused() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        let refused = MapSync::Refused(Errno::OPNOTSUPP.raw_os_error());
        assert_eq!(map_sync(file.as_fd(), 4096), refused);
    }
}
