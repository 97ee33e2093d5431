//! Which records of a life a truncation has voided.
//!
//! A segment goes on being used after a truncation, behind what was voided. Its header has the last
//! truncation: up to which offset, and which records count before it. Each one before that has left a
//! mark, the first block behind what it voided, and the marks are a list from the last to the first.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::LINE;
use crate::region::Region;

use super::block::{Block, HEADER};
use super::layout::Layout;
use super::root::Root;
use super::segment::{NO_LIMIT, SegmentHeader};

/// Limits of a life: records above each, in blocks before its offset, are void. The later an offset, the
/// higher its limit: of two others, only the one that voids more counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Voids(Option<Arc<Vec<(u32, u64)>>>);

impl Voids {
    /// Those of a life, by its header, and by the root where the last truncation has not reached the header
    /// yet.
    ///
    /// # Errors
    ///
    /// `Damaged` if a mark is not there; those of reading.
    pub(super) fn beside(
        region: &impl Region,
        layout: Layout,
        segment: usize,
        header: &SegmentHeader,
        root: &Root,
    ) -> Result<Self> {
        let (mut voids, missed) = Self::found(region, layout, segment, header)?;
        if let Some(place) = missed {
            let what = ErrorKind::Damaged("a mark of a truncation in the log");
            return Err(Error::new(Operation::Read, what).over(place, LINE));
        }
        if let Some(cut) = root.cut.filter(|_| header.turn < root.cuts) {
            voids.add(u32::MAX, cut);
        }
        Ok(voids)
    }

    /// Those that were found, and where in the region a mark is missed.
    pub(super) fn found(
        region: &impl Region,
        layout: Layout,
        segment: usize,
        header: &SegmentHeader,
    ) -> Result<(Self, Option<u64>)> {
        if header.void == 0 {
            return Ok((Self::default(), None));
        }
        let mut found = vec![(header.void, header.limit)];
        let (mut at, mut missed) = (header.mark, None);
        while at != 0 {
            let place = layout.at(segment) + u64::from(at);
            let mut bytes = [0; HEADER];
            let inside = u64::from(at) + LINE <= layout.segment && place + LINE <= region.len();
            if inside {
                region.read(place, &mut bytes)?;
            }
            let block = Block::decode(&header.key(), place, u64::from(at), layout.segment, &bytes);
            let Some(mark) = block.and_then(|block| block.as_mark()) else {
                missed = Some(place);
                break;
            };
            if found.last().is_some_and(|(_, limit)| mark.limit < *limit) {
                found.push((at, mark.limit));
            }
            // It is before this one.
            at = mark.before;
        }
        found.reverse();
        Ok((Self(Some(Arc::new(found))), missed))
    }

    /// One more, of blocks before an offset.
    pub(super) fn add(&mut self, end: u32, limit: u64) {
        if self.limit_at(u64::from(end).saturating_sub(1)) <= limit {
            return;
        }
        let all = Arc::make_mut(self.0.get_or_insert_default());
        let behind = all.partition_point(|(other, _)| *other <= end);
        let from = all[..behind].partition_point(|(_, low)| *low < limit);
        all.splice(from..behind, [(end, limit)]);
    }

    /// Up to which Lsn records count in a block at this offset.
    #[inline]
    pub(super) fn limit_at(&self, offset: u64) -> u64 {
        let Some(all) = &self.0 else { return NO_LIMIT };
        let behind = all.partition_point(|(end, _)| u64::from(*end) <= offset);
        all.get(behind).map_or(NO_LIMIT, |(_, limit)| *limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_behind_an_offset_counts() {
        let mut voids = Voids::default();
        assert_eq!(voids.limit_at(0), NO_LIMIT);
        let mut all: Vec<(u32, u64)> = Vec::new();
        for (end, limit) in [
            (100, 20),
            (200, 30),
            (200, 25),
            (300, 50),
            (400, 40),
            (350, 20),
            (90, 60),
            (500, 10),
            (500, 30),
            (450, 5),
        ] {
            voids.add(end, limit);
            all.push((end, limit));
            for offset in 0..600 {
                let behind = all.iter().filter(|(end, _)| u64::from(*end) > offset);
                let limit = behind.map(|(_, limit)| *limit).min().unwrap_or(NO_LIMIT);
                assert_eq!(voids.limit_at(offset), limit, "{offset} of {all:?}");
            }
        }
    }
}
