//! How much of a log is used, and how much is free.

use std::sync::atomic::Ordering;

use crate::region::Region;

use super::Log;
use super::layout::BLOCKS;
use super::table::Usage;

/// What the segments of a log are used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Space {
    /// Bytes of a segment. 8192 of them are not for records.
    pub segment_bytes: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Those that hold no record that is kept: the next life of each can begin.
    pub free_segments: u64,
    /// Those that were lost with their header.
    pub lost_segments: u64,
    /// Bytes that commits take in the segments that are neither free nor lost, those of released
    /// records in them included.
    pub used_bytes: u64,
    /// Bytes that commits can take before a segment must be released. A commit lies in one segment,
    /// so the last bytes of each may be too few for it.
    pub free_bytes: u64,
}

impl<R: Region> Log<R> {
    /// How much is used and free at this moment: when it is time to release, or to
    /// [`grow`](Self::grow).
    #[must_use]
    pub fn space(&self) -> Space {
        let core = &self.core;
        let released = core.released();
        let spares = core.spare_segments();
        let pool = core.table.pool();
        let mut space = Space { segment_bytes: core.layout.segment, ..Space::default() };
        for (segment, life) in pool.lives.iter().enumerate() {
            let progress = &core.table.progress[segment];
            let end = progress.end.load(Ordering::Acquire);
            let is_free = core.table.is_free(life, segment, released)
                || (spares.contains(&segment) && progress.last.load(Ordering::Acquire) <= released);
            space.segments += 1;
            let (used, free) = match life.usage {
                _ if is_free => (0, core.layout.room()),
                Usage::Lost => (0, 0),
                Usage::Idle | Usage::Active => (end - BLOCKS, core.layout.segment - end),
                Usage::Free | Usage::Full | Usage::Broken => (end - BLOCKS, 0),
            };
            space.free_segments += u64::from(is_free);
            space.lost_segments += u64::from(life.usage == Usage::Lost);
            space.used_bytes += used;
            space.free_bytes += free;
        }
        space
    }
}
