//! The writers of `Log::append`: which of them does a call use, and what if they have every segment?

use std::sync::{Condvar, Mutex, PoisonError};

use crate::error::Result;
use crate::region::Region;

use super::core::Core;
use super::staging::Staging;
use super::sync::{lock, take_turn};
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
    /// How many of these are used by calls that wait: they give nothing back before the others do.
    waiting: usize,
    /// How often something came back that may be what a call lacks.
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
        // They are on their way: who finds no segment meanwhile waits.
        pool.lent += idle.len();
        let recalled = Recalled { spares: &self.spares, count: idle.len() };
        drop(pool);
        // Each of them, whatever becomes of another.
        let left = idle.into_iter().map(|state| state.leave(self)).fold(Ok(()), Result::and);
        drop(recalled);
        left
    }

    /// The segments of spare writers, which give them up as they are: nobody is writing.
    pub(super) fn idle_segments(&self) -> Vec<usize> {
        let idle = std::mem::take(&mut lock(&self.spares.pool).idle);
        idle.into_iter().filter_map(|state| state.give_up(self)).collect()
    }

    /// Whose segments are called back before anything says `Full`.
    pub(super) fn spare_segments(&self) -> Vec<usize> {
        lock(&self.spares.pool).idle.iter().filter_map(State::segment).collect()
    }

    /// How often something came back.
    pub(super) fn spare_returns(&self) -> u64 {
        lock(&self.spares.pool).returns
    }

    /// There may be room that was not there before: whoever waits looks for it.
    pub(super) fn room_came(&self) {
        lock(&self.spares.pool).returns += 1;
        self.spares.returned.notify_all();
    }

    /// Waits until something came back more often than the caller has `seen`, which may be what it lacks.
    /// False if every call that uses a spare writer waits, too: then nothing comes back.
    ///
    /// `own` is how many of those in use are the caller's.
    pub(super) fn wait_for_spare(&self, own: usize, seen: u64) -> bool {
        let waiting = Waiting::begin(&self.spares, own);
        let mut pool = lock(&self.spares.pool);
        while pool.lent > pool.waiting && pool.returns == seen {
            if self.region.is_emulated() {
                // Threads of a simulated region take turns at its operations.
                drop(pool);
                take_turn(&self.region);
                pool = lock(&self.spares.pool);
            } else {
                let woken = self.spares.returned.wait(pool);
                pool = woken.unwrap_or_else(PoisonError::into_inner);
            }
        }
        let came = pool.returns != seen;
        drop(pool);
        drop(waiting);
        came
    }
}

/// Idle writers whose segments are on their way back, until it is dropped, by a panic of the region's
/// code, too.
struct Recalled<'a> {
    spares: &'a Spares,
    count: usize,
}

impl Drop for Recalled<'_> {
    fn drop(&mut self) {
        let mut pool = lock(&self.spares.pool);
        pool.lent -= self.count;
        pool.returns += u64::from(self.count > 0);
        drop(pool);
        self.spares.returned.notify_all();
    }
}

/// A call that waits, with the writers it uses, until it is dropped.
struct Waiting<'a> {
    spares: &'a Spares,
    own: usize,
}

impl<'a> Waiting<'a> {
    fn begin(spares: &'a Spares, own: usize) -> Self {
        lock(&spares.pool).waiting += own;
        // It may have been the last one that the others were waiting for.
        spares.returned.notify_all();
        Self { spares, own }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.spares.pool).waiting -= self.own;
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Barrier};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::log::{Log, LogOptions, Lsn};
    use crate::region::AnyRegion;
    use crate::{Emulation, ErrorKind, Options};

    /// Much longer than any of this takes.
    const LIMIT: Duration = Duration::from_secs(60);

    /// A full log, which threads that hang may keep.
    fn full() -> &'static Log<AnyRegion> {
        let region = Options::new().len(16384 + 3 * 16384).emulate(Emulation::Adr).in_memory();
        let log = LogOptions::new().segment_bytes(16384).seed(7).format(region.unwrap()).unwrap();
        while log.append(&[1; 1000]).is_ok() {}
        Box::leak(Box::new(log))
    }

    /// Each of two calls has what the other one waits for: nothing.
    #[test]
    fn calls_that_wait_for_each_other_end() {
        let core = &full().core;
        let (both, (done, ended)) = (Arc::new(Barrier::new(2)), channel());
        for _ in 0..2 {
            let (both, done) = (Arc::clone(&both), done.clone());
            thread::spawn(move || {
                let lent = core.lend();
                both.wait();
                let came = core.wait_for_spare(1, core.spare_returns());
                drop(lent);
                done.send(came)
            });
        }
        for _ in 0..2 {
            assert_eq!(ended.recv_timeout(LIMIT), Ok(false), "they wait for each other");
        }
        let pool = lock(&core.spares.pool);
        assert_eq!((pool.lent, pool.waiting), (0, 0));
    }

    #[test]
    fn appends_to_a_full_log_at_once_are_all_refused() {
        const ROUNDS: usize = 300;
        let log = full();
        let (all, (done, ended)) = (Arc::new(Barrier::new(3)), channel());
        for _ in 0..3 {
            let (all, done) = (Arc::clone(&all), done.clone());
            thread::spawn(move || {
                for _ in 0..ROUNDS {
                    all.wait();
                    done.send(log.append(&[1; 1000]).map_err(|error| error.kind().clone()))
                        .unwrap();
                }
            });
        }
        for _ in 0..3 * ROUNDS {
            let refused = ended.recv_timeout(LIMIT).expect("they wait for each other");
            assert!(matches!(refused, Err(ErrorKind::Full { .. })), "{refused:?}");
        }
    }

    /// Whoever waits for a call that takes long looks again when there is room.
    #[test]
    fn what_is_released_or_left_meanwhile_is_told() {
        type Change = fn(&'static Log<AnyRegion>);
        let release: Change = |log| log.release_up_to(Lsn::new(20)).unwrap();
        let leave: Change = |log| drop(log.writer());
        for change in [release, leave] {
            let log = full();
            let core = &log.core;
            let kept = core.lend();
            let seen = core.spare_returns();
            let (done, ended) = channel();
            thread::spawn(move || {
                let lent = core.lend();
                let came = core.wait_for_spare(1, seen);
                drop(lent);
                done.send(came)
            });
            change(log);
            assert_eq!(ended.recv_timeout(LIMIT), Ok(true));
            drop(kept);
        }
    }
}
