//! The explorer: what a user sets, and the runs that follow from it.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use super::Mode;
use super::driver::{Check, Driver, Limits, Totals, panic_text};
use super::history::{History, Notes};
use super::random::mix;
use super::region::SimRegion;
use super::report::Report;
use super::schedule::{Plan, Scheduler};
use super::state::Faults;
use super::thread::become_thread;
use daxmap::Result;

type Setup = dyn Fn(&SimRegion) -> Result<()> + Send + Sync;
type Workload = dyn Fn(&SimRegion, &Notes) -> Result<()> + Send + Sync;

/// What one simulated thread does.
pub type Body = Box<Workload>;

/// Runs a workload on a simulated region, crashes it everywhere, and has every image that the
/// crash may leave recovered and checked.
///
/// A crash comes at the start, after every store, before every flush, every drain and every note,
/// inside every growth, and at the end; two crashes between which neither the region nor the notes changed
/// count as one. The images of a crash are enumerated as the check reads: a line that it does not
/// touch is left undecided. When more than [`images`](Self::images) come up, the rest is covered
/// by chosen and seeded images instead.
///
/// Workload and check must do the same when they are run again: no clock, no random numbers but
/// seeded ones, no maps with random order. Equal settings give equal reports.
#[derive(Clone)]
pub struct Explorer {
    mode: Mode,
    len: u64,
    max_len: u64,
    limits: Limits,
    faults: Faults,
    fail_drains: bool,
    preemptions: usize,
    schedules: u64,
    random_schedules: u64,
    setup: Option<Arc<Setup>>,
}

