//! A redo record: the working set has a place in the file, and a checkpoint goes there by way of a
//! record of what changes.
//!
//! For memory that is written in lines: a changed line costs its own bytes twice, and no page is
//! copied. Check values are of blocks of eight lines, and those of a page are a line. First the
//! record, which validates itself: the changed lines, the check values of the pages they are in, and
//! what is noted of the checkpoint. A drain. From here on the checkpoint has happened. The note, which
//! says that the places are being written, and a drain; the same bytes to their places, and a drain;
//! the note that they are whole, and a drain, after which the record is not needed. Recovery lays a
//! valid record over what the places hold, and writes it there again: doing so twice is no different
//! from once. Without a valid record, the note says whether the places are those of one checkpoint:
//! a record that was damaged before they were whole is not taken for one that a crash has torn.
//!
//! What recovery reads may not be durable: a process that was killed had not drained it. So a
//! writable opening writes the record over itself and drains before it touches a place, and drains
//! the places before anything takes the place of the record.
//!
//! | pages of the file | what |
//! |---|---|
//! | 2 | the note: 8 bytes check value, 96 bytes record of the newest checkpoint, 8 bytes: 1 if the places are whole |
//! | 3 .. *h* | 8 bytes for each 512 bytes of the set: their check value; that of no bytes: nobody wrote them, they are zero |
//! | *h* .. *r* | the working set |
//! | *r* .. | the redo record |
//!
//! The record is [`redo`](crate::format::redo)'s.

mod blocks;
mod note;

use self::blocks::{
    BLOCK, BLOCKS, blank_check, block_check, damaged, decode_checks, encode_checks, runs,
    verify_page, whole_blocks,
};
pub(in crate::checkpoint) use self::note::NOTE_BYTES;
use self::note::{NOTE, State, note, read_note};
use super::changes::Changes;
use super::memory::Memory;
use super::record::Checkpoint;
use super::settings::Settings;
use crate::error::Result;
use crate::format::check::Key;
use crate::format::redo::{self, HEAD, PART, RecordWriter};
use crate::format::writer::Writer;
use crate::format::{LINE, PAGE, rewrite};
use crate::primitives::primitive;
use crate::region::Region;

const CHECKS: u64 = NOTE + PAGE;

/// The places of a file.
#[derive(Clone, Copy, Debug)]
struct Places {
    pages: u64,
    home: u64,
    redo: u64,
}

impl Places {
    fn of(pages: u64) -> Self {
        let home = CHECKS + (pages * LINE).next_multiple_of(PAGE);
        Self { pages, home, redo: home + pages * PAGE }
    }

    /// Where a page of the set is.
    fn page(&self, page: u64) -> u64 {
        self.home + page * PAGE
    }

    /// Where the check values of a page are.
    fn checks(page: u64) -> u64 {
        CHECKS + page * LINE
    }
}

/// Bytes of a file: with a redo record that holds every line.
pub(super) fn file_bytes(settings: &Settings) -> u64 {
    let places = Places::of(settings.pages());
    // A line that is left out saves 64 bytes and costs a part of 24 at most: no record is larger
    // than that of everything, for each page a part and one for its check values. Head and note
    // are less than a page.
    let record = settings.pages() * (PAGE + LINE + 2 * PART as u64);
    places.redo + record.next_multiple_of(PAGE) + PAGE
}

