//! The segments in memory: which life each is in, how far it is written, and who has it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crossbeam::utils::CachePadded;

use crate::format::LINE;

use super::catalog::{Catalog, Key};
use super::layout::BLOCKS;
use super::scan::{Contents, INDEX_STEP};
use super::segment::SegmentHeader;
use super::sync::lock;
use super::voids::Voids;

/// A segment that was lost had fewer lives than this since the newest that is known.
const LOST_LIVES: u64 = 1 << 32;

/// What a segment is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    /// Nothing: its next life can begin.
    Free,
    /// Its life goes on with the next writer.
    Idle,
    /// A writer has it.
    Active,
    /// Its life ends when its records are released.
    Full,
    /// A commit into it failed halfway: it is used again when the log is opened anew.
    Broken,
    /// Neither copy of its header is valid.
    Lost,
}

/// The life that a segment is in.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) header: SegmentHeader,
    pub(super) usage: Usage,
    /// The Lsn of its first record, if it has any.
    pub(super) first: Option<u64>,
    /// One block for each [`INDEX_STEP`]: its first Lsn and its offset.
    pub(super) index: Vec<(u64, u32)>,
    /// What of it is void.
    pub(super) voids: Voids,
    /// Only the second copy of its header, and the root, know of the last truncation.
    pub(super) is_half: bool,
}

impl Life {
    pub(super) fn new(header: SegmentHeader, usage: Usage) -> Self {
        let (index, voids) = (Vec::new(), Voids::default());
        Self { header, usage, first: None, index, voids, is_half: false }
    }

    /// By what the catalog knows it.
    pub(super) fn key(&self) -> Key {
        (self.header.base, self.header.life)
    }

    /// Where to begin looking for an Lsn.
    pub(super) fn start(&self, lsn: u64) -> u64 {
        let after = self.index.partition_point(|(first, _)| *first <= lsn);
        self.index[..after].last().map_or(BLOCKS, |(_, at)| u64::from(*at))
    }
}

/// How far a segment is written.
#[derive(Debug)]
pub(super) struct Progress {
    /// Blocks before this offset are durable.
    pub(super) end: CachePadded<AtomicU64>,
    /// Where all writers share a segment: blocks before this offset are written, if it is above `end`.
    pub(super) written: AtomicU64,
    /// The last Lsn in it.
    pub(super) last: AtomicU64,
}

impl Progress {
    /// How far those may read who ask for what is not durable, too, or not.
    pub(super) fn visible(&self, unsynced: bool) -> u64 {
        let end = self.end.load(Ordering::Acquire);
        if unsynced { end.max(self.written.load(Ordering::Acquire)) } else { end }
    }

    fn new(end: u64, last: u64) -> Self {
        let (written, last) = (AtomicU64::new(0), AtomicU64::new(last));
        Self { end: CachePadded::new(AtomicU64::new(end)), written, last }
    }
}

#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) lives: Vec<Life>,
    /// The lives that are not free, for who looks for an Lsn.
    pub(super) catalog: Catalog,
    /// The free ones, the longest free first: readers may be in the others yet.
    pub(super) free: VecDeque<usize>,
    next_life: u64,
    /// How often the log was truncated.
    pub(super) turn: u64,
}

/// All segments of a log.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) progress: Vec<Progress>,
    pool: Mutex<Pool>,
    /// Counts the lives that began and ended.
    generation: AtomicU64,
}

/// What a writer gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) segment: usize,
    pub(super) header: SegmentHeader,
    /// Where it goes on; none if a new life begins, which has no header on the medium yet.
    pub(super) at: Option<u64>,
}

impl Table {
    pub(super) fn pool(&self) -> MutexGuard<'_, Pool> {
        lock(&self.pool)
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// A table without segments of a log that was truncated so often.
    pub(super) fn of_turn(turn: u64) -> Self {
        Self { pool: Mutex::new(Pool { turn, ..Pool::default() }), ..Self::default() }
    }

