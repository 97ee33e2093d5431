//! Writers: what is staged becomes durable as one block.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::LINE;
use crate::primitives::primitive;
use crate::region::Region;

use super::Lsn;
use super::block::{Block, HEADER, check_body};
use super::core::Core;
use super::place::Active;
use super::staging::Staging;
use super::sync::lock_in_turn;
use super::watermark::{Bound, SharedBound};

/// Blocks of at least so many bytes are written from where their bytes are, past the caches, where
/// each writer has a segment of its own: 512 bytes take 130 instead of 140 ns, 4 KiB 229 instead of
/// 379 (`benches/log`, on an AMD processor).
pub(super) const STREAMED: u64 = 512;

/// The same where writers share one, or half of the room in a segment if that is less: not gathered
/// first, three writes instead of one.
pub(super) const DIRECT: u64 = 32 << 10;

/// How often a segment that came back may be another's again before a writer has waited enough.
const TURNS: u32 = 1 << 16;

/// What a writer has of its own.
#[derive(Debug)]
pub(super) struct State {
    bound: SharedBound,
    active: Option<Active>,
    staging: Staging,
    /// An earlier commit failed halfway: its Lsns are gone, and its place may not be written again.
    broken: Option<Arc<Error>>,
    /// A commit is being written; after a panic of the region's code it still is.
    writing: bool,
    /// It is one of the log's own.
    is_spare: bool,
}

impl State {
    pub(super) fn new<R: Region>(core: &Core<R>) -> Self {
        let bound = core.watermark.register();
        let staging = Staging::default();
        Self { bound, active: None, staging, broken: None, writing: false, is_spare: false }
    }

    /// A writer that the log keeps.
    pub(super) fn spare<R: Region>(core: &Core<R>) -> Self {
        Self { is_spare: true, ..Self::new(core) }
    }

    pub(super) fn has_segment(&self) -> bool {
        self.active.is_some()
    }

    /// Gives its segment up.
    pub(super) fn leave<R: Region>(mut self, core: &Core<R>) -> Result<()> {
        core.watermark.unregister(&self.bound);
        match self.active.take() {
            Some(active) if self.broken.is_some() || self.writing => {
                core.table.break_off(active.segment);
                Ok(())
            }
            Some(active) => core.leave(&active),
            None => Ok(()),
        }
    }

    /// The segment that it has.
    pub(super) fn segment(&self) -> Option<usize> {
        self.active.as_ref().map(|active| active.segment)
    }

    /// Its segment, of which it does not say what it has left there. It is not used any more.
    pub(super) fn give_up<R: Region>(self, core: &Core<R>) -> Option<usize> {
        core.watermark.unregister(&self.bound);
        let segment = self.active?.segment;
        if self.broken.is_some() || self.writing {
            core.table.break_off(segment);
            return None;
        }
        Some(segment)
    }

    /// Appends one record.
    #[inline]
    pub(super) fn append<R: Region>(&mut self, core: &Core<R>, payload: &[u8]) -> Result<Lsn> {
        if payload.len() as u64 >= core.direct && self.staging.count == 0 {
            let most = room(core);
            if payload.len() as u64 > most {
                let kind = ErrorKind::TooLarge { max: most };
                return Err(Error::new(Operation::Append, kind));
            }
            let (first, len) = (payload.len() as u32, payload.len() as u32);
            let block = Block { lsn: 0, count: 1, len, durable: 0, first, body: 0 };
            return self.write(core, block, Some(payload)).map(Lsn::new);
        }
        let mark = self.staging.mark();
        let alone = self.staging.count == 0;
        self.staging.push(payload, room(core))?;
        // The check value of the one record can be had while the copy of it is on its way.
        let committed = self.commit_of(core, alone.then_some(payload));
        Ok(Lsn::new(committed.inspect_err(|_| self.staging.back_to(mark))?.end.get() - 1))
    }

    /// Commits what is staged.
    #[inline]
    pub(super) fn commit<R: Region>(&mut self, core: &Core<R>) -> Result<Range<Lsn>> {
        self.commit_of(core, None)
    }

    /// Commits what is staged; the same body may be somewhere else, too.
    #[inline]
    fn commit_of<R: Region>(&mut self, core: &Core<R>, body: Option<&[u8]>) -> Result<Range<Lsn>> {
        let (count, first) = (self.staging.count, self.staging.first);
        if count == 0 {
            let next = Lsn::new(core.watermark.next());
            return Ok(next..next);
        }
        let len = self.staging.len() as u32;
        let block = Block { lsn: 0, count, len, durable: 0, first, body: 0 };
        let lsn = self.write(core, block, body)?;
        self.staging.clear();
        Ok(Lsn::new(lsn)..Lsn::new(lsn + u64::from(count)))
    }

