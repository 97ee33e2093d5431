//! What the regions of one file in this process share: the news that a sync failed, and, on the
//! page cache, the writes that the file does not have yet.
//!
//! A failed sync is reported once to each open file description and never again
//! (Documentation/filesystems/vfs.rst, "Handling errors during writeback"), so every region of
//! the file has to hear of it.
//!
//! Files are told apart by their [`identity`]. Where the kernel keeps none, each region stands
//! alone: as far as it can know, every other region is of another file.

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crossbeam::utils::CachePadded;
use rustix::fs;

use super::gather::Gather;
use super::ground::Seen;
use super::identity::{self, Driver, Identity};
use super::latch::Latch;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;

/// A file that this process has open as regions.
#[derive(Default)]
pub(super) struct Shared {
    /// Odd while bytes of the file or of the gathered run are changing. On a line of its own:
    /// every read looks at it.
    pub(super) sequence: CachePadded<AtomicU64>,
    /// Which bytes are changing while it is odd.
    pub(super) changing: Bytes,
    /// The gathered run's range, for readers, within the sequence.
    pub(super) gathered: Bytes,
    /// Readers that wait for the lock of the writers.
    pub(super) readers: AtomicU64,
    /// Writes finished so far.
    pub(super) written: AtomicU64,
    /// Writes sent to the last page of a region so far.
    pub(super) tails: AtomicU64,
    pub(super) gather: Mutex<Gather>,
    /// A region of the file lets callers store through a pointer, or has.
    pub(super) lends_memory: AtomicBool,
    /// Held while the file grows, and while a region that is made says how long it is.
    pub(super) growth: Mutex<()>,
    members: Mutex<Members>,
}

/// A range of bytes that one thread sets and others look at.
#[derive(Default)]
pub(super) struct Bytes {
    start: AtomicU64,
    end: AtomicU64,
}

impl Bytes {
    pub(super) fn set(&self, bytes: Range<u64>) {
        // What came before is seen by whoever sees this, and fences.
        self.start.store(bytes.start, Ordering::Release);
        self.end.store(bytes.end, Ordering::Release);
    }

    #[inline]
    pub(super) fn overlaps(&self, from: u64, to: u64) -> bool {
        from < self.end.load(Ordering::Relaxed) && self.start.load(Ordering::Relaxed) < to
    }
}

#[derive(Default)]
struct Members {
    latches: Vec<Weak<Latch>>,
    poisoned: bool,
}

static OPEN: Mutex<Option<Files>> = Mutex::new(None);

/// The files that are open, and some that were.
#[derive(Default)]
struct Files {
    known: HashMap<Identity, Weak<Shared>>,
    /// With more than so many, it is time to forget those that were.
    many: usize,
}

impl Files {
    fn get(&self, key: &Identity) -> Option<Arc<Shared>> {
        self.known.get(key).and_then(Weak::upgrade)
    }

    /// As often as the number doubles, so that joining costs the same however many there are.
    fn insert(&mut self, key: Identity, file: &Arc<Shared>) {
        self.known.insert(key, Arc::downgrade(file));
        if self.known.len() > self.many {
            self.known.retain(|_, file| file.strong_count() > 0);
            self.many = 2 * self.known.len() + 64;
        }
    }
}

/// A mutex whose data stays consistent when a holder panics.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One region's place among the regions of its file.
pub(super) struct Membership {
    pub(super) shared: Arc<Shared>,
    pub(super) latch: Arc<Latch>,
    /// The file has an identity, by which every region of it in this process is found. If not,
    /// nothing may be kept back from the file: nobody else in this process would see it.
    pub(super) known: bool,
    /// The file may be replaced under its descriptor by a copy: [`Driver::is_overlay`].
    pub(super) may_be_copied: bool,
}

impl Membership {
    /// Joins the regions of the open file. Where one of them is poisoned, a new life of the file
    /// begins: whoever opens now recovers from the medium.
    ///
    /// Who has `seen` the file asks nothing. A writer [announces](Self::announce) itself once it is made.
    pub(super) fn join(fd: BorrowedFd<'_>, seen: Option<&Seen>) -> Result<Self> {
        let (driver, key) = match seen {
            Some(seen) => (seen.driver(), seen.identity()),
            None => Self::identity(fd)?,
        };
        let latch = Arc::new(Latch::new());
        let join = |shared| Self {
            shared,
            latch: Arc::clone(&latch),
            known: key.is_some(),
            may_be_copied: driver.is_overlay(),
        };
        let Some(key) = key else { return Ok(join(Shared::with(&latch))) };
        let mut open = lock(&OPEN);
        let files = open.get_or_insert_default();
        let present = files.get(&key).filter(|file| file.admit(&latch));
        let shared = present.unwrap_or_else(|| Shared::with(&latch));
        files.insert(key, &shared);
        Ok(join(shared))
    }

