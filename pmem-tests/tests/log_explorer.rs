//! Every crash of the log, as far as the simulator goes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daxmap::ErrorKind;
use daxmap_sim::{Body, Explorer, History, Mode, Notes, Report, SimRegion, SplitMix64};
use pmem_tests::killed::Killed;
use pmem_tests::log_model::{self as model, Model, Op, Scenario, SharedLog, Subject, region_len};

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
const SCENARIOS: [(u64, &[Op], &[Op]); 9] = [
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
        &[Op::Truncate(3), Op::Kill, Op::Append(8), Op::Release(0), Op::Append(8), Op::Reopen],
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
    (
        3,
        &[Op::Append(8), Op::Append(8), Op::Staged(2, 8), Op::Truncate(1)],
        &[
            Op::Truncate(1),
            Op::Append(8),
            Op::Truncate(1),
            Op::Truncate(1),
            Op::Append(8),
            Op::Kill,
        ],
    ),
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
            let report = scenario.explore(mode, 1, |explorer| explorer.images(1 << 20));
            assert!(report.is_exhaustive(), "{mode:?} {scenario:?}: {report}");
            sum.add(&report);
        }
    }
    println!("exhaustive, workloads of six operations on a log, in every mode | {sum}");
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
            let report = scenario.explore(mode, 1, |explorer| explorer.images(1 << 20));
            assert!(report.is_exhaustive(), "{mode:?} {scenario:?}: {report}");
            sum.add(&report);
        }
    }
    println!("exhaustive, every sequence of {length} operations on a log | {sum}");
}

#[test]
fn crashes_of_the_recovery() {
    let mut sum = Report::default();
    for scenario in scenarios() {
        for mode in Mode::ALL {
            sum.add(
                &scenario
                    .explore(mode, 2, |explorer| explorer.images(6).samples(2).nested_images(8)),
            );
        }
    }
    println!("crashes of recovery: {sum}");
    assert!(sum.crash_points > 1000);
}

/// Records that are written from where they are: three writes, of which a crash may leave parts.
#[test]
fn crashes_of_records_that_are_not_staged() {
    let ops = [
        Op::Append(2048),
        Op::Append(8),
        Op::Append(2100),
        Op::Kill,
        Op::Release(1),
        Op::Append(3000),
        Op::Truncate(1),
        Op::Append(2073),
    ];
    let mut sum = Report::default();
    for mode in Mode::ALL {
        let scenario = Scenario { before: Vec::new(), ops: ops.to_vec(), segments: 4 };
        sum.add(&scenario.explore(mode, 1, |explorer| explorer.images(400).samples(60)));
    }
    println!("sampled, records that are not staged, in every mode | {sum}");
    assert!(sum.crash_points > 100);
}

/// How long the sampled exploration goes on, and how many images it may stop at.
fn sampling() -> (u64, Duration) {
    match std::env::var("DAXMAP_LOG_IMAGES").ok().and_then(|images| images.parse().ok()) {
        Some(images) => (images, Duration::from_secs(24 * 3600)),
        None => (u64::MAX, Duration::from_secs(if cfg!(debug_assertions) { 2 } else { 5 })),
    }
}

