//! A region whose process is killed between writing and draining.

use std::sync::atomic::{AtomicU32, Ordering};

use daxmap::{Backend, Durability, Granularity, Region, Result};

/// Passes everything on but the drains after the first so many, which fail. What was written before
/// them can be seen by the next process and is not durable.
#[derive(Debug)]
pub struct Killed<R> {
    region: R,
    drains_left: AtomicU32,
}

impl<R> Killed<R> {
    /// The process is killed before drain number `drains + 1`.
    pub fn before_drain(region: R, drains: u32) -> Self {
        Self { region, drains_left: AtomicU32::new(drains) }
    }

    /// It is killed after so many more drains.
    pub fn kill_after(&self, drains: u32) {
        self.drains_left.store(drains, Ordering::Relaxed);
    }

    /// Whether it was.
    pub fn is_killed(&self) -> bool {
        self.drains_left.load(Ordering::Relaxed) == 0
    }
}

macro_rules! passed_on {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty;)*) => {
        $(fn $name(&self, $($arg: $ty),*) -> $ret {
            self.region.$name($($arg),*)
        })*
    };
}

impl<R: Region> Region for Killed<R> {
    passed_on! {
        fn len() -> u64;
        fn durability() -> Durability;
        fn granularity() -> Granularity;
        fn backend() -> Backend;
        fn is_emulated() -> bool;
        fn read(offset: u64, buf: &mut [u8]) -> Result<()>;
        fn write(offset: u64, data: &[u8]) -> Result<()>;
        fn write_flush(offset: u64, data: &[u8]) -> Result<()>;
        fn fill_flush(offset: u64, len: u64, byte: u8) -> Result<()>;
        fn flush(offset: u64, len: u64) -> Result<()>;
        fn load_u64(offset: u64) -> Result<u64>;
        fn store_u64(offset: u64, value: u64) -> Result<()>;
        fn compare_exchange_u64(offset: u64, current: u64, new: u64)
            -> Result<std::result::Result<u64, u64>>;
        fn grow(new_len: u64) -> Result<()>;
    }

    fn drain(&self) -> Result<()> {
        if self.is_killed() {
            // Any error: who gets it does nothing any more.
            return self.region.read(u64::MAX, &mut [0]);
        }
        self.drains_left.fetch_sub(1, Ordering::Relaxed);
        self.region.drain()
    }

    fn deep_flush(&self, offset: u64, len: u64) -> Result<()> {
        self.persist(offset, len)
    }

    #[allow(unsafe_code)]
    unsafe fn slice(&self, offset: u64, len: u64) -> Result<&[u8]> {
        // SAFETY: passed on.
        unsafe { self.region.slice(offset, len) }
    }

    #[allow(unsafe_code, clippy::mut_from_ref)]
    unsafe fn slice_mut(&self, offset: u64, len: u64) -> Result<&mut [u8]> {
        // SAFETY: passed on.
        unsafe { self.region.slice_mut(offset, len) }
    }

    fn close(&self) -> Result<()> {
        self.drain()
    }
}
