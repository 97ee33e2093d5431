//! Going through the blocks of a segment, every byte once.

use std::ops::Range;
use std::sync::atomic::{Ordering, fence};

use crate::error::Result;
use crate::format::LINE;
use crate::format::check::Key;
use crate::primitives::primitive;
use crate::region::Region;

use super::block::{Block, HEADER, Mark};
use super::layout::BLOCKS;
use super::segment::SegmentHeader;
use super::voids::Voids;

/// How much is read at once, in bytes: it stays in the first-level cache until it is checked, and as
/// much again is on its way from memory. On an AMD processor recovery reads 22 GB/s with it, 19 GB/s
/// with 64 KiB (`benches/log`).
const WINDOW: usize = 16 << 10;

/// One entry of the index for so many bytes of blocks.
pub(super) const INDEX_STEP: u64 = 64 << 10;

/// A part of a segment in memory.
#[derive(Debug)]
struct Window<'a, R> {
    region: &'a R,
    /// Where the segment is, and its bytes.
    base: u64,
    segment: u64,
    buffer: Vec<u8>,
    /// Offset in the segment of the buffer's first byte.
    from: u64,
    /// Offset in the segment of the first byte that was not read yet.
    to: u64,
    /// Bytes read so far.
    read: u64,
}

impl<'a, R: Region> Window<'a, R> {
    fn new(region: &'a R, base: u64, segment: u64) -> Self {
        let buffer = vec![0; WINDOW.min(segment as usize)];
        Self { region, base, segment, buffer, from: BLOCKS, to: BLOCKS, read: 0 }
    }

    /// The bytes from `offset` on, `len` of them or those up to the segment's end. What lies before
    /// them is not asked for again.
    #[inline]
    fn get(&mut self, offset: u64, len: u64) -> Result<&[u8]> {
        let end = (offset + len).min(self.segment);
        if end > self.to || offset < self.from {
            self.fetch(offset, end)?;
        }
        let start = (offset - self.from) as usize;
        Ok(&self.buffer[start..start + (end - offset) as usize])
    }

    /// Has the bytes fetched that will be read when what is between them and these is checked: the
    /// memory is read while check values are computed, which takes as long.
    #[inline]
    fn fetch_ahead(&self, offset: u64, len: u64) {
        let ahead = offset + WINDOW as u64;
        let end = (ahead + len).min(self.segment);
        if ahead < end {
            self.region.prefetch(self.base + ahead, end - ahead);
        }
    }

    /// Has what is read next read again.
    fn forget(&mut self) {
        self.to = self.from;
    }

    /// Fills the buffer from `offset` on, to `end` at least.
    fn fetch(&mut self, offset: u64, end: u64) -> Result<()> {
        if !(self.from..self.to).contains(&offset) {
            // At first, and back to where damage was found.
            (self.from, self.to) = (offset, offset);
        }
        let kept = (offset - self.from) as usize..(self.to - self.from) as usize;
        let filled = kept.len();
        self.buffer.copy_within(kept, 0);
        self.from = offset;
        let to = end.max((offset + WINDOW as u64).min(self.segment));
        let bytes = (to - offset) as usize;
        if self.buffer.len() < bytes {
            self.buffer.resize(bytes, 0);
        }
        self.region.read(self.base + self.to, &mut self.buffer[filled..bytes])?;
        self.read += to - self.to;
        self.to = to;
        Ok(())
    }
}

/// What a segment holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// Where the next block would begin.
    pub(super) end: u64,
    /// The durable bound of the last block: what is before it was durable.
    pub(super) durable: u64,
    /// The first and the last Lsn in it; what is void does not count.
    pub(super) lsns: Option<(u64, u64)>,
    /// What the next block must be above: the last Lsn of the one before, void or not.
    last_written: u64,
    /// What is void.
    pub(super) voids: Voids,
    /// The truncation that the root knows of has voided something, which the header does not say.
    pub(super) is_cut: bool,
    /// The last mark, and its offset.
    pub(super) mark: Option<(u32, Mark)>,
    /// Records above the released ones.
    pub(super) records: u64,
    /// Those of them up to the Lsn that was known to be durable.
    pub(super) known: u64,
    /// One block for each [`INDEX_STEP`]: its first Lsn and its offset in the segment.
    pub(super) index: Vec<(u64, u32)>,
    /// Places past the end that still look like blocks of this life: commits that a crash cut.
    pub(super) stale: Vec<u64>,
    /// There are bytes where the next block would begin, and they are none.
    pub(super) leftover: Option<Range<u64>>,
    pub(super) damage: Vec<Damage>,
    /// Bytes read.
    pub(super) read: u64,
}

