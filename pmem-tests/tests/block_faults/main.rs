//! Every write and every flush of short histories fails once: what was acknowledged is there.
//!
//! A history is a seed. It is run without a fault, and then again for every n with the n-th
//! write failing, and with the n-th flush failing, until n is past the last. Each time the
//! filesystem is mounted afresh from what the medium holds, and everything that the library had
//! acknowledged must be there; after the first durability error, the region must have refused
//! everything else.
//!
//! Needs root. `DAXMAP_FAULT_HISTORIES` is the number of histories per filesystem.

mod history;
mod model;
mod run;

use std::io::Write;
use std::time::Instant;

use pmem_tests::blockdev::{Fault, FaultyDisk, Filesystem};
use rustix::io::Errno;

use history::History;
use run::{Ending, run};

/// Histories per filesystem if the environment does not say otherwise.
const HISTORIES: u64 = 6;

/// No history makes as many requests.
const REQUESTS_MAX: u64 = 2_000;

fn histories() -> u64 {
    match std::env::var("DAXMAP_FAULT_HISTORIES") {
        Ok(number) => number.parse().expect("DAXMAP_FAULT_HISTORIES is a number"),
        Err(_) => HISTORIES,
    }
}

fn first_seed() -> u64 {
    match std::env::var("DAXMAP_FAULT_SEED") {
        Ok(number) => number.parse().expect("DAXMAP_FAULT_SEED is a number"),
        Err(_) => 1,
    }
}

/// Past the test runner's capture: the figures belong to the evidence.
fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

struct Tally {
    runs: u64,
    fired: u64,
    noticed: u64,
    failures: Vec<String>,
}

struct Bench {
    filesystem: Filesystem,
    disk: FaultyDisk,
    tally: Tally,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Write(Errno),
    Flush,
    FlushLoses,
}

impl Kind {
    fn nth(self, n: u64) -> Fault {
        match self {
            Self::Write(errno) => Fault::nth_write(n, errno),
            Self::Flush => Fault::nth_flush(n, Errno::IO),
            Self::FlushLoses => Fault::nth_flush_loses(n, Errno::IO),
        }
    }
}

impl Bench {
    fn new(filesystem: Filesystem) -> Self {
        let disk = FaultyDisk::new(filesystem.size()).unwrap();
        let tally = Tally { runs: 0, fired: 0, noticed: 0, failures: Vec::new() };
        Self { filesystem, disk, tally }
    }

    /// Runs, counts, and remembers what was wrong. Returns whether the fault happened.
    fn run(&mut self, history: &History, fault: Option<Fault>, ending: Ending) -> bool {
        self.tally.runs += 1;
        let ran = run(&self.disk, self.filesystem, history, fault, ending);
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
            let ending = match (history.seed + n) % 3 {
                0 => Ending::Unmount,
                1 => Ending::PowerCut,
                _ => Ending::PowerCutLosesCache,
            };
            let fault = Some(kind.nth(n));
            if self.run(history, fault, ending) {
                continue;
            }
            // Only the unmount makes as many requests, if anything does.
            if ending == Ending::Unmount || !self.run(history, fault, Ending::Unmount) {
                return;
            }
        }
        panic!("seed {} makes more than {REQUESTS_MAX} requests", history.seed);
    }

    fn finish(self, what: &str, histories: u64, began: Instant) {
        let Tally { runs, fired, noticed, failures } = self.tally;
        let seconds = began.elapsed().as_secs_f64();
        let filesystem = self.filesystem;
        say(&format!(
            "{filesystem}: {what}: {histories} histories, {runs} runs, {fired} faults met, \
             {noticed} of them reported to the caller, {} failures, {seconds:.1} s",
            failures.len()
        ));
        assert!(failures.is_empty(), "{} failures, the first:\n{}", failures.len(), failures[0]);
    }
}

fn every_fault(filesystem: Filesystem) {
    let began = Instant::now();
    let mut bench = Bench::new(filesystem);
    for seed in first_seed()..first_seed() + histories() {
        let history = History::new(seed);
        bench.run(&history, None, Ending::Unmount);
        bench.every(&history, Kind::Write(Errno::IO));
        bench.every(&history, Kind::Flush);
        // The rarer kinds on some.
        if seed.is_multiple_of(4) {
            bench.every(&history, Kind::Write(Errno::NOSPC));
            bench.every(&history, Kind::FlushLoses);
        }
    }
    bench.finish("every write and flush", histories(), began);
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
