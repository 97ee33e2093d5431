//! How are bytes replaced where they are, so that a crash leaves the old ones or the new ones? By a redo
//! record: the new bytes, and a list of where they go, that validates itself and each of them.
//!
//! First the record, and a drain: from here on the change has happened. Then the same bytes to their
//! places. Whoever finds a valid record makes it durable ([`Record::keep`]), since the process that
//! wrote it may have been killed before its drain, and lays it over the places once more
//! ([`Record::lay`]): doing so twice is no different from once.
//!
//! | offset in the record | bytes | what |
//! |---|---|---|
//! | 0 | 8 | check value of bytes 8 to the end of the parts' list |
//! | 8 | 8 | sequence number |
//! | 16 | 8 | number of parts |
//! | 24 | 8 | zero |
//! | 32 | 24 each | of each part: where it goes (offset in the file), its bytes, its check value here |
//! | next multiple of 64 | | the parts, one behind the other |

use std::ops::Range;

use super::check::Key;
use super::writer::Writer;
use super::{LINE, rewrite};
use crate::error::Result;
use crate::primitives::primitive;
use crate::region::Region;

pub(crate) const HEAD: usize = 32;
pub(crate) const PART: usize = 24;

/// A piece of the record: where it goes, and where it is. Its bytes stay in the file until they are
/// needed: together they may be as many as the set's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) at: u64,
    pub(crate) len: u64,
    source: u64,
    check: u64,
}

impl Part {
    /// Reads it; false if it does not validate.
    pub(crate) fn read(&self, region: &impl Region, key: Key, into: &mut Vec<u8>) -> Result<bool> {
        into.resize(self.len as usize, 0);
        region.read(self.source, into)?;
        let valid = key.check(self.source, into) == self.check;
        Ok(primitive!("checkpoint.redo.part_check", valid, true))
    }
}

/// A record that validates.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) sequence: u64,
    pub(crate) parts: Vec<Part>,
    /// Where in the file it is.
    pub(crate) area: Range<u64>,
}

impl Record {
    /// Makes the record durable, which it may not be yet.
    pub(crate) fn keep(&self, region: &impl Region) -> Result<()> {
        let Range { start, end } = self.area;
        primitive!("checkpoint.redo.keep_record", rewrite(region, start, end), Ok(()))?;
        primitive!("checkpoint.redo.keep_record_drain", region.drain(), Ok(()))
    }

    /// Writes parts of it to their places, durable after the next drain of this thread. False if one
    /// does not validate any more.
    pub(crate) fn lay(
        &self,
        region: &impl Region,
        key: Key,
        wanted: impl Fn(&Part) -> bool,
    ) -> Result<bool> {
        let mut bytes = Vec::new();
        for part in self.parts.iter().filter(|part| wanted(part)) {
            if !part.read(region, key, &mut bytes)? {
                return Ok(false);
            }
            region.write_flush(part.at, &bytes)?;
        }
        Ok(true)
    }
}

/// Writes and flushes a record, part by part.
pub(crate) struct RecordWriter<'a, R> {
    key: Key,
    redo: u64,
    /// Where the parts begin.
    data: u64,
    head: Vec<u8>,
    /// Where the next part goes.
    at: u64,
    out: Writer<'a, R>,
}

impl<'a, R: Region> RecordWriter<'a, R> {
    /// A record of so many parts.
    pub(crate) fn new(region: &'a R, key: Key, redo: u64, parts: usize) -> Self {
        let listed = HEAD + PART * parts;
        let data = redo + (listed as u64).next_multiple_of(LINE);
        let mut head = Vec::with_capacity((data - redo) as usize);
        head.resize(HEAD, 0);
        head[16..24].copy_from_slice(&(parts as u64).to_le_bytes());
        Self { key, redo, data, head, at: data, out: Writer::new(region) }
    }

    /// The next part: where it goes, and its bytes.
    pub(crate) fn add(mut self, home: u64, bytes: &[u8]) -> Result<Self> {
        self.put(home, bytes)?;
        Ok(self)
    }

