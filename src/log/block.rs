//! A block: the records of one commit, which validate together.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | check value of bytes 8 to 39, keyed by the salt of the segment's life and by the place |
//! | 8 | 8 | check value of the body, keyed by the same salt and by the body's place |
//! | 16 | 8 | Lsn of the first record |
//! | 24 | 4 | bytes of the body |
//! | 28 | 4 | number of records, at least 1 |
//! | 32 | 4 | durable: what was before this offset in the segment was durable when the block was written |
//! | 36 | 4 | bytes of the first record |
//! | 40 | | the body: the first record; then, of each further one, at a multiple of 4 bytes in the body, its length in 4 bytes and its bytes |
//!
//! Then zeros up to a multiple of 64: a block begins on a line of its own, so no line is written by
//! two commits.
//!
//! A block without a record is a mark, the first that is written into a segment after a truncation:
//! records of this life before it with its Lsn and higher ones are void. Instead of the body's check
//! value it has the turn of the truncation, instead of the first record's length the place of the mark
//! before it.

use crate::format::check::Key;
use crate::primitives::primitive;

use super::layout::{BLOCKS, lines};

/// Bytes of a block's header.
pub(super) const HEADER: usize = 40;
/// Bytes before each record of a block but the first.
pub(super) const PREFIX: usize = 4;

/// A block's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) lsn: u64,
    pub(super) count: u32,
    /// Bytes of the body.
    pub(super) len: u32,
    pub(super) durable: u32,
    /// Bytes of the first record.
    pub(super) first: u32,
    /// Check value of the body.
    pub(super) body: u64,
}

impl Block {
    /// What the header's check value covers.
    #[inline]
    fn words(&self) -> [u64; 4] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        [self.body, self.lsn, pair(self.len, self.count), pair(self.durable, self.first)]
    }

    /// The header's bytes for a place in the region.
    #[inline]
    pub(super) fn encode(&self, key: &Key, at: u64) -> [u8; HEADER] {
        let words = self.words();
        let check = key.check_words(at, words);
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&check.to_le_bytes());
        for (bytes, word) in bytes[8..].chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The header at a place: `offset` in a segment of `segment` bytes, `at` in the region.
    #[inline]
    pub(super) fn decode(
        key: &Key,
        at: u64,
        offset: u64,
        segment: u64,
        bytes: &[u8],
    ) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
        let long = |from: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[from..from + 8]);
            u64::from_le_bytes(word)
        };
        let block = Self {
            body: long(8),
            lsn: long(16),
            len: long(24) as u32,
            count: (long(24) >> 32) as u32,
            durable: long(32) as u32,
            first: (long(32) >> 32) as u32,
        };
        // First what is cheap: a place that holds none is refused without a check value.
        let made = match block.count {
            0 => block.len == 0 && u64::from(block.first) < offset,
            _ => block.first <= block.len,
        };
        let possible = block.lsn > 0
            && block.lsn.checked_add(u64::from(block.count)).is_some()
            && made
            && u64::from(block.durable) >= BLOCKS
            && u64::from(block.durable) <= offset
            && offset + block.bytes() <= segment;
        let checked = || {
            let right = key.check_words(at, block.words()) == long(0);
            primitive!("log.block.header_check", right, true)
        };
        (possible && checked()).then_some(block)
    }

    /// The mark that nothing before it above `limit` counts.
    pub(super) fn mark(limit: u64, (turn, before): (u64, u32), durable: u32) -> Self {
        Self { lsn: limit + 1, count: 0, len: 0, durable, first: before, body: turn }
    }

    /// What a mark says; none of a block with records.
    #[inline]
    pub(super) fn as_mark(&self) -> Option<Mark> {
        let (limit, turn, before) = (self.lsn - 1, self.body, self.first);
        (self.count == 0).then_some(Mark { limit, turn, before })
    }

    /// Whether it has a record from `next` on that is not above `limit`.
    #[inline]
    pub(super) fn has(&self, next: u64, limit: u64) -> bool {
        self.count > 0 && self.lsn <= limit && self.last().min(limit) >= next
    }

    /// Bytes that it takes, in whole lines.
    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        lines(HEADER as u64 + u64::from(self.len))
    }

    /// The Lsn of the last record.
    #[inline]
    pub(super) fn last(&self) -> u64 {
        self.lsn + u64::from(self.count) - 1
    }

    /// Whether this is the body that belongs to the header.
    #[inline]
    pub(super) fn owns(&self, key: &Key, at: u64, body: &[u8]) -> bool {
        primitive!("log.block.body_check", check_body(key, at, body) == self.body, true)
    }
}

