//! Space in a file: allocated, written with zeros, synced.
//!
//! A full disk is an error before anything is written, and not because of space that is free and
//! not counted yet: who finds none has the filesystem synced (syncfs(2)), once, and tries again.

use std::os::fd::BorrowedFd;

use rustix::fs::{self, AtFlags, SeekFrom, Stat, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::calls;
use super::identity::Driver;
use super::mapping::page_size;
use super::options::Growth;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;

/// Zeros are written in pieces of this many bytes where the file has its pages in the page cache: ext4
/// and xfs make folios as large as the write that brings them. To persist 64 bytes in a folio of
/// 1 MiB takes 1.5 times the processor time that it takes in one of 16 KiB. Where space is not
/// preallocated, extents become as long all the same: write-back allocates.
const CACHED_PIECE: usize = 16 << 10;

/// And of this many in memory and on DAX, where a call more is a cost and nothing else.
const PIECE: usize = 1 << 20;

/// From this many bytes on, the filesystem is asked for its free space before any is taken. Less is
/// taken and given back in a moment; and being asked makes xfs free, at once, what the last removed
/// file had, beside the syncs that follow: 80 us of the 350 us that publishing 1 MiB takes in memory.
const ASKED_FIRST: u64 = 64 << 20;

/// Makes `from..to` of the file allocated, zero, written and durable, and the file at least `to`
/// bytes long. The file is `from` bytes long before, and again after an error.
///
/// Allocation comes first, so that a full disk is noticed before anything is written, and with
/// nothing taken that is not given back. The zeros
/// are really written: an unwritten extent costs a journal commit at its first fault under
/// `MAP_SYNC`, and its conversion at every first write elsewhere.
///
/// # Errors
///
/// `Gone` if the file is shorter than `from`, `FileLonger` if it is longer: what lies there is
/// somebody's, and nothing is changed.
pub(super) fn extend(fd: BorrowedFd<'_>, from: u64, to: u64) -> Result<()> {
    extend_by(Growth::Zeroed, fd, from, to)
}

/// The same, without writing the zeros where that is asked for and the filesystem reserves space
/// that reads as zero.
pub(super) fn extend_by(how: Growth, fd: BorrowedFd<'_>, from: u64, to: u64) -> Result<()> {
    lengthen(how, fd, from, to)?;
    primitive!("storage.extend.fsync", calls::fsync(fd), Ok(())).map_err(|errno| {
        shrink_back(fd, from);
        Error::os(Operation::Sync, "fsync", errno)
    })
}

/// The file as it is, which is `from` bytes long and is to be `to`.
fn check_end(fd: BorrowedFd<'_>, from: u64, to: u64) -> Result<Stat> {
    if i64::try_from(to).is_err() {
        return Err(Error::new(Operation::Allocate, ErrorKind::TooLarge { max: i64::MAX as u64 }));
    }
    check_limit(Operation::Allocate, to)?;
    let found = calls::fstat(fd).map_err(|errno| Error::os(Operation::Allocate, "fstat", errno))?;
    let file_len = found.st_size.unsigned_abs();
    if primitive!("storage.extend.cut", file_len < from, false) {
        // Somebody cut it: growing over the cut would leave a hole where data was.
        return Err(Error::new(Operation::Allocate, ErrorKind::Gone));
    }
    if file_len > from {
        let kind = ErrorKind::FileLonger { file: file_len, region: from };
        return Err(Error::new(Operation::Allocate, kind));
    }
    Ok(found)
}

/// As [`extend`], of a file that `MAP_SYNC` maps, by writing alone, for the caller to sync. On xfs,
/// fallocate(2) and ftruncate(2) first take every page of a DAX file out of all page tables, since a
/// device might be using one (`xfs_break_layouts`, fs/xfs/xfs_file.c; `dax_layout_busy_page`,
/// fs/dax.c); the next store to each would fault.
pub(super) fn extend_mapped(fd: BorrowedFd<'_>, from: u64, to: u64) -> Result<()> {
    let before = Taken::by(&check_end(fd, from, to)?);
    let missing = to.saturating_sub(before.file_len).saturating_sub(before.bytes);
    if missing >= ASKED_FIRST {
        check_room(fd, missing)
            .map_err(|errno| Error::os(Operation::Allocate, "fstatvfs", errno))?;
    }
    let mut written = write_zeros(fd, from, to);
    if written.as_ref().is_err_and(|error| error.errno() == Some(Errno::NOSPC)) {
        sync_filesystem(fd);
        written = write_zeros(fd, from, to);
    }
    written.inspect_err(|_| shrink_back(fd, from))
}

/// As [`extend_by`], for the caller to sync.
fn lengthen(how: Growth, fd: BorrowedFd<'_>, from: u64, to: u64) -> Result<()> {
    let found = check_end(fd, from, to)?;
    let extended =
        primitive!("storage.extend.allocate", allocate(fd, from, to, Taken::by(&found)), Ok(true))
            .and_then(|reserved| {
                if reserved && how == Growth::Allocated {
                    return Ok(());
                }
                primitive!(
                    "storage.extend.zeros",
                    write_zeros(fd, from, to),
                    calls::ftruncate(fd, to).map_err(|errno| Error::os(
                        Operation::Allocate,
                        "ftruncate",
                        errno
                    ))
                )
            });
    if extended.is_err() {
        primitive!("storage.extend.shrink_back", shrink_back(fd, from), ());
    }
    extended
}

/// Makes the file `to` bytes long, which is `from` bytes long, durably.
///
/// # Errors
///
/// `Gone` if the file is shorter than `from`, `FileLonger` if it is longer: nothing is changed.
pub(super) fn shorten(fd: BorrowedFd<'_>, from: u64, to: u64) -> Result<()> {
    let failed = |call| move |errno| Error::os(Operation::Shrink, call, errno);
    let file_len = calls::fstat(fd).map_err(failed("fstat"))?.st_size.unsigned_abs();
    if file_len < from {
        return Err(Error::new(Operation::Shrink, ErrorKind::Gone));
    }
    if file_len > from {
        let kind = ErrorKind::FileLonger { file: file_len, region: from };
        return Err(Error::new(Operation::Shrink, kind));
    }
    calls::ftruncate(fd, to).map_err(failed("ftruncate"))?;
    // Before anything can be added again: a crash must not bring back what was cut off.
    calls::fsync(fd).map_err(|errno| Error::os(Operation::Sync, "fsync", errno))
}

/// EFBIG if this process may not write so far into a file (setrlimit(2), `RLIMIT_FSIZE`). The kernel
/// says the same with a signal that ends the process, SIGXFSZ.
pub(super) fn check_limit(operation: Operation, to: u64) -> Result<()> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    if limit.is_none_or(|limit| to <= limit) {
        return Ok(());
    }
    let error = Error::os(operation, "getrlimit RLIMIT_FSIZE", Errno::FBIG);
    Err(error.advise("the limit on file sizes is lower than this file's length: raise `ulimit -f`"))
}

