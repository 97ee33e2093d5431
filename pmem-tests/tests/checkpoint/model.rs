//! Any list of operations beside a model, with crashes and openings among them.

use std::collections::VecDeque;

use daxmap::checkpoint::{Options, Strategy as By, WorkingSet};
use daxmap::{ErrorKind, Region};
use daxmap_sim::{Mode, SimRegion};
use proptest::prelude::*;

const BYTES: u64 = 260 * 4096 - 100;

#[derive(Clone, Debug)]
enum Op {
    Write {
        offset: u64,
        len: u64,
        value: u8,
    },
    Slice {
        offset: u64,
        len: u64,
        value: u8,
    },
    Save {
        label: String,
    },
    Restore {
        which: usize,
    },
    /// The process is killed, or the power is cut, and the set opened.
    Crash {
        seed: u64,
    },
    Grow {
        pages: u64,
    },
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    let len = prop_oneof![4 => 0_u64..200, 2 => 0_u64..10_000, 1 => 0..=BYTES];
    (0..=BYTES, len).prop_map(|(offset, len)| (offset, len.min(BYTES - offset)))
}

fn op() -> impl Strategy<Value = Op> {
    let write = || (range(), any::<u8>());
    prop_oneof![
        5 => write().prop_map(|((offset, len), value)| Op::Write { offset, len, value }),
        2 => write().prop_map(|((offset, len), value)| Op::Slice { offset, len, value }),
        4 => "[a-z]{0,9}".prop_map(|label| Op::Save { label }),
        1 => (0_usize..4).prop_map(|which| Op::Restore { which }),
        2 => any::<u64>().prop_map(|seed| Op::Crash { seed }),
        1 => (0_u64..40).prop_map(|pages| Op::Grow { pages }),
    ]
}

/// Number, label, content.
type Saved = (u64, String, Vec<u8>);

struct Model {
    now: Vec<u8>,
    kept: VecDeque<Saved>,
}

fn compare(set: &WorkingSet<SimRegion>, model: &Model) {
    assert!(set.bytes() == model.now, "the set differs");
    let list: Vec<_> = set.list().into_iter().map(|c| (c.sequence, c.label)).collect();
    let kept: Vec<_> = model.kept.iter().map(|(n, label, _)| (*n, label.clone())).collect();
    assert_eq!(list, kept);
}

fn run(mode: Mode, by: By, keep: u32, ops: Vec<Op>) {
    let keep = if by == By::Redo { 0 } else { keep };
    // Shadow pages: room for the set once and a quarter, so that some checkpoints find it full.
    let len = if by == By::Redo { 540 * 4096 } else { (4 + 330) * 4096 };
    let options = Options::new(BYTES).strategy(by).keep(keep).seed(11);
    let mut region = SimRegion::new(mode, len, 1 << 24);
    let mut set = WorkingSet::format(region.clone(), &options).unwrap();
    let zeros = vec![0; BYTES as usize];
    let mut model = Model { now: zeros.clone(), kept: VecDeque::from([(0, String::new(), zeros)]) };
    for op in ops {
        match op {
            Op::Write { offset, len, value } => {
                set.write(offset, &vec![value; len as usize]).unwrap();
                model.now[offset as usize..][..len as usize].fill(value);
            }
            Op::Slice { offset, len, value } => {
                set.slice_mut(offset, len).unwrap().fill(value);
                model.now[offset as usize..][..len as usize].fill(value);
            }
            Op::Save { label } => match set.checkpoint_labelled(&label) {
                Ok(checkpoint) => {
                    model.kept.push_back((checkpoint.sequence, label, model.now.clone()));
                    if model.kept.len() > keep as usize + 1 {
                        model.kept.pop_front();
                    }
                }
                Err(error) => {
                    let full = matches!(error.kind(), ErrorKind::Full { .. });
                    assert!(full, "{error}");
                }
            },
            Op::Restore { which } => {
                let (sequence, _, content) = &model.kept[which % model.kept.len()];
                set.restore(*sequence).unwrap();
                model.now.clone_from(content);
            }
            Op::Crash { seed } => {
                set.abandon();
                region = region.crash(seed);
                set = WorkingSet::open(region.clone(), &options).unwrap();
                model.now.clone_from(&model.kept[model.kept.len() - 1].2);
            }
            Op::Grow { pages } => {
                let len = (region.len() + pages * 4096).min(1 << 24);
                set.grow(len).unwrap();
            }
        }
        compare(&set, &model);
    }
    for (sequence, _, content) in &model.kept {
        set.verify(*sequence).unwrap();
        set.restore(*sequence).unwrap();
        assert!(set.bytes() == *content, "checkpoint {sequence} differs");
    }
    set.abandon();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_the_model_does(
        mode in prop::sample::select(Mode::ALL.to_vec()),
        by in prop::sample::select(vec![By::Shadow, By::Redo]),
        keep in 0_u32..4,
        ops in prop::collection::vec(op(), 0..40),
    ) {
        run(mode, by, keep, ops);
    }
}
