//! Every mutant on the tests that reach it, until one fails.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::list::Mutant;
use crate::tests::{End, Runner, Test};

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// By which test, and whether it hung.
    Killed { by: String, hangs: bool },
    /// No test that was run notices; how many of those that reach it were not run, for time.
    Missed { tried: usize, left: usize },
    /// No test that is run here reaches it.
    NotReached,
    /// The compiler refuses it.
    Refused,
    /// In what the compiler computes: not tried here.
    Constant,
}

/// A test that takes so many times longer than with everything in place hangs, and at least this.
const PATIENCE: (u32, Duration) = (10, Duration::from_secs(4));

/// Tries the mutants of `ids`. `budget`: of the time of tests for each.
pub fn hunt(
    runner: &Runner,
    tests: &[Test],
    mutants: &[Mutant],
    ids: &[u32],
    budget: Duration,
    workers: usize,
) -> io::Result<HashMap<u32, Fate>> {
    let mut reaching: HashMap<u32, Vec<usize>> = HashMap::new();
    for (index, test) in tests.iter().enumerate() {
        for &id in &test.reached {
            reaching.entry(id).or_default().push(index);
        }
    }
    // What killed mutants of the same function and file is tried first.
    let kills: Mutex<HashMap<(String, usize), u32>> = Mutex::new(HashMap::new());
    let fates = Mutex::new(HashMap::new());
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    let work = |worker: usize| -> io::Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(&id) = ids.get(number) else { return Ok(()) };
            if number > 0 && number.is_multiple_of(200) {
                eprintln!("{number} of {} mutants, {:.0?}", ids.len(), began.elapsed());
            }
            let mutant = &mutants[id as usize - 1];
            let file = mutant.file.display().to_string();
            let function = format!("{file}:{}", mutant.function());
            let Some(candidates) = reaching.get(&id) else {
                fates.lock().expect("no panics").insert(id, Fate::NotReached);
                continue;
            };
            let mut order = candidates.clone();
            {
                let kills = kills.lock().expect("no panics");
                let of = |place: &String, test: usize| {
                    kills.get(&(place.clone(), test)).copied().unwrap_or(0)
                };
                order.sort_by_cached_key(|&test| {
                    let liking = 1 + 10 * of(&function, test) + of(&file, test);
                    tests[test].time.as_micros() / u128::from(liking)
                });
            }
            let mut spent = Duration::ZERO;
            let mut tried = 0;
            let mut fate = None;
            for &index in &order {
                let test = &tests[index];
                if spent + test.time > budget {
                    continue;
                }
                let patience = (test.time * PATIENCE.0).max(PATIENCE.1);
                let mut end =
                    runner.run(worker, &test.program, &test.name, Some(id), None, patience)?;
                if end == End::Failed {
                    // Once more: a failure that comes and goes is not the mutant's.
                    end =
                        runner.run(worker, &test.program, &test.name, Some(id), None, patience)?;
                }
                spent += test.time;
                tried += 1;
                if end != End::Passed {
                    let mut kills = kills.lock().expect("no panics");
                    *kills.entry((function.clone(), index)).or_default() += 1;
                    *kills.entry((file.clone(), index)).or_default() += 1;
                    let by = format!("{}: {}", test.program.name, test.name);
                    fate = Some(Fate::Killed { by, hangs: end == End::Hangs });
                    break;
                }
            }
            let missed = Fate::Missed { tried, left: order.len() - tried };
            let fate = fate.unwrap_or(missed);
            println!("{}: {}", mutant.name, crate::report::words(&fate));
            fates.lock().expect("no panics").insert(id, fate);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panics"))
    })?;
    Ok(fates.into_inner().expect("no panics"))
}
