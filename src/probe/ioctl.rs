//! Three questions that only an ioctl answers: the DAX flag of an inode, the extents of a file and
//! the UUID of a btrfs. All read only, and need no privilege.
//!
//! # Safety
//!
//! The danger here is the kernel writing past a buffer. Each structure is laid out as in the
//! kernel's header named beside it, with its size checked against the size the request number
//! carries.
#![allow(unsafe_code)]

use std::fmt::Write;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::extents::Extent;
use crate::fiemap;

/// `FS_IOC_FSGETXATTR` (include/uapi/linux/fs.h): `_IOR('X', 31, struct fsxattr)`.
const FS_IOC_FSGETXATTR: libc::Ioctl = 0x801c_581f_u32 as libc::Ioctl;
/// `FS_XFLAG_DAX` (include/uapi/linux/fs.h).
const FS_XFLAG_DAX: u32 = 0x8000;
/// `BTRFS_IOC_FS_INFO` (include/uapi/linux/btrfs.h): `_IOR(0x94, 31, ...)` with 1024 bytes.
const BTRFS_IOC_FS_INFO: libc::Ioctl = 0x8400_941f_u32 as libc::Ioctl;

/// A file in more pieces than that has no huge pages to speak of, and its list would take longer
/// than a probe may.
const EXTENTS_MAX: usize = 16 << 10;

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct FsXattr {
    xflags: u32,
    rest: [u32; 6],
}
const _: () = assert!(size_of::<FsXattr>() == (FS_IOC_FSGETXATTR >> 16 & 0x3fff) as usize);

/// `struct btrfs_ioctl_fs_info_args`.
#[repr(C)]
struct BtrfsFsInfo {
    max_id: u64,
    num_devices: u64,
    fsid: [u8; 16],
    rest: [u64; 124],
}
const _: () = assert!(size_of::<BtrfsFsInfo>() == (BTRFS_IOC_FS_INFO >> 16 & 0x3fff) as usize);

/// `FS_XFLAG_DAX` of a file or directory; `None` where the filesystem has no such flags.
///
/// # References
///
/// `ioctl_xfs_fsgetxattr(2)`; Documentation/filesystems/dax.rst.
pub(super) fn dax_flag(fd: BorrowedFd<'_>) -> Option<bool> {
    let mut attributes = FsXattr::default();
    // SAFETY: the request writes one `struct fsxattr`, whose size the assertion above compares.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut attributes) };
    (answer == 0).then_some(attributes.xflags & FS_XFLAG_DAX != 0)
}

/// The extents of a file in file order, as far as they have a place on the device; `None` if the
/// filesystem cannot say, or the file is in too many pieces. Does not write anything back first.
///
/// # References
///
/// Documentation/filesystems/fiemap.rst.
pub(super) fn extents(fd: BorrowedFd<'_>) -> Option<Vec<Extent>> {
    let mut out = Vec::new();
    let told = fiemap::extents(fd, 0..u64::MAX, |extent| {
        if extent.flags & fiemap::NO_PLACE == 0 {
            let (logical, physical, len) = (extent.logical, extent.physical, extent.length);
            out.push(Extent { logical, physical, len });
        }
        if out.len() > EXTENTS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    (told.is_ok() && out.len() <= EXTENTS_MAX).then_some(out)
}

/// The UUID of the btrfs that a file or directory lies on, as /sys/fs/btrfs spells it.
pub(super) fn btrfs_uuid(fd: BorrowedFd<'_>) -> Option<String> {
    let mut info = BtrfsFsInfo { max_id: 0, num_devices: 0, fsid: [0; 16], rest: [0; 124] };
    // SAFETY: the request writes one `struct btrfs_ioctl_fs_info_args`, whose size the assertion
    // above compares.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), BTRFS_IOC_FS_INFO, &raw mut info) };
    if answer != 0 {
        return None;
    }
    let mut uuid = String::with_capacity(36);
    for (i, byte) in info.fsid.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            uuid.push('-');
        }
        let _ = write!(uuid, "{byte:02x}");
    }
    Some(uuid)
}
