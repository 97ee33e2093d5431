//! The flag of an inode that asks for DAX on a filesystem mounted `dax=inode`.
//!
//! # Safety
//!
//! The danger here is the kernel writing past a buffer: the structure is laid out as in
//! include/uapi/linux/fs.h, with its size checked against the size in the request numbers.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// `FS_IOC_FSGETXATTR` (include/uapi/linux/fs.h): `_IOR('X', 31, struct fsxattr)`.
const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
/// `FS_IOC_FSSETXATTR` (include/uapi/linux/fs.h): `_IOW('X', 32, struct fsxattr)`.
const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;
/// `FS_XFLAG_DAX` (include/uapi/linux/fs.h).
const FS_XFLAG_DAX: u32 = 0x8000;

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct FsXattr {
    xflags: u32,
    rest: [u32; 6],
}
const _: () = assert!(size_of::<FsXattr>() == (FS_IOC_FSGETXATTR >> 16 & 0x3fff) as usize);
const _: () = assert!(size_of::<FsXattr>() == (FS_IOC_FSSETXATTR >> 16 & 0x3fff) as usize);

/// Whether the flag is set; `None` where the filesystem has no such flags.
///
/// # References
///
/// `ioctl_xfs_fsgetxattr(2)`; Documentation/filesystems/dax.rst.
pub(super) fn get(fd: BorrowedFd<'_>) -> Option<bool> {
    attributes(fd).ok().map(|attributes| attributes.xflags & FS_XFLAG_DAX != 0)
}

/// Sets or clears the flag. A file that is open goes on as it was until its last close.
///
/// # References
///
/// As [`get`].
pub(super) fn set(fd: BorrowedFd<'_>, on: bool) -> Result<(), Errno> {
    let mut attributes = attributes(fd)?;
    attributes.xflags &= !FS_XFLAG_DAX;
    attributes.xflags |= if on { FS_XFLAG_DAX } else { 0 };
    // SAFETY: the request reads one `struct fsxattr`.
    let answer =
        unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FSSETXATTR.into(), &raw const attributes) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

fn attributes(fd: BorrowedFd<'_>) -> Result<FsXattr, Errno> {
    let mut attributes = FsXattr::default();
    // SAFETY: the request writes one `struct fsxattr`, whose size the assertion above compares.
    let answer =
        unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FSGETXATTR.into(), &raw mut attributes) };
    if answer == 0 { Ok(attributes) } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
