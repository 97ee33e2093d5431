//! The filesystem's own writes, cut at every flush: what was acknowledged is there.
//!
//! A workload (everything that publishes, creates, grows and writes through the page cache, a log that
//! is appended to, released and reopened, a state and working sets) runs on a device that logs every
//! request. Then, for every stretch of the log between two flushes, the power goes: the writes before it are on the medium, of those in it a subset, the last of
//! them perhaps torn between sectors. Each such medium is mounted, so that the filesystem
//! recovers; recovery is run (leftovers are cleaned away, regions opened); and everything that was
//! acknowledged before the crash must be there, no name may show half a file, and nothing may
//! be there that was not asked for. A part of the media is checked by the filesystem's own fsck
//! after that.
//!
//! The controls are the same with one sync missing: some crash must show it.
//!
//! Needs root. In the environment:
//!
//! - `DAXMAP_REPLAY_LOGS`: workloads per filesystem. `ci/replay` runs many; the default is a
//!   sample.
//! - `DAXMAP_REPLAY_SEED`: the first one.
//! - `DAXMAP_REPLAY_SINGLED_OUT`: writes of a stretch that are tried by themselves.
//! - `DAXMAP_REPLAY_WORKERS`: devices that work at the same time.
//! - `DAXMAP_REPLAY_ON`: only filesystems whose name contains this.

mod background;
mod facts;
mod log;
mod stores;
mod workload;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pmem_tests::blockdev::{
    Crash, Disk, FaultyDisk, Filesystem, Image, Limits, Log, MemoryDisk, Mounted, Stretch,
};
use pmem_tests::long_run::{say, setting};

use facts::Facts;
use workload::Lie;

/// Workloads per filesystem if the environment does not say otherwise.
const LOGS: u64 = 2;
/// Devices that work at the same time.
const WORKERS: u64 = 2;
/// One medium of so many is given to fsck.
const FSCK_EVERY: u64 = 16;
/// What is tried of a stretch if the environment does not say otherwise: so many writes by
/// themselves, and half as many samples.
const SINGLED_OUT: u64 = 3;
/// Workloads of which at least one must show that a sync is missing.
const CONTROL_LOGS: u64 = 3;

/// A filesystem and how it is mounted.
#[derive(Clone, Copy, Debug)]
struct Flavour {
    name: &'static str,
    filesystem: Filesystem,
    options: &'static str,
}

const FLAVOURS: [Flavour; 4] = [
    Flavour { name: "ext4", filesystem: Filesystem::Ext4, options: "" },
    Flavour { name: "ext4 data=journal", filesystem: Filesystem::Ext4, options: "data=journal" },
    Flavour { name: "xfs", filesystem: Filesystem::Xfs, options: "" },
    Flavour { name: "btrfs", filesystem: Filesystem::Btrfs, options: "" },
];

/// The filesystems that the environment asks for.
fn flavours() -> impl Iterator<Item = Flavour> {
    let only = std::env::var("DAXMAP_REPLAY_ON").unwrap_or_default();
    FLAVOURS.into_iter().filter(move |flavour| flavour.name.contains(&only))
}

/// One test at a time: what is measured is one filesystem's.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Tally {
    logs: u64,
    flushes: u64,
    images: u64,
    fscks: u64,
    leftovers: u64,
    failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.logs += other.logs;
        self.flushes += other.flushes;
        self.images += other.images;
        self.fscks += other.fscks;
        self.leftovers += other.leftovers;
        self.failures.extend(other.failures);
    }

    fn describe(&self, what: &str, took: Duration) -> String {
        let Self { logs, flushes, images, fscks, leftovers, failures } = self;
        format!(
            "{what}: {logs} logs, {flushes} flushes, {images} images mounted, recovered and \
             checked, {fscks} of them by fsck, {leftovers} leftovers cleaned away, {} failures, \
             {:.1} s, {} images/s",
            failures.len(),
            took.as_secs_f64(),
            images * 1000 / (took.as_millis() as u64).max(1)
        )
    }
}

