//! How bytes on the medium say what they are: what `log`, `state` and `checkpoint` have in
//! common.
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
//! | `cell` | how is a small value replaced so that a crash leaves the old or the new one? |

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(crate) mod cell;
pub(crate) mod check;
pub(crate) mod header;
pub(crate) mod salts;

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
