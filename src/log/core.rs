//! What the parts of an open log share.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::durability::Granularity;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::salts::Salts;
use crate::format::{LINE, opening};
use crate::primitives::primitive;
use crate::region::{Region, process};

use super::beside;
use super::deferred::Deferred;
use super::layout::{BLOCKS, Layout};
use super::place::{Active, Shared};
use super::root::{NOTE_BYTES, Root, RootCell};
use super::segment::Headers;
use super::spare::Spares;
use super::sync::{lock, lock_in_turn};
use super::table::{Table, Usage};
use super::watermark::Watermark;

/// An open log, without its report.
#[derive(Debug)]
pub(super) struct Core<R> {
    pub(super) region: R,
    pub(super) layout: Layout,
    /// From how many bytes on records are not staged.
    pub(super) direct: u64,
    pub(super) headers: Headers,
    pub(super) salts: Salts,
    pub(super) table: Table,
    pub(super) watermark: Watermark,
    pub(super) root: Mutex<RootCell>,
    /// That of the root, and never locked for longer than it takes to copy it by who writes.
    pub(super) note: Mutex<[u8; NOTE_BYTES]>,
    /// The segment of all writers, where they have one together.
    pub(super) shared: Mutex<Shared>,
    /// What was submitted, and is not durable.
    pub(super) deferred: Deferred,
    /// Writers of [`Log::append`](super::Log::append).
    pub(super) spares: Spares,
    /// What cannot be read any more.
    pub(super) released: AtomicU64,
    /// The part of it that the root on the medium says: segments of these records are used again.
    pub(super) recyclable: AtomicU64,
    pub(super) read_only: bool,
    /// The process that opened the log. A forked child changes nothing in it, be it by dropping it.
    pub(super) process: u64,
    pub(super) accepts_damage: bool,
    /// An operation that needed the log for itself has failed: no more appends.
    pub(super) stuck: AtomicBool,
}

impl<R: Region> Core<R> {
    /// Whether all writers write into one segment: where the unit of a flush is a page, writes
    /// that touch each other are sent as one.
    pub(super) fn is_shared(&self) -> bool {
        self.region.granularity() == Granularity::Page
    }

    pub(super) fn released(&self) -> u64 {
        self.released.load(Ordering::Acquire)
    }

    /// Up to which Lsn the medium knows that records were released.
    pub(super) fn recyclable(&self) -> u64 {
        self.recyclable.load(Ordering::Acquire)
    }

    /// Replaces the root, durable on return. What was released lazily rides on it.
    pub(super) fn change_root(&self, change: impl FnOnce(&mut Root)) -> Result<()> {
        let mut cell = lock_in_turn(&self.region, &self.root);
        let before = cell.get();
        let mut root = before;
        root.released = root.released.max(self.released());
        change(&mut root);
        // What is absent is below the floor of the opening, and below a cut: no more of it is left.
        let below = before.floor.min(root.floor).saturating_sub(1);
        root.absent = root.absent.min(below.saturating_sub(root.released));
        cell.store(&self.region, root)?;
        // Whoever uses a segment again has seen the second, and so a reader that finds it used sees the
        // first: it says `Released`, and passes nothing over.
        let mut note = lock(&self.note);
        *note = root.note;
        self.released.fetch_max(root.released, Ordering::AcqRel);
        drop(note);
        self.recyclable.fetch_max(root.released, Ordering::AcqRel);
        Ok(())
    }

    /// Refuses to write where nothing may be written.
    pub(super) fn check_writable(&self, operation: Operation) -> Result<()> {
        if self.read_only {
            return Err(Error::new(operation, ErrorKind::ReadOnly));
        }
        self.check_process(operation)?;
        if self.stuck.load(Ordering::Acquire) {
            return Err(Error::new(operation, ErrorKind::Closed));
        }
        Ok(())
    }

    /// Refuses in a forked child: two processes would write in one place.
    pub(super) fn check_process(&self, operation: Operation) -> Result<()> {
        if self.process == process::mark() {
            return Ok(());
        }
        let why = "in a forked child: the log is its parent's, open it there";
        Err(Error::new(operation, ErrorKind::Unsupported(why)))
    }

