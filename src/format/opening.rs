//! The opening mark: whether the file is open for writing, and how often its medium had lost power
//! without saving its buffers when it was opened.
//!
//! A cell whose two slots lie in the pages of the header's two copies, 64 bytes after each.
//!
//! | offset in the value | bytes | what |
//! |---|---|---|
//! | 0 | 16 | identity of the medium |
//! | 16 | 8 | its count of unsafe shutdowns |
//! | 24 | 8 | bit 0: open for writing; bit 1: identity and count are known, else both are zero |
//!
//! It is stored in one slot and, when that is durable, in the other. So one damaged slot costs
//! nothing, and a crash inside leaves the mark before or the new one: nothing else is written
//! meanwhile.

use super::LINE;
use super::cell::{Cell, Slot, Stored, newest_of, next};
use super::check::Key;
use super::header::{Header, MARK_END};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::probe::Shutdowns;
use crate::region::Region;
use crate::unsafe_shutdown::UnsafeShutdown;

/// Where the first slot is.
const AT: u64 = LINE;
/// Bytes of the value.
const BYTES: usize = 32;
/// Layout version of the value.
const VERSION: u32 = 1;

const OPEN: u64 = 1;
const KNOWN: u64 = 2;

/// What the mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    seen: Option<Shutdowns>,
    open: bool,
}

impl Mark {
    fn encode(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        if let Some(seen) = self.seen {
            bytes[..16].copy_from_slice(&seen.identity);
            bytes[16..24].copy_from_slice(&seen.count.to_le_bytes());
        }
        let known = if self.seen.is_some() { KNOWN } else { 0 };
        let flags = known | if self.open { OPEN } else { 0 };
        bytes[24..].copy_from_slice(&flags.to_le_bytes());
        bytes
    }

    fn decode(stored: &Stored) -> Option<Self> {
        let bytes: &[u8; BYTES] = stored.value.as_slice().try_into().ok()?;
        let (identity, rest) = bytes.split_first_chunk()?;
        let (count, flags) = rest.split_first_chunk()?;
        let flags = u64::from_le_bytes(flags.try_into().ok()?);
        let seen = Shutdowns { identity: *identity, count: u64::from_le_bytes(*count) };
        Some(Self { seen: (flags & KNOWN != 0).then_some(seen), open: flags & OPEN != 0 })
    }

    /// What became of the count.
    fn compare(self, now: Option<Shutdowns>) -> UnsafeShutdown {
        let (Some(seen), Some(now)) = (self.seen, now) else { return UnsafeShutdown::Unknown };
        if seen.identity != now.identity {
            return UnsafeShutdown::Moved;
        }
        match now.count.cmp(&seen.count) {
            std::cmp::Ordering::Equal => UnsafeShutdown::None,
            std::cmp::Ordering::Greater => UnsafeShutdown::Raised { was_open: self.open },
            std::cmp::Ordering::Less => UnsafeShutdown::Unknown,
        }
    }
}

/// The mark's cell in a file with this salt.
const fn cell(key: Key) -> Cell {
    Cell::new(AT, BYTES as u32, key)
}

/// What was found where the mark is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// What became of the count of unsafe shutdowns since the mark was written.
    pub(crate) unsafe_shutdown: UnsafeShutdown,
    /// Which of its two slots are whole. Version 1 has none: both.
    pub(crate) whole: [bool; 2],
}

/// How often a mark that is not whole is looked at again while it changes.
const LOOKS: u32 = 16;

/// Reads the mark. Changes nothing.
pub(crate) fn look(region: &impl Region, header: &Header) -> Result<Seen> {
    let cell = cell(Key::new(header.salt));
    let read = || cell.slots(region).map_err(|error| error.during(Operation::Open));
    let mut slots = read()?;
    // A slot that another process is writing at this moment is not torn.
    for _ in 0..LOOKS {
        if slots.iter().all(|slot| matches!(slot, Slot::Valid(_))) {
            break;
        }
        std::thread::yield_now();
        let before = std::mem::replace(&mut slots, read()?);
        if slots == before {
            break;
        }
    }
    let whole = slots.each_ref().map(|slot| matches!(slot, Slot::Valid(_)) || header.version < 2);
    let mark = newest_of(slots).newest.as_ref().and_then(Mark::decode);
    let unknown = UnsafeShutdown::Unknown;
    let unsafe_shutdown = mark.map_or(unknown, |mark| mark.compare(region.shutdowns()));
    Ok(Seen { unsafe_shutdown, whole })
}

