//! A region that counts its reads and its writes, and lets something happen between two of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use daxmap::{Region, Result};

use crate::pass_on;

type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Watch {
    count: AtomicU64,
    /// Before the access of this number, counted from 0, this happens.
    hook: Mutex<Option<(u64, Hook)>>,
}

impl Watch {
    fn set(&self, after: u64, hook: Hook) {
        let mut place = self.hook.lock().unwrap_or_else(PoisonError::into_inner);
        *place = Some((self.count.load(Ordering::Relaxed) + after, hook));
    }

    fn pass(&self) {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let now = {
            let mut hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner);
            hook.take_if(|(at, _)| *at <= number)
        };
        if let Some((_, hook)) = now {
            hook();
        }
    }

    fn forget(&self) -> bool {
        self.hook.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }
}

/// Passes everything on. A handle: clones count together.
pub struct Watched<R> {
    region: Arc<R>,
    read: Arc<Watch>,
    written: Arc<Watch>,
}

impl<R> Clone for Watched<R> {
    fn clone(&self) -> Self {
        let (read, written) = (Arc::clone(&self.read), Arc::clone(&self.written));
        Self { region: Arc::clone(&self.region), read, written }
    }
}

impl<R> std::fmt::Debug for Watched<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("reads", &self.reads()).finish_non_exhaustive()
    }
}

impl<R> Watched<R> {
    /// Watches a region.
    pub fn new(region: R) -> Self {
        Self { region: Arc::new(region), read: Arc::default(), written: Arc::default() }
    }

    /// How many reads there were.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.read.count.load(Ordering::Relaxed)
    }

    /// How many writes there were.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.written.count.load(Ordering::Relaxed)
    }

    /// The same region, watched by itself.
    #[must_use]
    pub fn unwatched(&self) -> Self {
        let region = Arc::clone(&self.region);
        Self { region, read: Arc::default(), written: Arc::default() }
    }

    /// Lets something happen, once, before one of the next reads: that after so many. What it reads
    /// itself counts too.
    pub fn before_read(&self, after: u64, hook: impl FnOnce() + Send + 'static) {
        self.read.set(after, Box::new(hook));
    }

    /// The same before one of the next writes.
    pub fn before_write(&self, after: u64, hook: impl FnOnce() + Send + 'static) {
        self.written.set(after, Box::new(hook));
    }

    /// Takes back what has not happened yet. True if there was something.
    #[must_use]
    pub fn forget(&self) -> bool {
        self.read.forget() | self.written.forget()
    }
}

impl<R: Region> Region for Watched<R> {
    pass_on!(region: sync_all len durability granularity backend is_emulated flush drain deep_flush load_u64
        store_u64 compare_exchange_u64 grow close slices);

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.read.pass();
        self.region.read(offset, buf)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.written.pass();
        self.region.write(offset, data)
    }

    fn write_flush(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.written.pass();
        self.region.write_flush(offset, data)
    }

    fn fill_flush(&self, offset: u64, len: u64, byte: u8) -> Result<()> {
        self.written.pass();
        self.region.fill_flush(offset, len, byte)
    }
}
