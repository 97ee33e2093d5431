//! Reading an open log, in the order of Lsns.

use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::LINE;
use crate::region::Region;

use super::Lsn;
use super::block::{Block, Places};
use super::catalog::Key;
use super::core::Core;
use super::cursor::Cursor;
use super::layout::BLOCKS;
use super::merge::{Look, Merge};
use super::table::{Life, Usage};

/// A record in the reader's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record<'a> {
    /// Its Lsn.
    pub lsn: Lsn,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// The block whose records are being handed out.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) body: Vec<u8>,
    pub(super) places: Option<Places>,
    /// The Lsn of the next record in it.
    pub(super) lsn: u64,
    /// Records above this are void.
    pub(super) limit: u64,
}

impl Open {
    pub(super) fn start(&mut self, block: &Block, limit: u64) {
        self.places = Some(Places::of(block));
        self.lsn = block.lsn;
        self.limit = limit;
    }

    /// The next record from `from` on: its Lsn and where it is in the body.
    pub(super) fn next(&mut self, from: u64) -> Option<(u64, std::ops::Range<usize>)> {
        let places = self.places.as_mut()?;
        loop {
            let lsn = self.lsn;
            let range = places.next(&self.body).filter(|_| lsn <= self.limit);
            self.lsn += 1;
            match range {
                Some(range) if lsn >= from => return Some((lsn, range)),
                Some(_) => {}
                None => {
                    self.places = None;
                    return None;
                }
            }
        }
    }
}

/// Reads records in the order of their Lsns, and those appended meanwhile: at the end of what is
/// durable [`next_record`](Self::next_record) returns `None`, and may be asked again.
///
/// Every record is checked when it is read. What a record costs does not depend on how many segments
/// there are, nor on how often they were used. As an iterator, a reader gives copies.
#[derive(Debug)]
pub struct Reader<'a, R: Region> {
    core: &'a Core<R>,
    /// The Lsn of the next record, or one below it.
    next: u64,
    /// The generation of the table that is known.
    generation: Option<u64>,
    /// The lives up to this one were taken up, in the order in which they begin.
    horizon: Key,
    /// The base of the one after it, if there is one.
    upcoming: u64,
    merge: Merge,
    open: Open,
    /// It also reads what is not durable.
    unsynced: bool,
}

impl<'a, R: Region> Reader<'a, R> {
    pub(super) fn new(core: &'a Core<R>, from: Lsn) -> Result<Self> {
        let first = core.released() + 1;
        if from.get() < first && from != Lsn::ZERO {
            return Err(Error::new(Operation::Read, ErrorKind::Released { first }));
        }
        Ok(Self {
            core,
            next: from.get().max(first),
            generation: None,
            horizon: (0, 0),
            upcoming: 0,
            merge: Merge::default(),
            open: Open::default(),
            unsynced: false,
        })
    }

    /// Reads what is written, durable or not.
    pub(super) fn unsynced(mut self) -> Self {
        self.unsynced = true;
        self
    }

    /// Begins with this Lsn, be it released, and has read nothing so far.
    pub(super) fn begin_at(&mut self, lsn: u64) {
        self.next = lsn;
    }

