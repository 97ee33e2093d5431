//! What the file is: the header, in two copies.
//!
//! The header is written when everything else of a new structure is durable, the first copy
//! before the second. So a valid copy says that the structure is complete; and if neither is valid
//! while the second is still all zero, then the structure never was, and nothing in it has been
//! acknowledged. Afterwards the header does not change, but that an older version is brought up to
//! the newest, and one damaged copy costs nothing.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic: `daxmap` and two letters for the kind |
//! | 8 | 4 | format version |
//! | 12 | 4 | zero |
//! | 16 | 8 | salt of the file |
//! | 24 | 32 | four numbers that the kind gives a meaning |
//! | 56 | 8 | check value of bytes 0 to 55, keyed by the magic and by the place |
//!
//! The first copy is at offset 0 of the region, the second at 4096. 64 bytes after each is a slot of
//! the opening mark (`opening`); the rest of both pages is zero.

use std::ops::RangeInclusive;

use super::check::Key;
use super::{LINE, PAGE};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;
use crate::region::Region;

/// What a structure is, as its first eight bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Log,
    State,
    Checkpoint,
    Pages,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Log, Self::State, Self::Checkpoint, Self::Pages];

    pub(crate) const fn magic(self) -> [u8; 8] {
        match self {
            Self::Log => *b"daxmapLG",
            Self::State => *b"daxmapST",
            Self::Checkpoint => *b"daxmapCP",
            Self::Pages => *b"daxmapPG",
        }
    }

    /// As it stands in messages, with its article.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Log => "a daxmap log",
            Self::State => "a daxmap state",
            Self::Checkpoint => "a daxmap checkpoint file",
            Self::Pages => "a daxmap page file",
        }
    }

    fn of(magic: [u8; 8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.magic() == magic)
    }
}

/// Bytes of a copy.
pub(crate) const HEADER_BYTES: usize = 64;
/// Where the copies are.
const COPIES: [u64; 2] = [0, PAGE];
/// Where the opening mark ends in its page. What follows is zero.
pub(crate) const MARK_END: u64 = 2 * LINE;

/// Bytes that the header takes at the start of the region.
pub(crate) const HEADER_AREA: u64 = 2 * PAGE;

/// A valid header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) version: u32,
    pub(crate) salt: u64,
    pub(crate) numbers: [u64; 4],
}

/// What stands where a header should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A header; `copies` of its two copies are whole.
    Header { header: Header, copies: u8 },
    /// The structure was never completed: all zero, or a crash cut its creation short.
    Blank,
}

impl Header {
    /// Where the copies are, for tools.
    pub(crate) const OFFSETS: [u64; 2] = COPIES;

    /// Looks for the header of a structure of this kind.
    ///
    /// # Errors
    ///
    /// `WrongFormat` if it is something else; `NewerFormat` or `OlderFormat` if its version is not
    /// one of `known`; `Damaged` if both copies are; and those of reading.
    pub(crate) fn find(
        region: &impl Region,
        kind: Kind,
        known: RangeInclusive<u32>,
    ) -> Result<Found> {
        if region.len() < HEADER_AREA {
            return Err(Error::new(Operation::Open, ErrorKind::WrongFormat(kind.name())));
        }
        let copies = Self::copies(region).map_err(|error| error.during(Operation::Open))?;
        let valid: Vec<Self> = copies.into_iter().flatten().collect();
        let Some(header) = valid.first() else { return blank_or_damaged(region, kind) };
        if header.kind != kind {
            return Err(Error::new(Operation::Open, ErrorKind::WrongFormat(kind.name())));
        }
        let (found, oldest, newest) = (header.version, *known.start(), *known.end());
        if found > newest {
            return Err(Error::new(Operation::Open, ErrorKind::NewerFormat { found, newest }));
        }
        if found < oldest {
            return Err(Error::new(Operation::Open, ErrorKind::OlderFormat { found, oldest }));
        }
        let copies = valid.iter().filter(|copy| *copy == header).count() as u8;
        Ok(Found::Header { header: *header, copies })
    }

