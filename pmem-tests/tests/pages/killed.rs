//! A process is killed after it wrote and before it drained; the next one sees what is not durable, goes
//! on from there, and then the power goes.

use std::panic::resume_unwind;
use std::thread;

use daxmap::Result;
use daxmap_sim::{Explorer, Mode, Notes, Report, SimRegion};
use pmem_tests::killed::Killed;

use crate::model::{BLOCK, LEN, check, held, mark, options, page};

/// Marks that a process has opened the pages: what it has found is relied on.
fn opened(notes: &Notes, found: &[u64]) {
    for (block, &number) in found.iter().enumerate() {
        notes.begin(mark(number, block as u64, 1));
        notes.ack(mark(number, block as u64, 1));
    }
}

/// Opens pages and writes some: always the same bytes, to another place each time.
fn work(region: Killed<SimRegion>, notes: &Notes, place: u64) -> Result<()> {
    let pages = options().open_region(region)?;
    opened(notes, &held(&pages).expect("whole pages"));
    let result = [place, place + 1, place].into_iter().try_for_each(|block| {
        notes.begin(mark(9, block, 1));
        pages.write_atomic(block * BLOCK, &page(9, 1))?;
        notes.ack(mark(9, block, 1));
        Ok(())
    });
    pages.abandon();
    result
}

fn explore(mode: Mode, kills: &[u32]) -> Report {
    let drains = kills.to_vec();
    let workload = move |region: &SimRegion, notes: &Notes| {
        for (place, &drains) in drains.iter().chain(&[u32::MAX]).enumerate() {
            let killed = Killed::before_drain(region.clone(), drains);
            // A thread of its own: the model knows whose stores a drain waits for.
            let work = || work(killed, notes, 2 * place as u64);
            let ended = thread::scope(|scope| scope.spawn(work).join());
            let _ = ended.unwrap_or_else(|panic| resume_unwind(panic));
        }
        Ok(())
    };
    let explorer = Explorer::new(mode, LEN).setup(|region| {
        options().format(region.clone())?.abandon();
        Ok(())
    });
    let report = explorer.depth(1).images(24).samples(4).run(workload, check);
    if let Some(failure) = &report.failure {
        panic!("{mode:?}, killed before the drains after {kills:?}: {failure}");
    }
    report
}

/// Of an opening and the writes: more than a process has.
const DRAINS: u32 = 20;
/// Of an opening that finds two records.
const DRAINS_OF_OPENING: u32 = 12;

#[test]
fn what_is_found_after_a_kill_stays_and_what_is_not_found_does_not_come() {
    let mut sum = Report::default();
    for mode in [Mode::PageCache, Mode::Adr] {
        for drains in 0..DRAINS {
            sum.add(&explore(mode, &[drains]));
        }
        for again in 0..DRAINS_OF_OPENING {
            sum.add(&explore(mode, &[13, again]));
        }
    }
    println!("kills before a drain, and in the opening that follows: {sum}");
    assert!(sum.states > 20, "{sum}");
}
