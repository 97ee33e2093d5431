//! How bytes on the medium say what they are: what `log`, `state`, `checkpoint` and
//! `pages` have in common.
//!
//! `FORMAT.md` has it byte by byte. All numbers are little-endian. Nothing is believed that does
//! not validate: a check value covers it, keyed by a random salt and by its place, so that bytes of
//! another file, of another place or of an earlier life of the place are not taken for it.
//!
//! | file | question |
//! |---|---|
//! | `check` | are these the bytes that were written here? |
//! | `salts` | where does the random part of the key come from? |
//! | `header` | what is this file, in which version, and is it complete? |
//! | `opening` | is it open, and did its memory lose power unsaved since it was opened? |
//! | `cell` | how is a small value replaced so that a crash leaves the old or the new one? |
//! | `redo` | how are bytes of any number replaced in their places, so that it leaves the old or the new ones? |
//! | `writer` | how are many pieces written in few calls? |

use crate::error::Result;
use crate::region::Region;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(crate) mod cell;
pub(crate) mod check;
pub(crate) mod header;
pub(crate) mod opening;
pub(crate) mod redo;
pub(crate) mod salts;
pub(crate) mod writer;

/// What is laid out apart starts at a multiple of this many bytes: no write of one part touches a
/// page, a sector or a line of the other, on any medium.
pub(crate) const PAGE: u64 = 4096;

/// The unit in which stores reach a persistent memory, in bytes: what is written together begins
/// and ends at a multiple of it, so that no line is written twice.
pub(crate) const LINE: u64 = 64;

/// One such line in memory.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; LINE as usize]);

impl Line {
    pub(crate) const ZERO: Self = Self([0; LINE as usize]);
}

/// How much is written over itself at once, in bytes.
const REWRITE_MAX: usize = 256 << 10;

/// Writes what is there over itself, durable after the next drain of this thread: for what may be
/// there and not durable, since the process that wrote it was killed. A region vouches only for what its
/// caller wrote, and the same bytes over themselves cannot be torn.
pub(crate) fn rewrite(region: &impl Region, from: u64, end: u64) -> Result<()> {
    let mut bytes = vec![0; (end - from).min(REWRITE_MAX as u64) as usize];
    let mut at = from;
    while at < end {
        let len = (end - at).min(REWRITE_MAX as u64);
        let piece = &mut bytes[..len as usize];
        region.read(at, piece)?;
        region.write_flush(at, piece)?;
        at += len;
    }
    Ok(())
}

#[cfg(test)]
mod golden;
#[cfg(all(test, feature = "counters"))]
mod tests {
    use super::*;
    use crate::cpu::counts;
    use crate::{Emulation, Options};

    #[test]
    fn every_line_is_written_over_itself_once() {
        let len = 4 * REWRITE_MAX as u64;
        let region = Options::new().len(len).emulate(Emulation::Adr).in_memory().unwrap();
        let bytes: Vec<u8> = (0..len).map(|at| (at / 64 % 251) as u8).collect();
        region.write(0, &bytes).unwrap();
        let most = REWRITE_MAX as u64;
        for (from, end) in [
            (64, 64),
            (64, 128),
            (0, most),
            (128, most + 128),
            (64, most + 128),
            (0, 3 * most + 64),
        ] {
            let before = counts();
            rewrite(&region, from, end).unwrap();
            let cost = counts().since(before);
            let lines = cost.write_backs + cost.non_temporal_lines;
            assert_eq!((lines, cost.fences), ((end - from) / 64, 0), "[{from}, {end})");
        }
        let mut found = vec![0; len as usize];
        region.read(0, &mut found).unwrap();
        assert_eq!(found, bytes);
    }
}
