//! How is a page of the page cache written whole? By a descriptor of its own, past the cache.
//!
//! The kernel takes such a write only as direct I/O. It writes back what is cached of the page before,
//! and drops it after (`kiocb_invalidate_pages` and `kiocb_invalidate_post_direct_write`, mm/filemap.c),
//! so the mapping shows the new page. Where a page was made dirty in between, it cannot be dropped, and
//! the kernel fails the next sync with EIO: so the writers of the file wait meanwhile, and where a
//! caller may store through a pointer, no page is written this way.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::PageCacheRegion;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::region::calls;

/// How often a page is tried that another process keeps changing.
const TRIES: u32 = 4;

/// Alignment of a buffer that suits every device (open(2), `O_DIRECT`), in bytes.
const ALIGNMENT: usize = 4096;

/// What a file offers.
#[derive(Debug)]
pub(super) enum Direct {
    Offered { file: OwnedFd, units: (u32, u32) },
    No(&'static str),
}

impl Direct {
    fn ask(file: impl AsFd) -> Self {
        let units = match calls::atomic_write_units(file.as_fd()) {
            Ok(Some(units)) => units,
            Ok(None) => {
                return Self::No(
                    "the filesystem or the device writes no page whole (statx(2) names no \
                     STATX_WRITE_ATOMIC units): `daxmap::pages` does it by a record in the file",
                );
            }
            Err(_) => return Self::No("statx(2) does not say whether pages are written whole"),
        };
        match calls::open_direct(file.as_fd()) {
            Ok(file) => Self::Offered { file, units },
            Err(_) => Self::No(
                "the file cannot be opened once more for direct I/O through /proc/self/fd, which \
                 RWF_ATOMIC needs",
            ),
        }
    }
}

impl PageCacheRegion {
    /// Writes a page whose place and size are right.
    pub(super) fn write_whole(&self, at: u64, page: &[u8]) -> Result<()> {
        let len = page.len();
        let refused = |why| {
            let error = Error::new(Operation::Write, ErrorKind::Unsupported(why));
            Err(error.at(&self.path).over(at, len as u64))
        };
        self.check_ours(Operation::Write)?;
        let (file, units) = match self.direct.get_or_init(|| Direct::ask(self.fd.as_fd())) {
            Direct::Offered { file, units } => (file, units),
            Direct::No(why) => return refused(why),
        };
        if !(units.0 as usize..=units.1 as usize).contains(&len) {
            return refused("the filesystem or the device writes no page of this size whole");
        }
        if self.lends_memory() {
            return refused("a caller may store into the file through a pointer meanwhile");
        }
        let copy = aligned(page);
        let copy = copy.as_ref().map_or(page, |(bytes, from)| &bytes[*from..*from + len]);
        let mut gather = self.writer(Operation::Write)?;
        // The region may have become shorter since.
        self.range(Operation::Write, at, len as u64)?;
        if gather.overlaps(at, len) {
            self.send_gathered(&mut gather)?;
        }
        let end = at + len as u64;
        self.check_length(end).map_err(|error| self.poison(&mut gather, error))?;
        let put = self.changing(&mut gather, at..end, |_| put(file, copy, at));
        match put {
            Ok(()) => {}
            // Not a byte was written.
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                return refused(
                    "the kernel refuses to write this page whole (pwritev2(2), RWF_ATOMIC)",
                );
            }
            // Nor here: xfs writes a page to new blocks first, without a device that writes it whole
            // (fs/xfs/xfs_file.c `xfs_file_dio_write_atomic`).
            Err(Errno::NOSPC | Errno::DQUOT) => {
                return refused(
                    "the filesystem needs new blocks to write a page whole, and has none",
                );
            }
            // Nor here (fs/iomap/direct-io.c `__iomap_dio_rw`).
            Err(Errno::AGAIN) => {
                return refused("another process changes the page meanwhile, through a mapping");
            }
            Err(errno) => {
                let error = Error::os(Operation::Write, "pwritev2", errno).at(&self.path);
                return Err(self.poison(&mut gather, error.over(at, len as u64)));
            }
        }
        self.was_put(at, len as u64);
        if self.observer.is_some() {
            self.sent.fetch_add(len as u64, Ordering::Relaxed);
        }
        self.file.shared.written.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

/// A write that is taken back by a signal has written nothing, and one that is short is none.
fn put(file: &OwnedFd, page: &[u8], at: u64) -> std::result::Result<(), Errno> {
    let mut tries = TRIES;
    loop {
        match calls::pwrite_atomic(file.as_fd(), page, at) {
            Ok(written) if written == page.len() => return Ok(()),
            Ok(_) => return Err(Errno::IO),
            Err(Errno::INTR) => {}
            // What is cached of the page could not be dropped, which may pass.
            Err(Errno::AGAIN) if tries > 1 => tries -= 1,
            Err(errno) => return Err(errno),
        }
    }
}

/// A copy of the page that is aligned, and where it begins in it. None: the page is.
fn aligned(page: &[u8]) -> Option<(Vec<u8>, usize)> {
    if page.as_ptr().addr() % ALIGNMENT == 0 {
        return None;
    }
    let mut bytes = vec![0; page.len() + ALIGNMENT];
    let from = bytes.as_ptr().addr().next_multiple_of(ALIGNMENT) - bytes.as_ptr().addr();
    bytes[from..from + page.len()].copy_from_slice(page);
    Some((bytes, from))
}
