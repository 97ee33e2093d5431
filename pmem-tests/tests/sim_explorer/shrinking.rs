//! A failure is told with the fewest operations, and as little lost, as it takes.

use daxmap::{Region, Result};
use daxmap_sim::{Explorer, History, Mode, Notes, SimRegion};

use crate::{Verdict, at, kept, store_lines};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Set(u64),
    Careless(u64),
    Flush,
}

fn apply(region: &SimRegion, notes: &Notes, ops: &[Op]) -> Result<()> {
    for op in ops {
        match *op {
            Op::Set(line) => {
                region.store_u64(at(line), 1)?;
                region.persist(at(line), 8)?;
                notes.ack(line);
            }
            Op::Careless(line) => {
                region.store_u64(at(line), 1)?;
                region.drain()?;
                notes.ack(line);
            }
            Op::Flush => region.flush(0, region.len())?,
        }
    }
    Ok(())
}

fn all_acked(region: &SimRegion, history: &History) -> Verdict {
    match history.acked().iter().find(|&&line| region.load_u64(at(line)).unwrap() != 1) {
        Some(line) => Err(format!("line {line} is lost")),
        None => Ok(()),
    }
}

#[test]
fn a_failure_shrinks_to_the_operations_that_it_takes() {
    let mut ops: Vec<Op> = (0..10).map(Op::Set).collect();
    ops.insert(6, Op::Careless(11));
    ops.insert(4, Op::Flush);
    let failure = Explorer::new(Mode::Adr, 1024).run_ops(&ops, apply, all_acked).expect_failure();
    assert_eq!(failure.operations, ["Careless(11)"]);
    let text = failure.to_string();
    assert!(text.contains("smallest workload found: Careless(11)"), "{text}");
    assert!(text.contains("lost: line at 0x2c0, written at op 1 (store_u64 0x2c0), never flushed"));
    ops.remove(7);
    assert!(Explorer::new(Mode::Adr, 1024).run_ops(&ops, apply, all_acked).failure.is_none());
}

#[test]
fn a_failing_image_is_told_with_as_little_lost_as_it_takes() {
    // Fails if line 3 is lost and line 5 is kept; the others do not matter.
    let failure = Explorer::new(Mode::Adr, 1024)
        .run(
            |region, _| store_lines(region, 8),
            |region, _| {
                let kept = kept(region, 8);
                if kept & 0b10_1000 == 0b10_0000 { Err("5 without 3".to_owned()) } else { Ok(()) }
            },
        )
        .expect_failure();
    let crash = &failure.crashes[0];
    assert_eq!(crash.lost.len(), 1, "{failure}");
    assert!(crash.lost[0].contains("line at 0xc0, written at op 4"), "{failure}");
    assert!(crash.kept.iter().any(|line| line.contains("line at 0x140")), "{failure}");
}

#[test]
fn errors_and_panics_are_findings() {
    let run = |workload: fn(&SimRegion, &Notes) -> Result<()>,
               check: fn(&SimRegion, &History) -> Verdict| {
        Explorer::new(Mode::Adr, 1024).run(workload, check).expect_failure().message
    };
    let past_end = run(|region, _| region.store_u64(4096, 1), |_, _| Ok(()));
    assert!(past_end.contains("the workload failed: store") && past_end.contains("past the end"));
    assert!(run(|_, _| panic!("of mine"), |_, _| Ok(())).contains("panicked: of mine"));
    assert!(run(|_, _| Ok(()), |_, _| panic!("in check")).contains("in check"));
    let setup = Explorer::new(Mode::Adr, 1024).setup(|region| region.store_u64(3, 1));
    let message = setup.run(|_, _| Ok(()), |_, _| Ok(())).expect_failure().message;
    assert!(message.contains("setup"), "{message}");
}