    /// Completes a new structure: everything else in it is durable.
    pub(crate) fn complete(&self, region: &impl Region) -> Result<()> {
        let [first, second] = COPIES;
        region.write_flush(first, &self.encode(first))?;
        primitive!("format.header_in_order", region.drain(), Ok(()))?;
        region.write_flush(second, &self.encode(second))?;
        primitive!("format.header_drain", region.drain(), Ok(()))
    }

    /// Makes both copies whole again, of which one is: that one durable on return, the other after
    /// the next drain of this thread. Nothing hangs on the other until then.
    ///
    /// First the whole one: it may have been read before it was durable, if the process that wrote it
    /// was killed, and a region vouches only for what its caller wrote. The same bytes over
    /// themselves cannot be torn.
    pub(crate) fn heal(&self, region: &impl Region) -> Result<()> {
        let copies = Self::copies(region)?;
        let is_whole = |copy: &Option<Self>| copy.as_ref() == Some(self);
        let write = |at| region.write_flush(at, &self.encode(at));
        for (at, _) in COPIES.into_iter().zip(&copies).filter(|(_, copy)| is_whole(copy)) {
            primitive!("format.heal.keep", write(at), Ok(()))?;
        }
        primitive!("format.heal.keep_drain", region.drain(), Ok(()))?;
        if copies.iter().all(is_whole) {
            return Ok(());
        }
        for (at, _) in COPIES.into_iter().zip(&copies).filter(|(_, copy)| !is_whole(copy)) {
            write(at)?;
        }
        Ok(())
    }

    /// Brings the header up to a version, durable on return; nothing if it has that. One copy after
    /// the other: at every moment one of them is whole, of this version or of the older one. The
    /// header as it is then.
    pub(crate) fn upgrade(&self, region: &impl Region, version: u32) -> Result<Self> {
        if self.version == version {
            return Ok(*self);
        }
        self.heal(region)?;
        region.drain()?;
        let upgraded = Self { version, ..*self };
        upgraded.complete(region)?;
        Ok(upgraded)
    }

    /// Clears the place of a header, whatever is there, durable on return: before anything is
    /// changed of what a header there may describe. A crash leaves what was there, or blank.
    ///
    /// # Errors
    ///
    /// `WrongFormat` if the region is too short for a header; and those of writing.
    pub(crate) fn erase(region: &impl Region, kind: Kind) -> Result<()> {
        if region.len() < HEADER_AREA {
            return Err(Error::new(Operation::Create, ErrorKind::WrongFormat(kind.name())));
        }
        // Even if it reads as zeros: those may be of a process that was killed before they were
        // durable. The second copy first: a first copy that is torn, before a second one of zeros, is what
        // a creation leaves that a crash cut short.
        let [first, second] = COPIES;
        region.fill_flush(second, PAGE, 0)?;
        primitive!("format.erase_in_order", region.drain(), Ok(()))?;
        region.fill_flush(first, PAGE, 0)?;
        primitive!("format.erase_drain", region.drain(), Ok(()))
    }

    /// Which of the two copies are whole, in order; of whichever kind.
    pub(crate) fn copies(region: &impl Region) -> Result<[Option<Self>; 2]> {
        let mut copies = [None; 2];
        for (copy, at) in copies.iter_mut().zip(COPIES) {
            let mut bytes = [0; HEADER_BYTES];
            region.read(at, &mut bytes)?;
            *copy = Self::decode(at, &bytes);
        }
        Ok(copies)
    }

    fn encode(&self, at: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.kind.magic());
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.salt.to_le_bytes());
        for (place, number) in bytes[24..56].chunks_exact_mut(8).zip(self.numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let check = key(self.kind).check(at, &bytes[..56]);
        bytes[56..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    fn decode(at: u64, bytes: &[u8]) -> Option<Self> {
        let number = |from: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[from..from + 8]);
            u64::from_le_bytes(word)
        };
        let kind = Kind::of(number(0).to_le_bytes())?;
        let valid = number(56) == key(kind).check(at, &bytes[..56]);
        primitive!("format.header_check", valid, true).then(|| Self {
            kind,
            version: number(8) as u32,
            salt: number(16),
            numbers: [number(24), number(32), number(40), number(48)],
        })
    }
}

fn key(kind: Kind) -> Key {
    Key::new(u64::from_le_bytes(kind.magic()))
}

