//! Which submissions are durable, in which order that is told, and who leads the next sync.
//!
//! A submission is numbered by its Lsns, which are given in the order of the places in the log. It is
//! *begun* when it has its number, *written* when all of its bytes are in the region, and *durable* when a
//! sync that began after that has ended well. One thread at a time leads a sync: it takes what is written
//! when it begins, and when it ends, all of that is durable, and nothing else. Meanwhile the next
//! submissions gather.
//!
//! Who waits and finds no leader leads. Who waits without a thread, by a waker, is woken at the end of the
//! sync that serves it, and at the end of every other one: then nobody leads, and one of those who are
//! woken does. So it does no harm if one of them was dropped in the meantime.
//!
//! The first failure is final: everything from the first submission on that was not durable then gets it,
//! and so does every later one. A commit that fails beside them is such a failure, too.
//!
//! Where each writer has a segment of its own, a submission is durable before those of other writers with
//! lower Lsns may be. Then [`wait_for_lower`](Deferred::wait_for_lower) keeps it back:
//!
//! - Whoever drew a lower Lsn published its bound before, so the [watermark](super::watermark) stays below
//!   until that commit is durable.
//! - A commit that fails, or panics, holds its bound at its Lsn for ever, and says so here afterwards. So
//!   who waits for it ends with its error, and the watermark is never passed by it.
//! - A failure at an Lsn concerns what ends above it only: what was told before stays as it was told.
//!
//! Model-checked with loom: `RUSTFLAGS="--cfg loom"`.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(loom)]
use loom::sync::{Condvar, Mutex, MutexGuard};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::PoisonError;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(loom))]
use std::sync::{Condvar, Mutex, MutexGuard};
use std::task::Waker;

use crate::error::{Error, ErrorKind, Operation};

use super::watermark::{Bound, SharedBound, Watermark};

/// What a submission comes to.
pub(super) type Outcome = Result<(), Arc<Error>>;

/// Told once, on whoever completes the submission.
pub(super) type Callback = Box<dyn FnOnce(Outcome) + Send>;

/// The submissions of a log.
#[derive(Debug)]
pub(super) struct Deferred {
    queue: Mutex<Queue>,
    /// A sync has ended.
    ended: Condvar,
    /// `failed` is set in the queue.
    has_failed: AtomicBool,
}

#[derive(Debug)]
struct Queue {
    /// Keeps readers from what is not durable: the lowest Lsn that is not.
    bound: SharedBound,
    /// Those that are not durable, in the order of their Lsns.
    pieces: VecDeque<Piece>,
    /// By the end of their Lsns.
    waiting: BTreeMap<u64, Waiting>,
    is_led: bool,
    /// From which Lsn on submissions fail, and why.
    failed: Option<(u64, Arc<Error>)>,
    /// That took a submission that was not durable.
    has_lost: bool,
}

/// A submission that is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Its Lsns are those before this one.
    pub(super) lsn_end: u64,
    pub(super) segment: usize,
    /// Where it ends in the segment.
    pub(super) end: u64,
    lsn: u64,
    is_written: bool,
}

/// Who is to be told.
enum Waiting {
    Waker(Waker),
    Callback(Callback),
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(match self {
            Self::Waker(_) => "Waker",
            Self::Callback(_) => "Callback",
        })
    }
}

impl Waiting {
    /// Code of the caller's: its panic, which the hook has reported, is not the affair of whoever leads.
    fn tell(self, outcome: Outcome) {
        let _ = catch_unwind(AssertUnwindSafe(|| match self {
            Self::Waker(waker) => waker.wake(),
            Self::Callback(callback) => callback(outcome),
        }));
    }
}

/// What there is to do for one who waits.
pub(super) enum Turn<'a> {
    Done(Outcome),
    /// Somebody else leads.
    Waits,
    /// Lead: what is to be made durable.
    Leads(Lead<'a>),
}

/// A sync that is under way. If it is dropped, by a panic, it has failed.
pub(super) struct Lead<'a> {
    deferred: &'a Deferred,
    pub(super) pieces: Vec<Piece>,
    is_over: bool,
}

