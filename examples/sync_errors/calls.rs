//! Errors that say the call was wrong, not that data is lost. Nobody needs to be root for them.

#![allow(unsafe_code)]

use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use memmap2::MmapMut;
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{MsyncFlags, msync};

use super::{Report, Seen, said};

const PAGE: usize = 4096;

/// What fsync says of things that are no files, and of files opened wrongly.
pub fn handles(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let no_sync = "there is nothing behind it that could be synced; a bug in the program";
    let (_reader, writer) = rustix::pipe::pipe()?;
    report.case("fsync of a pipe", "EINVAL", no_sync, Ok(said(fs::fsync(&writer))));
    report.case("fsync of a FIFO", "EINVAL", no_sync, fifo());
    let (socket, _peer) = UnixStream::pair()?;
    report.case("fdatasync of a socket", "EINVAL", no_sync, Ok(said(fs::fdatasync(&socket))));

    let directory = std::env::temp_dir();
    let open = |flags| fs::open(&directory, flags | OFlags::CLOEXEC, Mode::empty());
    report.case(
        "fsync of a directory opened with O_PATH",
        "EBADF",
        "O_PATH names a place and opens nothing: open it O_RDONLY|O_DIRECTORY",
        open(OFlags::PATH | OFlags::DIRECTORY).map(|fd| said(fs::fsync(fd))).map_err(Into::into),
    );
    report.case(
        "opening a directory O_RDWR, to sync it",
        "EISDIR",
        "directories are never open for writing; their sync does not ask for that",
        Ok(said(open(OFlags::RDWR).map(drop))),
    );
    report.case(
        "fsync of a directory opened O_RDONLY|O_DIRECTORY",
        "ok",
        "this is how the name of a new or renamed file becomes durable",
        open(OFlags::RDONLY | OFlags::DIRECTORY).map(|fd| said(fs::fsync(fd))).map_err(Into::into),
    );
    let file = tempfile::NamedTempFile::new()?;
    report.case(
        "fsync through a file opened O_RDONLY",
        "ok",
        "it syncs what anybody wrote to the file; some other systems answer EBADF",
        Ok(said(fs::fsync(File::open(file.path())?))),
    );
    report.case(
        "fsync of a number that is no open file",
        "EBADF",
        "closed too early, or twice: another thread may get the number next",
        Ok(said(fsync_number(i32::MAX))),
    );
    Ok(())
}

fn fifo() -> Seen {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("fifo");
    fs::mknodat(fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    // For both: an open for one waits for the other.
    let fd = fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    Ok(said(fs::fsync(fd.as_fd())))
}

fn fsync_number(number: i32) -> Result<(), Errno> {
    // SAFETY: fsync takes any number and touches no memory of this process.
    let answer = unsafe { libc::fsync(number) };
    if answer == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

/// msync of part of a mapping.
fn sync(mapping: &MmapMut, from: usize, len: usize, flags: MsyncFlags) -> String {
    let start = mapping.as_ptr().wrapping_add(from).cast_mut().cast();
    // SAFETY: msync changes no byte of the range, mapped or not: it writes back, or answers an
    // error. (MS_INVALIDATE too: the kernel has one copy of a file's page.)
    said(unsafe { msync(start, len, flags) })
}

/// What msync says of wrong ranges and flags.
pub fn mappings(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let file = tempfile::tempfile()?;
    file.set_len(4 * PAGE as u64)?;
    // SAFETY: this process is the only one that has the file, and does not shorten it.
    let mapping = unsafe { MmapMut::map_mut(&file)? };
    report.case(
        "msync of an address inside a page",
        "EINVAL",
        "round the start down to a page: only the start must be aligned, the length need not",
        Ok(sync(&mapping, 8, 64, MsyncFlags::SYNC)),
    );
    report.case(
        "msync with MS_SYNC and MS_ASYNC",
        "EINVAL",
        "one or the other",
        Ok(sync(&mapping, 0, PAGE, MsyncFlags::SYNC | MsyncFlags::ASYNC)),
    );
    report.case(
        "msync of a range that is partly unmapped",
        "ENOMEM",
        "the mapped part before and after the gap was synced all the same, and it is not memory \
         that is short",
        with_gap(&file),
    );
    report.case(
        "msync with MS_INVALIDATE of a locked page",
        "EBUSY",
        "some page of the range is locked in memory (mlock); nothing is said about the data",
        locked(&mapping),
    );
    // SAFETY: as above.
    let private = unsafe { memmap2::MmapOptions::new().map_copy(&file)? };
    report.case(
        "msync of a MAP_PRIVATE mapping",
        "ok",
        "no error, and nothing reaches the file: such stores belong to the process alone",
        Ok(sync(&private, 0, PAGE, MsyncFlags::SYNC)),
    );
    report.case(
        "msync with MS_ASYNC",
        "ok",
        "since Linux 2.6.19 it does nothing at all: no error, no write-back, no durability",
        Ok(sync(&mapping, 0, PAGE, MsyncFlags::ASYNC)),
    );
    Ok(())
}

/// Maps three pages, takes the middle one away again, and syncs all three.
fn with_gap(file: &File) -> Seen {
    let mapping = memmap2::MmapOptions::new().len(3 * PAGE).map_raw(file)?;
    let middle = mapping.as_mut_ptr().wrapping_add(PAGE).cast();
    // SAFETY: the page belongs to this mapping, to which there are no references. What drops the
    // mapping unmaps it again, which munmap(2) allows; nothing maps anything in between.
    unsafe { rustix::mm::munmap(middle, PAGE)? };
    // SAFETY: msync answers an error for what is not mapped.
    let answer = unsafe { msync(mapping.as_mut_ptr().cast(), 3 * PAGE, MsyncFlags::SYNC) };
    Ok(said(answer))
}

fn locked(mapping: &MmapMut) -> Seen {
    mapping.lock()?;
    let answer = sync(mapping, 0, PAGE, MsyncFlags::SYNC | MsyncFlags::INVALIDATE);
    mapping.unlock()?;
    Ok(answer)
}

/// What fsync and msync say of device DAX, if there is any.
pub fn device_dax(report: &mut Report, path: Option<&Path>) {
    let meaning = "there is no page cache to sync: cache-line write-backs and a fence do it";
    report.case("fsync, msync of device DAX", "fsync EINVAL, msync EINVAL", meaning, {
        path.ok_or_else(|| "no device given (--devdax)".into()).and_then(sync_device)
    });
}

fn sync_device(path: &Path) -> Seen {
    const LEN: usize = 2 << 20;
    let device = File::options().read(true).write(true).open(path)?;
    // SAFETY: nobody stores through the mapping or reads it; the device does not get shorter.
    let mapping = unsafe { memmap2::MmapOptions::new().len(LEN).map_mut(&device)? };
    let msync = sync(&mapping, 0, LEN, MsyncFlags::SYNC);
    Ok(format!("fsync {}, msync {msync}", said(fs::fsync(&device))))
}