    /// Whether a region of the file in this process is written, and no error has been made final.
    pub(super) fn has_writer(fd: BorrowedFd<'_>) -> Result<bool> {
        let Some(key) = Self::identity(fd)?.1 else { return Ok(false) };
        let file = lock(&OPEN).as_ref().and_then(|files| files.get(&key));
        Ok(file.is_some_and(|file| file.longest() > 0 && !lock(&file.members).poisoned))
    }

    fn identity(fd: BorrowedFd<'_>) -> Result<(Driver, Option<Identity>)> {
        let failed = |call| move |errno| Error::os(Operation::Open, call, errno);
        let found = fs::fstat(fd).map_err(failed("fstat"))?;
        let driver = Driver::of(fd).map_err(failed("fstatfs"))?;
        Ok((driver, identity::identity(driver, &found)))
    }

    /// Tells the others of a writer of `len` bytes, which they must not take for new.
    pub(super) fn announce(&self, len: u64) {
        let growth = lock(&self.shared.growth);
        self.latch.announce(len);
        drop(growth);
    }
}

impl Shared {
    /// A file of which this is the only region so far.
    fn with(latch: &Arc<Latch>) -> Arc<Self> {
        let fresh = Arc::new(Self::default());
        fresh.admit(latch);
        fresh
    }

    /// Takes a region in, unless an error has been made final: then `false`. Under one lock with
    /// [`poison`](Self::poison), so that no region misses it.
    fn admit(&self, latch: &Arc<Latch>) -> bool {
        let mut members = lock(&self.members);
        if members.poisoned {
            return false;
        }
        members.latches.retain(|latch| latch.strong_count() > 0);
        members.latches.push(Arc::downgrade(latch));
        true
    }

    /// The length of the longest region that is written, in bytes. What lies below it is not new
    /// to a region that grows, and must not be zeroed. Asked with `growth` locked.
    pub(super) fn longest(&self) -> u64 {
        let members = lock(&self.members);
        let lengths = members.latches.iter().filter_map(Weak::upgrade).map(|latch| latch.extent());
        lengths.max().unwrap_or(0)
    }

    /// Whether a region other than this one's is written and longer than `len` bytes. Asked with
    /// `growth` locked.
    pub(super) fn others_are_longer(&self, own: &Arc<Latch>, len: u64) -> bool {
        let members = lock(&self.members);
        let mut others = members.latches.iter().filter_map(Weak::upgrade);
        others.any(|latch| !Arc::ptr_eq(&latch, own) && latch.extent() > len)
    }

    /// Makes the error final for every region of the file, and returns it.
    #[cold]
    pub(super) fn poison(&self, error: Error) -> Error {
        let error = error.unknown();
        let mut members = lock(&self.members);
        members.poisoned = true;
        let all = primitive!("siblings.poison_all", usize::MAX, 1);
        for latch in members.latches.iter().filter_map(Weak::upgrade).take(all) {
            latch.poison(&error);
        }
        error
    }

    /// [`poison`](Self::poison) if the error of a growth is final: a failed sync, which the kernel
    /// reports once, or a file that has become shorter than its regions. Returns it.
    #[cold]
    pub(super) fn poison_if_final(&self, error: Error) -> Error {
        let gone = matches!(error.kind(), ErrorKind::Gone);
        let last = gone || error.operation() == Operation::Sync;
        if primitive!("siblings.failed_growth_is_final", last, false) {
            self.poison(error)
        } else {
            error
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_closed_are_forgotten_and_open_ones_found() {
        let mut files = Files::default();
        let open: Vec<_> = (0..500)
            .map(|inode| {
                let file = Arc::new(Shared::default());
                files.insert(Identity::File { device: 1, inode }, &file);
                file
            })
            .collect();
        for inode in 0..100_000 {
            files.insert(Identity::File { device: 2, inode }, &Arc::default());
            assert!(files.known.len() <= 2 * 500 + 66, "{} files", files.known.len());
        }
        for (inode, file) in (0..).zip(&open) {
            let found = files.get(&Identity::File { device: 1, inode }).expect("it is open");
            assert!(Arc::ptr_eq(&found, file));
        }
        assert!(files.get(&Identity::File { device: 2, inode: 99_999 }).is_none());
    }
}