impl Deferred {
    pub(super) fn new(bound: SharedBound) -> Self {
        let (pieces, waiting) = (VecDeque::new(), BTreeMap::new());
        let queue = Queue { bound, pieces, waiting, is_led: false, failed: None, has_lost: false };
        let has_failed = AtomicBool::new(false);
        Self { queue: Mutex::new(queue), ended: Condvar::new(), has_failed }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a submission of `count` records its Lsns: the first. The caller holds the lock of the place
    /// that it will have, and has it until it is written.
    pub(super) fn begin(
        &self,
        watermark: &Watermark,
        count: u64,
        segment: usize,
    ) -> Result<u64, Arc<Error>> {
        let mut queue = self.queue();
        if let Some((_, cause)) = &queue.failed {
            return Err(Arc::clone(cause));
        }
        let lsn = if queue.pieces.is_empty() {
            watermark.draw(&queue.bound, count)
        } else {
            // The bound is at the first of them.
            watermark.draw_behind(count)
        };
        let (lsn_end, is_written) = (lsn + count, false);
        queue.pieces.push_back(Piece { lsn_end, segment, end: 0, lsn, is_written });
        Ok(lsn)
    }

    /// The submission that was begun last, with this first Lsn, is written, up to `end` in its segment.
    pub(super) fn written(&self, lsn: u64, end: u64) {
        // Unless a commit before it failed meanwhile.
        if let Some(piece) = self.queue().pieces.back_mut().filter(|piece| piece.lsn == lsn) {
            (piece.end, piece.is_written) = (end, true);
        }
    }

    /// A commit with this first Lsn, or the submission, did not become durable, and never will. Its bound,
    /// if it has one of its own, is at this Lsn.
    #[cold]
    pub(super) fn fail(&self, lsn: u64, cause: Arc<Error>) {
        let mut queue = self.queue();
        queue.fail(lsn, cause);
        self.has_failed.store(true, Ordering::Release);
        self.tell_all(queue);
    }

    /// The same, unless `is_durable`: then another sync, which came after it was written, has made it durable,
    /// and others may have been told so. Whether it has failed.
    #[cold]
    pub(super) fn fail_unless(
        &self,
        (bound, lsn): (&Bound, u64),
        cause: Arc<Error>,
        is_durable: impl FnOnce() -> bool,
    ) -> bool {
        let mut queue = self.queue();
        // Who was told, was told with the queue locked, and after that sync had noted where it ends.
        if is_durable() {
            return false;
        }
        bound.hold(lsn);
        queue.fail(lsn, cause);
        self.has_failed.store(true, Ordering::Release);
        self.tell_all(queue);
        true
    }

    /// Waits until everything below this Lsn, which is drawn, is durable, or something there has failed.
    /// `turn` is called between two looks.
    #[inline]
    pub(super) fn wait_for_lower(&self, watermark: &Watermark, lsn_end: u64, turn: impl Fn()) {
        while watermark.get() < lsn_end && !self.has_failed_below(lsn_end) {
            turn();
        }
    }

    #[cold]
    fn has_failed_below(&self, lsn_end: u64) -> bool {
        self.has_failed.load(Ordering::Acquire)
            && self.queue().failed.as_ref().is_some_and(|(from, _)| *from < lsn_end)
    }

    /// What the submission that ends with this Lsn has come to, if it has.
    pub(super) fn outcome(&self, lsn_end: u64) -> Option<Outcome> {
        self.queue().outcome(lsn_end)
    }

    /// The failure that is final.
    pub(super) fn failure(&self) -> Outcome {
        if !self.has_failed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.queue().failed.as_ref().map_or(Ok(()), |(_, cause)| Err(Arc::clone(cause)))
    }

    /// The same, if there is something that was submitted and will not be durable.
    pub(super) fn loss(&self) -> Outcome {
        if self.queue().has_lost { self.failure() } else { Ok(()) }
    }

    /// The end of the Lsns of what is submitted and not durable, or 0.
    pub(super) fn last(&self) -> u64 {
        let queue = self.queue();
        let written = queue.pieces.iter().rev().find(|piece| piece.is_written);
        written.map_or(0, |piece| piece.lsn_end)
    }

    /// What there is to do for one who waits, and leaves a waker if somebody else leads.
    pub(super) fn turn(&self, lsn_end: u64, waker: Option<&Waker>) -> Turn<'_> {
        // The caller's code, with what it replaces: not while the queue is locked.
        let waker = waker.cloned();
        let _replaced;
        let mut queue = self.queue();
        if let Some(outcome) = queue.outcome(lsn_end) {
            _replaced = queue.waiting.remove(&lsn_end);
            return Turn::Done(outcome);
        }
        if !queue.is_led {
            return Turn::Leads(self.lead(queue));
        }
        if let Some(waker) = waker {
            _replaced = queue.waiting.insert(lsn_end, Waiting::Waker(waker));
        }
        Turn::Waits
    }

