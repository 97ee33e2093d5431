//! What an exploration saw.

use std::fmt;

/// The counts of an exploration and, if there was one, its first failure.
#[derive(Clone, Debug, Default)]
#[must_use]
#[non_exhaustive]
pub struct Report {
    /// Moments at which a crash was simulated, those inside recovery included.
    pub crash_points: u64,
    /// Those of them at which every image that recovery can tell apart was tried.
    pub exhausted: u64,
    /// Images on which recovery and check ran.
    pub images: u64,
    /// Different states that the check reported with [`History::recovered`](super::History::recovered);
    /// 0 if it reports none. Counted up to 2^20.
    pub states: u64,
    /// Runs of the workload: one for each interleaving of its threads, and for each drain that
    /// was made to fail.
    pub runs: u64,
    /// Interleavings of simulated threads among them.
    pub schedules: u64,
    /// True if [`Explorer::budget`](super::Explorer::budget) ended the exploration.
    pub out_of_budget: bool,
    /// The first image on which the check failed, explained.
    pub failure: Option<Failure>,
}

impl Report {
    /// True if there was a crash point, nothing failed, and every crash point of every run was
    /// exhausted: no image that the mode allows is left out, for this workload, up to the depth of
    /// crashes that was asked for. Of several threads, the runs are those within the bounds of
    /// [`Explorer::preemptions`](super::Explorer::preemptions) and
    /// [`Explorer::schedules`](super::Explorer::schedules), not all interleavings.
    #[must_use]
    pub fn is_exhaustive(&self) -> bool {
        self.crash_points > 0
            && self.exhausted == self.crash_points
            && !self.out_of_budget
            && self.failure.is_none()
    }

    /// Ends a test: returns the counts of an exploration without a failure.
    ///
    /// # Panics
    ///
    /// If there was a failure, with its explanation.
    #[track_caller]
    pub fn expect_clean(self) -> Self {
        if let Some(failure) = &self.failure {
            panic!("{failure}");
        }
        self
    }

    /// Ends the test of a bug that must be found.
    ///
    /// # Panics
    ///
    /// If there was no failure.
    #[track_caller]
    #[must_use]
    pub fn expect_failure(self) -> Failure {
        match self.failure {
            Some(failure) => failure,
            None => panic!("no crash made the check fail: {self}"),
        }
    }

    /// Adds the counts of another exploration. States of the two are not compared: the sum may
    /// count some twice.
    pub fn add(&mut self, other: &Self) {
        self.crash_points += other.crash_points;
        self.exhausted += other.exhausted;
        self.images += other.images;
        self.states += other.states;
        self.runs += other.runs;
        self.schedules += other.schedules;
        self.out_of_budget |= other.out_of_budget;
        if self.failure.is_none() {
            self.failure.clone_from(&other.failure);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} images at {} crash points ({} exhausted), {} states, {} runs, {} interleavings",
            self.images, self.crash_points, self.exhausted, self.states, self.runs, self.schedules
        )?;
        if self.out_of_budget {
            f.write_str("; the budget ended it")?;
        }
        match &self.failure {
            Some(failure) => write!(f, "\n{failure}"),
            None => Ok(()),
        }
    }
}

/// A crash that recovery does not survive.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// What the check said.
    pub message: String,
    /// The seed of the exploration; the same seed finds the same failure.
    pub seed: u64,
    /// Which interleaving of the threads, as the index of the thread that was let run at each
    /// point of choice; empty with one thread.
    pub schedule: Vec<usize>,
    /// The drain that was made to fail, counted from 1.
    pub failed_drain: Option<u32>,
    /// The operations that are left after shrinking, as their `Debug` prints them; empty if the
    /// workload is not a list of operations.
    pub operations: Vec<String>,
    /// Where the crash came, and what the image lost and kept, in sentences; for a crash during
    /// recovery a second crash follows the first.
    pub crashes: Vec<Crash>,
}

/// One crash, in words.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Crash {
    /// The number of the last operation before the crash, counted from 1; 0 before the first.
    pub after_op: u32,
    /// The operations of the region up to the crash, one a line.
    pub operations: Vec<String>,
    /// A sentence for each line of the image that is not as the crash found it.
    pub lost: Vec<String>,
    /// A sentence for each line that was not yet surely durable and that the image kept.
    pub kept: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "recovery fails: {}", self.message)?;
        write!(f, "seed {}", self.seed)?;
        if !self.schedule.is_empty() {
            write!(f, ", schedule {:?}", self.schedule)?;
        }
        if let Some(drain) = self.failed_drain {
            write!(f, ", drain {drain} made to fail")?;
        }
        writeln!(f)?;
        if !self.operations.is_empty() {
            writeln!(f, "smallest workload found: {}", self.operations.join("; "))?;
        }
        for (index, crash) in self.crashes.iter().enumerate() {
            let what = if index == 0 { "crash" } else { "crash during recovery" };
            writeln!(f, "{what} after operation {}:", crash.after_op)?;
            for operation in &crash.operations {
                writeln!(f, "    {operation}")?;
            }
            for sentence in crash.lost.iter().chain(&crash.kept) {
                writeln!(f, "  {sentence}")?;
            }
        }
        Ok(())
    }
}