    /// Writes a block, durable on return: the staged one, or if nothing is staged, one of this body.
    /// Its first Lsn.
    #[inline]
    fn write<R: Region>(
        &mut self,
        core: &Core<R>,
        block: Block,
        body: Option<&[u8]>,
    ) -> Result<u64> {
        if let Some(cause) = primitive!("log.writer.latch", &self.broken, &None::<Arc<Error>>) {
            let kind = ErrorKind::Failed(Arc::clone(cause));
            return Err(Error::new(Operation::Append, kind).unknown());
        }
        core.check_process(Operation::Append)?;
        if std::mem::replace(&mut self.writing, true) {
            let why = ErrorKind::Damaged("an append by this writer did not return");
            return Err(Error::new(Operation::Append, why).unknown());
        }
        let written = if core.is_shared() {
            self.write_shared(core, block, body)
        } else {
            self.write_own(core, block, body)
        };
        self.writing = false;
        written
    }

    /// Sees to it that a block of `need` bytes has a place in the own segment. Where none is free but
    /// calls of `Log::append` have some, waits for one of these to end.
    #[inline]
    fn claim<R: Region>(&mut self, core: &Core<R>, need: u64) -> Result<()> {
        match &self.active {
            Some(active) if need <= core.layout.segment - active.at => Ok(()),
            _ => self.claim_another(core, need),
        }
    }

    #[cold]
    #[inline(never)]
    fn claim_another<R: Region>(&mut self, core: &Core<R>, need: u64) -> Result<()> {
        let own = usize::from(self.is_spare);
        let mut turns = TURNS;
        loop {
            let seen = core.spare_returns();
            match core.ensure(&mut self.active, need) {
                Err(error) if is_no_room(&error) && turns > 0 && core.wait_for_spare(own, seen) => {
                    turns -= 1;
                }
                done => return done,
            }
        }
    }

    /// Into a segment that this writer alone writes to.
    #[inline]
    fn write_own<R: Region>(
        &mut self,
        core: &Core<R>,
        mut block: Block,
        body: Option<&[u8]>,
    ) -> Result<u64> {
        let need = block.bytes();
        self.claim(core, need)?;
        let Some(active) = &mut self.active else { unreachable!("ensure has put one there") };
        let at = active.base + active.at;
        let progress = &core.table.progress[active.segment];
        // Not behind a mark that becomes durable with this block.
        block.durable = progress.end.load(Ordering::Relaxed) as u32;
        let own = body.unwrap_or(self.staging.body());
        // Before the draw, which waits for earlier stores: this can be done meanwhile.
        block.body = check_body(&active.key, at, own);
        block.lsn = core.watermark.draw(&self.bound, u64::from(block.count));
        let unfinished = Unfinished { core, bound: &self.bound, lsn: block.lsn };
        let header = block.encode(&active.key, at);
        let written = if need >= STREAMED {
            put(&core.region, at, &header, body, &mut self.staging)
                .and_then(|()| primitive!("log.commit.drain_streamed", core.region.drain(), Ok(())))
        } else {
            let block = self.staging.finish(&header);
            primitive!(
                "log.commit.persist",
                core.region.write_persist(at, block),
                core.region.write_flush(at, block)
            )
        };
        if let Err(error) = written {
            let error = unfinished.fail(error);
            return Err(self.broken_by(error));
        }
        active.index(core, block.lsn);
        active.at += need;
        progress.last.store(block.last(), Ordering::Relaxed);
        progress.end.store(active.at, Ordering::Release);
        unfinished.done();
        Ok(block.lsn)
    }

