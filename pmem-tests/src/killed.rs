//! A region whose process is killed between writing and draining.

use std::sync::atomic::{AtomicU32, Ordering};

use daxmap::{Region, Result};

use crate::pass_on;

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

    /// One drain less to go.
    fn live(&self) -> Result<()>
    where
        R: Region,
    {
        if self.is_killed() {
            // Any error: who gets it does nothing any more.
            return self.region.read(u64::MAX, &mut [0]);
        }
        self.drains_left.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether it was.
    pub fn is_killed(&self) -> bool {
        self.drains_left.load(Ordering::Relaxed) == 0
    }
}

impl<R: Region> Region for Killed<R> {
    pass_on!(region: len durability granularity backend is_emulated read write write_flush
        fill_flush flush load_u64 store_u64 compare_exchange_u64 grow slices);

    fn drain(&self) -> Result<()> {
        self.live()?;
        self.region.drain()
    }

    fn sync_all(&self) -> Result<()> {
        self.live()?;
        self.region.sync_all()
    }

    fn deep_flush(&self, offset: u64, len: u64) -> Result<()> {
        self.persist(offset, len)
    }

    fn close(&self) -> Result<()> {
        self.drain()
    }
}