    /// Adds a segment as recovery found it.
    pub(super) fn push(&mut self, life: Life, contents: Option<&Contents>) {
        let (end, last) = contents.map_or((BLOCKS, 0), |contents| {
            (contents.end, contents.lsns.map_or(0, |(_, last)| last))
        });
        // Of damaged segments, the header alone knows.
        let last = last.max(life.header.last);
        let pool = self.pool.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if life.usage == Usage::Free {
            pool.free.push_back(self.progress.len());
        }
        pool.next_life = pool.next_life.max(life.header.life + 1);
        pool.lives.push(life);
        let segment = self.progress.len();
        self.progress.push(Progress::new(end, last));
        pool.register(segment, last);
    }

    /// A segment that was lost is an empty one.
    pub(super) fn renew(&self, segment: usize) {
        let mut pool = self.pool();
        pool.lives[segment] = Life::new(SegmentHeader::UNUSED, Usage::Free);
        pool.free.push_back(segment);
        // More than it may have had: which number its life had, nobody knows.
        pool.next_life += LOST_LIVES;
        drop(pool);
        self.changed();
    }

    /// Takes a segment with room for `need` bytes; none if there is none. A new life begins with
    /// this salt, and with the base that is asked for when no other life can begin.
    pub(super) fn take(
        &self,
        need: u64,
        size: u64,
        released: u64,
        (salt, base): (u64, &impl Fn() -> u64),
    ) -> Option<Taken> {
        let pool = &mut *self.pool();
        let end = |segment: usize| self.progress[segment].end.load(Ordering::Acquire);
        let fits = |segment: usize| {
            let (life, end) = (&pool.lives[segment], end(segment));
            let need = if life.header.needs_mark(end) { need + LINE } else { need };
            life.usage == Usage::Idle && end.saturating_add(need) <= size
        };
        if let Some(segment) = (0..pool.lives.len()).find(|&segment| fits(segment)) {
            let life = &mut pool.lives[segment];
            life.usage = Usage::Active;
            return Some(Taken { segment, header: life.header, at: Some(end(segment)) });
        }
        let idle = || {
            let free = |segment: &usize| self.is_free(&pool.lives[*segment], *segment, released);
            (0..pool.lives.len())
                .filter(free)
                .min_by_key(|&segment| pool.lives[segment].header.life)
        };
        let segment = pool.free.front().copied().or_else(idle)?;
        pool.free.retain(|&free| free != segment);
        let header = SegmentHeader {
            life: pool.next_life,
            salt,
            base: base(),
            turn: pool.turn,
            ..SegmentHeader::UNUSED
        };
        pool.next_life += 1;
        let life = &mut pool.lives[segment];
        pool.catalog.forget(life.key());
        let mut index = std::mem::take(&mut life.index);
        index.clear();
        index.reserve((size / INDEX_STEP) as usize + 1);
        *life = Life { index, ..Life::new(header, Usage::Active) };
        self.progress[segment].written.store(0, Ordering::Release);
        self.progress[segment].end.store(BLOCKS, Ordering::Release);
        self.progress[segment].last.store(0, Ordering::Release);
        pool.register(segment, 0);
        self.changed();
        Some(Taken { segment, header, at: None })
    }

    /// The rule of recycling: a segment's next life can begin if nobody writes into it and it holds no
    /// record above the released ones, whoever has left it and however full it is.
    pub(super) fn is_free(&self, life: &Life, segment: usize, released: u64) -> bool {
        match life.usage {
            Usage::Free => true,
            Usage::Idle | Usage::Full => {
                self.progress[segment].last.load(Ordering::Acquire) <= released
            }
            Usage::Active | Usage::Broken | Usage::Lost => false,
        }
    }

    /// A segment that was taken could not be entered.
    pub(super) fn give_back(&self, taken: Taken) {
        let mut pool = self.pool();
        if taken.at.is_some() {
            pool.lives[taken.segment].usage = Usage::Idle;
        } else {
            pool.lives[taken.segment].usage = Usage::Free;
            pool.register(taken.segment, 0);
            pool.free.push_back(taken.segment);
        }
        drop(pool);
        self.changed();
    }