    #[inline]
    pub(crate) fn put(&mut self, home: u64, bytes: &[u8]) -> Result<()> {
        let mut part = [0; PART];
        part[..8].copy_from_slice(&home.to_le_bytes());
        part[8..16].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        part[16..].copy_from_slice(&self.key.check(self.at, bytes).to_le_bytes());
        self.head.extend_from_slice(&part);
        self.out.write(self.at, bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// All of its parts are there.
    pub(crate) fn finish(mut self, sequence: u64) -> Result<()> {
        self.head[8..16].copy_from_slice(&sequence.to_le_bytes());
        let check = self.key.check(self.redo, &self.head[8..]);
        self.head[..8].copy_from_slice(&check.to_le_bytes());
        self.head.resize((self.data - self.redo) as usize, 0);
        self.out.write(self.redo, &self.head)?;
        self.out.finish().map(drop)
    }
}

/// Reads the record at the start of this area, if all of it validates and all that it says goes to
/// these places.
pub(crate) fn read_record(
    region: &impl Region,
    key: Key,
    area: Range<u64>,
    places: Range<u64>,
) -> Result<Option<Record>> {
    let (redo, room) = (area.start, area.end.saturating_sub(area.start));
    let mut head = vec![0; HEAD];
    region.read(redo, &mut head)?;
    let (Some(sequence), Some(count)) = (word(&head, 8), word(&head, 16)) else { return Ok(None) };
    let listed = count.checked_mul(PART as u64).and_then(|list| list.checked_add(HEAD as u64));
    let listed = listed.unwrap_or(u64::MAX);
    if primitive!("checkpoint.redo.list_bound", listed > room, false) {
        return Ok(None);
    }
    head.resize(listed as usize, 0);
    region.read(redo, &mut head)?;
    let valid = word(&head, 0) == Some(key.check(redo, &head[8..]));
    if !primitive!("checkpoint.redo.list_check", valid, true) {
        return Ok(None);
    }
    let mut at = redo + listed.next_multiple_of(LINE);
    let (mut parts, mut bytes) = (Vec::new(), Vec::new());
    for part in head[HEAD..].chunks(PART) {
        let (Some(home), Some(len), Some(check)) = (word(part, 0), word(part, 8), word(part, 16))
        else {
            return Ok(None);
        };
        let there = len <= area.end - at.min(area.end);
        let belongs =
            home >= places.start && home.checked_add(len).is_some_and(|end| end <= places.end);
        if !(primitive!("checkpoint.redo.part_bound", there, true)
            && primitive!("checkpoint.redo.place_bound", belongs, true))
        {
            return Ok(None);
        }
        let part = Part { at: home, len, source: at, check };
        if !part.read(region, key, &mut bytes)? {
            return Ok(None);
        }
        parts.push(part);
        at += len;
    }
    Ok(Some(Record { sequence, parts, area: redo..at }))
}

/// A number of 8 bytes, if there are so many.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: u64 = 8192;
    const REDO: u64 = 64 << 10;
    /// Less room behind the record's beginning than before it.
    const LEN: u64 = 72 << 10;

    /// A list of so many parts that is written as a record's is, and has the parts given: where they
    /// go, their bytes, and their check value.
    fn found(count: u64, parts: &[(u64, u64, u64)]) -> Option<Record> {
        let region = crate::Options::new().len(LEN).in_memory().unwrap();
        let key = Key::new(9);
        let mut list = vec![0; HEAD];
        list[16..24].copy_from_slice(&count.to_le_bytes());
        for part in parts {
            list.extend([part.0, part.1, part.2].iter().flat_map(|word| word.to_le_bytes()));
        }
        let check = key.check(REDO, &list[8..]);
        list[..8].copy_from_slice(&check.to_le_bytes());
        region.write(REDO, &list).unwrap();
        read_record(&region, key, REDO..LEN, FIRST..REDO).unwrap()
    }

    #[test]
    fn a_list_that_lies_is_no_record() {
        // The part is 64 zero bytes behind the list.
        let check = Key::new(9).check(REDO + LINE, &[0; 64]);
        assert_eq!(found(1, &[(FIRST, 64, check)]).map(|record| record.parts.len()), Some(1));
        assert!(found(1, &[(REDO - 64, 64, check)]).is_some());
        // It would go over the header, into the record, past the end.
        for home in [0, FIRST - 8, REDO - 63, REDO, LEN, u64::MAX - 63, u64::MAX] {
            assert!(found(1, &[(home, 64, check)]).is_none(), "{home}");
        }
        // There are not as many bytes.
        for len in [LEN - REDO - 63, LEN, u64::MAX - REDO, u64::MAX] {
            assert!(found(1, &[(FIRST, len, check)]).is_none(), "{len}");
        }
        for count in [(LEN - REDO) / PART as u64, 1 << 40, 1 << 61, u64::MAX] {
            assert!(found(count, &[(FIRST, 64, check)]).is_none(), "{count}");
        }
    }
}
