//! Where a writer's next block goes.

use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::LINE;
use crate::format::check::Key;
use crate::primitives::primitive;
use crate::region::Region;

use super::block::{Block, HEADER};
use super::core::Core;
use super::layout::BLOCKS;
use super::scan::INDEX_STEP;
use super::segment::SegmentHeader;
use super::table::Taken;

/// A segment that somebody writes into.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) segment: usize,
    /// Where the segment is in the region.
    pub(super) base: u64,
    /// Where the next block goes, in the segment.
    pub(super) at: u64,
    pub(super) key: Key,
    /// From where on a block gets an entry in the index.
    index_from: u64,
}

/// The segment that all writers write into together, and its lock.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) active: Option<Active>,
    /// A write into it failed: there may be a hole, and nobody may write behind it.
    pub(super) broken: bool,
}

impl Shared {
    /// Refuses where a write of another thread failed.
    pub(super) fn check(&self) -> Result<()> {
        if primitive!("log.shared.latch", self.broken, false) {
            let why = ErrorKind::Damaged("an append of another thread failed halfway");
            return Err(Error::new(Operation::Append, why));
        }
        Ok(())
    }
}

impl Active {
    /// Notes a block, if it is time for an entry in the index.
    #[inline]
    pub(super) fn index<R: Region>(&mut self, core: &Core<R>, lsn: u64) {
        if self.at >= self.index_from {
            core.table.index(self.segment, lsn, self.at);
            self.index_from = self.at + INDEX_STEP;
        }
    }

    /// The same of a block in the segment of all writers, of `bytes`. It is written, and those who ask for
    /// what is not durable find it: its place is told before its Lsns are.
    pub(super) fn wrote<R: Region>(&mut self, core: &Core<R>, block: &Block, bytes: u64) {
        self.index(core, block.lsn);
        self.at += bytes;
        core.table.progress[self.segment].written.store(self.at, Ordering::Release);
        core.watermark.wrote(block.last() + 1);
    }
}

impl<R: Region> Core<R> {
    /// Sees to it that a block of `need` bytes has a place in the writer's segment.
    ///
    /// # Errors
    ///
    /// `Full`, `TooManyWriters`; `TooLarge` if no segment has so much room; those of beginning a segment.
    #[inline]
    pub(super) fn ensure(&self, active: &mut Option<Active>, need: u64) -> Result<()> {
        match active {
            Some(active) if need <= self.layout.segment - active.at => Ok(()),
            _ => self.change_segment(active, need),
        }
    }

    /// Gets another segment. The own one is given up before: that is how it becomes free when all of
    /// its records are released. What others hold without use is called back before there is no room.
    #[cold]
    #[inline(never)]
    fn change_segment(&self, active: &mut Option<Active>, need: u64) -> Result<()> {
        self.check_writable(Operation::Append)?;
        let room = self.layout.room();
        if need > room {
            let most = room - HEADER as u64;
            return Err(Error::new(Operation::Append, ErrorKind::TooLarge { max: most }));
        }
        if self.recyclable() < self.released() {
            // No segment is used again before the medium knows that it is free.
            self.change_root(|root| root.durable = self.watermark.get() - 1)?;
        }
        let released = self.recyclable();
        self.table.free_up_to(released);
        if active.as_ref().is_some_and(|old| self.table.free(old.segment, released)) {
            *active = None;
        }
        let size = self.layout.segment;
        let (salt, base) = (self.salts.draw()?, || self.watermark.next());
        let take = || self.table.take(need, size, released, (salt, &base));
        let mut taken = take();
        if taken.is_none() {
            self.recall_spares()?;
            taken = take();
        }
        let Some(taken) = taken else {
            // Where it is one writer's, its rest is for whoever needs less.
            if let Some(old) = active.take_if(|_| !self.is_shared()) {
                self.leave(&old)?;
                self.room_came();
            }
            return Err(Error::new(Operation::Append, self.no_room(need)));
        };
        let old = active.take();
        let entered = self.enter(old.as_ref(), taken).inspect_err(|_| {
            self.table.give_back(taken);
            // Its header may say already that nothing follows.
            if let Some(old) = &old {
                self.table.break_off(old.segment);
            }
        });
        *active = Some(entered?);
        Ok(())
    }

    /// Why no segment can be had. One that all writers share is given up when its records are
    /// released, so that none of them is one too many.
    fn no_room(&self, needed: u64) -> ErrorKind {
        let (free, held) = self.table.room(self.layout.segment);
        match held {
            Some(segments) if !self.is_shared() => ErrorKind::TooManyWriters { segments },
            _ => ErrorKind::Full { needed, free },
        }
    }

    /// Leaves a segment that is full for another one.
    fn enter(&self, old: Option<&Active>, taken: Taken) -> Result<Active> {
        let sealed = match old {
            Some(old) => Some((old.segment, self.seal(old)?)),
            None => None,
        };
        if let Taken { segment, header, at: None } = taken {
            // The old life's second copy stays until the new life's first is durable.
            self.headers.write(&self.region, segment, 0, &header)?;
            primitive!("log.begin.drain", self.region.drain(), Ok(()))?;
            // Durable with the first block.
            primitive!(
                "log.begin.second_copy",
                self.headers.write(&self.region, segment, 1, &header),
                Ok(())
            )?;
        } else if sealed.is_some() {
            self.region.drain()?;
        }
        let Taken { segment, header, at } = taken;
        let (base, mut at) = (self.layout.at(segment), at.unwrap_or(BLOCKS));
        if header.needs_mark(at) {
            // Durable with the first block.
            let mark = Block::mark(header.limit, (header.turn, header.mark), at as u32);
            let mut line = [0; LINE as usize];
            line[..HEADER].copy_from_slice(&mark.encode(&header.key(), base + at));
            self.region.write_flush(base + at, &line)?;
            at += LINE;
        }
        // Not before its header is durable: the next life of the segment writes the other copy, and
        // a crash that tore both would leave none.
        if let Some((segment, header)) = sealed {
            self.table.retire(segment, header);
        }
        Ok(Active { segment, base, at, key: header.key(), index_from: at })
    }

    /// Writes in a segment's header that it is full, durable with the next drain: what is in it must be
    /// there from now on.
    pub(super) fn seal(&self, old: &Active) -> Result<SegmentHeader> {
        if self.is_shared() {
            // Blocks of others may be on their way.
            let end = &self.table.progress[old.segment].end;
            let durable = end.load(Ordering::Acquire);
            self.region.flush(old.base + durable, old.at - durable)?;
            primitive!("log.retire.drain", self.region.drain(), Ok(()))?;
            end.fetch_max(old.at, Ordering::AcqRel);
        }
        let header = self.table.sealed(old.segment, old.at);
        primitive!(
            "log.retire.end",
            self.headers.write(&self.region, old.segment, 1, &header),
            Ok(())
        )?;
        Ok(header)
    }
}
