//! Waiting for something to have happened: a counter that threads sleep on.

use std::time::Duration;

#[cfg(loom)]
pub(super) use modelled::Event;

#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// A counter of events. Whoever reads it, sees that there is reason to wait, and waits for it to
/// change, misses no event that came in between.
#[cfg(not(loom))]
#[derive(Debug, Default)]
pub(super) struct Event {
    count: AtomicU32,
    /// Threads that sleep or are about to.
    sleepers: AtomicU32,
}

#[cfg(not(loom))]
impl Event {
    /// Events so far, modulo 2^32.
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// Sleeps until there have been other than `count` events, or for so long. May return early.
    pub(super) fn wait(&self, count: u32, timeout: Option<Duration>) {
        use rustix::thread::futex::{Flags, wait};
        let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        // With the one in `signal`: either the sleeper is seen, or the kernel sees the new count.
        fence(Ordering::SeqCst);
        // Its errors are reasons to look again: another count, a signal, time is up.
        let _ = wait(&self.count, Flags::PRIVATE, count, timeout.as_ref());
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// One event more: wakes all who sleep. A system call only if somebody does.
    pub(super) fn signal(&self) {
        use rustix::thread::futex::{Flags, wake};
        self.count.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // Fails for an address that is none.
            let _ = wake(&self.count, Flags::PRIVATE, i32::MAX as u32);
        }
    }
}

/// The same for the model checker, which knows no futex and no time.
#[cfg(loom)]
mod modelled {
    use super::Duration;
    use loom::sync::{Condvar, Mutex};

    #[derive(Debug, Default)]
    pub(in super::super) struct Event {
        count: Mutex<u32>,
        changed: Condvar,
    }

    impl Event {
        pub(in super::super) fn count(&self) -> u32 {
            *self.count.lock().unwrap()
        }

        /// With a timeout, time is up at once.
        pub(in super::super) fn wait(&self, count: u32, timeout: Option<Duration>) {
            let mut present = self.count.lock().unwrap();
            while *present == count && timeout.is_none() {
                present = self.changed.wait(present).unwrap();
            }
        }

        pub(in super::super) fn signal(&self) {
            *self.count.lock().unwrap() += 1;
            self.changed.notify_all();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::time::Instant;

    /// Two threads take turns, each asleep while it is the other's: a lost wake-up hangs.
    #[test]
    fn nothing_is_missed() {
        const TURNS: u64 = 20_000;
        let (turn, changed) = (AtomicU64::new(0), Event::default());
        std::thread::scope(|scope| {
            for id in 0..2 {
                let (turn, changed) = (&turn, &changed);
                scope.spawn(move || {
                    for mine in (id..TURNS).step_by(2) {
                        loop {
                            let count = changed.count();
                            if turn.load(Ordering::Acquire) == mine {
                                break;
                            }
                            changed.wait(count, None);
                        }
                        turn.store(mine + 1, Ordering::Release);
                        changed.signal();
                    }
                });
            }
        });
        assert_eq!(turn.into_inner(), TURNS);
        assert_eq!(changed.sleepers.into_inner(), 0);
    }

    #[test]
    fn a_timeout_ends_a_wait() {
        let (event, began) = (Event::default(), Instant::now());
        while began.elapsed() < Duration::from_millis(2) {
            event.wait(event.count(), Some(Duration::from_millis(2)));
        }
        event.wait(event.count().wrapping_add(1), None);
    }
}
