//! What a file was made for: the numbers of its header.
//!
//! | number | what |
//! |---|---|
//! | 0 | bytes of the working set |
//! | 1 | low half: how many checkpoints can be kept besides the newest; high half: the strategy |
//! | 2 | bytes of the file when it was made: it is damaged if it is shorter |
//! | 3 | zero |

use std::ops::RangeInclusive;

use super::choice::Strategy;
use crate::format::PAGE;
use crate::format::header::{Header, Kind};

/// Version of the format.
pub(super) const VERSION: u32 = 2;
/// The versions that can be read. Opening for writing brings version 1, which has no opening mark, up
/// to the newest.
pub(super) const VERSIONS: RangeInclusive<u32> = 1..=VERSION;
/// The most checkpoints that a file can keep besides the newest: the root is written whole.
pub const KEEP_MAX: u32 = 255;

/// What a file was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) bytes: u64,
    pub(super) keep: u32,
    pub(super) strategy: Strategy,
    pub(super) file_bytes: u64,
}

impl Settings {
    pub(super) fn pages(&self) -> u64 {
        self.bytes.div_ceil(PAGE)
    }

    pub(super) fn header(&self, salt: u64) -> Header {
        let second = u64::from(self.keep) | self.strategy.number() << 32;
        let numbers = [self.bytes, second, self.file_bytes, 0];
        Header { kind: Kind::Checkpoint, version: VERSION, salt, numbers }
    }
}
