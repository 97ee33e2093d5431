//! A redo record: the working set has a place in the file, and a checkpoint goes there by way of a
//! record of what changes.
//!
//! For memory that is written in lines: a changed line costs its own bytes twice, and no page is
//! copied. First the record, which validates itself: the changed lines, the check values of the
//! pages they are in, and what is noted of the checkpoint. A drain. From here on the checkpoint
//! has happened. Then the same bytes to their places, and a drain, after which the record is not
//! needed. Recovery lays a valid record over what the places hold, and writes it there again:
//! doing so twice is no different from once.
//!
//! What recovery reads may not be durable: a process that was killed had not drained it. So a
//! writable opening writes the record over itself and drains before it touches a place, and drains
//! the places before anything takes the place of the record.
//!
//! | pages of the file | what |
//! |---|---|
//! | 2 | the note: 8 bytes check value, 96 bytes record of the newest checkpoint |
//! | 3 .. *h* | 8 bytes for each page of the set: its check value; that of no bytes: nobody wrote it, it is zero |
//! | *h* .. *r* | the working set |
//! | *r* .. | the redo record |
//!
//! | offset in the redo record | bytes | what |
//! |---|---|---|
//! | 0 | 8 | check value of bytes 8 to the end of the parts' list |
//! | 8 | 8 | sequence number of the checkpoint |
//! | 16 | 8 | number of parts |
//! | 24 | 8 | zero |
//! | 32 | 24 each | of each part: where it goes (offset in the file), its bytes, its check value here |
//! | next multiple of 64 | | the parts, one behind the other |

use super::changes::Changes;
use super::memory::Memory;
use super::record::{self, Checkpoint, RECORD_BYTES};
use super::settings::Settings;
use super::shadow::Entry;
use super::writer::Writer;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::check::Key;
use crate::format::header::HEADER_AREA;
use crate::format::rewrite;
use crate::format::{LINE, PAGE};
use crate::primitives::primitive;
use crate::region::Region;

const NOTE: u64 = HEADER_AREA;
/// Bytes of the note, in whole lines.
const NOTE_BYTES: usize = 128;
const CHECKS: u64 = NOTE + PAGE;
const HEAD: usize = 32;
const PART: usize = 24;

/// The places of a file.
#[derive(Clone, Copy, Debug)]
struct Places {
    pages: u64,
    home: u64,
    redo: u64,
}

impl Places {
    fn of(pages: u64) -> Self {
        let home = CHECKS + (pages * 8).next_multiple_of(PAGE);
        Self { pages, home, redo: home + pages * PAGE }
    }
}

/// Bytes of a file: with a redo record that holds every line.
pub(super) fn file_bytes(settings: &Settings) -> u64 {
    let places = Places::of(settings.pages());
    // A line that is left out saves 64 bytes and costs a part of 24 at most: no record is larger
    // than that of everything, a part for each page. Eight pages have a line of check values, a
    // part of its own. Head, note and the last of those lines are less than a page.
    let record = settings.pages() * (PAGE + PART as u64 + (LINE + PART as u64) / 8);
    places.redo + record.next_multiple_of(PAGE) + PAGE
}

/// The state of a file with a redo record.
#[derive(Debug)]
pub(super) struct Redo {
    places: Places,
    key: Key,
    checks: Vec<u64>,
    newest: Checkpoint,
    /// The record validates and is that of the newest checkpoint.
    record_whole: bool,
    /// And it is durable, as is what it says in its places.
    settled: bool,
}

/// What was found besides the set.
#[derive(Debug)]
pub(super) struct Found {
    /// The record does not validate.
    pub(super) torn: bool,
    /// Something in the places was not what the record says.
    pub(super) differed: bool,
    pub(super) bytes_read: u64,
}

/// A piece of the record: where it goes, and what it is.
struct Part {
    at: u64,
    bytes: Vec<u8>,
}

/// A record that validates.
struct Record {
    sequence: u64,
    parts: Vec<Part>,
    /// Where in the file it ends.
    end: u64,
}