/// Blocks that were durable and are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// Where, in the segment.
    pub(super) bytes: Range<u64>,
    /// The Lsns that may be concerned.
    pub(super) lsns: Range<u64>,
}

/// What of a segment counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Records up to this Lsn are released.
    pub(super) released: u64,
    /// Up to this Lsn, all was durable.
    pub(super) durable: u64,
    /// Records above this are not asked for.
    pub(super) last: u64,
    /// Number and Lsn of a truncation that this segment's header does not know of.
    pub(super) cut: Option<(u64, u64)>,
}

/// Goes through the blocks of a segment, which is in the region at `base` and has `size` bytes. Where
/// damage is found, goes on behind it.
pub(super) fn scan(
    region: &impl Region,
    (base, size): (u64, u64),
    header: &SegmentHeader,
    voids: Voids,
    bounds: &Bounds,
) -> Result<Contents> {
    let mut voids = voids;
    // Again if a mark is found that the header does not know of: one copy of it was older.
    loop {
        match scan_once(region, (base, size), header, voids, *bounds)? {
            Scanned::All(contents) => return Ok(*contents),
            Scanned::Void(more) => voids = more,
        }
    }
}

/// What going through a segment came to.
enum Scanned {
    All(Box<Contents>),
    /// Some of what was counted is void: so much of it.
    Void(Voids),
}

fn scan_once(
    region: &impl Region,
    (base, size): (u64, u64),
    header: &SegmentHeader,
    voids: Voids,
    mut bounds: Bounds,
) -> Result<Scanned> {
    let mut window = Window::new(region, base, size);
    let last_written = header.base.saturating_sub(1);
    let mut contents = Contents { last_written, ..Contents::none(voids) };
    let search = Search { key: header.key(), base, size };
    let mut rest = None;
    loop {
        let at = contents.end;
        if let Some(block) = search.whole(&mut window, at, contents.last_written)? {
            if let Some(limit) = contents.add(&block, &mut bounds) {
                return Ok(contents.voided(at, limit));
            }
            continue;
        }
        // No block. Is there proof that there was one? Looked for once, be there much damage.
        if rest.is_none() {
            rest = Some(search.rest(&mut window, at)?);
        }
        let rest = rest.get_or_insert_default();
        rest.blocks.retain(|(place, _)| *place >= at);
        if primitive!("log.scan.damage", rest.proven.max(u64::from(header.end)) <= at, true) {
            contents.leftover = search.leftover(&mut window, at, rest)?;
            contents.stale = rest.blocks.iter().map(|(at, _)| *at).collect();
            break;
        }
        // Another process may append: then the proof is younger than the look at what it proves, which
        // is there now.
        fence(Ordering::Acquire);
        window.forget();
        if let Some(block) = search.whole(&mut window, at, contents.last_written)? {
            if let Some(limit) = contents.add(&block, &mut bounds) {
                return Ok(contents.voided(at, limit));
            }
            continue;
        }
        let first = contents.last_written + 1;
        let Some((to, block)) = rest.blocks.iter().find(|(place, _)| *place > at) else {
            let to = rest.proven.max(u64::from(header.end)).min(size).max(at);
            // Of a full segment, its header knows how many there were.
            let last = if header.last == 0 { u64::MAX } else { header.last.max(first) + 1 };
            contents.damage.push(Damage { bytes: at..to, lsns: first..last });
            contents.end = to;
            break;
        };
        contents
            .damage
            .push(Damage { bytes: at..*to, lsns: first.min(block.lsn)..block.lsn.max(first) });
        // A mark may be among what is damaged.
        contents.last_written = contents.last_written.min(block.lsn - 1);
        contents.end = *to;
        if contents.counts_above(block.lsn - 1) {
            return Ok(contents.voided(*to, block.lsn - 1));
        }
    }
    contents.read = window.read;
    Ok(Scanned::All(Box::new(contents)))
}

impl Contents {
    /// Before the first block.
    pub(super) fn none(voids: Voids) -> Self {
        Self { end: BLOCKS, durable: BLOCKS, voids, ..Self::default() }
    }

