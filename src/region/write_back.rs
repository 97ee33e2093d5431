//! sync_file_range(2), which rustix does not have.
//!
//! # Safety
//!
//! The call is given numbers only.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};

/// Starts the write-back of a range of a file. Promises nothing.
pub(super) fn start(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<()> {
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else {
        return Err(Errno::INVAL);
    };
    // SAFETY: numbers, and a descriptor that is open.
    let result =
        unsafe { libc::sync_file_range(fd.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}
