//! A reader that a writer overtakes, at each of its reads in turn.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use daxmap::checkpoint::{Options, Strategy, WorkingSet, contents_of};
use daxmap::{Region, Result};
use daxmap_sim::{Mode, SimRegion};
use pmem_tests::killed::Killed;
use pmem_tests::pass_on;

const PAGE: u64 = 4096;
const BYTES: u64 = 20 * PAGE;
/// Pages that change in turn: so far apart that their check values are in two lines.
const PAGES: [u64; 2] = [0, 12];
/// More than an opening reads.
const READS: u32 = 60;

/// A region in which somebody else does something before the read whose turn it is.
struct Overtaken<'a> {
    region: SimRegion,
    left: AtomicU32,
    /// How many reads later it does more.
    again: u32,
    other: Mutex<&'a mut (dyn FnMut() + Send)>,
}

/// That nothing more is done.
const ONCE: u32 = u32::MAX;

impl Region for Overtaken<'_> {
    pass_on!(region: sync_all len durability granularity backend is_emulated write fill_flush
        flush drain deep_flush load_u64 store_u64 compare_exchange_u64 grow close slices);

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            self.left.store(self.again, Ordering::Relaxed);
            (self.other.lock().expect("nobody panics"))();
        }
        self.region.read(offset, into)
    }
}

/// Another checkpoint; an error if the writer is stopped in it.
fn save<R: Region>(set: &mut WorkingSet<R>) -> Result<()> {
    let next = set.list().last().map_or(0, |newest| newest.sequence) + 1;
    let page = PAGES[(next % 2) as usize];
    set.slice_mut(page * PAGE, PAGE).expect("inside").fill(next as u8);
    set.checkpoint().map(|saved| assert_eq!(saved.sequence, next))
}

/// What a page of a checkpoint is full of.
fn expected(page: u64, sequence: u64) -> u8 {
    let turn = PAGES.iter().position(|changed| *changed == page);
    turn.map_or(0, |turn| sequence.saturating_sub((sequence + turn as u64) % 2) as u8)
}

/// A writer takes so many checkpoints before this read of a reader's, and stops in the next one, before
/// it drains once more than so often.
fn overtake(strategy: Strategy, before: u64, turn: u32, saves: u64, drains: u32) {
    let region = SimRegion::new(Mode::Adr, 60 * PAGE, 60 * PAGE);
    let options = Options::new(BYTES).strategy(strategy).seed(3);
    let writer = Arc::new(Killed::before_drain(region.clone(), u32::MAX));
    let mut set = WorkingSet::format(Arc::clone(&writer), &options).expect("made");
    (0..before).for_each(|_| save(&mut set).expect("there is room"));
    let mut other = || {
        (0..saves).for_each(|_| save(&mut set).expect("there is room"));
        writer.kill_after(drains);
        let _ = save(&mut set);
    };
    let left = AtomicU32::new(turn);
    let overtaken = Overtaken { region, left, again: ONCE, other: Mutex::new(&mut other) };
    let reader = WorkingSet::open(overtaken, &options.clone().read_only(true));
    let reader = reader.unwrap_or_else(|error| panic!("{strategy}, read {turn}: {error}"));
    let newest = reader.recovery().checkpoint;
    assert!((before..=before + saves + 1).contains(&newest), "{newest}");
    for (page, bytes) in (0..).zip(reader.bytes().chunks(PAGE as usize)) {
        let whole = bytes.iter().all(|byte| *byte == expected(page, newest));
        assert!(
            whole,
            "{strategy}, read {turn}, {saves} saves, {drains}: a mixture in page {page}"
        );
    }
    drop(reader);
    set.abandon();
}

#[test]
fn a_reader_that_is_overtaken_finds_a_whole_checkpoint() {
    for strategy in [Strategy::Shadow, Strategy::Redo] {
        for before in 1..3 {
            for turn in 0..READS {
                for saves in 0..3 {
                    (0..5).for_each(|drains| overtake(strategy, before, turn, saves, drains));
                }
            }
        }
    }
}

