//! Bugs in how bytes are made durable in a region: what the literature and the bug trackers of
//! persistent software report, one file each.
//!
//! The exploration of a bug must find the buggy form, in the modes that it names, and must find
//! the fixed form clean in every mode. [`BUGS`] is the list that the tests walk.

use daxmap::{Region, Result};
use daxmap_sim::{Explorer, History, Mode, Notes, Report, SimRegion};

mod support;

/// Which of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// With the bug.
    Buggy,
    /// Without it.
    Fixed,
}

impl Form {
    fn is_buggy(self) -> bool {
        self == Self::Buggy
    }
}

/// What an exploration came to.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Crash images recovered and checked.
    pub images: u64,
    /// Moments at which a crash was simulated.
    pub crash_points: u64,
    /// The first failure, explained; none if every image passed.
    pub failure: Option<String>,
}

impl From<Report> for Finding {
    fn from(report: Report) -> Self {
        Self {
            images: report.images,
            crash_points: report.crash_points,
            failure: report.failure.map(|failure| failure.to_string()),
        }
    }
}

/// A seeded bug.
pub struct Bug {
    /// Its name, that of its file.
    pub name: &'static str,
    /// The class of bugs it stands for.
    pub class: &'static str,
    /// What goes wrong, in a sentence.
    pub story: &'static str,
    /// The modes in which it must be found.
    pub modes: &'static [Mode],
    /// Words that the explanation of the failure must contain, in the first of its modes.
    pub words: &'static str,
    /// Explores one of the forms.
    pub explore: fn(Form, Mode) -> Finding,
}

macro_rules! bugs {
    ($($name:ident),* $(,)?) => {
        $(mod $name;)*

        /// Every seeded bug.
        pub const BUGS: &[&Bug] = &[$(&$name::BUG),*];
    };
}

bugs! {
    cas_seen_before_durable,
    checksum_without_length,
    commit_before_data,
    double_replay,
    eadr_assumed,
    fence_by_another_thread,
    fence_of_the_caller,
    flag_evicted_before_data,
    flush_before_store,
    flush_of_wrong_range,
    freed_block_reused,
    growth_never_synced,
    length_without_checksum,
    lines_assumed_ordered,
    missing_fence,
    missing_flush,
    pair_assumed_atomic,
    pointer_before_node,
    poison_not_sticky,
    read_past_end,
    recovery_not_idempotent,
    retry_after_failed_sync,
    root_without_checksum,
    sequence_wraps,
    short_write_assumed_atomic,
    size_before_data,
    stale_record,
    streamed_without_fence,
    torn_commit_word,
    undo_discarded_early,
    undo_too_late,
}
