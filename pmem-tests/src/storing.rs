//! What the program that stores all the time puts into its files, so that who finds one can tell.

use std::path::Path;

use daxmap::checkpoint::{self, Strategy};
use daxmap::log::{LogOptions, Lsn};
use daxmap::state::State;
use daxmap::{Options, Result};

use crate::random::mix;

/// What is stored into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// A state of 4 KiB.
    State,
    /// A log, of which old records are released.
    Log,
    /// A working set, saved by shadow pages.
    Shadow,
    /// A working set, saved by a redo record.
    Redo,
}

impl Structure {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::State, Self::Log, Self::Shadow, Self::Redo];

    /// What it is called on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Log => "log",
            Self::Shadow => "shadow",
            Self::Redo => "redo",
        }
    }

    /// The one that is called so.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|structure| structure.name() == name)
    }
}

/// Every word of a state is its number: half of one and half of another would show.
pub const STATE_WORDS: usize = 512;

/// Bytes of a log, in segments of which a few thousand records need many lives.
const LOG_BYTES: u64 = 1 << 20;
const SEGMENT_BYTES: u64 = 64 << 10;
/// After so many records, all but the newest few are released.
const RELEASED_EVERY: u64 = 100;
const LEFT: u64 = 20;

/// How the log is made.
#[must_use]
pub fn log_options(region: Options) -> LogOptions {
    LogOptions::new().region(region.len(LOG_BYTES)).segment_bytes(SEGMENT_BYTES)
}

/// The payload of a record: up to 1 KiB that follow from its Lsn.
#[must_use]
pub fn payload(lsn: u64) -> Vec<u8> {
    let mut bytes = lsn.to_le_bytes().to_vec();
    bytes.resize(8 + (mix(lsn) % 1000) as usize, lsn as u8 ^ 0x5a);
    bytes
}

/// Up to which Lsn records may be released when this is the last one.
#[must_use]
pub const fn released(last: u64) -> u64 {
    (last / RELEASED_EVERY * RELEASED_EVERY).saturating_sub(LEFT)
}

/// Bytes of a working set.
pub const SET_BYTES: u64 = 32 * 4096;
/// Places that change from one checkpoint to the next.
const PLACES: u64 = 6;

/// How the working set is made.
#[must_use]
pub fn set_options(region: Options, structure: Structure) -> checkpoint::Options {
    let options = checkpoint::Options::new(SET_BYTES).region(region);
    match structure {
        Structure::Redo => options.strategy(Strategy::Redo),
        _ => options.strategy(Strategy::Shadow).keep(2),
    }
}

/// What checkpoint `number` changes: offsets of words that become the number.
pub fn changed(number: u64) -> impl Iterator<Item = u64> {
    (0..PLACES).map(move |place| mix(number * PLACES + place) % (SET_BYTES / 8) * 8)
}

/// What a file holds: the number stored last.
///
/// # Errors
///
/// What the library says to a file that it cannot open.
///
/// # Panics
///
/// If it holds something that was never stored as a whole.
pub fn found(structure: Structure, path: &Path, region: Options) -> Result<u64> {
    match structure {
        Structure::State => {
            let state = State::<[u64; STATE_WORDS]>::open(path)?;
            let value = state.load();
            assert!(value.iter().all(|&word| word == value[0]), "torn");
            Ok(value[0])
        }
        Structure::Log => found_in_log(path, region),
        Structure::Shadow | Structure::Redo => found_in_set(structure, path, region),
    }
}

fn found_in_log(path: &Path, region: Options) -> Result<u64> {
    let log = log_options(region).open(path)?;
    let (last, released_up_to) = (log.last().get(), log.released().get());
    assert!(released_up_to <= released(last), "{released_up_to} of {last} are released");
    let mut next = released_up_to;
    for record in log.reader(Lsn::ZERO)? {
        let (lsn, bytes) = record?;
        next += 1;
        assert_eq!(lsn.get(), next, "a record is missing");
        assert!(bytes == payload(next), "record {next} is another");
    }
    assert_eq!(next, last, "records at the end are missing");
    Ok(last)
}

fn found_in_set(structure: Structure, path: &Path, region: Options) -> Result<u64> {
    let mut set = set_options(region, structure).open(path)?;
    let mut expected = vec![0; SET_BYTES as usize];
    let mut done = 0;
    for kept in set.list() {
        for number in done + 1..=kept.sequence {
            for at in changed(number) {
                expected[at as usize..][..8].copy_from_slice(&number.to_le_bytes());
            }
        }
        done = kept.sequence;
        set.restore(done)?;
        assert!(set.bytes() == expected, "checkpoint {done} is another");
    }
    set.abandon();
    Ok(done)
}
