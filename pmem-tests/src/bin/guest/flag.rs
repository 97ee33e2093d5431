//! A file with the DAX flag, replaced: the new one must have it too, and be DAX at once.
//!
//! # Safety
//!
//! The kernel reads and writes a `struct fsxattr` (include/uapi/linux/fs.h), laid out here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use daxmap::publish::Commit;
use daxmap::{Options, Region};

/// `FS_IOC_FSGETXATTR`, `FS_IOC_FSSETXATTR` and `FS_XFLAG_DAX` (include/uapi/linux/fs.h).
const GET: u32 = 0x801c_581f;
const SET: u32 = 0x401c_5820;
const DAX: u32 = 0x8000;

/// Makes the file with the flag, or without, replaces it, and says what the new one is.
pub fn replace(path: &Path, flagged: bool) -> io::Result<()> {
    set(File::create(path)?.as_fd(), flagged)?;
    let draft = Options::new().len(3 << 20).draft(path).map_err(io::Error::from)?;
    draft.write(0, b"published").map_err(io::Error::from)?;
    let region = draft.commit(Commit::Replace).map_err(io::Error::from)?;
    let flag = attributes(region.as_fd())?[0] & DAX != 0;
    let report = daxmap::probe::probe(path).map_err(io::Error::from)?;
    println!(
        "flag={} backend={} durability={} again={}",
        u8::from(flag),
        region.backend(),
        region.durability(),
        report.backend
    );
    Ok(())
}

fn attributes(fd: BorrowedFd<'_>) -> io::Result<[u32; 7]> {
    let mut attributes = [0_u32; 7];
    // SAFETY: the request writes 28 bytes.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), GET.into(), &raw mut attributes) };
    if answer == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

fn set(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let mut attributes = attributes(fd)?;
    attributes[0] = attributes[0] & !DAX | if on { DAX } else { 0 };
    // SAFETY: the request reads 28 bytes.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), SET.into(), &raw const attributes) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
