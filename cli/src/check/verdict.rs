//! What measurements are worth: limits met or missed, flushes that are none, and what a place is
//! good for.

use daxmap::Durability;

use super::limits::{Limit, Statistic};
use super::measure::{Found, Row, Way};
use crate::bench::units;

/// No block device writes and flushes new data in this time: the fastest NVMe devices need about as
/// long for the write alone, and the filesystem and the kernel's path to them come on top.
const FASTEST_NS: u64 = 5000;
/// Flushes per commit below which flushes are left out, on a device that needs them.
const FLUSHES_LEAST: f64 = 0.5;
/// etcd's demand on the p99 of its log's fdatasync (etcd.io/docs/v3.5/faq).
const ETCD_P99_NS: u64 = 10_000_000;

/// How a limit came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Met,
    Missed,
    /// Too few commits to say.
    Unknown,
}

impl Outcome {
    /// The name in text and JSON; stable.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Unknown => "unknown",
        }
    }
}

/// A limit beside one measurement.
pub struct Judged<'a> {
    pub limit: Limit,
    pub row: &'a Row,
    pub seen_ns: Option<u64>,
    pub outcome: Outcome,
}

/// Why a flush cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// Commits are faster than a device can make them.
    TooFast { p50_ns: u64 },
    /// The device has a volatile cache, and the kernel counts no flush of it.
    NoFlushes,
}

impl Suspicion {
    /// The name in the JSON; stable.
    pub const fn key(self) -> &'static str {
        match self {
            Self::TooFast { .. } => "too_fast",
            Self::NoFlushes => "no_flushes",
        }
    }

    /// What was seen, and what it may mean.
    pub fn text(self) -> String {
        match self {
            Self::TooFast { p50_ns } => format!(
                "half of the commits took {} or less: no device writes and flushes new data in \
                 that time. It may be a filesystem in memory (tmpfs), a volatile cache that \
                 ignores flushes, or a virtual machine whose host leaves them out (cache=unsafe)",
                units::time(p50_ns)
            ),
            Self::NoFlushes => "the device has a volatile write cache, but the kernel sent it a \
                flush for less than half of the commits: a mount option (nobarrier) or a layer \
                below leaves them out"
                .to_owned(),
        }
    }
}

/// All of it.
pub struct Verdict<'a> {
    /// The level found is the one required or higher.
    pub level: Outcome,
    pub limits: Vec<Judged<'a>>,
    pub suspicions: Vec<Suspicion>,
    /// What the place is good for, in sentences.
    pub good_for: Vec<String>,
}

impl<'a> Verdict<'a> {
    /// Judges what was found.
    pub fn of(found: &'a Found, required: Durability, limits: &[Limit]) -> Self {
        let level =
            if found.report.durability >= required { Outcome::Met } else { Outcome::Missed };
        let each = |row| limits.iter().map(move |&limit| judge(limit, row));
        let mut limits: Vec<Judged<'a>> = found.rows.iter().flat_map(each).collect();
        if found.times_withheld.is_some() {
            for judged in &mut limits {
                judged.outcome = Outcome::Unknown;
            }
        }
        let suspicions = suspicions(found);
        let good_for = good_for(found, &suspicions);
        Self { level, limits, suspicions, good_for }
    }

    /// The worst of it: missed if anything is, and unknown if anything else is.
    pub fn outcome(&self) -> Outcome {
        let all = || self.limits.iter().map(|judged| judged.outcome).chain([self.level]);
        if !self.suspicions.is_empty() || all().any(|one| one == Outcome::Missed) {
            Outcome::Missed
        } else if all().any(|one| one == Outcome::Unknown) {
            Outcome::Unknown
        } else {
            Outcome::Met
        }
    }
}

