//! Every write and every flush of short histories of regions and drafts fails once: what was acknowledged is there.
//!
//! A history is a seed. It is run without a fault, and then again for every n with the n-th
//! write failing, and with the n-th flush failing, until n is past the last. Each time the
//! filesystem is mounted afresh from what the medium holds, and everything that the library had
//! acknowledged must be there; after the first durability error, the region must have refused
//! everything else.
//!
//! Needs root. In the environment:
//!
//! - `DAXMAP_FAULT_HISTORIES`: histories per filesystem. `ci/faults` runs 200; the default is a
//!   sample.
//! - `DAXMAP_FAULT_SEED`: the first one.
//! - `DAXMAP_FAULT_WORKERS`: devices per filesystem that work at the same time.

mod history;
mod model;
mod names;
mod run;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pmem_tests::blockdev::{Fault, FaultyDisk, Filesystem, Image};
use pmem_tests::long_run::{say, setting};
use rustix::io::Errno;

use history::History;
use run::{Ending, run};

/// Histories per filesystem if the environment does not say otherwise.
const HISTORIES: u64 = 6;

/// No history makes as many requests.
const REQUESTS_MAX: u64 = 2_000;

#[derive(Default)]
struct Tally {
    runs: u64,
    fired: u64,
    noticed: u64,
    failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.fired += other.fired;
        self.noticed += other.noticed;
        self.failures.extend(other.failures);
    }
}

struct Bench {
    filesystem: Filesystem,
    disk: FaultyDisk,
    template: Image,
    tally: Tally,
}

/// What goes wrong at the n-th request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Write(Errno),
    Flush,
    FlushLoses,
    PowerCut,
    Tear,
}

impl Kind {
    fn nth(self, n: u64) -> Fault {
        match self {
            Self::Write(errno) => Fault::nth_write(n, errno),
            Self::Flush => Fault::nth_flush(n, Errno::IO),
            Self::FlushLoses => Fault::nth_flush_loses(n, Errno::IO),
            Self::PowerCut => Fault::power_cut_after(n),
            Self::Tear => Fault::tear(n, (n % 8) as usize),
        }
    }

    fn ending(self, seed: u64, n: u64) -> Ending {
        match self {
            Self::PowerCut => Ending::PowerCutKeepsSome(seed << 16 | n),
            Self::Tear => Ending::PowerCut,
            Self::FlushLoses if (seed + n).is_multiple_of(2) => Ending::PowerCut,
            Self::FlushLoses => Ending::PowerCutLosesCache,
            Self::Write(_) | Self::Flush => match (seed + n) % 3 {
                0 => Ending::Unmount,
                1 => Ending::PowerCut,
                _ => Ending::PowerCutLosesCache,
            },
        }
    }

    /// Whether the requests of the unmount are meant as well. After a power cut there is none.
    /// A flush at unmount that fails and loses what it was for is more than ext4 stands: it
    /// writes metadata to its place, ignores that the flush failed, and empties its journal.
    fn reaches_unmount(self) -> bool {
        matches!(self, Self::Write(_) | Self::Flush)
    }
}

impl Bench {
    /// Benches that are at work at the same time have different numbers.
    fn new(filesystem: Filesystem, number: u32) -> Self {
        let disk = FaultyDisk::new(filesystem.size()).unwrap();
        let template = filesystem.template(number).unwrap();
        Self { filesystem, disk, template, tally: Tally::default() }
    }

    /// Runs, counts, and remembers what was wrong. Returns whether the fault happened.
    fn run(&mut self, history: &History, fault: Option<Fault>, ending: Ending) -> bool {
        self.tally.runs += 1;
        let ran = run(&self.disk, self.filesystem, &self.template, history, fault, ending);
        self.tally.fired += u64::from(ran.fired);
        self.tally.noticed += u64::from(ran.fired && ran.errors > 0);
        match ran.verdict {
            Err(why) => self.fail(history, fault, ending, &why),
            Ok(()) if !ran.fired && ran.errors > 0 => {
                let errors = ran.errors;
                self.fail(history, fault, ending, &format!("{errors} errors without a fault"));
            }
            Ok(()) => {}
        }
        ran.fired
    }

