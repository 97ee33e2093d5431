//! The state, where it lies in the file, and the rule by which it changes.
//!
//! The file holds two copies of the state, each in a slot with its sequence number and a
//! checksum over both. Update `n` overwrites the slot of update `n - 2`; the slot of `n - 1`
//! stays whole meanwhile. The state is the slot with the highest number among those whose
//! checksum is right. So it does not matter where in an update the process stops, nor, after a
//! power cut, which words of the unfinished slot reached the medium.

#![allow(unsafe_code)]

use std::error::Error;
use std::fs::{self, File};
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use daxmap::{AnyRegion, ErrorKind, Options, Region};
use memmap2::MmapRaw;

/// Words of state that the program cares about.
pub const VALUES: usize = 62;
/// Bytes of one slot: 512.
const SLOT: usize = (VALUES + 2) * 8;
/// Bytes of the file: two slots, each at the start of a page of its own.
const PAGE: usize = 4096;
pub const FILE_BYTES: usize = 2 * PAGE;

/// How the file is reached, and with that what an update survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// Stores through `MAP_SHARED`, nothing synced.
    Mapping,
    /// A region; every update is persisted.
    Region,
}

/// How an update overwrites the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The older of two slots.
    TwoSlots,
    /// The only slot there is: what must go wrong.
    InPlace,
}

impl FromStr for Through {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "mapping" => Ok(Self::Mapping),
            "region" => Ok(Self::Region),
            other => Err(format!("{other}: mapping or region")),
        }
    }
}

impl FromStr for Rule {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "two-slots" => Ok(Self::TwoSlots),
            "in-place" => Ok(Self::InPlace),
            other => Err(format!("{other}: two-slots or in-place")),
        }
    }
}

impl std::fmt::Display for Through {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mapping => "mapping",
            Self::Region => "region",
        })
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TwoSlots => "two-slots",
            Self::InPlace => "in-place",
        })
    }
}