fn judge(limit: Limit, row: &Row) -> Judged<'_> {
    let seen_ns = limit.statistic.of(&row.tally);
    let outcome = match seen_ns {
        Some(ns) if ns <= limit.ns => Outcome::Met,
        Some(_) => Outcome::Missed,
        // Of few commits, half took longer already.
        None if row.tally.updates > 0 && row.tally.quantile(0.5) > limit.ns => Outcome::Missed,
        None => Outcome::Unknown,
    };
    Judged { limit, row, seen_ns, outcome }
}

fn suspicions(found: &Found) -> Vec<Suspicion> {
    let mut all = Vec::new();
    let Some(alone) = found.alone() else { return all };
    if found.is_dax() {
        return all;
    }
    let p50_ns = alone.tally.quantile(0.5);
    if p50_ns < FASTEST_NS {
        all.push(Suspicion::TooFast { p50_ns });
    }
    if found.counts_flushes
        && alone.tally.device_flushes().is_some_and(|flushes| flushes < FLUSHES_LEAST)
    {
        all.push(Suspicion::NoFlushes);
    }
    all
}

fn good_for(found: &Found, suspicions: &[Suspicion]) -> Vec<String> {
    let level = found.report.durability;
    if !suspicions.is_empty() {
        return vec![
            "Not for data that must survive a power loss: a flush here is not known to be one."
                .to_owned(),
        ];
    }
    if level < Durability::Fsync {
        let after = level.after_power_cut();
        return vec![format!("Not for data that must survive a power loss: {after} ({level}).")];
    }
    if let Some(why) = found.times_withheld {
        return vec![format!("No answer: {why}.")];
    }
    let mut all = Vec::new();
    if let Some(row) = found.alone() {
        all.extend(etcd(row));
    }
    for row in &found.rows {
        all.extend(rate(row));
    }
    all
}

fn etcd(row: &Row) -> Option<String> {
    let p99 = Statistic::P99.of(&row.tally)?;
    let word = if p99 < ETCD_P99_NS { "Good" } else { "Too slow" };
    Some(format!(
        "{word} for etcd's log: its p99 is to be below {}, and is {} here (demand: \
         etcd.io/docs/v3.5/faq).",
        units::time(ETCD_P99_NS),
        units::time(p99)
    ))
}