/// The file's length in bytes, without its times: who asks for those makes the kernel give the next
/// write new ones. Where a sandbox does not know statx(2), by the end of the file (lseek(2)).
pub(super) fn length(fd: BorrowedFd<'_>) -> std::result::Result<u64, Errno> {
    match fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::SIZE) {
        Err(Errno::NOSYS | Errno::PERM) => fs::seek(fd, SeekFrom::End(0)),
        found => found.map(|found| found.stx_size),
    }
}

/// Cuts the file back to the `len` bytes it had before a failed growth. If even that fails, the
/// file stays longer than the region, and the next growth says so.
pub(super) fn shrink_back(fd: BorrowedFd<'_>, len: u64) {
    let _ = calls::ftruncate(fd, len);
}

/// Makes a new file `len` bytes long and allocates it, to be written later: what is not written
/// by then must be filled, see [`unwritten`](calls::unwritten). Nothing is synced. Where the
/// filesystem cannot allocate without writing, or not say which parts are unwritten, all of it is
/// extended now. True if it can say, which it is not asked where that is `known`.
pub(super) fn reserve(fd: BorrowedFd<'_>, len: u64, known: bool) -> Result<bool> {
    check_limit(Operation::Allocate, len)?;
    let allocated = allocate(fd, 0, len, Taken { file_len: 0, bytes: 0 })?;
    if allocated && known {
        return Ok(true);
    }
    match calls::unwritten(fd, len) {
        Ok(parts) if allocated && parts.first() == Some(&(0..len)) => Ok(true),
        _ => {
            calls::ftruncate(fd, 0)
                .map_err(|errno| Error::os(Operation::Allocate, "ftruncate", errno))?;
            extend(fd, 0, len).map(|()| false)
        }
    }
}