    /// Into the segment of all writers: written in turn, durable together.
    fn write_shared<R: Region>(
        &mut self,
        core: &Core<R>,
        mut block: Block,
        body: Option<&[u8]>,
    ) -> Result<u64> {
        let need = block.bytes();
        // Dropped after the lock, as it calls those who wait.
        let unfinished;
        let mut guard = lock_in_turn(&core.region, &core.shared);
        let shared = &mut *guard;
        shared.check()?;
        core.ensure(&mut shared.active, need)?;
        let Some(active) = &mut shared.active else { unreachable!("ensure has put one there") };
        let progress = &core.table.progress[active.segment];
        let durable = progress.end.load(Ordering::Acquire);
        let at = active.base + active.at;
        block.durable = durable as u32;
        block.body = check_body(&active.key, at, body.unwrap_or(self.staging.body()));
        block.lsn = core.watermark.draw(&self.bound, u64::from(block.count));
        unfinished = Unfinished { core, bound: &self.bound, lsn: block.lsn };
        progress.last.store(block.last(), Ordering::Release);
        let header = block.encode(&active.key, at);
        // Also where the region's code panics.
        shared.broken = true;
        if let Err(error) = put(&core.region, at, &header, body, &mut self.staging) {
            drop(guard);
            let error = unfinished.fail(error);
            return Err(self.broken_by(error));
        }
        shared.broken = false;
        active.wrote(core, &block, need);
        let (base, end) = (active.base, active.at);
        drop(guard);
        // The blocks before it, which are others', become durable with it or before.
        let others = || core.region.flush(base + durable, end - durable);
        let drained = primitive!("log.commit.flush_others", others(), Ok(()))
            .and_then(|()| primitive!("log.commit.drain_shared", core.region.drain(), Ok(())));
        if let Err(error) = drained {
            let is_durable = || progress.end.load(Ordering::Acquire) >= end;
            let failed = unfinished.fail_unless(error, is_durable);
            return failed.map_or(Ok(block.lsn), |error| Err(self.broken_by(error)));
        }
        progress.end.fetch_max(end, Ordering::AcqRel);
        unfinished.done();
        // What was submitted before lies before it. Whoever is told finds this commit, too.
        core.deferred.covered(block.lsn);
        Ok(block.lsn)
    }

    /// Some of a block may have been written.
    #[cold]
    fn broken_by(&mut self, error: Arc<Error>) -> Error {
        let own = Error::clone(&error);
        self.broken = Some(error);
        own
    }
}

/// A commit that has its Lsns and is not durable. If it is dropped, by a panic of the region's code, it has
/// failed.
pub(super) struct Unfinished<'a, R: Region> {
    pub(super) core: &'a Core<R>,
    pub(super) bound: &'a Bound,
    pub(super) lsn: u64,
}

impl<R: Region> Unfinished<'_, R> {
    /// It is durable, and readers can find it.
    #[inline]
    fn done(self) {
        self.bound.done();
        std::mem::forget(self);
    }

    /// It has failed, for good.
    #[cold]
    fn fail(self, error: Error) -> Arc<Error> {
        let cause = Arc::new(error.unknown());
        self.tell(Arc::clone(&cause));
        std::mem::forget(self);
        cause
    }

    /// The same, unless another sync has made it durable.
    #[cold]
    fn fail_unless(self, error: Error, is_durable: impl FnOnce() -> bool) -> Option<Arc<Error>> {
        let cause = Arc::new(error.unknown());
        let at = (self.bound, self.lsn);
        if self.core.deferred.fail_unless(at, Arc::clone(&cause), is_durable) {
            std::mem::forget(self);
            return Some(cause);
        }
        self.done();
        None
    }

    #[cold]
    fn tell(&self, cause: Arc<Error>) {
        // Not below its Lsn: what others have there is their affair. First, so that nobody passes it.
        self.bound.hold(self.lsn);
        self.core.deferred.fail(self.lsn, cause);
    }
}

impl<R: Region> Drop for Unfinished<'_, R> {
    #[cold]
    fn drop(&mut self) {
        let what = ErrorKind::Damaged("an append did not return");
        self.tell(Arc::new(Error::new(Operation::Append, what).unknown()));
    }
}

/// There is no room, or not for so many writers.
fn is_no_room(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Full { .. } | ErrorKind::TooManyWriters { .. })
}

/// Bytes that a body may have.
pub(super) fn room<R: Region>(core: &Core<R>) -> u64 {
    core.layout.room() - HEADER as u64
}

/// Writes a block, durable after the next drain: the staged one, or if nothing is staged, one of this
/// body from where its bytes are.
pub(super) fn put<R: Region>(
    region: &R,
    at: u64,
    header: &[u8; HEADER],
    body: Option<&[u8]>,
    staging: &mut Staging,
) -> Result<()> {
    let Some(body) = body.filter(|_| staging.count == 0) else {
        return region.write_stream(at, staging.finish(header));
    };
    // The first line with the header, the last one with zeros behind the body, and the lines
    // between; the one that was filled just now at the end.
    let (begin, rest) = body.split_at(body.len().min(LINE as usize - HEADER));
    let (whole, end) = rest.split_at(rest.len() / LINE as usize * LINE as usize);
    region.write_stream(at + LINE, whole)?;
    let mut line = [0; LINE as usize];
    if !end.is_empty() {
        line[..end.len()].copy_from_slice(end);
        region.write_stream(at + LINE + whole.len() as u64, &line)?;
        line = [0; LINE as usize];
    }
    line[..HEADER].copy_from_slice(header);
    line[HEADER..][..begin.len()].copy_from_slice(begin);
    region.write_stream(at, &line)
}

