//! Tests whose length the environment sets, and whose figures are evidence.

use std::io::Write;

/// A number from the environment.
///
/// # Panics
///
/// If it is none.
#[must_use]
pub fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(number) => number.parse().unwrap_or_else(|_| panic!("{name} is not a number")),
        Err(_) => default,
    }
}

/// Past the test runner's capture: the figures belong to the evidence.
pub fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}