/// A block without a record: what was truncated before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Records before it with higher Lsns are void.
    pub(super) limit: u64,
    /// The number of the truncation.
    pub(super) turn: u64,
    /// Offset of the mark before it in this life, or 0.
    pub(super) before: u32,
}

/// The check value of the body of a block at `at` in the region.
#[inline]
pub(super) fn check_body(key: &Key, at: u64, body: &[u8]) -> u64 {
    key.check(at + HEADER as u64, body)
}

/// Where the records of a body are.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// Where the next one is, and how long.
    next: Option<(usize, usize)>,
    left: u32,
}

impl Places {
    pub(super) fn of(block: &Block) -> Self {
        Self { next: Some((0, block.first as usize)), left: block.count }
    }

    /// The range of the next record in the body; none after the last, or if the body is not made
    /// as it should be.
    pub(super) fn next(&mut self, body: &[u8]) -> Option<std::ops::Range<usize>> {
        let (at, len) = self.next.take()?;
        let end = at.checked_add(len).filter(|&end| end <= body.len())?;
        self.left -= 1;
        if self.left > 0 {
            let prefix = end.next_multiple_of(PREFIX);
            let bytes: [u8; PREFIX] = body.get(prefix..prefix + PREFIX)?.try_into().ok()?;
            self.next = Some((prefix + PREFIX, u32::from_le_bytes(bytes) as usize));
        }
        Some(at..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Block = Block { lsn: 7, count: 2, len: 12, durable: 8192, first: 3, body: 5 };

    #[test]
    fn every_bit_of_a_header_matters() {
        let key = &Key::new(3);
        let bytes = BLOCK.encode(key, 9000);
        assert_eq!(Block::decode(key, 9000, 8192, 12288, &bytes), Some(BLOCK));
        assert_eq!(Block::decode(key, 9064, 8192, 12288, &bytes), None);
        assert_eq!(Block::decode(&Key::new(4), 9000, 8192, 12288, &bytes), None);
        assert_eq!(Block::decode(key, 9000, 8192, 8192 + 40, &bytes), None, "past the end");
        for bit in 0..HEADER * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Block::decode(key, 9000, 8192, 12288, &flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn a_block_without_records_is_a_mark() {
        let key = &Key::new(3);
        let mark = Block::mark(6, (5, 8191), 8192);
        let bytes = mark.encode(key, 9000);
        let found = Block::decode(key, 9000, 8192, 12288, &bytes).unwrap();
        assert_eq!(found.as_mark(), Some(Mark { limit: 6, turn: 5, before: 8191 }));
        assert!(!found.has(1, u64::MAX) && found.bytes() == 64);
        assert!(BLOCK.as_mark().is_none());
        // One mark is before another one.
        let bytes = Block { first: 8192, ..mark }.encode(key, 9000);
        assert_eq!(Block::decode(key, 9000, 8192, 12288, &bytes), None);
        for (next, limit, has) in
            [(7, 6, false), (7, 7, true), (8, 7, false), (8, 8, true), (9, 9, false)]
        {
            assert_eq!(BLOCK.has(next, limit), has, "{next} {limit}");
        }
    }

    #[test]
    fn records_of_a_body() {
        let mut body = b"abc\0\x04\0\0\0wxyz".to_vec();
        let mut places = Places::of(&BLOCK);
        assert_eq!(places.next(&body), Some(0..3));
        assert_eq!(places.next(&body), Some(8..12));
        assert_eq!(places.next(&body), None);
        body[4] = 5;
        let mut places = Places::of(&BLOCK);
        assert_eq!(places.next(&body), Some(0..3));
        assert_eq!(places.next(&body), None);
    }
}