    /// The same for a thread, which waits while somebody else leads.
    pub(super) fn turn_of_thread(&self, lsn_end: u64) -> Turn<'_> {
        let mut queue = self.queue();
        loop {
            if let Some(outcome) = queue.outcome(lsn_end) {
                return Turn::Done(outcome);
            }
            if !queue.is_led {
                return Turn::Leads(self.lead(queue));
            }
            queue = self.ended.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lead(&self, mut queue: MutexGuard<'_, Queue>) -> Lead<'_> {
        queue.is_led = true;
        let pieces = queue.pieces.iter().take_while(|piece| piece.is_written).copied().collect();
        Lead { deferred: self, pieces, is_over: false }
    }

    /// Has somebody told what a submission comes to: at once, if it has.
    pub(super) fn tell(&self, lsn_end: u64, callback: Callback) {
        let mut queue = self.queue();
        if let Some(outcome) = queue.outcome(lsn_end) {
            drop(queue);
            return Waiting::Callback(callback).tell(outcome);
        }
        let replaced = queue.waiting.insert(lsn_end, Waiting::Callback(callback));
        drop(queue);
        // A waker: the caller's code.
        drop(replaced);
    }

    /// Nobody polls for this submission any more.
    pub(super) fn forget(&self, lsn_end: u64) {
        let mut queue = self.queue();
        if let Some(Waiting::Waker(_)) = queue.waiting.get(&lsn_end) {
            let waker = queue.waiting.remove(&lsn_end);
            drop(queue);
            drop(waker);
        }
    }

    /// Somebody else has made durable what has an Lsn below this one.
    pub(super) fn covered(&self, lsn: u64) {
        let mut queue = self.queue();
        if queue.pieces.front().is_some_and(|piece| piece.lsn_end <= lsn) {
            queue.durable_below(lsn);
            self.tell_all(queue);
        }
    }

    /// Tells those who can be told, without the lock.
    fn tell_all(&self, mut queue: MutexGuard<'_, Queue>) {
        let mut told = Vec::new();
        let waiting = std::mem::take(&mut queue.waiting);
        for (lsn_end, waiting) in waiting {
            match (queue.outcome(lsn_end), waiting) {
                (None, Waiting::Callback(callback)) => {
                    queue.waiting.insert(lsn_end, Waiting::Callback(callback));
                }
                // One of those that are not served leads the next sync.
                (None, waker) => told.push((waker, Ok(()))),
                (Some(outcome), waiting) => told.push((waiting, outcome)),
            }
        }
        drop(queue);
        self.ended.notify_all();
        for (waiting, outcome) in told {
            waiting.tell(outcome);
        }
    }
}

impl Queue {
    fn outcome(&self, lsn_end: u64) -> Option<Outcome> {
        if let Some((from, cause)) = &self.failed {
            if *from < lsn_end {
                return Some(Err(Arc::clone(cause)));
            }
        }
        self.pieces.front().is_none_or(|piece| piece.lsn_end > lsn_end).then_some(Ok(()))
    }

    /// What was told is not above this Lsn.
    fn fail(&mut self, lsn: u64, cause: Arc<Error>) {
        let (from, _) = self.failed.get_or_insert((lsn, cause));
        *from = lsn.min(*from);
        let from = *from;
        while self.pieces.back().is_some_and(|piece| piece.lsn >= lsn) {
            self.pieces.pop_back();
            self.has_lost = true;
        }
        if self.pieces.is_empty() {
            // The Lsns of what failed first are gone: nobody passes them.
            self.bound.hold(from);
        }
    }

    fn durable_below(&mut self, lsn: u64) {
        while self.pieces.front().is_some_and(|piece| piece.lsn_end <= lsn) {
            self.pieces.pop_front();
        }
        match (self.pieces.front(), &self.failed) {
            (Some(piece), _) => self.bound.hold(piece.lsn),
            (None, Some((from, _))) => self.bound.hold(*from),
            (None, None) => self.bound.done(),
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let what = ErrorKind::Damaged("a sync of the log did not return");
            self.over(Err(Arc::new(Error::new(Operation::Append, what).unknown())), |_| ());
        }
    }
}

impl Lead<'_> {
    /// The sync has ended. `raise` is told of each piece that it has made durable and nobody else has
    /// meanwhile. While it is called, the Lsns of the piece are held back: its segment is in use.
    pub(super) fn end(mut self, result: Outcome, raise: impl Fn(&Piece)) {
        self.over(result, raise);
    }

    fn over(&mut self, result: Outcome, raise: impl Fn(&Piece)) {
        self.is_over = true;
        let mut queue = self.deferred.queue();
        queue.is_led = false;
        match result {
            Ok(()) => {
                if let Some(last) = self.pieces.last() {
                    // Of the others the segment may have begun again.
                    let first = queue.pieces.front().map_or(u64::MAX, |piece| piece.lsn);
                    let end = queue.failed.as_ref().map_or(u64::MAX, |(from, _)| *from);
                    let still = |piece: &&Piece| (first..end).contains(&piece.lsn);
                    self.pieces.iter().filter(still).for_each(raise);
                    queue.durable_below(last.lsn_end);
                }
            }
            Err(cause) => {
                // Not those that somebody else has made durable meanwhile.
                if let Some(from) = queue.pieces.front().map(|piece| piece.lsn) {
                    queue.fail(from, cause);
                    self.deferred.has_failed.store(true, Ordering::Release);
                }
            }
        }
        self.deferred.tell_all(queue);
    }
}

#[cfg(all(test, loom))]
mod tests;
