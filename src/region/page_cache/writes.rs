//! How do bytes get from a write to the medium? Small ones are gathered, the others sent at once, a
//! piece at a time; a sync covers what was sent before it.
//!
//! # A file that somebody cuts
//!
//! A `pwrite` past a truncation would succeed and leave a hole where data was. So before bytes are
//! sent, and before a sync, the file must still be as long as the region. No system call says so: the
//! last page of the region is mapped, and a look at it faults once the file ends before it
//! (`filemap_fault`, mm/filemap.c; truncation unmaps what it cuts, `truncate_pagecache`,
//! mm/truncate.c). A cut within the last page shows in no fault: who writes there asks statx(2), and so
//! does the next sync after that. One that cuts off what was durable before is not noticed until then.

use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::MutexGuard;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use rustix::io::Errno;

use super::PageCacheRegion;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;
use crate::region::calls;
use crate::region::clean;
use crate::region::contract::Region;
use crate::region::gather::{Gather, WRITE_MAX};
use crate::region::kernel_copy;
use crate::region::mapping::page_size;
use crate::region::observer::Synced;
use crate::region::siblings::lock;
use crate::region::storage;

/// A longer write is sent in pieces of this many bytes. Who reads what is being written, or writes
/// elsewhere, waits for a piece.
const PIECE: usize = 256 << 10;

/// How often a writer of many pieces gives its turn to a reader that waits.
const YIELDS: u32 = 64;

impl PageCacheRegion {
    /// Runs `change`, of these bytes, such that their readers notice, and tells all readers the gathered
    /// range after it.
    pub(super) fn changing<T>(
        &self,
        gather: &mut Gather,
        bytes: Range<u64>,
        change: impl FnOnce(&mut Gather) -> T,
    ) -> T {
        let shared = &*self.file.shared;
        shared.changing.set(bytes);
        shared.sequence.fetch_add(1, Ordering::AcqRel);
        // No store of the change is seen before the odd number.
        fence(Ordering::Release);
        let result = change(gather);
        shared.gathered.set(gather.start()..gather.end());
        shared.sequence.fetch_add(1, Ordering::AcqRel);
        result
    }

    /// Makes an error final for every region of the file, and forgets the gathered run: what was
    /// never drained must not turn up in the file's next life.
    #[cold]
    pub(super) fn poison(&self, gather: &mut Gather, error: Error) -> Error {
        let error = primitive!("page_cache.poison", self.file.shared.poison(error), error);
        let run = gather.start()..gather.end();
        primitive!(
            "page_cache.poison.forget_gathered",
            self.changing(gather, run, Gather::clear),
            ()
        );
        error
    }

    /// Writes to the file. Page by page where others store through a mapping: a longer write
    /// would bring a large folio into the page cache, and a store would then dirty all of it.
    fn put(&self, at: u64, data: &[u8]) -> std::result::Result<(), Errno> {
        self.put_pages(at, data)?;
        self.was_put(at, data.len() as u64);
        Ok(())
    }

    /// Notes what the file has got.
    pub(super) fn was_put(&self, at: u64, len: u64) {
        if at + len > self.last_page() {
            self.file.shared.tails.fetch_add(1, Ordering::Release);
        }
        if let Some(written) = &self.draft {
            written.add(at, len);
        }
    }