/// Makes a new, empty file hold these bytes, durably. A full disk is an error of the write or of the
/// sync, before the file has a name.
pub(super) fn fill(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    check_limit(Operation::Write, bytes.len() as u64)?;
    pwrite_all(fd, 0, bytes).map_err(|errno| Error::os(Operation::Write, "pwrite", errno))?;
    calls::fdatasync(fd).map_err(|errno| Error::os(Operation::Sync, "fdatasync", errno))
}

/// Makes `from..to` of a file, which is at least that long, ready for stores through a mapping:
/// space of its own for every page, so that no store finds the disk full, and nothing of the file
/// cached that is clean, so that it will be cached page by page. Changes no byte and no length.
pub(super) fn make_storable(fd: BorrowedFd<'_>, from: u64, to: u64) -> Result<()> {
    let failed = |call| move |errno| Error::os(Operation::Allocate, call, errno);
    let found = calls::fstat(fd).map_err(failed("fstat"))?;
    let file_len = found.st_size.unsigned_abs();
    if primitive!("storage.storable.cut", file_len < to, false) {
        return Err(Error::new(Operation::Allocate, ErrorKind::Gone).over(file_len, to - file_len));
    }
    // A store allocates the whole page that it hits, in the file.
    let to = to.next_multiple_of(page_size() as u64).min(file_len);
    let missing = to.saturating_sub(Taken::by(&found).bytes);
    primitive!("storage.storable.room", check_room(fd, missing), Ok(()))
        .map_err(failed("fallocate"))?;
    let allocated = primitive!("storage.storable.allocate", allocate_within(fd, from, to), Ok(()));
    match allocated {
        // Without it nobody can say that a store will find space.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let why =
                "a writable mapping here: the filesystem cannot allocate space ahead of a store";
            return Err(Error::new(Operation::Allocate, ErrorKind::Unsupported(why)));
        }
        result => result.map_err(failed("fallocate"))?,
    }
    match primitive!("storage.storable.unshare", unshare(fd, from, to), Ok(())) {
        // No filesystem without shared extents knows the flag.
        Ok(()) | Err(Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(failed("fallocate")(errno)),
    }
    // What is dirty stays; the callers have synced.
    let _ = primitive!("storage.storable.forget_cached", calls::forget_cached(fd), Ok(()));
    // Reads that the kernel makes for us are to bring single pages too.
    let _ = calls::read_at_random(fd);
    Ok(())
}

