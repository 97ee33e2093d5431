//! A TCP server that acknowledges only what is durable, its clients, and the proof that it does.
//!
//! ```text
//! cargo run --release --example acknowledge_when_durable -- rounds DIRECTORY [OPTIONS]
//! cargo run --release --example acknowledge_when_durable -- serve LOG ADDRESS
//! cargo run --release --example acknowledge_when_durable -- load ADDRESS [OPTIONS]
//! cargo run --release --example acknowledge_when_durable -- layers DIRECTORY
//!     --rounds N    how often the server is killed (10)
//!     --clients N   connections at once (32)
//!     --window N    messages a client sends before it waits for an acknowledgement (16)
//!     --seconds N   how long `load` goes on (10)
//!     --too-early   the mistake: acknowledges what has arrived
//!     --end-with-parent   the server ends when the process that started it does
//! ```
//!
//! `rounds` starts the server, loads it, kills it with SIGKILL at a random moment, looks for
//! every acknowledged message in the log, and starts it again. `layers` counts what each way of
//! writing sends to the device.
//!
//! The whole answer is in docs/acknowledge_when_durable.md.

mod layers;
mod load;
mod log;
mod rounds;
mod server;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{self, Signal};

/// What the command line says after the command and its places.
struct Arguments {
    rounds: u32,
    clients: u32,
    window: u64,
    seconds: Duration,
    too_early: bool,
    end_with_parent: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("acknowledge_when_durable: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let usage = "usage: acknowledge_when_durable rounds DIRECTORY | serve LOG ADDRESS | load ADDRESS \
                 | layers DIRECTORY";
    let command = words.next().ok_or(usage)?;
    let place = words.next().ok_or(usage)?;
    let address = if command == "serve" { words.next().ok_or(usage)? } else { String::new() };
    let arguments = parse(words)?;
    match command.as_str() {
        "rounds" => rounds::run(&PathBuf::from(place), &arguments),
        "serve" => {
            if arguments.end_with_parent {
                process::set_parent_process_death_signal(Some(Signal::KILL))?;
            }
            server::run(&PathBuf::from(place), &address, arguments.too_early).map(|()| true)
        }
        "layers" => layers::run(&PathBuf::from(place)).map(|()| true),
        "load" => load::measure(place.parse()?, &arguments).map(|()| true),
        other => Err(format!("no command {other}\n{usage}").into()),
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, Box<dyn Error>> {
    let mut arguments = Arguments {
        rounds: 10,
        clients: 32,
        window: 16,
        seconds: Duration::from_secs(10),
        too_early: false,
        end_with_parent: false,
    };
    while let Some(option) = words.next() {
        match option.as_str() {
            "--too-early" => arguments.too_early = true,
            "--end-with-parent" => arguments.end_with_parent = true,
            _ => set(&mut arguments, &option, &words.next().ok_or("a number is missing")?)?,
        }
    }
    Ok(arguments)
}

fn set(arguments: &mut Arguments, option: &str, value: &str) -> Result<(), Box<dyn Error>> {
    let value: u32 = value.parse()?;
    match option {
        "--rounds" => arguments.rounds = value,
        "--clients" => arguments.clients = value,
        "--window" => arguments.window = u64::from(value.max(1)),
        "--seconds" => arguments.seconds = Duration::from_secs(u64::from(value)),
        other => return Err(format!("no option {other}").into()),
    }
    Ok(())
}
