//! Group commit: one sync for all threads that wait for one.
//!
//! A thread that needs its writes durable becomes the leader if no sync is running, and a
//! follower otherwise. The leader's sync covers every write that was finished when it began.
//! A follower waits, and returns if a sync that began after its own writes has succeeded;
//! otherwise it leads the next. It never returns on the word of a sync that was already running
//! when it came, which may have passed its pages by.
//!
//! The next sync begins when all are there whom the last one served or kept waiting: whoever
//! comes last leads it. Without that, those who were served would miss the sync that begins the
//! moment theirs ends, and every sync would serve half of the threads. They wait for each other
//! no longer than a sync takes.
//!
//! Writes are numbered; `mine` is the number of the caller's last, and a sync covers all numbers
//! up to the one read when it began. Nobody holds a lock: threads that come back from a sync see
//! by one load that they are served. Model-checked with loom: `RUSTFLAGS="--cfg loom"`.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use std::time::{Duration, Instant};

use super::event::Event;
use crate::primitives::primitive;

/// Threads that are ready to sync wait for others at most this long.
const LINGER_MAX: Duration = Duration::from_millis(1);

/// The meeting point of the threads that wait for durability of one file.
#[derive(Debug)]
pub(super) struct Group {
    /// Every write up to this number is durable.
    synced: AtomicU64,
    /// A leader is at work.
    running: AtomicBool,
    /// Ends of syncs.
    ended: Event,
    company: Company,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            synced: AtomicU64::new(0),
            running: AtomicBool::new(false),
            ended: Event::default(),
            company: Company::new(),
        }
    }
}

impl Group {
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
        let mut arrived = false;
        loop {
            // Read before all that could be a reason to wait.
            let count = self.ended.count();
            if let Err(error) = check() {
                // Somebody may count on this thread's watch.
                primitive!("group.refused_watch", self.ended.signal(), ());
                return Err(error);
            }
            if primitive!(
                "group.own_sync",
                self.synced.load(Ordering::Acquire) >= mine,
                self.synced.load(Ordering::Acquire) > 0
            ) {
                return Ok(());
            }
            if !arrived {
                // Not whoever has nothing to sync: nobody is to wait for them.
                self.company.arrive();
                arrived = true;
            }
            if self.running.load(Ordering::Acquire) {
                self.ended.wait(count, None);
            } else if let Some(left) = self.company.incomplete() {
                // Whoever completes it leads. One thread watches the clock for all.
                let watches = self.company.watch(count);
                self.ended.wait(count, patience(watches, left));
                if watches && self.ended.count() == count {
                    self.company.time_is_up();
                }
            } else if self.begin() {
                let _ending = Ending(self);
                return self.lead(mine, check, sync);
            }
        }
    }

    /// Whether the next sync is for more than one thread, as far as is known.
    pub(super) fn has_company(&self) -> bool {
        self.company.expected.load(Ordering::Relaxed) > 1
    }

    /// As if the last sync had been for two.
    #[cfg(test)]
    pub(super) fn expect_two(&self) {
        self.company.expected.store(2, Ordering::Relaxed);
    }

    /// The next sync waits for nobody who is not there when it can begin.
    pub(super) fn wait_for_nobody(&self) {
        self.company.time_is_up();
    }

    /// Runs `work` while no sync runs, and holds the next ones off: for whoever syncs the same
    /// open file by other means. A write-back error is reported to it once, and a sync that runs
    /// beside the one which gets it would know nothing of it. `work` makes a failure known to
    /// `check`, as a leader does.
    pub(super) fn alone<T>(&self, work: impl FnOnce() -> T) -> T {
        loop {
            let count = self.ended.count();
            if primitive!("group.alone", self.begin(), true) {
                break;
            }
            self.ended.wait(count, None);
        }
        let _ending = Ending(self);
        work()
    }

    /// How many threads the sync serves that has just begun, for whoever makes it.
    pub(super) fn waiting(&self) -> u64 {
        let arrived = self.company.arrived.load(Ordering::Acquire);
        arrived.saturating_sub(self.company.served.load(Ordering::Acquire))
    }

    /// Makes the caller the leader, if there is none.
    fn begin(&self) -> bool {
        primitive!(
            "group.one_leader",
            self.running.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok(),
            true
        )
    }

    /// One sync for everybody who waits.
    fn lead<E>(
        &self,
        mine: u64,
        check: impl Fn() -> Result<(), E>,
        sync: impl FnOnce() -> Result<u64, E>,
    ) -> Result<(), E> {
        // The leader before may have failed, or covered this thread, after it looked.
        primitive!("group.leader_looks_again", check(), Ok(()))?;
        if self.synced.load(Ordering::Acquire) >= mine {
            return Ok(());
        }
        let served = self.company.depart();
        let covers = sync()?;
        self.synced.fetch_max(covers, Ordering::AcqRel);
        self.company.returns(&served);
        Ok(())
    }
}

/// A leader at work. Its end is known when this is dropped, be it by a panic.
struct Ending<'a>(&'a Group);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Release);
        self.0.ended.signal();
    }
}

/// How long a thread sleeps that waits for others: the one that watches the clock, until time is
/// up; the rest only a little longer, in case that one is kept from running.
#[cfg(not(loom))]
#[allow(clippy::unnecessary_wraps)] // not for the model checker
fn patience(watches: bool, left: Duration) -> Option<Duration> {
    Some(if watches { left } else { left + LINGER_MAX })
}

