//! What a storage engine does with a directory: threads that append to one log, and whole files
//! that take another's place. Beside each, the same written by hand.

pub mod append;
mod files;
mod log;
mod threads;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use daxmap::Durability;

use super::device::Device;
use super::interrupt;
use super::measure::{Limits, time_updates};
use super::plan::{Method, SIZES, SUMMARY_SIZE, Walk};
use super::progress::Progress;
use super::scratch::doing;
use super::tally::{Batch, Tally};

use append::{Records, Shape};
pub use files::{available, replace};
use log::Log;

/// Bytes of a record of the log.
pub const RECORD: usize = SIZES[SUMMARY_SIZE];
/// Lengths of the whole files, in bytes.
pub const FILE_SIZES: [usize; 3] = [64 << 10, 1 << 20, 8 << 20];
/// Threads at one log.
const THREADS: [u64; 3] = [1, 4, 16];
/// Records that are made durable together, by one thread.
const TOGETHER: u64 = 64;

/// The batch of one job, or of each of its threads. One whole file may take longer.
const BATCH: Limits = Limits { time: Duration::from_millis(10), least: 1, most: 1 << 16 };

/// One row: what runs in turn with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    /// So many threads share one region, and each makes records of [`RECORD`] bytes durable with
    /// `write_persist`, all of them one behind the other.
    Persist { threads: u64 },
    /// So many threads append to one `daxmap::log`, by commits of so many records of [`RECORD`]
    /// bytes.
    Append { threads: u64, records: u64 },
    /// One thread does it for so many: that many records by `pwrite`, then one `fdatasync`.
    LogByHand { writes: u64 },
    /// A file of so many bytes, as a draft that is committed over an existing name.
    Publish { bytes: usize },
    /// The same by hand: temporary name, `write`, `fsync`, `rename`, `fsync` of the directory.
    PublishByHand { bytes: usize },
}

impl Job {
    /// Those that append to a log, in the order of the table.
    pub fn logs() -> impl Iterator<Item = Self> {
        let by_hand = THREADS.into_iter().filter(|&threads| threads > 1).chain([TOGETHER]);
        let persist = THREADS.into_iter().map(|threads| Self::Persist { threads });
        let append = THREADS.into_iter().map(|threads| Self::Append { threads, records: 1 });
        persist
            .chain(append)
            .chain([Self::Append { threads: 1, records: TOGETHER }])
            .chain(by_hand.map(|writes| Self::LogByHand { writes }))
    }

    /// Those that replace a file, in the order of the table.
    pub fn files() -> impl Iterator<Item = Self> {
        FILE_SIZES
            .into_iter()
            .flat_map(|bytes| [Self::Publish { bytes }, Self::PublishByHand { bytes }])
    }

    /// The name in the JSON; stable.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Persist { .. } => "persist",
            Self::Append { .. } => "append",
            Self::LogByHand { .. } => "log_by_hand",
            Self::Publish { .. } => "publish",
            Self::PublishByHand { .. } => "publish_by_hand",
        }
    }

    /// The name in the table.
    pub fn label(self) -> String {
        match self {
            Self::Persist { threads: 1 } => "persist, 1 thread".to_owned(),
            Self::Persist { threads } => format!("persist, {threads} threads"),
            Self::Append { threads: 1, records: 1 } => "log append, 1 thread".to_owned(),
            Self::Append { threads, records: 1 } => format!("log append, {threads} threads"),
            Self::Append { records, .. } => format!("log append, {records} a commit"),
            Self::LogByHand { writes } => format!("by hand: {writes} pwrites, 1 fdatasync"),
            Self::Publish { .. } => "publish".to_owned(),
            Self::PublishByHand { .. } => "by hand: write, sync, rename, sync".to_owned(),
        }
    }

    /// True if the library does it.
    pub const fn is_own(self) -> bool {
        matches!(self, Self::Persist { .. } | Self::Append { .. } | Self::Publish { .. })
    }

    /// Bytes of an update: a record, or a whole file.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Persist { .. } | Self::Append { .. } | Self::LogByHand { .. } => RECORD,
            Self::Publish { bytes } | Self::PublishByHand { bytes } => bytes,
        }
    }

    /// True if an update is a whole file.
    pub const fn is_file(self) -> bool {
        matches!(self, Self::Publish { .. } | Self::PublishByHand { .. })
    }

    /// What its rate is compared with: a log with that of one thread at a region, a file with that by hand.
    pub const fn base(self) -> Self {
        match self {
            Self::Persist { .. } | Self::Append { .. } | Self::LogByHand { .. } => {
                Self::Persist { threads: 1 }
            }
            Self::Publish { bytes } | Self::PublishByHand { bytes } => {
                Self::PublishByHand { bytes }
            }
        }
    }

    /// What an update survives, in a directory whose regions give `region`.
    pub fn durability(self, region: Durability) -> Durability {
        let method = if self.is_own() { Method::RegionPersist } else { Method::PwriteFdatasync };
        method.durability(region).unwrap_or(region)
    }
}

/// A job with what is known of it so far.
#[derive(Debug)]
pub struct Track {
    /// What is measured.
    pub job: Job,
    /// What was counted.
    pub tally: Tally,
}

/// Everything these measurements need.
pub struct Engine<'a> {
    directory: &'a Path,
    device: &'a Device,
    log: Log,
    records: Records,
    tracks: Vec<Track>,
    data: Vec<u8>,
    /// Whole files written.
    written: u64,
}

