//! Space in a file: allocated, written with zeros, synced.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::calls;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;

/// Zeros are written in pieces of this many bytes, which lets ext4 and xfs keep the file in
/// large folios and extents.
const PIECE: usize = 1 << 20;

/// Makes `from..to` of the file allocated, zero, written and durable, and the file at least `to`
/// bytes long. Returns how long the file was before; on an error it is that long again. It may be
/// longer than `from`: a region can be the first part of a file.
///
/// Allocation comes first, so that a full disk is noticed before anything is written. The zeros
/// are really written: an unwritten extent costs a journal commit at its first fault under
/// `MAP_SYNC`, and its conversion at every first write elsewhere.
///
/// Bytes that the file has past `from` are zeroed, and may be so even on an error.
pub(super) fn extend(fd: BorrowedFd<'_>, from: u64, to: u64) -> Result<u64> {
    if i64::try_from(to).is_err() {
        return Err(Error::new(Operation::Allocate, ErrorKind::TooLarge { max: i64::MAX as u64 }));
    }
    let found = calls::fstat(fd).map_err(|errno| Error::os(Operation::Allocate, "fstat", errno))?;
    let file_len = found.st_size.cast_unsigned();
    if primitive!("storage.extend.cut", file_len < from, false) {
        // Somebody cut it: growing over the cut would leave a hole where data was.
        return Err(Error::new(Operation::Allocate, ErrorKind::Gone));
    }
    let extended = primitive!("storage.extend.allocate", allocate(fd, from, to), Ok(()))
        .and_then(|()| {
            primitive!(
                "storage.extend.zeros",
                write_zeros(fd, from, to),
                calls::ftruncate(fd, to).map_err(|errno| Error::os(
                    Operation::Allocate,
                    "ftruncate",
                    errno
                ))
            )
        })
        .and_then(|()| {
            primitive!("storage.extend.fsync", calls::fsync(fd), Ok(()))
                .map_err(|errno| Error::os(Operation::Sync, "fsync", errno))
        });
    if extended.is_err() {
        primitive!("storage.extend.shrink_back", shrink_back(fd, file_len), ());
    }
    extended.map(|()| file_len)
}

/// Cuts the file back to the `len` bytes it had before a failed growth. If even that fails, the
/// file stays longer than the region, which harms nothing.
pub(super) fn shrink_back(fd: BorrowedFd<'_>, len: u64) {
    let _ = calls::ftruncate(fd, len);
}

/// Makes a new file `len` bytes long and allocates it, to be written later: what is not written
/// by then must be filled, see [`unwritten`](calls::unwritten). Nothing is synced. Where the
/// filesystem cannot say which parts are unwritten, all of it is extended now.
pub(super) fn reserve(fd: BorrowedFd<'_>, len: u64) -> Result<()> {
    allocate(fd, 0, len)?;
    match calls::unwritten(fd, len) {
        Ok(parts) if parts.first() == Some(&(0..len)) => Ok(()),
        _ => extend(fd, 0, len).map(drop),
    }
}

/// Makes `0..len` of a file, which is at least as long, ready for stores through a mapping: space
/// of its own for every page, so that no store finds the disk full, and none of it cached, so that
/// it will be cached page by page. Changes no byte.
pub(super) fn make_storable(fd: BorrowedFd<'_>, len: u64) -> Result<()> {
    primitive!("storage.storable.allocate", allocate(fd, 0, len), Ok(()))?;
    loop {
        match primitive!("storage.storable.unshare", calls::unshare(fd, 0, len), Ok(())) {
            Err(Errno::INTR) => {}
            // No filesystem without shared extents knows the flag.
            Ok(()) | Err(Errno::OPNOTSUPP) => break,
            Err(errno) => return Err(Error::os(Operation::Allocate, "fallocate", errno)),
        }
    }
    // What is dirty stays.
    primitive!("storage.storable.fsync", calls::fsync(fd), Ok(()))
        .map_err(|errno| Error::os(Operation::Sync, "fsync", errno))?;
    let _ = primitive!("storage.storable.forget_cached", calls::forget_cached(fd), Ok(()));
    Ok(())
}

fn allocate(fd: BorrowedFd<'_>, from: u64, to: u64) -> Result<()> {
    loop {
        match calls::fallocate(fd, from, to - from) {
            Err(Errno::INTR) => {}
            // Not supported: no preallocation here (FUSE, NFSv3, ...), the zeros allocate.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
            Err(errno) => return Err(Error::os(Operation::Allocate, "fallocate", errno)),
        }
    }
}

fn write_zeros(fd: BorrowedFd<'_>, from: u64, to: u64) -> Result<()> {
    let zeros = vec![0_u8; PIECE.min((to - from) as usize)];
    let mut at = from;
    while at < to {
        // Pieces end on multiples of their size.
        let piece = ((PIECE as u64 - at % PIECE as u64).min(to - at) as usize).min(zeros.len());
        pwrite_all(fd, at, &zeros[..piece])
            .map_err(|errno| Error::os(Operation::Allocate, "pwrite", errno))?;
        at += piece as u64;
    }
    Ok(())
}

/// Writes all of `data` at `offset`: repeats after EINTR and after a short write.
fn pwrite_all(fd: BorrowedFd<'_>, offset: u64, data: &[u8]) -> std::result::Result<(), Errno> {
    let mut done = 0;
    while done < data.len() {
        match calls::pwrite(fd, &data[done..], offset + done as u64) {
            // A write of nothing that is no error would loop for ever.
            Ok(0) => return Err(Errno::IO),
            Ok(written) => done += written,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
