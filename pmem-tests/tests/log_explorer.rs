//! Every crash of the log, as far as the simulator goes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daxmap::sim::{Body, Explorer, History, Mode, Report, SimRegion, SplitMix64};
use pmem_tests::log_model::{self as model, Op, Scenario, SharedLog, region_len};

/// What one operation of an exploration may be. Commits of one line: every subset of its eight
/// words is tried, and with those of another line that would be 65,536.
const ALPHABET: [Op; 7] = [
    Op::Append(8),
    Op::Many(2, 8),
    Op::Staged(2, 8),
    Op::Release(1),
    Op::Truncate(1),
    Op::Reopen,
    Op::Kill,
];

/// A record that leaves two lines of a segment free: what follows soon begins another.
const MOST: Op = Op::Append(3900);

/// Up to six operations each, after some that are not crashed: recycling, truncation, reopening
/// and their neighbours.
const SCENARIOS: [(u64, &[Op], &[Op]); 8] = [
    (
        3,
        &[],
        &[Op::Append(8), Op::Many(2, 8), Op::Staged(2, 8), Op::Kill, Op::Append(8), Op::Reopen],
    ),
    (
        2,
        &[MOST],
        &[Op::Append(8), Op::Release(1), Op::Append(8), Op::Append(8), Op::Kill, Op::Append(8)],
    ),
    (
        2,
        &[MOST, MOST, Op::Release(1)],
        &[Op::Append(8), Op::Append(8), Op::Append(8), Op::Kill, Op::Release(0), Op::Append(8)],
    ),
    (
        3,
        &[MOST, Op::Append(8)],
        &[Op::Truncate(1), Op::Append(8), Op::Truncate(2), Op::Append(8), Op::Kill, Op::Append(8)],
    ),
    (
        3,
        &[MOST, MOST, Op::Append(8)],
        &[Op::Truncate(2), Op::Kill, Op::Append(8), Op::Release(0), Op::Append(8), Op::Reopen],
    ),
    (
        3,
        &[Op::Many(4, 8)],
        &[Op::Truncate(2), Op::Append(8), Op::Release(1), Op::Truncate(1), Op::Append(8), Op::Kill],
    ),
    (
        2,
        &[MOST, MOST, Op::Release(0)],
        &[Op::Append(8), Op::Truncate(1), Op::Append(8), Op::Truncate(1), Op::Append(8), Op::Kill],
    ),
    (3, &[], &[Op::Kill, Op::Append(8), Op::Kill, Op::Truncate(1), Op::Append(8), Op::Release(0)]),
];

fn scenarios() -> impl Iterator<Item = Scenario> {
    SCENARIOS.into_iter().map(|(segments, before, ops)| Scenario {
        before: before.to_vec(),
        ops: ops.to_vec(),
        segments,
    })
}

#[test]
fn every_crash_of_six_operations() {
    let mut sum = Report::default();
    for scenario in scenarios() {
        for mode in Mode::ALL {
            let report = scenario.explore(mode, |explorer| explorer.depth(1).images(1 << 20));
            assert!(report.is_exhaustive(), "{mode:?} {scenario:?}: {report}");
            sum.add(&report);
        }
    }
    println!("evidence: exhaustive, workloads of six operations on a log, in every mode | {sum}");
}

#[test]
fn every_crash_of_every_sequence_of_few_operations() {
    let length = if cfg!(debug_assertions) { 1 } else { 2 };
    let before = vec![MOST, Op::Append(8), Op::Append(8)];
    let mut sum = Report::default();
    for number in 0..ALPHABET.len().pow(length) {
        let ops = (0..length)
            .map(|place| ALPHABET[number / ALPHABET.len().pow(place) % ALPHABET.len()])
            .collect();
        let scenario = Scenario { before: before.clone(), ops, segments: 3 };
        for mode in Mode::ALL {
            let report = scenario.explore(mode, |explorer| explorer.depth(1).images(1 << 20));
            assert!(report.is_exhaustive(), "{mode:?} {scenario:?}: {report}");
            sum.add(&report);
        }
    }
    println!("evidence: exhaustive, every sequence of {length} operations on a log | {sum}");
}

#[test]
fn crashes_of_the_recovery() {
    let mut sum = Report::default();
    for scenario in scenarios() {
        for mode in Mode::ALL {
            sum.add(
                &scenario.explore(mode, |explorer| {
                    explorer.depth(2).images(6).samples(2).nested_images(8)
                }),
            );
        }
    }
    println!("crashes of recovery: {sum}");
    assert!(sum.crash_points > 1000);
}

/// How long the sampled exploration goes on, and how many images it may stop at.
fn sampling() -> (u64, Duration) {
    match std::env::var("DAXMAP_LOG_IMAGES").ok().and_then(|images| images.parse().ok()) {
        Some(images) => (images, Duration::from_secs(24 * 3600)),
        None => (u64::MAX, Duration::from_secs(if cfg!(debug_assertions) { 2 } else { 8 })),
    }
}

