//! Crashes everywhere in lists of operations, and of the recovery that follows: what is found is the
//! last acknowledged checkpoint or the one that was being taken, whole, and so are those kept.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use daxmap::checkpoint::{Options, Strategy, WorkingSet};
use daxmap::{Error, ErrorKind, Result};
use daxmap_sim::{Explorer, History, Mode, Notes, Report, SimRegion, SplitMix64};

const PAGE: u64 = 4096;
/// Called so, a checkpoint was taken by the check.
const BY_CHECK: &str = "by the check";
/// What the check writes.
const MARK: u8 = 0xee;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    /// Stores into a few bytes of a page.
    Write {
        page: u64,
    },
    Save,
    /// Closes and opens.
    Reopen,
    /// Goes back to the oldest checkpoint that is kept.
    Restore,
}

/// What a file is made for.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub strategy: Strategy,
    pub pages: u64,
    pub keep: u32,
    /// Pages of the file; so few that a page is used again as soon as it can be.
    pub file_pages: u64,
}

impl Shape {
    pub fn options(self) -> Options {
        Options::new(self.pages * PAGE).strategy(self.strategy).keep(self.keep).seed(7)
    }

    pub fn file_bytes(self) -> u64 {
        self.file_pages * PAGE
    }
}

/// A working set of which each page has one interesting byte, and the sets that were saved, by
/// number.
#[derive(Clone, Debug)]
struct Model {
    now: Vec<u8>,
    saved: Vec<Vec<u8>>,
}

impl Model {
    fn new(shape: Shape) -> Self {
        let zeros = vec![0; shape.pages as usize];
        Self { now: zeros.clone(), saved: vec![zeros] }
    }

    /// What an operation does, if it does not fail. The value written is that of its place in the
    /// list.
    fn apply(&mut self, shape: Shape, index: usize, op: Op) {
        match op {
            Op::Write { page } => self.now[page as usize] = index as u8 + 1,
            Op::Save => self.saved.push(self.now.clone()),
            Op::Reopen => self.now.clone_from(&self.saved[self.saved.len() - 1]),
            Op::Restore => {
                let oldest = self.saved.len().saturating_sub(shape.keep as usize + 1);
                self.now.clone_from(&self.saved[oldest]);
            }
        }
    }
}

fn write(set: &mut WorkingSet<SimRegion>, page: u64, value: u8) -> Result<()> {
    set.write(page * PAGE + 100, &[value])
}

/// The byte of each page, all others being zero.
fn read(set: &WorkingSet<SimRegion>) -> std::result::Result<Vec<u8>, String> {
    set.bytes()
        .chunks(PAGE as usize)
        .map(|page| {
            if page[..100] != [0; 100] || page[101..] != [0; PAGE as usize - 101] {
                return Err("bytes that nobody wrote".to_owned());
            }
            Ok(page[100])
        })
        .collect()
}

fn run(region: &SimRegion, notes: &Notes, shape: Shape, ops: &[Op]) -> Result<()> {
    let mut set = WorkingSet::open(region.clone(), &shape.options())?;
    for (index, op) in ops.iter().enumerate() {
        match *op {
            Op::Write { page } => write(&mut set, page, index as u8 + 1)?,
            Op::Save => {
                let sequence = set.list().last().map_or(0, |last| last.sequence) + 1;
                notes.begin(sequence);
                assert_eq!(set.checkpoint()?.sequence, sequence);
                notes.ack(sequence);
            }
            Op::Reopen => {
                // As after a kill: closing would close the region as well.
                set.abandon();
                set = WorkingSet::open(region.clone(), &shape.options())?;
            }
            Op::Restore => {
                let oldest = set.list()[0].sequence;
                set.restore(oldest)?;
            }
        }
    }
    // The crashes before this are those of a process that never came here.
    set.close()
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn told(error: Error) -> String {
    error.to_string()
}

/// What the check does when it found everything in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Nothing,
    /// Saves once more, so that what recovery thinks of the free pages is tried as well.
    Save,
}

