//! The simulated region: the contract of the trait over a model of caches and medium.

use std::io::IoSlice;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::Mode;
use super::driver::Driver;
use super::history::History;
use super::image::{Fate, Image, Policy};
use super::model::Model;
use super::state::{Faults, Latch, State, Whose, failed};
use super::thread::this_thread;
use super::trace::Kind;
use daxmap::Region;
use daxmap::model::bounds;
use daxmap::probe::Shutdowns;
use daxmap::{Backend, Durability, Granularity};
use daxmap::{ErrorKind, Operation, Result};

pub(super) struct Core {
    state: Mutex<State>,
    /// The region that this one is a crash image of.
    parent: Option<SimRegion>,
    /// Who explores crashes of this region, and at which depth.
    driver: OnceLock<(Weak<Driver>, usize)>,
}

/// A region that forgets, when a simulated crash comes, what was not made durable.
///
/// A handle: clones are the same region. Threads of the process are threads of the model.
#[derive(Clone)]
pub struct SimRegion(Arc<Core>);

impl std::fmt::Debug for SimRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        f.debug_struct("SimRegion")
            .field("mode", &state.model.mode)
            .field("len", &state.len)
            .finish_non_exhaustive()
    }
}

impl SimRegion {
    /// A region of `len` bytes of zero, durable, that can grow to `max_len`, or to 1 or `len` if that
    /// is more.
    #[must_use]
    pub fn new(mode: Mode, len: u64, max_len: u64) -> Self {
        Self::with_faults(mode, len, max_len, Faults::default())
    }

    /// The same, with something that it does wrong.
    #[must_use]
    pub fn with_faults(mode: Mode, len: u64, max_len: u64, faults: Faults) -> Self {
        Self::build(mode, len, max_len.max(1), faults, None)
    }

    /// A region for the images of crashes of this one.
    pub(super) fn child(&self) -> Self {
        let (mode, len, max_len, shutdowns) = {
            let state = self.lock();
            (state.model.mode, state.len, state.max_len, state.shutdowns)
        };
        let child = Self::build(mode, len, max_len, Faults::default(), Some(self.clone()));
        child.set_shutdowns(shutdowns);
        child
    }

    fn build(mode: Mode, len: u64, max_len: u64, faults: Faults, parent: Option<Self>) -> Self {
        let max_len = max_len.max(len);
        let mut model = Model::new(mode, max_len);
        model.tracks = parent.is_some();
        let image = parent.is_some().then(|| Image::new(model.lines()));
        let state = State {
            model,
            image,
            len,
            max_len,
            old_len: None,
            latch: Latch::Open,
            faults,
            shutdowns: None,
            drains: 0,
            version: 0,
            explored: None,
            trace: Vec::new(),
            traced: false,
        };
        Self(Arc::new(Core { state: Mutex::new(state), parent, driver: OnceLock::new() }))
    }

