//! The results as JSON.
//!
//! Fields are only ever added within a schema version. Times are whole nanoseconds; `null` stands
//! for what is unknown, withheld, or not there.

use std::io::{self, Write};

use serde::Serialize;

use super::engine::Job;
use super::plan::Method;
use super::results::{Figures, JobRow, Results, Row};
use super::table::survives;

/// Version of the layout: raised when a field changes its meaning or goes.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct JsonResults<'a> {
    schema: u32,
    version: &'static str,
    directory: &'a str,
    filesystem: Option<&'a str>,
    mount_options: &'a [String],
    device: Option<&'a str>,
    device_kind: Option<&'a str>,
    map_sync: bool,
    backend: &'static str,
    durability: &'static str,
    persistence_domain: &'static str,
    granularity: &'static str,
    write_back: &'static str,
    verdict: String,
    reasons: Vec<JsonReason<'a>>,
    machine: JsonMachine<'a>,
    times_withheld: Option<&'static str>,
    file_bytes: u64,
    seconds: f64,
    clock_p50_ns: Option<u64>,
    rows: Vec<JsonRow>,
    engine: Vec<JsonJob>,
    notes: &'a [String],
    summary: &'a [String],
}

#[derive(Serialize)]
struct JsonReason<'a> {
    code: &'static str,
    text: &'a str,
    remedy: Option<String>,
}

#[derive(Serialize)]
struct JsonMachine<'a> {
    cpu: &'a str,
    cpus: usize,
    architecture: &'a str,
    kernel: &'a str,
    hypervisor: Option<&'a str>,
    clock_source: Option<&'a str>,
    load_average: Option<f64>,
}

#[derive(Serialize)]
struct JsonRow {
    method: &'static str,
    label: &'static str,
    size: Option<usize>,
    phase: &'static str,
    emulated: bool,
    durability: Option<&'static str>,
    power_cut: Option<&'static str>,
    #[serde(flatten)]
    figures: JsonFigures,
}

/// One of the jobs of an engine: `persist` by `threads` threads that share a region as one log,
/// `append` by `threads` threads to a `daxmap::log`, `records_per_commit` at a time, `log_by_hand` by one thread with a sync after every `writes_per_sync` writes, `publish` of a
/// whole file by the library, and `publish_by_hand`. An operation is a record of `size` bytes, or a
/// file of that length.
#[derive(Serialize)]
struct JsonJob {
    job: &'static str,
    label: String,
    size: usize,
    threads: u64,
    writes_per_sync: Option<u64>,
    records_per_commit: Option<u64>,
    durability: &'static str,
    power_cut: &'static str,
    /// Operations per second, against `persist` by one thread (`persist`, `append`, `log_by_hand`) or against
    /// `publish_by_hand` of the same size (`publish`, `publish_by_hand`); median over the rounds.
    ratio: Option<f64>,
    #[serde(flatten)]
    figures: JsonFigures,
}

/// What is known of a row of either kind.
#[derive(Serialize)]
struct JsonFigures {
    operations: u64,
    p50_ns: Option<u64>,
    p99_ns: Option<u64>,
    p99_9_ns: Option<u64>,
    max_ns: Option<u64>,
    operations_per_second: Option<u64>,
    times_withheld: Option<&'static str>,
    device_bytes_per_operation: Option<f64>,
    device_bytes_per_operation_mean: Option<f64>,
    device_flushes_per_operation: Option<f64>,
    fences_per_operation: f64,
    write_backs_per_operation: f64,
    non_temporal_lines_per_operation: f64,
    system_calls_per_operation: Option<f64>,
    page_faults_per_operation: f64,
}

/// Writes one object and a line end.
pub fn write(out: &mut impl Write, results: &Results, summary: &[String]) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &convert(results, summary))?;
    writeln!(out)?;
    out.flush()
}

