//! A region that counts its reads and lets something happen between two of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use daxmap::{Region, Result};

use crate::pass_on;

type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Watch {
    reads: AtomicU64,
    /// Before the read of this number, counted from 0, this happens.
    hook: Mutex<Option<(u64, Hook)>>,
}

/// Passes everything on. A handle: clones count together.
pub struct Watched<R> {
    region: Arc<R>,
    watch: Arc<Watch>,
}

impl<R> Clone for Watched<R> {
    fn clone(&self) -> Self {
        Self { region: Arc::clone(&self.region), watch: Arc::clone(&self.watch) }
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
        Self { region: Arc::new(region), watch: Arc::default() }
    }

    /// How many reads there were.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.watch.reads.load(Ordering::Relaxed)
    }

    /// Lets something happen, once, before one of the next reads: that after so many. What it reads
    /// itself counts too.
    pub fn before_read(&self, after: u64, hook: impl FnOnce() + Send + 'static) {
        let mut place = self.watch.hook.lock().unwrap_or_else(PoisonError::into_inner);
        *place = Some((self.reads() + after, Box::new(hook)));
    }

    /// Takes back what has not happened yet. True if there was something.
    #[must_use]
    pub fn forget(&self) -> bool {
        self.watch.hook.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }
}

impl<R: Region> Region for Watched<R> {
    pass_on!(region: sync_all len durability granularity backend is_emulated write write_flush fill_flush
        flush drain deep_flush load_u64 store_u64 compare_exchange_u64 grow close slices);

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let number = self.watch.reads.fetch_add(1, Ordering::Relaxed);
        let now = {
            let mut hook = self.watch.hook.lock().unwrap_or_else(PoisonError::into_inner);
            hook.take_if(|(at, _)| *at <= number)
        };
        if let Some((_, hook)) = now {
            hook();
        }
        self.region.read(offset, buf)
    }
}