    /// The next record, in the reader's buffer; `None` if the log has no further one yet. A commit
    /// that was begun is given to its end.
    ///
    /// # Errors
    ///
    /// `Released` if the next record was, whenever that was: no record is passed over for it.
    /// `Damaged` if it is no longer what was written; those of the region. Asked again after an
    /// error, the reader tries again from the same record.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>> {
        loop {
            if let Some((lsn, range)) = self.open.next(self.next) {
                self.next = lsn + 1;
                let lsn = Lsn::new(lsn);
                return Ok(Some(Record { lsn, payload: &self.open.body[range] }));
            }
            if !self.open_next()? {
                return Ok(None);
            }
        }
    }

    /// Opens the next block; false if there is none yet.
    fn open_next(&mut self) -> Result<bool> {
        // Before looking for blocks: those below it are there.
        let watermark = &self.core.watermark;
        let below = if self.unsynced { watermark.written() } else { watermark.get() };
        self.check_released()?;
        if self.next >= below {
            return Ok(false);
        }
        let generation = self.core.table.generation();
        if self.generation != Some(generation) {
            self.refresh();
            self.generation = Some(generation);
        }
        loop {
            self.poll()?;
            let first = self.merge.lowest().unwrap_or(u64::MAX);
            if self.upcoming <= first && self.upcoming < below {
                self.take_up();
            } else if first >= below {
                break;
            } else if self.take()? {
                return Ok(true);
            }
        }
        // What is not there never will be, unless its segment was used again while it was looked
        // for.
        self.check_released()?;
        self.next = self.next.max(below);
        Ok(false)
    }

    fn check_released(&self) -> Result<()> {
        let first = self.core.released() + 1;
        if self.next < first {
            return Err(Error::new(Operation::Read, ErrorKind::Released { first }));
        }
        Ok(())
    }

    /// Opens the block of the lowest Lsn, and moves its cursor on. False if all of it is before
    /// what is wanted, or if it is passed over.
    fn take(&mut self) -> Result<bool> {
        let core = self.core;
        let Some(cursor) = self.merge.cursor() else { return Ok(false) };
        let Some(block) = cursor.peek(&core.region, core.layout)? else {
            return self.pass_over();
        };
        let limit = cursor.limit();
        let wanted = block.has(self.next, limit);
        if wanted && !cursor.body(&core.region, core.layout, &block, &mut self.open.body)? {
            return self.pass_over();
        }
        if wanted && block.lsn > self.next {
            // No commit has what lies between, or its segment was used again meanwhile.
            self.check_released()?;
        }
        if let Some(cursor) = self.merge.cursor() {
            cursor.at += block.bytes();
        }
        self.merge.taken(true);
        if wanted {
            self.open.start(&block, limit);
        }
        Ok(wanted)
    }

    /// Goes on behind a place where there is no block; false, as no block was opened.
    #[cold]
    fn pass_over(&mut self) -> Result<bool> {
        let (core, next) = (self.core, self.next);
        if let Some(cursor) = self.merge.cursor() {
            let goes_on = lost(core, next, cursor)?;
            self.merge.taken(goes_on);
        }
        Ok(false)
    }

    /// Learns which lives have ended, and which one begins next.
    fn refresh(&mut self) {
        let core = self.core;
        let pool = core.table.pool();
        if self.generation.is_none() {
            // What is in lives that began before is in these.
            self.horizon = (self.next, u64::MAX);
            for segment in pool.catalog.holding(self.next) {
                let (life, progress) = (&pool.lives[segment], &core.table.progress[segment]);
                // All that is before the end is before the last.
                let end = progress.end.load(Ordering::Acquire);
                let passed = progress.last.load(Ordering::Acquire) < self.next;
                let at = if passed { end } else { life.start(self.next) };
                self.merge.add(cursor(life, segment, at));
            }
        }
        self.merge.retain_waiting(|cursor| {
            let life = &pool.lives[cursor.segment];
            let end = core.table.progress[cursor.segment].end.load(Ordering::Acquire);
            cursor.complete = is_complete(life);
            life.header.life == cursor.header.life && !(cursor.complete && cursor.at >= end)
        });
        self.upcoming = pool.catalog.after(self.horizon).map_or(u64::MAX, |(key, _)| key.0);
    }

    /// Takes up the life that begins next.
    fn take_up(&mut self) {
        let pool = self.core.table.pool();
        if let Some((key, segment)) = pool.catalog.after(self.horizon) {
            self.horizon = key;
            self.merge.add(cursor(&pool.lives[segment], segment, BLOCKS));
        }
        self.upcoming = pool.catalog.after(self.horizon).map_or(u64::MAX, |(key, _)| key.0);
    }

    /// Looks at the next blocks of the cursors of which it is not known.
    fn poll(&mut self) -> Result<()> {
        let (core, next, unsynced) = (self.core, self.next, self.unsynced);
        self.merge.poll(|cursor| {
            let progress = &core.table.progress[cursor.segment];
            while cursor.at < progress.visible(unsynced) {
                match cursor.peek(&core.region, core.layout)? {
                    Some(block) if block.has(next, cursor.limit()) => {
                        return Ok(Look::Block(block.lsn));
                    }
                    // All of it is before what is wanted, or void.
                    Some(block) => cursor.at += block.bytes(),
                    None if lost(core, next, cursor)? => {}
                    None => return Ok(Look::Done),
                }
            }
            Ok(if cursor.complete { Look::Done } else { Look::Nothing })
        })
    }

    /// How many places this reader looks at, for the tests.
    #[cfg(test)]
    pub(super) fn cursors(&self) -> usize {
        self.merge.len()
    }
}

fn cursor(life: &Life, segment: usize, at: u64) -> Cursor {
    let voids = life.voids.clone();
    Cursor { complete: is_complete(life), ..Cursor::new(segment, life.header, voids, at) }
}

/// Whether nothing is added to a life any more. Of a full one the end is known.
fn is_complete(life: &Life) -> bool {
    !matches!(life.usage, Usage::Idle | Usage::Active)
}

/// There is no block where one was: the segment is in its next life, and the cursor done, or it is
/// damaged. True if the damage, which may be as long as a segment, is accepted, and the cursor a line
/// further.
#[cold]
fn lost<R: Region>(core: &Core<R>, next: u64, cursor: &mut Cursor) -> Result<bool> {
    let life = core.table.pool().lives[cursor.segment].header.life;
    if life != cursor.header.life {
        // Its records were released.
        let first = core.released() + 1;
        if next < first {
            return Err(Error::new(Operation::Read, ErrorKind::Released { first }));
        }
        return Ok(false);
    }
    core.look_for_changes(next)?;
    if !core.accepts_damage {
        return Err(cursor.damaged(core.layout));
    }
    cursor.at += LINE;
    Ok(true)
}

impl<R: Region> Iterator for Reader<'_, R> {
    type Item = Result<(Lsn, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.next_record().transpose()?;
        Some(record.map(|record| (record.lsn, record.payload.to_vec())))
    }
}
