//! The writers of `Log::append`: which of them does a call use, and what if they have every segment?

use std::sync::{Condvar, Mutex, PoisonError};

use crate::error::Result;
use crate::region::Region;

use super::core::Core;
use super::staging::Staging;
use super::sync::lock;
use super::writer::State;

/// Writers that belong to the log. A call has one for as long as it takes.
#[derive(Debug, Default)]
pub(super) struct Spares {
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct Pool {
    /// Those that no call uses, the one used last at the end.
    idle: Vec<State>,
    /// How many are in use.
    lent: usize,
    /// How often some came back that had a segment.
    returns: u64,
    /// Buffers for records whose commit has no writer yet.
    staging: Vec<Staging>,
}

/// A spare writer in use.
#[derive(Debug)]
pub(super) struct Lent<'a, R: Region> {
    core: &'a Core<R>,
    state: Option<State>,
}

impl<R: Region> Core<R> {
    /// Does something with a writer that nobody else uses. No code of the caller's may run in it:
    /// others wait for its end.
    pub(super) fn with_spare<T>(&self, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut lent = self.lend();
        let result = match &mut lent.state {
            Some(state) => work(state),
            None => unreachable!("there until it is given back"),
        };
        lent.give_back();
        result
    }

    fn lend(&self) -> Lent<'_, R> {
        let mut pool = lock(&self.spares.pool);
        pool.lent += 1;
        let idle = pool.idle.pop();
        drop(pool);
        Lent { core: self, state: Some(idle.unwrap_or_else(|| State::spare(self))) }
    }

    /// A buffer for records that are gathered while no writer is held, since it is the caller's code
    /// that gives them: it may append to this log itself, or panic.
    pub(super) fn spare_staging(&self) -> Staging {
        lock(&self.spares.pool).staging.pop().unwrap_or_default()
    }

    /// Keeps a buffer for the next one who gathers records.
    pub(super) fn keep_staging(&self, mut staging: Staging) {
        staging.clear();
        lock(&self.spares.pool).staging.push(staging);
    }

    /// Takes the segments back from spare writers that no call uses.
    pub(super) fn recall_spares(&self) -> Result<()> {
        let mut pool = lock(&self.spares.pool);
        let idle = std::mem::take(&mut pool.idle);
        let count = idle.len();
        // They are on their way: who finds no segment meanwhile waits.
        pool.lent += count;
        drop(pool);
        let left = idle.into_iter().try_for_each(|state| state.leave(self));
        let mut pool = lock(&self.spares.pool);
        pool.lent -= count;
        pool.returns += u64::from(count > 0);
        drop(pool);
        self.spares.returned.notify_all();
        left
    }

    /// How often a segment came back.
    pub(super) fn spare_returns(&self) -> u64 {
        lock(&self.spares.pool).returns
    }

    /// Waits until segments came back more often than the caller has `seen`, which may be what it lacks.
    /// False if no other call uses a spare writer: then nothing comes back.
    ///
    /// `own` is how many of those in use are the caller's.
    pub(super) fn wait_for_spare(&self, own: usize, seen: u64) -> bool {
        let mut pool = lock(&self.spares.pool);
        while pool.lent > own && pool.returns == seen {
            if self.region.is_emulated() {
                // Threads of a simulated region take turns at its operations.
                drop(pool);
                std::thread::yield_now();
                let _ = self.region.load_u64(0);
                pool = lock(&self.spares.pool);
            } else {
                let woken = self.spares.returned.wait(pool);
                pool = woken.unwrap_or_else(PoisonError::into_inner);
            }
        }
        pool.returns != seen
    }
}

impl<R: Region> Lent<'_, R> {
    fn give_back(mut self) {
        if let Some(state) = self.state.take() {
            let mut pool = lock(&self.core.spares.pool);
            pool.returns += u64::from(state.has_segment());
            pool.idle.push(state);
        }
    }
}

impl<R: Region> Drop for Lent<'_, R> {
    /// After a panic of the region's code, the writer is not given back: its commit is not finished.
    fn drop(&mut self) {
        let mut pool = lock(&self.core.spares.pool);
        pool.lent -= 1;
        // Those who wait for it are not the caller's own: one of them goes on, or finds that it is alone.
        drop(pool);
        self.core.spares.returned.notify_all();
    }
}
