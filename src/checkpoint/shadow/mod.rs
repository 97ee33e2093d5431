//! Shadow pages: a checkpoint goes where nothing is that any kept checkpoint needs.
//!
//! Changed pages are written to free pages of the file, then the nodes of the page table that lead
//! to them, copied as well; a drain; and the root, which names the new table. A crash before the
//! root is durable leaves the table before, of which nothing was overwritten. Earlier checkpoints
//! that are kept are more roots; they share the pages that did not change since.
//!
//! The file after its header: the root [`Cell`], whose value is a record for each checkpoint kept,
//! the oldest first, and the last complete one at the end; then pages, of data and of nodes.

mod space;
mod table;

use std::collections::VecDeque;

use self::space::Space;
use self::table::{Difference, File, Table, nodes_of};
use super::changes::Changes;
use super::memory::Memory;
use super::record::{self, Checkpoint, Entry, RECORD_BYTES};
use super::settings::Settings;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::PAGE;
use crate::format::cell::{self, Cell, Other, Stored};
use crate::format::check::Key;
use crate::format::header::HEADER_AREA;
use crate::format::writer::Writer;
use crate::primitives::primitive;
use crate::region::Region;

/// Version of the root's layout.
const ROOT_VERSION: u32 = 1;

/// A checkpoint that can be restored.
#[derive(Debug)]
struct Kept {
    checkpoint: Checkpoint,
    top: Entry,
    /// Pages of the file that it uses and the next one does not.
    own: Vec<u64>,
}

/// The state of a file with shadow pages.
#[derive(Debug)]
pub(super) struct Shadow {
    cell: Cell,
    key: Key,
    /// Pages of the working set.
    pages: u64,
    /// The first page of the file that is not the header's or the root's.
    first: u64,
    /// How many checkpoints are kept besides the newest.
    keep: usize,
    /// What the root cell holds.
    root: Stored,
    buffer: Vec<u8>,
    table: Table,
    space: Space,
    /// The oldest first.
    kept: VecDeque<Kept>,
    /// Pages of the checkpoints after an earlier one that was opened, and of no other: they can be opened
    /// until the next checkpoint is durable.
    later: Vec<u64>,
}

/// What was found besides the set.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) other: Other,
    /// The newest number there is, of a damaged checkpoint too.
    pub(super) last: u64,
    /// Kept checkpoints whose tables are damaged.
    pub(super) damaged: Vec<u64>,
    pub(super) bytes_read: u64,
}

/// Where the root is, and how large.
fn root_cell(settings: &Settings, key: Key) -> Cell {
    Cell::new(HEADER_AREA, capacity(settings.keep), key)
}

const fn capacity(keep: u32) -> u32 {
    (keep + 1) * RECORD_BYTES as u32
}

/// Bytes of the root.
pub(super) fn root_bytes(settings: &Settings) -> u64 {
    Cell::bytes(capacity(settings.keep))
}

/// The first page of data and nodes.
fn first_page(settings: &Settings) -> u64 {
    (HEADER_AREA + Cell::bytes(capacity(settings.keep))) / PAGE
}

/// Bytes of a file in which every checkpoint fits, however much changes between two.
pub(super) fn file_bytes(settings: &Settings) -> u64 {
    let whole = settings.pages() + Table::nodes(settings.pages());
    (first_page(settings) + whole * (2 + u64::from(settings.keep))) * PAGE
}

/// Bytes of the smallest file in which a set that is changed throughout can be saved once.
pub(super) fn least_bytes(settings: &Settings) -> u64 {
    (first_page(settings) + settings.pages() + Table::nodes(settings.pages())) * PAGE
}

/// Writes the root of a new file.
pub(super) fn format(region: &impl Region, settings: &Settings, key: Key) -> Result<()> {
    let root = record::encode(&Checkpoint::blank(), Entry::default());
    let (cell, mut buffer) = (root_cell(settings, key), Vec::new());
    cell.store(region, &mut buffer, 1, ROOT_VERSION, &root)?;
    let root = Stored { sequence: 1, version: ROOT_VERSION, value: root.to_vec() };
    cell.settle(region, &mut buffer, &root)
}

