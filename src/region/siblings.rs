//! What the regions of one file in this process share: the news that a sync failed, and, on the
//! page cache, the writes that the file does not have yet.
//!
//! A failed sync is reported once to each open file description and never again
//! (Documentation/filesystems/vfs.rst, "Handling errors during writeback"), so every region of
//! the file has to hear of it. Files are told apart by device and inode number, which stay taken
//! for as long as the file is open.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crossbeam::utils::CachePadded;
use rustix::fs;

use super::gather::Gather;
use super::group::Group;
use super::latch::Latch;
use crate::error::{Error, Operation, Result};

/// A file that this process has open as regions.
#[derive(Default)]
pub(super) struct Shared {
    /// Odd while bytes of the file or of the gathered run are changing. On a line of its own:
    /// every read looks at it.
    pub(super) sequence: CachePadded<AtomicU64>,
    /// The gathered run's range, for readers, within the sequence.
    pub(super) gathered_start: AtomicU64,
    pub(super) gathered_end: AtomicU64,
    /// Writes finished so far.
    pub(super) written: AtomicU64,
    pub(super) gather: Mutex<Gather>,
    pub(super) group: Group,
    latches: Mutex<Vec<Weak<Latch>>>,
}

type Key = (u64, u64);

static OPEN: Mutex<Option<HashMap<Key, Weak<Shared>>>> = Mutex::new(None);

/// A mutex whose data stays consistent when a holder panics.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One region's place among the regions of its file.
pub(super) struct Membership {
    pub(super) shared: Arc<Shared>,
    pub(super) latch: Arc<Latch>,
}

impl Membership {
    /// Joins the regions of the open file. Where one of them is poisoned, a new life of the file
    /// begins: whoever opens now recovers from the medium.
    pub(super) fn join(fd: BorrowedFd<'_>) -> Result<Self> {
        let found = fs::fstat(fd).map_err(|errno| Error::os(Operation::Open, "fstat", errno))?;
        let mut open = lock(&OPEN);
        let files = open.get_or_insert_default();
        files.retain(|_, file| file.strong_count() > 0);
        let key = (found.st_dev, found.st_ino);
        let present = files.get(&key).and_then(Weak::upgrade).filter(|file| !file.is_poisoned());
        let shared: Arc<Shared> = present.unwrap_or_default();
        files.insert(key, Arc::downgrade(&shared));
        let latch = Arc::new(Latch::new());
        lock(&shared.latches).push(Arc::downgrade(&latch));
        Ok(Self { shared, latch })
    }
}

impl Shared {
    fn is_poisoned(&self) -> bool {
        let mut latches = lock(&self.latches);
        latches.retain(|latch| latch.strong_count() > 0);
        latches.iter().filter_map(Weak::upgrade).any(|latch| latch.is_poisoned())
    }

    /// Makes the error final for every region of the file, and returns it.
    #[cold]
    pub(super) fn poison(&self, error: Error) -> Error {
        let error = error.unknown();
        for latch in lock(&self.latches).iter().filter_map(Weak::upgrade) {
            latch.poison(&error);
        }
        error
    }

    /// [`poison`](Self::poison) if the error is a failed sync. Returns it.
    #[cold]
    pub(super) fn poison_by_sync(&self, error: Error) -> Error {
        if error.operation() == Operation::Sync { self.poison(error) } else { error }
    }
}
