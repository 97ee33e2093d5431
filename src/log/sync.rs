//! Locks of the log.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use crate::region::Region;

/// A mutex whose data stays consistent when a holder panics.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A mutex that is held during operations of the region. Threads of a simulated region take turns
/// at those: who waits gives its turn away by one.
pub(super) fn lock_in_turn<'a, T>(region: &impl Region, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
    while region.is_emulated() {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(error)) => return error.into_inner(),
            Err(TryLockError::WouldBlock) => take_turn(region),
        }
    }
    lock(mutex)
}

/// Lets other threads go on. Those of a simulated region take turns at its operations: this is one.
pub(super) fn take_turn(region: &impl Region) {
    std::thread::yield_now();
    if region.is_emulated() {
        let _ = region.load_u64(0);
    }
}