    fn fail(&mut self, history: &History, fault: Option<Fault>, ending: Ending, why: &str) {
        let filesystem = self.filesystem;
        let failure = format!("{filesystem}, {fault:?}, {ending:?}: {why}\n{history}");
        say(&failure);
        self.tally.failures.push(failure);
    }

    /// Every n of one kind of fault.
    fn every(&mut self, history: &History, kind: Kind) {
        for n in 1..REQUESTS_MAX {
            let ending = kind.ending(history.seed, n);
            let fault = Some(kind.nth(n));
            if self.run(history, fault, ending) {
                continue;
            }
            // Only the unmount makes as many requests, if anything does.
            if !kind.reaches_unmount()
                || ending == Ending::Unmount
                || !self.run(history, fault, Ending::Unmount)
            {
                return;
            }
        }
        panic!("seed {} makes more than {REQUESTS_MAX} requests", history.seed);
    }
}

/// Gives every seed to one of several benches, and says how it went.
fn with_benches(filesystem: Filesystem, what: &str, histories: u64, work: fn(&mut Bench, History)) {
    let began = Instant::now();
    let first = setting("DAXMAP_FAULT_SEED", 1);
    let seeds = AtomicU64::new(first);
    let mut tally = Tally::default();
    let worker = |number| {
        let mut bench = Bench::new(filesystem, number);
        loop {
            let seed = seeds.fetch_add(1, Ordering::Relaxed);
            if seed >= first + histories {
                return bench.tally;
            }
            work(&mut bench, History::new(seed));
        }
    };
    let worker = &worker;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..setting("DAXMAP_FAULT_WORKERS", 2))
            .map(|number| scope.spawn(move || worker(number as u32)))
            .collect();
        for worker in workers {
            tally.add(worker.join().expect("a worker panicked"));
        }
    });
    let Tally { runs, fired, noticed, failures } = tally;
    let seconds = began.elapsed().as_secs_f64();
    say(&format!(
        "{filesystem}: {what}: {histories} histories, {runs} runs, {fired} faults met, \
         {noticed} of them reported to the caller, {} failures, {seconds:.1} s",
        failures.len()
    ));
    assert!(failures.is_empty(), "{} failures, the first:\n{}", failures.len(), failures[0]);
    say(&format!(
        "\nevidence: {filesystem}: {what}, in histories of writes, growth and publishing | \
         {histories} histories, {runs} runs, {fired} faults met, 0 failures | what a drive does that \
         lies"
    ));
}

fn every_fault(filesystem: Filesystem) {
    let histories = setting("DAXMAP_FAULT_HISTORIES", HISTORIES);
    with_benches(filesystem, "every write and flush fails", histories, |bench, history| {
        for ending in [Ending::Unmount, Ending::PowerCut, Ending::PowerCutLosesCache] {
            bench.run(&history, None, ending);
        }
        bench.every(&history, Kind::Write(Errno::IO));
        bench.every(&history, Kind::Flush);
        // The rarer kinds on some.
        if history.seed.is_multiple_of(4) {
            bench.every(&history, Kind::Write(Errno::NOSPC));
            bench.every(&history, Kind::FlushLoses);
        }
    });
}

fn power_cuts(filesystem: Filesystem) {
    let histories = setting("DAXMAP_FAULT_HISTORIES", HISTORIES).div_ceil(5);
    with_benches(filesystem, "the power goes after every write", histories, |bench, history| {
        bench.every(&history, Kind::PowerCut);
        bench.every(&history, Kind::Tear);
    });
}

#[test]
fn ext4_power_cuts() {
    power_cuts(Filesystem::Ext4);
}

#[test]
fn xfs_power_cuts() {
    power_cuts(Filesystem::Xfs);
}

#[test]
fn btrfs_power_cuts() {
    power_cuts(Filesystem::Btrfs);
}

#[test]
fn ext4_every_fault() {
    every_fault(Filesystem::Ext4);
}

#[test]
fn xfs_every_fault() {
    every_fault(Filesystem::Xfs);
}

#[test]
fn btrfs_every_fault() {
    every_fault(Filesystem::Btrfs);
}