fn convert<'a>(results: &'a Results, summary: &'a [String]) -> JsonResults<'a> {
    let report = &results.report;
    let machine = &results.machine;
    let clock = results.floor(Method::Clock).and_then(|row| row.figures.times);
    JsonResults {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        directory: &results.directory,
        filesystem: report.filesystem.as_deref(),
        mount_options: report.mount.as_ref().map_or(&[], |mount| mount.options.as_slice()),
        device: report.device.as_ref().map(|device| device.name.as_str()),
        device_kind: report.device.as_ref().map(|device| device.kind.as_str()),
        map_sync: results.map_sync,
        backend: report.backend.as_str(),
        durability: report.durability.as_str(),
        persistence_domain: report.persistence_domain.as_str(),
        granularity: report.granularity.as_str(),
        write_back: report.write_back.as_str(),
        verdict: report.verdict_sentence(),
        reasons: report
            .reasons
            .iter()
            .map(|reason| JsonReason {
                code: reason.code.as_str(),
                text: &reason.text,
                remedy: reason.remedy.as_ref().map(ToString::to_string),
            })
            .collect(),
        machine: JsonMachine {
            cpu: &machine.cpu,
            cpus: machine.cpus,
            architecture: &machine.architecture,
            kernel: &machine.kernel,
            hypervisor: machine.hypervisor.as_deref(),
            clock_source: machine.clock_source.as_deref(),
            load_average: machine.load,
        },
        times_withheld: machine.times_withheld,
        file_bytes: results.file_len,
        seconds: results.seconds,
        clock_p50_ns: clock.map(|times| times.p50_ns),
        rows: results.rows.iter().map(|row| convert_row(row, results)).collect(),
        engine: results.jobs.iter().map(|row| convert_job(row, results)).collect(),
        notes: &results.notes,
        summary,
    }
}

fn convert_row(row: &Row, results: &Results) -> JsonRow {
    let method = row.case.method;
    JsonRow {
        method: method.key(),
        label: method.label(),
        size: row.case.size.map(|_| row.case.bytes()),
        phase: row.phase.key(),
        emulated: method.is_emulated(),
        durability: row.durability.map(daxmap::Durability::as_str),
        power_cut: row.durability.map(|level| survives(Some(level))),
        figures: convert_figures(&row.figures, results),
    }
}

fn convert_job(row: &JobRow, results: &Results) -> JsonJob {
    let job = row.job;
    JsonJob {
        job: job.key(),
        label: job.label(),
        size: job.bytes(),
        threads: match job {
            Job::Persist { threads } | Job::Append { threads, .. } => threads,
            _ => 1,
        },
        writes_per_sync: if let Job::LogByHand { writes } = job { Some(writes) } else { None },
        records_per_commit: if let Job::Append { records, .. } = job {
            Some(records)
        } else {
            None
        },
        durability: row.durability.as_str(),
        power_cut: survives(Some(row.durability)),
        ratio: row.ratio,
        figures: convert_figures(&row.figures, results),
    }
}

fn convert_figures(figures: &Figures, results: &Results) -> JsonFigures {
    let times = figures.times;
    JsonFigures {
        operations: figures.updates,
        p50_ns: times.map(|times| times.p50_ns),
        p99_ns: times.and_then(|times| times.p99_ns),
        p99_9_ns: times.and_then(|times| times.p999_ns),
        max_ns: times.map(|times| times.max_ns),
        operations_per_second: times.map(|times| times.per_second.round() as u64),
        times_withheld: results.machine.times_withheld,
        device_bytes_per_operation: figures.device_bytes,
        device_bytes_per_operation_mean: figures.device_bytes_mean,
        device_flushes_per_operation: figures.device_flushes,
        fences_per_operation: figures.fences,
        write_backs_per_operation: figures.write_backs,
        non_temporal_lines_per_operation: figures.non_temporal_lines,
        system_calls_per_operation: figures.system_calls,
        page_faults_per_operation: figures.page_faults,
    }
}
