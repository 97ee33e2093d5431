//! Reading an open log from the newest record to the oldest.

use std::collections::BinaryHeap;
use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::LINE;
use crate::region::Region;

use super::Lsn;
use super::block::Places;
use super::core::Core;
use super::cursor::Cursor;
use super::reader::Record;
use super::table::Life;

/// The blocks of a segment between two entries of its index, and the entries before.
#[derive(Debug)]
struct Stretch {
    cursor: Cursor,
    /// Offsets of the entries before those in `blocks`.
    index: Vec<u64>,
    /// Where the blocks read so far begin.
    end: u64,
    /// First Lsn and offset of the blocks that were not given yet.
    blocks: Vec<(u64, u64)>,
}

/// Reads records from an Lsn down to the oldest that is kept. What is appended meanwhile is not
/// seen. As an iterator, it gives copies.
#[derive(Debug)]
pub struct ReverseReader<'a, R: Region> {
    core: &'a Core<R>,
    stretches: Vec<Stretch>,
    /// Lives that were taken up at once: open ones, of which nobody knows yet where they end.
    at_once: Vec<u64>,
    /// Full lives down to this last Lsn, and number, were taken up.
    horizon: (u64, u64),
    /// The last Lsn of the one before, if there is one.
    upcoming: Option<u64>,
    /// By the first Lsn of each stretch's last block.
    ready: BinaryHeap<(u64, usize)>,
    body: Vec<u8>,
    /// Records of the open block that were not given yet: Lsn and place.
    records: Vec<(u64, std::ops::Range<usize>)>,
    from: u64,
}

impl<'a, R: Region> ReverseReader<'a, R> {
    pub(super) fn new(core: &'a Core<R>, from: Lsn) -> Result<Self> {
        let from = from.get().min(core.watermark.get() - 1);
        let mut reader = Self {
            core,
            stretches: Vec::new(),
            at_once: Vec::new(),
            horizon: (from, 0),
            upcoming: None,
            ready: BinaryHeap::new(),
            body: Vec::new(),
            records: Vec::new(),
            from,
        };
        let pool = core.table.pool();
        for segment in pool.catalog.holding(from) {
            reader.at_once.push(pool.lives[segment].header.life);
            reader.stretches.push(stretch(core, &pool.lives[segment], segment));
        }
        reader.upcoming = pool.catalog.full_before(reader.horizon).map(|((last, _), _)| last);
        drop(pool);
        for index in 0..reader.stretches.len() {
            reader.advance(index)?;
        }
        Ok(reader)
    }

    /// The next record, in the reader's buffer; `None` after the oldest.
    ///
    /// # Errors
    ///
    /// As [`Reader::next_record`](super::Reader::next_record); `Released` if records were released
    /// that this reader has not read yet.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>> {
        let released = self.core.released();
        loop {
            if let Some((lsn, range)) = self.records.pop() {
                if lsn <= released {
                    return Ok(None);
                }
                let lsn = Lsn::new(lsn);
                return Ok(Some(Record { lsn, payload: &self.body[range] }));
            }
            let first = self.ready.peek().map(|(first, _)| *first);
            if self.upcoming.is_some_and(|last| first.is_none_or(|first| last > first)) {
                self.take_up()?;
                continue;
            }
            let Some((_, index)) = self.ready.pop() else { return Ok(None) };
            self.open(index)?;
            self.advance(index)?;
        }
    }

    /// Takes up the full life that ends next below.
    fn take_up(&mut self) -> Result<()> {
        let core = self.core;
        let pool = core.table.pool();
        let mut taken = None;
        if let Some((end, segment)) = pool.catalog.full_before(self.horizon) {
            self.horizon = end;
            taken = Some((end.1, stretch(core, &pool.lives[segment], segment)));
        }
        self.upcoming = pool.catalog.full_before(self.horizon).map(|((last, _), _)| last);
        drop(pool);
        match taken {
            Some((life, stretch)) if !self.at_once.contains(&life) => {
                self.stretches.push(stretch);
                self.advance(self.stretches.len() - 1)
            }
            _ => Ok(()),
        }
    }

    /// Opens the last block of a stretch.
    fn open(&mut self, index: usize) -> Result<()> {
        let core = self.core;
        let stretch = &mut self.stretches[index];
        let Some((_, at)) = stretch.blocks.pop() else { return Ok(()) };
        let cursor = Cursor { at, ..stretch.cursor.clone() };
        let block = cursor.peek(&core.region, core.layout)?;
        let Some(block) = block else { return self.lost(&cursor) };
        if !cursor.body(&core.region, core.layout, &block, &mut self.body)? {
            return self.lost(&cursor);
        }
        let (mut places, mut lsn) = (Places::of(&block), block.lsn);
        while let Some(range) = places.next(&self.body) {
            if lsn <= self.from.min(cursor.limit()) {
                self.records.push((lsn, range));
            }
            lsn += 1;
        }
        Ok(())
    }

    /// Finds the blocks of the stretch before, if those of this one were all given.
    fn advance(&mut self, index: usize) -> Result<()> {
        let core = self.core;
        let stretch = &mut self.stretches[index];
        while stretch.blocks.is_empty() {
            let Some(start) = stretch.index.pop() else { return Ok(()) };
            let mut cursor = Cursor { at: start, ..stretch.cursor.clone() };
            while cursor.at < stretch.end {
                match cursor.peek(&core.region, core.layout)? {
                    Some(block) => {
                        if block.has(0, self.from.min(cursor.limit())) {
                            stretch.blocks.push((block.lsn, cursor.at));
                        }
                        cursor.at += block.bytes();
                    }
                    None if core.accepts_damage => cursor.at += LINE,
                    None => return lost(core, &cursor),
                }
            }
            stretch.end = start;
        }
        if let Some((first, _)) = stretch.blocks.last() {
            self.ready.push((*first, index));
        }
        Ok(())
    }

    fn lost(&self, cursor: &Cursor) -> Result<()> {
        if self.core.accepts_damage {
            return Ok(());
        }
        lost(self.core, cursor)
    }
}

/// All of a life, up to what is durable now.
fn stretch<R: Region>(core: &Core<R>, life: &Life, segment: usize) -> Stretch {
    let end = core.table.progress[segment].end.load(Ordering::Acquire);
    let starts = life.index.iter().map(|(_, at)| u64::from(*at));
    let index = starts.filter(|&at| at < end).collect();
    let cursor = Cursor::new(segment, life.header, life.voids.clone(), 0);
    Stretch { cursor, index, end, blocks: Vec::new() }
}

/// There is no block where one was.
#[cold]
fn lost<R: Region>(core: &Core<R>, cursor: &Cursor) -> Result<()> {
    let life = core.table.pool().lives[cursor.segment].header.life;
    if life == cursor.header.life {
        core.look_for_changes(cursor.header.base)?;
        return Err(cursor.damaged(core.layout));
    }
    let first = core.released() + 1;
    Err(Error::new(Operation::Read, ErrorKind::Released { first }))
}

impl<R: Region> Iterator for ReverseReader<'_, R> {
    type Item = Result<(Lsn, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.next_record().transpose()?;
        Some(record.map(|record| (record.lsn, record.payload.to_vec())))
    }
}