    /// Counts a block. The limit that a mark gives, if something above it was counted.
    fn add(&mut self, block: &Block, bounds: &mut Bounds) -> Option<u64> {
        let at = self.end;
        self.end += block.bytes();
        self.durable = u64::from(block.durable);
        self.last_written = block.last();
        if let Some(mark) = block.as_mark() {
            // What is behind it was written after the truncation.
            if bounds.cut.is_some_and(|(turn, _)| mark.turn >= turn) {
                bounds.cut = None;
            }
            self.mark = Some((at as u32, mark));
            return self.counts_above(mark.limit).then_some(mark.limit);
        }
        let mut limit = self.voids.limit_at(at);
        if let Some((_, cut)) = bounds.cut {
            if cut < block.last().min(limit) {
                limit = primitive!("log.recover.cut", cut, limit);
                self.is_cut = true;
            }
        }
        let limit = limit.min(bounds.last);
        let last = primitive!("log.scan.limit", block.last().min(limit), block.last());
        if block.lsn <= last {
            if self.index.last().is_none_or(|(_, before)| at - u64::from(*before) >= INDEX_STEP) {
                self.index.push((block.lsn, at as u32));
            }
            let before = block.lsn.max(bounds.released + 1) - 1;
            self.records += last.saturating_sub(before);
            self.known += last.min(bounds.durable).saturating_sub(before);
            self.lsns = Some((self.lsns.map_or(block.lsn, |(first, _)| first), last));
        }
        None
    }

    fn counts_above(&self, limit: u64) -> bool {
        self.lsns.is_some_and(|(_, last)| last > limit)
    }

    /// More is void: what is above the limit before an offset.
    fn voided(self, end: u64, limit: u64) -> Scanned {
        let mut voids = self.voids;
        voids.add(end as u32, limit);
        Scanned::Void(voids)
    }
}

/// Where blocks of a life are looked for.
struct Search {
    key: Key,
    base: u64,
    size: u64,
}

/// What follows a place without a block.
#[derive(Default)]
struct Rest {
    /// Headers of this life, by offset; the bodies were not looked at.
    blocks: Vec<(u64, Block)>,
    /// What was before this was durable, they say.
    proven: u64,
}

impl Search {
    /// The header at an offset, if it is one of this life.
    fn header(&self, bytes: &[u8], at: u64) -> Option<Block> {
        Block::decode(&self.key, self.base + at, at, self.size, bytes)
    }

    /// The block at an offset, if it is all there: one of a later commit than `after`, or a mark.
    fn whole<R: Region>(
        &self,
        window: &mut Window<'_, R>,
        at: u64,
        after: u64,
    ) -> Result<Option<Block>> {
        if at + LINE > self.size {
            return Ok(None);
        }
        let bytes = window.get(at, LINE)?;
        let Some(block) = self.header(bytes, at) else { return Ok(None) };
        if block.as_mark().is_some() {
            return Ok(Some(block));
        }
        if block.lsn <= after {
            return Ok(None);
        }
        window.fetch_ahead(at, block.bytes());
        let bytes = window.get(at, block.bytes())?;
        let body = &bytes[HEADER..HEADER + block.len as usize];
        Ok(block.owns(&self.key, self.base + at, body).then_some(block))
    }

    /// Looks at every line from an offset on.
    fn rest<R: Region>(&self, window: &mut Window<'_, R>, from: u64) -> Result<Rest> {
        let mut rest = Rest::default();
        let mut at = from;
        while at + LINE <= self.size {
            let bytes = window.get(at, LINE)?;
            if let Some(block) = self.header(bytes, at) {
                rest.proven = rest.proven.max(u64::from(block.durable));
                rest.blocks.push((at, block));
            }
            at += LINE;
        }
        Ok(rest)
    }

    /// The bytes at a place that is no block, if there are any: those of a commit that a crash has
    /// cut, or of an earlier life.
    fn leftover<R: Region>(
        &self,
        window: &mut Window<'_, R>,
        at: u64,
        rest: &Rest,
    ) -> Result<Option<Range<u64>>> {
        if at + LINE > self.size {
            return Ok(None);
        }
        if let Some((_, block)) = rest.blocks.iter().find(|(place, _)| *place == at) {
            return Ok(Some(at..at + block.bytes()));
        }
        let used = window.get(at, LINE)?.iter().any(|&byte| byte != 0);
        Ok(used.then_some(at..at + LINE))
    }
}
