//! Crashes of programs that write pages, as the simulator knows them.

use daxmap_sim::{Explorer, Mode, Report, SimRegion};

use crate::model::{LEN, Op, check, options, run};

const fn write(block: u64, blocks: u64) -> Op {
    Op::Write { block, blocks }
}

const fn elsewhere(block: u64, blocks: u64) -> Op {
    Op::WriteElsewhere { block, blocks }
}

fn explorer(mode: Mode) -> Explorer {
    let format = |region: &SimRegion| {
        options().format(region.clone())?.abandon();
        Ok(())
    };
    Explorer::new(mode, LEN).setup(format).images(16).nested_images(4).samples(3)
}

fn explore(mode: Mode, ops: &[Op]) -> Report {
    explorer(mode).run_ops(ops, run, check).expect_clean()
}

/// The same page again and again, pages in turn, pages in pages, other threads, cuts, reopenings.
const PROGRAMS: [&[Op]; 9] = [
    &[write(0, 1), write(0, 1), write(0, 1)],
    &[write(0, 1), write(1, 1), write(0, 1), write(2, 1)],
    &[write(0, 2), write(1, 1), write(0, 2)],
    &[write(1, 1), write(0, 4), write(0, 1)],
    &[elsewhere(0, 1), elsewhere(1, 1), elsewhere(0, 1), elsewhere(1, 1)],
    &[elsewhere(0, 1), Op::Close, write(0, 1)],
    &[write(0, 1), write(0, 1), Op::Reopen, write(0, 1)],
    &[write(7, 1), write(7, 1), Op::Cut { blocks: 4 }, write(0, 1)],
    &[write(7, 1), write(6, 1), Op::Cut { blocks: 7 }, Op::Reopen, write(7, 1)],
];

#[test]
fn a_crash_leaves_every_page_old_or_new() {
    let mut sum = Report::default();
    for ops in PROGRAMS {
        sum.add(&explore(Mode::PageCache, ops));
        sum.add(&explore(Mode::Adr, ops));
    }
    for mode in [Mode::Eadr, Mode::TornWords] {
        sum.add(&explore(mode, PROGRAMS[0]));
        sum.add(&explore(mode, PROGRAMS[3]));
    }
    println!(
        "\nevidence: pages written by a record, {} programs, every crash in every mode and a sample of \
         the crashes of every recovery | {} images at {} crash points, {} recovered states, 0 failures \
         | that the compiled library executes the flushes and fences that the model is told of",
        PROGRAMS.len(),
        sum.images,
        sum.crash_points,
        sum.states
    );
    assert!(sum.states > 30, "{sum}");
}

#[test]
fn a_failed_drain_is_never_acknowledged() {
    for mode in [Mode::PageCache, Mode::Adr] {
        for ops in [PROGRAMS[0], PROGRAMS[7]] {
            let explorer = explorer(mode).fail_drains(true).depth(1);
            let report = explorer.run_ops(ops, run, check).expect_clean();
            assert!(report.runs > 3, "{report}");
        }
    }
}
