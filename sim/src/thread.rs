//! Which thread of the model the calling thread is.

use std::cell::Cell;
use std::sync::atomic::{AtomicU16, Ordering};

thread_local! {
    /// Which thread of the model this thread is; 0 if that has not been asked yet.
    static THREAD: Cell<u16> = const { Cell::new(0) };
}

/// The first number that no simulated thread has.
const FIRST_FREE: u16 = 1 << 10;

/// The calling thread, as the model numbers it.
pub(super) fn this_thread() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(FIRST_FREE);
    THREAD.with(|thread| {
        if thread.get() == 0 {
            thread.set(NEXT.fetch_add(1, Ordering::Relaxed).max(FIRST_FREE));
        }
        thread.get()
    })
}

/// Makes the calling thread the simulated thread `index` until the guard is dropped.
pub(super) fn become_thread(index: usize) -> ThreadGuard {
    ThreadGuard(THREAD.with(|thread| thread.replace(index as u16 + 1)))
}

/// The index of a simulated thread, for people.
pub(super) fn thread_index(thread: u16) -> u16 {
    thread.saturating_sub(1)
}

pub(super) struct ThreadGuard(u16);

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        THREAD.with(|thread| thread.set(self.0));
    }
}