    /// The mode of the region.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.lock().model.mode
    }

    /// What a crash at this moment could leave, as a region of its own that takes no part in
    /// this one: the image that `seed` picks. The same seed picks the same image.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let child = self.child();
        let (len, old_len) = {
            let state = self.lock();
            (state.len, state.old_len)
        };
        let short = old_len.filter(|_| seed & 1 == 1);
        child.begin(short.unwrap_or(len), Policy::Sample(super::random::mix(seed)));
        let result = Self::new(self.mode(), len, child.lock().max_len);
        {
            let mut bytes = child.lock();
            let all = bytes.len as usize;
            bytes.touch(child.0.parent.as_ref(), 0, all);
            let mut state = result.lock();
            state.model.memory.copy_from_slice(&bytes.model.memory);
            state.len = bytes.len;
            state.shutdowns = bytes.shutdowns;
        }
        result
    }

    /// Sets what [`Region::shutdowns`] gives: none in a new region. A crash image has that of its
    /// region.
    pub fn set_shutdowns(&self, shutdowns: Option<Shutdowns>) {
        self.lock().shutdowns = shutdowns;
    }

    /// Makes everything durable that was stored so far, whoever stored it.
    pub fn settle(&self) {
        let mut state = self.lock();
        state.model.settle_all();
        state.old_len = None;
    }

    /// Lets `driver` explore crashes of this region.
    pub(super) fn attach(&self, driver: &Arc<Driver>, depth: usize) {
        let _ = self.0.driver.set((Arc::downgrade(driver), depth));
        let state = &mut *self.lock();
        state.rewind();
        state.model.op = 0;
        state.traced = true;
    }

    /// Passes a note of the workload on to who explores its crashes.
    pub(super) fn note(&self, note: impl FnOnce(&mut History)) {
        if let Some(driver) = self.0.driver.get().and_then(|(driver, _)| driver.upgrade()) {
            driver.note(note);
        }
    }

    /// The region that this one is a crash image of.
    pub(super) fn parent(&self) -> Option<&Self> {
        self.0.parent.as_ref()
    }

    /// Makes a drain fail, counted from the first since [`attach`](Self::attach).
    pub(super) fn fail_drain(&self, drain: Option<u32>) {
        self.lock().faults.failing_drain = drain;
    }

    /// How many drains were called.
    pub(super) fn drains(&self) -> u32 {
        self.lock().drains
    }

    /// The lengths that a crash now may leave, if it can leave anything that the crash explored
    /// last could not. `notes` counts what the workload has noted. Up to the failing drain, a run
    /// is the run without it.
    pub(super) fn is_news(
        &self,
        depth: usize,
        notes: usize,
        failing_drain: Option<u32>,
    ) -> Option<(u64, Option<u64>)> {
        let state = &mut *self.lock();
        let now = (state.version, notes);
        let repeats = match &state.image {
            Some(image) => state.version == 0 || image.is_repeating(),
            None => failing_drain.is_some_and(|drain| depth == 0 && state.drains < drain),
        };
        if repeats || state.explored == Some(now) {
            return None;
        }
        state.explored = Some(now);
        Some((state.len, state.old_len))
    }

    /// The lines that a crash now leaves open, some perhaps twice, and the number of operations
    /// so far.
    pub(super) fn open_lines(&self) -> (Vec<u32>, u32) {
        let state = self.lock();
        let (mut lines, mut ops) = (state.model.dirty().to_vec(), state.model.op);
        drop(state);
        if let Some(parent) = &self.0.parent {
            let (before, ops_before) = parent.open_lines();
            lines.extend(before);
            ops = ops.max(ops_before);
        }
        (lines, ops)
    }

    /// Of a crash image: the lines of which something was lost, with how far each chain got.
    pub(super) fn lost_lines(&self) -> Vec<(u32, Vec<u32>)> {
        self.lock().image.as_ref().map(Image::lost).unwrap_or_default()
    }

    /// Of a crash image: its length when recovery began.
    pub(super) fn image_len(&self) -> u64 {
        let state = self.lock();
        state.image.as_ref().map_or(state.len, |image| image.len)
    }

    /// Of a crash image: what became of each store that was looked at.
    pub(super) fn fates(&self) -> Vec<Fate> {
        self.lock().image.as_ref().map(Image::fates).unwrap_or_default()
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of a crash image: starts on the images of another crash.
    pub(super) fn begin(&self, len: u64, policy: Policy) {
        let state = &mut *self.lock();
        if let Some(image) = &mut state.image {
            image.begin(len, policy);
        }
        state.model.forget();
        state.rewind();
    }

    /// Of a crash image: goes on to the next; false if there is none.
    pub(super) fn advance(&self) -> bool {
        let state = &mut *self.lock();
        let more = state.image.as_mut().is_some_and(|image| image.advance(&mut state.model));
        state.rewind();
        more
    }

    /// Of a crash image: goes on to the image that the policy picks.
    pub(super) fn restart(&self, policy: Policy) {
        let state = &mut *self.lock();
        if let Some(image) = &mut state.image {
            image.restart(&mut state.model, policy);
        }
        state.rewind();
    }

    /// A simulated thread may be made to wait here for others.
    #[inline]
    fn turn(&self) {
        if let Some((driver, 0)) = self.0.driver.get()
            && let Some(driver) = driver.upgrade()
        {
            driver.turn();
        }
    }

    /// A crash may come here.
    #[inline]
    pub(super) fn crash_point(&self) {
        if let Some((driver, depth)) = self.0.driver.get()
            && (*depth == 0 || self.lock().version > 0)
            && let Some(driver) = driver.upgrade()
        {
            driver.crash_point(*depth, self);
        }
    }

    /// Stores bytes; where every store is durable at once, a crash may come after each piece.
    fn store(&self, offset: u64, data: &[u8], streamed: bool) -> Result<()> {
        self.turn();
        let kind = if streamed { Kind::WriteFlush } else { Kind::Write };
        let mut done = 0;
        let mut state = self.lock();
        state.writable(Operation::Write)?;
        let (at, len) = state.range(Operation::Write, offset, data.len() as u64)?;
        if len == 0 {
            return Ok(());
        }
        state.touch(self.0.parent.as_ref(), at, len);
        state.step(kind, offset, len as u64);
        let bypasses = streamed && state.model.mode != Mode::PageCache;
        while state.model.mode == Mode::Eadr && !bypasses && done < len {
            let count = (8 - (at + done) % 8).min(len - done);
            let count = if count < 8 { 1 } else { 8 };
            state.model.store(this_thread(), at + done, &data[done..done + count], false);
            state.version += 1;
            done += count;
            if done < len {
                drop(state);
                self.crash_point();
                state = self.lock();
            }
        }
        if done < len {
            state.model.store(this_thread(), at, data, bypasses);
            state.version += 1;
        }
        if bypasses {
            state.model.await_drain(this_thread(), at, len);
        } else if streamed {
            state.model.flush_with(this_thread(), at, len);
        }
        drop(state);
        self.crash_point();
        Ok(())
    }
}

