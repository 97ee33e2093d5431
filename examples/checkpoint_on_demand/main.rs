//! A mapped working set that reaches its file only when asked, all or nothing, however often the
//! kernel would have written it back.
//!
//! ```text
//! cargo run --release --example checkpoint_on_demand -- FILE [--kills N] [--kib N] [--shared]
//! ```
//!
//! Starts a process that moves money between accounts in mapped memory and takes checkpoints
//! now and then, kills it at random points, starts it again, and looks at the file the whole
//! time: whoever opens it, at whatever moment, must find a complete checkpoint, and after a kill
//! the newest one. `--shared` is the mistake, for comparison: the working set is a `MAP_SHARED`
//! mapping of the file, and a checkpoint is an `msync`.
//!
//! The whole answer is in docs/checkpoint_on_demand.md.

mod trial;
mod working_set;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use working_set::Mode;

/// What the command line says.
struct Arguments {
    file: PathBuf,
    kills: u32,
    kib: u64,
    mode: Mode,
    /// This is the process that gets killed.
    worker: bool,
}

fn main() -> ExitCode {
    let result = parse().and_then(|arguments| {
        if arguments.worker { trial::worker(&arguments) } else { trial::run(&arguments) }
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("checkpoint_on_demand: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Result<Arguments, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let file = words.next().ok_or("usage: checkpoint_on_demand FILE [OPTIONS]")?.into();
    let mut arguments =
        Arguments { file, kills: 200, kib: 1024, mode: Mode::Private, worker: false };
    while let Some(option) = words.next() {
        let mut number = || -> Result<u64, Box<dyn Error>> {
            Ok(words.next().ok_or_else(|| format!("{option} needs a number"))?.parse()?)
        };
        match option.as_str() {
            "--kills" => arguments.kills = u32::try_from(number()?)?,
            "--kib" => arguments.kib = number()?.max(8),
            "--shared" => arguments.mode = Mode::Shared,
            "--worker" => arguments.worker = true,
            other => return Err(format!("no option {other}").into()),
        }
    }
    Ok(arguments)
}
