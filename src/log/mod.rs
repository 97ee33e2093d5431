//! An append-only log: one write and one drain a commit, and recovery that says what it found.
//!
//! ```
//! use daxmap::Options;
//! use daxmap::log::{LogOptions, Lsn};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("wal");
//! let options = LogOptions::new().region(Options::new().len(16 << 20));
//! let log = options.open_or_create(&path)?;
//! let lsn = log.append(b"a record")?;             // durable on return
//!
//! let mut writer = log.writer();                  // one for each thread
//! for change in ["many", "records,", "one drain"] {
//!     writer.stage(change.as_bytes())?;
//! }
//! let lsns = writer.commit()?;                    // all of them or, after a crash, none
//! assert_eq!(lsns, Lsn::new(2)..Lsn::new(5));
//! drop(writer);
//!
//! for record in log.reader(Lsn::ZERO)? {         // from the oldest that is kept
//!     let (lsn, payload) = record?;
//!     println!("{lsn}: {} bytes", payload.len());
//! }
//! log.release_up_to(lsn)?;                        // applied elsewhere: its space is used again
//! log.close()?;
//! # Ok::<(), daxmap::Error>(())
//! ```
//!
//! # What is promised
//!
//! - A commit that has returned `Ok` survives what the region's
//!   [`durability`](Region::durability) names, whole. One that has not is there whole after a crash,
//!   or not at all.
//! - Lsns are dense, and their order is the order of commits. A gap is left only by commits that a
//!   crash has cut while others, by other writers, were durable.
//! - Nothing that was in the space before is taken for a record: blocks are checked with a key that
//!   contains a random number drawn when the space's present life begins, and the place. Nor does a
//!   record come back that was truncated or released, whatever crashes when.
//! - Recovery tells a commit that a crash has cut, which it drops, from damage. It is damage where
//!   something later says that the place was durable: a later commit, the header of the segment, or
//!   the close. Damage is an error with its range, and nothing is cut: whoever wants the rest asks for
//!   it with [`LogOptions::accept_damage`]. Of the last commit before a crash, damage and crash look
//!   the same.
//!
//! # What it costs
//!
//! A commit is whole cache lines, each written and flushed once, and one
//! [`drain`](Region::drain): a fence on persistent memory, one `fdatasync` elsewhere, there shared by
//! all threads that wait. Where a segment is begun, there is one drain more (two, where the unit of a
//! flush is a page). [`Log::release_up_to`] takes one, [`Log::release_lazily`] none of its
//! own, [`Log::truncate_after`] two.
//!
//! # Appending without waiting
//!
//! [`Log::submit`] gives records their Lsns and returns a [`Ticket`]: wait for it, await it in a task of any
//! runtime, or have a function called. On persistent memory the records are durable by then. Elsewhere one
//! sync serves everything that was submitted before it began, and whoever waits leads it; there is no
//! thread of the log's own, so somebody waits, polls, or calls [`Log::drive`].
//!
//! ```
//! # use daxmap::{Options, log::LogOptions};
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("wal");
//! # let log = LogOptions::new().region(Options::new().len(16 << 20)).create(&path)?;
//! let first = log.submit(["one", "two"])?;
//! let second = log.submit(["three"])?;
//! second.on_durable(|lsns| println!("durable: {lsns:?}"));
//! let lsns = first.wait()?;                       // one sync for both
//! assert!(lsns.end <= log.durable_up_to().next());
//! # Ok::<(), daxmap::Error>(())
//! ```
//!
//! # Segments and writers
//!
//! The space is divided into segments. Where a flush works on bytes or lines, each writer has a
//! segment of its own, and threads do not wait for each other; so there should be at least twice as
//! many segments as writers. Elsewhere all writers share one, and their commits become durable
//! together. A segment is used again when all of its records are released and no writer has it,
//! whoever wrote into it and however full it is. What is truncated stays in its place: a segment goes on
//! being used behind it, and is used again as if it had not been there.
//!
//! # A full log
//!
//! [`Full`](ErrorKind::Full) says that no segment has room for the commit and that each holds a record
//! that is not released. Nothing was written. Release records, all those of the oldest segment at
//! least, or [`grow`](Log::grow) the log, and append again: once everything is released, a commit of
//! [`commit_bytes_max`](Log::commit_bytes_max) has room. [`TooManyWriters`](ErrorKind::TooManyWriters)
//! says that other writers have every segment, and that releasing does not help: drop one, or grow.
//!
//! A reader sees records in the order of Lsns and not before they are durable, so a slow commit
//! holds back those after it.
//!
//! | file | question |
//! |---|---|
//! | `layout`, `root`, `segment`, `block` | what is where in the region? |
//! | `table`, `place`, `watermark` | which segment does a writer get, which Lsn, and who may see it? |
//! | `truncate`, `cut`, `voids` | how are records given up, and which are void? |
//! | `staging`, `writer`, `spare` | how does a commit become durable, and by whose hand? |
//! | `submit`, `deferred` | how is it appended now and told later? |
//! | `copy` | how is a copy made of a log in use, and lost space won back? |
//! | `options`, `recovery`, `survey`, `scan` | how is a log made, and what is in it after a crash? |
//! | `catalog`, `cursor`, `merge` | where are the records from an Lsn on? |
//! | `reader`, `backwards`, `follow`, `beside` | how is it read? |
//! | `space` | how much is free? |