/// Opens what a crash left, and compares everything with the model.
fn check(
    region: &SimRegion,
    history: &History,
    shape: Shape,
    model: &Model,
    then: Then,
) -> std::result::Result<(), String> {
    let mut set = WorkingSet::open(region.clone(), &shape.options()).map_err(told)?;
    let result = inspect(&mut set, history, shape, model, then);
    set.abandon();
    let expected = result?;
    if then == Then::Nothing {
        return Ok(());
    }
    // And it was durable: the next one finds it.
    let again = WorkingSet::open(region.clone(), &shape.options()).map_err(told)?;
    let found = read(&again);
    again.abandon();
    if found? == expected { Ok(()) } else { Err("what the check saved is not there".to_owned()) }
}

/// The set that the checkpoint of this number holds. Numbers beyond the model's are the check's.
fn expected(model: &Model, sequence: u64, by_check: u64) -> Vec<u8> {
    let of_workload = sequence - by_check;
    let mut set = model.saved[of_workload as usize].clone();
    if by_check > 0 {
        set[0] = MARK;
    }
    set
}

fn inspect(
    set: &mut WorkingSet<SimRegion>,
    history: &History,
    shape: Shape,
    model: &Model,
    then: Then,
) -> std::result::Result<Vec<u8>, String> {
    let list = set.list();
    let newest = list[list.len() - 1].sequence;
    // Checks that were crashed have left at most one each.
    let by_check = |sequence: u64| {
        let of_check = list.iter().filter(|c| c.sequence <= sequence && c.label == BY_CHECK);
        of_check.count() as u64
    };
    let of_workload = newest - by_check(newest);
    let (acked, begun) = (history.last_acked().unwrap_or(0), history.last_begun().unwrap_or(0));
    // Of a check's checkpoint that stands alone, nobody knows how many came before.
    let told_apart = shape.keep > 0 || list[list.len() - 1].label != BY_CHECK;
    if told_apart && !(acked..=begun).contains(&of_workload) {
        return Err(format!("{of_workload} found, {acked} acknowledged, {begun} begun"));
    }
    if list[list.len() - 1].label != BY_CHECK {
        history.recovered(&newest);
    }
    let kept = (newest + 1).min(u64::from(shape.keep) + 1);
    if list.len() as u64 != kept || list[0].sequence != newest + 1 - kept {
        return Err(format!("kept are {list:?}"));
    }
    let found = read(set)?;
    if list[list.len() - 1].label != BY_CHECK && found != expected(model, newest, 0) {
        return Err(format!("checkpoint {newest} holds {found:?}"));
    }
    for earlier in list.iter().rev().skip(1).filter(|c| c.label != BY_CHECK) {
        set.verify(earlier.sequence).map_err(told)?;
        set.restore(earlier.sequence).map_err(told)?;
        if read(set)? != expected(model, earlier.sequence, 0) {
            return Err(format!("kept checkpoint {} is another", earlier.sequence));
        }
    }
    if list.len() > 1 {
        set.restore(newest).map_err(told)?;
        if read(set)? != found {
            return Err("there is no way back to the newest".to_owned());
        }
    }
    let mut expected = found;
    if then == Then::Save && expected[0] != MARK {
        write(set, 0, MARK).map_err(told)?;
        set.checkpoint_labelled(BY_CHECK).map_err(told)?;
        expected[0] = MARK;
    }
    Ok(expected)
}

fn explore(explorer: &Explorer, shape: Shape, ops: &[Op], then: Then) -> Report {
    let mut model = Model::new(shape);
    for (index, op) in ops.iter().enumerate() {
        model.apply(shape, index, *op);
    }
    let (model, ops) = (Arc::new(model), ops.to_vec());
    let explorer = explorer.clone().setup(move |region| {
        WorkingSet::format(region.clone(), &shape.options())?.abandon();
        Ok(())
    });
    explorer.run(
        move |region, notes| run(region, notes, shape, &ops),
        move |region, history| check(region, history, shape, &model, then),
    )
}

/// All lists of so many operations. Shorter ones are among their crashes.
fn all_lists(alphabet: &[Op], count: u32) -> impl Iterator<Item = Vec<Op>> {
    let base = alphabet.len();
    (0..base.pow(count)).map(move |number| {
        (0..count).map(|place| alphabet[number / base.pow(place) % base]).collect()
    })
}

/// Two pages of data and a node, twice.
pub const SMALL: Shape =
    Shape { strategy: Strategy::Shadow, pages: 2, keep: 0, file_pages: 4 + 2 * 3 };
