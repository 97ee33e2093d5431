//! A region as redb's storage.
//!
//! | redb | region |
//! |---|---|
//! | a lock of the whole storage | `Options::from_file` with `Options::lock`: the region lives as long as the lock |
//! | `len`, `read` | `len`, `read` |
//! | `write` | `write_flush` |
//! | `sync_data`, of what any thread wrote | `sync_all` |
//! | `set_len` | `grow`, by `Growth::Allocated`, and `shrink` |
//! | `close` | `close` |

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use daxmap::{AnyRegion, ErrorKind, Growth, Lock, Options, Region};

use super::engine::{BackendError, StorageBackend};

/// A database in a file, read and written through a region.
#[derive(Debug)]
pub struct RegionBackend {
    file: File,
    options: Options,
    /// Open while redb has the lock, or has used the storage without one.
    region: RwLock<Option<AnyRegion>>,
}

impl RegionBackend {
    /// The file as it is, opened with these options but for lock, growth and access.
    #[must_use]
    pub fn new(file: File, options: Options) -> Self {
        Self { file, options, region: RwLock::new(None) }
    }

    /// False if another has the lock.
    fn open(&self, lock: Lock) -> io::Result<bool> {
        let mut region = self.region.write().unwrap_or_else(PoisonError::into_inner);
        if region.is_some() {
            return Ok(true);
        }
        let options = self.options.clone().growth(Growth::Allocated).lock(lock);
        let file = || self.file.try_clone();
        let open = |file, read_only| options.clone().read_only(read_only).from_file(file);
        let opened = match open(file()?, lock == Lock::Shared) {
            // The file was opened for reading.
            Err(error) if matches!(error.kind(), ErrorKind::ReadOnly) => open(file()?, true),
            opened => opened,
        };
        match opened {
            Ok(opened) => *region = Some(opened),
            Err(error) if matches!(error.kind(), ErrorKind::Locked) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    fn with<T>(&self, call: impl FnOnce(&AnyRegion) -> daxmap::Result<T>) -> io::Result<T> {
        let mut region = self.region();
        if region.is_none() {
            drop(region);
            if !self.open(Lock::Exclusive)? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            region = self.region();
        }
        let region = region.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        call(region).map_err(io::Error::from)
    }

    fn region(&self) -> RwLockReadGuard<'_, Option<AnyRegion>> {
        self.region.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self, range: (Bound<u64>, Bound<u64>), lock: Lock) -> Result<bool, BackendError> {
        check_whole(range)?;
        self.open(lock).map_err(BackendError::from)
    }

    /// Gives the region up, and with it the lock.
    fn give_up(&self) -> io::Result<()> {
        let mut region: RwLockWriteGuard<'_, _> =
            self.region.write().unwrap_or_else(PoisonError::into_inner);
        match region.take() {
            Some(region) => region.close().map_err(io::Error::from),
            None => Ok(()),
        }
    }
}

/// Locks are of the whole file (flock(2)).
fn check_whole((start, end): (Bound<u64>, Bound<u64>)) -> Result<(), BackendError> {
    let whole = matches!(start, Bound::Unbounded | Bound::Included(0)) && end == Bound::Unbounded;
    if whole { Ok(()) } else { Err(BackendError::Unsupported) }
}

impl StorageBackend for RegionBackend {
    fn len(&self) -> io::Result<u64> {
        self.with(|region| Ok(region.len()))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        // What redb expects of a file.
        let past_the_end = |error: &daxmap::Error| {
            matches!(error.kind(), ErrorKind::OutOfBounds { .. })
                .then_some(io::ErrorKind::UnexpectedEof)
        };
        let read = self.with(|region| Ok(region.read(offset, out)))?;
        read.map_err(|error| match past_the_end(&error) {
            Some(kind) => io::Error::new(kind, error),
            None => error.into(),
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|region| if len < region.len() { region.shrink(len) } else { region.grow(len) })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(AnyRegion::sync_all)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|region| region.write_flush(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.give_up()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.lock((start, end), Lock::Exclusive)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.lock((start, end), Lock::Shared)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        check_whole((start, end))?;
        self.give_up().map_err(BackendError::from)
    }
}
