//! A small value that a crash leaves old or new, never mixed: two slots, written in turn.
//!
//! A slot validates itself, so a store is one write and one drain. Slots lie in pages of their
//! own: no write of one, torn or not, touches the other.
//!
//! | offset in the slot | bytes | what |
//! |---|---|---|
//! | 0 | 8 | check value of the rest, keyed by the salt and by the slot's place |
//! | 8 | 8 | sequence number, from 1 |
//! | 16 | 4 | length of the value in bytes |
//! | 20 | 4 | version of the value's layout |
//! | 24 | length | the value; then zeros up to a multiple of 64 bytes |
//!
//! Sequence number `n` goes to slot `n mod 2`. While nobody stores, both slots may hold the same
//! number: [`Cell::settle`] makes it so, after a recovery and before a clean end. Then a damaged
//! slot costs nothing; only of the last store before a crash, a damaged slot cannot be told from
//! a torn one, and [`Found::other`] says that there was one.

use super::check::Key;
use super::{LINE, PAGE};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;
use crate::region::Region;

const HEADER: usize = 24;

/// Where a cell is, how large its value may be, and its key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    at: u64,
    capacity: u32,
    key: Key,
}

/// A value that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) version: u32,
    pub(crate) value: Vec<u8>,
}

/// What the slot has that is not the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Other {
    /// The newest value, too.
    Same,
    /// The value before the newest.
    Older,
    /// Nothing: all zero.
    Blank,
    /// Something that does not validate: a store that a crash has torn, or damage.
    Invalid,
}

/// What a cell holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// `None` if neither slot is valid.
    pub(crate) newest: Option<Stored>,
    pub(crate) other: Other,
}

enum Slot {
    Blank,
    Invalid,
    Valid(Stored),
}

impl Cell {
    /// A cell at a multiple of 4096, for values of up to `capacity` bytes.
    pub(crate) const fn new(at: u64, capacity: u32, key: Key) -> Self {
        debug_assert!(at.is_multiple_of(PAGE));
        Self { at, capacity, key }
    }

    /// Bytes that a cell takes: a multiple of 4096.
    pub(crate) const fn bytes(capacity: u32) -> u64 {
        2 * Self::stride(capacity)
    }

    /// Bytes from one slot to the other.
    const fn stride(capacity: u32) -> u64 {
        (HEADER as u64 + capacity as u64).next_multiple_of(PAGE)
    }

    /// Bytes of the buffer that [`store`](Self::store) needs.
    pub(crate) const fn buffer_bytes(capacity: u32) -> usize {
        (HEADER + capacity as usize).next_multiple_of(LINE as usize)
    }

    const fn slot(&self, number: u64) -> u64 {
        self.at + (number & 1) * Self::stride(self.capacity)
    }

    /// Reads both slots.
    pub(crate) fn find(&self, region: &impl Region) -> Result<Found> {
        let read = |number| self.read(region, number);
        let found = match (read(0)?, read(1)?) {
            (Slot::Valid(a), Slot::Valid(b)) => {
                let (newest, other) = if a.sequence < b.sequence { (b, a) } else { (a, b) };
                let same = newest.sequence == other.sequence;
                let other = if same { Other::Same } else { Other::Older };
                Found { newest: Some(newest), other }
            }
            (Slot::Valid(one), rest) | (rest, Slot::Valid(one)) => {
                let blank = matches!(rest, Slot::Blank);
                let other = if blank { Other::Blank } else { Other::Invalid };
                Found { newest: Some(one), other }
            }
            (Slot::Blank, Slot::Blank) => Found { newest: None, other: Other::Blank },
            _ => Found { newest: None, other: Other::Invalid },
        };
        Ok(found)
    }

