//! Which simulated thread runs next.
//!
//! The threads are real threads that hand one token around: a thread asks for its turn before
//! every operation on the region. All interleavings with at most so many preemptions are gone
//! through depth first, then seeded random ones follow.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::random::SplitMix64;

/// After so many operations in a row another thread gets a turn: who spins waits for somebody.
const IN_A_ROW_MAX: u32 = 200;

/// After so many operations a run counts as one that does not end.
const OPERATIONS_MAX: u64 = 1_000_000;

/// How long the thread whose turn it is may stay away from the region: two of these, so that a
/// process that was stopped for long is not taken for one that is stuck.
const STUCK: Duration = Duration::from_secs(5);

/// A point at which another thread could have been let run.
#[derive(Clone, Copy, Debug)]
struct Choice {
    taken: usize,
    options: usize,
}

/// The interleavings, one after another.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    choices: Vec<Choice>,
    /// The choice that differs from the run before.
    changed: Option<usize>,
    preemptions_max: usize,
    random: Option<SplitMix64>,
}

impl Plan {
    pub(super) fn new(preemptions_max: usize) -> Self {
        Self { choices: Vec::new(), changed: None, preemptions_max, random: None }
    }

    /// Goes on to the next interleaving within the bound; false if there is none.
    pub(super) fn advance(&mut self) -> bool {
        while let Some(last) = self.choices.last_mut() {
            if last.taken + 1 < last.options {
                last.taken += 1;
                self.changed = Some(self.choices.len() - 1);
                return true;
            }
            self.choices.pop();
        }
        false
    }

    /// From now on, an interleaving as the seed says.
    pub(super) fn randomize(&mut self, seed: u64) {
        self.choices.clear();
        self.changed = None;
        self.random = Some(SplitMix64::new(seed));
    }
}

struct Turns {
    plan: Plan,
    /// How many of the plan's choices this run has met.
    met: usize,
    preemptions: usize,
    running: Option<usize>,
    live: Vec<bool>,
    /// Threads before their first operation: it was chosen when the thread was let start.
    fresh: Vec<bool>,
    in_a_row: u32,
    operations: u64,
    /// The thread let run at each point of choice.
    picked: Vec<usize>,
    /// No more turns: everybody runs as they like, so that the run ends.
    given_up: Option<&'static str>,
}

/// Hands the token around among the threads of one run.
pub(super) struct Scheduler {
    turns: Mutex<Turns>,
    changed: Condvar,
    /// The thread whose turn it is explores crashes, and may take its time.
    busy: AtomicBool,
}

impl Turns {
    /// Picks one of the options as the plan says.
    fn pick(&mut self, options: &[usize], preempts: bool) -> usize {
        if options.len() < 2 {
            return options[0];
        }
        let index = if let Some(random) = &mut self.plan.random {
            if preempts && random.below(4) > 0 {
                0
            } else {
                random.below(options.len() as u64) as usize
            }
        } else {
            let choice = Choice { taken: 0, options: options.len() };
            if self.met == self.plan.choices.len() {
                self.plan.choices.push(choice);
            }
            self.met += 1;
            self.plan.choices[self.met - 1].taken.min(options.len() - 1)
        };
        self.picked.push(options[index]);
        options[index]
    }

    fn others(&self, thread: usize) -> Vec<usize> {
        let all = self.live.len();
        (1..all).map(|step| (thread + step) % all).filter(|&other| self.live[other]).collect()
    }

    /// Who runs the operation that `thread` is about to do or hands over to.
    fn next(&mut self, thread: usize) -> usize {
        let others = self.others(thread);
        if others.is_empty() {
            return thread;
        }
        self.in_a_row += 1;
        if self.in_a_row > IN_A_ROW_MAX {
            return others[0];
        }
        if self.plan.random.is_none() && self.preemptions >= self.plan.preemptions_max {
            return thread;
        }
        let mut options = vec![thread];
        options.extend(others);
        let next = self.pick(&options, true);
        if next != thread {
            self.preemptions += 1;
        }
        next
    }

    fn hand_to(&mut self, next: Option<usize>) {
        if self.running != next {
            self.in_a_row = 0;
        }
        self.running = next;
    }
}

impl Scheduler {
    pub(super) fn new(threads: usize, plan: Plan) -> Self {
        let mut turns = Turns {
            plan,
            met: 0,
            preemptions: 0,
            running: None,
            live: vec![true; threads],
            fresh: vec![true; threads],
            in_a_row: 0,
            operations: 0,
            picked: Vec::new(),
            given_up: None,
        };
        let all: Vec<usize> = (0..threads).collect();
        if threads > 0 {
            turns.running = Some(turns.pick(&all, false));
        }
        Self { turns: Mutex::new(turns), changed: Condvar::new(), busy: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Waits until `thread` may run.
    pub(super) fn wait(&self, thread: usize) {
        let mut turns = self.lock();
        let mut idle = 0;
        while turns.given_up.is_none() && turns.running != Some(thread) {
            let before = turns.operations;
            let (now, waited) =
                self.changed.wait_timeout(turns, STUCK).unwrap_or_else(PoisonError::into_inner);
            turns = now;
            let moved = !waited.timed_out() || turns.operations != before;
            idle = if moved || self.busy.load(Ordering::Relaxed) { 0 } else { idle + 1 };
            if idle == 2 && turns.running != Some(thread) {
                turns.given_up = Some(
                    "a simulated thread waits outside the region for another, whose turn it is \
                     not: threads may meet in the region only",
                );
                self.changed.notify_all();
            }
        }
    }

    /// Lets another thread run before this one's next operation, if the plan says so.
    pub(super) fn turn(&self, thread: usize) {
        let mut turns = self.lock();
        turns.operations += 1;
        if turns.given_up.is_some() || turns.running != Some(thread) {
            return;
        }
        if turns.operations > OPERATIONS_MAX {
            turns.given_up = Some("the threads do not come to an end");
            self.changed.notify_all();
            return;
        }
        if std::mem::take(&mut turns.fresh[thread]) {
            return;
        }
        let next = turns.next(thread);
        if next != thread {
            turns.hand_to(Some(next));
            self.changed.notify_all();
            drop(turns);
            self.wait(thread);
        }
    }

    /// `thread` is done.
    pub(super) fn finish(&self, thread: usize) {
        let mut turns = self.lock();
        turns.live[thread] = false;
        let others = turns.others(thread);
        let next = if others.is_empty() { None } else { Some(turns.pick(&others, false)) };
        turns.hand_to(next);
        self.changed.notify_all();
    }

    /// True if the run so far is that of the interleaving before.
    pub(super) fn is_repeating(&self) -> bool {
        let turns = self.lock();
        turns.plan.changed.is_some_and(|changed| turns.met <= changed)
    }

    /// The thread let run at each point of choice so far.
    pub(super) fn picked(&self) -> Vec<usize> {
        self.lock().picked.clone()
    }

    /// The plan, to go on with, and why the run was given up if it was.
    pub(super) fn result(&self) -> (Plan, Option<&'static str>) {
        let turns = self.lock();
        (turns.plan.clone(), turns.given_up)
    }
}
