//! Lsns are handed out by one counter, and readers see them in order and without gaps.
//!
//! A writer publishes a lower bound of the Lsns that it is about to draw, draws, writes, drains,
//! makes the block known to readers, and takes the bound back. A reader looks at the counter first
//! and at the bounds then: what is below all of them is durable and known.
//!
//! Why that is enough: the counter is changed by read-modify-writes only, so a reader that sees a
//! draw sees the bound that was published before it, or what the writer stored there later. If that
//! is "none", or the bound of a later draw, then the block was made known before.
//!
//! Model-checked with loom: `RUSTFLAGS="--cfg loom"`.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(loom)]
use loom::sync::{Arc, Mutex, MutexGuard};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::{Arc, Mutex, MutexGuard};

use std::sync::PoisonError;

use crossbeam::utils::CachePadded;

use crate::primitives::primitive;

/// No commit is on its way.
const NONE: u64 = u64::MAX;

/// The lowest Lsn that a writer may have on its way.
#[derive(Debug)]
pub(super) struct Bound(CachePadded<AtomicU64>);

impl Bound {
    /// The commit is durable, and readers can find it.
    #[inline]
    pub(super) fn done(&self) {
        self.0.store(NONE, Ordering::Release);
    }

    /// What is below this Lsn is durable; what is not is held back.
    pub(super) fn hold(&self, lsn: u64) {
        self.0.store(lsn, Ordering::Release);
    }
}

/// A writer's bound, which readers look at.
pub(super) type SharedBound = Arc<Bound>;

/// The counter of Lsns, and what is on its way.
#[derive(Debug)]
pub(super) struct Watermark {
    /// The next Lsn to be drawn.
    next: CachePadded<AtomicU64>,
    bounds: Mutex<Vec<Arc<Bound>>>,
    /// The most that `highest` has given.
    given: AtomicU64,
    /// Where all writers write in turn: the end of what is written, durable or not.
    written: AtomicU64,
}

impl Watermark {
    pub(super) fn new(next: u64) -> Self {
        let (given, written) = (AtomicU64::new(next), AtomicU64::new(next));
        let next = CachePadded::new(AtomicU64::new(next));
        Self { next, bounds: Mutex::new(Vec::new()), given, written }
    }

    fn bounds(&self) -> MutexGuard<'_, Vec<Arc<Bound>>> {
        self.bounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A bound for a new writer.
    pub(super) fn register(&self) -> Arc<Bound> {
        let bound = Arc::new(Bound(CachePadded::new(AtomicU64::new(NONE))));
        self.bounds().push(Arc::clone(&bound));
        bound
    }

    /// Forgets a writer that has gone. One that left a commit unfinished, because of an error, keeps
    /// readers from passing it.
    pub(super) fn unregister(&self, bound: &Arc<Bound>) {
        if bound.0.load(Ordering::Relaxed) == NONE {
            self.bounds().retain(|other| !Arc::ptr_eq(bound, other));
        }
    }

    /// Draws `count` Lsns for a commit and returns the first.
    #[inline]
    pub(super) fn draw(&self, bound: &Bound, count: u64) -> u64 {
        // Release: a reader that sees a later draw's bound knows of the block before it.
        let lowest = self.next.load(Ordering::Relaxed);
        primitive!("log.watermark.bound", bound.0.store(lowest, Ordering::Release), ());
        self.next.fetch_add(count, Ordering::AcqRel)
    }

    /// The same for a commit whose writer's bound is that of an earlier one, which is on its way.
    pub(super) fn draw_behind(&self, count: u64) -> u64 {
        self.next.fetch_add(count, Ordering::AcqRel)
    }

    /// The next Lsn to be drawn.
    pub(super) fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// Every Lsn below this is durable and can be found, or never will be.
    pub(super) fn get(&self) -> u64 {
        let next = self.next();
        self.bounds().iter().map(|bound| bound.0.load(Ordering::Acquire)).fold(next, u64::min)
    }

    /// The same, and never less than it was: a writer that is about to draw, and has not looked for a
    /// while, takes `get` back to where it looked.
    pub(super) fn highest(&self) -> u64 {
        let now = self.get();
        self.given.fetch_max(now, Ordering::AcqRel).max(now)
    }

    /// Every Lsn below this one is written, and can be found, by those who read what is not durable, too.
    /// Called in the order of Lsns.
    pub(super) fn wrote(&self, lsn_end: u64) {
        self.written.store(lsn_end, Ordering::Release);
    }

    /// Every Lsn below this is durable or written, and can be found.
    pub(super) fn written(&self) -> u64 {
        self.get().max(self.written.load(Ordering::Acquire))
    }

    /// Goes back: nobody is writing. What failed above it holds nobody back any more.
    pub(super) fn rewind(&mut self, next: u64) {
        self.next.store(next, Ordering::Release);
        self.written.store(next, Ordering::Release);
        for bound in self.bounds().iter().filter(|bound| bound.0.load(Ordering::Acquire) >= next) {
            bound.done();
        }
        // What failed below it still does.
        self.given.store(self.get(), Ordering::Release);
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;

    /// Writers that note in `found` which Lsns can be found.
    fn model(writers: usize, commits: usize, preemptions: usize) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(move || {
            let watermark = Arc::new(Watermark::new(1));
            let total = writers * commits;
            let found: Arc<Vec<AtomicU64>> =
                Arc::new((0..=total).map(|_| AtomicU64::new(0)).collect());
            let threads: Vec<_> = (0..writers)
                .map(|_| {
                    let (watermark, found) = (Arc::clone(&watermark), Arc::clone(&found));
                    loom::thread::spawn(move || {
                        let bound = watermark.register();
                        for _ in 0..commits {
                            let lsn = watermark.draw(&bound, 1);
                            found[lsn as usize].store(1, Ordering::Relaxed);
                            bound.done();
                        }
                        watermark.unregister(&bound);
                    })
                })
                .collect();
            for _ in 0..2 {
                let below = watermark.get();
                for lsn in 1..below {
                    assert_eq!(found[lsn as usize].load(Ordering::Relaxed), 1, "{lsn} of {below}");
                }
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(watermark.get(), total as u64 + 1);
        });
    }

    #[test]
    fn what_is_below_the_watermark_can_be_found() {
        model(2, 1, 4);
    }

    #[test]
    fn a_writer_that_commits_again_hides_nothing() {
        model(1, 3, 5);
    }
}
