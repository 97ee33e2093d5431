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
//!
//! A store goes to the slot of its number without a look at what is there. So a cell whose slots
//! do not both validate is settled before anything is stored: the newest value may be in the slot
//! that the next store would take.

use super::check::Key;
use super::{LINE, PAGE};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;
use crate::region::Region;

/// Bytes before the value.
pub(crate) const HEADER: usize = 24;

/// Slots of at least so many bytes are written past the caches while something else is done.
const STREAMED: usize = 512;

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

/// What one slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Zeros, where its header would be.
    Blank,
    /// Something that does not validate.
    Invalid,
    Valid(Stored),
}

impl Cell {
    /// A cell for values of up to `capacity` bytes: at a multiple of 4096, or a few lines after one
    /// if its slots do not reach past their pages there.
    pub(crate) const fn new(at: u64, capacity: u32, key: Key) -> Self {
        debug_assert!(at % LINE == 0);
        debug_assert!(at % PAGE + HEADER as u64 + capacity as u64 <= Self::stride(capacity));
        Self { at, capacity, key }
    }

    /// Bytes that a cell takes: a multiple of 4096.
    pub(crate) const fn bytes(capacity: u32) -> u64 {
        2 * Self::stride(capacity)
    }

    /// Bytes that this one takes.
    pub(crate) const fn len(&self) -> u64 {
        Self::bytes(self.capacity)
    }

    /// Bytes from one slot to the other.
    const fn stride(capacity: u32) -> u64 {
        (HEADER as u64 + capacity as u64).next_multiple_of(PAGE)
    }

    /// Bytes of the buffer that [`store`](Self::store) needs.
    pub(crate) const fn buffer_bytes(capacity: u32) -> usize {
        (HEADER + capacity as usize).next_multiple_of(LINE as usize)
    }

    /// Bytes of values that fit, if `bytes` must, without taking another page for it.
    pub(crate) const fn roomy(bytes: u32) -> u32 {
        let roomy = Self::stride(bytes) - HEADER as u64;
        if roomy > u32::MAX as u64 { bytes } else { roomy as u32 }
    }

    /// Where the slot of this sequence number is.
    pub(crate) const fn slot(&self, sequence: u64) -> u64 {
        self.at + (sequence & 1) * Self::stride(self.capacity)
    }

    /// Reads both slots: that of even numbers, then that of odd ones.
    pub(crate) fn slots(&self, region: &impl Region) -> Result<[Slot; 2]> {
        Ok([self.read(region, 0)?, self.read(region, 1)?])
    }

    /// Reads both slots, and says which is the newest.
    pub(crate) fn find(&self, region: &impl Region) -> Result<Found> {
        Ok(newest_of(self.slots(region)?))
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
        let image = image(buffer, value);
        self.store_image(region, image, (sequence, version), value.len(), |_| ())
    }

    /// The same of a value that is in its place already, after [`HEADER`] bytes that are
    /// overwritten, and with zeros after it up to a multiple of 64 bytes. `meanwhile` is done while
    /// a long one is on its way, and may look at it.
    #[inline]
    pub(crate) fn store_image(
        &self,
        region: &impl Region,
        image: &mut [u8],
        word: (u64, u32),
        len: usize,
        meanwhile: impl FnOnce(&[u8]),
    ) -> Result<()> {
        let slot = self.slot(primitive!("cell.slots_in_turn", word.0, 0));
        self.seal(image, slot, word, len);
        if image.len() >= STREAMED {
            region.write_stream(slot, image)?;
            meanwhile(image);
            return primitive!("cell.drain", region.drain(), Ok(()));
        }
        meanwhile(image);
        primitive!(
            "cell.persist",
            region.write_persist(slot, image),
            region.write_flush(slot, image)
        )
    }

