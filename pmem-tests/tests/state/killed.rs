//! A process is killed after it wrote and before it drained, wherever that is; the next one sees what
//! is not durable, goes on from there, and then the power goes.

use std::panic::resume_unwind;
use std::thread;

use daxmap::state::{State, region_bytes};
use daxmap::{Region, Result};
use daxmap_sim::{Explorer, History, Mode, Notes, Report, SimRegion};
use pmem_tests::killed::Killed;

use crate::model::{Value, generation, options, upgrading, value};

const WORDS: usize = 3;
/// Of the programs that are killed; the state was made by one of version 1.
const VERSION: u32 = 2;
/// Stores of a process, if it lives.
const ROUNDS: u64 = 3;
/// Marks an opening: what was found is relied on, and in both slots.
const OPENED: u64 = 1 << 63;

/// A process that opens a state and stores into it until it is killed: its number, what it was told is
/// durable last, and what it began last.
struct Process<'a> {
    notes: &'a Notes,
    number: u64,
    acked: u64,
    begun: u64,
}

impl Process<'_> {
    fn begin(&mut self, mark: u64) {
        self.begun = mark & !OPENED;
        self.notes.begin(mark);
    }

    fn ack(&mut self, mark: u64) {
        self.acked = mark & !OPENED;
        self.notes.ack(mark);
    }

    fn work<R: Region>(&mut self, region: R) -> Result<()> {
        let state: State<Value<WORDS>, R> = upgrading(VERSION).open_region(region)?;
        let found = generation::<WORDS>(&state.load(), VERSION).expect("a value of this version");
        assert!(found == self.acked || found == self.begun, "{found} is neither old nor new");
        self.begin(found | OPENED);
        self.ack(found | OPENED);
        let result = (1..=ROUNDS).try_for_each(|round| {
            let generation = self.number * 100 + round;
            self.begin(generation);
            state.store(&value(generation, VERSION))?;
            self.ack(generation);
            Ok(())
        });
        // As a kill: nothing is dropped.
        state.abandon();
        result
    }
}

fn check(region: &SimRegion, history: &History) -> std::result::Result<(), String> {
    let last = |marks: &[u64]| marks.last().copied().unwrap_or(1);
    let (acked, begun) = (last(history.acked()), last(history.begun()));
    let state = upgrading::<WORDS>(VERSION).open_region(region.clone());
    let state = state.map_err(|error| error.to_string())?;
    let (found, recovery) = (generation::<WORDS>(&state.load(), VERSION), state.recovery());
    state.abandon();
    let found = found.ok_or("a mixture")?;
    history.recovered(&found);
    if found != acked & !OPENED && found != begun & !OPENED {
        return Err(format!("{found} found, {acked:x} acknowledged, {begun:x} begun"));
    }
    let settled = recovery.clean && recovery.upgraded_from.is_none();
    if acked == begun && acked & OPENED != 0 && !settled {
        return Err(format!("an opening has settled nothing: {recovery:?}"));
    }
    Ok(())
}

/// Processes that are killed before these drains, one after the other, and one that is not. A byte of
/// the file may be damaged before the first.
fn explore(mode: Mode, kills: &[u32], damaged: Option<u64>) -> Report {
    let drains = kills.to_vec();
    let workload = move |region: &SimRegion, notes: &Notes| {
        let mut process = Process { notes, number: 1, acked: 1, begun: 1 };
        for drains in &drains {
            let killed = Killed::before_drain(region.clone(), *drains);
            // A thread of its own: the model knows whose stores a drain waits for.
            let ended = thread::scope(|scope| scope.spawn(|| process.work(killed)).join());
            let _ = ended.unwrap_or_else(|panic| resume_unwind(panic));
            process.number += 1;
        }
        process.work(region.clone())
    };
    let explorer = Explorer::new(mode, region_bytes(WORDS as u32 * 8)).setup(move |region| {
        options::<WORDS>(1).seed(3).format(region.clone(), &value(1, 1))?.abandon();
        damaged.map_or(Ok(()), |at| {
            let mut byte = [0];
            region.read(at, &mut byte)?;
            region.write(at, &[byte[0] ^ 1])
        })
    });
    let report = explorer.depth(1).images(60).samples(8).run(workload, check);
    if let Some(failure) = &report.failure {
        panic!("{mode:?}, killed before the drains after {kills:?}, {damaged:?}: {failure}");
    }
    report
}

/// Header, both slots, the upgrade and both slots again, and the stores: more than a process has.
const DRAINS: u32 = 1 + 2 + 1 + 2 + ROUNDS as u32 + 1;
const DRAINS_OF_OPENING: u32 = 4;

#[test]
fn what_is_found_after_a_kill_stays() {
    let mut sum = Report::default();
    for mode in Mode::ALL {
        for drains in 0..DRAINS {
            sum.add(&explore(mode, &[drains], None));
            for again in 0..DRAINS_OF_OPENING {
                sum.add(&explore(mode, &[drains, again], None));
            }
        }
    }
    println!("kills before a drain, and in the opening that follows: {sum}");
    assert!(sum.states > 20);
}

/// A slot that was healed looks like the other one before it is durable, and the next value goes
/// where the other one is.
#[test]
fn a_slot_whose_healing_was_killed_is_healed_again() {
    // The slots of even and of odd numbers; the value is number 1.
    for (mode, slot) in Mode::ALL.into_iter().flat_map(|mode| [(mode, 8192), (mode, 12288)]) {
        for drains in 0..DRAINS_OF_OPENING {
            let _ = explore(mode, &[drains], Some(slot));
        }
    }
}
