//! What the programs that store all the time put into their files, so that who finds one can tell.

use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use daxmap::checkpoint::{self, Strategy, WorkingSet};
use daxmap::log::{Log, LogOptions, Lsn};
use daxmap::pages::{PageOptions, Pages};
use daxmap::state::{State, StateOptions};
use daxmap::{AnyRegion, Options, Result};

use crate::careless::Careless;
use crate::load::Care;
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
    /// Pages that are replaced whole, in turn.
    Pages,
}

impl Structure {
    /// All that can be stored into by [`Stores`].
    pub const ALL: [Self; 5] = [Self::State, Self::Log, Self::Shadow, Self::Redo, Self::Pages];

    /// What it is called on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Log => "log",
            Self::Shadow => "shadow",
            Self::Redo => "redo",
            Self::Pages => "pages",
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

/// How many pages are replaced in turn, and their bytes.
const PAGES: u64 = 4;
const PAGE_BYTES: u64 = 16384;
/// Bytes of all of them.
pub const PAGES_BYTES: u64 = PAGES * PAGE_BYTES;

/// Replaces the page whose turn it is at this number.
///
/// # Errors
///
/// Those of the library.
pub fn replace<R: daxmap::Region>(pages: &Pages<R>, number: u64) -> Result<()> {
    let page = number.to_le_bytes().repeat(PAGE_BYTES as usize / 8);
    pages.write_atomic(number % PAGES * PAGE_BYTES, &page)
}

/// How the pages are made: by the kernel, where it writes them whole.
#[must_use]
pub fn page_options() -> PageOptions {
    PageOptions::new().kernel(true)
}

fn found_in_pages(path: &Path, region: Options) -> Result<u64> {
    let pages = page_options().region(region).open(path)?;
    let mut numbers = [0; PAGES as usize];
    for (place, number) in (0..).zip(&mut numbers) {
        let mut page = vec![0; PAGE_BYTES as usize];
        pages.read(place * PAGE_BYTES, &mut page)?;
        let (word, _) = page.split_first_chunk().expect("a page has words");
        *number = u64::from_le_bytes(*word);
        assert!(page == word.repeat(PAGE_BYTES as usize / 8), "page {place} is torn");
    }
    pages.abandon();
    let last = numbers.into_iter().max().unwrap_or(0);
    for (place, number) in (0..).zip(numbers) {
        let newest = (last.saturating_sub(PAGES - 1)..=last).find(|n| n % PAGES == place);
        assert_eq!(number, newest.unwrap_or(0), "page {place} is another: {numbers:?}");
    }
    Ok(last)
}

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
        Structure::Pages => found_in_pages(path, region),
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

/// All structures in one directory, stored into in turn: step `n` stores number `n / 5` into one of
/// them, rounded up.
#[derive(Debug)]
pub struct Stores {
    state: State<[u64; STATE_WORDS], Careless<AnyRegion>>,
    log: Log<Careless<AnyRegion>>,
    shadow: WorkingSet<Careless<AnyRegion>>,
    redo: WorkingSet<Careless<AnyRegion>>,
    pages: Pages<Careless<AnyRegion>>,
    steps: u64,
}

fn file(directory: &Path, structure: Structure) -> PathBuf {
    directory.join(structure.name())
}

/// How many numbers a structure has after so many steps.
fn numbers(steps: u64, place: u64) -> u64 {
    let all = Structure::ALL.len() as u64;
    (steps + all - 1 - place) / all
}

impl Stores {
    /// Makes what is missing, durable, and goes on where the files say, with this care.
    ///
    /// # Errors
    ///
    /// Those of the library.
    ///
    /// # Panics
    ///
    /// If the directory cannot be made, or the files hold what the steps cannot have left.
    pub fn open(directory: &Path, care: Care) -> Result<Self> {
        std::fs::create_dir_all(directory).expect("a directory can be made");
        let path = |structure| file(directory, structure);
        for structure in Structure::ALL {
            let path = path(structure);
            match structure {
                _ if path.exists() => {}
                Structure::State => State::create(path, &[0_u64; STATE_WORDS])?.close()?,
                Structure::Log => log_options(Options::new()).create(path)?.close()?,
                Structure::Pages => page_options().create(path, PAGES_BYTES)?.close()?,
                set => set_options(Options::new(), set).create(path)?.close()?,
            }
        }
        let steps = found_steps(directory)?;
        let region = |structure| -> Result<_> {
            Ok(Careless::new(Options::new().open(path(structure))?, care))
        };
        let set = |structure| {
            let options = set_options(Options::new(), structure);
            WorkingSet::open(region(structure)?, &options)
        };
        Ok(Self {
            state: StateOptions::new().open_region(region(Structure::State)?)?,
            log: log_options(Options::new()).open_region(region(Structure::Log)?)?,
            shadow: set(Structure::Shadow)?,
            redo: set(Structure::Redo)?,
            pages: page_options().open_region(region(Structure::Pages)?)?,
            steps,
        })
    }