/// A writer saves while a reader reads, and has begun the next record, over the one that the reader found
/// whole, when it reads again: the places are whole without it.
#[test]
fn a_record_that_is_written_over_is_not_needed() {
    let options = Options::new(BYTES).strategy(Strategy::Redo).seed(3);
    for (turn, again) in (0..READS).flat_map(|turn| (0..READS).map(move |again| (turn, again))) {
        let region = SimRegion::new(Mode::Adr, 60 * PAGE, 60 * PAGE);
        let writer = Arc::new(Killed::before_drain(region.clone(), u32::MAX));
        let mut set = WorkingSet::format(Arc::clone(&writer), &options).expect("made");
        save(&mut set).expect("there is room");
        let mut first = true;
        let mut other = || {
            if std::mem::take(&mut first) {
                save(&mut set).expect("there is room");
            } else {
                writer.kill_after(0);
                let _ = save(&mut set);
            }
        };
        let left = AtomicU32::new(turn);
        let overtaken = Overtaken { region, left, again, other: Mutex::new(&mut other) };
        let reader = WorkingSet::open(overtaken, &options.clone().read_only(true));
        let reader = reader.unwrap_or_else(|error| panic!("reads {turn} and {again}: {error}"));
        let newest = reader.recovery().checkpoint;
        assert!((1..=3).contains(&newest), "{newest}");
        for (page, bytes) in (0..).zip(reader.bytes().chunks(PAGE as usize)) {
            let whole = bytes.iter().all(|byte| *byte == expected(page, newest));
            assert!(whole, "reads {turn} and {again}: a mixture in page {page}");
        }
        drop(reader);
        set.abandon();
    }
}

/// As [`overtake`], while the checkpoints are listed, some of them kept.
fn overtake_a_list(strategy: Strategy, turn: u32, saves: u64, drains: u32) -> bool {
    let keep = if strategy == Strategy::Shadow { 2 } else { 0 };
    let region = SimRegion::new(Mode::Adr, 100 * PAGE, 100 * PAGE);
    let options = Options::new(BYTES).strategy(strategy).keep(keep).seed(3);
    let writer = Arc::new(Killed::before_drain(region.clone(), u32::MAX));
    let mut set = WorkingSet::format(Arc::clone(&writer), &options).expect("made");
    (0..4).for_each(|_| save(&mut set).expect("there is room"));
    let read = AtomicBool::new(false);
    let mut other = || {
        read.store(true, Ordering::Relaxed);
        (0..saves).for_each(|_| save(&mut set).expect("there is room"));
        writer.kill_after(drains);
        let _ = save(&mut set);
    };
    let left = AtomicU32::new(turn);
    let overtaken = Overtaken { region, left, again: ONCE, other: Mutex::new(&mut other) };
    let what = format!("{strategy}, read {turn}, {saves} saves, {drains}");
    let found = contents_of(&overtaken).unwrap_or_else(|error| panic!("{what}: {error}"));
    let sequences: Vec<u64> = found.checkpoints.iter().map(|(c, _)| c.sequence).collect();
    let newest = *sequences.last().expect("there is one");
    assert!((4..=5 + saves).contains(&newest), "{what}: {sequences:?}");
    assert!(sequences.iter().copied().eq(newest - u64::from(keep)..=newest), "{sequences:?}");
    for (checkpoint, sound) in &found.checkpoints {
        let sound = sound.as_ref();
        assert!(sound.is_ok(), "{what}: checkpoint {}: {sound:?}", checkpoint.sequence);
    }
    set.abandon();
    read.into_inner()
}

#[test]
fn a_list_that_is_overtaken_has_whole_checkpoints() {
    for strategy in [Strategy::Shadow, Strategy::Redo] {
        for (saves, drains) in (0..5).flat_map(|saves| (0..5).map(move |drains| (saves, drains))) {
            let reads = (0..).take_while(|turn| overtake_a_list(strategy, *turn, saves, drains));
            assert!(reads.count() > 20);
        }
    }
}

/// A region whose user goes on as far as somebody else says: before so many of its writes and drains.
struct Paced {
    region: SimRegion,
    pace: Arc<Pace>,
}

#[derive(Default)]
struct Pace {
    steps: Mutex<Steps>,
    changed: Condvar,
}

#[derive(Default)]
struct Steps {
    done: u32,
    allowed: u32,
    waits: bool,
    ended: bool,
}

impl Pace {
    fn lock(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().expect("nobody panics")
    }

    /// The user's next step, when it may be taken.
    fn step(&self) {
        let mut steps = self.lock();
        while steps.done >= steps.allowed {
            steps.waits = true;
            self.changed.notify_all();
            steps = self.changed.wait(steps).expect("nobody panics");
        }
        steps.waits = false;
        steps.done += 1;
    }

    fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Has the user take so many steps in all, and waits until it has. False if it has no more.
    fn run_to(&self, steps: u32) -> bool {
        let mut now = self.lock();
        now.allowed = steps;
        self.changed.notify_all();
        while !(now.ended || now.waits && now.done >= steps) {
            now = self.changed.wait(now).expect("nobody panics");
        }
        !now.ended
    }
}

impl Region for Paced {
    pass_on!(region: sync_all len durability granularity backend is_emulated read write fill_flush flush
        deep_flush load_u64 store_u64 compare_exchange_u64 grow close slices);

    fn write_flush(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.pace.step();
        self.region.write_flush(offset, data)
    }

    fn drain(&self) -> Result<()> {
        self.pace.step();
        self.region.drain()
    }
}

/// Checkpoints of a set of two pages, both full of the number of the checkpoint, by a writer that has
/// taken `first` steps when somebody looks, and takes more up to `second` before the read number
/// `turn`. Whether it has more than the first ones, and there was such a read.
fn meet(
    strategy: Strategy,
    (first, second, turn): (u32, u32, u32),
    look: impl FnOnce(&Overtaken<'_>, &Options),
) -> (bool, bool) {
    let region = SimRegion::new(Mode::Adr, 60 * PAGE, 60 * PAGE);
    let options = Options::new(2 * PAGE).strategy(strategy).seed(3);
    WorkingSet::format(region.clone(), &options).expect("made").abandon();
    let pace = Arc::new(Pace::default());
    let paced = Paced { region: region.clone(), pace: Arc::clone(&pace) };
    let (writers, writing) = (Arc::clone(&pace), options.clone());
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut set = WorkingSet::open(paced, &writing).expect("it was made");
            for number in 1..4 {
                set.slice_mut(0, 2 * PAGE).expect("inside").fill(number);
                set.checkpoint().expect("there is room");
            }
            set.abandon();
            writers.end();
        });
        let (more, read) = (pace.run_to(first), AtomicBool::new(false));
        let mut other = || {
            pace.run_to(second);
            read.store(true, Ordering::Relaxed);
        };
        let left = AtomicU32::new(turn);
        // The writer goes on to its end, whatever is found.
        let found = panic::catch_unwind(AssertUnwindSafe(|| {
            look(&Overtaken { region, left, again: ONCE, other: Mutex::new(&mut other) }, &options);
        }));
        pace.run_to(u32::MAX);
        if let Err(panic) = found {
            println!("{strategy}, {first} and {second} steps, read {turn}:");
            panic::resume_unwind(panic);
        }
        (more, read.load(Ordering::Relaxed))
    })
}

/// [`meet`] wherever the writer may stand, with both strategies.
fn meet_everywhere(look: impl Fn(&Overtaken<'_>, &Options)) {
    for strategy in [Strategy::Shadow, Strategy::Redo] {
        let (mut met, mut first, mut more) = (0, 0, true);
        while more {
            // As many steps as two checkpoints have, and a few.
            for second in first..first + 30 {
                for turn in 0..READS {
                    let (further, read) = meet(strategy, (first, second, turn), &look);
                    if !read {
                        break;
                    }
                    (met, more) = (met + 1, more && further);
                }
            }
            first += 1;
        }
        println!("{strategy}: {met} meetings");
        assert!(met > 5000, "{met}");
    }
}

#[test]
fn a_reader_meets_no_mixture_wherever_the_writer_stands() {
    meet_everywhere(|region, options| {
        let reader = WorkingSet::open(region, &options.clone().read_only(true));
        let reader = reader.unwrap_or_else(|error| panic!("{error}"));
        let newest = reader.recovery().checkpoint;
        let whole = reader.bytes().iter().all(|byte| u64::from(*byte) == newest);
        assert!(whole, "a mixture");
    });
}

#[test]
fn a_list_has_a_whole_checkpoint_wherever_the_writer_stands() {
    meet_everywhere(|region, _| {
        let found = contents_of(region).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found.checkpoints.len(), 1);
        for (checkpoint, sound) in found.checkpoints {
            sound.unwrap_or_else(|error| panic!("checkpoint {}: {error}", checkpoint.sequence));
        }
    });
}