impl Debug for Explorer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Explorer")
            .field("mode", &self.mode)
            .field("len", &self.len)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Explorer {
    /// An explorer for regions of `len` bytes of zero.
    #[must_use]
    pub fn new(mode: Mode, len: u64) -> Self {
        let limits = Limits {
            seed: 1,
            images: 100_000,
            nested_images: 256,
            samples: 64,
            depth: 2,
            budget: u64::MAX,
        };
        Self {
            mode,
            len,
            max_len: len,
            limits,
            faults: Faults::default(),
            fail_drains: false,
            preemptions: 2,
            schedules: 10_000,
            random_schedules: 0,
            setup: None,
        }
    }

    /// How long the region may grow, in bytes. Default: not at all.
    #[must_use]
    pub fn max_len(mut self, max_len: u64) -> Self {
        self.max_len = max_len;
        self
    }

    /// Where samples and random interleavings start from. Default: 1.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.limits.seed = seed;
        self
    }

    /// How many images of one crash are enumerated before the rest is sampled. Default: 100,000.
    #[must_use]
    pub fn images(mut self, images: u64) -> Self {
        self.limits.images = images.max(1);
        self
    }

    /// The same for a crash during recovery, of which there may be many for one crash of the
    /// workload. Default: 256.
    #[must_use]
    pub fn nested_images(mut self, images: u64) -> Self {
        self.limits.nested_images = images.max(1);
        self
    }

    /// Where images are too many: how many are sampled, and of how many lines and operations each
    /// is tried alone, missing, and as the last one kept. Default: 64.
    #[must_use]
    pub fn samples(mut self, samples: u64) -> Self {
        self.limits.samples = samples;
        self
    }

    /// How many crashes follow one another: 1 crashes the workload only, 2 its recovery as well,
    /// at most 4. Default: 2.
    #[must_use]
    pub fn depth(mut self, depth: usize) -> Self {
        self.limits.depth = depth.clamp(1, 4);
        self
    }

    /// Ends the exploration after so many images. Default: never.
    #[must_use]
    pub fn budget(mut self, images: u64) -> Self {
        self.limits.budget = images.max(1);
        self
    }

    /// What the region of the workload does wrong. Regions of crash images do nothing wrong.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Runs the workload once more for each of its drains, with that drain failing. Such a run
    /// may return an error; it must not acknowledge what it cannot know to be durable.
    #[must_use]
    pub fn fail_drains(mut self, fail: bool) -> Self {
        self.fail_drains = fail;
        self
    }

    /// How often a thread may be interrupted while it could go on, in an enumerated interleaving.
    /// Default: 2.
    #[must_use]
    pub fn preemptions(mut self, preemptions: usize) -> Self {
        self.preemptions = preemptions;
        self
    }

    /// How many interleavings are enumerated at most. Default: 10,000.
    #[must_use]
    pub fn schedules(mut self, schedules: u64) -> Self {
        self.schedules = schedules.max(1);
        self
    }

    /// How many seeded interleavings follow the enumerated ones. Default: none.
    #[must_use]
    pub fn random_schedules(mut self, schedules: u64) -> Self {
        self.random_schedules = schedules;
        self
    }

    /// What is done to a region before the workload, without crashes: formatting. What it stores
    /// is durable when the workload begins.
    #[must_use]
    pub fn setup(
        mut self,
        setup: impl Fn(&SimRegion) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.setup = Some(Arc::new(setup));
        self
    }

    /// Explores a workload of one thread. The check is given the region that a crash left, does
    /// what the program does when it starts (it may write: that is crashed as well), compares
    /// what it finds with the history, and returns what is wrong.
    pub fn run(
        &self,
        workload: impl Fn(&SimRegion, &Notes) -> Result<()> + Send + Sync + 'static,
        check: impl Fn(&SimRegion, &History) -> std::result::Result<(), String> + Send + Sync + 'static,
    ) -> Report {
        self.explore(&workload, &(Arc::new(check) as Arc<Check>))
    }

    /// Explores a workload that is a list of operations. A failure is made smaller: operations
    /// are left out as long as the exploration still fails.
    pub fn run_ops<Op: Clone + Debug + Send + Sync + 'static>(
        &self,
        ops: &[Op],
        workload: impl Fn(&SimRegion, &Notes, &[Op]) -> Result<()> + Send + Sync + 'static,
        check: impl Fn(&SimRegion, &History) -> std::result::Result<(), String> + Send + Sync + 'static,
    ) -> Report {
        let check = Arc::new(check) as Arc<Check>;
        let explore = |ops: &[Op]| {
            self.explore(&|region: &SimRegion, notes: &Notes| workload(region, notes, ops), &check)
        };
        let mut report = explore(ops);
        let Some(failure) = &mut report.failure else { return report };
        let (mut smallest, mut smaller) = (ops.to_vec(), failure.clone());
        let mut chunk = smallest.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < smallest.len() {
                let mut without = smallest.clone();
                without.drain(at..(at + chunk).min(smallest.len()));
                match explore(&without).failure {
                    Some(failure) => (smallest, smaller) = (without, failure),
                    None => at += chunk,
                }
            }
            if chunk == 1 {
                break;
            }
            chunk = chunk.div_ceil(2);
        }
        smaller.operations = smallest.iter().map(|op| format!("{op:?}")).collect();
        *failure = smaller;
        report
    }

    /// Explores a workload of several threads, all its interleavings up to the limits. Threads
    /// take turns at the operations of the region; they may meet in the region only. Loads and
    /// stores are sequentially consistent: what weaker memory orders allow besides is not seen.
    pub fn run_threads(
        &self,
        bodies: &[Body],
        check: impl Fn(&SimRegion, &History) -> std::result::Result<(), String> + Send + Sync + 'static,
    ) -> Report {
        let check = Arc::new(check) as Arc<Check>;
        let totals = Arc::new(Totals::default());
        let mut plan = Plan::new(self.preemptions);
        let (mut enumerated, mut random) = (0, 0);
        loop {
            let scheduler = Scheduler::new(bodies.len(), plan);
            let Some((rest, stopped)) = self.run_schedule(bodies, &check, &totals, scheduler)
            else {
                break;
            };
            plan = rest;
            totals.edit(|report| report.schedules += 1);
            if stopped {
                break;
            }
            if random == 0 {
                enumerated += 1;
                if plan.advance() && enumerated < self.schedules {
                    continue;
                }
            }
            if random == self.random_schedules {
                break;
            }
            random += 1;
            plan.randomize(mix(self.limits.seed ^ mix(random)));
        }
        totals.report()
    }

    /// One interleaving. The plan to go on with, and whether the exploration is over.
    fn run_schedule(
        &self,
        bodies: &[Body],
        check: &Arc<Check>,
        totals: &Arc<Totals>,
        scheduler: Scheduler,
    ) -> Option<(Plan, bool)> {
        let region = self.region();
        let driver = self.start(&region, check, totals, Some(scheduler), None)?;
        region.fail_drain(self.faults.failing_drain);
        let scheduler = driver.scheduler.as_ref()?;
        let notes = Notes { region: region.clone() };
        region.crash_point();
        let outcomes: Vec<_> = thread::scope(|scope| {
            let threads = bodies.iter().enumerate().map(|(index, body)| {
                let (region, notes) = (&region, &notes);
                scope.spawn(move || {
                    let _simulated = become_thread(index);
                    scheduler.wait(index);
                    let outcome = outcome(|| body(region, notes));
                    scheduler.finish(index);
                    outcome
                })
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(Ok(()))).collect()
        });
        region.crash_point();
        for outcome in outcomes {
            if let Err(message) = outcome {
                driver.stop(message, Vec::new());
            }
        }
        totals.edit(|report| report.runs += 1);
        let (plan, given_up) = scheduler.result();
        if let Some(why) = given_up {
            driver.stop(why.to_owned(), Vec::new());
        }
        Some((plan, driver.is_stopped()))
    }

    /// A region without its failing drain: the drains of the setup do not count.
    fn region(&self) -> SimRegion {
        let faults = Faults { failing_drain: None, ..self.faults };
        SimRegion::with_faults(self.mode, self.len, self.max_len, faults)
    }

    /// Formats the region and has its crashes explored from here on.
    fn start(
        &self,
        region: &SimRegion,
        check: &Arc<Check>,
        totals: &Arc<Totals>,
        scheduler: Option<Scheduler>,
        failing_drain: Option<u32>,
    ) -> Option<Arc<Driver>> {
        let _simulated = become_thread(0);
        let formatted = self.setup.as_ref().map_or(Ok(()), |setup| outcome(|| setup(region)));
        region.settle();
        let (check, totals) = (Arc::clone(check), Arc::clone(totals));
        let driver = Driver::attach(region, self.limits, check, totals, scheduler, failing_drain);
        if let Err(message) = formatted {
            driver.stop(format!("setup: {message}"), Vec::new());
            return None;
        }
        Some(driver)
    }

    fn explore(&self, workload: &OneRun<'_>, check: &Arc<Check>) -> Report {
        let totals = Arc::new(Totals::default());
        let drains = self.run_once(workload, check, &totals, None);
        if let Some(drains) = drains.filter(|_| self.fail_drains) {
            for failing in 1..=drains {
                if self.run_once(workload, check, &totals, Some(failing)).is_none() {
                    break;
                }
            }
        }
        totals.report()
    }

    /// One run. How many drains it had; none if the exploration is over.
    fn run_once(
        &self,
        workload: &OneRun<'_>,
        check: &Arc<Check>,
        totals: &Arc<Totals>,
        failing_drain: Option<u32>,
    ) -> Option<u32> {
        let failing = failing_drain.or(self.faults.failing_drain);
        let region = self.region();
        let driver = self.start(&region, check, totals, None, failing_drain)?;
        region.fail_drain(failing);
        let _simulated = become_thread(0);
        let notes = Notes { region: region.clone() };
        region.crash_point();
        let outcome = outcome(|| workload(&region, &notes));
        region.crash_point();
        totals.edit(|report| report.runs += 1);
        match outcome {
            Err(message) if failing.is_none() => driver.stop(message, Vec::new()),
            _ => {}
        }
        (!driver.is_stopped()).then(|| region.drains())
    }
}

type OneRun<'a> = dyn Fn(&SimRegion, &Notes) -> Result<()> + 'a;

/// What a workload came to: an error or a panic is told as the check's findings are.
fn outcome(run: impl FnOnce() -> Result<()>) -> std::result::Result<(), String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("the workload failed: {error}")),
        Err(panic) => Err(format!("the workload panicked: {}", panic_text(&*panic))),
    }
}
