//! Reading the blocks of one life of a segment.

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::LINE;
use crate::format::check::Key;
use crate::region::Region;

use super::block::{Block, HEADER};
use super::layout::Layout;
use super::segment::SegmentHeader;
use super::voids::Voids;

/// A place in a life.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    pub(super) segment: usize,
    pub(super) header: SegmentHeader,
    /// Offset in the segment.
    pub(super) at: u64,
    /// The header's.
    pub(super) key: Key,
    /// No more blocks will come in this life.
    pub(super) complete: bool,
    /// What of it is void.
    pub(super) voids: Voids,
}

impl Cursor {
    pub(super) fn new(segment: usize, header: SegmentHeader, voids: Voids, at: u64) -> Self {
        Self { segment, header, at, key: header.key(), complete: header.last != 0, voids }
    }

    /// Records of the block here above this Lsn are void.
    #[inline]
    pub(super) fn limit(&self) -> u64 {
        self.voids.limit_at(self.at)
    }

    fn place(&self, layout: Layout) -> u64 {
        layout.at(self.segment) + self.at
    }

    /// The header of the block here, if there is one.
    pub(super) fn peek(&self, region: &impl Region, layout: Layout) -> Result<Option<Block>> {
        let place = self.place(layout);
        // The last one of a file that was cut may be shorter than the others.
        if self.at + LINE > layout.segment || place + LINE > region.len() {
            return Ok(None);
        }
        let mut bytes = [0; HEADER];
        region.read(place, &mut bytes)?;
        Ok(Block::decode(&self.key, place, self.at, layout.segment, &bytes))
    }

    /// Reads the body of the block here; false if it is not the one that belongs to the header.
    pub(super) fn body(
        &self,
        region: &impl Region,
        layout: Layout,
        block: &Block,
        into: &mut Vec<u8>,
    ) -> Result<bool> {
        let place = self.place(layout);
        into.resize(block.len as usize, 0);
        region.read(place + HEADER as u64, into)?;
        Ok(block.owns(&self.key, place, into))
    }

    /// That there is no block where one was.
    #[cold]
    pub(super) fn damaged(&self, layout: Layout) -> Error {
        let what = ErrorKind::Damaged("a block of the log that was durable");
        Error::new(Operation::Read, what).over(self.place(layout), LINE)
    }
}
