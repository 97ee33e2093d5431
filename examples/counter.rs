//! A counter that loses no count that it has acknowledged, whatever happens to it.
//!
//!     cargo run --release --example counter -- FILE              shows the count
//!     cargo run --release --example counter -- FILE add [N]      adds N, or 1
//!     cargo run --release --example counter -- FILE lines        adds 1 for each line of its input
//!
//! Each new count is printed when it is durable: who has read a number may act on it. A number is
//! printed once, so `lines` hands out unique numbers, too. Killed between the store and the line,
//! the counter has counted something that it did not acknowledge; never the other way round.

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use daxmap::state::{State, StateOptions};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What the file holds; in one byte order, so that it can be taken to another machine.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Counter {
    count: U64,
    /// When it was last changed, in seconds since 1970.
    changed: U64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        [file] => show(file),
        [file, "add"] => add(file, 1),
        [file, "add", number] => number.parse().map_err(Into::into).and_then(|n| add(file, n)),
        [file, "lines"] => lines(file),
        _ => Err("counter FILE [add [N] | lines]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("counter: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show(file: &str) -> Result<(), Box<dyn Error>> {
    // Beside a counter that is at work: it takes no lock and changes nothing.
    let state = StateOptions::<Counter>::new().read_only(true).open(file)?;
    let Counter { count, changed } = state.load();
    println!("{count}");
    eprintln!("changed at {changed} s, {}", state.durability().after_power_cut());
    Ok(())
}

fn add(file: &str, number: u64) -> Result<(), Box<dyn Error>> {
    let state = open(file)?;
    println!("{}", count(&state, number)?);
    state.close()?;
    Ok(())
}

fn lines(file: &str) -> Result<(), Box<dyn Error>> {
    let state = open(file)?;
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        line?;
        writeln!(out, "{}", count(&state, 1)?)?;
        out.flush()?;
    }
    state.close()?;
    Ok(())
}

fn open(file: &str) -> Result<State<Counter>, Box<dyn Error>> {
    let state = State::open_or_create(file, &Counter::default())?;
    if !state.recovery().clean {
        eprintln!("not closed last time; going on from {}", state.load().count);
    }
    Ok(state)
}

/// Adds to the count, durable on return. A count that would pass the largest number is an error,
/// and nothing is changed.
fn count(state: &State<Counter>, number: u64) -> Result<u64, Box<dyn Error>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let count = state.load().count.get().checked_add(number).ok_or("the count is at its end")?;
    state.store(&Counter { count: count.into(), changed: now.into() })?;
    Ok(count)
}