/// A checkpoint and the top of its table.
type Rooted = (Checkpoint, Entry);

/// Which checkpoints the file has, without looking at them: the oldest first.
fn roots(region: &impl Region, cell: Cell) -> Result<(Stored, Other, Vec<Rooted>)> {
    let damaged = |what| {
        let error = Error::new(Operation::Recover, ErrorKind::Damaged(what));
        error.over(HEADER_AREA, cell.len())
    };
    let found = cell.find(region).map_err(|error| error.during(Operation::Recover))?;
    let root = found.newest.ok_or_else(|| damaged("both copies of the root"))?;
    if root.version > ROOT_VERSION {
        let newer = ErrorKind::NewerFormat { found: root.version, newest: ROOT_VERSION };
        return Err(Error::new(Operation::Recover, newer));
    }
    let records = root.value.chunks(RECORD_BYTES).map(record::decode);
    let records: Option<Vec<_>> = records.collect();
    match records {
        Some(records) if !records.is_empty() => Ok((root, found.other, records)),
        _ => Err(damaged("the root")),
    }
}

/// Which checkpoints the file keeps, the oldest first. Nothing of them is read.
pub(super) fn records(
    region: &impl Region,
    settings: &Settings,
    key: Key,
) -> Result<Vec<Checkpoint>> {
    let (_, _, records) = roots(region, root_cell(settings, key))?;
    Ok(records.into_iter().map(|(checkpoint, _)| checkpoint).collect())
}

