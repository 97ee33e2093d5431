//! `daxmap log`: the records of a log, whether it is sound, where it is damaged, and how full it is.

mod dump;
mod json;
mod text;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use daxmap::log::{Log, LogOptions, Lsn, Recovery};
use daxmap::{AnyRegion, Error, ErrorKind};

use crate::probe::clean;

/// Look into a file of daxmap::log.
///
/// Changes nothing and takes no lock: the log may be in use, and what is shown is then a moment of
/// it. The exit status is 0 if the log is sound, 1 if it is damaged, and 2 if that could not be told: no
/// such file, no log, an error of reading, or a writer that was faster every time. A commit that a crash
/// has cut is no damage.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the records, each with its Lsn, those behind damage too.
    Dump {
        /// A log.
        file: PathBuf,

        /// The first Lsn to be printed. Default: the oldest that is kept.
        #[arg(long, value_name = "LSN")]
        from: Option<u64>,

        /// The last Lsn to be printed.
        #[arg(long, value_name = "LSN")]
        to: Option<u64>,

        /// At most so many records.
        #[arg(long, value_name = "RECORDS")]
        limit: Option<u64>,

        /// One JSON object a record, each on a line of its own.
        #[arg(long)]
        json: bool,
    },
    /// Read every record, and say whether the log is sound, where it is damaged, and what was
    /// dropped.
    Verify {
        /// A log.
        file: PathBuf,

        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Show sizes and counts: segments, records, Lsns, bytes used and free.
    Stat {
        /// A log.
        file: PathBuf,

        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// What could not be told is neither sound nor damaged.
const UNKNOWN: u8 = 2;

/// The exit status. The error is that of writing.
pub fn run(args: &Args) -> io::Result<ExitCode> {
    let (Command::Dump { file, .. } | Command::Verify { file, .. } | Command::Stat { file, .. }) =
        &args.command;
    let log = match look(file) {
        Ok(log) => log,
        Err(error) => return Ok(refuse(file, &error)),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let sound = is_sound(log.recovery());
    let read = match &args.command {
        Command::Dump { from, to, limit, json, .. } => {
            let what = dump::What { from: *from, to: *to, limit: *limit, json: *json };
            dump::write(&mut out, &log, &what)?
        }
        Command::Verify { json: true, .. } => json::verify(&mut out, file, &log).map(Ok)?,
        Command::Verify { .. } => text::verify(&mut out, file, &log).map(Ok)?,
        Command::Stat { json: true, .. } => json::stat(&mut out, file, &log).map(Ok)?,
        Command::Stat { .. } => text::stat(&mut out, file, &log).map(Ok)?,
    };
    out.flush()?;
    if let Err(error) = read {
        return Ok(refuse(file, &error));
    }
    if !sound && matches!(args.command, Command::Dump { .. }) {
        eprintln!("daxmap: {}: {}", clean(&file.display().to_string()), verdict(log.recovery()));
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says why there is nothing to show.
fn refuse(file: &Path, error: &Error) -> ExitCode {
    let said = match error.path() {
        Some(_) => error.to_string(),
        None => format!("{}: {error}", file.display()),
    };
    eprintln!("daxmap: {}", clean(&said));
    match error.kind() {
        ErrorKind::Damaged(_) | ErrorKind::DamagedRecords { .. } => ExitCode::FAILURE,
        _ => ExitCode::from(UNKNOWN),
    }
}

/// Opens a log as it is.
fn look(file: &Path) -> Result<Log<AnyRegion>, Error> {
    LogOptions::new().read_only(true).accept_damage(true).open(file)
}

/// Nothing that was durable is damaged. Of a closed log, a copy that is not valid is damage too;
/// else it may be one that was being written.
fn is_sound(seen: &Recovery) -> bool {
    is_complete(seen) && (seen.healed.is_empty() || !seen.was_closed)
}

/// No record is known to be lost.
fn is_complete(seen: &Recovery) -> bool {
    seen.damaged.is_empty() && seen.lost_segments.is_empty()
}

/// A sentence about all of it.
fn verdict(seen: &Recovery) -> &'static str {
    match (is_complete(seen), is_sound(seen)) {
        (true, true) if seen.was_closed => "sound: closed, and nothing is missing",
        (true, true) if seen.dropped.is_empty() => "sound, in use or not closed",
        (true, true) => {
            "sound, in use or not closed: behind the last commit there are bytes of none"
        }
        (true, false) => "every record is there, but one of two copies of something is damaged",
        _ => "damaged: records that were durable are not there",
    }
}

/// The Lsns of the records that are there.
fn lsns(seen: &Recovery) -> Option<(Lsn, Lsn)> {
    seen.lsns.as_ref().map(|lsns| (*lsns.start(), *lsns.end()))
}
