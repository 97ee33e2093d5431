//! One set of checks that every backend passes.
//!
//! A backend is a [`Subject`]: something that creates, opens and damages regions. [`run`] puts
//! it through [`CHECKS`] and returns what came out, one [`Outcome`] a check; it needs no test
//! harness, so that the same checks run in a test, in a guest and against a simulator. Checks
//! know the contract of [`daxmap::Region`] and nothing of the insides.

mod bounds;
mod concurrent;
mod counts;
mod gone;
mod growth;
mod lifetime;
mod opened;
mod poison;
mod subject;
mod support;
mod views;
mod visible;
mod words;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

pub use subject::{Access, DeviceSubject, Facts, FileSubject, MemorySubject, Subject};

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The promise holds.
    Passed,
    /// It does not; what was seen.
    Failed(String),
    /// The question does not arise for this subject, and why.
    NotApplicable(&'static str),
}

/// One check and what came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The check's name.
    pub check: &'static str,
    /// What it found.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verdict {
            Verdict::Passed => write!(f, "ok      {}", self.check),
            Verdict::Failed(why) => write!(f, "FAILED  {}: {why}", self.check),
            Verdict::NotApplicable(why) => write!(f, "n/a     {}: {why}", self.check),
        }
    }
}

/// A named check. It panics if the promise does not hold.
pub struct Check {
    /// Its name; also the name of the file it works on.
    pub name: &'static str,
    /// The promise, as a sentence.
    pub promise: &'static str,
    run: fn(&support::Bench<'_>) -> Verdict,
}

macro_rules! checks {
    ($($module:ident::$name:ident: $promise:literal;)*) => {
        /// Every check, in the order in which they run.
        pub const CHECKS: &[Check] = &[
            $(Check { name: stringify!($name), promise: $promise, run: $module::$name },)*
        ];
    };
}

checks! {
    lifetime::ready: "a new region is zero, has its length, and its file is complete";
    lifetime::level_matches_report: "durability, granularity and backend are those of the report";
    lifetime::every_way_to_call: "reference, box, arc, trait object and type parameter work alike";
    bounds::refused_ranges: "a range past the end is refused by every method and changes nothing";
    bounds::accepted_ranges: "a range inside does its work there and nowhere else";
    bounds::zero_length: "an empty range inside is a no-op";
    bounds::unaligned_words: "a word at an odd offset is refused and nothing changes";
    bounds::odd_offsets: "any offset and length inside can be written, filled, read and persisted";
    visible::read_your_writes: "every way to write is visible to the next read";
    visible::visible_before_drain: "a write is visible to another region of the file before drain";
    visible::reaches_the_file: "what was written is what read(2) finds in the file";
    visible::sent: "what was sent is what read(2) finds in the file";
    visible::in_parts: "parts are written as all of them joined, or nothing of them";
    visible::whole_pages: "a page is written whole by the kernel, or refused and not written";
    words::exchange: "compare-and-exchange replaces what is expected and reports what is there";
    words::exchange_counts: "increments by compare-and-exchange from many threads all count";
    words::stored_words_whole: "a word stored while another thread loads it is old or new";
    words::written_words_whole: "aligned words of a write are old or new in a concurrent read";
    words::words_whole_across_regions: "the same between two regions of one file; single words where the kernel copies";
    words::publishes: "a word that announces data is not seen before the data";
    concurrent::disjoint_ranges: "writers of disjoint ranges do not disturb each other";
    concurrent::overlapping_ranges: "overlapping writers leave bytes of one of them, never others";
    concurrent::concurrent_drains: "threads that write and drain at once all succeed";
    concurrent::one_syncs_for_all: "what other threads wrote and flushed is covered by one sync_all";
    growth::grows: "growth adds zeros, keeps the base and the old bytes, and lengthens the file";
    growth::no_growth: "growth to the same or a smaller length changes nothing";
    growth::too_large: "growth past the reservation is refused and changes nothing";
    growth::never_zeroes: "growth never changes a byte that the file has, whoever put it there";
    growth::shrinks: "a shorter region ends where it says, and what was cut off is zero when it grows";
    growth::growth_under_load: "threads go on reading and writing while the region grows";
    growth::racing_growth: "threads that grow at once all get what they asked for";
    growth::failed_growth: "when the kernel refuses any step, region and file are as before";
    growth::first_stores: "the first store to a page of a new or grown region meets no fault";
    lifetime::reopen: "what was drained is there when the file is opened again";
    lifetime::reopen_without_drain: "what was written is there after drop, without a drain";
    lifetime::read_only: "a read-only region reads, refuses every change, and changes nothing";
    lifetime::close: "after close, calls are refused, views and the file stay";
    lifetime::one_writer: "a second writer is refused, readers are not, and drop gives the lock up";
    opened::ungathered: "without gathering, a write is in the file before it is sent";
    opened::locks: "readers share a lock, a writer has it alone, and who waits gets it or is refused in time";
    opened::from_a_file: "a region of an open file is as one of its path";
    opened::its_file: "path and descriptor lead to the file";
    opened::drains_that_wait: "a drain that may wait for a device says so";
    views::views: "a view has the bytes of its range, and stores through it are stores";
    counts::flush_counts: "flush of n lines is n write-backs and no fence, drain one fence";
    counts::write_flush_counts: "every line of a write is written back, or bypasses the cache, once";
    counts::deep_flush_counts: "a deep flush writes every line back once and waits, and so does a close";
    gone::truncated: "access to a page that is gone is an error, and the others go on";
    gone::truncated_to_nothing: "the same when the whole file is gone";
    gone::grow_when_truncated: "growth of a truncated file does not kill";
    poison::flush_of_gone_page: "a flush that cannot be done poisons the region";
    poison::drain_of_shortened_file: "a drain that finds the file short poisons the region";
    poison::failed_sync: "a failed sync poisons the region for every thread";
    poison::no_drain_without_sync: "no drain after a write returns success without a sync";
    poison::sync_all_waits: "no sync_all returns success if the kernel makes nobody wait";
    poison::failed_sync_in_growth: "a failed sync during growth poisons the region";
    poison::failed_deep_flush: "a failed deep flush poisons the region";
}

/// Puts the subject through every check.
pub fn run(subject: &dyn Subject) -> Vec<Outcome> {
    run_some(subject, |_| true)
}

/// Puts the subject through the checks whose name `wanted` accepts.
pub fn run_some(subject: &dyn Subject, wanted: impl Fn(&str) -> bool) -> Vec<Outcome> {
    CHECKS.iter().filter(|check| wanted(check.name)).map(|check| one(subject, check)).collect()
}

fn one(subject: &dyn Subject, check: &Check) -> Outcome {
    let bench = support::Bench::new(subject, check.name);
    let start = Instant::now();
    let verdict = catch_unwind(AssertUnwindSafe(|| (check.run)(&bench)))
        .unwrap_or_else(|panic| Verdict::Failed(format!("{} ({})", why(&*panic), check.promise)));
    subject.remove(check.name);
    Outcome { check: check.name, verdict, took: start.elapsed() }
}

fn why(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else {
        "a panic without a message".to_owned()
    }
}