    /// Writes a value that [`store`](Self::store) has just stored to the other slot, too, durable after
    /// the next drain of this thread. The arguments are those of the store, and the buffer is as it left
    /// it.
    ///
    /// No drain is needed: the value is durable where it was stored, the next store goes to this slot
    /// again, and a crash that tears either leaves the one before.
    pub(crate) fn repeat(
        &self,
        region: &impl Region,
        buffer: &mut [u8],
        word: (u64, u32),
        len: usize,
    ) -> Result<()> {
        let other = self.slot(word.0 ^ 1);
        self.seal(buffer, other, word, len);
        region.write_flush(other, buffer)
    }

    /// Writes the first value to both slots, durable after the next drain of this thread: a crash
    /// before may leave neither.
    pub(crate) fn write_both(
        &self,
        region: &impl Region,
        buffer: &mut Vec<u8>,
        (sequence, version): (u64, u32),
        value: &[u8],
    ) -> Result<()> {
        let stored = Stored { sequence, version, value: value.to_vec() };
        (0..2).try_for_each(|number| self.write(region, buffer, &stored, number))
    }

    /// Writes the newest value to both slots, durable on return, which heals them.
    ///
    /// First to those that hold it already, as [`keep`](Self::keep) does; then to the others, of which
    /// one may still hold the value before, and is needed until the newest is durable.
    pub(crate) fn settle(
        &self,
        region: &impl Region,
        buffer: &mut Vec<u8>,
        newest: &Stored,
    ) -> Result<()> {
        let held = self.keep(region, buffer, newest)?;
        primitive!("cell.settle.keep_drain", region.drain(), Ok(()))?;
        for number in (0..2).filter(|&number| !held[number as usize]) {
            self.write(region, buffer, newest, number)?;
        }
        primitive!("cell.settle.drain", region.drain(), Ok(()))
    }

    /// Writes the newest value to the slots that hold it, durable after the next drain of this thread.
    /// Which those are.
    ///
    /// It may have been read before it was durable, if the process that stored it was killed, and a
    /// region vouches only for what its caller wrote. The same bytes over themselves cannot be torn.
    pub(crate) fn keep(
        &self,
        region: &impl Region,
        buffer: &mut Vec<u8>,
        newest: &Stored,
    ) -> Result<[bool; 2]> {
        let held = self.slots(region)?.map(|slot| matches!(slot, Slot::Valid(s) if s == *newest));
        for number in (0..2).filter(|&number| held[number as usize]) {
            primitive!("cell.settle.keep", self.write(region, buffer, newest, number), Ok(()))?;
        }
        Ok(held)
    }

    /// Writes a value to a slot.
    fn write(
        &self,
        region: &impl Region,
        buffer: &mut Vec<u8>,
        value: &Stored,
        number: u64,
    ) -> Result<()> {
        let (slot, image) = (self.slot(number), image(buffer, &value.value));
        self.seal(image, slot, (value.sequence, value.version), value.value.len());
        region.write_flush(slot, image)
    }

    /// Fills the header of a slot's bytes in, for their place.
    #[inline]
    fn seal(&self, image: &mut [u8], at: u64, (sequence, version): (u64, u32), len: usize) {
        debug_assert!(len <= self.capacity as usize && image.len() >= HEADER + len);
        let (check, rest) = image[..HEADER + len].split_at_mut(8);
        rest[..8].copy_from_slice(&sequence.to_le_bytes());
        let lens = len as u64 | u64::from(version) << 32;
        rest[8..16].copy_from_slice(&lens.to_le_bytes());
        check.copy_from_slice(&self.key.check(at, rest).to_le_bytes());
    }

    /// Reads the slot of this sequence number.
    pub(crate) fn read(&self, region: &impl Region, number: u64) -> Result<Slot> {
        let at = self.slot(number);
        let mut header = [0; HEADER];
        region.read(at, &mut header)?;
        if header == [0; HEADER] {
            return Ok(Slot::Blank);
        }
        let len = length(&header);
        if primitive!("cell.length_bound", len > self.capacity, false) {
            return Ok(Slot::Invalid);
        }
        // All of it at once: of a slot that another process is storing, the header may have
        // changed since.
        let mut bytes = vec![0; HEADER + len as usize];
        region.read(at, &mut bytes)?;
        let (header, value) = bytes.split_at(HEADER);
        let [check, sequence, lens] = words(header);
        let valid = self.key.check(at, &bytes[8..]) == check && length(header) == len;
        // Slot and number belong together, but in a settled cell.
        if !primitive!("cell.check", valid, true) || sequence == 0 {
            return Ok(Slot::Invalid);
        }
        let version = (lens >> 32) as u32;
        Ok(Slot::Valid(Stored { sequence, version, value: value.to_vec() }))
    }
}

