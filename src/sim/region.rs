//! The simulated region: the contract of the trait over a model of caches and medium.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rustix::io::Errno;

use super::Mode;
use super::driver::Driver;
use super::history::History;
use super::image::{Fate, Image, Policy};
use super::model::Model;
use super::trace::{Kind, Step};
use crate::durability::{Backend, Durability, Granularity};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::region::Region;
use crate::region::bounds;

/// What the region is made to do wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The drain with this number, counted from 1 over all threads, fails with EIO, and what it
    /// should have covered no later drain covers.
    pub failing_drain: Option<u32>,
    /// A failed drain does not poison the region: a file behind bare calls of fdatasync(2).
    pub forgets_errors: bool,
    /// A growth is durable at the next drain and not at once: ftruncate(2) without fsync(2). Until
    /// then a crash may leave the old length.
    pub lazy_growth: bool,
}

thread_local! {
    /// Which thread of the model this thread is; 0 if that has not been asked yet.
    static THREAD: Cell<u16> = const { Cell::new(0) };
}

/// The first number that no simulated thread has.
const FIRST_FREE: u16 = 1 << 10;

/// The calling thread, as the model numbers it.
pub(super) fn this_thread() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(FIRST_FREE);
    THREAD.with(|thread| {
        if thread.get() == 0 {
            thread.set(NEXT.fetch_add(1, Ordering::Relaxed).max(FIRST_FREE));
        }
        thread.get()
    })
}

/// Makes the calling thread the simulated thread `index` until the guard is dropped.
pub(super) fn become_thread(index: usize) -> ThreadGuard {
    ThreadGuard(THREAD.with(|thread| thread.replace(index as u16 + 1)))
}

/// The index of a simulated thread, for people.
pub(super) fn thread_index(thread: u16) -> u16 {
    thread.saturating_sub(1)
}

pub(super) struct ThreadGuard(u16);

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        THREAD.with(|thread| thread.set(self.0));
    }
}

/// Once it has left `Open` it does not return; a cause stays what later calls report.
enum Latch {
    Open,
    Poisoned(Arc<Error>),
    Closed(Option<Arc<Error>>),
}

pub(super) struct State {
    pub(super) model: Model,
    /// Of a region that is a crash image: which.
    pub(super) image: Option<Image>,
    pub(super) len: u64,
    max_len: u64,
    /// The length that a crash may fall back to.
    pub(super) old_len: Option<u64>,
    latch: Latch,
    faults: Faults,
    drains: u32,
    /// Counts the stores, growths and drains: unchanged if the images of a crash are.
    version: u64,
    /// The version, and the count of notes, at the crash explored last.
    explored: Option<(u64, usize)>,
    pub(super) trace: Vec<Step>,
    traced: bool,
}

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

fn failed(operation: Operation, kind: ErrorKind) -> Error {
    Error::new(operation, kind).at(Path::new("simulated"))
}

impl State {
    #[inline]
    fn readable(&self, operation: Operation) -> Result<()> {
        match self.latch {
            Latch::Closed(_) => Err(failed(operation, ErrorKind::Closed)),
            Latch::Open | Latch::Poisoned(_) => Ok(()),
        }
    }

    #[inline]
    fn writable(&self, operation: Operation) -> Result<()> {
        match &self.latch {
            Latch::Open => Ok(()),
            Latch::Closed(None) => Err(failed(operation, ErrorKind::Closed)),
            Latch::Poisoned(cause) | Latch::Closed(Some(cause)) => {
                Err(failed(operation, ErrorKind::Poisoned(Arc::clone(cause))).unknown())
            }
        }
    }

    #[inline]
    fn range(&self, operation: Operation, offset: u64, len: u64) -> Result<(usize, usize)> {
        bounds::check(operation, offset, len, self.len).map_err(|e| e.at(Path::new("simulated")))
    }

    #[inline]
    fn word(&self, operation: Operation, offset: u64) -> Result<usize> {
        bounds::check_word(operation, offset, self.len).map_err(|e| e.at(Path::new("simulated")))
    }

    /// Decides what the lines of a range hold, if this is a crash image.
    #[inline]
    fn touch(&mut self, parent: Option<&SimRegion>, at: usize, len: usize) {
        let (Some(image), Some(parent)) = (&mut self.image, parent) else { return };
        if len == 0 {
            return;
        }
        for line in self.model.line_of(at)..=self.model.line_of(at + len - 1) {
            if !image.is_touched(line) && !image.take_prepared(line) {
                let range = self.model.line_range(line);
                let limit = image.len;
                resolve(image, parent, (line, 0), limit, &mut self.model.memory[range]);
            }
        }
    }

