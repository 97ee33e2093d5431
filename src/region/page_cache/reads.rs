//! How is the page cache read beside writers? A kernel copies a write in pieces of its own choice, so
//! a word could be seen torn. A writer says which bytes it is changing, and a read of those waits, or
//! is repeated. A read of others goes on.

use std::sync::atomic::{Ordering, fence};

use super::PageCacheRegion;
use crate::cpu::Fault;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;
use crate::region::gather::Gather;
use crate::region::identity;
use crate::region::kernel_copy;
use crate::region::siblings::lock;
use std::os::fd::AsFd;

/// How often a read is repeated because a write of the same bytes ran meanwhile, or several of
/// others, before it waits for the writer.
const OPTIMISTIC_READS: u32 = 3;

impl PageCacheRegion {
    /// One copy out of the page cache.
    #[inline]
    fn copy_cached(&self, at: usize, buf: &mut [u8]) -> std::result::Result<(), Fault> {
        match self.view(Operation::Read) {
            Ok(view) if view.guarded => view.mapping.read(at, buf),
            _ => kernel_copy::read_file(self.fd.as_fd(), at as u64, buf),
        }
    }

    /// Copies out what the file and the gathered run have, while nothing changes these bytes.
    #[inline]
    pub(super) fn copy_out(&self, at: usize, buf: &mut [u8]) -> std::result::Result<(), Fault> {
        let shared = &*self.file.shared;
        let (from, to) = (at as u64, (at + buf.len()) as u64);
        for _ in 0..OPTIMISTIC_READS {
            let before = shared.sequence.load(Ordering::Acquire);
            // Relaxed: within the sequence. What is read of the next change was stored after the
            // number of this one, which the fence below makes seen.
            if before % 2 != 0 && shared.changing.overlaps(from, to) {
                std::hint::spin_loop();
                continue;
            }
            if shared.gathered.overlaps(from, to) {
                break;
            }
            let copied = self.copy_cached(at, buf);
            fence(Ordering::Acquire);
            if shared.sequence.load(Ordering::Relaxed) == before {
                return copied;
            }
        }
        // A writer of many pieces lets go of the lock between them, and of its turn if somebody waits.
        shared.readers.fetch_add(1, Ordering::Relaxed);
        let gather = lock(&shared.gather);
        shared.readers.fetch_sub(1, Ordering::Relaxed);
        self.copy_locked(&gather, at, buf)
    }

    /// [`copy_out`](Self::copy_out) with the lock held.
    pub(super) fn copy_locked(
        &self,
        gather: &Gather,
        at: usize,
        buf: &mut [u8],
    ) -> std::result::Result<(), Fault> {
        self.copy_cached(at, buf)?;
        gather.overlay(at as u64, buf);
        Ok(())
    }

    /// A view is of the file that was mapped, and shows nothing of a copy that has taken its place.
    pub(super) fn check_not_copied(&self, offset: u64, len: u64) -> Result<()> {
        if !self.may_be_copied {
            return Ok(());
        }
        if self.born.is_some() && identity::born(self.fd.as_fd()) == self.born {
            return Ok(());
        }
        let why = "a view: the overlay has put a copy in the place of the file since it was opened; \
                   open it anew, or use `read`";
        let error = Error::new(Operation::View, ErrorKind::Unsupported(why));
        Err(error.at(&self.path).over(offset, len))
    }

    /// A view is of the file, which must have what is gathered of the range.
    pub(super) fn send_for_view(&self, at: u64, len: usize) -> Result<()> {
        let mut gather = lock(&self.file.shared.gather);
        if primitive!("page_cache.view.send", !gather.overlaps(at, len), true) {
            return Ok(());
        }
        if self.read_only {
            let why = "another region of the file has writes here that it has not drained";
            let error = Error::new(Operation::View, ErrorKind::Unsupported(why));
            return Err(error.at(&self.path).over(at, len as u64));
        }
        self.send_gathered(&mut gather)
    }
}
