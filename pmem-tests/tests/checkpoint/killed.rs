//! A process is killed after it wrote and before it drained: the next one sees what is not durable,
//! goes on from there, and then the power goes. The bug kept away: what was only seen is relied on,
//! and overwrites what the medium still needs.

use std::panic::resume_unwind;
use std::thread;

use daxmap::checkpoint::{Options, Strategy, WorkingSet};
use daxmap::{ErrorKind, Region, Result};
use daxmap_sim::{Explorer, History, Mode, Notes, Report, SimRegion};
use pmem_tests::killed::Killed;

use crate::crashes::{KEPT, REDO, SMALL, Shape};

const PAGE: u64 = 4096;
/// Where in a page the value is: two lines, so that half a page shows.
const PLACES: [usize; 2] = [100, 3000];
/// Checkpoints that a process takes, if it lives.
const ROUNDS: u64 = 3;
/// Marks an opening: what was found is relied on, and whole in both copies.
const OPENED: u64 = 1 << 63;
/// Marks that something is being damaged: nothing has been relied on since.
const DAMAGED: u64 = 1 << 62;
/// Marks that a set is being made: there may be none.
const MAKING: u64 = 1 << 61;
/// A set of zeros, of which no checkpoint was taken.
const BLANK: u64 = 0;

/// What the set holds and which checkpoint that is, as a mark; an error if it is none.
fn content<R: Region>(set: &WorkingSet<R>) -> std::result::Result<u64, String> {
    let mut mark = set.list().last().map_or(0, |newest| newest.sequence);
    for page in set.bytes().chunks(PAGE as usize) {
        let [value, other] = PLACES.map(|place| page[place]);
        let others = (0..).zip(page).filter(|(at, _)| !PLACES.contains(at));
        if value != other || others.into_iter().any(|(_, byte)| *byte != 0) {
            return Err("torn".to_owned());
        }
        mark = mark << 8 | u64::from(value);
    }
    Ok(mark)
}

/// What a process was told is durable last, and what it began last.
#[derive(Clone, Copy)]
struct Told {
    acked: u64,
    begun: u64,
}

/// A process that opens a set and takes checkpoints of it, until it is killed. Its number is in
/// everything that it writes.
struct Process<'a> {
    shape: Shape,
    notes: &'a Notes,
    number: u64,
    told: Told,
}

impl Process<'_> {
    fn begin(&mut self, mark: u64) {
        self.told.begun = mark & !OPENED;
        self.notes.begin(mark);
    }

    fn ack(&mut self, mark: u64) {
        self.told.acked = mark & !OPENED;
        self.notes.ack(mark);
    }

    fn work<R: Region>(&mut self, set: Result<WorkingSet<R>>) -> Result<()> {
        let mut set = set?;
        let mark = content(&set).expect("what is found is a checkpoint");
        let Told { acked, begun } = self.told;
        assert!(mark == acked || mark == begun, "{mark:x} of {acked:x}, {begun:x}");
        self.begin(mark | OPENED);
        self.ack(mark | OPENED);
        let result = (0..ROUNDS).try_for_each(|round| self.round(&mut set, round));
        set.abandon();
        result
    }

    fn round<R: Region>(&mut self, set: &mut WorkingSet<R>, round: u64) -> Result<()> {
        let sequence = set.list().last().map_or(0, |newest| newest.sequence) + 1;
        let (page, value) = (sequence % self.shape.pages, (self.number * 10 + round) as u8);
        for place in PLACES {
            set.write(page * PAGE + place as u64, &[value])?;
        }
        let now = content(set).expect("it was just written");
        let bits = 8 * self.shape.pages;
        let mark = sequence << bits | now & ((1 << bits) - 1);
        self.begin(mark);
        set.checkpoint()?;
        self.ack(mark);
        Ok(())
    }
}

/// Runs a process, which is killed before this drain, in a thread of its own: the model knows whose
/// stores a drain waits for.
fn killed(
    region: &SimRegion,
    drains: u32,
    process: &mut Process<'_>,
    open: impl Fn(Killed<SimRegion>) -> Result<WorkingSet<Killed<SimRegion>>> + Sync + Send,
) {
    let region = Killed::before_drain(region.clone(), drains);
    let run = || process.work(open(region));
    let ended = thread::scope(|scope| scope.spawn(run).join());
    let _ = ended.unwrap_or_else(|panic| resume_unwind(panic));
}