    /// What lies under the files.
    #[must_use]
    pub fn backend(&self) -> String {
        let region = self.state.region();
        format!(
            "backend={} durability={}",
            daxmap::Region::backend(region),
            self.state.durability()
        )
    }

    /// The last step that is done.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Does the next step and returns its number.
    ///
    /// # Errors
    ///
    /// Those of the library.
    pub fn step(&mut self) -> Result<u64> {
        let all = Structure::ALL.len() as u64;
        let (number, place) = (self.steps / all + 1, self.steps % all);
        match Structure::ALL[place as usize] {
            Structure::State => self.state.store(&[number; STATE_WORDS])?,
            Structure::Log => {
                self.log.append(&payload(number))?;
                let released = Lsn::new(released(number));
                if released > self.log.released() {
                    self.log.release_up_to(released)?;
                }
            }
            Structure::Shadow => save(&mut self.shadow, number)?,
            Structure::Redo => save(&mut self.redo, number)?,
            Structure::Pages => replace(&self.pages, number)?,
        }
        self.steps += 1;
        Ok(self.steps)
    }
}

/// Changes what checkpoint `number` changes, and takes it.
///
/// # Errors
///
/// Those of the library.
pub fn save<R: daxmap::Region>(set: &mut WorkingSet<R>, number: u64) -> Result<()> {
    for at in changed(number) {
        set.write(at, &number.to_le_bytes())?;
    }
    set.checkpoint().map(drop)
}

/// How many steps the files hold.
fn found_steps(directory: &Path) -> Result<u64> {
    let mut found_in = [0; Structure::ALL.len()];
    for (found_in, structure) in found_in.iter_mut().zip(Structure::ALL) {
        *found_in = found(structure, &file(directory, structure), Options::new())?;
    }
    let steps = found_in.iter().sum();
    for (place, found) in (0..).zip(found_in) {
        assert_eq!(
            found,
            numbers(steps, place),
            "numbers that the steps cannot have left: {found_in:?}"
        );
    }
    Ok(steps)
}

/// Opens what [`Stores`] left in a directory: the last step done must be among those `possible`.
///
/// # Errors
///
/// What is missing, torn, or there without having been stored.
pub fn check(directory: &Path, possible: &RangeInclusive<u64>) -> std::result::Result<u64, String> {
    let steps = in_words(|| found_steps(directory))?;
    if !possible.contains(&steps) {
        return Err(format!("{steps} steps are there, of {possible:?}"));
    }
    Ok(steps)
}

/// As [`found`], without a panic.
///
/// # Errors
///
/// What the library says, or what is there that cannot be.
pub fn looked_for(structure: Structure, path: &Path) -> std::result::Result<u64, String> {
    in_words(|| found(structure, path, Options::new()))
}

fn in_words(look: impl FnOnce() -> Result<u64>) -> std::result::Result<u64, String> {
    match catch_unwind(AssertUnwindSafe(look)) {
        Ok(found) => found.map_err(|error| error.to_string()),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Err(words.unwrap_or_else(|| "what is there cannot be".to_owned()))
        }
    }
}
