//! Writes of whole pages, those next to each other in one.

use crate::durability::Granularity;
use crate::error::Result;
use crate::region::Region;

/// How much is collected for one write, in bytes: enough that the system call does not count.
const COLLECT_MAX: usize = 256 << 10;

/// Collects what is written to adjacent places, where a write is a system call. Where it is a copy,
/// it is made at once.
pub(super) struct Writer<'a, R> {
    region: &'a R,
    collects: bool,
    at: u64,
    bytes: Vec<u8>,
    wrote: bool,
}

impl<'a, R: Region> Writer<'a, R> {
    pub(super) fn new(region: &'a R) -> Self {
        let collects = region.granularity() == Granularity::Page;
        Self { region, collects, at: 0, bytes: Vec::new(), wrote: false }
    }

    /// Writes and flushes, now or with the next: seen by others, and durable, after the next drain.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.wrote = true;
        if !self.collects {
            return self.region.write_stream(at, bytes);
        }
        let follows = at == self.at + self.bytes.len() as u64;
        if !follows || self.bytes.len() + bytes.len() > COLLECT_MAX {
            self.send()?;
        }
        if self.bytes.is_empty() {
            self.at = at;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        if !self.bytes.is_empty() {
            self.region.write_flush(self.at, &self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }

    /// Writes the rest. Whether anything was written.
    pub(super) fn finish(mut self) -> Result<bool> {
        self.send()?;
        Ok(self.wrote)
    }
}