/// To the model checker, which ends every wait that has a timeout at once, the rest rely on the
/// one that watches.
#[cfg(loom)]
fn patience(watches: bool, left: Duration) -> Option<Duration> {
    watches.then_some(left)
}

/// Who waits for the next sync, and who is expected. A matter of speed alone.
#[derive(Debug)]
struct Company {
    /// Threads that came to wait, ever.
    arrived: AtomicU64,
    /// How many of them the syncs so far have served.
    served: AtomicU64,
    /// How many to wait for, and until when, in nanoseconds since `origin`.
    expected: AtomicU64,
    until_ns: AtomicU64,
    origin: Instant,
    /// One more than the count of ended syncs in which a thread watches the clock.
    watched: AtomicU64,
}

/// A sync that has begun.
struct Departure {
    at: Instant,
    arrived: u64,
}

impl Company {
    fn new() -> Self {
        Self {
            arrived: AtomicU64::new(0),
            served: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            until_ns: AtomicU64::new(0),
            origin: Instant::now(),
            watched: AtomicU64::new(0),
        }
    }

    fn arrive(&self) {
        self.arrived.fetch_add(1, Ordering::AcqRel);
    }

    /// A sync begins, which serves all who have come.
    fn depart(&self) -> Departure {
        Departure { at: Instant::now(), arrived: self.arrived.load(Ordering::Acquire) }
    }

    /// It has ended: those that it served are expected back, with those who came meanwhile.
    fn returns(&self, sync: &Departure) {
        let before = self.served.swap(sync.arrived, Ordering::AcqRel);
        let expected = self.arrived.load(Ordering::Acquire) - before;
        if expected > 1 {
            let until = self.origin.elapsed() + sync.at.elapsed().min(LINGER_MAX);
            self.until_ns.store(until.as_nanos() as u64, Ordering::Relaxed);
        }
        self.expected.store(expected, Ordering::Release);
    }

    /// How long to wait for others yet; `None` if all are here, or have had their time.
    fn incomplete(&self) -> Option<Duration> {
        let arrived = self.arrived.load(Ordering::Acquire);
        // More may have come, and been served, since then.
        let here = arrived.saturating_sub(self.served.load(Ordering::Acquire));
        if here >= self.expected.load(Ordering::Acquire) {
            return None;
        }
        self.left()
    }

    #[cfg(not(loom))]
    fn left(&self) -> Option<Duration> {
        let until = Duration::from_nanos(self.until_ns.load(Ordering::Relaxed));
        until.checked_sub(self.origin.elapsed()).filter(|left| !left.is_zero())
    }

    /// The model checker knows no time: it is up when somebody says so.
    #[cfg(loom)]
    fn left(&self) -> Option<Duration> {
        (self.until_ns.load(Ordering::Relaxed) != 0).then_some(Duration::ZERO)
    }

    /// Nobody waits for others until the next sync has ended.
    fn time_is_up(&self) {
        self.until_ns.store(0, Ordering::Relaxed);
    }

    /// True for the first who asks after so many ended syncs: the one to watch the clock.
    fn watch(&self, count: u32) -> bool {
        let watched = u64::from(count) + 1;
        self.watched.swap(watched, Ordering::AcqRel) != watched
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

    /// All interleavings with at most so many preemptions.
    fn model(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.check(body);
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
        model(3, || {
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

    /// A group in which a sync has just served three.
    fn three_expected() -> Arc<Group> {
        let group = Group::default();
        group.company.expected.store(3, Ordering::SeqCst);
        group.company.until_ns.store(1, Ordering::SeqCst);
        Arc::new(group)
    }

    #[test]
    fn three_threads_that_expect_each_other_all_end() {
        model(2, || {
            let (disk, group) = (Arc::new(Disk::default()), three_expected());
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

    /// A region of the same file poisons this one while its threads wait for a third.
    #[test]
    fn who_waits_for_company_hears_of_a_failure_elsewhere() {
        model(3, || {
            let (disk, group) = (Arc::new(Disk::default()), three_expected());
            let attempt = |disk: &Disk, group: &Group| {
                let mine = disk.written.fetch_add(1, Ordering::SeqCst) + 1;
                let check = || if disk.failed.load(Ordering::SeqCst) { Err(()) } else { Ok(()) };
                let committed = group.commit(mine, check, || Ok(disk.sync()));
                assert!(committed.is_err() || disk.durable.load(Ordering::SeqCst) >= mine);
            };
            let other = {
                let (disk, group) = (Arc::clone(&disk), Arc::clone(&group));
                loom::thread::spawn(move || attempt(&disk, &group))
            };
            let elsewhere = {
                let disk = Arc::clone(&disk);
                loom::thread::spawn(move || disk.failed.store(true, Ordering::SeqCst))
            };
            attempt(&disk, &group);
            other.join().unwrap();
            elsewhere.join().unwrap();
        });
    }

    /// One thread syncs by other means, gets the file's only error, and the drains beside it must
    /// not believe that theirs covered the lost writes.
    #[test]
    fn an_error_that_somebody_else_gets_is_no_success() {
        model(3, || {
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
        model(3, || {
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
