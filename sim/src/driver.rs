//! Crashes the region under a workload, and shows every image to the check.

use std::any::Any;
use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::explain;
use super::history::History;
use super::image::Policy;
use super::random::{SplitMix64, mix};
use super::region::SimRegion;
use super::report::{Failure, Report};
use super::schedule::Scheduler;
use super::thread::{this_thread, thread_index};

/// How far to go; [`Explorer`](super::Explorer) has the public names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) seed: u64,
    /// Images at a crash of the workload.
    pub(super) images: u64,
    /// Images at a crash of recovery.
    pub(super) nested_images: u64,
    pub(super) samples: u64,
    pub(super) depth: usize,
    pub(super) budget: u64,
}

pub(super) type Check = dyn Fn(&SimRegion, &History) -> Result<(), String> + Send + Sync;

/// Different states are counted up to here.
const STATES_MAX: usize = 1 << 20;

type States = HashSet<u64, BuildHasherDefault<Whole>>;

/// States are hashes already.
#[derive(Default)]
pub(super) struct Whole(u64);

impl std::hash::Hasher for Whole {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = mix(self.0 ^ u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// What all runs of one exploration add up to.
#[derive(Default)]
pub(super) struct Totals {
    /// Counted for every image: by itself, without the lock.
    images: AtomicU64,
    crash_points: AtomicU64,
    exhausted: AtomicU64,
    /// The state that was counted last.
    last_state: AtomicU64,
    states: Mutex<States>,
    report: Mutex<Report>,
}

impl Totals {
    fn count_state(&self, state: Option<u64>) {
        let Some(state) = state else { return };
        if state != self.last_state.load(Ordering::Relaxed) {
            self.last_state.store(state, Ordering::Relaxed);
            let mut states = lock(&self.states);
            if states.len() < STATES_MAX {
                states.insert(state);
            }
        }
    }

    /// The part of the report that is not counted by itself.
    pub(super) fn edit(&self, edit: impl FnOnce(&mut Report)) {
        edit(&mut lock(&self.report));
    }

    /// All of it.
    pub(super) fn report(&self) -> Report {
        let mut report = lock(&self.report).clone();
        report.images = self.images.load(Ordering::Relaxed);
        report.crash_points = self.crash_points.load(Ordering::Relaxed);
        report.exhausted = self.exhausted.load(Ordering::Relaxed);
        report.states = lock(&self.states).len() as u64;
        report
    }
}

/// Explores the crashes of one run of a workload.
pub(super) struct Driver {
    limits: Limits,
    check: Arc<Check>,
    /// The region for the images of a crash, by depth: of the workload, of its recovery, ...
    images: OnceLock<Vec<SimRegion>>,
    history: Mutex<Arc<History>>,
    totals: Arc<Totals>,
    stopped: AtomicBool,
    /// Recovery runs once more to find words for a failure.
    explaining: AtomicBool,
    pub(super) scheduler: Option<Scheduler>,
    failing_drain: Option<u32>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}

impl Driver {
    /// A driver for one run on `region`, whose crashes it explores from now on.
    pub(super) fn attach(
        region: &SimRegion,
        limits: Limits,
        check: Arc<Check>,
        totals: Arc<Totals>,
        scheduler: Option<Scheduler>,
        failing_drain: Option<u32>,
    ) -> Arc<Self> {
        let driver = Arc::new(Self {
            limits,
            check,
            images: OnceLock::new(),
            history: Mutex::default(),
            totals,
            stopped: AtomicBool::new(false),
            explaining: AtomicBool::new(false),
            scheduler,
            failing_drain,
        });
        let mut images = Vec::new();
        let mut crashed = region.clone();
        for depth in 0..limits.depth {
            crashed.attach(&driver, depth);
            crashed = crashed.child();
            images.push(crashed.clone());
        }
        let _ = driver.images.set(images);
        driver
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(super) fn turn(&self) {
        if let Some(scheduler) = &self.scheduler {
            scheduler.turn(usize::from(thread_index(this_thread())));
        }
    }

    pub(super) fn note(&self, note: impl FnOnce(&mut History)) {
        note(Arc::make_mut(&mut lock(&self.history)));
    }

    /// Explores the images of a crash of `region` at this moment, if it can leave other images,
    /// or meet other promises, than the crash explored before.
    pub(super) fn crash_point(&self, depth: usize, region: &SimRegion) {
        let Some(image) = self.images.get().and_then(|images| images.get(depth)) else { return };
        if self.is_stopped() || depth > 0 && self.explaining.load(Ordering::Relaxed) {
            return;
        }
        if depth == 0 && self.scheduler.as_ref().is_some_and(Scheduler::is_repeating) {
            return;
        }
        let notes = lock(&self.history).version();
        let Some((len, old_len)) = region.is_news(depth, notes, self.failing_drain) else { return };
        let history = Arc::clone(&lock(&self.history));
        if let Some(scheduler) = self.scheduler.as_ref().filter(|_| depth == 0) {
            scheduler.set_busy(true);
        }
        let mut exhausted = true;
        for len in [Some(len), old_len].into_iter().flatten() {
            exhausted &= self.explore(depth, region, image, len, &history);
        }
        self.totals.crash_points.fetch_add(1, Ordering::Relaxed);
        self.totals.exhausted.fetch_add(u64::from(exhausted), Ordering::Relaxed);
        if let Some(scheduler) = self.scheduler.as_ref().filter(|_| depth == 0) {
            scheduler.set_busy(false);
        }
    }

    /// Goes through the images of one crash. True if all of them were tried.
    fn explore(
        &self,
        depth: usize,
        region: &SimRegion,
        image: &SimRegion,
        len: u64,
        history: &History,
    ) -> bool {
        let limit = if depth == 0 { self.limits.images } else { self.limits.nested_images };
        let mut images = 0;
        image.begin(len, Policy::Search);
        while self.recover(depth, image, history) {
            images += 1;
            if !image.advance() {
                return true;
            }
            if images >= limit {
                self.cover(depth, region, image, history);
                return false;
            }
        }
        false
    }

    /// Where the images are too many: none, all, each line alone, each missing, prefixes of the
    /// operations, and samples.
    fn cover(&self, depth: usize, region: &SimRegion, image: &SimRegion, history: &History) {
        let (mut lines, ops) = region.open_lines();
        lines.sort_unstable();
        lines.dedup();
        let each = self.limits.samples.max(1) as usize;
        let stride = lines.len().div_ceil(each).max(1);
        let mut policies = vec![Policy::Nothing, Policy::Everything];
        for &line in lines.iter().step_by(stride) {
            policies.push(Policy::Alone(line));
            policies.push(Policy::Missing(line));
        }
        let stride = (ops as usize).div_ceil(each).max(1);
        policies.extend((1..ops).step_by(stride).map(Policy::UpTo));
        let points = self.totals.crash_points.load(Ordering::Relaxed);
        let mut random = SplitMix64::new(self.limits.seed ^ mix(points));
        policies.extend((0..self.limits.samples).map(|_| Policy::Sample(random.next_u64())));
        for policy in policies {
            image.restart(policy);
            if !self.recover(depth, image, history) {
                return;
            }
        }
    }

    /// Runs the check on one image. False if the exploration ends here.
    fn recover(&self, depth: usize, image: &SimRegion, history: &History) -> bool {
        let result = self.run_check(image, history);
        if self.is_stopped() {
            return false;
        }
        self.totals.count_state(history.take_state());
        if self.totals.images.fetch_add(1, Ordering::Relaxed) + 1 >= self.limits.budget {
            self.totals.edit(|report| report.out_of_budget = true);
            self.stopped.store(true, Ordering::Relaxed);
        }
        if let Err(message) = result {
            self.fail(depth, image, history, message);
            return false;
        }
        true
    }

    fn run_check(&self, image: &SimRegion, history: &History) -> Result<(), String> {
        catch_unwind(AssertUnwindSafe(|| (self.check)(image, history)))
            .unwrap_or_else(|panic| Err(format!("panic: {}", panic_text(&*panic))))
    }

    /// Finds how little has to be lost for the check to fail, and puts it into words.
    fn fail(&self, depth: usize, image: &SimRegion, history: &History, message: String) {
        self.explaining.store(true, Ordering::Relaxed);
        let message = self.lose_less(image, history).unwrap_or(message);
        let images = self.images.get().map_or(&[][..], Vec::as_slice);
        let crashes = explain::crashes(&images[..=depth.min(images.len() - 1)]);
        self.stop(message, crashes);
        self.explaining.store(false, Ordering::Relaxed);
    }

    /// Keeps the rest of one chain of stores more, as long as the check still fails.
    /// Leaves the image as the last failure had it, and returns its message.
    fn lose_less(&self, image: &SimRegion, history: &History) -> Option<String> {
        let mut fixed = image.lost_lines();
        let fails = |fixed: &Vec<(u32, Vec<u32>)>| {
            image.restart(Policy::Fixed(fixed.clone()));
            self.run_check(image, history).err()
        };
        fails(&fixed)?;
        for index in 0..fixed.len() {
            for chain in 0..fixed[index].1.len() {
                let mut less = fixed.clone();
                less[index].1[chain] = u32::MAX;
                if fails(&less).is_some() {
                    fixed = less;
                }
            }
        }
        fails(&fixed)
    }

    /// Ends the exploration with a failure.
    pub(super) fn stop(&self, message: String, crashes: Vec<super::report::Crash>) {
        self.stopped.store(true, Ordering::Relaxed);
        let schedule = self.scheduler.as_ref().map(Scheduler::picked).unwrap_or_default();
        let failure = Failure {
            message,
            seed: self.limits.seed,
            schedule,
            failed_drain: self.failing_drain,
            operations: Vec::new(),
            crashes,
        };
        self.totals.edit(|report| {
            report.failure.get_or_insert(failure);
        });
    }
}