    /// Frees a segment that its writer needs no more, if nothing in it is kept. Whether it is free.
    pub(super) fn free(&self, segment: usize, released: u64) -> bool {
        let pool = &mut *self.pool();
        let life = &mut pool.lives[segment];
        life.usage = Usage::Idle;
        if self.is_free(life, segment, released) {
            life.usage = Usage::Free;
            pool.catalog.forget(life.key());
            pool.free.push_back(segment);
            self.changed();
            return true;
        }
        life.usage = Usage::Active;
        false
    }

    /// Where no segment can be had: the largest place for a block in one that is idle, and, if writers
    /// have them all, how many these are.
    pub(super) fn room(&self, size: u64) -> (u64, Option<u64>) {
        let pool = self.pool();
        let used = |usage| pool.lives.iter().filter(move |life| life.usage == usage).count();
        let (held, lost) = (used(Usage::Active) + used(Usage::Broken), used(Usage::Lost));
        let all = held > 0 && held + lost == pool.lives.len();
        let lives = pool.lives.iter().zip(&self.progress);
        let idle = lives.filter(|(life, _)| life.usage == Usage::Idle);
        let free = idle.map(|(_, progress)| size - progress.end.load(Ordering::Acquire));
        (free.max().unwrap_or(0), all.then_some(held as u64))
    }

    /// Notes where a block is, for those who look for its Lsn.
    #[cold]
    pub(super) fn index(&self, segment: usize, lsn: u64, at: u64) {
        let life = &mut self.pool().lives[segment];
        life.first.get_or_insert(lsn);
        life.index.push((lsn, at as u32));
    }

    /// A writer leaves its segment for the next one: there is room.
    pub(super) fn leave(&self, segment: usize) {
        self.pool().lives[segment].usage = Usage::Idle;
        self.changed();
    }

    /// Nobody is writing: whoever had a segment and did not leave it was forgotten. If a commit is not
    /// `finished`, it may be one of theirs.
    pub(super) fn leave_all(&self, finished: bool) {
        let mut pool = self.pool();
        for life in pool.lives.iter_mut().filter(|life| life.usage == Usage::Active) {
            life.usage = if finished { Usage::Idle } else { Usage::Broken };
        }
        drop(pool);
        self.changed();
    }

    /// A commit into the segment failed halfway: nobody writes behind it.
    #[cold]
    pub(super) fn break_off(&self, segment: usize) {
        self.pool().lives[segment].usage = Usage::Broken;
    }

    /// The header of a segment that is full up to `end`.
    pub(super) fn sealed(&self, segment: usize, end: u64) -> SegmentHeader {
        let last = self.progress[segment].last.load(Ordering::Acquire);
        SegmentHeader { end: end as u32, last, ..self.pool().lives[segment].header }
    }

    /// A writer has filled its segment, and this header that says so is durable.
    pub(super) fn retire(&self, segment: usize, header: SegmentHeader) {
        let mut pool = self.pool();
        let life = &mut pool.lives[segment];
        life.usage = Usage::Full;
        life.header = header;
        pool.register(segment, header.last);
        drop(pool);
        self.changed();
    }

    /// Frees the full segments of which nothing above this Lsn is left. Those that are not full go on,
    /// until another segment is needed and there is none.
    pub(super) fn free_up_to(&self, released: u64) {
        let pool = &mut *self.pool();
        for (segment, life) in pool.lives.iter_mut().enumerate() {
            if life.usage == Usage::Full && self.is_free(life, segment, released) {
                life.usage = Usage::Free;
                pool.catalog.forget(life.key());
                pool.free.push_back(segment);
            }
        }
        self.changed();
    }
}

impl Pool {
    /// Tells the catalog what a segment is used for now; `last` is the last Lsn in it.
    pub(super) fn register(&mut self, segment: usize, last: u64) {
        let life = &self.lives[segment];
        match life.usage {
            Usage::Free | Usage::Lost => self.catalog.forget(life.key()),
            Usage::Idle | Usage::Active | Usage::Broken => self.catalog.open(life.key(), segment),
            Usage::Full => self.catalog.fill(life.key(), segment, last),
        }
    }
}