impl Region for SimRegion {
    fn len(&self) -> u64 {
        self.lock().len
    }

    /// What the model promises against a simulated crash: `PowerFail` or, in
    /// [`Mode::PageCache`], `Fsync`.
    fn durability(&self) -> Durability {
        match self.mode() {
            Mode::PageCache => Durability::Fsync,
            Mode::Adr | Mode::Eadr | Mode::TornWords => Durability::PowerFail,
        }
    }

    fn granularity(&self) -> Granularity {
        match self.mode() {
            Mode::PageCache => Granularity::Page,
            Mode::Eadr => Granularity::Byte,
            Mode::Adr | Mode::TornWords => Granularity::CacheLine,
        }
    }

    /// The backend that the mode imitates.
    fn backend(&self) -> Backend {
        match self.mode() {
            Mode::PageCache => Backend::PageCache,
            Mode::Adr | Mode::Eadr | Mode::TornWords => Backend::FsDax,
        }
    }

    fn is_emulated(&self) -> bool {
        true
    }

    fn shutdowns(&self) -> Option<Shutdowns> {
        self.lock().shutdowns
    }

    #[inline]
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.turn();
        let mut state = self.lock();
        state.readable(Operation::Read)?;
        let (at, len) = state.range(Operation::Read, offset, buf.len() as u64)?;
        state.touch(self.0.parent.as_ref(), at, len);
        buf.copy_from_slice(&state.model.memory[at..at + len]);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.store(offset, data, false)
    }

    /// As one write of all of them.
    fn write_vectored(&self, offset: u64, parts: &[IoSlice<'_>]) -> Result<()> {
        let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.write(offset, &all)
    }

    /// Nothing makes more than a word whole here.
    fn write_atomic(&self, offset: u64, page: &[u8]) -> Result<()> {
        self.lock().writable(Operation::Write)?;
        let refused = bounds::not_whole(offset, page.len() as u64, self.len());
        refused.map_err(|error| error.at(Path::new("simulated")))
    }

    /// May go past the cache, as the library's own backends do for some lengths: modelled as the
    /// weakest of what they do. The bytes may reach the medium in any subset of 8-byte pieces
    /// until the drain of this thread, and older stores to the same lines are not flushed with
    /// them. In [`Mode::PageCache`] it is a `write` and a `flush`.
    fn write_flush(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.store(offset, data, true)
    }

    /// As [`write_flush`](Self::write_flush).
    fn fill_flush(&self, offset: u64, len: u64, byte: u8) -> Result<()> {
        {
            let state = self.lock();
            state.writable(Operation::Write)?;
            state.range(Operation::Write, offset, len)?;
        }
        self.store(offset, &vec![byte; len as usize], true)
    }

    fn flush(&self, offset: u64, len: u64) -> Result<()> {
        self.turn();
        self.crash_point();
        self.lock().flush(offset, len)
    }

    fn drain(&self) -> Result<()> {
        self.turn();
        self.crash_point();
        self.lock().drain(Operation::Drain, Whose::Own)
    }

    fn sync_all(&self) -> Result<()> {
        self.turn();
        self.crash_point();
        self.lock().drain(Operation::Drain, Whose::All)
    }

    /// As [`persist`](Self::persist): the model knows no deeper medium.
    fn deep_flush(&self, offset: u64, len: u64) -> Result<()> {
        self.persist(offset, len)
    }

    fn load_u64(&self, offset: u64) -> Result<u64> {
        self.turn();
        let mut state = self.lock();
        state.readable(Operation::Load)?;
        let at = state.word(Operation::Load, offset)?;
        state.touch(self.0.parent.as_ref(), at, 8);
        Ok(state.load_word(at))
    }

    fn store_u64(&self, offset: u64, value: u64) -> Result<()> {
        self.turn();
        {
            let mut state = self.lock();
            state.writable(Operation::Store)?;
            let at = state.word(Operation::Store, offset)?;
            state.touch(self.0.parent.as_ref(), at, 8);
            state.step(Kind::Store, offset, 8);
            state.model.store(this_thread(), at, &value.to_ne_bytes(), false);
            state.version += 1;
        }
        self.crash_point();
        Ok(())
    }

    /// Not a fence for write-backs, although x86 would make it one: the contract says nothing of
    /// it, and other processors do not.
    fn compare_exchange_u64(
        &self,
        offset: u64,
        current: u64,
        new: u64,
    ) -> Result<std::result::Result<u64, u64>> {
        self.turn();
        {
            let mut state = self.lock();
            state.writable(Operation::CompareExchange)?;
            let at = state.word(Operation::CompareExchange, offset)?;
            state.touch(self.0.parent.as_ref(), at, 8);
            let found = state.load_word(at);
            if found != current {
                return Ok(Err(found));
            }
            state.step(Kind::Exchange, offset, 8);
            state.model.store(this_thread(), at, &new.to_ne_bytes(), false);
            state.version += 1;
        }
        self.crash_point();
        Ok(Ok(current))
    }

    /// `Unsupported` for any byte: a load through a reference would not be seen, and which bytes
    /// recovery looks at decides which images there are.
    #[allow(unsafe_code)]
    unsafe fn slice(&self, offset: u64, len: u64) -> Result<&[u8]> {
        let state = self.lock();
        state.readable(Operation::View)?;
        if state.range(Operation::View, offset, len)?.1 == 0 {
            return Ok(&[]);
        }
        let why = "a simulated region sees only the accesses that go through its methods";
        Err(failed(Operation::View, ErrorKind::Unsupported(why)).over(offset, len))
    }

    /// `Unsupported` for any byte: a store through a reference would not be modelled.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    unsafe fn slice_mut(&self, offset: u64, len: u64) -> Result<&mut [u8]> {
        let state = self.lock();
        state.writable(Operation::View)?;
        if state.range(Operation::View, offset, len)?.1 == 0 {
            return Ok(&mut []);
        }
        let why = "a simulated region sees only the accesses that go through its methods";
        Err(failed(Operation::View, ErrorKind::Unsupported(why)).over(offset, len))
    }

    /// A crash inside leaves the old length or the new one, and zeros between them.
    fn grow(&self, new_len: u64) -> Result<()> {
        self.turn();
        {
            let mut state = self.lock();
            state.writable(Operation::Grow)?;
            if new_len <= state.len {
                return Ok(());
            }
            if new_len > state.max_len {
                let kind = ErrorKind::TooLarge { max: state.max_len };
                return Err(failed(Operation::Grow, kind));
            }
            let len = state.len;
            state.step(Kind::Grow, len, new_len - len);
            state.old_len.get_or_insert(len);
            state.len = new_len;
            state.version += 1;
        }
        self.crash_point();
        let mut state = self.lock();
        if !state.faults.lazy_growth {
            state.old_len = None;
        }
        Ok(())
    }

    /// A crash inside leaves the old length, with what is there, or the new one.
    fn shrink(&self, new_len: u64) -> Result<()> {
        self.turn();
        let old_len = {
            let mut state = self.lock();
            state.writable(Operation::Shrink)?;
            let old_len = state.len;
            if new_len >= old_len {
                return Ok(());
            }
            state.step(Kind::Shrink, new_len, old_len - new_len);
            state.old_len = Some(state.old_len.map_or(old_len, |older| older.max(old_len)));
            state.len = new_len;
            state.version += 1;
            old_len
        };
        self.crash_point();
        let mut state = self.lock();
        let (from, to) = (new_len as usize, old_len as usize);
        state.touch(self.0.parent.as_ref(), from, to - from);
        state.model.cut(from, to);
        state.old_len = None;
        state.version += 1;
        Ok(())
    }

    fn close(&self) -> Result<()> {
        self.turn();
        self.crash_point();
        let mut state = self.lock();
        let drained = state.drain(Operation::Close, Whose::Own);
        let cause = match &state.latch {
            Latch::Failed(cause) | Latch::Closed(Some(cause)) => Some(Arc::clone(cause)),
            Latch::Open | Latch::Closed(None) => None,
        };
        state.latch = Latch::Closed(cause);
        drained
    }
}
