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
use std::os::fd::{AsRawFd, BorrowedFd};

use super::extents::Extent;

/// `FS_IOC_FSGETXATTR` (include/uapi/linux/fs.h): `_IOR('X', 31, struct fsxattr)`.
const FS_IOC_FSGETXATTR: libc::Ioctl = 0x801c_581f_u32 as libc::Ioctl;
/// `FS_XFLAG_DAX` (include/uapi/linux/fs.h).
const FS_XFLAG_DAX: u32 = 0x8000;
/// `FS_IOC_FIEMAP` (include/uapi/linux/fs.h): `_IOWR('f', 11, struct fiemap)`.
const FS_IOC_FIEMAP: libc::Ioctl = 0xc020_660b_u32 as libc::Ioctl;
/// `BTRFS_IOC_FS_INFO` (include/uapi/linux/btrfs.h): `_IOR(0x94, 31, ...)` with 1024 bytes.
const BTRFS_IOC_FS_INFO: libc::Ioctl = 0x8400_941f_u32 as libc::Ioctl;

/// Extents without a place on the device: `UNKNOWN`, `DELALLOC`, `ENCODED`, `DATA_INLINE`
/// (include/uapi/linux/fiemap.h).
const FIEMAP_EXTENT_NO_PLACE: u32 = 0x2 | 0x4 | 0x8 | 0x200;
const FIEMAP_EXTENT_LAST: u32 = 0x1;

/// Extents asked for at a time, and at most: a file in more pieces than that has no huge pages to
/// speak of, and its list would take longer than a probe may.
const BATCH: usize = 128;
const EXTENTS_MAX: usize = 16 << 10;

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct FsXattr {
    xflags: u32,
    rest: [u32; 6],
}
const _: () = assert!(size_of::<FsXattr>() == (FS_IOC_FSGETXATTR >> 16 & 0x3fff) as usize);

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FiemapExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}
const _: () = assert!(size_of::<FiemapExtent>() == 56);

/// `struct fiemap` with room for a batch.
#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [FiemapExtent; BATCH],
}
const FIEMAP_HEADER_BYTES: usize = (FS_IOC_FIEMAP >> 16 & 0x3fff) as usize;
const _: () = assert!(std::mem::offset_of!(Fiemap, extents) == FIEMAP_HEADER_BYTES);

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
    let mut start = 0;
    loop {
        let mut map = Fiemap {
            start,
            length: u64::MAX - start,
            flags: 0,
            mapped_extents: 0,
            extent_count: BATCH as u32,
            reserved: 0,
            extents: [FiemapExtent::default(); BATCH],
        };
        // SAFETY: the request reads and writes the header, and writes at most `extent_count` extents
        // after it, for which `extents` has room; the assertions above compare both layouts.
        let answer = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FIEMAP, &raw mut map) };
        if answer != 0 {
            return None;
        }
        let found = map.extents.get(..map.mapped_extents as usize)?;
        let Some(last) = found.last() else { return Some(out) };
        out.extend(found.iter().filter(|extent| extent.flags & FIEMAP_EXTENT_NO_PLACE == 0).map(
            |extent| Extent {
                logical: extent.logical,
                physical: extent.physical,
                len: extent.length,
            },
        ));
        let next = last.logical.saturating_add(last.length);
        if last.flags & FIEMAP_EXTENT_LAST != 0 || next <= start || next == u64::MAX {
            return Some(out);
        }
        if out.len() > EXTENTS_MAX {
            return None;
        }
        start = next;
    }
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
