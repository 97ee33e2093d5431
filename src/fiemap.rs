//! The extents of a file, as its filesystem tells them (FIEMAP). Reads only, and needs no privilege.
//!
//! # Safety
//!
//! The danger here is the kernel writing past a buffer: the structures are laid out as in
//! include/uapi/linux/fiemap.h, with their size checked against the size in the request number.
#![allow(unsafe_code)]

use std::ops::{ControlFlow, Range};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// `FS_IOC_FIEMAP` (include/uapi/linux/fs.h): `_IOWR('f', 11, struct fiemap)`.
const FS_IOC_FIEMAP: libc::Ioctl = 0xc020_660b_u32 as libc::Ioctl;
/// `FIEMAP_EXTENT_LAST`.
const LAST: u32 = 0x1;
/// `FIEMAP_EXTENT_UNWRITTEN`: allocated, and never written.
pub(crate) const UNWRITTEN: u32 = 0x800;
/// `FIEMAP_EXTENT_SHARED`: another file has the same blocks.
pub(crate) const SHARED: u32 = 0x2000;
/// `FIEMAP_EXTENT_UNKNOWN`, `DELALLOC`, `ENCODED`, `DATA_INLINE`: not at a place of its own on the
/// device.
pub(crate) const NO_PLACE: u32 = 0x2 | 0x4 | 0x8 | 0x200;
/// Extents asked for at a time. A fresh file has a few.
const BATCH: usize = 64;

/// `struct fiemap_extent`. Offsets and length in bytes.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Extent {
    /// In the file.
    pub(crate) logical: u64,
    /// On the device.
    pub(crate) physical: u64,
    pub(crate) length: u64,
    reserved64: [u64; 2],
    /// [`UNWRITTEN`] and others.
    pub(crate) flags: u32,
    reserved: [u32; 3],
}
const _: () = assert!(size_of::<Extent>() == 56);

/// `struct fiemap` with room for a batch.
#[repr(C)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [Extent; BATCH],
}
const _: () =
    assert!(std::mem::offset_of!(Request, extents) == (FS_IOC_FIEMAP >> 16 & 0x3fff) as usize);

/// Calls `each` for the extents that touch a part of the file, in file order, until it breaks.
/// Nothing is written back first: what is only in the page cache has no extent yet, or one that
/// counts as unwritten.
///
/// # Errors
///
/// `EOPNOTSUPP` and the like where the filesystem cannot say.
///
/// # References
///
/// Documentation/filesystems/fiemap.rst.
pub(crate) fn extents(
    fd: BorrowedFd<'_>,
    part: Range<u64>,
    mut each: impl FnMut(&Extent) -> ControlFlow<()>,
) -> Result<(), Errno> {
    let mut start = part.start;
    while start < part.end {
        let mut request = Request {
            start,
            length: part.end - start,
            flags: 0,
            mapped_extents: 0,
            extent_count: BATCH as u32,
            reserved: 0,
            extents: [Extent::default(); BATCH],
        };
        // SAFETY: the request reads and writes the header, and writes at most `extent_count`
        // extents behind it, for which there is room; the assertions above compare both layouts.
        let answer = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FIEMAP, &raw mut request) };
        if answer != 0 {
            let error = std::io::Error::last_os_error();
            return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        }
        let found = request.extents.get(..request.mapped_extents as usize).ok_or(Errno::IO)?;
        if found.iter().try_for_each(&mut each).is_break() {
            break;
        }
        let Some(last) = found.last().filter(|last| last.flags & LAST == 0) else { break };
        let next = last.logical.saturating_add(last.length);
        if next <= start {
            break;
        }
        start = next;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use super::*;

    /// include/uapi/linux/fiemap.h.
    #[test]
    fn flags_are_those_of_the_kernel() {
        for without in [0x2, 0x4, 0x8, 0x200] {
            assert_ne!(NO_PLACE & without, 0, "{without:#x}");
        }
        for with in [LAST, 0x80, 0x100, 0x400, UNWRITTEN, 0x1000, 0x2000] {
            assert_eq!(NO_PLACE & with, 0, "{with:#x}");
        }
    }

    const BLOCK: u64 = 64 << 10;

    /// A file with holes between its blocks, on a filesystem that can say so: the source's.
    fn with_holes(blocks: u64) -> File {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        for block in 0..blocks {
            file.write_all_at(&[1; 512], 2 * block * BLOCK).unwrap();
        }
        file.sync_all().unwrap();
        file
    }

    fn starts(file: &File, part: Range<u64>) -> Vec<u64> {
        let mut starts = Vec::new();
        extents(file.as_fd(), part, |extent| {
            starts.push(extent.logical);
            ControlFlow::Continue(())
        })
        .unwrap();
        starts
    }

    #[test]
    fn more_than_fit_a_request_come_once_each_and_in_order() {
        for blocks in [1, BATCH as u64, BATCH as u64 + 1, 3 * BATCH as u64 + 5] {
            let file = with_holes(blocks);
            let all: Vec<u64> = (0..blocks).map(|block| 2 * block * BLOCK).collect();
            assert_eq!(starts(&file, 0..u64::MAX), all);
            let end = 2 * blocks * BLOCK;
            assert_eq!(starts(&file, 0..end), all);
            // Of a part, what touches it.
            let half = blocks / 2;
            assert_eq!(starts(&file, 0..2 * half * BLOCK), all[..half as usize]);
            assert_eq!(starts(&file, 2 * half * BLOCK..end), all[half as usize..]);
        }
        assert!(starts(&with_holes(3), 5..5).is_empty());
    }

    #[test]
    fn it_ends_when_told_to() {
        let file = with_holes(2 * BATCH as u64);
        let mut seen = 0;
        let until_enough = |_: &Extent| {
            seen += 1;
            if seen == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        extents(file.as_fd(), 0..u64::MAX, until_enough).unwrap();
        assert_eq!(seen, 7);
    }
}