/// A seeded workload of up to 14 operations.
fn sequence(random: &mut SplitMix64) -> Vec<Op> {
    (0..4 + random.below(11))
        .map(|_| match random.below(12) {
            0..=2 => Op::Append(random.below(200) as usize),
            3 => Op::Append(random.below(4000) as usize),
            4 => Op::Many(1 + random.below(5) as usize, random.below(300) as usize),
            5 => Op::Staged(1 + random.below(5) as usize, random.below(700) as usize),
            6 | 7 => Op::Release(random.below(4)),
            8 | 9 => Op::Truncate(random.below(5)),
            10 => Op::Reopen,
            _ => Op::Kill,
        })
        .collect()
}

#[test]
fn sampled_crashes_of_longer_workloads() {
    let (images, within) = sampling();
    let began = Instant::now();
    let mut random = SplitMix64::new(3);
    let mut sum = Report::default();
    let mut turn = 0;
    while sum.images < images && began.elapsed() < within {
        let mode = Mode::ALL[turn % Mode::ALL.len()];
        let segments = 2 + random.below(4);
        let ops = sequence(&mut random);
        let depth = if random.below(8) == 0 { 2 } else { 1 };
        let (images, samples) = if depth == 2 { (8, 2) } else { (500, 32) };
        let scenario = Scenario { before: Vec::new(), ops, segments };
        sum.add(&scenario.explore(mode, |explorer| {
            let explorer = explorer.seed(turn as u64).depth(depth).images(images);
            explorer.samples(samples).nested_images(8)
        }));
        turn += 1;
    }
    println!(
        "\nevidence: simulated crashes of the log, in every mode, with crashes of its recovery \
         | {} images at {} crash points of {} workloads, {} recovered states, 0 failures \
         | that the compiled library executes the flushes and fences that the model is told of",
        sum.images, sum.crash_points, sum.runs, sum.states
    );
    assert!(sum.images > 100);
}

/// Each thread appends its own records by its own writer; their payloads name thread and number.
fn bodies(shared: &SharedLog, threads: u64, records: u64) -> Vec<Body> {
    (0..threads)
        .map(|thread| {
            let shared = Arc::clone(shared);
            let body: Body = Box::new(move |_, notes| {
                let log = shared.lock().unwrap().clone().expect("the setup has opened it");
                let mut writer = log.writer();
                for record in 0..records {
                    let mark = thread * 100 + record + 1;
                    notes.begin(mark);
                    writer.append(&mark.to_le_bytes())?;
                    notes.ack(mark);
                }
                // Given back after the run.
                std::mem::forget(writer);
                Ok(())
            });
            body
        })
        .collect()
}

/// What was acknowledged is there; each thread's records are there in its order.
fn check_threads(region: &SimRegion, history: &History) -> Result<(), String> {
    let (_, records) = model::recover(region)?;
    let marks: Vec<u64> = records
        .iter()
        .map(|(_, payload)| payload[..].try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX))
        .collect();
    history.recovered(&marks);
    if let Some(mark) = history.acked().iter().find(|mark| !marks.contains(mark)) {
        return Err(format!("{mark} was acknowledged, there are {marks:?}"));
    }
    if let Some(mark) = marks.iter().find(|mark| !history.begun().contains(mark)) {
        return Err(format!("{mark} was never begun"));
    }
    for thread in 0..3 {
        let own: Vec<u64> = marks.iter().copied().filter(|mark| mark / 100 == thread).collect();
        if own != (0..own.len() as u64).map(|n| thread * 100 + n + 1).collect::<Vec<_>>() {
            return Err(format!("thread {thread} has {own:?}"));
        }
    }
    let lsns: Vec<u64> = records.iter().map(|(lsn, _)| *lsn).collect();
    if !lsns.is_sorted_by(|a, b| a < b) {
        return Err(format!("Lsns {lsns:?}"));
    }
    Ok(())
}

fn threads(mode: Mode, threads: u64, records: u64, schedules: u64, depth: usize) -> Report {
    let shared: SharedLog = Arc::new(Mutex::new(None));
    let setup = {
        let shared = Arc::clone(&shared);
        move |region: &SimRegion| {
            let log = model::options().format(region.clone())?;
            let before = shared.lock().unwrap().replace(Arc::new(log));
            std::mem::forget(before);
            Ok(())
        }
    };
    let report = Explorer::new(mode, region_len(5))
        .setup(setup)
        .depth(depth)
        .images(60)
        .samples(4)
        .nested_images(4)
        .schedules(schedules)
        .random_schedules(schedules)
        .run_threads(&bodies(&shared, threads, records), check_threads);
    report.expect_clean()
}

#[test]
fn several_threads_with_a_writer_each() {
    let mut sum = Report::default();
    for mode in Mode::ALL {
        let schedules = if cfg!(debug_assertions) { 20 } else { 100 };
        sum.add(&threads(mode, 2, 2, schedules, 1));
        sum.add(&threads(mode, 3, 2, schedules / 2, 1));
        sum.add(&threads(mode, 2, 1, 6, 2));
    }
    println!("threads: {sum}");
    assert!(sum.schedules > 100);
}

#[test]
fn a_failed_drain_acknowledges_nothing_and_loses_nothing() {
    for scenario in scenarios() {
        let report = scenario.explore(Mode::Adr, |explorer| {
            explorer.depth(1).images(30).samples(4).fail_drains(true)
        });
        assert!(report.runs > 6, "{report}");
    }
}