/// Opens what a crash left.
fn check(region: &SimRegion, history: &History, shape: Shape) -> std::result::Result<(), String> {
    let last = |marks: &[u64]| marks.last().copied().unwrap_or(BLANK);
    let (acked, begun) = (last(history.acked()), last(history.begun()));
    let set = match WorkingSet::open(region.clone(), &shape.options()) {
        Ok(set) => set,
        Err(error) => {
            let nothing_was_told = match error.kind() {
                ErrorKind::Damaged(_) => begun == DAMAGED,
                ErrorKind::WrongFormat(_) => {
                    history.acked().is_empty() && history.begun().first() == Some(&MAKING)
                }
                _ => false,
            };
            return if nothing_was_told { Ok(()) } else { Err(error.to_string()) };
        }
    };
    let (found, recovery) = (content(&set), set.recovery().clone());
    let kept = set.list().iter().try_for_each(|kept| set.verify(kept.sequence));
    set.abandon();
    kept.map_err(|error| error.to_string())?;
    let found = found?;
    history.recovered(&found);
    if begun == DAMAGED || begun == MAKING && found == BLANK {
        return Ok(());
    }
    if found != acked & !OPENED && found != begun & !OPENED {
        return Err(format!("{found:x} found, {acked:x} acknowledged, {begun:x} begun"));
    }
    if acked == begun && acked & OPENED != 0 && !recovery.clean {
        return Err(format!("an opening has settled nothing: {recovery:?}"));
    }
    Ok(())
}

/// Whether a damaged file is.
#[derive(Clone, Copy, Debug)]
struct Refused(bool);

fn damage(region: &SimRegion, at: u64) -> Result<()> {
    let mut byte = [0];
    region.read(at, &mut byte)?;
    region.write(at, &[byte[0] ^ 1])?;
    region.persist(at, 1)
}

/// Processes that are killed before these drains, one after the other, and one that is not. Before
/// that one, a byte of the file may be damaged, so that it is refused or not.
fn explore(
    explorer: Explorer,
    shape: Shape,
    kills: &[u32],
    damaged: Option<(u64, Refused)>,
) -> Report {
    let drains = kills.to_vec();
    let refused = matches!(damaged, Some((_, Refused(true))));
    let workload = move |region: &SimRegion, notes: &Notes| {
        let told = Told { acked: BLANK, begun: BLANK };
        let mut process = Process { shape, notes, number: 1, told };
        for drains in &drains {
            let open = |region| WorkingSet::open(region, &shape.options());
            killed(region, *drains, &mut process, open);
            process.number += 1;
        }
        if let Some((at, _)) = damaged {
            notes.begin(DAMAGED);
            damage(region, at)?;
        }
        let set = WorkingSet::open(region.clone(), &shape.options());
        if refused {
            let refused = set.map(WorkingSet::abandon).expect_err("a mixture, without its record");
            assert!(matches!(refused.kind(), ErrorKind::Damaged(_)), "{refused}");
            return Ok(());
        }
        process.work(set)
    };
    let explorer = explorer.depth(1).images(40).samples(6);
    let report = explorer.run(workload, move |region, history| check(region, history, shape));
    if let Some(failure) = &report.failure {
        panic!("{shape:?}, killed before the drains after {kills:?}, {damaged:?}: {failure}");
    }
    report
}

fn formatted(mode: Mode, shape: Shape, damaged: Option<u64>) -> Explorer {
    Explorer::new(mode, shape.file_bytes()).setup(move |region| {
        WorkingSet::format(region.clone(), &shape.options())?.abandon();
        damaged.map_or(Ok(()), |at| damage(region, at))
    })
}

/// More drains than a process has that is not killed.
const DRAINS: u32 = 4 + 4 * ROUNDS as u32 + 1;
/// Those of an opening, and the first of a checkpoint.
const DRAINS_OF_OPENING: u32 = 6;

fn cases() -> impl Iterator<Item = (Mode, Shape)> {
    Mode::ALL.into_iter().flat_map(|mode| [SMALL, REDO, KEPT].map(|shape| (mode, shape)))
}

#[test]
fn what_is_found_after_a_kill_stays() {
    let mut sum = Report::default();
    for (mode, shape) in cases() {
        for drains in 0..DRAINS {
            sum.add(&explore(formatted(mode, shape, None), shape, &[drains], None));
        }
    }
    println!("kills before a drain: {sum}");
    assert!(sum.states > 20);
}