/// The state of a file with a redo record.
#[derive(Debug)]
pub(super) struct Redo {
    places: Places,
    key: Key,
    /// Of each page the check values of its blocks.
    checks: Vec<[u64; BLOCKS as usize]>,
    /// Of each page a bit for each block that somebody wrote.
    written: Vec<u8>,
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

/// Writes a set of zeros.
pub(super) fn format(region: &impl Region, settings: &Settings, key: Key) -> Result<()> {
    let places = Places::of(settings.pages());
    let blocks = (places.home..places.redo).step_by(BLOCK as usize);
    let mut checks: Vec<u8> = blocks.flat_map(|at| blank_check(key, at).to_le_bytes()).collect();
    checks.resize((places.home - CHECKS) as usize, 0);
    region.write_flush(CHECKS, &checks)?;
    let note = note(key, &Checkpoint::blank(), State::Whole);
    RecordWriter::new(region, key, places.redo, 1).add(NOTE, &note)?.finish(0)?;
    region.write_flush(NOTE, &note)?;
    primitive!("checkpoint.redo.format_drain", region.drain(), Ok(()))
}

/// A record, and the note among its parts.
struct Record {
    record: redo::Record,
    note: Option<(Checkpoint, State)>,
}

/// Reads the record, if all of it validates.
fn read_record(region: &impl Region, key: Key, redo: u64) -> Result<Option<Record>> {
    let Some(record) = redo::read_record(region, key, redo..region.len(), NOTE..redo)? else {
        return Ok(None);
    };
    let (mut note, mut bytes) = (None, Vec::new());
    for part in record.parts.iter().filter(|part| part.at == NOTE) {
        if note.is_none() && part.read(region, key, &mut bytes)? {
            note = read_note(key, &bytes);
        }
    }
    Ok(Some(Record { record, note }))
}

/// Makes the record durable, then what it says in its places: until it is durable, these must not
/// change, and until they are, the record must stay.
fn replay(region: &impl Region, key: Key, redo: u64, found: &Record) -> Result<()> {
    found.record.keep(region)?;
    let Some((newest, _)) = &found.note else {
        return Ok(()); // it was read with one
    };
    let put = || found.record.lay(region, key, |part| part.at != NOTE);
    lay(region, key, newest, || {
        if primitive!("checkpoint.redo.replay_places", put()?, true) {
            return Ok(());
        }
        Err(damaged("the redo record", redo, HEAD as u64))
    })
}

/// Writes a checkpoint to its places, whose record is durable.
fn lay(
    region: &impl Region,
    key: Key,
    newest: &Checkpoint,
    write: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mixed = || {
        region.write_flush(NOTE, &note(key, newest, State::Mixed))?;
        region.drain()
    };
    primitive!("checkpoint.redo.mixed", mixed(), Ok(()))?;
    write()?;
    primitive!("checkpoint.redo.places_drain", region.drain(), Ok(()))?;
    region.write_flush(NOTE, &note(key, newest, State::Whole))?;
    // The next record goes where this one is.
    primitive!("checkpoint.redo.whole_drain", region.drain(), Ok(()))
}

/// The checkpoint that the file holds, by its note and its record, and the record if it is to be laid
/// over the places: that of the newest checkpoint, or of the one that was being taken.
fn decide(
    key: Key,
    redo: u64,
    noted: &[u8],
    record: Option<Record>,
) -> Result<(Checkpoint, Option<Record>)> {
    let noted = read_note(key, noted);
    let in_record =
        record.as_ref().and_then(|record| record.note.clone()).map(|(newest, _)| newest);
    let at_least = noted.as_ref().map_or(0, |(noted, _)| noted.sequence);
    match (in_record.filter(|newest| newest.sequence >= at_least), noted) {
        (Some(newest), _) => Ok((newest, record)),
        (None, Some((noted, state))) => {
            if primitive!("checkpoint.redo.mixture", state == State::Mixed, false) {
                let what = "the redo record of a checkpoint that is not whole in its places";
                return Err(damaged(what, redo, HEAD as u64));
            }
            Ok((noted, None))
        }
        (None, None) => Err(damaged("the note of the checkpoint", NOTE, PAGE)),
    }
}

fn noted(region: &impl Region) -> Result<[u8; NOTE_BYTES]> {
    let mut noted = [0; NOTE_BYTES];
    region.read(NOTE, &mut noted)?;
    Ok(noted)
}

/// The checkpoint that the file holds.
pub(super) fn records(
    region: &impl Region,
    settings: &Settings,
    key: Key,
) -> Result<Vec<Checkpoint>> {
    let redo = Places::of(settings.pages()).redo;
    let (newest, _) = decide(key, redo, &noted(region)?, read_record(region, key, redo)?)?;
    Ok(vec![newest])
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
        let before = noted(region)?;
        let mut checks = vec![0; (places.home - CHECKS) as usize];
        region.read(CHECKS, &mut checks)?;
        for page in 0..places.pages {
            region.read(places.page(page), memory.page_mut(page))?;
        }
        let record = read_record(region, key, places.redo)?;
        let (newest, found) = decide(key, places.redo, &before, record)?;
        let mut replayed = primitive!("checkpoint.redo.replay", found.is_some(), false);
        // The places are whole without it. A writer beside this reader writes its next record over
        // this one, and changes no place and no note meanwhile.
        let whole = (newest.sequence, State::Whole);
        let dispensable =
            read_note(key, &before).is_some_and(|(noted, state)| (noted.sequence, state) == whole);
        let (mut differed, mut bytes) = (false, Vec::new());
        for part in found.iter().filter(|_| replayed).flat_map(|found| &found.record.parts) {
            if !part.read(region, key, &mut bytes)? {
                if dispensable {
                    replayed = false;
                    break;
                }
                return Err(damaged("the redo record", places.redo, HEAD as u64));
            }
            if part.at == NOTE {
                differed |= before[..] != *bytes;
                continue;
            }
            let place = match part.at.checked_sub(places.home) {
                Some(at) => memory.bytes_mut().get_mut(at as usize..),
                None => checks.get_mut(part.at.wrapping_sub(CHECKS) as usize..),
            };
            let place = place.and_then(|place| place.get_mut(..bytes.len()));
            let place =
                place.ok_or_else(|| damaged("the redo record", places.redo, HEAD as u64))?;
            differed |= *place != *bytes;
            place.copy_from_slice(&bytes);
        }
        // Of a writer beside this reader, nothing goes to the places before the note says so: with the
        // same note before and after, what was read of them is the work of one checkpoint, and the record
        // that was laid is that of the next one, or changes nothing.
        let moved = noted(region)? != before;
        if primitive!("checkpoint.redo.reader_is_alone", moved, false) {
            let len = NOTE_BYTES as u64;
            return Err(damaged("the note of the checkpoint, which changed meanwhile", NOTE, len));
        }
        let mut pages = (0..places.pages).zip(checks.chunks_exact(LINE as usize));
        let mut all = Vec::with_capacity(places.pages as usize);
        let mut written = Vec::with_capacity(places.pages as usize);
        pages.try_for_each(|(page, line)| {
            let checks = decode_checks(line);
            written.push(verify_page(key, places.page(page), &checks, memory.page_mut(page))?);
            all.push(checks);
            Ok(())
        })?;
        let checks = all;
        let bytes_read = places.redo;
        let redo =
            Self { places, key, checks, written, newest, record_whole: replayed, settled: false };
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
            Some(record) => replay(region, self.key, redo, &record)?,
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
        let note = note(self.key, &self.newest, State::Whole);
        let record = || RecordWriter::new(region, self.key, redo, 1);
        primitive!(
            "checkpoint.redo.second_note",
            record().add(NOTE, &note).and_then(|record| record.finish(self.newest.sequence)),
            Ok(())
        )?;
        primitive!("checkpoint.redo.second_note_drain", region.drain(), Ok(()))
    }

