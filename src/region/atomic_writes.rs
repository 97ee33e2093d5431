//! What does the kernel offer for pages that are written whole?
//!
//! `RWF_ATOMIC` (pwritev2(2), Linux 6.11): after a crash, all of the write is there or nothing of it.
//! Kernel, filesystem and device have to offer it: a file that does not carry the mark
//! `FMODE_CAN_ATOMIC_WRITE` is refused with EOPNOTSUPP, and so are cached writes
//! (`kiocb_set_rw_flags`, include/linux/fs.h; `generic_atomic_write_valid`, fs/read_write.c). A length
//! outside the file's units, or an offset that is no multiple of it, is EINVAL.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::{self, Errno, ReadWriteFlags, Result};

/// `STATX_WRITE_ATOMIC` and `STATX_DIOALIGN` (include/uapi/linux/stat.h).
const WRITE_ATOMIC: u32 = 0x1_0000;
const DIRECT_ALIGNMENT: u32 = 0x2000;

/// Opens the file once more.
pub(super) fn open_direct(file: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::DIRECT;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let opened = fs::open(path.as_str(), flags, Mode::empty())?;
    let (found, asked) = (fs::fstat(&opened)?, fs::fstat(file)?);
    // What is mounted at /proc may be anything.
    if (found.st_dev, found.st_ino) == (asked.st_dev, asked.st_ino) {
        Ok(opened)
    } else {
        Err(Errno::NOENT)
    }
}

/// The least and the most bytes of a write, if the file has any.
///
/// A file without direct I/O has none, whatever its units: ext4 writes an encrypted file, or one with
/// its data in the journal, through the page cache, and says that it was written
/// (fs/ext4/file.c `ext4_dio_write_iter`).
pub(super) fn units(file: BorrowedFd<'_>) -> Result<Option<(u32, u32)>> {
    let wanted = StatxFlags::from_bits_retain(WRITE_ATOMIC | DIRECT_ALIGNMENT);
    let found = fs::statx(file, "", AtFlags::EMPTY_PATH, wanted)?;
    let both = WRITE_ATOMIC | DIRECT_ALIGNMENT;
    let units = (found.stx_atomic_write_unit_min, found.stx_atomic_write_unit_max);
    Ok(offered(found.stx_mask & both == both, units, found.stx_dio_offset_align))
}

/// The units of a file whose direct I/O has this alignment.
fn offered(told: bool, (least, most): (u32, u32), alignment: u32) -> Option<(u32, u32)> {
    (told && most != 0 && alignment != 0).then_some((least.max(alignment), most))
}

/// Writes all of it or nothing.
pub(super) fn pwrite(file: BorrowedFd<'_>, data: &[u8], offset: u64) -> Result<usize> {
    let atomic = ReadWriteFlags::from_bits_retain(libc::RWF_ATOMIC.unsigned_abs());
    io::pwritev2(file, &[IoSlice::new(data)], offset, atomic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_direct_io_has_no_whole_writes() {
        for (told, units, alignment, expected) in [
            (true, (4096, 65536), 512, Some((4096, 65536))),
            (true, (512, 65536), 4096, Some((4096, 65536))),
            (true, (4096, 65536), 0, None),
            (true, (0, 0), 512, None),
            (false, (4096, 65536), 512, None),
        ] {
            assert_eq!(offered(told, units, alignment), expected, "{units:?} {alignment}");
        }
    }
}