fn allocate_within(fd: BorrowedFd<'_>, from: u64, to: u64) -> std::result::Result<(), Errno> {
    if from >= to {
        return Ok(());
    }
    loop {
        match calls::fallocate_within(fd, from, to - from) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

fn unshare(fd: BorrowedFd<'_>, from: u64, to: u64) -> std::result::Result<(), Errno> {
    if from >= to {
        return Ok(());
    }
    loop {
        match calls::unshare(fd, from, to - from) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// What a file has before an allocation.
#[derive(Clone, Copy)]
struct Taken {
    file_len: u64,
    /// Space, in bytes.
    bytes: u64,
}

impl Taken {
    fn by(found: &Stat) -> Self {
        Self { file_len: found.st_size.unsigned_abs(), bytes: found.st_blocks.unsigned_abs() * 512 }
    }
}

/// Gives `from..to` of the file space of its own, and the file that length. False where the
/// filesystem cannot: then nothing has changed, and what is written has space. On an error the file has
/// what it had `before`.
fn allocate(fd: BorrowedFd<'_>, from: u64, to: u64, before: Taken) -> Result<bool> {
    let file_len = before.file_len;
    // All of the space that it has may lie past its end.
    let missing = to.saturating_sub(file_len).saturating_sub(before.bytes);
    let asks = missing >= primitive!("storage.allocate.room", ASKED_FIRST, u64::MAX);
    let mut allocated = if asks { check_room(fd, missing).map(|()| true) } else { Ok(true) };
    if allocated.is_ok() {
        allocated = take(fd, from, to, file_len);
        if allocated == Err(Errno::NOSPC) {
            sync_filesystem(fd);
            allocated =
                primitive!("storage.allocate.once_more", take(fd, from, to, file_len), allocated);
        }
    }
    allocated.map_err(|errno| Error::os(Operation::Allocate, "fallocate", errno))
}

/// fallocate(2), all of it or nothing: what a failed call has taken so far stays the file's
/// (ext4, xfs), and would be free when the last descriptor is closed; a child process that
/// another thread is just starting has one too. False where there is no preallocation (FUSE, NFSv3,
/// ext4 with the maps of ext3, ...).
fn take(fd: BorrowedFd<'_>, from: u64, to: u64, file_len: u64) -> std::result::Result<bool, Errno> {
    if from == to {
        // Which fallocate(2) refuses.
        return Ok(true);
    }
    loop {
        match calls::fallocate(fd, from, to - from) {
            Err(Errno::INTR) => {}
            Ok(()) => return Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
            Err(errno) => {
                primitive!("storage.allocate.give_back", shrink_back(fd, file_len), ());
                return Err(errno);
            }
        }
    }
}

/// ENOSPC if the filesystem has not the bytes that are `missing`. Before anything is taken: an
/// allocation that fails half-way has filled the disk for everybody meanwhile.
///
/// What was just freed may count only once the filesystem is synced: xfs frees the space of a
/// removed file a while later, on a thread of its own (`xfs_inodegc_queue`, fs/xfs/xfs_icache.c).
fn check_room(fd: BorrowedFd<'_>, missing: u64) -> std::result::Result<(), Errno> {
    if calls::room(fd)? >= missing {
        return Ok(());
    }
    sync_filesystem(fd);
    if calls::room(fd)? >= missing { Ok(()) } else { Err(Errno::NOSPC) }
}

/// Makes the filesystem finish what it has put off, freeing space among it. Nobody's durability
/// rests on it: an error of it is reported to the file that it is about, by that file's own sync.
fn sync_filesystem(fd: BorrowedFd<'_>) {
    let _ = calls::syncfs(fd);
}

/// So many bytes, or fewer where there is no memory for them: an allocation that fails would end the
/// process.
pub(crate) fn buffer(len: usize, byte: u8) -> Vec<u8> {
    const FEW: usize = 4096;
    let mut bytes = Vec::new();
    let len = if bytes.try_reserve_exact(len).is_ok() { len } else { len.min(FEW) };
    bytes.resize(len, byte);
    bytes
}

fn write_zeros(fd: BorrowedFd<'_>, from: u64, to: u64) -> Result<()> {
    let most = if has_no_folios(fd) { PIECE } else { CACHED_PIECE };
    let zeros = buffer(most.min((to - from) as usize), 0);
    let mut at = from;
    while at < to {
        // Pieces end on multiples of their size.
        let piece = ((most as u64 - at % most as u64).min(to - at) as usize).min(zeros.len());
        pwrite_all(fd, at, &zeros[..piece])
            .map_err(|errno| Error::os(Operation::Allocate, "pwrite", errno))?;
        at += piece as u64;
    }
    Ok(())
}

/// Whether the file is its own memory: how its pages were made costs no write anything.
fn has_no_folios(fd: BorrowedFd<'_>) -> bool {
    let dax = || {
        let found = fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::empty());
        found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::DAX))
    };
    Driver::of(fd).is_ok_and(Driver::is_memory) || dax()
}

/// Writes all of `data` at `offset`: repeats after EINTR and after a short write.
pub(super) fn pwrite_all(
    fd: BorrowedFd<'_>,
    offset: u64,
    data: &[u8],
) -> std::result::Result<(), Errno> {
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    fn file() -> File {
        tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap()
    }

    fn contents(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    /// Whole pieces and parts of pieces.
    #[test]
    fn what_is_extended_is_zero_and_no_longer_than_that_and_the_rest_stays() {
        const PIECE: usize = super::PIECE;
        for (before, from, to) in [
            (0, 0, 1),
            (0, 0, PIECE + PIECE / 2),
            (100, 100, 2 * PIECE),
            (PIECE + 4096, PIECE + 4096, 3 * PIECE + 17),
        ] {
            for way in [extend, extend_mapped] {
                let file = file();
                file.write_all_at(&vec![7; before], 0).unwrap();
                way(file.as_fd(), from as u64, to as u64).unwrap();
                file.sync_all().unwrap();
                let bytes = contents(&file);
                assert_eq!(bytes.len(), to, "{before} {from} {to}");
                assert!(bytes[..from].iter().all(|&byte| byte == 7), "{before} {from} {to}");
                assert!(bytes[from..to].iter().all(|&byte| byte == 0), "{before} {from} {to}");
                // Written, not a hole.
                assert!(file.metadata().unwrap().blocks() * 512 >= bytes.len() as u64);
            }
        }
    }

    #[test]
    fn what_a_file_has_past_the_region_is_never_zeroed() {
        let file = file();
        file.write_all_at(&[7; 9000], 0).unwrap();
        for to in [8193, 9000, 9001, 1 << 20] {
            let longer = ErrorKind::FileLonger { file: 9000, region: 8192 };
            for way in [extend, extend_mapped] {
                let error = way(file.as_fd(), 8192, to).unwrap_err();
                assert_eq!(format!("{:?}", error.kind()), format!("{longer:?}"));
            }
        }
        assert!(contents(&file) == [7; 9000]);
    }

    #[test]
    fn a_file_that_was_cut_is_not_extended_and_not_made_storable() {
        let file = file();
        file.set_len(100 << 10).unwrap();
        for way in [extend, extend_mapped] {
            let error = way(file.as_fd(), (100 << 10) + 1, 1 << 20).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Gone), "{error}");
        }
        let error = make_storable(file.as_fd(), 0, 300 << 10).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Gone), "{error}");
        assert_eq!(error.range(), Some(100 << 10..300 << 10));
        assert_eq!(file.metadata().unwrap().len(), 100 << 10);
    }

    #[test]
    fn only_what_is_asked_for_gets_space() {
        let file = file();
        file.set_len(16 << 20).unwrap();
        make_storable(file.as_fd(), 4 << 20, 6 << 20).unwrap();
        let space = file.metadata().unwrap().blocks() * 512;
        assert!((2 << 20..3 << 20).contains(&space), "{space} bytes");
        assert!(contents(&file).iter().all(|&byte| byte == 0));
        assert_eq!(file.metadata().unwrap().len(), 16 << 20);
    }
}