    /// Bytes of the set that a checkpoint of these changes writes.
    pub(super) fn bytes(&self, changes: &Changes) -> u64 {
        changes.pages().map(|page| u64::from(self.lines(changes, page).count_ones()) * LINE).sum()
    }

    /// The lines to be written of a page: all of a block that has no place yet.
    fn lines(&self, changes: &Changes, page: u64) -> u64 {
        let lines = changes.lines(page);
        let written = self.written[page as usize];
        if written == u8::MAX {
            return lines;
        }
        let blocks = (0..BLOCKS).filter(|block| written >> block & 1 == 0);
        let unwritten: u64 = blocks.map(|block| 0xff << (8 * block)).sum();
        lines | whole_blocks(lines) & unwritten
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
        let pages: Vec<(u64, u64)> =
            changes.pages().map(|page| (page, self.lines(changes, page))).collect();
        let note = note(self.key, checkpoint, State::Whole);
        primitive!(
            "checkpoint.redo.record_first",
            self.write_record(region, memory, &pages, checkpoint.sequence, &note)
                .and_then(|()| primitive!("checkpoint.redo.record_drain", region.drain(), Ok(()))),
            Ok(())
        )?;
        (self.record_whole, self.settled) = (true, true);
        lay(region, self.key, checkpoint, || {
            let mut out = Writer::new(region);
            for &(page, lines) in &pages {
                for (at, bytes) in self.pieces(memory, page, lines) {
                    out.write(at, bytes)?;
                }
                out.write(Places::checks(page), &encode_checks(&self.checks[page as usize]))?;
            }
            out.finish().map(drop)
        })?;
        self.newest = checkpoint.clone();
        Ok(())
    }

    /// The record of these pages and their lines: of each page the lines and the check values.
    fn write_record(
        &mut self,
        region: &impl Region,
        memory: &Memory,
        changed: &[(u64, u64)],
        sequence: u64,
        note: &[u8],
    ) -> Result<()> {
        let pieces: usize = changed.iter().map(|(_, lines)| runs(*lines).count() + 1).sum();
        let mut record = RecordWriter::new(region, self.key, self.places.redo, pieces + 1);
        for (index, &(page, lines)) in changed.iter().enumerate() {
            if let Some(&(next, lines)) = changed.get(index + 1) {
                memory.prefetch(next, whole_blocks(lines));
            }
            self.check_blocks(memory, page, lines);
            for (at, bytes) in self.pieces(memory, page, lines) {
                record.put(at, bytes)?;
            }
            record.put(Places::checks(page), &encode_checks(&self.checks[page as usize]))?;
        }
        record.put(NOTE, note)?;
        record.finish(sequence)
    }

    /// Where these lines of a page go, and their bytes.
    fn pieces<'a>(
        &self,
        memory: &'a Memory,
        page: u64,
        lines: u64,
    ) -> impl Iterator<Item = (u64, &'a [u8])> + use<'a> {
        let (at, bytes) = (self.places.page(page), memory.page(page));
        runs(lines).map(move |(first, count)| {
            let (from, len) = (first * LINE, count * LINE);
            (at + from, &bytes[from as usize..][..len as usize])
        })
    }

    /// Computes the check values of the blocks that these lines are in.
    fn check_blocks(&mut self, memory: &Memory, page: u64, lines: u64) {
        let at = self.places.page(page);
        let blocks = memory.page(page).chunks_exact(BLOCK as usize);
        let places = (at..).step_by(BLOCK as usize);
        let checks = &mut self.checks[page as usize];
        for (block, ((check, bytes), at)) in checks.iter_mut().zip(blocks).zip(places).enumerate() {
            if lines >> (8 * block) & 0xff != 0 {
                *check = block_check(self.key, at, bytes);
                self.written[page as usize] |= 1 << block;
            }
        }
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
        let at = self.places.page(page);
        if self.written[page as usize] == 0 {
            into.fill(0);
            return Ok(());
        }
        region.read(at, into)?;
        verify_page(self.key, at, &self.checks[page as usize], into).map(drop)
    }
}
