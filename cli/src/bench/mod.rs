//! `daxmap bench`: what lies under a directory, and what a durable update costs there.
// Counts and times become figures with three digits; none comes near 2^52, none is negative.
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss)]

pub mod device;
pub mod engine;
pub mod interrupt;
mod json;
pub mod machine;
pub mod measure;
pub mod methods;
pub mod plan;
pub mod progress;
mod results;
#[cfg(test)]
mod sample;
pub mod scratch;
mod sheet;
mod summary;
mod table;
pub mod tally;
pub mod trace;
pub mod units;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daxmap::probe::{MapSync, Report};

use device::Device;
use engine::{Engine, Job};
use machine::Machine;
use measure::{Bench, Prepared};
use methods::{Ready, prepare};
use plan::{Layout, Method, Phase};
use progress::Progress;
use results::Results;
use scratch::{Scratch, doing};
use trace::Calls;

/// Measure what a durable update costs in a directory, in each of the ways it can be done.
///
/// Says what lies under the directory first. Then updates of 8 B to 64 KiB in preallocated files
/// there, which are removed at the end: through a region, with fdatasync, fsync, `O_DSYNC` and msync,
/// and floors that none of them can undercut. Where there is no `MAP_SYNC`, its cache-line flush is
/// emulated on DRAM, and called so. Last, what an engine does: threads that append to one log, and
/// whole files that take another's place.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory to measure in.
    #[arg(default_value = ".")]
    directory: PathBuf,

    /// Write the results to this file too; `-` writes them to standard output, and the rest to
    /// standard error.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Time for the measurement, in seconds.
    #[arg(long, default_value_t = 30.0, value_parser = seconds)]
    seconds: f64,
}

/// Reads a time in seconds, from a tenth to a day.
pub fn seconds(text: &str) -> Result<f64, String> {
    const RANGE: std::ops::RangeInclusive<f64> = 0.1..=86400.0;
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if RANGE.contains(&seconds) {
        Ok(seconds)
    } else {
        Err(format!("not between {} and {}", RANGE.start(), RANGE.end()))
    }
}

/// Shares of the time: counting system calls, what an engine does, and of the rest first touches.
const COUNTING_SHARE: f64 = 0.1;
const ENGINE_SHARE: f64 = 0.25;
const FIRST_TOUCH_SHARE: f64 = 0.35;

/// Runs the measurement, and says whether it went well. Errors name what failed.
pub fn run(args: &Args) -> io::Result<bool> {
    let json = args.json.as_deref().filter(|path| *path != Path::new("-"));
    if let Some(path) = json {
        check_writable(path).map_err(doing(format!("bench: write {}", path.display())))?;
    }
    interrupt::catch();
    let to_stdout = args.json.is_some() && json.is_none();
    let outcome = measure_and_print(args, to_stdout);
    // Only now, when the files are removed.
    interrupt::finish();
    let (results, summary) = outcome?;
    if to_stdout {
        json::write(&mut io::stdout().lock(), &results, &summary)?;
    } else if let Some(path) = json {
        let mut text = Vec::new();
        json::write(&mut text, &results, &summary)?;
        fs::write(path, text).map_err(doing(format!("bench: write {}", path.display())))?;
    }
    Ok(true)
}

/// Fails now rather than after the measurement. Makes no file.
fn check_writable(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
            Ok(rustix::fs::access(parent.unwrap_or(Path::new(".")), access)?)
        }
        Err(error) => Err(error),
    }
}

