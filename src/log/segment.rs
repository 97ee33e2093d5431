//! The header of a segment: which life it is in, and what is sure about it.
//!
//! | offset in the copy | bytes | what |
//! |---|---|---|
//! | 0 | 8 | check value of bytes 8 to 119, keyed by the salt of the file and by the place |
//! | 8 | 8 | number of the life: 0 if the segment was never used; unique in the log, increasing |
//! | 16 | 8 | salt of this life |
//! | 24 | 8 | base: every record of this life has this Lsn or a higher one |
//! | 32 | 8 | limit: records above this Lsn in blocks before `void` are void |
//! | 40 | 4 | end: the blocks before this offset in the segment were durable |
//! | 44 | 4 | void: 0, or the offset in the segment up to which `limit` counts |
//! | 48 | 8 | last: the Lsn of the last record, if there will be no more in this life; else 0 |
//! | 56 | 8 | turn: the number of the last truncation that this copy knows of |
//! | 64 | 4 | mark: the offset of the last mark before `void`, or 0 |
//! | 68 | 52 | reserved: zero, and not looked at |
//! | 120 | 8 | zero |
//!
//! Two copies, at offsets 0 and 4096 of the segment: in different pages, so that a page that is lost,
//! or is an older one again, takes one of them. At every moment one of them is valid: the
//! second is not written before the first is durable. So a segment of which neither is valid is
//! damaged, and there is no crash that leaves one.
//!
//! The salt is drawn when the life begins. Nothing that was in the segment before can know it.

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::check::Key;
use crate::format::{self, PAGE};
use crate::primitives::primitive;
use crate::region::Region;

use super::block::Mark;
use super::layout::{BLOCKS, Layout, NUMBERS_END};

/// Bytes of a copy.
const BYTES: usize = 128;
const CHECKED: usize = 120;
/// Where the copies are in the segment.
const COPIES: [u64; 2] = [0, PAGE];

/// No limit.
pub(super) const NO_LIMIT: u64 = u64::MAX;

/// What the header of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) life: u64,
    pub(super) salt: u64,
    pub(super) base: u64,
    pub(super) limit: u64,
    pub(super) end: u32,
    pub(super) last: u64,
    pub(super) turn: u64,
    pub(super) void: u32,
    pub(super) mark: u32,
}

/// What stands in the two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoundHeader {
    pub(super) header: SegmentHeader,
    /// The copy that holds it.
    pub(super) copy: usize,
    /// The other one is not valid, or of an earlier life.
    pub(super) other_is_stale: bool,
    /// The other one is not valid.
    pub(super) other_is_invalid: bool,
}

impl SegmentHeader {
    /// That of a segment that was never used.
    pub(super) const UNUSED: Self = Self {
        life: 0,
        salt: 0,
        base: 0,
        limit: NO_LIMIT,
        end: BLOCKS as u32,
        last: 0,
        turn: 0,
        void: 0,
        mark: 0,
    };

    /// Voids the records above `limit` in the blocks before `void`, by this truncation. `mark` is the
    /// last mark before that.
    pub(super) fn cut(&mut self, limit: u64, (void, mark): (u32, u32), turn: u64) {
        let same = self.void == void;
        self.limit = if same { self.limit.min(limit) } else { limit };
        (self.void, self.mark, self.turn) = (void, mark, turn);
        // Records with these Lsns may follow.
        self.base = self.base.min(limit.saturating_add(1));
    }

    /// Learns of the truncation that has left the last mark, if this copy is older: whether it is.
    pub(super) fn follow(&mut self, mark: Option<(u32, Mark)>) -> bool {
        let Some((at, Mark { limit, turn, before })) =
            mark.filter(|(_, mark)| self.turn < mark.turn)
        else {
            return false;
        };
        (self.limit, self.void, self.mark, self.turn) = (limit, at, before, turn);
        self.base = self.base.min(limit.saturating_add(1));
        true
    }

    /// Whether a mark is to be the next block, at `end`.
    pub(super) fn needs_mark(&self, end: u64) -> bool {
        self.void != 0 && u64::from(self.void) == end
    }

    /// What blocks of this life are keyed by.
    pub(super) fn key(&self) -> Key {
        primitive!("log.segment.salt", Key::new(self.salt), Key::new(0))
    }

    fn encode(&self, key: &Key, at: u64) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[8..16].copy_from_slice(&self.life.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.salt.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.base.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.limit.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.end.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.void.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.last.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.turn.to_le_bytes());
        bytes[64..68].copy_from_slice(&self.mark.to_le_bytes());
        let check = key.check(at, &bytes[8..CHECKED]);
        bytes[..8].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    fn decode(key: &Key, at: u64, bytes: &[u8; BYTES]) -> Option<Self> {
        let word = |from: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[from..from + 8]);
            u64::from_le_bytes(word)
        };
        let valid = key.check(at, &bytes[8..CHECKED]) == word(0);
        let header = primitive!("log.segment.check", valid, true).then(|| Self {
            life: word(8),
            salt: word(16),
            base: word(24),
            limit: word(32),
            end: word(40) as u32,
            last: word(48),
            turn: word(56),
            void: (word(40) >> 32) as u32,
            mark: word(64) as u32,
        });
        header.filter(|header| {
            let numbers = [header.life, header.base, header.last, header.turn];
            numbers.iter().all(|number| *number < NUMBERS_END)
        })
    }

    /// Which of two valid copies holds: that of the later life, of the later truncation, of the later
    /// end.
    fn rank(&self) -> (u64, u64, u32, u64) {
        (self.life, self.turn, self.end, self.last)
    }
}

