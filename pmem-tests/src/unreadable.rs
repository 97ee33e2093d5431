//! A region of which a part cannot be read, as of poisoned memory.

use std::ops::Range;

use daxmap::{ErrorKind, Region, Result};

use crate::pass_on;

/// Passes everything on but reads of any of these bytes, which fail.
#[derive(Debug)]
pub struct Unreadable<R> {
    /// What is under it.
    pub region: R,
    /// Bytes of the region.
    pub bytes: Range<u64>,
}

impl<R> Unreadable<R> {
    /// Whether an error is that of such a read: any that is not about what the bytes are.
    #[must_use]
    pub fn is_meant(error: &daxmap::Error) -> bool {
        matches!(error.kind(), ErrorKind::OutOfBounds { .. })
    }
}

impl<R: Region> Region for Unreadable<R> {
    pass_on!(region: sync_all len durability granularity backend is_emulated write write_flush
        fill_flush flush drain deep_flush load_u64 store_u64 compare_exchange_u64 grow slices close);

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if offset < self.bytes.end && offset + buf.len() as u64 > self.bytes.start {
            return self.region.read(u64::MAX, &mut [0]);
        }
        self.region.read(offset, buf)
    }
}
