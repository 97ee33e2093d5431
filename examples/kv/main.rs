//! A small durable key-value store: what it has acknowledged, it has after a crash.
//!
//!     cargo run --release --example kv -- DIR put KEY VALUE
//!     cargo run --release --example kv -- DIR get KEY
//!     cargo run --release --example kv -- DIR delete KEY
//!     cargo run --release --example kv -- DIR list
//!     cargo run --release --example kv -- DIR compact
//!     cargo run --release --example kv -- DIR lines      such commands, one on each line of the input
//!
//! All pairs are in memory. A change goes to a log and is then acknowledged: one drain. When the log
//! is full, or on `compact`, the pairs are saved as a snapshot, a state of a few numbers is changed
//! over to it, and the log is released. `store.rs` has the order of these steps, and why a crash
//! between any two of them loses nothing.
//!
//! `get` and `list` look at a store that another process may be writing. With `lines`, a change
//! answers `ok` when it is durable; keys have no spaces there.

mod record;
mod snapshot;
mod store;

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

use store::{Store, view};

const USAGE: &str = "kv DIR (put KEY VALUE | get KEY | delete KEY | list | compact | lines)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        [directory, "get", key] => get(Path::new(directory), key),
        [directory, "list"] => list(Path::new(directory)),
        [directory, "lines"] => lines(Path::new(directory)),
        [directory, ref command @ ..] => once(Path::new(directory), command),
        [] => Err(USAGE.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kv: {error}");
            ExitCode::FAILURE
        }
    }
}

fn get(directory: &Path, key: &str) -> Result<(), Box<dyn Error>> {
    let pairs = view(directory)?;
    let value = pairs.get(key.as_bytes()).ok_or("no such key")?;
    let mut out = io::stdout().lock();
    out.write_all(value)?;
    Ok(out.write_all(b"\n")?)
}

fn list(directory: &Path) -> Result<(), Box<dyn Error>> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for (key, value) in view(directory)? {
        writeln!(out, "{} {}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value))?;
    }
    Ok(out.flush()?)
}

fn once(directory: &Path, command: &[&str]) -> Result<(), Box<dyn Error>> {
    if !matches!(command, ["put", _, _] | ["delete", _] | ["compact"]) {
        return Err(USAGE.into());
    }
    let mut store = Store::open(directory)?;
    let answer = change(&mut store, command)?;
    store.close()?;
    println!("{answer}");
    Ok(())
}

fn lines(directory: &Path) -> Result<(), Box<dyn Error>> {
    let mut store = Store::open(directory)?;
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        let answer = match words[..] {
            ["get", key] => match store.get(key.as_bytes()) {
                Some(value) => String::from_utf8_lossy(value).into_owned(),
                None => "no such key".to_owned(),
            },
            _ => change(&mut store, &words)?.to_owned(),
        };
        // Only now may anybody rely on it.
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(store.close()?)
}

/// Does one change, durable on return, and says what to answer.
fn change(store: &mut Store, command: &[&str]) -> Result<&'static str, Box<dyn Error>> {
    match *command {
        ["put", key, value] => store.put(key.as_bytes(), value.as_bytes())?,
        ["delete", key] if store.delete(key.as_bytes())? => {}
        ["delete", _] => return Ok("no such key"),
        ["compact"] => store.compact()?,
        _ => return Err(USAGE.into()),
    }
    Ok("ok")
}
