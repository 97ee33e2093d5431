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
use super::file;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::PAGE;
use crate::format::check::Key;
use crate::format::header::{Found, HEADER_AREA, Header, Kind};
use crate::primitives::primitive;
use crate::region::Region;

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

    fn of(header: &Header) -> Option<Self> {
        let [bytes, second, file_bytes, _] = header.numbers;
        let (keep, strategy) = (second as u32, Strategy::of(second >> 32)?);
        let settings = Self { bytes, keep, strategy, file_bytes };
        // A set that the file could not hold would be memory that nobody has.
        let sound = bytes > 0
            && bytes < u64::MAX / 1024
            && keep <= KEEP_MAX
            && file::least_bytes(&settings) <= file_bytes;
        primitive!("checkpoint.settings", sound, true).then_some(settings)
    }
}

/// A file that is complete.
pub(super) struct Complete {
    pub(super) header: Header,
    pub(super) settings: Settings,
    pub(super) key: Key,
    /// Whole copies of the header: 1 or 2.
    pub(super) copies: u8,
}

/// Reads the header. `None` if the file was never made.
pub(super) fn find(region: &impl Region) -> Result<Option<Complete>> {
    let found = Header::find(region, Kind::Checkpoint, VERSIONS)?;
    let Found::Header { header, copies } = found else { return Ok(None) };
    let Some(settings) = Settings::of(&header) else {
        let what = "the numbers of the header";
        return Err(Error::new(Operation::Open, ErrorKind::Damaged(what)));
    };
    let (len, asked) = (region.len(), settings.file_bytes);
    if primitive!("checkpoint.length", len < asked, false) {
        return Err(Error::new(Operation::Open, ErrorKind::TooShort { len, asked }));
    }
    Ok(Some(Complete { header, settings, key: Key::new(header.salt), copies }))
}

/// What changes with every checkpoint, before anything that the newest one needs is overwritten: if it
/// is the same before and after, what was read between is one checkpoint. Empty if there is no header.
pub(super) fn newest(region: &impl Region) -> Result<Vec<u8>> {
    let Ok(Some(found)) = find(region) else { return Ok(Vec::new()) };
    let mut bytes = vec![0; file::newest_bytes(&found.settings) as usize];
    region.read(HEADER_AREA, &mut bytes)?;
    Ok(bytes)
}
