//! Takes the place of redb's file backend in a copy of redb, so that redb's own tests, as they are, run
//! over a region: `ci/redb` puts it there. It is no part of this package.

#[path = "backend.rs"]
mod backend;

mod engine {
    pub(crate) use crate::{BackendError, StorageBackend};
}

use std::fs::File;
use std::io;
use std::ops::Bound;

use crate::{BackendError, DatabaseError, StorageBackend};
use backend::RegionBackend;

/// Stores a database as a file, through a region.
#[derive(Debug)]
pub struct FileBackend(RegionBackend);

impl FileBackend {
    /// A backend over this file.
    pub fn new(file: File) -> Result<Self, DatabaseError> {
        Ok(Self::from_file(file))
    }

    pub(crate) fn from_file(file: File) -> Self {
        Self(RegionBackend::new(file, daxmap::Options::new()))
    }
}

impl StorageBackend for FileBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }
}