pub const REDO: Shape = Shape { strategy: Strategy::Redo, pages: 2, keep: 0, file_pages: 12 };
pub const REDO_OF_ONE: Shape = Shape { pages: 1, ..REDO };
/// The shadow pages three times, for an earlier checkpoint.
pub const KEPT: Shape =
    Shape { strategy: Strategy::Shadow, pages: 2, keep: 1, file_pages: 4 + 3 * 3 };

/// Images of a crash, above which they are sampled.
const EXHAUSTIVE: u64 = 1 << 20;

/// A debug build tries fewer.
const ONE_IN: usize = if cfg!(debug_assertions) { 40 } else { 1 };

/// True if some save of the list has more than one page to save.
fn saves_two_pages(ops: &[Op]) -> bool {
    let mut changed = BTreeSet::new();
    ops.iter().any(|op| {
        match op {
            Op::Write { page } => _ = changed.insert(*page),
            Op::Save if changed.len() > 1 => return true,
            Op::Save | Op::Reopen | Op::Restore => changed.clear(),
        }
        false
    })
}

/// Whether all images of a crash of the list can be recovered. A redo record goes past the caches: until
/// the fence, any of its words may be there and others not. One of two pages has more than 2^22 images at
/// a single crash point; those are sampled, below. Of one page, and of sectors, there are few.
fn few_images(shape: Shape, mode: Mode, ops: &[Op]) -> bool {
    !(mode != Mode::PageCache && shape.strategy == Strategy::Redo && saves_two_pages(ops))
}

/// Every crash of one list in so many, but every image of each, and where `depth` is 2, of every
/// crash of each recovery.
fn every_list(shape: Shape, one_in: usize, depth: usize) {
    let one_in = if std::env::var_os("DAXMAP_CHECKPOINT_LISTS").is_some() { 1 } else { one_in };
    let alphabet = [Op::Write { page: 0 }, Op::Write { page: 1 }, Op::Save, Op::Reopen];
    let per_mode = |mode| {
        let (mut sum, mut lists) = (Report::default(), 0);
        for ops in all_lists(&alphabet, 6) {
            // Two in a row of what changes nothing the second time are one; what comes after the
            // last save changes no file; and the pages may change their names.
            let twice = ops.windows(2).any(|two| two[0] == two[1] && two[0] != Op::Save);
            let first = ops.iter().find(|op| matches!(op, Op::Write { .. }));
            if twice || ops[5] != Op::Save || first == Some(&Op::Write { page: 1 }) {
                continue;
            }
            if !few_images(shape, mode, &ops) {
                continue;
            }
            lists += 1;
            if lists % one_in != 0 {
                continue;
            }
            let explorer = Explorer::new(mode, shape.file_bytes()).images(EXHAUSTIVE);
            let explorer = explorer.depth(depth).nested_images(u64::MAX);
            let report = explore(&explorer, shape, &ops, Then::Nothing).expect_clean();
            assert!(report.is_exhaustive(), "{mode:?} {ops:?}");
            sum.add(&report);
        }
        (mode, lists / one_in, sum)
    };
    thread::scope(|scope| {
        let halves = Mode::ALL.chunks(2).map(|modes| {
            scope.spawn(move || modes.iter().map(|mode| per_mode(*mode)).collect::<Vec<_>>())
        });
        let mut sum = Report::default();
        for half in halves.collect::<Vec<_>>() {
            for (mode, lists, report) in half.join().expect("no finding") {
                println!("{}, {mode:?}, {lists} lists: {report}", shape.strategy);
                sum.add(&report);
            }
        }
        let which = match one_in {
            1 => "every program".to_owned(),
            n => format!("one program in {n}"),
        };
        let saves = match shape.strategy {
            Strategy::Redo => ", saves of one page except on a page cache",
            _ => "",
        };
        let recovery = if depth > 1 { ", and every crash of every recovery" } else { "" };
        println!(
            "\nevidence: a checkpoint by {}, {which} of up to 6 operations (write to either page, \
             save, reopen{saves}), every crash in every mode{recovery} | {} images at {} crash points of {} \
             programs, all of them exhausted, {} recovered states, 0 failures | that the compiled \
             library executes the flushes and fences that the model is told of",
            shape.strategy, sum.images, sum.crash_points, sum.runs, sum.states
        );
    });
}

