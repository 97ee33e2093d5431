//! What a region holds, of which type is not known: for tools.

use super::FORMATS;
use super::options::check_len;
use crate::UnsafeShutdown;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::cell::{self, Cell};
use crate::format::check::Key;
use crate::format::header::{Found, HEADER_AREA, Header, Kind};
use crate::format::opening;
use crate::region::Region;

/// What one of the two slots holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Slot {
    /// Zeros where its header would be. Of a complete state: damage.
    Blank,
    /// Bytes that do not validate: a store that a crash has torn, or damage.
    Invalid,
    /// A value.
    Valid {
        /// Number of the store, counted from 1, which is the first value.
        sequence: u64,
        /// Version of the value's layout.
        version: u32,
        /// The value's bytes.
        value: Vec<u8>,
    },
}

/// What a region holds, and how much of it is whole. Nothing is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// Version of the file's format.
    pub format: u32,
    /// How large the value may become, in bytes.
    pub capacity: u64,
    /// Which of the two copies of the header are whole, with the opening mark behind them.
    pub header_copies: [bool; 2],
    /// Where the copies of the header are, as offsets in the region.
    pub header_offsets: [u64; 2],
    /// The slots.
    pub slots: [Slot; 2],
    /// Where the slots are, as offsets in the region.
    pub slot_offsets: [u64; 2],
    /// Whether the memory under the state lost power unsaved since it was last opened for writing.
    pub unsafe_shutdown: UnsafeShutdown,
}

impl Inspection {
    /// The slot whose value an open finds; none if both are damaged.
    #[must_use]
    pub fn newest(&self) -> Option<usize> {
        let sequence = |slot: &Slot| match slot {
            Slot::Valid { sequence, .. } => Some(*sequence),
            Slot::Blank | Slot::Invalid => None,
        };
        let sequences = [0, 1].map(|index| (sequence(&self.slots[index]), index));
        // Of two equal ones, either.
        sequences.into_iter().max().filter(|(sequence, _)| sequence.is_some()).map(|(_, i)| i)
    }

    /// True if a value can be had and both copies of everything are whole: nothing to heal, but
    /// perhaps the value before in the other slot, as a state that is in use has it.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let whole = |slot: &Slot| matches!(slot, Slot::Valid { .. });
        self.header_copies == [true, true] && self.slots.iter().all(whole)
    }

    /// True if it is sound, and both slots hold the same value: nothing was stored since it was
    /// closed or opened.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_sound() && self.slots[0] == self.slots[1]
    }
}

/// Looks at a state without opening it: of any type, whole or damaged.
///
/// # Errors
///
/// `WrongFormat`, `NewerFormat`, `TooShort`; `Damaged` if both copies of the header are; and those
/// of reading. Damaged slots are no error here.
pub fn inspect(region: &impl Region) -> Result<Inspection> {
    let Found::Header { header, .. } = Header::find(region, Kind::State, FORMATS)? else {
        return Err(Error::new(Operation::Open, ErrorKind::WrongFormat(Kind::State.name())));
    };
    let capacity = super::options::capacity(&header)?;
    check_len(region, Operation::Open, HEADER_AREA + Cell::bytes(capacity))?;
    let (mark, copies) = (opening::look(region, &header)?, Header::copies(region)?);
    let cell = Cell::new(HEADER_AREA, capacity, Key::new(header.salt));
    let slots = cell.slots(region)?.map(|slot| match slot {
        cell::Slot::Blank => Slot::Blank,
        cell::Slot::Invalid => Slot::Invalid,
        cell::Slot::Valid(stored) => {
            Slot::Valid { sequence: stored.sequence, version: stored.version, value: stored.value }
        }
    });
    Ok(Inspection {
        format: header.version,
        capacity: u64::from(capacity),
        header_copies: [0, 1].map(|copy| copies[copy] == Some(header) && mark.whole[copy]),
        header_offsets: Header::OFFSETS,
        slots,
        slot_offsets: [cell.slot(0), cell.slot(1)],
        unsafe_shutdown: mark.unsafe_shutdown,
    })
}