struct Bench {
    flavour: Flavour,
    /// Where workloads run.
    logging: FaultyDisk,
    /// Where their crashes are looked at.
    looked_at: MemoryDisk,
    template: Image,
    tally: Tally,
}

impl Bench {
    /// Benches that are at work at the same time have different numbers.
    fn new(flavour: Flavour, number: u32) -> Self {
        let filesystem = flavour.filesystem;
        let logging = FaultyDisk::new(filesystem.size()).unwrap();
        let looked_at = MemoryDisk::new(filesystem.size()).unwrap();
        let template = filesystem.template(number).unwrap();
        Self { flavour, logging, looked_at, template, tally: Tally::default() }
    }

    /// Somebody else's look at the device, which the kernel answers with EBUSY, does not last.
    fn mount<'disk>(&self, disk: &'disk dyn Disk) -> std::io::Result<Mounted<'disk>> {
        const PATIENCE: Duration = Duration::from_secs(5);
        let began = Instant::now();
        loop {
            match Mounted::with_options(disk, self.flavour.filesystem, self.flavour.options) {
                Err(error)
                    if error.kind() == std::io::ErrorKind::ResourceBusy
                        && began.elapsed() < PATIENCE =>
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                result => return result,
            }
        }
    }

    /// Runs a workload. Returns the log, the position at which the workload began, and what was
    /// promised.
    fn record(&self, seed: u64, lie: Option<Lie>) -> (Log, usize, Facts) {
        self.logging.fill(self.template.clone());
        let mounted = self.mount(&self.logging).unwrap();
        workload::settle(mounted.path());
        let began = self.logging.log_len();
        let facts = workload::run(mounted.path(), self.logging.log_clock(), seed, lie);
        mounted.unmount().unwrap();
        (self.logging.log(), began, facts)
    }

    /// Every crash of a workload; of a control until one shows what is missing.
    fn replay(&mut self, seed: u64, lie: Option<Lie>) {
        let (log, began, facts) = self.record(seed, lie);
        self.tally.logs += 1;
        let whole = self.flavour.filesystem.written_whole();
        // A sync that is missing shows where nothing else is kept, if anywhere.
        let singled_out = match lie {
            None => setting("DAXMAP_REPLAY_SINGLED_OUT", SINGLED_OUT) as usize,
            Some(_) => 1,
        };
        let limits = Limits { singled_out, samples: singled_out / 2, whole };
        for stretch in log.stretches(began) {
            self.tally.flushes += u64::from(!stretch.is_last());
            for crash in stretch.crashes(limits, seed) {
                if let Err(why) = self.crash(&stretch, &crash, &facts) {
                    self.fail(&stretch, &crash, seed, lie, &why);
                    if lie.is_some() {
                        return;
                    }
                }
            }
        }
    }

    fn fail(
        &mut self,
        stretch: &Stretch<'_>,
        crash: &Crash,
        seed: u64,
        lie: Option<Lie>,
        why: &str,
    ) {
        let (name, how) = (self.flavour.name, stretch.describe(crash));
        let without = lie.map_or(String::new(), |lie| format!(", without the syncs of {lie:?}"));
        self.tally.failures.push(format!("{name}, seed {seed}{without}: {why}\n  {how}"));
    }

    fn crash(&mut self, stretch: &Stretch<'_>, crash: &Crash, facts: &Facts) -> Result<(), String> {
        self.looked_at.fill(&stretch.image(crash)).expect("memory for an image");
        self.tally.images += 1;
        let mounted =
            self.mount(&self.looked_at).map_err(|error| format!("not mounted again: {error}"))?;
        let checked = facts.check(mounted.path(), stretch.end);
        mounted.unmount().map_err(|error| format!("unmount after recovery: {error}"))?;
        self.tally.leftovers += checked? as u64;
        if self.tally.images.is_multiple_of(FSCK_EVERY) {
            self.tally.fscks += 1;
            self.flavour.filesystem.check(self.looked_at.device()).expect("fsck can be run")?;
        }
        Ok(())
    }
}