#[test]
fn every_crash_of_every_list_of_six_operations_with_shadow_pages() {
    every_list(SMALL, ONE_IN, 2);
}

#[test]
fn every_crash_of_every_list_of_six_operations_with_a_redo_record() {
    // A record is longer than a root: recovery's crashes are sampled, below.
    every_list(REDO, 4 * ONE_IN, 1);
}

#[test]
fn every_crash_with_earlier_checkpoints_kept() {
    // One node of the page table, and hardly room; two of them and one above. Such a root is longer,
    // so the crashes of recovery are sampled, below.
    for (pages, file_pages) in [(2, 4 + 3 * 3), (257, 4 + 257 + 3)] {
        with_earlier_kept(Shape { strategy: Strategy::Shadow, pages, keep: 1, file_pages });
    }
}

fn with_earlier_kept(shape: Shape) {
    let (low, high) = (Op::Write { page: 0 }, Op::Write { page: shape.pages - 1 });
    let lists: [&[Op]; 4] = [
        &[low, Op::Save, high, Op::Save, low, Op::Save],
        &[low, high, Op::Save, low, Op::Save, Op::Restore],
        &[high, Op::Save, Op::Restore, Op::Save, low, Op::Save],
        &[low, Op::Save, high, Op::Save, Op::Reopen, Op::Save],
    ];
    for mode in Mode::ALL {
        // The large one takes its time.
        for ops in lists.into_iter().take(if shape.pages > 2 { 1 } else { 4 }) {
            let explorer = Explorer::new(mode, shape.file_bytes()).depth(1);
            let report = explore(&explorer, shape, ops, Then::Nothing).expect_clean();
            assert!(report.is_exhaustive(), "{mode:?} {ops:?}");
        }
    }
}

fn creation(shape: Shape, explorer: &dyn Fn(Mode) -> Explorer, exhaustive: bool) {
    for mode in Mode::ALL {
        let report = explorer(mode).run(
            move |region, notes| {
                WorkingSet::format(region.clone(), &shape.options())?.abandon();
                notes.ack(1);
                Ok(())
            },
            move |region, history| {
                match WorkingSet::open(region.clone(), &shape.options()) {
                    Ok(set) => set.abandon(),
                    Err(error) if history.last_acked().is_some() => return Err(told(error)),
                    Err(error) if matches!(error.kind(), ErrorKind::WrongFormat(_)) => {}
                    Err(error) => return Err(told(error)),
                }
                let set = WorkingSet::open_or_format(region.clone(), &shape.options());
                let mut set = set.map_err(told)?;
                let result = write(&mut set, shape.pages - 1, 1).and_then(|()| set.checkpoint());
                set.abandon();
                result.map(drop).map_err(told)
            },
        );
        let report = report.expect_clean();
        assert!(report.is_exhaustive() || !exhaustive, "{mode:?}");
    }
}

#[test]
fn what_recovery_left_is_good_for_another_checkpoint() {
    let (low, high) = (Op::Write { page: 0 }, Op::Write { page: 1 });
    let lists: [&[Op]; 2] =
        [&[low, Op::Save, high, low, Op::Save], &[high, Op::Save, low, Op::Save, Op::Reopen]];
    for (mode, shape) in Mode::ALL.into_iter().flat_map(|m| [SMALL, REDO, KEPT].map(|s| (m, s))) {
        for ops in lists {
            let explorer =
                Explorer::new(mode, shape.file_bytes()).images(30).nested_images(4).samples(2);
            let _ = explore(&explorer, shape, ops, Then::Save).expect_clean();
        }
    }
}

#[test]
fn a_crash_of_the_creation_leaves_nothing_or_the_whole() {
    for shape in [SMALL, REDO] {
        let new = |mode| Explorer::new(mode, shape.file_bytes()).images(EXHAUSTIVE);
        // One line of check values: the images of two, beside those of a record, are too many.
        let exhausted = if shape.strategy == Strategy::Redo { REDO_OF_ONE } else { shape };
        creation(exhausted, &|mode| new(mode).depth(1), true);
        // A creation that follows a crashed one, and is crashed.
        let few = |mode| new(mode).images(10).nested_images(2).samples(1);
        creation(shape, &few, false);
    }
}

