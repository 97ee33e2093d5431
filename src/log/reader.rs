//! Reading an open log, in the order of Lsns.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::LINE;
use crate::region::Region;

use super::Lsn;
use super::block::{Block, Places};
use super::core::Core;
use super::cursor::Cursor;
use super::table::Usage;

/// A record in the reader's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
/// Every record is checked when it is read. As an iterator, a reader gives copies.
#[derive(Debug)]
pub struct Reader<'a, R: Region> {
    core: &'a Core<R>,
    /// The Lsn of the next record, or one below it.
    next: u64,
    /// The generation of the table that the cursors are of, and the lives that have one.
    generation: Option<u64>,
    known: Vec<u64>,
    cursors: Vec<Cursor>,
    /// Cursors whose next block is not known yet.
    waiting: Vec<usize>,
    /// Next blocks, by their first Lsn.
    ready: BinaryHeap<Reverse<(u64, usize)>>,
    open: Open,
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
            known: Vec::new(),
            cursors: Vec::new(),
            waiting: Vec::new(),
            ready: BinaryHeap::new(),
            open: Open::default(),
        })
    }

    /// The next record, in the reader's buffer; `None` if the log has no further one yet. A commit
    /// that was begun is given to its end.
    ///
    /// # Errors
    ///
    /// `Released` if the next commit was; `Damaged` if it is no longer what was written; those of
    /// the region.
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
        let below = self.core.watermark.get();
        self.check_released()?;
        if self.next >= below {
            return Ok(false);
        }
        let generation = self.core.table.generation();
        if self.generation != Some(generation) {
            self.refresh();
            self.generation = Some(generation);
        }
        self.poll()?;
        while let Some(&Reverse((first, index))) = self.ready.peek() {
            if first >= below {
                break;
            }
            self.ready.pop();
            if self.take(index)? {
                return Ok(true);
            }
            self.poll()?;
        }
        // What is not there never will be.
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

    /// Opens the block that a cursor is at, and moves the cursor on. False if all of it is before
    /// what is wanted, or if it is passed over.
    fn take(&mut self, index: usize) -> Result<bool> {
        let (core, cursor) = (self.core, &mut self.cursors[index]);
        let Some(block) = cursor.peek(&core.region, core.layout)? else {
            return self.pass_over(index);
        };
        let wanted = block.last().min(cursor.header.limit) >= self.next;
        if wanted && !cursor.body(&core.region, core.layout, &block, &mut self.open.body)? {
            return self.pass_over(index);
        }
        if wanted {
            self.open.start(&block, cursor.header.limit);
        }
        cursor.at += block.bytes();
        self.waiting.push(index);
        Ok(wanted)
    }

    /// Goes on behind a place where there is no block; false, as no block was opened.
    #[cold]
    fn pass_over(&mut self, index: usize) -> Result<bool> {
        if self.lost(index)? {
            self.waiting.push(index);
        }
        Ok(false)
    }

    /// There is no block where one was: the segment is in its next life, and the cursor done, or it
    /// is damaged. True if the damage is accepted, and the cursor a line further.
    #[cold]
    fn lost(&mut self, index: usize) -> Result<bool> {
        let cursor = &mut self.cursors[index];
        let life = self.core.table.pool().lives[cursor.segment].header.life;
        if life != cursor.header.life {
            // Its records were released.
            self.check_released()?;
            return Ok(false);
        }
        if !self.core.accepts_damage {
            return Err(cursor.damaged(self.core.layout));
        }
        cursor.at += LINE;
        Ok(true)
    }

    /// Takes up the lives that have begun.
    fn refresh(&mut self) {
        let pool = self.core.table.pool();
        self.known.resize(pool.lives.len(), 0);
        for (segment, life) in pool.lives.iter().enumerate() {
            let header = life.header;
            let used = !matches!(life.usage, Usage::Free | Usage::Lost);
            if used && self.known[segment] != header.life {
                self.known[segment] = header.life;
                let cursor = Cursor::new(segment, header, life.start(self.next));
                self.cursors.push(cursor);
                self.waiting.push(self.cursors.len() - 1);
            }
        }
    }

    /// Looks at the next blocks of the cursors of which it is not known.
    fn poll(&mut self) -> Result<()> {
        for index in std::mem::take(&mut self.waiting) {
            // Damage may be as long as a segment: line by line, until there is a block again.
            while !self.look(index)? && self.lost(index)? {}
        }
        Ok(())
    }

    /// Looks at the next block of a cursor; false if there is none where one should be.
    fn look(&mut self, index: usize) -> Result<bool> {
        let core = self.core;
        let cursor = &mut self.cursors[index];
        let end = core.table.progress[cursor.segment].end.load(Ordering::Acquire);
        while cursor.at < end {
            let Some(block) = cursor.peek(&core.region, core.layout)? else { return Ok(false) };
            if block.last() >= self.next {
                self.ready.push(Reverse((block.lsn, index)));
                return Ok(true);
            }
            // All of it is before what is wanted.
            cursor.at += block.bytes();
        }
        self.waiting.push(index);
        Ok(true)
    }
}

impl<R: Region> Iterator for Reader<'_, R> {
    type Item = Result<(Lsn, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.next_record().transpose()?;
        Some(record.map(|record| (record.lsn, record.payload.to_vec())))
    }
}
