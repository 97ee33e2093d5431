//! What a file has that is neither mode nor extended attribute: the DAX flag, the project id of a
//! quota, and btrfs' flag against copy-on-write.
//!
//! # Safety
//!
//! The danger here is the kernel writing past a buffer: the structure is laid out as in
//! include/uapi/linux/fs.h, with its size checked against the size in the request numbers; flags are
//! a `long` by their request number, of which the kernel reads and writes an `int`.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// `FS_IOC_FSGETXATTR` (include/uapi/linux/fs.h): `_IOR('X', 31, struct fsxattr)`.
const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
/// `FS_IOC_FSSETXATTR` (include/uapi/linux/fs.h): `_IOW('X', 32, struct fsxattr)`.
const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;
/// `FS_XFLAG_DAX` and `FS_XFLAG_PROJINHERIT` (include/uapi/linux/fs.h).
const FS_XFLAG_DAX: u32 = 0x8000;
/// `FS_XFLAG_HASATTR` (include/uapi/linux/fs.h).
pub(super) const HAS_ATTRIBUTES: u64 = 0x8000_0000;
const FS_XFLAG_PROJINHERIT: u32 = 0x200;
/// `FS_IOC_GETFLAGS`, `FS_IOC_SETFLAGS` and `FS_NOCOW_FL` (include/uapi/linux/fs.h).
const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
const FS_NOCOW_FL: u64 = 0x0080_0000;

/// `struct fsxattr`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Extended {
    xflags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u32; 2],
}
const _: () = assert!(size_of::<Extended>() == (FS_IOC_FSGETXATTR >> 16 & 0x3fff) as usize);
const _: () = assert!(size_of::<Extended>() == (FS_IOC_FSSETXATTR >> 16 & 0x3fff) as usize);

impl Extended {
    /// The file's; an error where the filesystem has none.
    ///
    /// # References
    ///
    /// `ioctl_xfs_fsgetxattr(2)`; Documentation/filesystems/dax.rst.
    pub(super) fn of(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mut found = Self::default();
        // SAFETY: the request writes one `struct fsxattr`, whose size the assertion above compares.
        let answer =
            unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FSGETXATTR.into(), &raw mut found) };
        if answer == 0 { Ok(found) } else { Err(last_errno()) }
    }

    fn set(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        // SAFETY: the request reads one `struct fsxattr`.
        let answer =
            unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FSSETXATTR.into(), &raw const *self) };
        if answer == 0 { Ok(()) } else { Err(last_errno()) }
    }

    /// Whether DAX is asked for, on a filesystem mounted `dax=inode`.
    pub(super) fn dax(&self) -> bool {
        self.xflags & FS_XFLAG_DAX != 0
    }

    /// Sets or clears the file's DAX flag. A file that is open goes on as it was until its last
    /// close.
    pub(super) fn set_dax(mut self, fd: BorrowedFd<'_>, on: bool) -> Result<(), Errno> {
        self.xflags &= !FS_XFLAG_DAX;
        self.xflags |= if on { FS_XFLAG_DAX } else { 0 };
        self.set(fd)
    }

    /// The id under which the file's space is counted.
    pub(super) fn project(&self) -> u32 {
        self.project
    }

    /// A directory whose files must have its own project: link and rename refuse others (EXDEV).
    pub(super) fn imposes_project(&self) -> bool {
        self.xflags & FS_XFLAG_PROJINHERIT != 0
    }

    /// Counts the file under another project.
    pub(super) fn set_project(mut self, fd: BorrowedFd<'_>, project: u32) -> Result<(), Errno> {
        self.project = project;
        self.set(fd)
    }
}

/// Whether the file is overwritten in place, without checksums (chattr(1), `C`).
pub(super) fn no_cow(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    flags(fd).map(|flags| flags & FS_NOCOW_FL != 0)
}

/// Sets or clears that flag, of an empty file.
pub(super) fn set_no_cow(fd: BorrowedFd<'_>, on: bool) -> Result<(), Errno> {
    let flags = flags(fd)? & !FS_NOCOW_FL | if on { FS_NOCOW_FL } else { 0 };
    // SAFETY: the request reads an int, or a long by its number; this is as long as either.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_SETFLAGS.into(), &raw const flags) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

fn flags(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut flags = 0_u64;
    // SAFETY: the request writes an int, or a long by its number; this has room for either.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_GETFLAGS.into(), &raw mut flags) };
    if answer == 0 { Ok(flags) } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
