//! Appending now and being told later: what a submission comes to, and how to wait for it.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::region::Region;

use super::block::{Block, check_body};
use super::core::Core;
use super::deferred::{Lead, Outcome, Turn};
use super::staging::Staging;
use super::sync::{lock_in_turn, take_turn};
use super::writer::{self, put};
use super::{Log, Lsn};

/// Records that were submitted: whether they are durable, and how to wait until they are.
///
/// Dropping it cancels nothing: the records become durable with the next sync of anybody.
#[derive(Debug)]
#[must_use = "submitted records are not durable yet"]
pub struct Ticket<'a, R: Region> {
    log: Holder<'a, R>,
    lsns: Range<u64>,
}

/// Where the log is.
#[derive(Debug)]
enum Holder<'a, R: Region> {
    Borrowed(&'a Log<R>),
    Owned(Arc<Log<R>>),
}

impl<R: Region> Log<R> {
    /// Appends records as one commit, all or nothing, and returns before they are durable where that takes
    /// a sync. They have their Lsns at once, and become durable in the order of these.
    ///
    /// On persistent memory the records, and all with lower Lsns, are durable on return: the call waits for
    /// other threads that are appending at that moment. Elsewhere they become durable in the order of their Lsns, and one call of
    /// [`Ticket::wait`] or [`drive`](Self::drive), one poll of a ticket, or one blocking commit makes
    /// everything durable that was submitted before it; somebody has to do one of these. Readers of this
    /// log see records when they are durable; [`reader_unsynced`](Self::reader_unsynced) and a
    /// [`LogReader`](super::LogReader) see them at once.
    ///
    /// A segment that is begun takes a sync inside of this call.
    ///
    /// # Errors
    ///
    /// As [`Log::append_many`](Self::append_many). An error of the region's is final, also if it is that of a
    /// blocking commit: every submission that is not durable by then gets it, and every later one. Open the
    /// log again.
    pub fn submit<P: AsRef<[u8]>>(
        &self,
        payloads: impl IntoIterator<Item = P>,
    ) -> Result<Ticket<'_, R>> {
        let lsns = self.submit_records(payloads)?;
        Ok(Ticket { log: Holder::Borrowed(self), lsns })
    }

    /// The same with a ticket that may outlive the caller's borrow, for a task of its own.
    ///
    /// # Errors
    ///
    /// As [`submit`](Self::submit).
    pub fn submit_shared<P: AsRef<[u8]>>(
        self: &Arc<Self>,
        payloads: impl IntoIterator<Item = P>,
    ) -> Result<Ticket<'static, R>> {
        let lsns = self.submit_records(payloads)?;
        Ok(Ticket { log: Holder::Owned(Arc::clone(self)), lsns })
    }

    fn submit_records<P: AsRef<[u8]>>(
        &self,
        payloads: impl IntoIterator<Item = P>,
    ) -> Result<Range<u64>> {
        let core = &self.core;
        if !core.is_shared() {
            return self.submit_own(payloads);
        }
        let mut staging = core.spare_staging();
        let mut tentative = staging.tentative();
        tentative.push_all(payloads, writer::room(core))?;
        tentative.keep();
        let submitted = core.write_deferred(&mut staging);
        core.keep_staging(staging);
        submitted
    }

    /// The same where each writer has a segment of its own.
    fn submit_own<P: AsRef<[u8]>>(
        &self,
        payloads: impl IntoIterator<Item = P>,
    ) -> Result<Range<u64>> {
        let core = &self.core;
        words(core.deferred.failure())?;
        let Range { start, end } = self.append_many(payloads)?;
        if start < end {
            core.deferred.wait_for_lower(&core.watermark, end.get(), || take_turn(&core.region));
        }
        Ok(start.get()..end.get())
    }

    /// Makes everything durable that was submitted before this call. The Lsn up to which all is durable.
    ///
    /// # Errors
    ///
    /// The one that is final for submissions.
    pub fn drive(&self) -> Result<Lsn> {
        self.core.settle()?;
        words(self.core.deferred.failure())?;
        Ok(self.last())
    }

    /// The Lsn up to which all is durable, as [`last`](Self::last). It only rises, but for a truncation.
    ///
    /// It may be behind a ticket that is durable, for as long as a blocking commit with a lower Lsn has not
    /// returned.
    #[must_use]
    pub fn durable_up_to(&self) -> Lsn {
        Lsn::new(self.core.watermark.highest() - 1)
    }
}

impl<R: Region> Ticket<'_, R> {
    fn core(&self) -> &Core<R> {
        match &self.log {
            Holder::Borrowed(log) => &log.core,
            Holder::Owned(log) => &log.core,
        }
    }

    /// The Lsns of the records.
    #[must_use]
    pub fn lsns(&self) -> Range<Lsn> {
        Lsn::new(self.lsns.start)..Lsn::new(self.lsns.end)
    }

    /// Whether the records, and all with lower Lsns, are durable.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        matches!(self.core().deferred.outcome(self.lsns.end), Some(Ok(())))
    }

    /// Waits until the records are durable, and leads the next sync if nobody does. Their Lsns.
    ///
    /// # Errors
    ///
    /// `Failed` with the error of the first sync or commit that failed: whether the records are durable is
    /// unknown.
    pub fn wait(self) -> Result<Range<Lsn>> {
        self.core().wait_deferred(self.lsns.end)?;
        Ok(self.lsns())
    }

    /// Has `told` called once, with what [`wait`](Self::wait) would return: at once if that is known, else on
    /// the thread that completes the submission: by a call of [`Log::drive`], by waiting for another
    /// ticket, by an append, a truncation or a close. It may use the log; its panic goes no further. One
    /// that owns the log keeps it open until it is called; [`Log::abandon`] drops it uncalled.
    pub fn on_durable(self, told: impl FnOnce(Result<Range<Lsn>>) + Send + 'static) {
        let lsns = self.lsns();
        let callback = move |outcome: Outcome| told(words(outcome).map(|()| lsns));
        self.core().deferred.tell(self.lsns.end, Box::new(callback));
    }
}