/// Appends records: stages them, and commits what is staged as one.
///
/// A writer of a byte- or line-granular region has a segment of its own, so threads with a writer
/// each do not wait for each other. A commit is one write and one drain, and it is there whole or
/// not at all after a crash. Dropping a writer drops what is staged, also when a panic unwinds past it.
/// A writer that outlives the panic, because it was borrowed and the panic was caught, still has what
/// was staged: [`discard`](Self::discard) it before the next commit.
#[derive(Debug)]
pub struct Writer<'a, R: Region> {
    core: &'a Core<R>,
    /// There until the writer is dropped.
    state: Option<State>,
}

impl<'a, R: Region> Writer<'a, R> {
    pub(super) fn new(core: &'a Core<R>) -> Self {
        Self { core, state: Some(State::new(core)) }
    }

    #[inline]
    fn state(&mut self) -> (&'a Core<R>, &mut State) {
        let core = self.core;
        (core, self.state.get_or_insert_with(|| State::new(core)))
    }

    /// Appends a record, durable on return, together with what is staged.
    ///
    /// # Errors
    ///
    /// - `Full` if no segment has room and each holds a record that is not released. Nothing was
    ///   written, no Lsn was used, and what was staged before stays staged. Release records, or grow
    ///   the log, and append again.
    /// - `TooManyWriters` if other writers have every segment. The same holds; drop one of them.
    /// - `TooLarge` if the record, with what is staged, is larger than
    ///   [`commit_bytes_max`](super::Log::commit_bytes_max).
    /// - An error of the region's: whether the record is durable is unknown, and this writer refuses
    ///   from then on.
    #[inline]
    pub fn append(&mut self, payload: &[u8]) -> Result<Lsn> {
        let (core, state) = self.state();
        state.append(core, payload)
    }

    /// Adds a record to the next commit. Nothing is written yet.
    ///
    /// # Errors
    ///
    /// `TooLarge` if the commit would be larger than a segment; what was staged before stays.
    #[inline]
    pub fn stage(&mut self, payload: &[u8]) -> Result<()> {
        let (core, state) = self.state();
        state.staging.push(payload, room(core))
    }

    /// Adds a record of `len` zeros to the next commit, to be written in place.
    ///
    /// # Errors
    ///
    /// As [`stage`](Self::stage).
    pub fn reserve(&mut self, len: usize) -> Result<&mut [u8]> {
        let (core, state) = self.state();
        state.staging.reserve(len, room(core))
    }

    /// How many records are staged.
    #[must_use]
    pub fn staged(&self) -> u32 {
        self.state.as_ref().map_or(0, |state| state.staging.count)
    }

    /// Forgets what is staged.
    pub fn discard(&mut self) {
        self.state().1.staging.clear();
    }

    /// Makes what is staged durable, all or nothing, with one drain. Its Lsns, which follow one
    /// another; an empty range if nothing is staged.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    #[inline]
    pub fn commit(&mut self) -> Result<Range<Lsn>> {
        let (core, state) = self.state();
        state.commit(core)
    }

    /// Appends records as one commit, all or nothing, with what is staged before them.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append); none of them is staged then, and none after a panic of the
    /// iterator's. What was staged before stays staged.
    pub fn append_many<P: AsRef<[u8]>>(
        &mut self,
        payloads: impl IntoIterator<Item = P>,
    ) -> Result<Range<Lsn>> {
        let (core, state) = self.state();
        state.append_many(core, payloads)
    }
}

impl State {
    pub(super) fn append_many<R: Region, P: AsRef<[u8]>>(
        &mut self,
        core: &Core<R>,
        payloads: impl IntoIterator<Item = P>,
    ) -> Result<Range<Lsn>> {
        let mut tentative = self.staging.tentative();
        tentative.push_all(payloads, room(core))?;
        let mark = tentative.keep();
        self.commit(core).inspect_err(|_| self.staging.back_to(mark))
    }

    /// Commits what is staged elsewhere; nothing is staged here.
    pub(super) fn commit_staged<R: Region>(
        &mut self,
        core: &Core<R>,
        staging: &mut Staging,
    ) -> Result<Range<Lsn>> {
        std::mem::swap(&mut self.staging, staging);
        let committed = self.commit(core);
        std::mem::swap(&mut self.staging, staging);
        committed
    }
}

impl<R: Region> Drop for Writer<'_, R> {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            // Nobody is there to be told of an error. The next opening notes the end.
            let _ = state.leave(self.core);
            self.core.room_came();
        }
    }
}
