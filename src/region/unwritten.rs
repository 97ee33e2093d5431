//! Which parts of a file are allocated but were never written.
//!
//! # Safety
//!
//! The danger here is the kernel writing past a buffer: the structure is laid out as in
//! include/uapi/linux/fiemap.h, with its size checked against the size in the request number.
#![allow(unsafe_code)]

use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// `FS_IOC_FIEMAP` (include/uapi/linux/fs.h): `_IOWR('f', 11, struct fiemap)`.
const FS_IOC_FIEMAP: u32 = 0xc020_660b;
/// `FIEMAP_EXTENT_LAST` and `FIEMAP_EXTENT_UNWRITTEN` (include/uapi/linux/fiemap.h).
const LAST: u32 = 0x1;
const UNWRITTEN: u32 = 0x800;
/// Extents asked for at a time. A fresh file has a few.
const BATCH: usize = 32;

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
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

/// The parts of the first `len` bytes that hold no written blocks: unwritten extents and holes.
/// Bytes still in the page cache do not count as written: sync first.
///
/// # Errors
///
/// `EOPNOTSUPP` and the like where the filesystem cannot say.
///
/// # References
///
/// Documentation/filesystems/fiemap.rst.
pub(super) fn unwritten(fd: BorrowedFd<'_>, len: u64) -> Result<Vec<Range<u64>>, Errno> {
    let mut parts = Parts { found: Vec::new(), written_to: 0 };
    let mut start = 0;
    while start < len {
        let mut request = Request {
            start,
            length: len - start,
            flags: 0,
            mapped_extents: 0,
            extent_count: BATCH as u32,
            reserved: 0,
            extents: [Extent::default(); BATCH],
        };
        // SAFETY: the request reads and writes the header, and writes at most `extent_count`
        // extents behind it, for which there is room; the assertions above compare both layouts.
        let answer = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FIEMAP.into(), &raw mut request) };
        if answer != 0 {
            let error = std::io::Error::last_os_error();
            return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        }
        let extents = request.extents.get(..request.mapped_extents as usize).ok_or(Errno::IO)?;
        for extent in extents.iter().filter(|extent| extent.flags & UNWRITTEN == 0) {
            parts.written(extent.logical, extent.logical.saturating_add(extent.length), len);
        }
        match extents.last() {
            Some(last) if last.flags & LAST == 0 && last.length > 0 => {
                start = last.logical.saturating_add(last.length);
            }
            _ => break,
        }
    }
    parts.written(len, len, len);
    Ok(parts.found)
}

/// What lies between the written extents, which come in file order.
struct Parts {
    found: Vec<Range<u64>>,
    written_to: u64,
}

impl Parts {
    fn written(&mut self, from: u64, to: u64, len: u64) {
        let from = from.min(len);
        if from > self.written_to {
            self.found.push(self.written_to..from);
        }
        self.written_to = self.written_to.max(to.min(len));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between() {
        let mut parts = Parts { found: Vec::new(), written_to: 0 };
        for (from, to) in [(10, 20), (20, 30), (25, 28), (40, 90)] {
            parts.written(from, to, 60);
        }
        parts.written(60, 60, 60);
        assert_eq!(parts.found, vec![0..10, 30..40]);
        let mut nothing = Parts { found: Vec::new(), written_to: 0 };
        nothing.written(60, 60, 60);
        assert_eq!(nothing.found.first(), Some(&(0..60)));
    }
}
