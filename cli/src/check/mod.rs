//! `daxmap check`: whether a directory is good enough for a write-ahead log, by exit status.
// Counts and times become figures with three digits; none comes near 2^52, none is negative.
#![allow(clippy::cast_precision_loss)]

mod json;
mod limits;
mod load;
mod measure;
mod text;
mod verdict;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::value_parser;
use daxmap::Durability;

use crate::bench::interrupt;
use crate::probe::clean;

use limits::{Limit, Statistic};
use verdict::{Outcome, Verdict};

/// Check whether a directory is good enough for a write-ahead log.
///
/// Measures durable commits there: records that one thread appends with pwrite and fdatasync, and
/// records of several threads in one daxmap::log. Compares each limit given with each of these, and
/// the durability level with the one required. Its files are removed at the end.
///
/// The exit status is 0 if everything is met, 1 if something is missed, and 2 if that could not be
/// told: no such directory, a full disk, an interruption, too few commits in the time, a load that
/// ended. Flushes that are acknowledged faster than any device can are missed, whatever else is met.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory to check.
    directory: PathBuf,

    /// 99 of 100 commits take no longer: 500us, 5ms, 1s.
    #[arg(long, value_name = "TIME", value_parser = limits::time)]
    commit_p99: Option<u64>,

    /// 999 of 1000 commits take no longer.
    #[arg(long, value_name = "TIME", value_parser = limits::time)]
    commit_p999: Option<u64>,

    /// No commit takes longer.
    #[arg(long, value_name = "TIME", value_parser = limits::time)]
    commit_max: Option<u64>,

    /// Commits in each measurement.
    #[arg(long, default_value_t = 2000, value_parser = value_parser!(u64).range(100..=1_000_000))]
    commits: u64,

    /// Bytes of a record, 8 to 65536.
    #[arg(long, default_value_t = 4096, value_parser = value_parser!(u32).range(8..=65536))]
    size: u32,

    /// Threads that commit to the log at the same time, 1 to 64.
    #[arg(long, default_value_t = 16, value_parser = value_parser!(u64).range(1..=64))]
    threads: u64,

    /// Time for all measurements together, in seconds. A slow device makes fewer commits then.
    #[arg(long, default_value_t = 60.0, value_parser = crate::bench::seconds)]
    seconds: f64,

    /// The durability level required: ProcessOnly, Unverified, Fsync or PowerFail.
    #[arg(long, default_value_t = Durability::Fsync, value_name = "LEVEL")]
    require: Durability,

    /// Measure once more while this shell command runs. It must run until it is ended; files it
    /// makes in $DAXMAP_CHECK_DIR are removed.
    #[arg(long, value_name = "COMMAND")]
    under_load: Option<String>,

    /// One JSON object.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// The limits given.
    fn limits(&self) -> Vec<Limit> {
        let each = [
            (Statistic::P99, self.commit_p99),
            (Statistic::P999, self.commit_p999),
            (Statistic::Max, self.commit_max),
        ];
        let given = |(statistic, ns): (Statistic, Option<u64>)| Some(Limit { statistic, ns: ns? });
        each.into_iter().filter_map(given).collect()
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// What could not be measured is neither met nor missed.
const UNKNOWN: u8 = 2;

/// Measures, writes the answer, and returns the exit status. The error is a closed pipe.
pub fn run(args: &Args) -> io::Result<ExitCode> {
    let failed = |error: &io::Error| {
        let directory = args.directory.display().to_string();
        eprintln!("daxmap: {}", clean(&format!("check {directory}: not measured: {error}")));
        ExitCode::from(UNKNOWN)
    };
    if let Some(limit) = args.limits().iter().find(|limit| limit.statistic.least() > args.commits) {
        let (label, least) = (limit.statistic.label(), limit.statistic.least());
        let why = format!("{label} needs at least {least} commits: raise --commits");
        return Ok(failed(&io::Error::other(why)));
    }
    interrupt::catch();
    let found = match measure::measure(args) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            return Ok(failed(&io::Error::other("interrupted by a signal")));
        }
        Err(error) => return Ok(failed(&error)),
    };
    let verdict = Verdict::of(&found, args.require, &args.limits());
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if args.json {
        json::write(&mut out, args, &found, &verdict)
    } else {
        text::write(&mut out, args, &found, &verdict)
    };
    match written.and_then(|()| out.flush()) {
        Ok(()) => Ok(ExitCode::from(status(verdict.outcome()))),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(error),
        Err(error) => Ok(failed(&error)),
    }
}

fn status(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Met => 0,
        Outcome::Missed => 1,
        Outcome::Unknown => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_met_ends_with_zero() {
        let all = [Outcome::Met, Outcome::Missed, Outcome::Unknown];
        assert_eq!(all.map(status), [0, 1, 2]);
    }
}
