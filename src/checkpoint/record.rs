//! What is kept about a checkpoint: which, when, how much, called what.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | sequence number; 0 is the set as it was formatted, all zero |
//! | 8 | 8 | time, nanoseconds since 1970; 0: none was recorded |
//! | 16 | 8 | bytes of the working set that it wrote |
//! | 24 | 8 | shadow pages: the page of the file that holds the top of its page table; 0: no page yet |
//! | 32 | 8 | shadow pages: check value of that page |
//! | 40 | 1 | length of the label in bytes |
//! | 41 | 55 | the label, UTF-8; then zeros |

use std::time::{Duration, SystemTime};

use crate::error::{Error, ErrorKind, Operation, Result};

/// Bytes of a record.
pub(super) const RECORD_BYTES: usize = 96;
/// The longest label, in bytes.
pub const LABEL_MAX: usize = 55;

/// A checkpoint that the file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// Its number: one more than that of the checkpoint before. Number 0 is the set as it was
    /// formatted, all zero.
    pub sequence: u64,
    /// When it was taken, by the clock of the machine. `None` for number 0, and where a seed was
    /// given ([`Options::seed`](super::Options::seed)).
    pub time: Option<SystemTime>,
    /// Bytes of the working set that it wrote: whole pages, or whole lines of 64 bytes.
    pub bytes: u64,
    /// What it was called, or nothing.
    pub label: String,
}

impl Checkpoint {
    /// The set before anything was saved.
    pub(super) fn blank() -> Self {
        Self { sequence: 0, time: None, bytes: 0, label: String::new() }
    }
}

/// Refuses a label that does not fit.
pub(super) fn check_label(label: &str) -> Result<()> {
    if label.len() > LABEL_MAX {
        let kind = ErrorKind::TooLarge { max: LABEL_MAX as u64 };
        return Err(Error::new(Operation::Checkpoint, kind));
    }
    Ok(())
}

/// A page of the file, and what it must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Offset in the file divided by 4096; 0 for zeros that are nowhere.
    pub(super) page: u64,
    pub(super) check: u64,
}

pub(super) fn encode(checkpoint: &Checkpoint, top: Entry) -> [u8; RECORD_BYTES] {
    let since = checkpoint.time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let nanoseconds = since.and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0);
    let words = [checkpoint.sequence, nanoseconds, checkpoint.bytes, top.page, top.check];
    let mut bytes = [0; RECORD_BYTES];
    for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let label = checkpoint.label.as_bytes();
    bytes[40] = label.len() as u8;
    bytes[41..41 + label.len()].copy_from_slice(label);
    bytes
}

/// `None` if the bytes are no record: they are checked before, so this is no damage by chance.
pub(super) fn decode(bytes: &[u8]) -> Option<(Checkpoint, Entry)> {
    let word = |at: usize| {
        let eight = bytes.get(at..at + 8)?.try_into().ok()?;
        Some(u64::from_le_bytes(eight))
    };
    let time = match word(8)? {
        0 => None,
        nanoseconds => Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds)),
    };
    let label = bytes.get(41..RECORD_BYTES)?.get(..usize::from(bytes[40]))?;
    let label = std::str::from_utf8(label).ok()?.to_owned();
    let checkpoint = Checkpoint { sequence: word(0)?, time, bytes: word(16)?, label };
    Some((checkpoint, Entry { page: word(24)?, check: word(32)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_nonsense_is_not() {
        let checkpoint = Checkpoint {
            sequence: 7,
            time: Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(1_234_567_890_123)),
            bytes: 8192,
            label: "ä".repeat(27) + "x",
        };
        let top = Entry { page: 12, check: 34 };
        let bytes = encode(&checkpoint, top);
        assert_eq!(decode(&bytes), Some((checkpoint, top)));
        for len in 0..RECORD_BYTES {
            assert_eq!(decode(&bytes[..len]), None);
        }
        let mut too_long = bytes;
        too_long[40] = 56;
        assert_eq!(decode(&too_long), None);
        let mut half_a_letter = bytes;
        half_a_letter[40] = 53;
        assert_eq!(decode(&half_a_letter), None);
        check_label(&"x".repeat(LABEL_MAX)).unwrap();
        assert!(check_label(&"x".repeat(LABEL_MAX + 1)).is_err());
    }
}
