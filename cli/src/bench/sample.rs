//! Results that nobody measured, for the tests of what is made from them.

use daxmap::Durability;

use super::engine::{Job, RECORD};
use super::machine::Machine;
use super::plan::{Case, Method, Phase, SUMMARY_SIZE};
use super::results::{Figures, JobRow, Results, Row};
use super::tally::Times;

/// An update that takes so long.
pub fn figures(p50_ns: u64) -> Figures {
    let times = Times {
        p50_ns,
        p99_ns: None,
        p999_ns: None,
        max_ns: p50_ns * 2,
        per_second: 1e9 / p50_ns as f64,
    };
    Figures {
        updates: 1000,
        times: Some(times),
        device_bytes: None,
        device_bytes_mean: None,
        device_flushes: None,
        fences: 0.0,
        write_backs: 0.0,
        non_temporal_lines: 0.0,
        system_calls: None,
        page_faults: 0.0,
    }
}

/// The steady row of a method, at the size of the summary if it has sizes.
pub fn row(method: Method, p50_ns: u64) -> Row {
    let size = (method.needs_file() || method.is_emulated()).then_some(SUMMARY_SIZE);
    Row {
        case: Case { method, size },
        phase: Phase::Steady,
        durability: method.durability(Durability::Fsync),
        figures: figures(p50_ns),
    }
}

/// The row of a job, so many times as fast as its base.
pub fn job(job: Job, p50_ns: u64, ratio: f64) -> JobRow {
    JobRow {
        job,
        durability: Durability::Fsync,
        figures: figures(p50_ns * job.bytes() as u64 / RECORD as u64),
        ratio: Some(ratio),
    }
}

/// Of a directory without `MAP_SYNC` whose files survive a power cut.
pub fn results(rows: Vec<Row>) -> Results {
    let mut report = daxmap::probe::probe(std::env::temp_dir()).unwrap();
    report.durability = Durability::Fsync;
    report.reasons.clear();
    let machine = Machine { times_withheld: None, ..Machine::here() };
    Results {
        directory: "directory".to_owned(),
        report,
        map_sync: false,
        machine,
        file_len: 1 << 20,
        seconds: 1.0,
        rows,
        jobs: Vec::new(),
        notes: Vec::new(),
    }
}
