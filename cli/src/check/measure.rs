//! Commits to a write-ahead log, alone and under load.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use daxmap::probe::{MapSync, Report};

use super::Args;
use super::load::Load;
use crate::bench::device::Device;
use crate::bench::engine::append::{Records, Shape};
use crate::bench::interrupt;
use crate::bench::machine::Machine;
use crate::bench::measure::{Limits, time_updates};
use crate::bench::methods::{Ready, Visitor, prepare};
use crate::bench::plan::{Method, Walk};
use crate::bench::progress::Progress;
use crate::bench::scratch::{Scratch, doing};
use crate::bench::tally::{Batch, Tally};

/// Between two batches it is noticed that a signal came or that the load ended.
const BATCH_TIME: Duration = Duration::from_millis(500);
/// Commits of a thread in one batch, at most.
const BATCH_MOST: u64 = 256;
/// The file that is written by hand, in bytes.
const FILE_LEN: u64 = 8 << 20;

/// How a record is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One thread: pwrite, then fdatasync.
    ByHand,
    /// Threads, each of which commits its record to one `daxmap::log`.
    Log,
}

impl Way {
    /// The name in the JSON; stable.
    pub const fn key(self) -> &'static str {
        match self {
            Self::ByHand => "pwrite_fdatasync",
            Self::Log => "log_commit",
        }
    }
}

/// What one measurement gave.
#[derive(Debug)]
pub struct Row {
    pub way: Way,
    pub threads: u64,
    pub under_load: bool,
    pub tally: Tally,
}

/// What was found in a directory.
pub struct Found {
    pub report: Report,
    pub rows: Vec<Row>,
    /// Whether each flush is counted that reaches a device with a volatile write cache.
    pub counts_flushes: bool,
    /// The machine is an emulated processor, whose times are none.
    pub times_withheld: Option<&'static str>,
}

impl Found {
    /// True if files here are mapped persistent memory: a commit needs no block device.
    pub fn is_dax(&self) -> bool {
        self.report.map_sync == MapSync::Accepted || self.report.statx_dax == Some(true)
    }

    /// The measurement of one thread, with nothing beside it.
    pub fn alone(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.way == Way::ByHand && !row.under_load)
    }
}

/// Measures in the directory; nothing of it is left there.
pub fn measure(args: &Args) -> io::Result<Found> {
    let start = Instant::now();
    let machine = Machine::here();
    if !fs::metadata(&args.directory)?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory));
    }
    let scratch = Scratch::new(&args.directory, "check")?;
    let report = crate::bench::probe(&scratch, &args.directory)?;
    let device = Device::of(&report);
    let progress = Progress::new(start, args.time());
    progress.stage("making files");
    let mut ground = Ground::new(scratch.path(), args, &device)?;

    let passes: &[bool] = if args.under_load.is_some() { &[false, true] } else { &[false] };
    let deadline = start + args.time();
    let mut left = 2 * passes.len() as u32;
    let mut rows = Vec::new();
    for &under_load in passes {
        progress.stage(if under_load { "under load" } else { "commits" });
        let load = args.under_load.as_ref().filter(|_| under_load);
        let mut load = load.map(|command| start_load(command, &scratch)).transpose()?;
        for way in [Way::ByHand, Way::Log] {
            let now = Instant::now();
            let until = now + deadline.saturating_duration_since(now) / left;
            left -= 1;
            let tally = ground.run(way, until, &progress, load.as_mut())?;
            let threads = if way == Way::Log { args.threads } else { 1 };
            rows.push(Row { way, threads, under_load, tally });
        }
    }
    let counts_flushes = device.counts_flushes();
    Ok(Found { report, rows, counts_flushes, times_withheld: machine.times_withheld })
}

fn start_load(command: &str, scratch: &Scratch) -> io::Result<Load> {
    let directory = scratch.path().join("load");
    fs::create_dir(&directory)?;
    // The load has a working directory of its own.
    Load::start(command, &fs::canonicalize(directory)?)
}

/// The files that are written.
struct Ground<'a> {
    file: Ready,
    written: u64,
    records: Records,
    shape: Shape,
    commits: u64,
    device: &'a Device,
}