/// Writes a set of zeros.
pub(super) fn format(region: &impl Region, settings: &Settings, key: Key) -> Result<()> {
    let places = Places::of(settings.pages());
    let home = |page| places.home + page * PAGE;
    let blank = (0..places.pages).flat_map(|page| blank_check(key, home(page)).to_le_bytes());
    let mut checks: Vec<u8> = blank.collect();
    checks.resize((places.home - CHECKS) as usize, 0);
    region.write_flush(CHECKS, &checks)?;
    let note = note(key, &Checkpoint::blank());
    write_record(region, key, places.redo, 0, &[(NOTE, &note)])?;
    region.write_flush(NOTE, &note)?;
    region.drain()
}

fn note(key: Key, checkpoint: &Checkpoint) -> [u8; NOTE_BYTES] {
    let mut bytes = [0; NOTE_BYTES];
    bytes[8..8 + RECORD_BYTES].copy_from_slice(&record::encode(checkpoint, Entry::default()));
    let check = key.check(NOTE, &bytes[8..8 + RECORD_BYTES]);
    bytes[..8].copy_from_slice(&check.to_le_bytes());
    bytes
}

fn read_note(key: Key, bytes: &[u8]) -> Option<Checkpoint> {
    let record = bytes.get(8..8 + RECORD_BYTES)?;
    (key.check(NOTE, record) == word(bytes, 0)?).then_some(())?;
    Some(record::decode(record)?.0)
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Writes and flushes a record.
fn write_record(
    region: &impl Region,
    key: Key,
    redo: u64,
    sequence: u64,
    parts: &[(u64, &[u8])],
) -> Result<()> {
    let mut head = vec![0; HEAD];
    head[8..16].copy_from_slice(&sequence.to_le_bytes());
    head[16..24].copy_from_slice(&(parts.len() as u64).to_le_bytes());
    let data = redo + ((HEAD + PART * parts.len()) as u64).next_multiple_of(LINE);
    let mut out = Writer::new(region);
    let mut at = data;
    for (home, bytes) in parts {
        let words = [*home, bytes.len() as u64, key.check(at, bytes)];
        head.extend(words.into_iter().flat_map(u64::to_le_bytes));
        out.write(at, bytes)?;
        at += bytes.len() as u64;
    }
    let check = key.check(redo, &head[8..]);
    head[..8].copy_from_slice(&check.to_le_bytes());
    head.resize((data - redo) as usize, 0);
    out.write(redo, &head)?;
    out.finish().map(drop)
}

fn read_head(region: &impl Region, redo: u64) -> Result<[u8; HEAD]> {
    let mut head = [0; HEAD];
    region.read(redo, &mut head)?;
    Ok(head)
}

/// Reads the record, if all of it validates.
fn read_record(region: &impl Region, key: Key, redo: u64) -> Result<Option<Record>> {
    let room = region.len().saturating_sub(redo);
    let mut head = read_head(region, redo)?.to_vec();
    let (Some(sequence), Some(count)) = (word(&head, 8), word(&head, 16)) else { return Ok(None) };
    if count > room / PART as u64 {
        return Ok(None);
    }
    let listed = HEAD as u64 + count * PART as u64;
    if listed > room {
        return Ok(None);
    }
    head.resize(listed as usize, 0);
    region.read(redo, &mut head)?;
    let valid = word(&head, 0) == Some(key.check(redo, &head[8..]));
    if !primitive!("checkpoint.redo.list_check", valid, true) {
        return Ok(None);
    }
    let mut at = redo + listed.next_multiple_of(LINE);
    let mut parts = Vec::new();
    for part in head[HEAD..].chunks(PART) {
        let (Some(home), Some(len), Some(check)) = (word(part, 0), word(part, 8), word(part, 16))
        else {
            return Ok(None);
        };
        let fits = len <= region.len() - at.min(region.len())
            && home >= NOTE
            && home.checked_add(len).is_some_and(|end| end <= redo);
        if !fits {
            return Ok(None);
        }
        let mut bytes = vec![0; len as usize];
        region.read(at, &mut bytes)?;
        let valid = key.check(at, &bytes) == check;
        if !primitive!("checkpoint.redo.part_check", valid, true) {
            return Ok(None);
        }
        parts.push(Part { at: home, bytes });
        at += len;
    }
    Ok(Some(Record { sequence, parts, end: at }))
}

/// Makes the record durable, then what it says in its places: until it is durable, these must not
/// change, and until they are, the record must stay.
fn replay(region: &impl Region, redo: u64, record: &Record) -> Result<()> {
    primitive!("checkpoint.redo.keep_record", rewrite(region, redo, record.end), Ok(()))?;
    primitive!("checkpoint.redo.keep_record_drain", region.drain(), Ok(()))?;
    let mut parts = record.parts.iter();
    primitive!(
        "checkpoint.redo.replay_places",
        parts.try_for_each(|part| region.write_flush(part.at, &part.bytes)),
        Ok(())
    )?;
    primitive!("checkpoint.redo.replay_drain", region.drain(), Ok(()))
}

/// The checkpoint that the note names, or that the record does where the note is damaged.
pub(super) fn records(
    region: &impl Region,
    settings: &Settings,
    key: Key,
) -> Result<Vec<Checkpoint>> {
    let mut noted = vec![0; NOTE_BYTES];
    region.read(NOTE, &mut noted)?;
    let record = read_record(region, key, Places::of(settings.pages()).redo)?;
    let parts = record.into_iter().flat_map(|record| record.parts);
    let in_record = parts.filter(|part| part.at == NOTE).find_map(|p| read_note(key, &p.bytes));
    let newest = read_note(key, &noted).into_iter().chain(in_record).max_by_key(|c| c.sequence);
    let damaged = || {
        let what = ErrorKind::Damaged("the note of the checkpoint");
        Error::new(Operation::Recover, what).over(NOTE, PAGE)
    };
    Ok(vec![newest.ok_or_else(damaged)?])
}

impl Redo {
    /// Reads the newest checkpoint into memory, which is all zero. Changes nothing in the file.
    pub(super) fn load(
        region: &impl Region,
        settings: &Settings,
        key: Key,
        memory: &mut Memory,
    ) -> Result<(Self, Found)> {
        let places = Places::of(settings.pages());
        let damaged =
            |what, at, len| Error::new(Operation::Recover, ErrorKind::Damaged(what)).over(at, len);
        let before = read_head(region, places.redo)?;
        let mut noted = vec![0; NOTE_BYTES];
        region.read(NOTE, &mut noted)?;
        let mut checks = vec![0; (places.home - CHECKS) as usize];
        region.read(CHECKS, &mut checks)?;
        for page in 0..places.pages {
            region.read(places.home + page * PAGE, memory.page_mut(page))?;
        }
        let mut newest = read_note(key, &noted);
        let found = read_record(region, key, places.redo)?;
        // Of a writer beside this reader, nothing goes to the places before its record is there:
        // with the same record before and after, what was read is the work of one checkpoint.
        let moved = read_head(region, places.redo)? != before;
        if primitive!("checkpoint.redo.reader_is_alone", moved, false) {
            let len = HEAD as u64;
            return Err(damaged("the redo record, which changed meanwhile", places.redo, len));
        }
        // The record of the newest checkpoint, or of the one that was being taken.
        let found = found
            .filter(|record| newest.as_ref().is_none_or(|noted| noted.sequence <= record.sequence));
        let replayed = primitive!("checkpoint.redo.replay", found.is_some(), false);
        let mut differed = newest.is_none();
        for part in found.iter().filter(|_| replayed).flat_map(|record| &record.parts) {
            let place = if part.at < CHECKS {
                noted.get_mut((part.at - NOTE) as usize..)
            } else if part.at < places.home {
                checks.get_mut((part.at - CHECKS) as usize..)
            } else {
                memory.bytes_mut().get_mut((part.at - places.home) as usize..)
            };
            let place = place.and_then(|place| place.get_mut(..part.bytes.len()));
            let place =
                place.ok_or_else(|| damaged("the redo record", places.redo, HEAD as u64))?;
            differed |= *place != *part.bytes;
            place.copy_from_slice(&part.bytes);
        }
        if replayed {
            newest = read_note(key, &noted);
        }
        let newest = newest.ok_or_else(|| damaged("the note of the checkpoint", NOTE, PAGE))?;
        let checks: Vec<u64> =
            checks.chunks(8).take(places.pages as usize).filter_map(|c| word(c, 0)).collect();
        for (page, &check) in (0..).zip(&checks) {
            let at = places.home + page * PAGE;
            if check == blank_check(key, at) {
                // Whatever is there was there before the set was.
                memory.page_mut(page).fill(0);
            } else if primitive!(
                "checkpoint.redo.page_check",
                page_check(key, at, memory.page(page)) != check,
                false
            ) {
                return Err(damaged("a page of the working set or its check value", at, PAGE));
            }
        }
        let bytes_read = places.redo;
        let redo = Self { places, key, checks, newest, record_whole: replayed, settled: false };
        Ok((redo, Found { torn: !replayed, differed, bytes_read }))
    }

    pub(super) fn newest(&self) -> &Checkpoint {
        &self.newest
    }

    /// Makes durable what was read, and the record whole if it is not.
    ///
    /// What was written by a process that was killed is written once more: a region vouches only
    /// for what its caller wrote, and the same bytes over themselves cannot be torn.
    pub(super) fn settle(&mut self, region: &impl Region) -> Result<()> {
        if self.settled {
            return Ok(());
        }
        let redo = self.places.redo;
        let found = if self.record_whole { read_record(region, self.key, redo)? } else { None };
        match found {
            Some(record) => replay(region, redo, &record)?,
            None => self.renew(region)?,
        }
        (self.record_whole, self.settled) = (true, true);
        Ok(())
    }

    /// Without a record, the places are all there is: they and a record of their note become durable
    /// together, before another record is begun.
    fn renew(&self, region: &impl Region) -> Result<()> {
        let redo = self.places.redo;
        primitive!("checkpoint.redo.keep_places", rewrite(region, NOTE, redo), Ok(()))?;
        // A copy of the note is all that the record needs to have.
        let note = note(self.key, &self.newest);
        let parts: [(u64, &[u8]); 1] = [(NOTE, &note)];
        primitive!(
            "checkpoint.redo.second_note",
            write_record(region, self.key, redo, self.newest.sequence, &parts),
            Ok(())
        )?;
        primitive!("checkpoint.redo.second_note_drain", region.drain(), Ok(()))
    }

    /// Bytes of the set that a checkpoint of these changes writes.
    pub(super) fn bytes(&self, changes: &Changes) -> u64 {
        changes.pages().map(|page| u64::from(self.lines(changes, page).count_ones()) * LINE).sum()
    }

    /// The lines to be written of a page: all of them, if it has no place yet.
    fn lines(&self, changes: &Changes, page: u64) -> u64 {
        let blank = blank_check(self.key, self.places.home + page * PAGE);
        if self.checks[page as usize] == blank { u64::MAX } else { changes.lines(page) }
    }

    /// Writes what changed, and makes it the newest checkpoint. After an error, this value is not
    /// what the file holds.
    pub(super) fn save(
        &mut self,
        region: &impl Region,
        memory: &Memory,
        changes: &Changes,
        checkpoint: &Checkpoint,
    ) -> Result<()> {
        let mut parts: Vec<(u64, &[u8])> = Vec::new();
        for page in changes.pages() {
            let at = self.places.home + page * PAGE;
            for (first, count) in runs(self.lines(changes, page)) {
                let (from, len) = ((first * LINE) as usize, (count * LINE) as usize);
                parts.push((at + first * LINE, &memory.page(page)[from..from + len]));
            }
        }
        for page in memory.in_turn(changes.pages()) {
            let check = page_check(self.key, self.places.home + page * PAGE, memory.page(page));
            self.checks[page as usize] = check;
        }
        let mut lines: Vec<u64> = changes.pages().map(|page| page / 8).collect();
        lines.dedup();
        let encoded: Vec<(u64, Vec<u8>)> = lines
            .into_iter()
            .map(|line| (CHECKS + line * LINE, self.line_of_checks(line)))
            .collect();
        parts.extend(encoded.iter().map(|(at, bytes)| (*at, &bytes[..])));
        let note = note(self.key, checkpoint);
        parts.push((NOTE, &note));
        let places = self.places;
        primitive!(
            "checkpoint.redo.record_first",
            write_record(region, self.key, places.redo, checkpoint.sequence, &parts)
                .and_then(|()| primitive!("checkpoint.redo.record_drain", region.drain(), Ok(()))),
            Ok(())
        )?;
        (self.record_whole, self.settled) = (true, true);
        let mut out = Writer::new(region);
        parts.iter().try_for_each(|(at, bytes)| out.write(*at, bytes))?;
        out.finish()?;
        // The next record goes where this one is.
        primitive!("checkpoint.redo.places_drain", region.drain(), Ok(()))?;
        self.newest = checkpoint.clone();
        Ok(())
    }

    /// Eight check values as they are in the file.
    fn line_of_checks(&self, line: u64) -> Vec<u8> {
        let checks = self.checks.iter().skip((line * 8) as usize).take(8);
        let mut bytes: Vec<u8> = checks.flat_map(|check| check.to_le_bytes()).collect();
        bytes.resize(LINE as usize, 0);
        bytes
    }

    /// Puts the newest checkpoint back into memory, where that changed.
    pub(super) fn restore(
        &self,
        region: &impl Region,
        memory: &mut Memory,
        changes: &Changes,
    ) -> Result<()> {
        let mut scratch = [0; PAGE as usize];
        for put in [false, true] {
            for page in changes.pages() {
                let into = if put { memory.page_mut(page) } else { &mut scratch[..] };
                self.page(region, page, into)?;
            }
        }
        Ok(())
    }

    /// Reads every page and compares it with its check value.
    pub(super) fn verify(&self, region: &impl Region) -> Result<()> {
        let mut scratch = [0; PAGE as usize];
        (0..self.places.pages).try_for_each(|page| self.page(region, page, &mut scratch))
    }

    fn page(&self, region: &impl Region, page: u64, into: &mut [u8]) -> Result<()> {
        let (at, check) = (self.places.home + page * PAGE, self.checks[page as usize]);
        if check == blank_check(self.key, at) {
            into.fill(0);
            return Ok(());
        }
        region.read(at, into)?;
        if page_check(self.key, at, into) != check {
            let what = ErrorKind::Damaged("a page of the working set");
            return Err(Error::new(Operation::Recover, what).over(at, PAGE));
        }
        Ok(())
    }
}

/// Never that of a page that nobody wrote.
fn page_check(key: Key, at: u64, page: &[u8]) -> u64 {
    let check = key.check(at, page);
    if check == blank_check(key, at) { !check } else { check }
}

/// The check value of a page that nobody wrote. Not zero: check values that damage has cleared would
/// turn pages that were saved into zeros.
fn blank_check(key: Key, at: u64) -> u64 {
    key.check(at, &[])
}

/// The runs of ones: first bit and length.
fn runs(mut lines: u64) -> impl Iterator<Item = (u64, u64)> {
    std::iter::from_fn(move || {
        if lines == 0 {
            return None;
        }
        let first = lines.trailing_zeros();
        let count = (lines >> first).trailing_ones();
        lines &= !(u64::MAX >> (64 - count) << first);
        Some((u64::from(first), u64::from(count)))
    })
}

#[cfg(test)]
mod tests {
    use super::runs;

    #[test]
    fn runs_cover_every_line_once() {
        for lines in [0, 1, u64::MAX, 1 << 63, 0b1011, 0xf0f0_0000_0000_000f, u64::MAX << 1] {
            let mut covered = 0;
            let mut end = None;
            for (first, count) in runs(lines) {
                assert!(end.is_none_or(|end| first > end), "{lines:b}: runs touch");
                end = Some(first + count);
                covered |= u64::MAX >> (64 - count) << first;
            }
            assert_eq!(covered, lines);
        }
    }
}