/// Bytes of each of the three logs, which take the place of two files of `len` bytes.
const fn log_len(len: u64) -> u64 {
    const PAGE: u64 = 4096;
    2 * len / 3 / PAGE * PAGE
}

/// Whose turn it is: forwards, then backwards, so that each of two neighbours is first as often as
/// the other.
const fn there_and_back(round: u64, turn: usize, count: usize) -> usize {
    if round.is_multiple_of(2) { turn } else { count - 1 - turn }
}

impl<'a> Engine<'a> {
    /// The logs, and those of the whole files that are possible here. What they need goes into
    /// `directory`; the logs take twice `len` bytes.
    pub fn new(
        files: &[Job],
        directory: &'a Path,
        len: u64,
        device: &'a Device,
    ) -> io::Result<Self> {
        let jobs = Job::logs().chain(files.iter().copied());
        let tracks = jobs.map(|job| Track { job, tally: Tally::default() }).collect();
        let log = Log::new(directory, log_len(len))?;
        let records = Records::new(directory, log_len(len), Shape::BENCH)?;
        let data = vec![0xa5; FILE_SIZES[2]];
        Ok(Self { directory, device, log, records, tracks, data, written: 0 })
    }

    /// Runs round by round until the deadline, and each job once at least.
    pub fn run(&mut self, deadline: Instant, progress: &Progress) -> io::Result<()> {
        for job in self.tracks.iter().map(|track| track.job).filter(|job| job.is_file()) {
            // The name that the others replace.
            replace(job, self.directory, &self.data[..job.bytes()])?;
        }
        for round in 0_u64.. {
            for turn in 0..self.tracks.len() {
                if round > 0 && Instant::now() >= deadline {
                    return Ok(());
                }
                interrupt::check()?;
                self.run_batch(there_and_back(round, turn, self.tracks.len()))?;
                progress.tick();
            }
        }
        Ok(())
    }

    /// What was measured.
    pub fn finish(self) -> Vec<Track> {
        self.tracks
    }

    fn run_batch(&mut self, index: usize) -> io::Result<()> {
        let job = self.tracks[index].job;
        let batch = match job {
            Job::Persist { threads } => self.log.persist(threads, self.device),
            Job::Append { threads, records } => self.records.append(threads, records, self.device),
            Job::LogByHand { writes } => self.log.by_hand(writes, self.device),
            Job::Publish { bytes } | Job::PublishByHand { bytes } => self.files(job, bytes),
        };
        let what = || doing(format!("bench: {} of {} bytes", job.label(), job.bytes()));
        self.tracks[index].tally.add(&batch.map_err(what())?);
        Ok(())
    }

    fn files(&mut self, job: Job, bytes: usize) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let next = || {
            self.written += 1;
            self.written
        };
        let directory = self.directory;
        let data = &mut self.data[..bytes];
        let device = self.device.read();
        time_updates(BATCH, Walk::NOWHERE, data, &mut batch, next, |_, data| {
            replace(job, directory, data)
        })?;
        batch.device = self.device.read().since(device);
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Layout;
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_job_is_compared_with_one_that_runs() {
        let all: Vec<Job> = Job::logs().chain(Job::files()).collect();
        assert_eq!(all.len(), 10 + 6);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        for job in &all {
            let base = job.base();
            assert!(all.contains(&base), "{job:?}");
            assert_eq!(base.base(), base);
            assert_eq!(base.bytes(), job.bytes(), "{job:?}");
        }
    }

    #[test]
    fn rounds_go_there_and_back() {
        let round = |round| [0, 1, 2].map(|turn| there_and_back(round, turn, 3));
        assert_eq!([0, 1, 2, 3].map(round), [[0, 1, 2], [2, 1, 0], [0, 1, 2], [2, 1, 0]]);
    }

    #[test]
    fn logs_are_whole_pages_and_files_are_told_from_them() {
        assert_eq!(log_len(1 << 20), (2 << 20) / 3 / 4096 * 4096);
        assert_eq!([6144, 12288, 13000].map(log_len), [4096, 8192, 8192]);
        assert!(Job::files().all(Job::is_file) && !Job::logs().any(Job::is_file));
    }

    #[test]
    fn by_hand_promises_no_more_than_the_filesystem() {
        let level = Durability::PowerFail;
        assert_eq!(Job::Persist { threads: 4 }.durability(level), Durability::PowerFail);
        assert_eq!(Job::Publish { bytes: 1 }.durability(level), Durability::PowerFail);
        assert_eq!(Job::LogByHand { writes: 4 }.durability(level), Durability::Fsync);
        assert_eq!(Job::PublishByHand { bytes: 1 }.durability(level), Durability::Fsync);
        for job in Job::logs().chain(Job::files()) {
            assert_eq!(job.durability(Durability::ProcessOnly), Durability::ProcessOnly);
        }
    }

    /// The logs and files come when the files of the counting are gone.
    #[test]
    fn they_take_no_more_space_than_the_counting_did() {
        let files = Method::ALL.into_iter().filter(|method| method.needs_file()).count() as u64;
        let counting = files * Layout::to_count().len();
        // Every file, and the largest once more while it is replaced.
        let whole = (FILE_SIZES.iter().sum::<usize>() + FILE_SIZES[2]) as u64;
        for available in [0, u64::MAX] {
            let logs = 3 * log_len(Layout::to_measure(files, available).len());
            assert!(logs + whole <= counting);
        }
    }
}