/// The state after update `sequence`. Each word depends on the number, so that a mixture of two
/// states is recognised without the checksum's help.
pub fn values_of(sequence: u64) -> [u64; VALUES] {
    std::array::from_fn(|i| (sequence + i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// Where the words of one slot lie in memory. All of them are atomics: the compiler may neither
/// split a store nor leave one out, and the next process may read at any moment.
#[repr(C)]
struct Slot {
    sequence: AtomicU64,
    checksum: AtomicU64,
    values: [AtomicU64; VALUES],
}

const _: () = assert!(size_of::<Slot>() == SLOT && SLOT <= PAGE);

fn checksum(sequence: u64, values: &[u64; VALUES]) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    for value in values {
        hasher.update(&value.to_le_bytes());
    }
    // Not zero for a slot of zeros: a new file has no state.
    u64::from(hasher.finalize()) | 1 << 32
}

/// What the next opener finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Number of the newest whole state; 0 if there is none yet.
    pub sequence: u64,
    /// The other slot was begun and not finished.
    pub interrupted: bool,
}

/// Reads the state with read(2), which sees the same page cache as any mapping.
///
/// # Errors
///
/// If the file cannot be read, or no slot is whole although one was begun: under the rule of two
/// slots that would be a lost state.
pub fn recover(path: &Path) -> Result<Found, Box<dyn Error>> {
    let bytes = fs::read(path)?;
    let slots = [slot_of(&bytes, 0), slot_of(&bytes, PAGE)];
    let whole = |slot: &&Contents| slot.checksum == checksum(slot.sequence, &slot.values);
    let empty =
        |slot: &Contents| slot.checksum == 0 && slot.sequence == 0 && slot.values == [0; VALUES];
    let begun = slots.iter().filter(|slot| !empty(slot)).count();
    let newest = slots.iter().filter(whole).max_by_key(|slot| slot.sequence);
    let interrupted = slots.iter().filter(whole).count() < begun;
    match newest {
        Some(slot) if slot.values == values_of(slot.sequence) => {
            Ok(Found { sequence: slot.sequence, interrupted })
        }
        Some(slot) => {
            Err(format!("update {}: the checksum missed a mixture", slot.sequence).into())
        }
        // The very first update may be cut short: then there was no state, and there is none.
        None if begun <= 1 => Ok(Found { sequence: 0, interrupted }),
        None => Err("no slot is whole".into()),
    }
}

struct Contents {
    sequence: u64,
    checksum: u64,
    values: [u64; VALUES],
}

fn slot_of(bytes: &[u8], at: usize) -> Contents {
    let word = |i: usize| {
        let word = bytes.get(at + i * 8..at + i * 8 + 8).and_then(|word| word.try_into().ok());
        u64::from_ne_bytes(word.unwrap_or_default())
    };
    Contents { sequence: word(0), checksum: word(1), values: std::array::from_fn(|i| word(i + 2)) }
}

/// The state of the running program.
pub struct State {
    rule: Rule,
    sequence: u64,
    memory: Memory,
}

enum Memory {
    /// The mapping stays for as long as the state; nobody truncates the file.
    Mapping(MmapRaw),
    /// A region that lets the program store in place (DAX, tmpfs).
    InPlace(AnyRegion),
    /// A region that wants to be written to (every other filesystem).
    Written(AnyRegion),
}

impl State {
    /// Opens the file, makes it if it is not there, and goes on from what it holds.
    pub fn open(path: &Path, through: Through, rule: Rule) -> Result<Self, Box<dyn Error>> {
        let memory = match through {
            Through::Mapping => {
                let file = File::options()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(path)?;
                // A file of the right length is left alone: it holds the state.
                if file.metadata()?.len() < FILE_BYTES as u64 {
                    file.set_len(FILE_BYTES as u64)?;
                }
                Memory::Mapping(MmapRaw::map_raw(&file)?)
            }
            Through::Region => {
                let region = Options::new().len(FILE_BYTES as u64).open_or_create(path)?;
                // SAFETY: the slice is dropped at once; this asks whether there are any.
                match unsafe { region.slice_mut(0, FILE_BYTES as u64) }.map(drop) {
                    Ok(()) => Memory::InPlace(region),
                    Err(error) if matches!(error.kind(), ErrorKind::Unsupported(_)) => {
                        Memory::Written(region)
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        };
        let sequence = match rule {
            Rule::TwoSlots => recover(path)?.sequence,
            // The number of the only slot, whatever else is in it.
            Rule::InPlace => slot_of(&fs::read(path)?, 0).sequence,
        };
        Ok(Self { rule, sequence, memory })
    }

    /// Number of the last finished update.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Replaces the state by the next one. When it returns, the new state survives the process
    /// (through a mapping) or what the region says (through a region).
    #[allow(clippy::cast_ptr_alignment)] // slots begin at a page
    pub fn update(&mut self) -> Result<(), Box<dyn Error>> {
        let sequence = self.sequence + 1;
        let values = values_of(sequence);
        let at = match self.rule {
            Rule::TwoSlots => (sequence % 2) as usize * PAGE,
            Rule::InPlace => 0,
        };
        let sum = checksum(sequence, &values);
        match &self.memory {
            Memory::Mapping(mapping) => {
                // SAFETY: `at` is 0 or PAGE, so the slot lies inside the FILE_BYTES that are
                // mapped, page-aligned; any bytes are a valid Slot, and all access is atomic.
                let slot = unsafe { &*mapping.as_mut_ptr().add(at).cast::<Slot>() };
                store(slot, sequence, sum, &values);
            }
            Memory::InPlace(region) => {
                // SAFETY: this process is the only one that has the region (it is locked), the
                // file is not truncated by anybody, and there is one slice at a time.
                let bytes = unsafe { region.slice_mut(at as u64, SLOT as u64)? };
                // SAFETY: the slice is SLOT bytes long and starts at a page; any bytes are a
                // valid Slot, and all access through it is atomic.
                let slot = unsafe { &*bytes.as_mut_ptr().cast::<Slot>() };
                store(slot, sequence, sum, &values);
                region.persist(at as u64, SLOT as u64)?;
            }
            Memory::Written(region) => {
                let words = [sequence, sum].into_iter().chain(values);
                let bytes: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
                region.write_persist(at as u64, &bytes)?;
            }
        }
        self.sequence = sequence;
        Ok(())
    }
}

/// The checksum makes every order of these stores right; `Release` on the last one only keeps
/// the compiler from mixing two updates.
fn store(slot: &Slot, sequence: u64, sum: u64, values: &[u64; VALUES]) {
    slot.sequence.store(sequence, Ordering::Relaxed);
    for (word, value) in slot.values.iter().zip(values) {
        word.store(*value, Ordering::Relaxed);
    }
    slot.checksum.store(sum, Ordering::Release);
}