/// The headers of all segments of a log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Headers {
    pub(super) layout: Layout,
    pub(super) key: Key,
}

impl Headers {
    fn place(&self, segment: usize, copy: usize) -> u64 {
        self.layout.at(segment) + COPIES[copy]
    }

    /// Reads the header of a segment.
    ///
    /// # Errors
    ///
    /// `Damaged` if neither copy is valid.
    pub(super) fn read(&self, region: &impl Region, segment: usize) -> Result<FoundHeader> {
        let read = |copy| -> Result<Option<SegmentHeader>> {
            let at = self.place(segment, copy);
            let mut bytes = [0; BYTES];
            region.read(at, &mut bytes)?;
            Ok(SegmentHeader::decode(&self.key, at, &bytes))
        };
        let (first, second) = (read(0)?, read(1)?);
        let (header, copy, other) = match (first, second) {
            (Some(first), Some(second)) if first.rank() < second.rank() => (second, 1, Some(first)),
            (Some(first), second) => (first, 0, second),
            (None, Some(second)) => (second, 1, None),
            (None, None) => {
                let what = ErrorKind::Damaged("both copies of a segment's header");
                let at = self.layout.at(segment);
                return Err(Error::new(Operation::Recover, what).over(at, BLOCKS));
            }
        };
        // That it lacks the end alone is how a segment is left.
        let of = |header: SegmentHeader| (header.life, header.turn);
        let stale = other.is_none_or(|other| of(other) != of(header));
        Ok(FoundHeader { header, copy, other_is_stale: stale, other_is_invalid: other.is_none() })
    }

    /// Writes one copy, durable after the next drain of this thread.
    pub(super) fn write(
        &self,
        region: &impl Region,
        segment: usize,
        copy: usize,
        header: &SegmentHeader,
    ) -> Result<()> {
        let at = self.place(segment, copy);
        region.write_flush(at, &header.encode(&self.key, at))
    }

    /// Writes a copy over itself, whatever it holds, durable after the next drain of this thread.
    pub(super) fn rewrite(&self, region: &impl Region, segment: usize, copy: usize) -> Result<()> {
        let at = self.place(segment, copy);
        format::rewrite(region, at, at + BYTES as u64)
    }

    /// Writes both copies of each: first those that do not hold what is valid now, durable on
    /// return, then the others, durable after the next drain of this thread. Each is given with the
    /// copy that is valid.
    pub(super) fn replace(
        &self,
        region: &impl Region,
        headers: &[(usize, usize, SegmentHeader)],
    ) -> Result<()> {
        if headers.is_empty() {
            return Ok(());
        }
        for other in [true, false] {
            for (segment, copy, header) in headers {
                self.write(region, *segment, if other { 1 - copy } else { *copy }, header)?;
            }
            if other {
                primitive!("log.segment.copies_in_order", region.drain(), Ok(()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use crate::log::layout::SEGMENTS;

    #[test]
    fn the_later_copy_holds_and_a_damaged_one_costs_nothing() {
        let layout = Layout { segment: 12288 };
        let headers = Headers { layout, key: Key::new(5) };
        let region = Options::new().len(layout.len(2)).in_memory().unwrap();
        assert!(headers.read(&region, 0).is_err());
        let old = SegmentHeader { life: 1, salt: 9, base: 1, ..SegmentHeader::UNUSED };
        headers.replace(&region, &[(0, 0, old), (1, 0, SegmentHeader::UNUSED)]).unwrap();
        let found = headers.read(&region, 0).unwrap();
        assert_eq!((found.header, found.other_is_stale), (old, false));
        let new = SegmentHeader { life: 2, salt: 10, base: 7, ..old };
        headers.write(&region, 0, 1, &new).unwrap();
        let found = headers.read(&region, 0).unwrap();
        assert_eq!((found.header, found.copy, found.other_is_stale), (new, 1, true));
        for bit in 0..CHECKED as u64 * 8 {
            let at = SEGMENTS + COPIES[1] + bit / 8;
            let mut byte = [0];
            region.read(at, &mut byte).unwrap();
            region.write(at, &[byte[0] ^ 1 << (bit % 8)]).unwrap();
            let found = headers.read(&region, 0).unwrap();
            assert_eq!((found.header, found.copy, found.other_is_invalid), (old, 0, true));
            region.write(at, &byte).unwrap();
        }
    }

    #[test]
    fn numbers_that_nobody_reaches_are_not_valid() {
        let key = Key::new(5);
        let decoded = |header: SegmentHeader| {
            SegmentHeader::decode(&key, SEGMENTS, &header.encode(&key, SEGMENTS))
        };
        for number in [0, 1, NUMBERS_END - 1, NUMBERS_END, u64::MAX] {
            let unused = SegmentHeader::UNUSED;
            for header in [
                SegmentHeader { life: number, ..unused },
                SegmentHeader { base: number, ..unused },
                SegmentHeader { last: number, ..unused },
                SegmentHeader { turn: number, ..unused },
            ] {
                assert_eq!(decoded(header), Some(header).filter(|_| number < NUMBERS_END));
            }
        }
    }
}
