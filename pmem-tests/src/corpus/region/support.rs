//! What the programs share.

use super::{Explorer, Finding, History, Mode, Notes, Region, Result, SimRegion};

/// Modes in which an unflushed line is lost.
pub(super) const FORGETFUL: &[Mode] = &[Mode::Adr, Mode::TornWords, Mode::PageCache];

/// Memory: what is written is torn between words.
pub(super) const MEMORY: &[Mode] = &[Mode::Adr, Mode::TornWords];

/// The check's result.
pub(super) type Verdict = std::result::Result<(), String>;

/// Explores a program of one thread on a region of a page.
pub(super) fn explore(
    mode: Mode,
    workload: impl Fn(&SimRegion, &Notes) -> Result<()> + Send + Sync + 'static,
    check: impl Fn(&SimRegion, &History) -> Verdict + Send + Sync + 'static,
) -> Finding {
    Explorer::new(mode, 4096).run(workload, check).into()
}

/// An error of the region is a finding.
pub(super) fn ok<T>(result: Result<T>) -> std::result::Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// Fails unless `holds`.
pub(super) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(what()) }
}

/// The bytes of a range.
pub(super) fn bytes<const N: usize>(
    region: &impl Region,
    offset: u64,
) -> std::result::Result<[u8; N], String> {
    let mut bytes = [0; N];
    ok(region.read(offset, &mut bytes))?;
    Ok(bytes)
}

/// What the word at this place of some bytes holds.
pub(super) fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// A checksum as a word; never that of nothing at all.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    u64::from(crc32fast::hash(bytes)) | 1 << 32
}

/// Stores a word and waits until it is durable.
pub(super) fn persist_word(region: &SimRegion, offset: u64, value: u64) -> Result<()> {
    region.store_u64(offset, value)?;
    region.persist(offset, 8)
}