/// The same, and refuses to go on if the count is not known to be as it was, and the caller wants
/// that.
///
/// # Errors
///
/// `UnsafeShutdown`; those of reading.
pub(crate) fn check(region: &impl Region, header: &Header, refuse: bool) -> Result<Seen> {
    let seen = look(region, header)?;
    if refuse && seen.unsafe_shutdown != UnsafeShutdown::None {
        let kind = ErrorKind::UnsafeShutdown(seen.unsafe_shutdown);
        return Err(Error::new(Operation::Open, kind));
    }
    Ok(seen)
}

impl Seen {
    /// Whether one of its slots is torn or damaged.
    pub(crate) const fn is_damaged(self) -> bool {
        !(self.whole[0] && self.whole[1])
    }
}

/// Writes the mark of a new file, durable after the next drain of this thread.
pub(crate) fn write_new(region: &impl Region, key: Key, open: bool) -> Result<()> {
    let (cell, mut buffer) = (cell(key), Vec::new());
    let value = Mark { seen: region.shutdowns(), open }.encode();
    cell.write_both(region, &mut buffer, (1, VERSION), &value)
}

/// Marks the file as closed, with the medium's present count, durable on return.
pub(crate) fn close(region: &impl Region, key: Key) -> Result<()> {
    mark(region, key, |_| Mark { seen: region.shutdowns(), open: false })
}

/// Notes the medium's present count, durable on return: the last step of an opening, which tells its
/// caller what became of the count before. Writes nothing if it is as it was.
///
/// # Errors
///
/// Those of the region. The next opening then tells the same again, unless the count was stored.
pub(crate) fn told(region: &impl Region, key: Key) -> Result<()> {
    let noted = cell(key).find(region)?.newest.as_ref().and_then(Mark::decode);
    let now = Mark { seen: region.shutdowns(), open: true };
    if noted == Some(now) { Ok(()) } else { mark(region, key, |_| now) }
}

/// Stores what is made of the mark that is there, durable on return.
fn mark(region: &impl Region, key: Key, change: impl FnOnce(Option<Mark>) -> Mark) -> Result<()> {
    let (cell, mut buffer) = (cell(key), Vec::new());
    let newest = cell.find(region)?.newest;
    let sequence = next(newest.as_ref().map_or(0, |newest| newest.sequence))?;
    let now = change(newest.as_ref().and_then(Mark::decode));
    if let Some(newest) = newest.filter(|_| now.open) {
        // Whoever wrote it may have been killed on the way.
        cell.settle(region, &mut buffer, &newest)?;
    }
    let value = now.encode();
    cell.store(region, &mut buffer, sequence, VERSION, &value)?;
    cell.repeat(region, &mut buffer, (sequence, VERSION), value.len())?;
    // What was repeated before by this thread becomes durable with it: the root of a log that is closed.
    region.drain()
}

/// Marks a file as open before it is changed, and brings a header of an older version up to this
/// one: a crash inside leaves either version.
///
/// The count stays that of the opening before until this one is complete, by [`told`]: if it fails or
/// is killed, its caller does not learn what became of the count, and the next one does.
pub(crate) fn begin(
    region: &impl Region,
    key: Key,
    header: &Header,
    version: u32,
) -> Result<Header> {
    mark(region, key, |was| Mark { seen: was.and_then(|was| was.seen), open: true })?;
    header.upgrade(region, version)
}

const _: () = assert!(Cell::buffer_bytes(BYTES as u32) as u64 == MARK_END - AT);
const _: () = assert!(cell(Key::new(0)).slot(1) - cell(Key::new(0)).slot(0) == super::PAGE);

#[cfg(all(test, feature = "model"))]
mod tests;
