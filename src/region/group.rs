//! Group commit: one sync for all threads that wait for one.
//!
//! A thread that needs its writes durable becomes the leader if no sync is running, and a
//! follower otherwise. The leader's sync covers every write that was finished when it began.
//! A follower waits, and returns if a sync that began after its own writes has succeeded;
//! otherwise it leads the next. It never returns on the word of a sync that was already running
//! when it came, which may have passed its pages by.
//!
//! Writes are numbered; `mine` is the number of the caller's last, and a sync covers all numbers
//! up to the one read when it began. Model-checked with loom: `RUSTFLAGS="--cfg loom"`.

#[cfg(loom)]
use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(loom))]
use std::sync::{Condvar, Mutex, MutexGuard};

use std::sync::PoisonError;
use std::time::Duration;
#[cfg(not(loom))]
use std::time::Instant;

/// How long a leader waits, at most, for the threads of the sync before to come back with their
/// next writes. Without it they would miss the sync that begins the moment theirs ends, and
/// every sync would serve half of the threads.
const LINGER_MAX: Duration = Duration::from_micros(60);

#[derive(Debug, Default)]
struct State {
    /// Every write up to this number is durable.
    synced: u64,
    /// A leader is at work.
    running: bool,
    /// Threads inside `commit`.
    present: usize,
    /// The most threads that were inside while the last sync ran.
    crowd: usize,
}

/// The meeting point of the threads that wait for durability of one file.
#[derive(Debug, Default)]
pub(super) struct Group {
    state: Mutex<State>,
    changed: Condvar,
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns `Ok` once every write up to `mine` is durable.
    ///
    /// `check` refuses when an earlier sync failed; it is asked before every decision. `sync`
    /// runs in at most one thread at a time: it makes every finished write durable and returns
    /// the number of the last that it covers, read before it began; it must make a failure known
    /// to `check` before it returns.
    pub(super) fn commit<E>(
        &self,
        mine: u64,
        check: impl Fn() -> Result<(), E>,
        sync: impl FnOnce() -> Result<u64, E>,
    ) -> Result<(), E> {
        let mut state = self.lock();
        state.present += 1;
        state.crowd = state.crowd.max(state.present);
        let outcome = loop {
            if let Err(error) = check() {
                break Err(error);
            }
            if state.synced >= mine {
                break Ok(());
            }
            if !state.running {
                state.running = true;
                let expected = state.crowd;
                state.crowd = state.present;
                drop(state);
                self.linger(expected);
                let synced = sync();
                state = self.lock();
                state.running = false;
                let led = synced.map(|covers| state.synced = state.synced.max(covers));
                // A wake-up is a system call, also when nobody sleeps.
                if state.present > 1 {
                    self.changed.notify_all();
                }
                break led;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.present -= 1;
        outcome
    }

    /// Runs `work` while no sync runs, and holds the next ones off: for whoever syncs the same
    /// open file by other means. A write-back error is reported to it once, and a sync that runs
    /// beside the one which gets it would know nothing of it. `work` makes a failure known to
    /// `check`, as a leader does.
    pub(super) fn alone<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut state = self.lock();
        state.present += 1;
        while state.running {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.running = true;
        drop(state);
        let result = work();
        state = self.lock();
        state.running = false;
        state.present -= 1;
        if state.present > 0 {
            self.changed.notify_all();
        }
        result
    }

    #[cfg(not(loom))]
    fn linger(&self, expected: usize) {
        if expected < 2 {
            return;
        }
        let began = Instant::now();
        while self.lock().present < expected && began.elapsed() < LINGER_MAX {
            std::thread::yield_now();
        }
    }

    #[cfg(loom)]
    #[allow(clippy::unused_self)]
    fn linger(&self, _expected: usize) {
        let _ = LINGER_MAX;
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    /// Writes finished, and writes that the medium has.
    #[derive(Default)]
    struct Disk {
        written: AtomicU64,
        durable: AtomicU64,
        failed: AtomicBool,
    }

    impl Disk {
        /// A sync that reads what is there when it begins, and is durable some time later.
        fn sync(&self) -> u64 {
            let covers = self.written.load(Ordering::SeqCst);
            loom::thread::yield_now();
            self.durable.fetch_max(covers, Ordering::SeqCst);
            covers
        }
    }

    fn writer(disk: &Disk, group: &Group, rounds: usize) {
        for _ in 0..rounds {
            let mine = disk.written.fetch_add(1, Ordering::SeqCst) + 1;
            let committed: Result<(), ()> = group.commit(mine, || Ok(()), || Ok(disk.sync()));
            assert!(committed.is_ok());
            let durable = disk.durable.load(Ordering::SeqCst);
            assert!(durable >= mine, "write {mine} was acknowledged, {durable} are durable");
        }
    }

    #[test]
    fn nobody_returns_before_its_own_write_is_durable() {
        loom::model(|| {
            let disk = Arc::new(Disk::default());
            let group = Arc::new(Group::default());
            let other = {
                let (disk, group) = (Arc::clone(&disk), Arc::clone(&group));
                loom::thread::spawn(move || writer(&disk, &group, 2))
            };
            writer(&disk, &group, 1);
            other.join().unwrap();
        });
    }

    #[test]
    fn three_threads_all_end() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let disk = Arc::new(Disk::default());
            let group = Arc::new(Group::default());
            let others: Vec<_> = (0..2)
                .map(|_| {
                    let (disk, group) = (Arc::clone(&disk), Arc::clone(&group));
                    loom::thread::spawn(move || writer(&disk, &group, 1))
                })
                .collect();
            writer(&disk, &group, 1);
            others.into_iter().for_each(|other| other.join().unwrap());
        });
    }

