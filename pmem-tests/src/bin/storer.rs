//! Stores into a file all the time and prints the number of what was stored when it is durable, for
//! tests that kill it: `storer PATH state|log|shadow|redo|pages plain|emulated`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use daxmap::log::Lsn;
use daxmap::state::StateOptions;
use daxmap::{Emulation, Options};
use pmem_tests::storing::{self, STATE_WORDS, Structure};

type Never = std::convert::Infallible;
type Failed = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, structure, how] = arguments.as_slice() else { return ExitCode::from(2) };
    let region = match how.as_str() {
        "plain" => Options::new(),
        "emulated" => Options::new().emulate(Emulation::Adr),
        _ => return ExitCode::from(2),
    };
    let path = Path::new(path);
    let Err(error) = match Structure::named(structure) {
        Some(Structure::State) => store(path, region),
        Some(Structure::Log) => append(path, region),
        Some(Structure::Pages) => replace(path, region),
        Some(set) => save(path, region, set),
        None => return ExitCode::from(2),
    };
    eprintln!("storer: {error}");
    ExitCode::FAILURE
}

fn store(path: &Path, region: Options) -> Result<Never, Failed> {
    let state = StateOptions::new().region(region).open_or_create(path, &[0; STATE_WORDS])?;
    let mut out = std::io::stdout();
    loop {
        let number: u64 = state.update(|value| {
            *value = [value[0] + 1; STATE_WORDS];
            value[0]
        })?;
        writeln!(out, "{number}")?;
    }
}

fn append(path: &Path, region: Options) -> Result<Never, Failed> {
    let log = storing::log_options(region).open_or_create(path)?;
    let mut out = std::io::stdout();
    loop {
        let lsn = log.append(&storing::payload(log.last().get() + 1))?;
        writeln!(out, "{lsn}")?;
        let released = Lsn::new(storing::released(lsn.get()));
        if released > log.released() {
            log.release_up_to(released)?;
        }
    }
}

fn replace(path: &Path, region: Options) -> Result<Never, Failed> {
    let known = || storing::found(Structure::Pages, path, region.clone());
    let mut number = if path.exists() { known()? } else { 0 };
    let options = storing::page_options().region(region);
    let pages = options.open_or_create(path, storing::PAGES_BYTES)?;
    let mut out = std::io::stdout();
    loop {
        number += 1;
        storing::replace(&pages, number)?;
        writeln!(out, "{number}")?;
    }
}

fn save(path: &Path, region: Options, structure: Structure) -> Result<Never, Failed> {
    let mut set = storing::set_options(region, structure).open_or_create(path)?;
    let mut out = std::io::stdout();
    loop {
        let number = set.list().last().map_or(0, |newest| newest.sequence) + 1;
        for at in storing::changed(number) {
            set.write(at, &number.to_le_bytes())?;
        }
        set.checkpoint()?;
        writeln!(out, "{number}")?;
    }
}