/// A seeded workload of up to 14 operations.
fn sequence(random: &mut SplitMix64) -> Vec<Op> {
    (0..4 + random.below(11))
        .map(|_| match random.below(16) {
            0..=2 => Op::Append(random.below(200) as usize),
            3 => Op::Append(random.below(4000) as usize),
            4 => Op::Many(1 + random.below(5) as usize, random.below(300) as usize),
            5 => Op::Staged(1 + random.below(5) as usize, random.below(700) as usize),
            6 | 7 => Op::Release(random.below(4)),
            8 | 9 => Op::Truncate(random.below(5)),
            10 => Op::Reopen,
            11 => Op::Kill,
            12 => Op::Truncate(1),
            13 => Op::Largest(random.below(2) as usize),
            14 => Op::Empty(1 + random.below(1200) as usize),
            _ => Op::Panics(random.below(4) as usize, random.below(2) == 0),
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
        sum.add(&scenario.explore(mode, depth, |explorer| {
            let explorer = explorer.seed(turn as u64).images(images);
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
fn bodies(shared: &SharedLog, threads: u64, records: u64, len: usize) -> Vec<Body> {
    (0..threads)
        .map(|thread| {
            let shared = Arc::clone(shared);
            let body: Body = Box::new(move |_, notes| {
                let log = shared.lock().unwrap().clone().expect("the setup has opened it");
                let mut writer = log.writer();
                for record in 0..records {
                    let mark = thread * 100 + record + 1;
                    notes.begin(mark);
                    let mut payload = mark.to_le_bytes().to_vec();
                    payload.resize(len, mark as u8);
                    writer.append(&payload)?;
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
fn check_threads(region: &SimRegion, history: &History, len: usize) -> Result<(), String> {
    // As long as the others: a commit that recovery drops must not follow it.
    let (_, records) = model::recover(region, len)?;
    let marks: Vec<u64> = records
        .iter()
        .map(|(_, payload)| payload[..8].try_into().map_or(u64::MAX, u64::from_le_bytes))
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

fn threads(
    mode: Mode,
    (threads, records, len): (u64, u64, usize),
    schedules: u64,
    depth: usize,
) -> Report {
    let shared: SharedLog = Arc::new(Mutex::new(None));
    let setup = {
        let shared = Arc::clone(&shared);
        move |region: &SimRegion| {
            let log = model::options().format(region.clone())?;
            let before = shared.lock().unwrap().replace(Arc::new(log));
            if let Some(before) = before.and_then(Arc::into_inner) {
                before.abandon();
            }
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
        .run_threads(&bodies(&shared, threads, records, len), move |region, history| {
            check_threads(region, history, len)
        });
    report.expect_clean()
}

#[test]
fn several_threads_with_a_writer_each() {
    let schedules = if cfg!(debug_assertions) { 20 } else { 100 };
    let in_mode = |mode| {
        let mut sum = threads(mode, (2, 2, 8), schedules, 1);
        sum.add(&threads(mode, (3, 2, 8), schedules / 2, 1));
        sum.add(&threads(mode, (2, 1, 8), 6, 2));
        sum
    };
    // A sector each; and records that soon need another segment.
    let in_sectors = || {
        let mut sum = threads(Mode::PageCache, (3, 1, 472), 200, 1);
        sum.add(&threads(Mode::PageCache, (2, 2, 1800), 100, 1));
        sum.add(&threads(Mode::PageCache, (3, 1, 1800), 200, 1));
        sum
    };
    let mut sum = Report::default();
    std::thread::scope(|scope| {
        let mut parts: Vec<_> =
            Mode::ALL.into_iter().map(|mode| scope.spawn(move || in_mode(mode))).collect();
        parts.push(scope.spawn(in_sectors));
        for part in parts {
            sum.add(&part.join().expect("no finding"));
        }
    });
    println!("threads: {sum}");
    assert!(sum.schedules > 100);
}

#[test]
fn a_failed_drain_acknowledges_nothing_and_loses_nothing() {
    for scenario in scenarios() {
        let report = scenario
            .explore(Mode::Adr, 1, |explorer| explorer.images(30).samples(4).fail_drains(true));
        assert!(report.runs > 6, "{report}");
    }
}

/// A process that is killed between writing and draining leaves what can be seen and is not durable.
/// Recovery may take it for a commit or not; if it does, it stays.
#[test]
fn what_recovery_accepts_after_a_kill_stays() {
    let ops = [
        Op::Append(8),
        Op::Append(1000),
        Op::Many(2, 8),
        Op::Append(3000),
        Op::Release(1),
        Op::Truncate(1),
        Op::Append(8),
    ];
    let mut sum = Report::default();
    for mode in Mode::ALL {
        for drains in 0..26 {
            let workload = move |region: &SimRegion, notes: &Notes| {
                let killed = Arc::new(Killed::before_drain(region.clone(), drains));
                // All that the first process does is under way: the kill hides what it has done.
                notes.begin(0);
                // A thread of its own: the model knows whose stores a drain waits for.
                let process = std::thread::spawn(move || {
                    if let Ok(mut subject) = Subject::open_over(&killed, Model::new()) {
                        let _ = ops.iter().try_for_each(|&op| subject.apply(op));
                        subject.abandon();
                    }
                });
                process.join().expect("the process does not panic");
                let log = model::options().open_region(region.clone())?;
                let found = model::forwards(&log).unwrap_or_default();
                // Of what is recovered, the number and the newest are promised from here on.
                notes.ack(found.len() as u64);
                notes.ack(found.last().map_or(0, |(lsn, _)| *lsn));
                log.abandon();
                Ok(())
            };
            let check = |region: &SimRegion, history: &History| {
                let (_, records) = model::recover(region, 0)?;
                let newest = records.last().map_or(0, |(lsn, _)| *lsn);
                history.recovered(&(records.len(), newest));
                match history.acked() {
                    [count, last] if (*count, *last) != (records.len() as u64, newest) => {
                        Err(format!("{count} up to {last} became {} up to {newest}", records.len()))
                    }
                    _ => Ok(()),
                }
            };
            let report = Explorer::new(mode, region_len(3))
                .setup(|region| model::prepare(region, &[MOST]).map(drop))
                .depth(1)
                .images(40)
                .samples(6)
                .run(workload, check);
            sum.add(&report.expect_clean());
        }
    }
    println!("kills before a drain: {sum}");
    assert!(sum.states > 5);
}

/// A crash while a region is formatted leaves what was there, the new log, or none.
#[test]
fn formatting_leaves_the_old_log_the_new_one_or_none() {
    for mode in Mode::ALL {
        let old =
            model::prepare(&SimRegion::new(mode, region_len(2), region_len(2)), &[Op::Append(8)])
                .expect("nothing crashes");
        let report = Explorer::new(mode, region_len(2))
            .setup(|region| model::prepare(region, &[Op::Append(8)]).map(drop))
            .depth(1)
            .images(300)
            .samples(200)
            .run(
                |region, notes| {
                    notes.begin(1);
                    drop(model::options().seed(99).format(region.clone())?);
                    notes.ack(1);
                    Ok(())
                },
                move |region, history| {
                    let done = !history.acked().is_empty();
                    match model::options().open_region(region.clone()) {
                        Ok(log) => {
                            let found = model::forwards(&log)?;
                            let right = found.is_empty() || !done && found == old.records;
                            if right { Ok(()) } else { Err(format!("{found:?}")) }
                        }
                        Err(error) if done => Err(error.to_string()),
                        Err(error) => match error.kind() {
                            ErrorKind::WrongFormat(_)
                            | ErrorKind::Damaged("both copies of the header") => Ok(()),
                            _ => Err(error.to_string()),
                        },
                    }
                },
            );
        let _ = report.expect_clean();
    }
}
