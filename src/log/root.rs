//! The root: the few facts about the whole log that change, stored in a cell.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | released: records up to this Lsn are no longer kept |
//! | 8 | 8 | floor: an Lsn below this that is not in the log never will be |
//! | 16 | 8 | cut: 0, or one more than the Lsn after which the log was truncated last, if not all headers say so |
//! | 24 | 8 | number of segments |
//! | 32 | 8 | how often the log was opened for writing |
//! | 40 | 8 | how often it was truncated at the back |
//! | 48 | 8 | 1 if the log was closed, 0 while it is open |
//! | 56 | 8 | durable: up to this Lsn, all was durable when the root was written |
//! | 64 | 8 | absent: how many Lsns from `released` to `durable` had no record at the last opening |
//! | 72 | 32 | note: what the program keeps with the release, or zeros |
//!
//! `durable` is a bound that costs nothing: it rises when the root is stored for another reason.
//!
//! It is stored and then settled, so that outside of a store both slots of the cell hold it.

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::cell::{self, Cell, Found, Other, Stored};
use crate::format::header::HEADER_AREA;
use crate::primitives::primitive;
use crate::region::Region;

use super::layout::NUMBERS_END;

/// Bytes of the root.
pub(super) const ROOT_BYTES: u32 = 104;
/// Bytes of the note, the last of the root.
pub(super) const NOTE_BYTES: usize = 32;
const NOTE: usize = ROOT_BYTES as usize - NOTE_BYTES;
/// Layout version of the value.
const ROOT_VERSION: u32 = 2;

/// What the root says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) released: u64,
    pub(super) floor: u64,
    /// The Lsn after which the log was truncated last, if not all headers say so.
    pub(super) cut: Option<u64>,
    pub(super) segments: u64,
    pub(super) opened: u64,
    pub(super) cuts: u64,
    pub(super) closed: bool,
    /// Up to this Lsn, all was durable.
    pub(super) durable: u64,
    /// How many Lsns above `released` and up to `durable` had no record when the log was last
    /// opened, at least: fewer of them may still be above `released`.
    pub(super) absent: u64,
    /// What the program keeps with the release.
    pub(super) note: [u8; NOTE_BYTES],
}

impl Root {
    fn encode(&self) -> [u8; ROOT_BYTES as usize] {
        let cut = self.cut.map_or(0, |cut| cut.saturating_add(1));
        let closed = u64::from(self.closed);
        let counts = [self.segments, self.opened, self.cuts, closed, self.durable, self.absent];
        let words = [self.released, self.floor, cut].into_iter().chain(counts);
        let mut bytes = [0; ROOT_BYTES as usize];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes[NOTE..].copy_from_slice(&self.note);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ROOT_BYTES as usize] = bytes.try_into().ok()?;
        let mut words = [0; ROOT_BYTES as usize / 8];
        for (word, place) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(place.try_into().ok()?);
        }
        // Nobody counts so far, and one more is a number then.
        if words[..9].iter().any(|word| *word >= NUMBERS_END) {
            return None;
        }
        let [released, floor, cut, segments, opened, cuts, closed, durable, absent, ..] = words;
        let (cut, closed) = (cut.checked_sub(1), closed == 1);
        let note = bytes[NOTE..].try_into().ok()?;
        Some(Self { released, floor, cut, segments, opened, cuts, closed, durable, absent, note })
    }
}

/// The root as it is on the medium, and how to replace it.
#[derive(Debug)]
pub(super) struct RootCell {
    cell: Cell,
    root: Root,
    sequence: u64,
    buffer: Vec<u8>,
    /// A slot of the two was not valid when the root was read.
    pub(super) damaged_slot: bool,
    /// Both slots held it when it was read.
    pub(super) is_settled: bool,
}

impl RootCell {
    /// Stores the first root of a new log.
    pub(super) fn format(cell: Cell, region: &impl Region, root: Root) -> Result<()> {
        let buffer = Vec::with_capacity(Cell::buffer_bytes(ROOT_BYTES));
        let mut new =
            Self { cell, root, sequence: 0, buffer, damaged_slot: false, is_settled: true };
        new.store(region, root)
    }

    /// Reads the root.
    ///
    /// # Errors
    ///
    /// `Damaged` if neither slot is valid.
    pub(super) fn open(cell: Cell, region: &impl Region) -> Result<Self> {
        let Found { newest, other } = cell.find(region)?;
        let decoded = newest.and_then(|stored: Stored| {
            Root::decode(&stored.value).map(|root| (root, stored.sequence))
        });
        let Some((root, sequence)) = decoded else {
            let what = ErrorKind::Damaged("the root of the log");
            let bytes = Cell::bytes(ROOT_BYTES);
            return Err(Error::new(Operation::Recover, what).over(HEADER_AREA, bytes));
        };
        let buffer = Vec::with_capacity(Cell::buffer_bytes(ROOT_BYTES));
        let damaged_slot = matches!(other, Other::Invalid | Other::Blank);
        let is_settled = other == Other::Same;
        Ok(Self { cell, root, sequence, buffer, damaged_slot, is_settled })
    }

    /// Writes the root once more to the slots that hold it, durable after the next drain of this
    /// thread; if one does not, first to the one that does, durable on return. The next store goes to
    /// the slot of its number, which may have the only one.
    pub(super) fn keep(&mut self, region: &impl Region) -> Result<()> {
        let value = self.root.encode().to_vec();
        let newest = Stored { sequence: self.sequence, version: ROOT_VERSION, value };
        if self.is_settled {
            return self.cell.keep(region, &mut self.buffer, &newest).map(drop);
        }
        self.cell.settle(region, &mut self.buffer, &newest)?;
        self.is_settled = true;
        Ok(())
    }

    pub(super) fn get(&self) -> Root {
        self.root
    }

    /// Replaces the root, durable on return. It is in both slots, in the second one durable after the
    /// next drain of this thread: until then damage of the first one, with a crash, goes back to the root
    /// before.
    pub(super) fn store(&mut self, region: &impl Region, root: Root) -> Result<()> {
        let sequence = cell::next(self.sequence)?;
        let value = root.encode();
        self.cell.store(region, &mut self.buffer, sequence, ROOT_VERSION, &value)?;
        self.root = root;
        self.sequence = sequence;
        let word = (sequence, ROOT_VERSION);
        let mut repeat = || self.cell.repeat(region, &mut self.buffer, word, value.len());
        primitive!("log.root.settled", repeat(), Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::{NUMBERS_END, Root};

    #[test]
    fn what_is_encoded_is_decoded() {
        let root = Root {
            released: 1,
            floor: 2,
            cut: Some(0),
            segments: 4,
            opened: 5,
            cuts: 6,
            closed: true,
            durable: 7,
            absent: 8,
            note: std::array::from_fn(|at| at as u8 + 9),
        };
        assert_eq!(Root::decode(&root.encode()), Some(root));
        let none = Root { cut: None, closed: false, ..root };
        assert_eq!(Root::decode(&none.encode()), Some(none));
        assert_eq!(Root::decode(&[0; 8]), None);
        for word in 0..9 {
            let mut bytes = root.encode();
            bytes[word * 8..][..8].copy_from_slice(&(NUMBERS_END - 1).to_le_bytes());
            assert!(Root::decode(&bytes).is_some(), "{word}");
            for forged in [NUMBERS_END, u64::MAX] {
                bytes[word * 8..][..8].copy_from_slice(&forged.to_le_bytes());
                assert_eq!(Root::decode(&bytes), None, "{word}");
            }
        }
    }
}