#[test]
fn nothing_is_acknowledged_after_a_failed_drain() {
    let ops = [Op::Write { page: 0 }, Op::Save, Op::Write { page: 1 }, Op::Save, Op::Save];
    for (mode, shape) in Mode::ALL.into_iter().flat_map(|mode| [(mode, SMALL), (mode, REDO)]) {
        let explorer = Explorer::new(mode, shape.file_bytes()).fail_drains(true).depth(1);
        let _ = explore(&explorer, shape, &ops, Then::Nothing).expect_clean();
    }
}

/// A seeded list.
fn some_list(random: &mut SplitMix64, shape: Shape) -> Vec<Op> {
    let count = 7 + random.below(14);
    let one = |random: &mut SplitMix64| match random.below(10) {
        0..=4 => Op::Write { page: random.below(shape.pages) },
        5..=7 => Op::Save,
        8 => Op::Reopen,
        _ => Op::Restore,
    };
    (0..count).map(|_| one(random)).collect()
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// Crashes of the program of this number, and of its recovery.
fn crashes_of_program(seed: u64, number: u64) -> Report {
    let mut random = SplitMix64::new((seed << 32) + number);
    // A set of two levels of nodes is seldom: an image of it takes fifty times as long.
    let pages = match random.below(24) {
        0 => 257,
        n => [1, 2, 3, 5, 2, 3, 9, 4][n as usize % 8],
    };
    let shape = if random.below(2) == 0 {
        let nodes = if pages > 256 { 3 } else { 1 };
        let keep = random.below(4) as u32;
        // A large set fits once, and no more than twenty pages of it change.
        let room = (pages.min(20) + nodes) * (2 + u64::from(keep));
        let file_pages = 4 + room.max(pages + nodes);
        Shape { strategy: Strategy::Shadow, pages, keep, file_pages }
    } else {
        let file_pages = 9 + pages * 2 + pages / 20;
        Shape { strategy: Strategy::Redo, pages, keep: 0, file_pages }
    };
    let ops = some_list(&mut random, shape);
    let mode = Mode::ALL[number as usize % Mode::ALL.len()];
    let explorer = Explorer::new(mode, shape.file_bytes()).seed(seed).images(200);
    let explorer = explorer.nested_images(4).samples(4);
    // One crashed recovery is as much work as a dozen lists.
    let explorer = explorer.depth(if number % 17 == 16 { 2 } else { 1 });
    let then = if number.is_multiple_of(3) { Then::Save } else { Then::Nothing };
    explore(&explorer, shape, &ops, then).expect_clean()
}

/// As many images as `DAXMAP_CHECKPOINT_IMAGES` says, of programs drawn from
/// `DAXMAP_CHECKPOINT_SEED`.
#[test]
fn crashes_of_longer_lists() {
    // Of a run that takes hours, how far it came.
    let told_every = 1_000_000;
    let sample = if cfg!(debug_assertions) { 20_000 } else { 400_000 };
    let images = setting("DAXMAP_CHECKPOINT_IMAGES").unwrap_or(sample);
    let seed = setting("DAXMAP_CHECKPOINT_SEED").unwrap_or(1);
    let (next, sum) = (AtomicU64::new(0), Mutex::new(Report::default()));
    let worker = || {
        while sum.lock().expect("no finding").images < images {
            let report = crashes_of_program(seed, next.fetch_add(1, Ordering::Relaxed));
            let mut sum = sum.lock().expect("no finding");
            let before = sum.images;
            sum.add(&report);
            if sum.images / told_every > before / told_every {
                println!("{sum}");
            }
        }
    };
    thread::scope(|scope| {
        for worker in [(); 2].map(|()| scope.spawn(worker)) {
            worker.join().expect("no finding");
        }
    });
    let sum = sum.into_inner().expect("no finding");
    println!(
        "\nevidence: simulated crashes of checkpoints, in every mode, with crashes of their recovery \
         | {} images at {} crash points of {} runs, {} recovered states, 0 failures \
         | that the compiled library executes the flushes and fences that the model is told of",
        sum.images, sum.crash_points, sum.runs, sum.states
    );
    assert!(sum.images >= images);
}