    /// Begins an operation that changes the model or its order.
    fn step(&mut self, kind: Kind, offset: u64, len: u64) {
        self.model.op += 1;
        if self.traced {
            self.trace.push(Step { thread: this_thread(), kind, failed: false, offset, len });
        }
    }

    fn load_word(&self, at: usize) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.model.memory[at..at + 8]);
        u64::from_ne_bytes(word)
    }

    fn flush(&mut self, offset: u64, len: u64) -> Result<()> {
        self.writable(Operation::Flush)?;
        let (at, count) = self.range(Operation::Flush, offset, len)?;
        self.step(Kind::Flush, offset, len);
        self.model.flush(this_thread(), at, count);
        Ok(())
    }

    fn drain(&mut self, operation: Operation) -> Result<()> {
        self.writable(operation)?;
        self.step(Kind::Drain, 0, 0);
        self.drains += 1;
        if self.faults.failing_drain == Some(self.drains) {
            if let Some(step) = self.trace.last_mut() {
                step.failed = true;
            }
            self.model.lose_captures(this_thread());
            let cause = Error::os(operation, "fdatasync", Errno::IO).at(Path::new("simulated"));
            let cause = cause.unknown();
            if !self.faults.forgets_errors {
                self.latch = Latch::Poisoned(Arc::new(cause.clone()));
            }
            return Err(cause);
        }
        self.model.drain(this_thread());
        self.old_len = None;
        self.version += 1;
        Ok(())
    }

    /// Of a crash image: forgets what the last run did.
    fn rewind(&mut self) {
        self.latch = Latch::Open;
        self.old_len = None;
        self.trace.clear();
        self.drains = 0;
        self.version = 0;
        self.explored = None;
        if let Some(image) = &self.image {
            self.len = image.len;
        }
    }
}

/// Fills in the content of a line of a crash image from the region that crashed; bytes from
/// `limit` on are zero. If the crashed region is an image itself and has not touched the line, its
/// own crash, `hops` crashes back, is what left the line open.
fn resolve(
    image: &mut Image,
    crashed: &SimRegion,
    (line, hops): (usize, u8),
    limit: u64,
    memory: &mut [u8],
) {
    let state = crashed.lock();
    if let (Some(before), Some(parent)) = (&state.image, &crashed.0.parent)
        && !before.is_touched(line)
    {
        let limit = limit.min(before.len);
        drop(state);
        resolve(image, parent, (line, hops + 1), limit, memory);
        return;
    }
    memory.copy_from_slice(state.model.durable(line));
    let start = (line as u64) << state.model.mode.line_shift();
    let room = limit.saturating_sub(start).min(memory.len() as u64);
    memory[room as usize..].fill(0);
    image.decide(state.model.mode, (line, hops), room, memory, state.model.pending(line));
}

impl SimRegion {
    /// A region of `len` bytes of zero, durable, that can grow to `max_len`. Both are at least 1:
    /// smaller numbers are raised to what is possible.
    #[must_use]
    pub fn new(mode: Mode, len: u64, max_len: u64) -> Self {
        Self::with_faults(mode, len, max_len, Faults::default())
    }

    /// The same, with something that it does wrong.
    #[must_use]
    pub fn with_faults(mode: Mode, len: u64, max_len: u64, faults: Faults) -> Self {
        Self::build(mode, len.max(1), max_len, faults, None)
    }

    /// A region for the images of crashes of this one.
    pub(super) fn child(&self) -> Self {
        let (mode, len, max_len) = {
            let state = self.lock();
            (state.model.mode, state.len, state.max_len)
        };
        Self::build(mode, len, max_len, Faults::default(), Some(self.clone()))
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
        }
        result
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

    /// Makes a drain fail, counted from the first after now.
    pub(super) fn fail_drain(&self, drain: Option<u32>) {
        let state = &mut *self.lock();
        state.faults.failing_drain = drain.map(|drain| drain + state.drains);
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
        self.lock().drain(Operation::Drain)
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
        self.crash_point();
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

    fn close(&self) -> Result<()> {
        self.turn();
        self.crash_point();
        let mut state = self.lock();
        let drained = state.drain(Operation::Close);
        let cause = match &state.latch {
            Latch::Poisoned(cause) | Latch::Closed(Some(cause)) => Some(Arc::clone(cause)),
            Latch::Open | Latch::Closed(None) => None,
        };
        state.latch = Latch::Closed(cause);
        drained
    }
}