    /// Of a log that was opened for reading: whether another process has taken something away since.
    ///
    /// # Errors
    ///
    /// `Released` if the record of this Lsn was released; `NoRecord` if the log was truncated, or opened.
    #[cold]
    pub(super) fn look_for_changes(&self, lsn: u64) -> Result<()> {
        if !self.read_only {
            return Ok(());
        }
        let now = self.look_at_root()?;
        let then = lock(&self.root).get();
        let kind = if lsn <= now.released {
            ErrorKind::Released { first: now.released + 1 }
        } else if (now.cuts, now.opened) != (then.cuts, then.opened) {
            ErrorKind::NoRecord { lsn }
        } else {
            return Ok(());
        };
        Err(Error::new(Operation::Read, kind))
    }

    /// Looks at the root of a log that another process writes.
    pub(super) fn look_at_root(&self) -> Result<Root> {
        // Held while it is read: no older one comes after a newer one.
        let mut note = lock_in_turn(&self.region, &self.note);
        let now = beside::root_value(&self.region, Layout::root(self.headers.key))?;
        *note = now.note;
        self.released.fetch_max(now.released, Ordering::AcqRel);
        Ok(now)
    }

    /// What was released, and the note of that moment.
    pub(super) fn released_and_note(&self) -> (u64, [u8; NOTE_BYTES]) {
        let note = lock_in_turn(&self.region, &self.note);
        (self.released(), *note)
    }

    /// Runs what leaves the log unusable until it is opened anew, if it fails.
    pub(super) fn exclusively<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        work().inspect_err(|_| self.stuck.store(true, Ordering::Release))
    }

    /// Takes all segments back: nobody is writing. Those of writers that were forgotten, too.
    pub(super) fn recall(&self) -> Result<()> {
        let left = self.recall_spares();
        let shared = self.shared_segment();
        let left = left.and(shared.map_or(Ok(()), |active| self.leave(&active)));
        self.table.leave_all(self.watermark.get() == self.watermark.next());
        left
    }

    /// The same where nothing is to be noted of what is full.
    pub(super) fn take_back(&self) {
        for active in self.idle_segments() {
            self.table.leave(active);
        }
        if let Some(active) = self.shared_segment() {
            self.table.leave(active.segment);
        }
        self.table.leave_all(self.watermark.get() == self.watermark.next());
    }

    /// The segment of all writers, taken from them. One with a commit in it that did not come to its end is
    /// not used again: there may be more in it than is known.
    fn shared_segment(&self) -> Option<Active> {
        let mut shared = lock(&self.shared);
        let active = shared.active.take()?;
        let end = self.table.progress[active.segment].end.load(Ordering::Acquire);
        if shared.broken || active.at != end {
            self.table.break_off(active.segment);
            return None;
        }
        Some(active)
    }

    /// Gives a segment up for the next writer, or notes that it is full: nothing will be written behind
    /// its last block, which would show that this one was there.
    pub(super) fn leave(&self, active: &Active) -> Result<()> {
        self.check_process(Operation::Append)?;
        if active.at + LINE <= self.layout.segment {
            self.table.leave(active.segment);
            return Ok(());
        }
        let header = self.seal(active)?;
        primitive!("log.leave.drain", self.region.drain(), Ok(()))?;
        self.table.retire(active.segment, header);
        Ok(())
    }

    /// Notes in the headers how far segments are written, and in the root that the log is closed.
    /// Nobody is writing.
    pub(super) fn finish(&self) -> Result<()> {
        self.settle()?;
        self.recall()?;
        let mut ends = Vec::new();
        for (segment, life) in self.table.pool().lives.iter().enumerate() {
            let end = self.table.progress[segment].end.load(Ordering::Acquire);
            if life.usage == Usage::Idle && end != u64::from(life.header.end) && end > BLOCKS {
                ends.push((segment, end as u32));
            } else if life.is_half {
                ends.push((segment, life.header.end));
            }
        }
        let mut headers = Vec::with_capacity(ends.len());
        for (segment, end) in ends {
            let found = self.headers.read(&self.region, segment)?;
            let mut header = found.header;
            header.end = end;
            headers.push((segment, found.copy, header));
        }
        primitive!("log.close.ends", self.headers.replace(&self.region, &headers), Ok(()))?;
        let floor = self.watermark.next();
        self.change_root(|root| {
            root.closed = true;
            // All headers know of it, twice.
            root.cut = None;
            root.floor = floor;
            root.durable = self.watermark.get() - 1;
        })?;
        opening::close(&self.region, self.headers.key)
    }
}
