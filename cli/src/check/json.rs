//! The answer as one JSON object; docs/check.md describes it.

use std::io::{self, Write};

use serde::Serialize;

use super::Args;
use super::measure::{Found, Row};
use super::verdict::{Judged, Verdict};

/// Version of the layout: raised when a field changes its meaning or goes.
const SCHEMA: u32 = 1;

/// Times are in nanoseconds; `null` stands for what is not known.
#[derive(Serialize)]
struct Answer<'a> {
    schema: u32,
    directory: String,
    outcome: &'static str,
    durability: &'static str,
    required: &'static str,
    durability_outcome: &'static str,
    reasons: Vec<JsonReason>,
    suspicions: Vec<JsonSuspicion>,
    limits: Vec<JsonLimit>,
    good_for: &'a [String],
    size: u32,
    rows: Vec<JsonRow>,
    times_withheld: Option<&'a str>,
}

#[derive(Serialize)]
struct JsonReason {
    code: String,
    text: String,
    remedy: Option<String>,
}

#[derive(Serialize)]
struct JsonSuspicion {
    code: &'static str,
    text: String,
}

#[derive(Serialize)]
struct JsonLimit {
    limit: &'static str,
    limit_ns: u64,
    seen_ns: Option<u64>,
    outcome: &'static str,
    method: &'static str,
    threads: u64,
    under_load: bool,
}

#[derive(Serialize)]
struct JsonRow {
    method: &'static str,
    threads: u64,
    under_load: bool,
    commits: u64,
    p50_ns: Option<u64>,
    p95_ns: Option<u64>,
    p99_ns: Option<u64>,
    p99_9_ns: Option<u64>,
    max_ns: Option<u64>,
    commits_per_second: Option<f64>,
    device_flushes_per_commit: Option<f64>,
}

/// Writes it.
pub fn write(
    out: &mut impl Write,
    args: &Args,
    found: &Found,
    verdict: &Verdict<'_>,
) -> io::Result<()> {
    let reasons = found.report.reasons_below(args.require);
    let reason = |reason: &daxmap::probe::Reason| JsonReason {
        code: reason.code.to_string(),
        text: reason.text.clone(),
        remedy: reason.remedy.as_ref().map(ToString::to_string),
    };
    let suspicions = verdict.suspicions.iter();
    let answer = Answer {
        schema: SCHEMA,
        directory: args.directory.to_string_lossy().into_owned(),
        outcome: verdict.outcome().as_str(),
        durability: found.report.durability.as_str(),
        required: args.require.as_str(),
        durability_outcome: verdict.level.as_str(),
        reasons: reasons.iter().map(reason).collect(),
        suspicions: suspicions
            .map(|one| JsonSuspicion { code: one.key(), text: one.text() })
            .collect(),
        limits: verdict.limits.iter().map(limit).collect(),
        good_for: &verdict.good_for,
        size: args.size,
        rows: found.rows.iter().map(row).collect(),
        times_withheld: found.times_withheld,
    };
    serde_json::to_writer(&mut *out, &answer)?;
    writeln!(out)
}

fn limit(judged: &Judged<'_>) -> JsonLimit {
    JsonLimit {
        limit: judged.limit.statistic.key(),
        limit_ns: judged.limit.ns,
        seen_ns: judged.seen_ns,
        outcome: judged.outcome.as_str(),
        method: judged.row.way.key(),
        threads: judged.row.threads,
        under_load: judged.row.under_load,
    }
}

fn row(row: &Row) -> JsonRow {
    let times = row.tally.times();
    JsonRow {
        method: row.way.key(),
        threads: row.threads,
        under_load: row.under_load,
        commits: row.tally.updates,
        p50_ns: times.map(|times| times.p50_ns),
        p95_ns: times.map(|_| row.tally.quantile(0.95)),
        p99_ns: times.and_then(|times| times.p99_ns),
        p99_9_ns: times.and_then(|times| times.p999_ns),
        max_ns: times.map(|times| times.max_ns),
        commits_per_second: times.map(|times| times.per_second),
        device_flushes_per_commit: row.tally.device_flushes(),
    }
}
