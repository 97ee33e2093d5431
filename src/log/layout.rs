//! Where things are in the region, and how large they are.
//!
//! | offset | what |
//! |---|---|
//! | 0 | the header of the file, in two copies |
//! | 8192 | the root, a cell |
//! | 16384 | segment 0, segment 1, ... |

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::cell::Cell;
use crate::format::check::Key;
use crate::format::header::HEADER_AREA;
use crate::format::{LINE, PAGE};
use crate::primitives::primitive;

use super::root::ROOT_BYTES;

/// Where the first segment is.
pub(super) const SEGMENTS: u64 = HEADER_AREA + Cell::bytes(ROOT_BYTES);

/// Where blocks begin in a segment: the copies of its header have a page each.
pub(super) const BLOCKS: u64 = 2 * PAGE;

/// Bytes of the smallest and the largest segment. Offsets in a segment are 32 bits wide.
pub(super) const SEGMENT_MIN: u64 = 3 * PAGE;
pub(super) const SEGMENT_MAX: u64 = 1 << 31;

/// A log has at least two segments, so that one can be recycled while the other is in use.
pub(super) const SEGMENTS_MIN: u64 = 2;

/// Lsns, lives and counts are below this: one more is always a number.
pub(super) const NUMBERS_END: u64 = 1 << 63;

/// Where the segments of a log are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bytes of a segment: a multiple of 4096.
    pub(super) segment: u64,
}

impl Layout {
    /// A layout for a region of `len` bytes: sixteen segments, of at most 64 MiB.
    pub(super) fn choose(len: u64, segment: Option<u64>) -> Result<Self> {
        let fair = len.saturating_sub(SEGMENTS) / 16 / PAGE * PAGE;
        let segment = segment.unwrap_or(fair.clamp(4 * PAGE, 64 << 20));
        let refuse = |kind| Err(Error::new(Operation::Create, kind));
        if segment % PAGE != 0 || segment == 0 {
            return refuse(ErrorKind::Unaligned { align: PAGE });
        }
        if segment > SEGMENT_MAX {
            return refuse(ErrorKind::TooLarge { max: SEGMENT_MAX });
        }
        let layout = Self { segment: segment.max(SEGMENT_MIN) };
        if layout.count(len) < SEGMENTS_MIN {
            let asked = layout.len(SEGMENTS_MIN);
            return refuse(ErrorKind::TooShort { len, asked });
        }
        Ok(layout)
    }

    /// The layout that a file says it has.
    pub(super) fn of(segment: u64) -> Result<Self> {
        let possible = (SEGMENT_MIN..=SEGMENT_MAX).contains(&segment);
        let possible = possible && segment % PAGE == 0;
        if primitive!("log.layout", possible, true) {
            return Ok(Self { segment });
        }
        let what = ErrorKind::Damaged("the header names an impossible segment size");
        Err(Error::new(Operation::Recover, what).over(0, HEADER_AREA))
    }

    /// How many segments a region of `len` bytes holds.
    pub(super) fn count(self, len: u64) -> u64 {
        (len.saturating_sub(SEGMENTS) / self.segment).min(u64::from(u32::MAX))
    }

    /// Bytes that so many segments need.
    pub(super) fn len(self, count: u64) -> u64 {
        SEGMENTS.saturating_add(count.saturating_mul(self.segment))
    }

    /// Where a segment begins in the region.
    pub(super) fn at(self, segment: usize) -> u64 {
        SEGMENTS + segment as u64 * self.segment
    }

    /// Bytes for blocks in a segment.
    pub(super) fn room(self) -> u64 {
        self.segment - BLOCKS
    }

    /// The root.
    pub(super) fn root(key: Key) -> Cell {
        Cell::new(HEADER_AREA, ROOT_BYTES, key)
    }
}

/// The next multiple of a line.
pub(super) const fn lines(bytes: u64) -> u64 {
    bytes.next_multiple_of(LINE)
}
