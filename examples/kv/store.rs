//! The store: a log of changes, snapshots, and a state that says which snapshot holds.
//!
//! | file | what |
//! |---|---|
//! | `state` | the number of the newest snapshot, and the Lsn of the last change in it |
//! | `snapshot-N` | all pairs at that change |
//! | `log` | the changes since |
//!
//! A compaction writes the next snapshot (1), stores its number and Lsn in the state (2), releases the
//! log up to there (3), and removes the snapshot before (4). A crash before 2 is done leaves the old
//! snapshot with all the changes since, and a file that nothing refers to; one after it leaves the
//! new snapshot, and changes in the log that it already has: they are skipped by their Lsns. Opening
//! does what is left of 3 and 4.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use daxmap::log::{Log, LogOptions, Lsn};
use daxmap::publish::clean_leftovers;
use daxmap::state::{State, StateOptions};
use daxmap::{AnyRegion, Error, ErrorKind, Options};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::record::{Pairs, apply, encode};
use crate::snapshot;

/// What fails here.
#[derive(Debug)]
pub enum Failure {
    Library(Error),
    Io(io::Error),
    Damaged(&'static str),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Library(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
            Self::Damaged(what) => write!(f, "damaged: {what}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A megabyte holds thousands of changes; a pair of up to 55 KiB fits in one of its segments.
const LOG_BYTES: u64 = 1 << 20;

/// Where the pairs are.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Position {
    /// The number of the newest snapshot; 0 if there is none.
    snapshot: U64,
    /// The Lsn of the last change that is in it.
    lsn: U64,
}

impl Position {
    fn lsn(&self) -> Lsn {
        Lsn::new(self.lsn.get())
    }

    /// The pairs, of this snapshot and this log.
    fn recover(&self, directory: &Path, log: &Log<AnyRegion>) -> Result<Pairs, Failure> {
        // There is one writer: no commit is missing where a later one is there.
        if log.last() < self.lsn() || log.released() > self.lsn() || log.recovery().missing > 0 {
            return Err(Failure::Damaged("log, state and snapshot do not belong together"));
        }
        let mut pairs = match self.snapshot.get() {
            0 => Pairs::new(),
            number => snapshot::read(&snapshot::path(directory, number))?,
        };
        for record in log.reader(self.lsn().next())? {
            let (_, bytes) = record?;
            apply(&mut pairs, &bytes).ok_or(Failure::Damaged("a record of the log"))?;
        }
        Ok(pairs)
    }
}

/// An open store. One process has it at a time.
pub struct Store {
    directory: PathBuf,
    state: State<Position>,
    log: Log<AnyRegion>,
    pairs: Pairs,
}

impl Store {
    /// Opens the store in a directory, or makes it.
    pub fn open(directory: &Path) -> Result<Self, Failure> {
        make_directory(directory)?;
        // Of a process that was killed while it made a file.
        clean_leftovers(directory)?;
        let state = State::open_or_create(directory.join("state"), &Position::default())?;
        let position = state.load();
        let options = LogOptions::new().region(Options::new().len(LOG_BYTES));
        let path = directory.join("log");
        // Once something refers to the log, another one must not take its place.
        let log = if position.lsn() == Lsn::ZERO {
            options.open_or_create(path)?
        } else {
            options.open(path)?
        };
        let pairs = position.recover(directory, &log)?;
        let store = Self { directory: directory.to_owned(), state, log, pairs };
        store.finish_compaction()?;
        Ok(store)
    }

    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.pairs.get(key).map(Vec::as_slice)
    }

    /// Sets a value, durable on return. After an error it may be set or not: what holds is seen when
    /// the store is opened anew.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.change(&encode(key, Some(value)))
    }

    /// Deletes a key, durable on return; false if there is none.
    pub fn delete(&mut self, key: &[u8]) -> Result<bool, Failure> {
        if !self.pairs.contains_key(key) {
            return Ok(false);
        }
        self.change(&encode(key, None))?;
        Ok(true)
    }

    fn change(&mut self, change: &[u8]) -> Result<(), Failure> {
        match self.log.append(change) {
            Err(error) if matches!(error.kind(), ErrorKind::Full { .. }) => {
                self.compact()?;
                self.log.append(change)?;
            }
            appended => drop(appended?),
        }
        // In memory last: a reader of this process sees nothing that a crash may take.
        apply(&mut self.pairs, change).ok_or(Failure::Damaged("a change"))
    }

    /// Saves all pairs as a snapshot, and gives the log's space back.
    pub fn compact(&mut self) -> Result<(), Failure> {
        let old = self.state.load();
        let lsn = self.log.last();
        if lsn == old.lsn() {
            return Ok(());
        }
        let number = old.snapshot.get() + 1;
        snapshot::write(&snapshot::path(&self.directory, number), &self.pairs)?;
        self.state.store(&Position { snapshot: number.into(), lsn: lsn.get().into() })?;
        self.finish_compaction()
    }

    /// Frees what only the snapshot before needed.
    fn finish_compaction(&self) -> Result<(), Failure> {
        let position = self.state.load();
        self.log.release_up_to(position.lsn())?;
        let number = position.snapshot.get();
        for stray in [number.checked_sub(1), Some(number + 1)].into_iter().flatten() {
            snapshot::remove(&snapshot::path(&self.directory, stray))?;
        }
        Ok(())
    }

    /// Closes both files, and reports what dropping them could not.
    pub fn close(self) -> Result<(), Failure> {
        self.log.close()?;
        Ok(self.state.close()?)
    }
}

/// Reads the pairs of a store that another process may have open, and changes nothing.
pub fn view(directory: &Path) -> Result<Pairs, Failure> {
    // A compaction, or a commit that is being written, is in the way for a moment.
    const TRIES: u32 = 16;
    let look = || {
        let state = StateOptions::<Position>::new().read_only(true);
        let position = state.open(directory.join("state"))?.load();
        let log = LogOptions::new().read_only(true).open(directory.join("log"))?;
        position.recover(directory, &log)
    };
    let mut seen = look();
    for _ in 1..TRIES {
        if seen.is_ok() {
            break;
        }
        seen = look();
    }
    seen
}

/// Makes the directory, durable on return.
fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::create_dir(directory)?;
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