/// Gives every seed to one of several benches.
fn with_benches(flavour: Flavour, logs: u64, work: impl Fn(&mut Bench, u64) + Sync) -> Tally {
    let first = setting("DAXMAP_REPLAY_SEED", 1);
    let seeds = AtomicU64::new(first);
    let worker = |number| {
        let mut bench = Bench::new(flavour, number);
        loop {
            let seed = seeds.fetch_add(1, Ordering::Relaxed);
            if seed >= first + logs {
                return bench.tally;
            }
            work(&mut bench, seed);
        }
    };
    let (worker, mut tally) = (&worker, Tally::default());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..setting("DAXMAP_REPLAY_WORKERS", WORKERS).min(logs))
            .map(|number| scope.spawn(move || worker(number as u32)))
            .collect();
        for worker in workers {
            tally.add(worker.join().expect("a worker panicked"));
        }
    });
    tally
}

#[test]
fn what_was_acknowledged_is_there_after_every_crash() {
    let _turn = turn();
    let logs = setting("DAXMAP_REPLAY_LOGS", LOGS);
    let (mut total, began) = (Tally::default(), Instant::now());
    for flavour in flavours() {
        let began = Instant::now();
        let tally = with_benches(flavour, logs, |bench, seed| bench.replay(seed, None));
        say(&tally.describe(flavour.name, began.elapsed()));
        for failure in tally.failures.iter().take(5) {
            say(failure);
        }
        total.add(tally);
    }
    say(&total.describe("block replay", began.elapsed()));
    assert!(total.images > 100 * logs, "only {} images", total.images);
    assert!(total.leftovers > 0, "no crash left a draft behind: nothing was cleaned away");
    assert!(total.failures.is_empty(), "{} failures, see above", total.failures.len());
    say(&format!(
        "\nevidence: block replay: ext4 (ordered and data=journal), xfs and btrfs cut at every flush, \
         with choices of the writes after it, torn between sectors | {} images mounted, recovered \
         and checked, from {} flushes of {} workloads, {} of them by fsck, 0 failures | DAX; a \
         superblock that the device tears",
        total.images, total.flushes, total.logs, total.fscks
    ));
}

/// Where a sync may be missing: with data=journal, what is written is a record of the same journal
/// as the name that comes after it, so the name never goes before the data.
fn is_needed(flavour: Flavour, lie: Lie) -> bool {
    flavour.options != "data=journal" || lie != Lie::Draft
}

/// Runs the workload without the syncs of one kind, and says which crash noticed.
fn control(bench: &mut Bench, lie: Lie) -> Result<(), String> {
    let needed = is_needed(bench.flavour, lie);
    bench.tally = Tally::default();
    for seed in 1..=if needed { CONTROL_LOGS } else { 1 } {
        bench.replay(seed, Some(lie));
        if !bench.tally.failures.is_empty() {
            break;
        }
    }
    let (name, Tally { images, failures, .. }) = (bench.flavour.name, &bench.tally);
    let first = failures.first().and_then(|why| why.lines().next());
    match first {
        Some(why) => say(&format!("a missing sync is noticed by image {images}: {why}")),
        None => say(&format!("{name}: the syncs of {lie:?} are not missed in {images} images")),
    }
    if first.is_some() == needed {
        return Ok(());
    }
    Err(format!("{name}: whether anything misses the syncs of {lie:?} is not as expected"))
}

#[test]
fn a_sync_that_is_missing_is_noticed() {
    let _turn = turn();
    let all = |flavour: Flavour| -> Vec<String> {
        let mut bench = Bench::new(flavour, 0);
        Lie::ALL.into_iter().filter_map(|lie| control(&mut bench, lie).err()).collect()
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = flavours().map(|flavour| scope.spawn(move || all(flavour))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a control panicked")).collect()
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}