impl Shadow {
    /// Reads the newest checkpoint, or the one with this number, into memory, which is all zero.
    /// Changes nothing in the file.
    pub(super) fn load(
        region: &impl Region,
        settings: &Settings,
        key: Key,
        from: Option<u64>,
        memory: &mut Memory,
    ) -> Result<(Self, Found)> {
        let (cell, first) = (root_cell(settings, key), first_page(settings));
        let (root, other, mut records) = roots(region, cell)?;
        let file = File { region, key, first };
        let mut space = Space::new(first, region.len() / PAGE);
        let mut table = Table::zeros(settings.pages());
        let mut claim = |pages: &[u64]| {
            let twice = pages.iter().find(|page| !space.claim(**page));
            twice.map_or(Ok(()), |page| Err(table::damaged(*page, "a page that is in use twice")))
        };
        let (mut kept, mut damaged, mut pages_read) = (VecDeque::new(), Vec::new(), 0);
        let last = records.last().map_or(0, |(newest, _)| newest.sequence);
        let missing = |sequence| Error::new(Operation::Open, ErrorKind::NoCheckpoint { sequence });
        let mut after = Vec::new();
        if let Some(sequence) = from {
            let found = records.iter().position(|(c, _)| c.sequence == sequence);
            after = records.split_off(found.ok_or_else(|| missing(sequence))? + 1);
        }
        let (newest, top) = records.pop().ok_or_else(|| missing(0))?;
        let Difference { positions, used } = table.turn_into(&file, top)?;
        claim(&used)?;
        for &position in &positions {
            file.page(table.get(position), memory.page_mut(position))?;
        }
        pages_read += used.len() as u64;
        kept.push_front(Kept { checkpoint: newest, top, own: Vec::new() });
        let mut newer = if after.is_empty() { Table::zeros(0) } else { table.clone() };
        let mut older = if records.is_empty() { Table::zeros(0) } else { table.clone() };
        for (checkpoint, top) in records.into_iter().rev() {
            match older.turn_into(&file, top).and_then(|d| claim(&d.used).map(|()| d)) {
                Ok(Difference { used: own, .. }) => {
                    kept.push_front(Kept { checkpoint, top, own });
                }
                Err(error) if matches!(error.kind(), ErrorKind::Damaged(_)) => {
                    damaged.push(checkpoint.sequence);
                }
                Err(error) => return Err(error),
            }
        }
        let mut later = Vec::new();
        for (_, top) in after {
            match newer.turn_into(&file, top) {
                Ok(Difference { used, .. }) => {
                    later.extend(used.into_iter().filter(|page| {
                        primitive!("checkpoint.from.keep_later", space.claim(*page), false)
                    }));
                }
                // As it may well be: nothing of it is worth keeping.
                Err(error) if matches!(error.kind(), ErrorKind::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let keep = settings.keep as usize;
        let bytes_read = (pages_read + first) * PAGE;
        let buffer = Vec::with_capacity(Cell::buffer_bytes(capacity(settings.keep)));
        let pages = settings.pages();
        let shadow =
            Self { cell, key, pages, first, keep, root, buffer, table, space, kept, later };
        Ok((shadow, Found { other, last, damaged, bytes_read }))
    }

    /// Makes both copies of the root the newest.
    pub(super) fn settle(&mut self, region: &impl Region) -> Result<()> {
        self.cell.settle(region, &mut self.buffer, &self.root)
    }

    /// How many checkpoints are kept from now on, besides the newest; at most as many as the file
    /// was made for. Those above it go with the next checkpoint.
    pub(super) fn set_keep(&mut self, keep: u32) {
        self.keep = self.keep.min(keep as usize);
    }

    /// The checkpoints that can be restored, the oldest first.
    pub(super) fn list(&self) -> Vec<Checkpoint> {
        self.kept.iter().map(|kept| kept.checkpoint.clone()).collect()
    }

    pub(super) fn newest(&self) -> Option<&Checkpoint> {
        self.kept.back().map(|kept| &kept.checkpoint)
    }

    /// Uses what the region has grown by.
    pub(super) fn grown(&mut self, region: &impl Region) {
        self.space.extend(region.len() / PAGE);
    }

    /// Pages that a checkpoint of these changes needs.
    fn needed(&self, changes: &Changes) -> u64 {
        let mut nodes = nodes_of(changes.pages());
        let mut needed = changes.page_count();
        for _ in 0..self.table.levels() {
            needed += nodes.len() as u64;
            nodes = nodes_of(nodes.into_iter());
        }
        needed
    }

    /// Refuses what does not fit, before anything is written.
    pub(super) fn check_room(&self, changes: &Changes) -> Result<()> {
        let (needed, free) = (self.needed(changes), self.space.free() + self.later.len() as u64);
        if primitive!("checkpoint.full_before_write", needed > free, false) {
            let kind = ErrorKind::Full { needed: needed * PAGE, free: free * PAGE };
            return Err(Error::new(Operation::Checkpoint, kind));
        }
        Ok(())
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
        let mut replaced = Vec::new();
        if self.needed(changes) > self.space.free() {
            self.give_later();
        }
        let mut out = Writer::new(region);
        for page in memory.in_turn(changes.pages()) {
            self.put(&mut out, 0, page, memory.page(page), &mut replaced)?;
        }
        let mut nodes = nodes_of(changes.pages());
        for level in 0..self.table.levels() {
            for &node in &nodes {
                let bytes = self.table.node(level, node);
                self.put(&mut out, level + 1, node, &bytes, &mut replaced)?;
            }
            nodes = nodes_of(nodes.into_iter());
        }
        let wrote = out.finish()?;
        if wrote {
            primitive!("checkpoint.pages_before_root", region.drain(), Ok(()))?;
        }
        self.store_root(region, checkpoint)?;
        self.retire(checkpoint, replaced);
        Ok(())
    }

    /// Writes a page of the set or of the table where nothing is that is needed.
    fn put(
        &mut self,
        out: &mut Writer<'_, impl Region>,
        level: usize,
        index: u64,
        bytes: &[u8],
        replaced: &mut Vec<u64>,
    ) -> Result<()> {
        let full = || Error::new(Operation::Checkpoint, ErrorKind::Full { needed: PAGE, free: 0 });
        let page = primitive!(
            "checkpoint.copy_on_write",
            self.space.take(),
            Some(self.table.replace(level, index, Entry::default()).page)
                .filter(|page| *page != 0)
                .or_else(|| self.space.take())
        );
        let page = page.ok_or_else(full)?;
        let check = self.key.check(page * PAGE, bytes);
        out.write(page * PAGE, bytes)?;
        let old = self.table.replace(level, index, Entry { page, check });
        replaced.extend((old.page != 0).then_some(old.page));
        Ok(())
    }

    /// The records of what stays, and of the new one.
    fn store_root(&mut self, region: &impl Region, checkpoint: &Checkpoint) -> Result<()> {
        let mut value = Vec::with_capacity((self.keep + 1) * RECORD_BYTES);
        for kept in self.kept.iter().skip(self.surplus()) {
            value.extend_from_slice(&record::encode(&kept.checkpoint, kept.top));
        }
        value.extend_from_slice(&record::encode(checkpoint, self.table.top));
        let sequence = cell::next(self.root.sequence)?;
        self.cell.store(region, &mut self.buffer, sequence, ROOT_VERSION, &value)?;
        self.root = Stored { sequence, version: ROOT_VERSION, value };
        Ok(())
    }

    /// How many of the oldest go when one more comes.
    fn surplus(&self) -> usize {
        self.kept.len().saturating_sub(self.keep)
    }

    /// The new root is durable: what only dropped checkpoints used is free.
    fn retire(&mut self, checkpoint: &Checkpoint, replaced: Vec<u64>) {
        if let Some(previous) = self.kept.back_mut() {
            previous.own = replaced;
        }
        self.give_later();
        for dropped in self.kept.drain(..self.surplus()) {
            dropped.own.into_iter().for_each(|page| self.space.give(page));
        }
        if primitive!("checkpoint.kept_pages", false, true) {
            let own = self.kept.iter().flat_map(|kept| &kept.own);
            own.for_each(|page| self.space.give(*page));
        }
        let top = self.table.top;
        self.kept.push_back(Kept { checkpoint: checkpoint.clone(), top, own: Vec::new() });
    }

    fn give_later(&mut self) {
        self.later.drain(..).for_each(|page| self.space.give(page));
    }

    /// The table of a kept checkpoint, and the pages of the set in which it differs from the newest.
    fn table_of(&self, region: &impl Region, sequence: u64) -> Result<(Table, Vec<u64>)> {
        let mut table = self.table.clone();
        let difference = table.turn_into(&self.file(region), self.find(sequence)?.top)?;
        Ok((table, difference.positions))
    }

    fn find(&self, sequence: u64) -> Result<&Kept> {
        let found = self.kept.iter().find(|kept| kept.checkpoint.sequence == sequence);
        found.ok_or_else(|| Error::new(Operation::Restore, ErrorKind::NoCheckpoint { sequence }))
    }

    fn file<'a, R: Region>(&self, region: &'a R) -> File<'a, R> {
        File { region, key: self.key, first: self.first }
    }

    /// Puts a kept checkpoint into memory, and marks what then differs from the newest. `changes`
    /// are the pages in which memory differs from the newest now. Every page is checked before
    /// the first is put there.
    pub(super) fn restore(
        &self,
        region: &impl Region,
        sequence: u64,
        memory: &mut Memory,
        changes: &mut Changes,
    ) -> Result<()> {
        let (table, differing) = self.table_of(region, sequence)?;
        let file = self.file(region);
        let mut scratch = [0; PAGE as usize];
        let now: Vec<u64> = changes.pages().collect();
        let positions = || now.iter().chain(&differing).copied();
        for position in positions() {
            file.page(table.get(position), &mut scratch)?;
        }
        for position in positions() {
            changes.mark_page(position);
            file.page(table.get(position), memory.page_mut(position))?;
        }
        Ok(())
    }

    /// Reads every page of a kept checkpoint, and of its table.
    pub(super) fn verify(&self, region: &impl Region, sequence: u64) -> Result<()> {
        let (file, mut scratch) = (self.file(region), [0; PAGE as usize]);
        let mut table = Table::zeros(self.pages);
        let difference = table.turn_into(&file, self.find(sequence)?.top)?;
        let mut positions = difference.positions.into_iter();
        positions.try_for_each(|at| file.page(table.get(at), &mut scratch))
    }
}