mod backwards;
mod beside;
mod block;
mod catalog;
mod copy;
mod core;
mod cursor;
mod cut;
mod deferred;
mod follow;
mod layout;
mod lsn;
mod merge;
mod options;
mod place;
mod reader;
mod recovery;
mod root;
mod scan;
mod segment;
mod space;
mod spare;
mod staging;
mod submit;
mod survey;
mod sync;
mod table;
#[cfg(all(test, feature = "model", not(loom)))]
mod tests;
mod truncate;
mod voids;
mod watermark;
mod writer;

use std::ops::{Range, RangeInclusive};
use std::path::Path;

use self::core::Core;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::region::{AnyRegion, Region};

pub use self::backwards::ReverseReader;
pub use self::follow::LogReader;
pub use self::lsn::Lsn;
pub use self::options::LogOptions;
pub use self::reader::{Reader, Record};
pub use self::recovery::{DamagedRecords, Recovery};
pub use self::space::Space;
pub use self::submit::Ticket;
pub use self::writer::Writer;

/// The version of the format.
const VERSION: u32 = 2;
/// The versions that can be read. In version 1, segments were laid out otherwise.
const VERSIONS: RangeInclusive<u32> = VERSION..=VERSION;

/// An open log. See [the module](self).
///
/// Dropping it leaves the mark of a closed log as [`close`](Self::close) does, but cannot report an
/// error.
#[derive(Debug)]
pub struct Log<R: Region> {
    core: Core<R>,
    recovery: Recovery,
    finished: bool,
}

impl Log<AnyRegion> {
    /// Opens the log in a file, with the default options.
    ///
    /// # Errors
    ///
    /// As [`LogOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        LogOptions::new().open(path)
    }
}

impl<R: Region> Log<R> {
    fn new(core: Core<R>, recovery: Recovery) -> Self {
        Self { core, recovery, finished: false }
    }

