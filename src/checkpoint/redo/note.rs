//! The note: which checkpoint is the newest, and whether the places are whole.

use super::super::record::{self, Checkpoint, Entry, RECORD_BYTES};
use crate::format::check::Key;
use crate::format::header::HEADER_AREA;
use crate::format::redo::word;
use crate::primitives::primitive;

/// Where the note is.
pub(super) const NOTE: u64 = HEADER_AREA;

/// Bytes of the note, in whole lines.
pub(in crate::checkpoint) const NOTE_BYTES: usize = 128;
/// Bytes that its check value covers.
pub(super) const NOTED: usize = RECORD_BYTES + 8;

/// What the note says of the places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// They may be the work of this checkpoint and the one before.
    Mixed,
    Whole,
}

pub(super) fn note(key: Key, checkpoint: &Checkpoint, state: State) -> [u8; NOTE_BYTES] {
    let mut bytes = [0; NOTE_BYTES];
    bytes[8..8 + RECORD_BYTES].copy_from_slice(&record::encode(checkpoint, Entry::default()));
    bytes[8 + RECORD_BYTES] = u8::from(state == State::Whole);
    let check = key.check(NOTE, &bytes[8..8 + NOTED]);
    bytes[..8].copy_from_slice(&check.to_le_bytes());
    bytes
}

pub(super) fn read_note(key: Key, bytes: &[u8]) -> Option<(Checkpoint, State)> {
    let noted = bytes.get(8..8 + NOTED)?;
    let valid = key.check(NOTE, noted) == word(bytes, 0)?;
    if !primitive!("checkpoint.redo.note_check", valid, true) {
        return None;
    }
    let state = if word(noted, RECORD_BYTES)? == 1 { State::Whole } else { State::Mixed };
    Some((record::decode(noted.get(..RECORD_BYTES)?)?.0, state))
}