    fn put_pages(&self, at: u64, data: &[u8]) -> std::result::Result<(), Errno> {
        if self.observer.is_some() {
            self.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        if primitive!("page_cache.write.single_pages", !self.writable_mapping, true) {
            return kernel_copy::write_file(self.fd.as_fd(), at, data);
        }
        let page = page_size();
        let (head, rest) = data.split_at(data.len().min(page - at as usize % page));
        kernel_copy::write_file(self.fd.as_fd(), at, head)?;
        let from = at + head.len() as u64;
        rest.chunks(page)
            .zip((from..).step_by(page))
            .try_for_each(|(piece, at)| kernel_copy::write_file(self.fd.as_fd(), at, piece))
    }

    /// Sends the gathered run to the file. A failure is final: the writes in the run have
    /// returned `Ok`, and readers have seen them.
    pub(super) fn send_gathered(&self, gather: &mut Gather) -> Result<()> {
        if gather.is_empty() {
            return Ok(());
        }
        if primitive!("page_cache.send.fork", !self.fd.is_ours(), false) {
            // The run is the parent's, which sends its own copy.
            let why = "a forked child cannot write what its parent gathered";
            return Err(Error::new(Operation::Write, ErrorKind::Unsupported(why)).at(&self.path));
        }
        let (start, len) = (gather.start(), gather.bytes().len() as u64);
        // Also as far as the run goes: it may be a longer region's.
        primitive!("page_cache.send.length", self.check_length(gather.end()), Ok(()))
            .map_err(|error| self.poison(gather, error))?;
        let sent = self.changing(gather, start..start + len, |gather| {
            let sent = self.put(start, gather.bytes());
            if sent.is_ok() {
                gather.clear();
            }
            sent
        });
        sent.map_err(|errno| {
            let error = Error::os(Operation::Write, "pwrite", errno).at(&self.path);
            self.poison(gather, error.over(start, len))
        })
    }

    /// Writes all of `data`, a piece at a time.
    pub(super) fn write_pieces(&self, operation: Operation, at: u64, data: &[u8]) -> Result<()> {
        let mut done = 0;
        while done < data.len() {
            let at = at + done as u64;
            // Pieces end on multiples of their size, so that no word is split.
            let piece = (data.len() - done).min(PIECE - at as usize % PIECE);
            if done > 0 {
                self.let_readers_in();
            }
            let mut gather = self.writer(operation)?;
            self.write_locked(operation, &mut gather, at, &data[done..done + piece])?;
            done += piece;
        }
        Ok(())
    }

    /// The lock goes to whoever asks first, and that is a writer that has just let go of it.
    fn let_readers_in(&self) {
        for _ in 0..YIELDS {
            if self.file.shared.readers.load(Ordering::Relaxed) == 0 {
                return;
            }
            std::thread::yield_now();
        }
    }

    /// One write, gathered or sent.
    pub(super) fn write_locked(
        &self,
        operation: Operation,
        gather: &mut Gather,
        at: u64,
        data: &[u8],
    ) -> Result<()> {
        // The region may have become shorter since the range was checked, and a write past the end of
        // the file would make that longer.
        self.range(operation, at, data.len() as u64)?;
        // Where somebody stores through a pointer, a write that is sent later would undo the store.
        let gathers = primitive!("page_cache.write.at_once", !self.lends_memory(), true);
        if data.len() <= WRITE_MAX && gathers && self.gathers {
            if !gather.accepts(at, data.len()) {
                self.send_gathered(gather)?;
            }
            let bytes = at..at + data.len() as u64;
            self.changing(gather, bytes, |gather| gather.put(at, data));
        } else {
            if gather.overlaps(at, data.len()) {
                self.send_gathered(gather)?;
            }
            let bytes = at..at + data.len() as u64;
            primitive!("page_cache.write.length", self.check_length(bytes.end), Ok(()))
                .map_err(|error| self.poison(gather, error))?;
            let put = self.changing(gather, bytes, |_| self.put(at, data));
            // Final, as for a write that is gathered: one rule for every size.
            put.map_err(|errno| {
                let error = Error::os(operation, "pwrite", errno).at(&self.path);
                self.poison(gather, error.over(at, data.len() as u64))
            })?;
        }
        self.file.shared.written.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Takes the lock of all writers of the file. A poison that came while waiting counts.
    pub(super) fn writer(&self, operation: Operation) -> Result<MutexGuard<'_, Gather>> {
        let gather = lock(&self.file.shared.gather);
        self.check_writable(operation)?;
        Ok(gather)
    }

    /// Has the device write a range while other threads still write theirs, and wait for one sync
    /// together: by itself, that sync would find all of it to do. Small writes are still gathered.
    ///
    /// An error is final: what the filesystem gave up on is not dirty any more, and no later sync may
    /// speak of it. The call itself takes no error from the open file that a sync is to report
    /// (`sync_file_range`, fs/sync.c: only its waits do).
    pub(super) fn start_write_back(&self, offset: u64, len: u64) -> Result<()> {
        if len <= WRITE_MAX as u64 || !self.group.has_company() || !self.fd.is_ours() {
            return Ok(());
        }
        // Some write while others wait for the device: together they would do the one, then the other.
        self.group.wait_for_nobody();
        match calls::start_write_back(self.fd.as_fd(), offset, len) {
            // Not here: the sync does it.
            Ok(()) | Err(Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => {
                let error = Error::os(Operation::Flush, "sync_file_range", errno).at(&self.path);
                Err(self.poison(&mut lock(&self.file.shared.gather), error.over(offset, len)))
            }
        }
    }

    /// Where the region's last page begins.
    fn last_page(&self) -> u64 {
        self.len().saturating_sub(1) / page_size() as u64 * page_size() as u64
    }

    /// The file must still be as long as the region, and is about to be written up to `end`.
    pub(super) fn check_length(&self, end: u64) -> Result<()> {
        let (len, last_page) = (self.len(), self.last_page());
        // A server may have cut a file of which pages are cached here.
        let whole = self.file.known && end <= last_page && len > 0;
        if whole {
            if let Some(view) = self.view_to_write() {
                if view.guarded && view.mapping.read(last_page as usize, &mut [0]).is_ok() {
                    return Ok(());
                }
            }
        }
        self.ask_for_length(len.max(end))
    }

    /// Asks for the size alone. Whoever asks for the time of the last change, as fstat(2) does,
    /// makes the kernel give the next write a new one (multigrain timestamps, fs/inode.c), and
    /// ext4 then journals the inode at every sync: 8 KiB to the device instead of 4.
    #[cold]
    fn ask_for_length(&self, len: u64) -> Result<()> {
        let found = storage::length(self.fd.as_fd())
            .map_err(|errno| Error::os(Operation::Drain, "statx", errno).at(&self.path))?;
        if found < len {
            return Err(self.gone(Operation::Drain, found, len - found));
        }
        Ok(())
    }

    /// One sync of everything written to the file so far; returns the number of the last write
    /// that it covers. Run by one thread at a time.
    pub(super) fn sync(&self, told: &mut Option<Synced>) -> Result<u64> {
        let shared = &*self.file.shared;
        let (covers, tails) = {
            let mut gather = lock(&shared.gather);
            let sent_tail =
                shared.tails.load(Ordering::Acquire) != self.tails.load(Ordering::Relaxed);
            if sent_tail || gather.is_empty() {
                let end = if sent_tail { self.len() } else { 0 };
                primitive!("page_cache.sync.length", self.check_length(end), Ok(()))
                    .map_err(|error| self.poison(&mut gather, error))?;
            }
            primitive!("page_cache.sync.send", self.send_gathered(&mut gather), Ok(()))?;
            (shared.written.load(Ordering::Acquire), shared.tails.load(Ordering::Acquire))
        };
        let watched = self
            .observer
            .is_some()
            .then(|| (Instant::now(), self.group.waiting(), self.sent.swap(0, Ordering::Relaxed)));
        // Not repeated after EINTR: whether an error was reported and cleared is unknown.
        let synced =
            primitive!("page_cache.sync.fdatasync", calls::fdatasync(self.fd.as_fd()), Ok(()));
        *told = watched.map(|(began, threads, bytes)| {
            let errno = synced.err().map(Errno::raw_os_error);
            Synced { took: began.elapsed(), bytes, threads, errno }
        });
        synced.map_err(|errno| {
            let error = Error::os(Operation::Drain, "fdatasync", errno).at(&self.path);
            self.poison(&mut lock(&shared.gather), error.over(0, self.len()))
        })?;
        self.tails.store(tails, Ordering::Relaxed);
        Ok(primitive!(
            "page_cache.sync.covers_before",
            covers,
            shared.written.load(Ordering::Acquire)
        ))
    }

    /// What a clean close leaves: see [`clean`]. It is made when all is sent, and before the sync,
    /// which then is for whatever others have written too. None after an error, or where others may
    /// be writing.
    pub(super) fn mark_of_close(&self) -> Option<clean::Mark> {
        if !self.leaves_mark || !self.fd.is_ours() {
            return None;
        }
        let mut gather = self.writer(Operation::Close).ok()?;
        self.send_gathered(&mut gather).ok()?;
        let mark = clean::current(self.fd.as_fd())?;
        self.file.shared.written.fetch_add(1, Ordering::Release);
        Some(mark)
    }
}