    /// A writer. Each thread that appends often has one.
    pub fn writer(&self) -> Writer<'_, R> {
        Writer::new(&self.core)
    }

    /// Appends a record, durable on return, by a writer that the log keeps for this: for whoever
    /// does not want to carry one about.
    ///
    /// # Errors
    ///
    /// As [`Writer::append`].
    pub fn append(&self, payload: &[u8]) -> Result<Lsn> {
        self.core.with_spare(|state| state.append(&self.core, payload))
    }

    /// Appends records as one commit, all or nothing.
    ///
    /// A panic of the iterator's leaves the log as it was: nothing is staged, and nothing is held. The
    /// iterator may append to the log itself; what it appends comes first.
    ///
    /// # Errors
    ///
    /// As [`Writer::append_many`].
    pub fn append_many<P: AsRef<[u8]>>(
        &self,
        payloads: impl IntoIterator<Item = P>,
    ) -> Result<Range<Lsn>> {
        let core = &self.core;
        let mut staging = core.spare_staging();
        let mut tentative = staging.tentative();
        tentative.push_all(payloads, writer::room(core))?;
        tentative.keep();
        let committed = core.with_spare(|state| state.commit_staged(core, &mut staging));
        core.keep_staging(staging);
        committed
    }

    /// Reads records from this Lsn on, in the order of Lsns, and those that are appended meanwhile.
    /// [`Lsn::ZERO`] stands for the oldest that is kept.
    ///
    /// # Errors
    ///
    /// `Released` if the record with this Lsn was.
    pub fn reader(&self, from: Lsn) -> Result<Reader<'_, R>> {
        Reader::new(&self.core, from)
    }

    /// Reads as [`reader`](Self::reader) does, and beyond what is durable: records that were submitted as soon
    /// as [`submit`](Self::submit) has returned, and those of commits that are under way. A crash may take
    /// what is above [`durable_up_to`](Self::durable_up_to), and so may an error of the region's, after which
    /// the log is opened again.
    ///
    /// On persistent memory a submission is durable when it returns, and this is [`reader`](Self::reader).
    ///
    /// # Errors
    ///
    /// As [`reader`](Self::reader).
    pub fn reader_unsynced(&self, from: Lsn) -> Result<Reader<'_, R>> {
        Reader::new(&self.core, from).map(Reader::unsynced)
    }

    /// Reads records from this Lsn, or from the newest there is, down to the oldest that is kept.
    ///
    /// # Errors
    ///
    /// Those of the region; `Damaged`.
    pub fn reverse_reader(&self, from: Lsn) -> Result<ReverseReader<'_, R>> {
        ReverseReader::new(&self.core, from)
    }

    /// Reads one record.
    ///
    /// # Errors
    ///
    /// `Released`; `NoRecord` if no record has this Lsn, or not yet; `Damaged`.
    pub fn read(&self, lsn: Lsn) -> Result<Vec<u8>> {
        let no_record = || Error::new(Operation::Read, ErrorKind::NoRecord { lsn: lsn.get() });
        if lsn == Lsn::ZERO {
            return Err(no_record());
        }
        match self.reader(lsn)?.next_record()? {
            Some(record) if record.lsn == lsn => Ok(record.payload.to_vec()),
            _ => Err(no_record()),
        }
    }

    /// The Lsn up to which all is durable and can be read; [`Lsn::ZERO`] before the first.
    #[must_use]
    pub fn last(&self) -> Lsn {
        Lsn::new(self.core.watermark.get() - 1)
    }

    /// The Lsn up to which records were released.
    #[must_use]
    pub fn released(&self) -> Lsn {
        Lsn::new(self.core.released())
    }

    /// Bytes of the largest commit that is possible: of its records and, for each but the first, up
    /// to 8 bytes more.
    #[must_use]
    pub fn commit_bytes_max(&self) -> u64 {
        self.core.layout.room() - block::HEADER as u64
    }

    /// What was found when the log was opened.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// The region that the log is in.
    #[must_use]
    pub fn region(&self) -> &R {
        &self.core.region
    }

    /// What a commit survives.
    #[must_use]
    pub fn durability(&self) -> crate::Durability {
        self.core.region.durability()
    }

    /// Leaves the mark of a closed log: how far each segment is written, and that nothing is on its
    /// way. From then on, any damage is told from the end of the log.
    ///
    /// # Errors
    ///
    /// Those of the region. The log is then as after a crash.
    pub fn close(mut self) -> Result<()> {
        self.finished = true;
        self.core.check_process(Operation::Close)?;
        if self.core.check_writable(Operation::Close).is_err() {
            return Ok(());
        }
        self.core.finish()
    }

    /// Gives the log up without touching the region again, as if the process had been killed: for
    /// tests of what a crash leaves. [`close`](Self::close) is the orderly way.
    pub fn abandon(mut self) {
        self.finished = true;
    }
}

impl<R: Region> Drop for Log<R> {
    fn drop(&mut self) {
        if !self.finished && self.core.check_writable(Operation::Close).is_ok() {
            let _ = self.core.finish();
        }
    }
}
