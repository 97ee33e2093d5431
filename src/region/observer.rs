//! What a program is told of each sync, for its metrics.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One sync of a region, as [`Options::observer`](crate::Options::observer) is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Synced {
    /// How long the system call took: fdatasync(2), or msync(2) for a mapping that was adopted.
    pub took: Duration,
    /// Bytes that the region sent to the file since its last sync; of a mapping that was adopted, bytes of
    /// the ranges that were synced.
    pub bytes: u64,
    /// Threads that waited for it as it began, the one that made it among them.
    pub threads: u64,
    /// The errno that it failed with, which is final for the region.
    pub errno: Option<i32>,
}

/// Who is told.
#[derive(Clone)]
pub(super) struct Observer(Arc<dyn Fn(&Synced) + Send + Sync>);

impl Observer {
    pub(super) fn new(told: impl Fn(&Synced) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }

    pub(super) fn tell(&self, synced: &Synced) {
        (self.0)(synced);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