fn rate(row: &Row) -> Option<String> {
    let times = row.tally.times()?;
    let who = match (row.way, row.threads) {
        (Way::ByHand, _) => "One thread with a sync for each record".to_owned(),
        (Way::Log, 1) => "One thread at one log".to_owned(),
        (Way::Log, threads) => format!("{threads} threads at one log"),
    };
    let load = if row.under_load { " under load" } else { "" };
    let rate = units::rate(times.per_second);
    Some(format!(
        "{who}{load}: {rate} durable records a second; the slowest took {}.",
        units::time(times.max_ns)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::device::Reading;
    use crate::bench::tally::{Batch, Tally};

    fn row(count: usize, ns: u64, flushes: Option<u64>) -> Row {
        let device = Reading { bytes: None, flushes };
        let busy_ns = count as u64 * ns;
        let mut tally = Tally::default();
        tally.add(&Batch { times_ns: vec![ns; count], busy_ns, device, ..Batch::default() });
        Row { way: Way::ByHand, threads: 1, under_load: false, tally }
    }

    fn found(row: Row) -> Found {
        let mut report = daxmap::probe::probe(std::env::temp_dir()).expect("a report");
        report.durability = Durability::Fsync;
        report.map_sync = daxmap::probe::MapSync::Refused(95);
        report.statx_dax = Some(false);
        Found { report, rows: vec![row], counts_flushes: true, times_withheld: None }
    }

    const MS: u64 = 1_000_000;

    fn p99(ns: u64) -> Limit {
        Limit { statistic: Statistic::P99, ns }
    }

    fn outcome(found: &Found, limits: &[Limit]) -> Outcome {
        Verdict::of(found, Durability::Fsync, limits).outcome()
    }

    #[test]
    fn limits_are_met_up_to_their_value() {
        let found = found(row(1000, MS, Some(1000)));
        // A thousandth is the precision.
        assert_eq!(outcome(&found, &[p99(MS + MS / 1000)]), Outcome::Met);
        assert_eq!(outcome(&found, &[p99(MS - 1)]), Outcome::Missed);
        assert_eq!(outcome(&found, &[p99(2 * MS), p99(1)]), Outcome::Missed, "one is enough");
        assert_eq!(outcome(&found, &[]), Outcome::Met);
        let level = |level| Verdict::of(&found, level, &[]).outcome();
        assert_eq!(level(Durability::Fsync), Outcome::Met);
        assert_eq!(level(Durability::PowerFail), Outcome::Missed);
    }

    #[test]
    fn too_few_commits_are_no_answer_unless_half_took_too_long() {
        let few = found(row(99, MS, Some(99)));
        assert_eq!(outcome(&few, &[p99(2 * MS)]), Outcome::Unknown);
        assert_eq!(outcome(&few, &[p99(MS / 2)]), Outcome::Missed);
        let missed = Verdict::of(&few, Durability::PowerFail, &[p99(2 * MS)]).outcome();
        assert_eq!(missed, Outcome::Missed, "missed for certain");
    }

    #[test]
    fn times_of_an_emulated_processor_are_no_answer() {
        let mut found = found(row(1000, MS, Some(1000)));
        found.times_withheld = Some("emulated");
        assert_eq!(outcome(&found, &[p99(2 * MS)]), Outcome::Unknown);
        let verdict = Verdict::of(&found, Durability::Fsync, &[]);
        assert_eq!(verdict.good_for, ["No answer: emulated."]);
    }

    #[test]
    fn flushes_that_cannot_be_any_are_never_good() {
        for (ns, flushes, expected) in [
            (FASTEST_NS - 1, Some(1000), Some("too_fast")),
            (FASTEST_NS - 1, None, Some("too_fast")),
            (FASTEST_NS * 2, Some(1000), None),
            (FASTEST_NS * 2, None, None),
            (MS, Some(499), Some("no_flushes")),
            (MS, Some(500), None),
        ] {
            let mut found = found(row(1000, ns, flushes));
            let verdict = Verdict::of(&found, Durability::Fsync, &[p99(10 * MS)]);
            let keys: Vec<_> = verdict.suspicions.iter().map(|one| one.key()).collect();
            assert_eq!(keys, Vec::from_iter(expected), "{ns}, {flushes:?}");
            let good = verdict.outcome() == Outcome::Met;
            assert_eq!(good, expected.is_none());
            assert_eq!(verdict.good_for[0].starts_with("Good for etcd"), good);
            // Memory that is mapped needs neither.
            found.report.statx_dax = Some(true);
            assert_eq!(outcome(&found, &[p99(10 * MS)]), Outcome::Met);
        }
        // Without a volatile cache no flush is sent.
        let mut found = found(row(1000, MS, Some(0)));
        found.counts_flushes = false;
        assert_eq!(outcome(&found, &[]), Outcome::Met);
    }

    #[test]
    fn words_have_figures() {
        let words = |found: &Found| Verdict::of(found, Durability::Fsync, &[]).good_for;
        let good = words(&found(row(1000, 9 * MS, Some(1000))));
        assert!(good[0].starts_with("Good for etcd's log: its p99 is to be below 10.0 ms"));
        assert!(good[1].starts_with("One thread with a sync for each record: 111 "), "{good:?}");
        let slow = words(&found(row(1000, 10 * MS, Some(1000))));
        assert!(slow[0].starts_with("Too slow for etcd's log"), "{slow:?}");
        let few = words(&found(row(50, MS, Some(50))));
        assert_eq!(few.len(), 1, "no p99 of few: {few:?}");
        let mut lost = found(row(1000, MS, Some(1000)));
        lost.report.durability = Durability::Unverified;
        assert!(words(&lost)[0].starts_with("Not for data"));
    }
}