/// No copy is valid. A creation that a crash cut short has, in the first copy, parts of it, behind
/// either copy the opening mark or parts of it, and nothing anywhere else.
fn blank_or_damaged(region: &impl Region, kind: Kind) -> Result<Found> {
    let mut area = vec![0; HEADER_AREA as usize];
    region.read(0, &mut area).map_err(|error| error.during(Operation::Open))?;
    let zero = |range: std::ops::Range<usize>| area[range].iter().all(|&byte| byte == 0);
    let magic = &area[..8];
    let ours = magic.iter().zip(kind.magic()).all(|(&found, ours)| found == 0 || found == ours);
    let (page, mark_end) = (PAGE as usize, MARK_END as usize);
    let rest = [mark_end..page, page..page + HEADER_BYTES, page + mark_end..2 * page];
    if ours && rest.into_iter().all(zero) {
        return Ok(Found::Blank);
    }
    let second = &area[PAGE as usize..][..8];
    let kinds = [magic, second].map(|magic| Kind::ALL.iter().find(|kind| kind.magic() == *magic));
    let what = if kinds.iter().flatten().any(|found| **found == kind) {
        ErrorKind::Damaged("both copies of the header")
    } else {
        ErrorKind::WrongFormat(kind.name())
    };
    Err(Error::new(Operation::Open, what).over(0, HEADER_AREA))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    const HEADER: Header = Header { kind: Kind::State, version: 1, salt: 5, numbers: [1, 2, 3, 4] };

    #[test]
    fn what_is_erased_is_blank_and_nothing_else_is_changed() {
        for len in [HEADER_AREA, HEADER_AREA + PAGE] {
            let region = Options::new().len(len).in_memory().unwrap();
            region.write(0, &vec![7; len as usize]).unwrap();
            HEADER.complete(&region).unwrap();
            Header::erase(&region, Kind::Log).unwrap();
            assert_eq!(Header::find(&region, Kind::State, 1..=1).unwrap(), Found::Blank);
            let mut bytes = vec![0; len as usize];
            region.read(0, &mut bytes).unwrap();
            let (header, rest) = bytes.split_at(HEADER_AREA as usize);
            assert!(header.iter().all(|&byte| byte == 0) && rest.iter().all(|&byte| byte == 7));
        }
        let short = Options::new().len(HEADER_AREA - 1).in_memory().unwrap();
        short.write(0, &[7; 100]).unwrap();
        let error = Header::erase(&short, Kind::Log).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WrongFormat(_)), "{error}");
        let mut bytes = [0; 100];
        short.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [7; 100]);
    }

    #[test]
    fn either_copy_is_made_from_the_other() {
        for damaged in COPIES {
            let region = Options::new().len(HEADER_AREA).in_memory().unwrap();
            HEADER.complete(&region).unwrap();
            region.write(damaged + 20, &[0xff]).unwrap();
            assert_eq!(Header::copies(&region).unwrap().iter().flatten().count(), 1);
            HEADER.heal(&region).unwrap();
            assert_eq!(Header::copies(&region).unwrap(), [Some(HEADER); 2]);
        }
    }

    /// Both copies may have been read from what a killed process never made durable.
    #[cfg(feature = "model")]
    #[test]
    fn what_is_healed_has_a_durable_copy_whoever_wrote_it() {
        use crate::sim::{Mode, SimRegion};
        for damaged in [None, Some(COPIES[0]), Some(COPIES[1])] {
            let region = SimRegion::new(Mode::Adr, HEADER_AREA, HEADER_AREA);
            let killed = || {
                for at in COPIES {
                    region.write(at, &HEADER.encode(at)).unwrap();
                }
            };
            std::thread::scope(|scope| scope.spawn(killed).join()).unwrap();
            if let Some(at) = damaged {
                region.write(at + 20, &[0xff]).unwrap();
            }
            HEADER.heal(&region).unwrap();
            for seed in 0..200 {
                let copies = Header::copies(&region.crash(seed)).unwrap();
                assert!(copies.contains(&Some(HEADER)), "{damaged:?}, seed {seed}: {copies:?}");
            }
        }
    }
}