impl<'a> Ground<'a> {
    fn new(directory: &Path, args: &Args, device: &'a Device) -> io::Result<Self> {
        let limits = Limits { time: BATCH_TIME, least: 1, most: BATCH_MOST };
        let shape = Shape { threads: args.threads, record: args.size as usize, limits };
        let segment = (8 * u64::from(args.size)).max(64 << 10);
        let file = prepare(Method::PwriteFdatasync, directory, FILE_LEN)?;
        let records = Records::new(directory, shape.log_len(segment), shape)?;
        Ok(Self { file, written: 0, records, shape, commits: args.commits, device })
    }

    /// Commits one way, until there are enough or the time has passed; one batch at least.
    fn run(
        &mut self,
        way: Way,
        until: Instant,
        progress: &Progress,
        mut load: Option<&mut Load>,
    ) -> io::Result<Tally> {
        let mut tally = Tally::default();
        while tally.updates < self.commits && (tally.updates == 0 || Instant::now() < until) {
            interrupt::check()?;
            let left = self.commits - tally.updates;
            let batch = match way {
                Way::ByHand => self.by_hand(left, tally.updates == 0),
                Way::Log => self.log(left),
            };
            tally.add(&batch.map_err(doing(way.key()))?);
            if let Some(load) = &mut load {
                load.check()?;
            }
            progress.tick();
        }
        interrupt::check()?;
        Ok(tally)
    }

    fn log(&mut self, left: u64) -> io::Result<Batch> {
        let most = left.div_ceil(self.shape.threads).min(BATCH_MOST);
        self.records.limit(Limits { most, ..self.shape.limits });
        self.records.append(self.shape.threads, 1, self.device)
    }

    fn by_hand(&mut self, left: u64, warm_up: bool) -> io::Result<Batch> {
        let mut timed = Timed {
            limits: Limits { most: left.min(BATCH_MOST), ..self.shape.limits },
            walk: Walk::log(FILE_LEN, self.shape.record as u64),
            data: vec![0xa5; self.shape.record],
            written: &mut self.written,
            warm_up,
            batch: Batch::default(),
        };
        let before = self.device.read();
        self.file.accept(&mut timed)?;
        let mut batch = timed.batch;
        batch.device = self.device.read().since(before);
        Ok(batch)
    }
}

/// Times a batch of appends.
struct Timed<'a> {
    limits: Limits,
    walk: Walk,
    data: Vec<u8>,
    written: &'a mut u64,
    /// One beforehand that is not counted: it pays for what making the files left behind.
    warm_up: bool,
    batch: Batch,
}

impl Visitor for Timed<'_> {
    fn visit(&mut self, mut update: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        if self.warm_up {
            update(self.walk.offset(*self.written), &self.data)?;
        }
        let written = &mut *self.written;
        let next = || {
            *written += 1;
            *written
        };
        time_updates(self.limits, self.walk, &mut self.data, &mut self.batch, next, update)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_makes_as_many_commits_as_asked_for() {
        for (threads, size) in [(1, 8), (3, 2300), (16, 4096), (64, 65536)] {
            let directory = tempfile::tempdir().expect("a directory");
            let args = args(&["--threads", &format!("{threads}"), "--size", &format!("{size}")]);
            let device = Device::default();
            let mut ground = Ground::new(directory.path(), &args, &device).expect("files");
            let far = Instant::now() + Duration::from_secs(600);
            let progress = Progress::new(Instant::now(), Duration::from_secs(1));
            for (way, share) in [(Way::ByHand, 1), (Way::Log, threads)] {
                let tally = ground.run(way, far, &progress, None).expect("commits");
                let asked = args.commits..args.commits + share;
                assert!(asked.contains(&tally.updates), "{way:?}, {threads}: {}", tally.updates);
                let past = ground.run(way, Instant::now(), &progress, None).expect("one batch");
                assert_eq!(past.batches, 1, "when the time has passed: {way:?}");
            }
        }
    }

    fn args(more: &[&str]) -> Args {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            args: Args,
        }
        let all = ["check", ".", "--commits", "100"].iter().chain(more);
        <Alone as clap::Parser>::parse_from(all).args
    }
}