#[test]
fn what_is_found_after_a_kill_and_one_in_the_opening_stays() {
    let mut sum = Report::default();
    for (mode, shape) in cases() {
        for drains in 3..DRAINS {
            for again in 0..DRAINS_OF_OPENING {
                let explorer = formatted(mode, shape, None);
                sum.add(&explore(explorer, shape, &[drains, again], None));
            }
        }
    }
    println!("kills before a drain and in the opening that follows: {sum}");
    assert!(sum.states > 20);
}

/// The places are all there is then; what they hold may be of the process that was killed. Where it
/// may be a mixture, they are not opened.
#[test]
fn what_is_found_beside_a_damaged_record_stays() {
    // Header, note, check values, the set.
    let record = (2 + 1 + 1 + REDO.pages) * PAGE;
    for mode in Mode::ALL {
        for drains in 3..DRAINS {
            let explorer = formatted(mode, REDO, None);
            // Before this drain, the note says that the places are being written: the last process
            // is killed before the second or the third of the four of each checkpoint, of the
            // opening's too, which begins with four of its mark and one of its own.
            let refused = Refused(drains >= 6 && drains % 4 >= 2);
            let _ = explore(explorer, REDO, &[drains], Some((record + 8, refused)));
        }
    }
}

/// A slot that was healed looks like the other one before it is durable, and the next checkpoint
/// goes where the other one is.
#[test]
fn a_root_whose_healing_was_killed_is_healed_again() {
    let slot = 3 * PAGE;
    for mode in Mode::ALL {
        for drains in 0..DRAINS_OF_OPENING {
            let _ = explore(formatted(mode, SMALL, Some(slot)), SMALL, &[drains], None);
        }
    }
}

/// A process that makes a set, or makes one anew, and is killed; the next one opens or makes it.
#[test]
fn what_a_killed_creation_left_is_whole_or_made_anew() {
    for (mode, shape) in cases() {
        for (before, drains) in [false, true].into_iter().flat_map(|b| (0..8).map(move |d| (b, d)))
        {
            let workload = move |region: &SimRegion, notes: &Notes| {
                let told = Told { acked: BLANK, begun: BLANK };
                let mut process = Process { shape, notes, number: 1, told };
                notes.begin(MAKING);
                killed(region, drains, &mut process, |region| {
                    WorkingSet::format(region, &shape.options().seed(8))
                });
                process.number += 1;
                let options = shape.options().seed(9);
                process.work(WorkingSet::open_or_format(region.clone(), &options))
            };
            let explorer = if before {
                formatted(mode, shape, None)
            } else {
                Explorer::new(mode, shape.file_bytes())
            };
            let explorer = explorer.depth(1).images(40).samples(6);
            let report = explorer.run(workload, move |region, history| {
                if !before && history.begun().is_empty() {
                    return Ok(());
                }
                check(region, history, shape)
            });
            if let Some(failure) = &report.failure {
                panic!("{shape:?}, killed before the drain after {drains}: {failure}");
            }
        }
    }
}

/// What opening says of a redo record that was not in its place when the process was killed.
#[test]
fn a_save_that_was_killed_is_not_clean() {
    let options = Options::new(4 * 4096).strategy(Strategy::Redo).seed(5);
    for drains in 0..6 {
        let region = daxmap::Options::new().len(1 << 20).in_memory().unwrap();
        let killed = Killed::before_drain(&region, u32::MAX);
        let mut set = WorkingSet::format(&killed, &options).unwrap();
        set.write(100, &[1]).unwrap();
        set.checkpoint().unwrap();
        set.write(5000, &[2]).unwrap();
        killed.kill_after(drains);
        let saved = set.checkpoint().is_ok();
        set.abandon();
        for _ in 0..2 {
            let set = WorkingSet::open(&region, &options.clone().read_only(true)).unwrap();
            let recovery = set.recovery();
            assert_eq!((set.bytes()[100], set.bytes()[5000]), (1, 2));
            assert!(!recovery.cut_short && recovery.damaged.is_empty(), "{recovery:?}");
            // The record is there; its drain, that of the note, that of the places, that of the note
            // once more.
            let found = (saved, recovery.checkpoint, recovery.clean);
            assert_eq!(found, (drains >= 4, 2, drains >= 3), "{drains}");
            set.abandon();
        }
        let set = WorkingSet::open(&region, &options).unwrap();
        set.abandon();
        let set = WorkingSet::open(&region, &options).unwrap();
        assert!(set.recovery().clean, "it is in its place now");
        set.abandon();
    }
}