fn measure_and_print(args: &Args, to_stderr: bool) -> io::Result<(Results, Vec<String>)> {
    let mut out: Box<dyn Write> =
        if to_stderr { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
    let results = measure(args, &mut out)?;
    writeln!(out)?;
    table::write(&mut out, &results, width(to_stderr))?;
    writeln!(out)?;
    let summary = summary::lines(&results);
    for line in &summary {
        writeln!(out, "{}", super::probe::clean(line))?;
    }
    out.flush()?;
    Ok((results, summary))
}

/// Columns of the terminal that the table goes to; `None` if it goes elsewhere.
fn width(to_stderr: bool) -> Option<u16> {
    let mut table = comfy_table::Table::new();
    if to_stderr {
        table.use_stderr();
    }
    if table.is_tty() { table.width() } else { None }
}

fn measure(args: &Args, out: &mut impl Write) -> io::Result<Results> {
    let start = Instant::now();
    let total = Duration::from_secs_f64(args.seconds);
    // Before this run adds to the load.
    let machine = Machine::here();
    let directory = &args.directory;
    let name = directory.display();
    let failed = || doing(format!("bench {name}"));
    if !fs::metadata(directory).map_err(failed())?.is_dir() {
        return Err(failed()(io::Error::from(io::ErrorKind::NotADirectory)));
    }
    let scratch = Scratch::new(directory, "bench").map_err(failed())?;
    let report = probe(&scratch, directory).map_err(failed())?;
    verdict(out, &report)?;
    let map_sync = report.map_sync == MapSync::Accepted;
    let device = Device::of(&report);
    let mut notes = Vec::new();
    if let Some(why) = device.why_no_bytes() {
        notes.push(format!("device B/op: not available, {why}"));
    }

    let progress = Progress::new(start, total);
    progress.stage("making files");
    let layout = layout(directory);
    let methods = prepare_all(&scratch, layout, map_sync, &device, &mut notes)?;
    let files = engine::available(scratch.path(), &mut notes)?;
    progress.stage("counting calls");
    let budget = total.mul_f64(COUNTING_SHARE);
    let calls = count_calls(&methods, &files, &scratch, budget, &mut notes)?;

    let mut bench = Bench::new(methods, layout, &device);
    let deadline = start + total.mul_f64(1.0 - ENGINE_SHARE);
    let left = deadline.saturating_duration_since(Instant::now());
    progress.stage("first touch");
    bench.run(Phase::FirstTouch, Instant::now() + left.mul_f64(FIRST_TOUCH_SHARE), &progress)?;
    progress.stage("steady state");
    bench.run(Phase::Steady, deadline, &progress)?;
    let tracks = bench.finish();

    progress.stage("log and files");
    let engine = Engine::new(&files, scratch.path(), layout.len(), &device);
    let mut engine = engine.map_err(doing("bench"))?;
    engine.run(start + total, &progress)?;
    let jobs = engine.finish();
    drop(progress);

    notes.extend(results::neighbours(&tracks, &machine));
    Ok(Results {
        directory: directory.to_string_lossy().into_owned(),
        map_sync,
        rows: results::rows(&tracks, &calls, report.durability, &machine),
        jobs: results::job_rows(&jobs, &calls, report.durability, &machine),
        report,
        machine,
        file_len: layout.len(),
        seconds: start.elapsed().as_secs_f64(),
        notes,
    })
}

/// Asks a file in the directory, not the directory: the trial mapping decides.
pub fn probe(scratch: &Scratch, directory: &Path) -> io::Result<Report> {
    use std::os::fd::AsFd;
    const LEN: u64 = 2 << 20;
    let path = scratch.path().join("probe");
    let file = scratch::make_file(&path, LEN)?;
    let report = daxmap::probe::probe_file(file.as_fd(), directory)?;
    fs::remove_file(&path)?;
    Ok(report)
}

fn verdict(out: &mut impl Write, report: &Report) -> io::Result<()> {
    use super::probe::clean;
    writeln!(out, "{}", clean(&report.verdict_sentence()))?;
    for reason in &report.reasons {
        writeln!(out, "  why: {} [{}]", clean(&reason.text), reason.code)?;
        if let Some(remedy) = &reason.remedy {
            writeln!(out, "  remedy: {}", clean(&remedy.to_string()))?;
        }
    }
    out.flush()
}

fn layout(directory: &Path) -> Layout {
    let files = Method::ALL.into_iter().filter(|method| method.needs_file()).count() as u64;
    let available = rustix::fs::statvfs(directory).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
    Layout::to_measure(files, available)
}

/// Prepares every method that is possible here; the rest become notes.
fn prepare_all(
    scratch: &Scratch,
    layout: Layout,
    map_sync: bool,
    device: &Device,
    notes: &mut Vec<String>,
) -> io::Result<Prepared> {
    let mut prepared = Prepared::new();
    for method in Method::ALL {
        if method == Method::CacheLineFlush && map_sync {
            // The region's own row is the real thing.
            continue;
        }
        let mut ready = match prepare(method, scratch.path(), layout.len()) {
            Ok(ready) => ready,
            Err(error) if is_optional(method, &error) => {
                notes.push(format!("{}: not available, {error}", method.label()));
                continue;
            }
            Err(error) => return Err(doing("bench")(error)),
        };
        if let Ready::Flush(_) = ready
            && !measure::sends_flush(&mut ready, device).map_err(doing("bench"))?
        {
            let label = method.label();
            notes.push(format!("{label}: not available, {}", device.why_no_flush()));
            continue;
        }
        prepared.push((method, ready));
    }
    Ok(prepared)
}

/// A method that some filesystems or processors do not have. No space is an error all the same.
fn is_optional(method: Method, error: &io::Error) -> bool {
    matches!(method, Method::CacheLineFlush | Method::StoreMsync) && !scratch::is_final(error)
}

fn count_calls(
    methods: &Prepared,
    files: &[Job],
    scratch: &Scratch,
    budget: Duration,
    notes: &mut Vec<String>,
) -> io::Result<Calls> {
    let names: Vec<Method> = methods.iter().map(|(method, _)| *method).collect();
    let directory = scratch.path().join("counting");
    fs::create_dir(&directory).map_err(doing("bench"))?;
    let calls = match trace::count(&names, files, &directory, budget) {
        Ok(calls) => calls,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
        Err(error) => {
            notes.push(format!("system calls: not counted, {error}"));
            Calls::new()
        }
    };
    fs::remove_dir_all(&directory).map_err(doing("bench"))?;
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn the_time_is_a_number_within_its_range() {
        assert_eq!(seconds("0.1"), Ok(0.1));
        assert_eq!(seconds("86400"), Ok(86400.0));
        for (text, error) in [
            ("0.09", "not between 0.1 and 86400"),
            ("86401", "not between 0.1 and 86400"),
            ("NaN", "not between 0.1 and 86400"),
            ("a while", "not a number"),
        ] {
            assert_eq!(seconds(text), Err(error.to_owned()));
        }
    }

    #[test]
    fn what_cannot_be_written_is_known_beforehand() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        check_writable(&at("new")).unwrap();
        assert!(!at("new").exists(), "it makes no file");
        fs::write(at("old"), "text").unwrap();
        check_writable(&at("old")).unwrap();
        assert_eq!(fs::read(at("old")).unwrap(), b"text");
        // In the directory that the program is in.
        check_writable(Path::new("no file of this name")).unwrap();
        let kind = |name: &str| check_writable(&at(name)).unwrap_err().kind();
        assert_eq!(kind("none/new"), ErrorKind::NotFound);
        assert_eq!(kind("old/new"), ErrorKind::NotADirectory);
        assert_eq!(kind(""), ErrorKind::IsADirectory);
    }

    #[test]
    fn some_methods_may_be_missing_but_no_space_is_an_error() {
        let missing = io::Error::from(rustix::io::Errno::OPNOTSUPP);
        let full = io::Error::from(rustix::io::Errno::NOSPC);
        for method in Method::ALL {
            let optional = [Method::CacheLineFlush, Method::StoreMsync].contains(&method);
            assert_eq!(is_optional(method, &missing), optional, "{method:?}");
            assert!(!is_optional(method, &full), "{method:?}");
        }
    }

    #[test]
    fn the_verdict_comes_with_reasons_and_remedies() {
        let report = daxmap::probe::probe("/dev/shm").unwrap();
        let mut out = Vec::new();
        verdict(&mut out, &report).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with(&format!("{}\n  why: ", report.verdict_sentence())), "{text}");
        assert_eq!(text.matches("\n  why: ").count(), report.reasons.len());
        let remedies = report.reasons.iter().filter(|reason| reason.remedy.is_some()).count();
        assert!(remedies > 0 && text.matches("\n  remedy: ").count() == remedies, "{text}");
    }
}
