//! The segments in memory: which life each is in, how far it is written, and who has it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crossbeam::utils::CachePadded;

use super::catalog::{Catalog, Key};
use super::layout::BLOCKS;
use super::scan::{Contents, INDEX_STEP};
use super::segment::{NO_LIMIT, SegmentHeader};
use super::sync::lock;

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
}

impl Life {
    pub(super) fn new(header: SegmentHeader, usage: Usage) -> Self {
        Self { header, usage, first: None, index: Vec::new() }
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
    /// The last Lsn in it.
    pub(super) last: AtomicU64,
}

impl Progress {
    fn new(end: u64, last: u64) -> Self {
        Self { end: CachePadded::new(AtomicU64::new(end)), last: AtomicU64::new(last) }
    }
}

#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) lives: Vec<Life>,
    /// The lives that are not free, for who looks for an Lsn.
    pub(super) catalog: Catalog,
    /// The free ones, the longest free first: readers may be in the others yet.
    free: VecDeque<usize>,
    next_life: u64,
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
pub(super) enum Taken {
    /// A segment to go on in, from this offset.
    Continue { segment: usize, header: SegmentHeader, at: u64 },
    /// A segment whose next life begins: it has no header yet.
    Begin { segment: usize, header: SegmentHeader },
}

impl Table {
    pub(super) fn pool(&self) -> MutexGuard<'_, Pool> {
        lock(&self.pool)
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Adds a segment as recovery found it.
    pub(super) fn push(&mut self, life: Life, contents: Option<&Contents>) {
        let (end, last) = contents.map_or((BLOCKS, 0), |contents| {
            (contents.end, contents.lsns.map_or(0, |(_, last)| last))
        });
        // Of damaged segments, the header alone knows.
        let last = last.max(life.header.last);
        debug_assert!(last <= life.header.limit);
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

    /// Takes a segment with room for `need` bytes; none if there is none. A new life begins with
    /// this salt, and with the base that is asked for when no other life can begin.
    pub(super) fn take(
        &self,
        need: u64,
        size: u64,
        salt: u64,
        base: impl FnOnce() -> u64,
    ) -> Option<Taken> {
        let mut pool = self.pool();
        let fits = |segment: &usize| {
            let end = self.progress[*segment].end.load(Ordering::Acquire);
            pool.lives[*segment].usage == Usage::Idle && end + need <= size
        };
        if let Some(segment) = (0..pool.lives.len()).find(fits) {
            let life = &mut pool.lives[segment];
            life.usage = Usage::Active;
            let at = self.progress[segment].end.load(Ordering::Acquire);
            return Some(Taken::Continue { segment, header: life.header, at });
        }
        let segment = pool.free.pop_front()?;
        let header = SegmentHeader {
            life: pool.next_life,
            salt,
            base: base(),
            limit: NO_LIMIT,
            end: BLOCKS as u32,
            last: 0,
        };
        pool.next_life += 1;
        let life = &mut pool.lives[segment];
        let mut index = std::mem::take(&mut life.index);
        index.clear();
        index.reserve((size / INDEX_STEP) as usize + 1);
        *life = Life { header, usage: Usage::Active, first: None, index };
        self.progress[segment].end.store(BLOCKS, Ordering::Release);
        self.progress[segment].last.store(0, Ordering::Release);
        pool.register(segment, 0);
        self.changed();
        Some(Taken::Begin { segment, header })
    }

    /// The largest place for a block, where no segment is free.
    pub(super) fn room(&self, size: u64) -> u64 {
        let pool = self.pool();
        let lives = pool.lives.iter().zip(&self.progress);
        let idle = lives.filter(|(life, _)| life.usage == Usage::Idle);
        idle.map(|(_, progress)| size - progress.end.load(Ordering::Acquire)).max().unwrap_or(0)
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

    /// A writer has filled its segment. The header that says so.
    pub(super) fn retire(&self, segment: usize, end: u64) -> SegmentHeader {
        let mut pool = self.pool();
        let life = &mut pool.lives[segment];
        life.usage = Usage::Full;
        life.header.end = end as u32;
        life.header.last = self.progress[segment].last.load(Ordering::Acquire);
        let header = life.header;
        pool.register(segment, header.last);
        drop(pool);
        self.changed();
        header
    }

    /// Frees the segments of which nothing above this Lsn is left.
    pub(super) fn free_up_to(&self, released: u64) {
        let pool = &mut *self.pool();
        for (segment, life) in pool.lives.iter_mut().enumerate() {
            let last = self.progress[segment].last.load(Ordering::Acquire);
            if matches!(life.usage, Usage::Full) && last <= released {
                life.usage = Usage::Free;
                pool.catalog.forget(life.key());
                pool.free.push_back(segment);
            }
        }
        self.changed();
    }

    /// Voids what is above an Lsn: nobody is writing.
    pub(super) fn cut(&self, lsn: u64) {
        let pool = &mut *self.pool();
        for (segment, life) in pool.lives.iter_mut().enumerate() {
            let last = &self.progress[segment].last;
            let held = matches!(life.usage, Usage::Idle | Usage::Active | Usage::Full);
            if !held || last.load(Ordering::Acquire) <= lsn {
                continue;
            }
            life.header.limit = lsn;
            life.header.last = lsn;
            last.store(lsn, Ordering::Release);
            life.usage = Usage::Full;
            if life.first.is_none_or(|first| first > lsn) {
                life.usage = Usage::Free;
                pool.free.push_back(segment);
            }
        }
        // Rarely, and of any number of them.
        pool.catalog.clear();
        for (segment, progress) in self.progress.iter().enumerate() {
            pool.register(segment, progress.last.load(Ordering::Acquire));
        }
        self.changed();
    }
}

impl Pool {
    /// Tells the catalog what a segment is used for now; `last` is the last Lsn in it.
    fn register(&mut self, segment: usize, last: u64) {
        let life = &self.lives[segment];
        match life.usage {
            Usage::Free | Usage::Lost => self.catalog.forget(life.key()),
            Usage::Idle | Usage::Active => self.catalog.open(life.key(), segment),
            Usage::Full => self.catalog.fill(life.key(), segment, last),
        }
    }
}