    /// Stores a value, durable on return. `sequence` is one more than that of the newest.
    /// `buffer` is scratch space, kept by the caller so that a store allocates nothing.
    ///
    /// The value is longer than the cell's capacity only by a mistake of the caller.
    pub(crate) fn store(
        &self,
        region: &impl Region,
        buffer: &mut Vec<u8>,
        sequence: u64,
        version: u32,
        value: &[u8],
    ) -> Result<()> {
        self.write(region, buffer, sequence, (sequence, version), value)?;
        primitive!("cell.drain", region.drain(), Ok(()))
    }

    /// Makes both slots hold the newest value, durable on return. Writes only where it is not: of a
    /// settled cell that lost one, the other is the only copy, whichever it is.
    pub(crate) fn settle(
        &self,
        region: &impl Region,
        buffer: &mut Vec<u8>,
        newest: &Stored,
    ) -> Result<()> {
        let word = (newest.sequence, newest.version);
        for slot in [0, 1] {
            let there = matches!(self.read(region, slot)?, Slot::Valid(found) if found == *newest);
            if !there {
                self.write(region, buffer, slot, word, &newest.value)?;
            }
        }
        region.drain()
    }

    /// Writes and flushes a slot.
    fn write(
        &self,
        region: &impl Region,
        buffer: &mut Vec<u8>,
        slot: u64,
        (sequence, version): (u64, u32),
        value: &[u8],
    ) -> Result<()> {
        debug_assert!(value.len() <= self.capacity as usize);
        let at = self.slot(primitive!("cell.slots_in_turn", slot, 0));
        let end = HEADER + value.len();
        buffer.clear();
        buffer.extend_from_slice(&[0; 8]);
        buffer.extend_from_slice(&sequence.to_le_bytes());
        buffer.extend_from_slice(&(value.len() as u32).to_le_bytes());
        buffer.extend_from_slice(&version.to_le_bytes());
        buffer.extend_from_slice(value);
        let check = self.key.check(at, &buffer[8..end]);
        buffer[..8].copy_from_slice(&check.to_le_bytes());
        buffer.resize(end.next_multiple_of(LINE as usize), 0);
        region.write_flush(at, buffer)
    }

    fn read(&self, region: &impl Region, number: u64) -> Result<Slot> {
        let at = self.slot(number);
        let mut header = [0; HEADER];
        region.read(at, &mut header)?;
        if header == [0; HEADER] {
            return Ok(Slot::Blank);
        }
        let [check, sequence, lens] = words(&header);
        let (len, version) = (lens as u32, (lens >> 32) as u32);
        if primitive!("cell.length_bound", len > self.capacity, false) {
            return Ok(Slot::Invalid);
        }
        let mut bytes = vec![0; HEADER + len as usize];
        region.read(at, &mut bytes)?;
        let valid = self.key.check(at, &bytes[8..]) == check;
        // Slot and number belong together, but in a settled cell.
        if !primitive!("cell.check", valid, true) || sequence == 0 {
            return Ok(Slot::Invalid);
        }
        bytes.drain(..HEADER);
        Ok(Slot::Valid(Stored { sequence, version, value: bytes }))
    }
}

fn words(bytes: &[u8; HEADER]) -> [u64; 3] {
    let mut words = [0; 3];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        let mut eight = [0; 8];
        eight.copy_from_slice(bytes);
        *word = u64::from_le_bytes(eight);
    }
    words
}

