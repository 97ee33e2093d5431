//! Stores values into a state all the time and prints each when it is durable, for tests that kill
//! it: `storer PATH plain|emulated`.

use std::io::Write;
use std::process::ExitCode;

use daxmap::state::StateOptions;
use daxmap::{Emulation, Options};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "plain"] => Options::new(),
        [_, "emulated"] => Options::new().emulate(Emulation::Adr),
        _ => return ExitCode::from(2),
    };
    match store(&arguments[0], options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storer: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Every word of a value is its number: half of one and half of another would show.
fn store(path: &str, options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let state = StateOptions::new().region(options).open_or_create(path, &[0_u64; 512])?;
    let mut out = std::io::stdout();
    loop {
        let number = state.update(|value| {
            *value = [value[0] + 1; 512];
            value[0]
        })?;
        writeln!(out, "{number}")?;
    }
}
