//! Every crash that the model allows, of programs that do up to six things.

use std::thread;

use daxmap::state::region_bytes;
use daxmap_sim::{Explorer, History, Mode, Notes, Report, SimRegion, SplitMix64};

use crate::model::{Mark, Op, check, run};

/// Of the programs that are tried exhaustively.
const SMALL: usize = 2;
const OPS: [Op; 4] = [Op::Store, Op::Reopen, Op::Close, Op::Upgrade];

fn explorer<const WORDS: usize>(mode: Mode) -> Explorer {
    Explorer::new(mode, region_bytes(WORDS as u32 * 8))
}

fn explore<const WORDS: usize>(explorer: &Explorer, ops: &[Op]) -> Report {
    let run = |region: &SimRegion, notes: &Notes, ops: &[Op]| run::<WORDS>(region, notes, ops);
    explorer.run_ops(ops, run, check::<WORDS, false>)
}

/// One crash; what it leaves of the making of a state is made again.
fn explore_once<const WORDS: usize>(explorer: Explorer, ops: &[Op]) -> Report {
    let run = |region: &SimRegion, notes: &Notes, ops: &[Op]| run::<WORDS>(region, notes, ops);
    explorer.depth(1).run_ops(ops, run, check::<WORDS, true>)
}

/// Every program of so many operations, a share of them.
fn programs(len: usize, share: usize, shares: usize) -> impl Iterator<Item = Vec<Op>> {
    let count = OPS.len().pow(len as u32);
    (0..count).skip(share).step_by(shares).map(move |number| {
        let op = |place| OPS[number / OPS.len().pow(place) % OPS.len()];
        (0..len as u32).map(|place| store_or_update(op(place), number, place)).collect()
    })
}

/// The two differ in memory only: each place of a program has one or the other.
fn store_or_update(op: Op, number: usize, place: u32) -> Op {
    if op == Op::Store && (number.count_ones() + place) % 2 == 1 { Op::Update } else { op }
}

fn on_two_threads(work: impl Fn(usize) -> Report + Sync) -> Report {
    thread::scope(|scope| {
        let work = &work;
        let workers = [0, 1].map(|share| scope.spawn(move || work(share)));
        let mut sum = Report::default();
        for worker in workers {
            sum.add(&worker.join().expect("no finding"));
        }
        sum
    })
}

/// The making of the state is the first of the five. A crash of a program is one of its
/// beginnings, too: shorter programs need no run of their own. `DAXMAP_STATE_OPERATIONS` sets how
/// many follow the making, 4 unless given; `ci/evidence` asks for 5.
#[test]
fn every_program_of_some_operations_in_every_mode() {
    let default = if cfg!(debug_assertions) { 2 } else { 4 };
    let len = std::env::var("DAXMAP_STATE_OPERATIONS").map_or(default, |n| n.parse().unwrap());
    let sum = on_two_threads(|share| {
        let mut sum = Report::default();
        for mode in Mode::ALL {
            let explorer = explorer::<SMALL>(mode).nested_images(1 << 20);
            for ops in programs(len, share, 2) {
                let report = explore::<SMALL>(&explorer, &ops).expect_clean();
                assert!(report.is_exhaustive(), "{mode:?} {ops:?}: {report}");
                sum.add(&report);
            }
        }
        sum
    });
    println!(
        "\nevidence: a state, every program of up to {} operations (format, store, update, reopen, \
         close, upgrade), every crash in every mode, and every crash of every recovery | {} images \
         at {} crash points of {} programs, all of them exhausted, {} recovered states, 0 failures \
         | that the compiled library executes the flushes and fences that the model is told of",
        len + 1,
        sum.images,
        sum.crash_points,
        sum.runs,
        sum.states
    );
}

