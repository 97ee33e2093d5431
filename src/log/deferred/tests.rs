//! Models of threads that submit and wait.

use std::task::Wake;

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc as Shared, Notify};
use loom::thread;

use super::*;

/// A log of which each submission is one record and one byte, by its Lsn.
struct Model {
    watermark: Watermark,
    deferred: Deferred,
    /// The lock of the place where the next one is written.
    place: Mutex<()>,
    written: [AtomicU64; 4],
    durable: [AtomicU64; 4],
    fails: bool,
}

impl Model {
    fn new(fails: bool) -> Self {
        let watermark = Watermark::new(1);
        let deferred = Deferred::new(watermark.register());
        let (written, durable) = Default::default();
        Self { watermark, deferred, place: Mutex::new(()), written, durable, fails }
    }

    /// The end of its Lsns; none if submissions have failed.
    fn submit(&self) -> Option<u64> {
        let place = self.place.lock().unwrap();
        let lsn = self.deferred.begin(&self.watermark, 1, 0).ok()?;
        self.written[lsn as usize].store(1, Ordering::Relaxed);
        self.deferred.written(lsn, lsn);
        drop(place);
        Some(lsn + 1)
    }

    /// A sync: what it is to make durable has been written, all of it and all before.
    fn sync(&self, lead: Lead<'_>) {
        let end = lead.pieces.last().map_or(1, |piece| piece.lsn_end);
        if self.fails {
            let what = ErrorKind::Damaged("a sync that fails");
            return lead.end(Err(Arc::new(Error::new(Operation::Append, what))), |_| ());
        }
        for lsn in 1..end as usize {
            assert_eq!(self.written[lsn].load(Ordering::Relaxed), 1, "{lsn} of {end}");
            self.durable[lsn].store(1, Ordering::Relaxed);
        }
        lead.end(Ok(()), |piece| {
            // Readers and releases are still kept from it.
            assert!(self.watermark.get() < piece.lsn_end);
        });
    }

    fn told(&self, lsn_end: u64, outcome: &Outcome) {
        assert_eq!(outcome.is_err(), self.fails);
        if !self.fails {
            self.all_are_durable_below(lsn_end);
            assert!(self.watermark.get() >= lsn_end);
        } else {
            assert_eq!(self.watermark.get(), 1);
        }
    }

    fn all_are_durable_below(&self, lsn_end: u64) {
        for lsn in 1..lsn_end as usize {
            assert_eq!(self.durable[lsn].load(Ordering::Relaxed), 1, "{lsn} of {lsn_end}");
        }
    }

    fn wait(&self, lsn_end: u64) {
        loop {
            match self.deferred.turn_of_thread(lsn_end) {
                Turn::Done(outcome) => return self.told(lsn_end, &outcome),
                Turn::Leads(lead) => self.sync(lead),
                Turn::Waits => unreachable!("a thread waits inside"),
            }
        }
    }

    /// As a task does; gives up when it has to wait, if it `drops`.
    fn poll(&self, lsn_end: u64, drops: bool) {
        struct Task(Notify);
        impl Wake for Task {
            fn wake(self: Arc<Self>) {
                self.0.notify();
            }
        }
        let task = Arc::new(Task(Notify::new()));
        let waker = Waker::from(Arc::clone(&task));
        loop {
            match self.deferred.turn(lsn_end, Some(&waker)) {
                Turn::Done(outcome) => return self.told(lsn_end, &outcome),
                Turn::Leads(lead) => self.sync(lead),
                Turn::Waits if drops => return self.deferred.forget(lsn_end),
                Turn::Waits => task.0.wait(),
            }
        }
    }
}

fn model(preemptions: usize, fails: bool, threads: &'static [fn(&Model)]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        let model = Shared::new(Model::new(fails));
        let (last, others) = threads.split_last().unwrap();
        let others: Vec<_> = others
            .iter()
            .map(|&body| {
                let model = Shared::clone(&model);
                thread::spawn(move || body(&model))
            })
            .collect();
        last(&model);
        let below = model.watermark.get();
        model.all_are_durable_below(below);
        others.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

fn waits(model: &Model) {
    if let Some(end) = model.submit() {
        model.wait(end);
    }
}

fn polls(model: &Model) {
    if let Some(end) = model.submit() {
        model.poll(end, false);
    }
}

fn drops(model: &Model) {
    if let Some(end) = model.submit() {
        model.poll(end, true);
    }
}

#[test]
fn nobody_is_told_before_all_before_it_is_durable() {
    model(3, false, &[waits, waits]);
    model(3, false, &[polls, waits]);
    model(2, false, &[polls, polls]);
}

#[test]
fn one_that_was_dropped_hinders_nobody() {
    model(2, false, &[drops, polls]);
    model(2, false, &[drops, waits]);
    model(2, false, &[drops, polls, waits]);
}

#[test]
fn a_failure_reaches_all() {
    model(3, true, &[waits, waits]);
    model(2, true, &[polls, waits]);
}

/// As a writer that has a segment of its own; it fails if `fails`.
fn commits(model: &Model, fails: bool) -> u64 {
    let bound = model.watermark.register();
    let lsn = model.watermark.draw(&bound, 1);
    model.written[lsn as usize].store(1, Ordering::Relaxed);
    if fails {
        let what = ErrorKind::Damaged("by the model");
        bound.hold(lsn);
        model.deferred.fail(lsn, Arc::new(Error::new(Operation::Append, what)));
        return 0;
    }
    model.durable[lsn as usize].store(1, Ordering::Relaxed);
    bound.done();
    lsn + 1
}

/// As a submission of such a writer.
fn submits(model: &Model) {
    let lsn_end = commits(model, false);
    model.deferred.wait_for_lower(&model.watermark, lsn_end, thread::yield_now);
    match model.deferred.outcome(lsn_end) {
        Some(Ok(())) => model.all_are_durable_below(lsn_end),
        Some(Err(_)) => assert!(model.fails && lsn_end > 2),
        None => panic!("it did not wait"),
    }
}

fn commits_or_fails(model: &Model) {
    commits(model, model.fails);
}

#[test]
fn a_submission_of_ones_own_segment_comes_after_all_before_it() {
    model(3, false, &[submits, submits]);
    model(3, false, &[commits_or_fails, submits]);
    model(2, false, &[commits_or_fails, commits_or_fails, submits]);
}

#[test]
fn a_commit_that_fails_is_the_end_of_those_above_it_alone() {
    model(3, true, &[commits_or_fails, submits]);
    model(2, true, &[commits_or_fails, submits, submits]);
    model(2, true, &[commits_or_fails, commits_or_fails, submits]);
}