/// A poll leads the next sync if nobody does, and blocks for it: one task of many pays for all. Else it leaves
/// a waker.
impl<R: Region> Future for Ticket<'_, R> {
    type Output = Result<Range<Lsn>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let core = self.core();
        if let Err(error) = core.check_process(Operation::Append) {
            return Poll::Ready(Err(error));
        }
        loop {
            match core.deferred.turn(self.lsns.end, Some(context.waker())) {
                Turn::Done(outcome) => return Poll::Ready(words(outcome).map(|()| self.lsns())),
                Turn::Leads(lead) => core.sync_deferred(lead),
                Turn::Waits => return Poll::Pending,
            }
        }
    }
}

impl<R: Region> Drop for Ticket<'_, R> {
    fn drop(&mut self) {
        self.core().deferred.forget(self.lsns.end);
    }
}

fn words(outcome: Outcome) -> Result<()> {
    outcome.map_err(refused)
}

fn refused(cause: Arc<Error>) -> Error {
    Error::new(Operation::Append, ErrorKind::Failed(cause)).unknown()
}

impl<R: Region> Core<R> {
    /// Writes the staged records into the segment of all writers; they become durable with the next sync.
    fn write_deferred(&self, staging: &mut Staging) -> Result<Range<u64>> {
        let count = u64::from(staging.count);
        if count == 0 {
            let next = self.watermark.get();
            return Ok(next..next);
        }
        self.check_process(Operation::Append)?;
        let (len, first) = (staging.len() as u32, staging.first);
        let mut block = Block { lsn: 0, count: staging.count, len, durable: 0, first, body: 0 };
        let need = block.bytes();
        let mut guard = lock_in_turn(&self.region, &self.shared);
        let shared = &mut *guard;
        shared.check()?;
        self.ensure(&mut shared.active, need)?;
        let Some(active) = &mut shared.active else { unreachable!("ensure has put one there") };
        let progress = &self.table.progress[active.segment];
        let at = active.base + active.at;
        block.durable = progress.end.load(Ordering::Acquire) as u32;
        block.body = check_body(&active.key, at, staging.body());
        let begun = self.deferred.begin(&self.watermark, count, active.segment);
        block.lsn = begun.map_err(refused)?;
        progress.last.store(block.last(), Ordering::Release);
        let header = block.encode(&active.key, at);
        shared.broken = true;
        if let Err(error) = put(&self.region, at, &header, None, staging) {
            let error = error.unknown();
            drop(guard);
            self.deferred.fail(block.lsn, Arc::new(error.clone()));
            return Err(error);
        }
        shared.broken = false;
        active.wrote(self, &block, need);
        self.deferred.written(block.lsn, active.at);
        Ok(block.lsn..block.lsn + count)
    }

    /// Makes everything durable that was submitted.
    ///
    /// # Errors
    ///
    /// The final one, if something that was submitted is not durable and will not be.
    pub(super) fn settle(&self) -> Result<()> {
        match self.deferred.last() {
            0 => {}
            last => self.wait_deferred(last)?,
        }
        words(self.deferred.loss())
    }

    fn wait_deferred(&self, lsn_end: u64) -> Result<()> {
        // In a child, a sync that a thread of the parent led would never end.
        self.check_process(Operation::Append)?;
        loop {
            // Threads of a simulated region take turns at its operations.
            let turn = if self.region.is_emulated() {
                self.deferred.turn(lsn_end, None)
            } else {
                self.deferred.turn_of_thread(lsn_end)
            };
            match turn {
                Turn::Done(outcome) => return words(outcome),
                Turn::Leads(lead) => self.sync_deferred(lead),
                Turn::Waits => take_turn(&self.region),
            }
        }
    }

    /// Makes durable what was written when the lead was taken.
    fn sync_deferred(&self, lead: Lead<'_>) {
        let synced = self.sync_pieces(&lead);
        lead.end(synced.map_err(|error| Arc::new(error.unknown())), |piece| {
            self.table.progress[piece.segment].end.fetch_max(piece.end, Ordering::AcqRel);
        });
    }

    fn sync_pieces(&self, lead: &Lead<'_>) -> Result<()> {
        let mut ends: Vec<(usize, u64)> = Vec::new();
        for piece in &lead.pieces {
            match ends.last_mut() {
                Some((segment, end)) if *segment == piece.segment => *end = piece.end,
                _ => ends.push((piece.segment, piece.end)),
            }
        }
        // Of a segment that was left, all is durable already. Of one that has begun again meanwhile, all of
        // these pieces are: what is flushed then is somebody else's.
        let durable = |segment: usize| self.table.progress[segment].end.load(Ordering::Acquire);
        ends.retain(|(segment, end)| durable(*segment) < *end);
        if ends.is_empty() {
            return Ok(());
        }
        for (segment, end) in &ends {
            let from = durable(*segment).min(*end);
            self.region.flush(self.layout.at(*segment) + from, end - from)?;
        }
        self.region.drain()
    }
}
