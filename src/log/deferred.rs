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
//! and so does every later one.
//!
//! Model-checked with loom: `RUSTFLAGS="--cfg loom"`.

#[cfg(loom)]
use loom::sync::{Condvar, Mutex, MutexGuard};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::PoisonError;
#[cfg(not(loom))]
use std::sync::{Condvar, Mutex, MutexGuard};
use std::task::Waker;

use crate::error::{Error, ErrorKind, Operation};

use super::watermark::{SharedBound, Watermark};

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
        let queue = Queue { bound, pieces, waiting, is_led: false, failed: None };
        Self { queue: Mutex::new(queue), ended: Condvar::new() }
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

    /// The submission that was begun last is written, up to `end` in its segment.
    pub(super) fn written(&self, end: u64) {
        if let Some(piece) = self.queue().pieces.back_mut() {
            (piece.end, piece.is_written) = (end, true);
        }
    }

    /// The submission that was begun last could not be written.
    pub(super) fn not_written(&self, cause: &Arc<Error>) {
        let mut queue = self.queue();
        let Some(piece) = queue.pieces.pop_back() else { return };
        if queue.pieces.is_empty() {
            // Its Lsns are gone: nobody passes them.
            queue.bound.hold(piece.lsn);
        }
        queue.failed.get_or_insert((piece.lsn, Arc::clone(cause)));
    }

    /// What the submission that ends with this Lsn has come to, if it has.
    pub(super) fn outcome(&self, lsn_end: u64) -> Option<Outcome> {
        self.queue().outcome(lsn_end)
    }

    /// The failure that is final.
    pub(super) fn failure(&self) -> Outcome {
        self.queue().failed.as_ref().map_or(Ok(()), |(_, cause)| Err(Arc::clone(cause)))
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
        if let Some((from, cause)) = &self.failed
            && *from < lsn_end
        {
            return Some(Err(Arc::clone(cause)));
        }
        self.pieces.front().is_none_or(|piece| piece.lsn_end > lsn_end).then_some(Ok(()))
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
                    self.pieces.iter().filter(|piece| piece.lsn >= first).for_each(raise);
                    queue.durable_below(last.lsn_end);
                }
            }
            Err(cause) => {
                // Not those that somebody else has made durable meanwhile.
                if let Some(from) = queue.pieces.front().map(|piece| piece.lsn) {
                    queue.failed = Some((from, cause));
                    queue.pieces.clear();
                }
            }
        }
        self.deferred.tell_all(queue);
    }
}

#[cfg(all(test, loom))]
mod tests {
    use std::task::Wake;

    use loom::sync::atomic::{AtomicU64, Ordering};
    use loom::sync::{Arc as Shared, Notify};
    use loom::thread;

    use super::*;

    /// A log of which each submission is one record and one byte, by its Lsn.
    struct Model {
        watermark: Watermark,
        deferred: Deferred,
        /// The lock of the place where the next one is written.
        place: Mutex<()>,
        written: [AtomicU64; 4],
        durable: [AtomicU64; 4],
        fails: bool,
    }

    impl Model {
        fn new(fails: bool) -> Self {
            let watermark = Watermark::new(1);
            let deferred = Deferred::new(watermark.register());
            let (written, durable) = Default::default();
            Self { watermark, deferred, place: Mutex::new(()), written, durable, fails }
        }

        /// The end of its Lsns; none if submissions have failed.
        fn submit(&self) -> Option<u64> {
            let place = self.place.lock().unwrap();
            let lsn = self.deferred.begin(&self.watermark, 1, 0).ok()?;
            self.written[lsn as usize].store(1, Ordering::Relaxed);
            self.deferred.written(lsn);
            drop(place);
            Some(lsn + 1)
        }

        /// A sync: what it is to make durable has been written, all of it and all before.
        fn sync(&self, lead: Lead<'_>) {
            let end = lead.pieces.last().map_or(1, |piece| piece.lsn_end);
            if self.fails {
                let what = ErrorKind::Damaged("a sync that fails");
                return lead.end(Err(Arc::new(Error::new(Operation::Append, what))), |_| ());
            }
            for lsn in 1..end as usize {
                assert_eq!(self.written[lsn].load(Ordering::Relaxed), 1, "{lsn} of {end}");
                self.durable[lsn].store(1, Ordering::Relaxed);
            }
            lead.end(Ok(()), |piece| {
                // Readers and releases are still kept from it.
                assert!(self.watermark.get() < piece.lsn_end);
            });
        }

        fn told(&self, lsn_end: u64, outcome: &Outcome) {
            assert_eq!(outcome.is_err(), self.fails);
            if !self.fails {
                self.all_are_durable_below(lsn_end);
                assert!(self.watermark.get() >= lsn_end);
            } else {
                assert_eq!(self.watermark.get(), 1);
            }
        }

        fn all_are_durable_below(&self, lsn_end: u64) {
            for lsn in 1..lsn_end as usize {
                assert_eq!(self.durable[lsn].load(Ordering::Relaxed), 1, "{lsn} of {lsn_end}");
            }
        }

        fn wait(&self, lsn_end: u64) {
            loop {
                match self.deferred.turn_of_thread(lsn_end) {
                    Turn::Done(outcome) => return self.told(lsn_end, &outcome),
                    Turn::Leads(lead) => self.sync(lead),
                    Turn::Waits => unreachable!("a thread waits inside"),
                }
            }
        }

        /// As a task does; gives up when it has to wait, if it `drops`.
        fn poll(&self, lsn_end: u64, drops: bool) {
            struct Task(Notify);
            impl Wake for Task {
                fn wake(self: Arc<Self>) {
                    self.0.notify();
                }
            }
            let task = Arc::new(Task(Notify::new()));
            let waker = Waker::from(Arc::clone(&task));
            loop {
                match self.deferred.turn(lsn_end, Some(&waker)) {
                    Turn::Done(outcome) => return self.told(lsn_end, &outcome),
                    Turn::Leads(lead) => self.sync(lead),
                    Turn::Waits if drops => return self.deferred.forget(lsn_end),
                    Turn::Waits => task.0.wait(),
                }
            }
        }
    }

    fn model(preemptions: usize, fails: bool, threads: &'static [fn(&Model)]) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(move || {
            let model = Shared::new(Model::new(fails));
            let (last, others) = threads.split_last().unwrap();
            let others: Vec<_> = others
                .iter()
                .map(|&body| {
                    let model = Shared::clone(&model);
                    thread::spawn(move || body(&model))
                })
                .collect();
            last(&model);
            let below = model.watermark.get();
            model.all_are_durable_below(below);
            others.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    fn waits(model: &Model) {
        if let Some(end) = model.submit() {
            model.wait(end);
        }
    }

    fn polls(model: &Model) {
        if let Some(end) = model.submit() {
            model.poll(end, false);
        }
    }

    fn drops(model: &Model) {
        if let Some(end) = model.submit() {
            model.poll(end, true);
        }
    }

    #[test]
    fn nobody_is_told_before_all_before_it_is_durable() {
        model(3, false, &[waits, waits]);
        model(3, false, &[polls, waits]);
        model(2, false, &[polls, polls]);
    }

    #[test]
    fn one_that_was_dropped_hinders_nobody() {
        model(2, false, &[drops, polls]);
        model(2, false, &[drops, waits]);
        model(2, false, &[drops, polls, waits]);
    }

    #[test]
    fn a_failure_reaches_all() {
        model(3, true, &[waits, waits]);
        model(2, true, &[polls, waits]);
    }
}
