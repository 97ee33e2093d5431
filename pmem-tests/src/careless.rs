//! A region whose user forgets something, for controls: what the tests must notice.

use daxmap::{Region, Result};

use crate::load::Care;
use crate::pass_on;

/// Passes everything on but what its care leaves out.
#[derive(Debug)]
pub struct Careless<R> {
    region: R,
    care: Care,
}

impl<R> Careless<R> {
    /// A region that is used with this care.
    pub fn new(region: R, care: Care) -> Self {
        Self { region, care }
    }
}

impl<R: Region> Region for Careless<R> {
    pass_on!(region: len durability granularity backend is_emulated read write fill_flush
        deep_flush load_u64 store_u64 compare_exchange_u64 grow close slices);

    fn write_flush(&self, offset: u64, data: &[u8]) -> Result<()> {
        if self.care.flushes() {
            return self.region.write_flush(offset, data);
        }
        self.region.write(offset, data)
    }

    fn write_stream(&self, offset: u64, data: &[u8]) -> Result<()> {
        if self.care.flushes() {
            return self.region.write_stream(offset, data);
        }
        self.region.write(offset, data)
    }

    fn write_persist(&self, offset: u64, data: &[u8]) -> Result<()> {
        if self.care.flushes() && self.care.drains() {
            return self.region.write_persist(offset, data);
        }
        self.write_flush(offset, data)?;
        self.drain()
    }

    fn flush(&self, offset: u64, len: u64) -> Result<()> {
        if self.care.flushes() { self.region.flush(offset, len) } else { Ok(()) }
    }

    fn drain(&self) -> Result<()> {
        if self.care.drains() { self.region.drain() } else { Ok(()) }
    }

    fn sync_all(&self) -> Result<()> {
        if self.care.drains() { self.region.sync_all() } else { Ok(()) }
    }
}
