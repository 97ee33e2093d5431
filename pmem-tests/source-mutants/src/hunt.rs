//! Every mutant on the tests that reach it, until one fails.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::list::Mutant;
use crate::report;
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

/// Of the time of tests, for each mutant at first. Most need no more.
const QUICK: Duration = Duration::from_secs(6);

/// Mutants, and the tests that they are tried on.
pub struct Hunt<'a> {
    pub runner: &'a Runner,
    pub tests: &'a [Test],
    pub mutants: &'a [Mutant],
    pub workers: usize,
    /// Which tests reach a mutant.
    reaching: HashMap<u32, Vec<usize>>,
    /// What killed mutants of a function, or of a file, how often: that is tried first.
    kills: Mutex<HashMap<(String, usize), u32>>,
    /// What a mutant was tried on.
    tried: Mutex<HashMap<u32, HashSet<usize>>>,
}

impl<'a> Hunt<'a> {
    pub fn new(
        runner: &'a Runner,
        tests: &'a [Test],
        mutants: &'a [Mutant],
        workers: usize,
    ) -> Self {
        let mut reaching: HashMap<u32, Vec<usize>> = HashMap::new();
        for (index, test) in tests.iter().enumerate() {
            for &id in &test.reached {
                reaching.entry(id).or_default().push(index);
            }
        }
        let (kills, tried) = (Mutex::default(), Mutex::default());
        Self { runner, tests, mutants, workers, reaching, kills, tried }
    }

    /// Tries these mutants. `budget`: of the time of tests for each.
    pub fn run(&self, ids: &[u32], budget: Duration) -> io::Result<HashMap<u32, Fate>> {
        let mut fates = self.pass(ids, QUICK.min(budget))?;
        let again: Vec<u32> = ids
            .iter()
            .copied()
            .filter(|id| matches!(fates[id], Fate::Missed { left: 1.., .. }))
            .collect();
        if budget > QUICK {
            eprintln!("{} mutants on the tests that take longer", again.len());
            fates.extend(self.pass(&again, budget)?);
        }
        Ok(fates)
    }

    fn pass(&self, ids: &[u32], budget: Duration) -> io::Result<HashMap<u32, Fate>> {
        let (began, next) = (Instant::now(), AtomicUsize::new(0));
        let fates = Mutex::new(HashMap::new());
        let work = |worker: usize| -> io::Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(&id) = ids.get(number) else { return Ok(()) };
                if number > 0 && number.is_multiple_of(500) {
                    eprintln!("{number} of {} mutants, {:.0?}", ids.len(), began.elapsed());
                }
                let fate = self.attempt(worker, id, budget)?;
                println!("{}: {}", self.mutants[id as usize - 1].name, report::words(&fate));
                fates.lock().expect("no panics").insert(id, fate);
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..self.workers).map(|worker| scope.spawn(move || work(worker))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no panics"))
        })?;
        Ok(fates.into_inner().expect("no panics"))
    }

    /// The tests that reach a mutant, the likely and the quick ones first.
    fn order(&self, id: u32, places: &[String; 2]) -> Vec<usize> {
        let mut order = self.reaching.get(&id).cloned().unwrap_or_default();
        let kills = self.kills.lock().expect("no panics");
        let of = |place: usize, test: usize| {
            kills.get(&(places[place].clone(), test)).copied().unwrap_or(0)
        };
        order.sort_by_cached_key(|&test| {
            let liking = 1 + 10 * of(0, test) + of(1, test);
            self.tests[test].time.as_micros() / u128::from(liking)
        });
        order
    }

    fn attempt(&self, worker: usize, id: u32, budget: Duration) -> io::Result<Fate> {
        let mutant = &self.mutants[id as usize - 1];
        let file = mutant.file.display().to_string();
        let places = [format!("{file}:{}", mutant.function()), file];
        let order = self.order(id, &places);
        if order.is_empty() {
            return Ok(Fate::NotReached);
        }
        let mut tried = self.tried.lock().expect("no panics").remove(&id).unwrap_or_default();
        let mut spent = Duration::ZERO;
        for &index in &order {
            let test = &self.tests[index];
            if tried.contains(&index) || spent + test.time > budget {
                continue;
            }
            let patience = (test.time * PATIENCE.0).max(PATIENCE.1);
            let run =
                || self.runner.run(worker, &test.program, &test.name, Some(id), None, patience);
            let mut end = run()?;
            if end == End::Failed {
                // Once more: a failure that comes and goes is not the mutant's.
                end = run()?;
            }
            spent += test.time;
            tried.insert(index);
            if end != End::Passed {
                let mut kills = self.kills.lock().expect("no panics");
                for place in places {
                    *kills.entry((place, index)).or_default() += 1;
                }
                let by = format!("{}: {}", test.program.name, test.name);
                return Ok(Fate::Killed { by, hangs: end == End::Hangs });
            }
        }
        let missed = Fate::Missed { tried: tried.len(), left: order.len() - tried.len() };
        self.tried.lock().expect("no panics").insert(id, tried);
        Ok(missed)
    }
}
