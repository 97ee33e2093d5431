//! Whether the file is one, and what it was made for.

use super::choice::Strategy;
use super::file;
use super::settings::{KEEP_MAX, Settings, VERSIONS};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::check::Key;
use crate::format::header::{Found, HEADER_AREA, Header, Kind};
use crate::primitives::primitive;
use crate::region::Region;

fn settings_of(header: &Header) -> Option<Settings> {
    let [bytes, second, file_bytes, _] = header.numbers;
    let (keep, strategy) = (second as u32, Strategy::of(second >> 32)?);
    let settings = Settings { bytes, keep, strategy, file_bytes };
    // A set that the file could not hold would be memory that nobody has.
    let sound = bytes > 0
        && bytes < u64::MAX / 1024
        && keep <= KEEP_MAX
        && file::least_bytes(&settings) <= file_bytes;
    primitive!("checkpoint.settings", sound, true).then_some(settings)
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
    let Some(settings) = settings_of(&header) else {
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
