//! Running the cases in turn, in small batches, so that drift and neighbours hit all alike.

use std::io;
use std::time::{Duration, Instant};

use super::device::Device;
use super::interrupt;
use super::methods::{Ready, Visitor};
use super::plan::{Case, Layout, Method, Phase, Walk};
use super::progress::Progress;
use super::scratch::doing;
use super::tally::{Batch, Tally};

/// When a batch ends.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// After this time in its updates,
    pub time: Duration,
    /// with at least this many of them,
    pub least: usize,
    /// and at most this many.
    pub most: u64,
}

const BATCH: Limits = Limits { time: Duration::from_millis(2), least: 4, most: 4096 };

/// A case with what is known of it so far.
#[derive(Debug)]
pub struct Track {
    /// What is measured.
    pub case: Case,
    /// First touch and steady state.
    tallies: [Tally; 2],
    /// First touches made.
    touched: u64,
    /// Steady updates made.
    walked: u64,
}

impl Track {
    fn new(case: Case) -> Self {
        Self { case, tallies: [Tally::default(), Tally::default()], touched: 0, walked: 0 }
    }

    /// With what a steady state would have counted.
    #[cfg(test)]
    pub fn of(case: Case, steady: Tally) -> Self {
        Self { tallies: [Tally::default(), steady], ..Self::new(case) }
    }

    /// What was counted in this phase.
    pub fn tally(&self, phase: Phase) -> &Tally {
        &self.tallies[phase as usize]
    }
}

/// The methods that could be prepared.
pub type Prepared = Vec<(Method, Ready)>;

/// Everything a measurement needs.
pub struct Bench<'a> {
    methods: Prepared,
    layout: Layout,
    device: &'a Device,
    tracks: Vec<Track>,
    data: Vec<u8>,
    batch: Batch,
}

impl<'a> Bench<'a> {
    /// The cases of these methods.
    pub fn new(methods: Prepared, layout: Layout, device: &'a Device) -> Self {
        let names: Vec<Method> = methods.iter().map(|(method, _)| *method).collect();
        let tracks = super::plan::cases(&names).into_iter().map(Track::new).collect();
        let times_ns = Vec::with_capacity(BATCH.most as usize);
        let batch = Batch { times_ns, ..Batch::default() };
        let data = vec![0xa5; *super::plan::SIZES.last().expect("there are sizes")];
        Self { methods, layout, device, tracks, data, batch }
    }

