//! How many write-backs and fences the calling thread has issued.
//!
//! Compiled into test builds and under the feature `counters`; otherwise the functions that
//! count are empty and inlined away.

/// What one thread has issued since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Cache lines written back by an instruction (CLWB, CLFLUSHOPT, CLFLUSH, DC CVA(D)P).
    pub write_backs: u64,
    /// Cache lines written with non-temporal stores, which need no write-back.
    pub non_temporal_lines: u64,
    /// Store fences that drained.
    pub fences: u64,
    /// Store fences for the order of non-temporal stores alone, so that other threads see them
    /// before what is stored later.
    pub order_fences: u64,
}

impl Counts {
    /// What was issued since `earlier` was taken on this thread.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            write_backs: self.write_backs - earlier.write_backs,
            non_temporal_lines: self.non_temporal_lines - earlier.non_temporal_lines,
            fences: self.fences - earlier.fences,
            order_fences: self.order_fences - earlier.order_fences,
        }
    }
}

#[cfg(any(test, feature = "counters"))]
mod enabled {
    use super::Counts;
    use std::cell::Cell;

    thread_local! {
        static WRITE_BACKS: Cell<u64> = const { Cell::new(0) };
        static NON_TEMPORAL_LINES: Cell<u64> = const { Cell::new(0) };
        static FENCES: Cell<u64> = const { Cell::new(0) };
        static ORDER_FENCES: Cell<u64> = const { Cell::new(0) };
    }

    /// The calling thread's counts.
    #[must_use]
    pub fn counts() -> Counts {
        Counts {
            write_backs: WRITE_BACKS.get(),
            non_temporal_lines: NON_TEMPORAL_LINES.get(),
            fences: FENCES.get(),
            order_fences: ORDER_FENCES.get(),
        }
    }

    #[inline]
    pub(in crate::cpu) fn count_write_backs(lines: usize) {
        WRITE_BACKS.set(WRITE_BACKS.get() + lines as u64);
    }

    #[inline]
    pub(in crate::cpu) fn count_non_temporal(lines: usize) {
        NON_TEMPORAL_LINES.set(NON_TEMPORAL_LINES.get() + lines as u64);
    }

    #[inline]
    pub(in crate::cpu) fn count_fence() {
        FENCES.set(FENCES.get() + 1);
    }

    #[inline]
    pub(in crate::cpu) fn count_order_fence() {
        ORDER_FENCES.set(ORDER_FENCES.get() + 1);
    }
}

#[cfg(not(any(test, feature = "counters")))]
mod disabled {
    #[inline]
    pub(in crate::cpu) fn count_write_backs(_lines: usize) {}

    #[inline]
    pub(in crate::cpu) fn count_non_temporal(_lines: usize) {}

    #[inline]
    pub(in crate::cpu) fn count_fence() {}

    #[inline]
    pub(in crate::cpu) fn count_order_fence() {}
}

#[cfg(not(any(test, feature = "counters")))]
pub(in crate::cpu) use disabled::*;
#[cfg(any(test, feature = "counters"))]
pub use enabled::counts;
#[cfg(any(test, feature = "counters"))]
pub(in crate::cpu) use enabled::{
    count_fence, count_non_temporal, count_order_fence, count_write_backs,
};
