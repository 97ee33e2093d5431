//! The latch: open, poisoned, or closed. Once it has left open it never returns. And how long the
//! region is that it belongs to, since siblings ask that too.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam::utils::CachePadded;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;

const OPEN: u8 = 0;
const POISONED: u8 = 1;
const CLOSED: u8 = 2;

/// Read by every operation, written at most twice: on a cache line of its own.
pub(super) struct Latch {
    state: CachePadded<AtomicU8>,
    cause: OnceLock<Arc<Error>>,
    /// Bytes that the region has as a writer: what its siblings must not take for new.
    extent: AtomicU64,
}

impl Latch {
    pub(super) fn new() -> Self {
        Self {
            state: CachePadded::new(AtomicU8::new(OPEN)),
            cause: OnceLock::new(),
            extent: AtomicU64::new(0),
        }
    }

    /// Says how long the region is now, in bytes, if it is one that is written.
    pub(super) fn announce(&self, len: u64) {
        self.extent.store(len, Ordering::Release);
    }

    /// How long it is; 0 if it is not written.
    pub(super) fn extent(&self) -> u64 {
        self.extent.load(Ordering::Acquire)
    }

    /// For operations that touch durability: refuses once poisoned or closed.
    #[inline]
    pub(super) fn check(&self, operation: Operation) -> Result<()> {
        if self.state.load(Ordering::Acquire) == OPEN { Ok(()) } else { self.refuse(operation) }
    }

    /// Whether [`check`](Self::check) would let an operation pass.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == OPEN
    }

    /// For reads, which go on after an error: refuses once closed.
    #[inline]
    pub(super) fn check_readable(&self, operation: Operation) -> Result<()> {
        if self.state.load(Ordering::Acquire) == CLOSED {
            return Err(Error::new(operation, ErrorKind::Closed));
        }
        Ok(())
    }

    #[cold]
    fn refuse(&self, operation: Operation) -> Result<()> {
        match self.cause.get() {
            Some(cause) => {
                Err(Error::new(operation, ErrorKind::Failed(Arc::clone(cause))).unknown())
            }
            None => Err(Error::new(operation, ErrorKind::Closed)),
        }
    }

    /// Makes `error` final. The first error stays the cause.
    #[cold]
    pub(super) fn poison(&self, error: &Error) {
        // The cause first: whoever sees the state must find it.
        let _ = self.cause.set(Arc::new(error.clone()));
        let to = primitive!("latch.poison", POISONED, OPEN);
        let _ = self.state.compare_exchange(OPEN, to, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Closes. A cause set before stays what later operations report.
    pub(super) fn close(&self) {
        self.state.store(CLOSED, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_stays_and_reads_go_on() {
        let latch = Latch::new();
        assert!(latch.check(Operation::Write).is_ok());
        latch.poison(&Error::os(Operation::Drain, "fdatasync", rustix::io::Errno::IO));
        latch.poison(&Error::os(Operation::Drain, "fdatasync", rustix::io::Errno::NOSPC));
        for _ in 0..2 {
            let error = latch.check(Operation::Flush).unwrap_err();
            assert!(error.is_failed() && error.is_durability_unknown());
            assert_eq!(error.errno(), Some(rustix::io::Errno::IO));
        }
        assert!(latch.check_readable(Operation::Read).is_ok());
        latch.close();
        assert!(latch.check_readable(Operation::Read).is_err());
        assert!(latch.check(Operation::Write).unwrap_err().is_failed());
    }

    #[test]
    fn closed_without_an_error_says_closed() {
        let latch = Latch::new();
        latch.close();
        let error = latch.check(Operation::Write).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Closed));
    }
}