    /// Runs a phase round by round: first touches until all are made, steady updates until the
    /// deadline, and each case once at least.
    pub fn run(&mut self, phase: Phase, deadline: Instant, progress: &Progress) -> io::Result<()> {
        for round in 0.. {
            let mut ran = false;
            for index in 0..self.tracks.len() {
                if round > 0 && Instant::now() >= deadline {
                    return Ok(());
                }
                interrupt::check()?;
                ran |= self.run_batch(index, phase)?;
                progress.tick();
            }
            if !ran {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What was measured; the methods go.
    pub fn finish(self) -> Vec<Track> {
        self.tracks
    }

    /// Runs one batch of a case; false if it has nothing left to do.
    fn run_batch(&mut self, index: usize, phase: Phase) -> io::Result<bool> {
        let track = &mut self.tracks[index];
        let case = track.case;
        let left = match (phase, case.size) {
            _ if !case.runs_in(phase) => 0,
            (Phase::FirstTouch, Some(size)) => self.layout.slots(size) - track.touched,
            _ => u64::MAX,
        };
        if left == 0 {
            return Ok(false);
        }
        let method = self.methods.iter_mut().find(|(method, _)| *method == case.method);
        let (_, ready) = method.expect("the tracks were made from these methods");
        self.batch.times_ns.clear();
        let first = match phase {
            Phase::FirstTouch => track.touched,
            Phase::Steady => track.walked,
        };
        let mut timed = Timed {
            walk: self.layout.walk(case, phase, track.touched),
            first,
            limits: Limits { most: left.min(BATCH.most), ..BATCH },
            warm_up: phase == Phase::Steady,
            data: &mut self.data[..case.bytes()],
            device: self.device,
            batch: &mut self.batch,
        };
        ready.accept(&mut timed).map_err(|error| {
            doing(format!("bench: {} of {} bytes", case.method.label(), case.bytes()))(error)
        })?;
        let updates = self.batch.times_ns.len() as u64;
        match phase {
            Phase::FirstTouch => track.touched += updates,
            Phase::Steady => track.walked += updates + 1,
        }
        track.tallies[phase as usize].add(&self.batch);
        Ok(true)
    }
}

/// Times a batch of updates, each by itself.
struct Timed<'a> {
    walk: Walk,
    first: u64,
    limits: Limits,
    /// An update beforehand that is not counted: it pays for what the batch before left behind, a
    /// journal to commit or a cold cache.
    warm_up: bool,
    data: &'a mut [u8],
    device: &'a Device,
    batch: &'a mut Batch,
}

impl Visitor for Timed<'_> {
    fn visit(&mut self, mut update: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut number = self.first;
        if self.warm_up {
            update(self.walk.offset(number), self.data)?;
            number += 1;
        }
        let device = self.device.read();
        let next = || {
            number += 1;
            number - 1
        };
        time_updates(self.limits, self.walk, self.data, self.batch, next, update)?;
        self.batch.device = self.device.read().since(device);
        Ok(())
    }
}

/// Times updates of this thread, each by itself. `next` gives the number of the next one in the
/// walk. What the device did meanwhile is for the caller to read.
pub fn time_updates(
    limits: Limits,
    walk: Walk,
    data: &mut [u8],
    batch: &mut Batch,
    mut next: impl FnMut() -> u64,
    mut update: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let faults = page_faults();
    let counts = daxmap::cpu::counts();
    let limit_ns = limits.time.as_nanos() as u64;
    let mut spent_ns = 0;
    for _ in 0..limits.most {
        let number = next();
        // New bytes each time, in case something below compares.
        if let Some(word) = data.first_chunk_mut::<8>() {
            *word = number.to_ne_bytes();
        }
        let at = walk.offset(number);
        let start = Instant::now();
        update(at, data)?;
        let ns = start.elapsed().as_nanos() as u64;
        batch.times_ns.push(ns);
        spent_ns += ns;
        if spent_ns >= limit_ns && batch.times_ns.len() >= limits.least {
            break;
        }
    }
    batch.busy_ns = spent_ns;
    batch.counts = daxmap::cpu::counts().since(counts);
    batch.faults = page_faults() - faults;
    Ok(())
}

/// Page faults of this thread so far, with and without reading.
#[allow(unsafe_code)]
fn page_faults() -> u64 {
    // SAFETY: all zero bytes are a valid rusage: it has integers only.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid for writing. RUSAGE_THREAD cannot fail on Linux since 2.6.26; if it
    // did, the counts would stay zero.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    (usage.ru_minflt + usage.ru_majflt).cast_unsigned()
}

/// How many of these the kernel counts as flushes of the device: true if each sends one.
///
/// Others' flushes are counted too, so all tries must show at least one each.
pub fn sends_flush(ready: &mut Ready, device: &Device) -> io::Result<bool> {
    struct Try<'a>(&'a Device, bool);
    impl Visitor for Try<'_> {
        fn visit(
            &mut self,
            mut update: impl FnMut(u64, &[u8]) -> io::Result<()>,
        ) -> io::Result<()> {
            const TRIES: u32 = 8;
            for _ in 0..TRIES {
                let before = self.0.read();
                update(0, &[])?;
                let flushes = self.0.read().since(before).flushes;
                self.1 &= flushes.is_some_and(|n| n > 0);
            }
            Ok(())
        }
    }
    let mut tries = Try(device, true);
    ready.accept(&mut tries)?;
    Ok(tries.1)
}

#[cfg(test)]
mod tests {
    use super::super::methods::prepare;
    use super::super::plan::SIZES;
    use super::*;