#[test]
fn formats_over_what_is_there_and_processes_killed_before_their_drains() {
    let mut programs = vec![
        vec![Op::Format, Op::Store, Op::Format],
        vec![Op::Store, Op::Upgrade, Op::Format, Op::Store],
        vec![Op::KilledInStore, Op::Store],
        vec![Op::Store, Op::KilledInStore, Op::KilledInStore],
        vec![Op::Close, Op::KilledInStore, Op::Upgrade],
    ];
    // Before the first drain, the old state is still there.
    for drain in 2..=6 {
        programs.push(vec![Op::Store, Op::KilledInFormat(drain), Op::Store]);
    }
    for mode in Mode::ALL {
        let explorer = explorer::<SMALL>(mode).nested_images(1 << 20);
        for ops in &programs {
            let report = explore::<SMALL>(&explorer, ops).expect_clean();
            assert!(report.is_exhaustive(), "{mode:?} {ops:?}: {report}");
            let report = explore_once::<SMALL>(explorer.clone(), ops).expect_clean();
            assert!(report.is_exhaustive(), "{mode:?} {ops:?}: {report}");
        }
    }
}

/// A drain that fails: what it covered is not acknowledged, and nothing is afterwards.
#[test]
fn a_failed_drain_is_never_acknowledged() {
    for mode in Mode::ALL {
        for ops in programs(3, 0, 1) {
            let explorer = explorer::<SMALL>(mode).fail_drains(true);
            let report = explore_once::<SMALL>(explorer, &ops).expect_clean();
            assert!(report.runs > 1);
        }
    }
}

/// Three crashes in a row.
#[test]
fn a_crash_of_the_recovery_of_a_recovery() {
    let ops = [Op::Store, Op::Store, Op::Upgrade];
    for mode in Mode::ALL {
        let explorer = explorer::<SMALL>(mode).nested_images(1 << 20).depth(3).budget(200_000);
        let report = explore::<SMALL>(&explorer, &ops).expect_clean();
        println!("three crashes, {mode:?}: {report}");
    }
}

/// Programs that are longer, of values that are: samples of their crashes. `DAXMAP_STATE_IMAGES`
/// sets how many images; `ci/evidence` asks for a hundred million.
#[test]
fn long_programs_with_large_values() {
    let default = if cfg!(debug_assertions) { 10_000 } else { 400_000 };
    let images = std::env::var("DAXMAP_STATE_IMAGES").map_or(default, |n| n.parse().unwrap());
    let sum = on_two_threads(|share| {
        let mut random = SplitMix64::new(share as u64);
        let mut sum = Report::default();
        while sum.images < images / 2 {
            let ops: Vec<Op> = (0..=random.below(24)).map(|_| op(&mut random)).collect();
            let mode = Mode::ALL[random.below(4) as usize];
            let seed = random.next_u64();
            sum.add(&match random.below(8) {
                0 => sample::<600>(mode, seed, &ops),
                1 | 2 => sample::<30>(mode, seed, &ops),
                _ => sample::<3>(mode, seed, &ops),
            });
        }
        sum
    });
    println!(
        "\nevidence: a state of 24 to 4800 bytes, programs of up to 25 operations, sampled crashes \
         of them and of their recoveries | {} images at {} crash points of {} programs, {} \
         recovered states, 0 failures | that the compiled library executes the flushes and fences \
         that the model is told of",
        sum.images, sum.crash_points, sum.runs, sum.states
    );
    assert!(sum.images >= images);
}

fn op(random: &mut SplitMix64) -> Op {
    match random.below(16) {
        0 => Op::Format,
        1 => Op::KilledInStore,
        2 => Op::KilledInFormat(2 + random.below(5) as u32),
        3..7 => OPS[1 + random.below(3) as usize],
        7..12 => Op::Store,
        _ => Op::Update,
    }
}

fn sample<const WORDS: usize>(mode: Mode, seed: u64, ops: &[Op]) -> Report {
    let explorer = explorer::<WORDS>(mode).seed(seed).images(200).nested_images(4).samples(24);
    explore::<WORDS>(&explorer, ops).expect_clean()
}

/// The checks above can fail: they are given what the library would never leave.
#[test]
fn a_loss_is_noticed() {
    let lose = |region: &SimRegion, notes: &Notes| {
        run::<SMALL>(region, notes, &[Op::Store])?;
        notes.ack(Mark::decode(u64::MAX >> 8 & 0xff_ffff).encode());
        Ok(())
    };
    let report = explorer::<SMALL>(Mode::Adr)
        .run(lose, |region: &SimRegion, history: &History| check::<SMALL, true>(region, history));
    assert!(report.expect_failure().to_string().contains("acknowledged"));
}
