//! Keeps a program's state in a mapped file, kills the program ten thousand times, and looks
//! after each kill at what the next opener finds. Then: what the kernel's write-back costs
//! meanwhile.
//!
//! ```text
//! cargo run --release --example survive_kill -- kills FILE [--kills N] [--at-most SECONDS]
//!                                     [--through mapping|region] [--rule two-slots|in-place]
//! cargo run --release --example survive_kill -- cost FILE [--seconds N] [--mib N]
//!                                     [--through mapping|region]
//! ```
//!
//! `--through mapping` stores through an ordinary `MAP_SHARED` mapping and syncs nothing: it
//! survives the process, not the power. `--through region` persists every update through a
//! daxmap region: it survives what the region says. `--rule in-place` is the mistake, for
//! comparison: one copy of the state, overwritten.
//!
//! The whole answer is in docs/survive_kill.md.

mod cost;
mod kills;
mod state;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What the command line says.
struct Arguments {
    file: PathBuf,
    kills: u32,
    at_most: Duration,
    seconds: u64,
    mib: u64,
    through: state::Through,
    rule: state::Rule,
    /// Of the process that gets killed: its number, and the file it shares with the killer.
    worker: Option<(u32, PathBuf)>,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("survive_kill: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let command = words.next().ok_or("usage: survive_kill kills|cost FILE [OPTIONS]")?;
    let arguments = parse(words)?;
    match command.as_str() {
        "kills" => kills::run(&arguments),
        "cost" => cost::run(&arguments).map(|()| true),
        "worker" => kills::worker(&arguments),
        other => Err(format!("no command {other}: kills or cost").into()),
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, Box<dyn Error>> {
    let mut arguments = Arguments {
        file: words.next().ok_or("FILE is missing")?.into(),
        kills: 10_000,
        at_most: Duration::MAX,
        seconds: 100,
        mib: 16,
        through: state::Through::Mapping,
        rule: state::Rule::TwoSlots,
        worker: None,
    };
    while let Some(option) = words.next() {
        let value = words.next().ok_or_else(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--kills" => arguments.kills = value.parse()?,
            "--at-most" => arguments.at_most = Duration::from_secs(value.parse()?),
            "--seconds" => arguments.seconds = value.parse()?,
            "--mib" => arguments.mib = value.parse()?,
            "--through" => arguments.through = value.parse()?,
            "--rule" => arguments.rule = value.parse()?,
            "--worker" => {
                let (number, witness) = value.split_once(':').ok_or("NUMBER:FILE")?;
                arguments.worker = Some((number.parse()?, witness.into()));
            }
            other => return Err(format!("no option {other}").into()),
        }
    }
    Ok(arguments)
}