/// The sequence number after this one.
///
/// # Errors
///
/// `Damaged` after the last: a number that no program reaches by counting.
pub(crate) fn next(sequence: u64) -> Result<u64> {
    let damaged = ErrorKind::Damaged("a sequence number that cannot have been reached");
    sequence.checked_add(1).ok_or_else(|| Error::new(Operation::Write, damaged))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use crate::region::AnyRegion;

    const CAPACITY: u32 = 200;

    fn cell() -> (AnyRegion, Cell, Vec<u8>) {
        let region = Options::new().len(Cell::bytes(CAPACITY)).in_memory().unwrap();
        (region, Cell::new(0, CAPACITY, Key::new(11)), Vec::new())
    }

    fn stored(sequence: u64, value: &[u8]) -> Stored {
        Stored { sequence, version: 3, value: value.to_vec() }
    }

    #[test]
    fn the_newest_is_found_and_the_other_is_named() {
        let (region, cell, mut buffer) = cell();
        let blank = Found { newest: None, other: Other::Blank };
        assert_eq!(cell.find(&region).unwrap(), blank);
        cell.store(&region, &mut buffer, 1, 3, b"one").unwrap();
        let found = cell.find(&region).unwrap();
        assert_eq!(found, Found { newest: Some(stored(1, b"one")), other: Other::Blank });
        cell.store(&region, &mut buffer, 2, 3, &[7; CAPACITY as usize]).unwrap();
        let newest = stored(2, &[7; CAPACITY as usize]);
        let found = cell.find(&region).unwrap();
        assert_eq!(found, Found { newest: Some(newest.clone()), other: Other::Older });
        cell.settle(&region, &mut buffer, &newest).unwrap();
        let found = cell.find(&region).unwrap();
        assert_eq!(found, Found { newest: Some(newest), other: Other::Same });
        cell.store(&region, &mut buffer, 3, 3, b"").unwrap();
        let found = cell.find(&region).unwrap();
        assert_eq!(found, Found { newest: Some(stored(3, b"")), other: Other::Older });
    }

    #[test]
    fn every_bit_of_a_slot_matters_and_none_of_the_padding() {
        let (region, cell, mut buffer) = cell();
        cell.store(&region, &mut buffer, 1, 3, b"old").unwrap();
        cell.store(&region, &mut buffer, 2, 3, b"new").unwrap();
        let used = (HEADER + 3) as u64;
        for bit in 0..used.next_multiple_of(64) * 8 {
            let mut byte = [0];
            region.read(bit / 8, &mut byte).unwrap();
            region.write(bit / 8, &[byte[0] ^ 1 << (bit % 8)]).unwrap();
            let found = cell.find(&region).unwrap();
            let expected = if bit < used * 8 { (1, Other::Invalid) } else { (2, Other::Older) };
            assert_eq!((found.newest.unwrap().sequence, found.other), expected, "bit {bit}");
            region.write(bit / 8, &byte).unwrap();
        }
    }

    #[test]
    fn a_settled_cell_heals_whichever_slot_is_damaged_and_leaves_the_other_alone() {
        for sequence in [4, 5] {
            for slot in [0, 1] {
                let (region, cell, mut buffer) = cell();
                let newest = stored(sequence, b"value");
                cell.store(&region, &mut buffer, sequence, 3, b"value").unwrap();
                cell.settle(&region, &mut buffer, &newest).unwrap();
                region.write(cell.slot(slot) + 9, &[0xff]).unwrap();
                let found = cell.find(&region).unwrap();
                assert_eq!(found.other, Other::Invalid);
                assert_eq!(found.newest.as_ref(), Some(&newest));
                // Where the good one is, it must not be written: a crash would tear it.
                let good = cell.slot(slot + 1);
                region.write(good + 63, &[7]).unwrap();
                cell.settle(&region, &mut buffer, &newest).unwrap();
                let mut padding = [0];
                region.read(good + 63, &mut padding).unwrap();
                assert_eq!(padding, [7]);
                let found = cell.find(&region).unwrap();
                assert_eq!(found, Found { newest: Some(newest), other: Other::Same });
            }
        }
    }

    #[test]
    fn a_slot_moved_to_the_other_place_is_none() {
        let (region, cell, mut buffer) = cell();
        cell.store(&region, &mut buffer, 2, 3, b"value").unwrap();
        let mut slot = vec![0; 64];
        region.read(0, &mut slot).unwrap();
        region.write(Cell::stride(CAPACITY), &slot).unwrap();
        region.write(0, &[0; 64]).unwrap();
        assert_eq!(cell.find(&region).unwrap(), Found { newest: None, other: Other::Invalid });
    }
}