    /// One thread syncs by other means, gets the file's only error, and the drains beside it must
    /// not believe that theirs covered the lost writes.
    #[test]
    fn an_error_that_somebody_else_gets_is_no_success() {
        loom::model(|| {
            let disk = Arc::new(Disk::default());
            let group = Arc::new(Group::default());
            // A write that will not reach the medium, and whose error is reported once.
            let lost = disk.written.fetch_add(1, Ordering::SeqCst) + 1;
            let reported = Arc::new(AtomicBool::new(false));
            let grower = {
                let (disk, group) = (Arc::clone(&disk), Arc::clone(&group));
                let reported = Arc::clone(&reported);
                loom::thread::spawn(move || {
                    group.alone(|| {
                        if !reported.swap(true, Ordering::SeqCst) {
                            loom::thread::yield_now();
                            disk.failed.store(true, Ordering::SeqCst);
                        }
                    });
                })
            };
            let committed = group.commit(
                lost,
                || if disk.failed.load(Ordering::SeqCst) { Err(()) } else { Ok(()) },
                || {
                    if reported.swap(true, Ordering::SeqCst) {
                        return Ok(disk.sync());
                    }
                    disk.failed.store(true, Ordering::SeqCst);
                    Err(())
                },
            );
            assert!(committed.is_err(), "a lost write was acknowledged");
            grower.join().unwrap();
        });
    }

    /// The first sync fails, and the kernel would let the second succeed: nobody may believe it.
    #[test]
    fn a_failure_reaches_everyone_who_was_not_covered_before() {
        loom::model(|| {
            let disk = Arc::new(Disk::default());
            let group = Arc::new(Group::default());
            let attempt = |disk: &Disk, group: &Group| {
                let mine = disk.written.fetch_add(1, Ordering::SeqCst) + 1;
                let committed = group.commit(
                    mine,
                    || if disk.failed.load(Ordering::SeqCst) { Err(()) } else { Ok(()) },
                    || {
                        if disk.failed.swap(true, Ordering::SeqCst) {
                            return Ok(disk.sync());
                        }
                        Err(())
                    },
                );
                assert!(committed.is_err(), "a sync after a failed one was believed");
            };
            let other = {
                let (disk, group) = (Arc::clone(&disk), Arc::clone(&group));
                loom::thread::spawn(move || attempt(&disk, &group))
            };
            attempt(&disk, &group);
            other.join().unwrap();
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn sixteen_threads_share_syncs() {
        const ROUNDS: u64 = 50;
        let group = Group::default();
        let (written, durable, syncs) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        let mine = written.fetch_add(1, Ordering::SeqCst) + 1;
                        let sync = || {
                            let covers = written.load(Ordering::SeqCst);
                            std::thread::sleep(Duration::from_micros(200));
                            durable.fetch_max(covers, Ordering::SeqCst);
                            syncs.fetch_add(1, Ordering::SeqCst);
                            Ok::<u64, ()>(covers)
                        };
                        group.commit(mine, || Ok(()), sync).unwrap();
                        assert!(durable.load(Ordering::SeqCst) >= mine);
                    }
                });
            }
        });
        let syncs = syncs.into_inner();
        assert!(syncs < 16 * ROUNDS / 2, "{syncs} syncs for {} writes", 16 * ROUNDS);
    }
}
