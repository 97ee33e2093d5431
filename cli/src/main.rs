//! The `daxmap` command line: one file per subcommand.

mod badblocks;
mod bench;
mod check;
mod checkpoint;
mod log;
mod probe;
mod state;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a shell shows for a program that a closed pipe ended: 128 + SIGPIPE.
const CLOSED_PIPE: u8 = 141;

/// Durable memory-mapped files: what lies under a path, and what it costs.
#[derive(Debug, Parser)]
#[command(name = "daxmap", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Probe(probe::Args),
    Badblocks(badblocks::Args),
    Bench(bench::Args),
    Check(check::Args),
    Checkpoint(checkpoint::Args),
    Log(log::Args),
    State(state::Args),
    #[command(hide = true)]
    BenchTrace(bench::trace::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Probe(args) => probe::run(&args),
        Command::Badblocks(args) => badblocks::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Check(args) => match check::run(&args) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Command::Checkpoint(args) => checkpoint::run(&args),
        Command::Log(args) => match log::run(&args) {
            Ok(status) => return status,
            Err(error) => Err(error),
        },
        Command::State(args) => state::run(&args),
        Command::BenchTrace(args) => bench::trace::run_child(&args).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(CLOSED_PIPE),
        Err(error) => {
            eprintln!("daxmap: {error}");
            ExitCode::FAILURE
        }
    }
}