    fn bench<'a>(methods: &[Method], device: &'a Device) -> (tempfile::TempDir, Bench<'a>) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::to_count();
        let prepare = |&method| (method, prepare(method, directory.path(), layout.len()).unwrap());
        let methods = methods.iter().map(prepare).collect();
        let bench = Bench::new(methods, layout, device);
        (directory, bench)
    }

    #[test]
    fn first_touches_are_all_made_once_and_then_it_ends() {
        let device = Device::default();
        let (_directory, mut bench) = bench(&[Method::PwriteFdatasync, Method::Clock], &device);
        let progress = Progress::new(Instant::now(), Duration::from_secs(1));
        let far = Instant::now() + Duration::from_secs(600);
        bench.run(Phase::FirstTouch, far, &progress).unwrap();
        for track in bench.finish() {
            let slots = track.case.size.map_or(0, |_| Layout::COUNTED + 1);
            assert_eq!(track.tally(Phase::FirstTouch).updates, slots, "{:?}", track.case);
            assert_eq!(track.tally(Phase::Steady).updates, 0);
        }
    }

    #[test]
    fn each_case_runs_once_whatever_the_deadline() {
        let device = Device::default();
        let (_directory, mut bench) = bench(&[Method::PwriteFdatasync, Method::Clock], &device);
        let progress = Progress::new(Instant::now(), Duration::from_secs(1));
        bench.run(Phase::Steady, Instant::now(), &progress).unwrap();
        let tracks = bench.finish();
        assert_eq!(tracks.len(), SIZES.len() + 1);
        for track in &tracks {
            let tally = track.tally(Phase::Steady);
            assert_eq!(tally.batches, 1, "{:?}", track.case);
            assert!(tally.updates >= BATCH.least as u64, "{:?}", track.case);
            assert_eq!(track.walked, tally.updates + 1, "one to warm up");
        }
    }

    /// Times updates that do nothing, or sleep for so long.
    fn timed(limits: Limits, nap: Duration) -> (Batch, Vec<(u64, u64)>) {
        let mut batch = Batch::default();
        let mut seen = Vec::new();
        let mut number = 10;
        let next = || {
            number += 1;
            number
        };
        let update = |at: u64, data: &[u8]| {
            std::thread::sleep(nap);
            seen.push((at, u64::from_ne_bytes(data.try_into().unwrap())));
            Ok(())
        };
        time_updates(limits, Walk::log(4096, 64), &mut [0; 8], &mut batch, next, update).unwrap();
        (batch, seen)
    }

    #[test]
    fn a_batch_ends_by_time_but_not_before_the_least_nor_after_the_most() {
        let limits = |ms, least, most| Limits { time: Duration::from_millis(ms), least, most };
        let (batch, seen) = timed(limits(1000, 1, 3), Duration::ZERO);
        assert_eq!(seen, [(11 * 64, 11), (12 * 64, 12), (13 * 64, 13)]);
        assert_eq!(batch.times_ns.len(), 3);
        assert_eq!(batch.busy_ns, batch.times_ns.iter().sum::<u64>());
        let nap = Duration::from_millis(2);
        assert_eq!(timed(limits(1, 4, 100), nap).1.len(), 4, "the least");
        assert_eq!(timed(limits(1, 0, 100), nap).1.len(), 1, "the time");
    }

    #[test]
    fn page_faults_of_a_batch_are_counted() {
        const BYTES: usize = 20 << 20;
        let mut memory = vec![0_u8; 0];
        let mut batch = Batch::default();
        let limits = Limits { time: Duration::ZERO, least: 0, most: 1 };
        time_updates(
            limits,
            Walk::NOWHERE,
            &mut [],
            &mut batch,
            || 0,
            |_, _| {
                memory = vec![1; BYTES];
                Ok(())
            },
        )
        .unwrap();
        // One a page, which may be a larger one.
        let faults = batch.faults;
        assert!((1..2 * BYTES as u64 / 4096).contains(&faults), "{faults}");
        let (batch, _) = timed(Limits { time: Duration::ZERO, least: 0, most: 1 }, Duration::ZERO);
        assert!(batch.faults < faults, "{}", batch.faults);
    }
}