/// Which of what two slots hold is the newest.
pub(crate) fn newest_of(slots: [Slot; 2]) -> Found {
    match slots {
        [Slot::Valid(a), Slot::Valid(b)] => {
            let (newest, other) = if a.sequence < b.sequence { (b, a) } else { (a, b) };
            let same = newest.sequence == other.sequence;
            let other = if same { Other::Same } else { Other::Older };
            Found { newest: Some(newest), other }
        }
        [Slot::Valid(one), rest] | [rest, Slot::Valid(one)] => {
            let blank = matches!(rest, Slot::Blank);
            let other = if blank { Other::Blank } else { Other::Invalid };
            Found { newest: Some(one), other }
        }
        [Slot::Blank, Slot::Blank] => Found { newest: None, other: Other::Blank },
        _ => Found { newest: None, other: Other::Invalid },
    }
}

/// The bytes of a slot with this value, its header still to come.
fn image<'a>(buffer: &'a mut Vec<u8>, value: &[u8]) -> &'a mut [u8] {
    let end = HEADER + value.len();
    buffer.clear();
    buffer.extend_from_slice(&[0; HEADER]);
    buffer.extend_from_slice(value);
    buffer.resize(end.next_multiple_of(LINE as usize), 0);
    buffer
}

fn length(header: &[u8]) -> u32 {
    words(header)[2] as u32
}

fn words(header: &[u8]) -> [u64; 3] {
    let mut words = [0; 3];
    for (word, bytes) in words.iter_mut().zip(header.chunks_exact(8)) {
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
    fn a_value_that_is_repeated_is_in_both_slots() {
        let (region, cell, mut buffer) = cell();
        for sequence in 1..=4 {
            let value = [sequence as u8; 5];
            cell.store(&region, &mut buffer, sequence, 3, &value).unwrap();
            cell.repeat(&region, &mut buffer, (sequence, 3), value.len()).unwrap();
            let both = Slot::Valid(stored(sequence, &value));
            assert_eq!(cell.slots(&region).unwrap(), [both.clone(), both]);
        }
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
    fn a_slot_moved_to_the_other_place_is_none() {
        let (region, cell, mut buffer) = cell();
        cell.store(&region, &mut buffer, 2, 3, b"value").unwrap();
        let mut slot = vec![0; 64];
        region.read(0, &mut slot).unwrap();
        region.write(Cell::stride(CAPACITY), &slot).unwrap();
        region.write(0, &[0; 64]).unwrap();
        assert_eq!(cell.find(&region).unwrap(), Found { newest: None, other: Other::Invalid });
    }

    /// The only valid copy must not be where the healing writes something else first.
    #[test]
    fn settling_heals_whichever_slot_is_damaged() {
        for damaged in [0, 1] {
            let (region, cell, mut buffer) = cell();
            let newest = stored(6, b"six");
            cell.store(&region, &mut buffer, 6, 3, b"six").unwrap();
            cell.settle(&region, &mut buffer, &newest).unwrap();
            region.write(cell.slot(damaged) + 26, &[1]).unwrap();
            let found = cell.find(&region).unwrap();
            assert_eq!(found, Found { newest: Some(newest.clone()), other: Other::Invalid });
            cell.settle(&region, &mut buffer, &newest).unwrap();
            let settled = Found { newest: Some(newest), other: Other::Same };
            assert_eq!(cell.find(&region).unwrap(), settled);
        }
    }
}
