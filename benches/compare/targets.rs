//! The targets, and the table that compares them with what was seen.

use super::groups::{
    BARE, DIRECT, DIRECT_COPY, DYN, DYN_COPY, FILL, HAND, MOVE, PMEM_COPY, PMEM_MEMCPY, PMEM_MOVE,
    PMEM_PERSIST, PMEM_SET, PROBE,
};
use super::interleave::{Outcome, Spread};
use super::processors::Figure;

/// One line of the table.
pub struct Row {
    what: String,
    target: String,
    seen: String,
    /// The same as one number, for the table of processors.
    value: String,
    /// `None`: could not be measured here, or does not apply.
    met: Option<bool>,
}

impl Row {
    fn ratio(what: String, outcome: &Outcome, name: &str, reference: &str, most: f64) -> Self {
        let ratio = outcome.ratio(name, reference).expect("both were measured");
        let (own, other) = (median(outcome, name), median(outcome, reference));
        Self {
            what,
            target: format!("<= {most:.2} x"),
            seen: format!("{:.3} x {} ({own} : {other})", ratio.median, reference),
            value: format!("{:.3}", ratio.median),
            met: Some(ratio.median <= most),
        }
    }

    fn missing(what: String, target: &str, why: &str) -> Self {
        Self { what, target: target.into(), seen: why.into(), value: String::new(), met: None }
    }

    pub fn figure(&self) -> Figure {
        let (what, target, value) = (self.what.clone(), self.target.clone(), self.value.clone());
        Figure { what, target, value }
    }

    pub fn missed(&self) -> bool {
        self.met == Some(false)
    }
}

fn median(outcome: &Outcome, name: &str) -> String {
    outcome.spread(name).map_or_else(String::new, |spread| time(spread.median))
}

/// Nanoseconds with a unit a person can read.
pub fn time(ns: f64) -> String {
    match ns {
        ns if ns < 10_000.0 => format!("{ns:.1} ns"),
        ns if ns < 10_000_000.0 => format!("{:.2} us", ns / 1e3),
        ns => format!("{:.2} ms", ns / 1e6),
    }
}

const NO_LIBPMEM: &str = "libpmem is not installed";

pub fn persist(outcome: &Outcome, len: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for name in [DIRECT, DIRECT_COPY] {
        let call = if name == DIRECT { "store + persist" } else { "write_persist" };
        rows.push(Row::ratio(format!("{call}, {len} B, bare asm"), outcome, name, BARE, 1.02));
        let what = format!("{call}, {len} B, libpmem");
        rows.push(match outcome.best(&[PMEM_PERSIST, PMEM_COPY]) {
            Some(best) => Row::ratio(what, outcome, name, best, 1.01),
            None => Row::missing(what, "<= 1.01 x", NO_LIBPMEM),
        });
    }
    rows
}

pub fn durable_write(outcome: &Outcome, len: usize) -> Vec<Row> {
    let size = size(len);
    let mut rows = Vec::new();
    let what = format!("durable write, {size}, libpmem");
    match outcome.best(&[PMEM_COPY, PMEM_MEMCPY]) {
        None => rows.push(Row::missing(what, "<= 1.01 x", NO_LIBPMEM)),
        Some(best) => {
            rows.push(Row::ratio(what, outcome, DIRECT_COPY, best, 1.01));
            if len == 256 {
                let what = format!("durable write, {size}, memcpy_persist");
                rows.push(if best == PMEM_COPY {
                    let why = "its threshold picks the faster way on this machine";
                    Row::missing(what, "<= 0.85 x", why)
                } else {
                    Row::ratio(what, outcome, DIRECT_COPY, PMEM_COPY, 0.85)
                });
            }
        }
    }
    let best = outcome.best(&[HAND]).expect("some loop runs everywhere");
    let what = format!("durable write, {size}, best loop");
    rows.push(Row::ratio(what, outcome, DIRECT_COPY, best, 1.03));
    rows
}

/// What libpmem has a call for, beside it: `name` against the best of `theirs`.
fn beside_libpmem(what: String, outcome: &Outcome, name: &str, theirs: &[&str]) -> Vec<Row> {
    vec![match outcome.best(theirs) {
        Some(best) => Row::ratio(what, outcome, name, best, 1.02),
        None => Row::missing(what, "<= 1.02 x", NO_LIBPMEM),
    }]
}

pub fn odd(outcome: &Outcome, offset: usize, len: usize) -> Vec<Row> {
    let what = format!("durable write, {len} B at {offset}, libpmem");
    beside_libpmem(what, outcome, DIRECT_COPY, &[PMEM_COPY, PMEM_MEMCPY])
}

pub fn overlap(outcome: &Outcome, by: usize, len: usize) -> Vec<Row> {
    let what = format!("move, {} up by {by}, libpmem", size(len));
    beside_libpmem(what, outcome, MOVE, &[PMEM_MOVE])
}

pub fn memset(outcome: &Outcome, len: usize) -> Vec<Row> {
    let what = format!("memset, {}, libpmem", size(len));
    beside_libpmem(what, outcome, FILL, &[PMEM_SET])
}

pub fn trait_object(outcome: &Outcome) -> Vec<Row> {
    [("write", DIRECT, DYN), ("write_persist", DIRECT_COPY, DYN_COPY)]
        .map(|(call, direct, through_trait)| {
            let Spread { median, q1, q3 } =
                outcome.difference(through_trait, direct).expect("both were measured");
            Row {
                what: format!("trait object, {call} of 64 B"),
                target: "<= 3 ns more".into(),
                seen: format!("{median:+.1} ns [{q1:+.1}, {q3:+.1}]"),
                value: format!("{median:+.1} ns"),
                met: Some(median <= 3.0),
            }
        })
        .into()
}

pub fn probe(outcome: &Outcome, path: &str) -> Vec<Row> {
    let spread = outcome.spread(PROBE).expect("measured");
    vec![Row {
        what: format!("probe of {path}"),
        target: "< 2 ms".into(),
        seen: time(spread.median),
        value: time(spread.median),
        met: Some(spread.median < 2e6),
    }]
}

pub fn size(len: usize) -> String {
    match len {
        0..=1023 => format!("{len} B"),
        1024..=1_048_575 => format!("{} KiB", len / 1024),
        _ => format!("{} MiB", len >> 20),
    }
}

/// Prints the table; returns how many targets were missed.
pub fn print(rows: &[Row]) -> usize {
    println!("| what | target | seen | |");
    println!("|---|---|---|---|");
    for row in rows {
        let verdict = match row.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "-",
        };
        println!("| {} | {} | {} | {verdict} |", row.what, row.target, row.seen);
    }
    rows.iter().filter(|row| row.missed()).count()
}
