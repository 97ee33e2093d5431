//! Where a writer's next block goes.

use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::check::Key;
use crate::primitives::primitive;
use crate::region::Region;

use super::core::Core;
use super::layout::BLOCKS;
use super::scan::INDEX_STEP;
use super::table::Taken;

/// A segment that somebody writes into.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) segment: usize,
    /// Where the segment is in the region.
    pub(super) base: u64,
    /// Where the next block goes, in the segment.
    pub(super) at: u64,
    pub(super) key: Key,
    /// From where on a block gets an entry in the index.
    index_from: u64,
}

/// The segment that all writers write into together, and its lock.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) active: Option<Active>,
    /// A write into it failed: there may be a hole, and nobody may write behind it.
    pub(super) broken: bool,
}

impl Active {
    /// Notes a block, if it is time for an entry in the index.
    #[inline]
    pub(super) fn index<R: Region>(&mut self, core: &Core<R>, lsn: u64) {
        if self.at >= self.index_from {
            core.table.index(self.segment, lsn, self.at);
            self.index_from = self.at + INDEX_STEP;
        }
    }
}

impl<R: Region> Core<R> {
    /// Sees to it that a block of `need` bytes has a place in the writer's segment.
    ///
    /// # Errors
    ///
    /// `Full`; those of beginning a segment.
    #[inline]
    pub(super) fn ensure(&self, active: &mut Option<Active>, need: u64) -> Result<()> {
        match active {
            Some(active) if active.at + need <= self.layout.segment => Ok(()),
            _ => self.change_segment(active, need),
        }
    }

    #[cold]
    #[inline(never)]
    fn change_segment(&self, active: &mut Option<Active>, need: u64) -> Result<()> {
        self.check_writable(Operation::Append)?;
        // What was filled after its records were released.
        self.table.free_up_to(self.released());
        let (salt, base) = (self.salts.draw()?, || self.watermark.next());
        let Some(taken) = self.table.take(need, self.layout.segment, salt, base) else {
            let free = self.table.room(self.layout.segment);
            return Err(Error::new(Operation::Append, ErrorKind::Full { needed: need, free }));
        };
        if let Some(old) = active.take() {
            self.retire(&old)?;
        }
        let (segment, key, at) = match taken {
            Taken::Continue { segment, header, at } => (segment, header.key(), at),
            Taken::Begin { segment, header } => {
                // The old life's second copy stays until the new life's first is durable.
                self.headers.write(&self.region, segment, 0, &header)?;
                primitive!("log.begin.drain", self.region.drain(), Ok(()))?;
                // Durable with the first block.
                primitive!(
                    "log.begin.second_copy",
                    self.headers.write(&self.region, segment, 1, &header),
                    Ok(())
                )?;
                (segment, header.key(), BLOCKS)
            }
        };
        let base = self.layout.at(segment);
        *active = Some(Active { segment, base, at, key, index_from: at });
        Ok(())
    }

    /// Notes that a segment is full, durable with the next drain: what is in it must be there from
    /// now on.
    pub(super) fn retire(&self, old: &Active) -> Result<()> {
        if self.is_shared() {
            // Blocks of others may be on their way.
            let end = &self.table.progress[old.segment].end;
            let durable = end.load(Ordering::Acquire);
            self.region.flush(old.base + durable, old.at - durable)?;
            primitive!("log.retire.drain", self.region.drain(), Ok(()))?;
            end.fetch_max(old.at, Ordering::AcqRel);
        }
        let header = self.table.retire(old.segment, old.at);
        primitive!(
            "log.retire.end",
            self.headers.write(&self.region, old.segment, 1, &header),
            Ok(())
        )
    }
}
