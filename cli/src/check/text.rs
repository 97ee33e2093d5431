//! The answer for people: the verdict first, in 80 columns.

use std::io::{self, Write};

use super::Args;
use super::measure::{Found, Row, Way};
use super::verdict::{Judged, Outcome, Verdict};
use crate::bench::units;
use crate::probe::clean;

const COLUMNS: usize = 80;

/// Writes it.
pub fn write(
    out: &mut impl Write,
    args: &Args,
    found: &Found,
    verdict: &Verdict<'_>,
) -> io::Result<()> {
    let directory = args.directory.display();
    let what = match verdict.outcome() {
        Outcome::Met => "everything is met",
        Outcome::Missed => "missed",
        Outcome::Unknown => "could not be measured",
    };
    paragraph(out, "", &format!("{directory}: {what}"))?;
    let (level, required) = (found.report.durability, args.require);
    let text = format!("durability {level}, {required} is required");
    item(out, verdict.level, &text)?;
    if verdict.level == Outcome::Missed {
        for reason in found.report.reasons_below(required) {
            paragraph(out, "          why: ", &reason.text)?;
            if let Some(remedy) = &reason.remedy {
                paragraph(out, "          remedy: ", &remedy.to_string())?;
            }
        }
    }
    for judged in &verdict.limits {
        item(out, judged.outcome, &limit(judged))?;
    }
    for suspicion in &verdict.suspicions {
        item(out, Outcome::Missed, &suspicion.text())?;
    }
    if let Some(why) = found.times_withheld {
        paragraph(out, "  note: ", &format!("times are no result: {why}"))?;
    }
    writeln!(out)?;
    for sentence in &verdict.good_for {
        paragraph(out, "", sentence)?;
    }
    for under_load in [false, true] {
        let mut rows = found.rows.iter().filter(|row| row.under_load == under_load).peekable();
        if rows.peek().is_some() {
            let title = if under_load { "under load" } else { "alone" };
            writeln!(out)?;
            line(out, title, ["commits", "p50", "p95", "p99", "p99.9", "max"].map(str::to_owned))?;
            for row in rows {
                line(out, &format!("  {}", label(row)), figures(row))?;
            }
        }
    }
    writeln!(out)?;
    let about = format!(
        "Records of {} bytes. fdatasync: pwrite and fdatasync by one thread. log: commits to one \
         daxmap::log. Each thread waits for its commit before the next.",
        args.size
    );
    paragraph(out, "", &about)
}

fn label(row: &Row) -> String {
    match (row.way, row.threads) {
        (Way::ByHand, _) => "fdatasync, 1 thread".to_owned(),
        (Way::Log, 1) => "log, 1 thread".to_owned(),
        (Way::Log, threads) => format!("log, {threads} threads"),
    }
}

fn limit(judged: &Judged<'_>) -> String {
    let statistic = judged.limit.statistic.label();
    let load = if judged.row.under_load { ", under load" } else { "" };
    let seen = match judged.seen_ns {
        Some(ns) => units::time(ns),
        None => format!("unknown out of {} commits", judged.row.tally.updates),
    };
    let limit = units::time(judged.limit.ns);
    format!("{statistic} {seen}, at most {limit}: {}{load}", label(judged.row))
}

fn figures(row: &Row) -> [String; 6] {
    let tally = &row.tally;
    let absent = || "-".to_owned();
    let Some(times) = tally.times() else {
        return ["0".to_owned(), absent(), absent(), absent(), absent(), absent()];
    };
    [
        tally.updates.to_string(),
        units::time(times.p50_ns),
        units::time(tally.quantile(0.95)),
        times.p99_ns.map_or_else(absent, units::time),
        times.p999_ns.map_or_else(absent, units::time),
        units::time(times.max_ns),
    ]
}

fn line(out: &mut impl Write, name: &str, [first, rest @ ..]: [String; 6]) -> io::Result<()> {
    write!(out, "{name:23}{first:>9}")?;
    for value in rest {
        write!(out, "{value:>9}")?;
    }
    writeln!(out)
}

fn item(out: &mut impl Write, outcome: Outcome, text: &str) -> io::Result<()> {
    paragraph(out, &format!("  {:8}", outcome.as_str()), text)
}

/// `text` after `head`, broken between words; the lines after the first begin below its end.
fn paragraph(out: &mut impl Write, head: &str, text: &str) -> io::Result<()> {
    let mut line = head.to_owned();
    let mut is_first = true;
    for word in clean(text).split(' ') {
        if !is_first && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            writeln!(out, "{line}")?;
            line = " ".repeat(head.chars().count());
            is_first = true;
        }
        if !is_first {
            line.push(' ');
        }
        line.push_str(word);
        is_first = false;
    }
    writeln!(out, "{line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_broken_between_words() {
        let mut out = Vec::new();
        let text = "word ".repeat(40) + &"x".repeat(100);
        paragraph(&mut out, "  met  ", &text).expect("written");
        let out = String::from_utf8(out).expect("text");
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[0].starts_with("  met  word word") && lines[0].len() <= COLUMNS);
        assert!(lines[1].starts_with("       word"), "{out}");
        assert!(lines[..lines.len() - 1].iter().all(|line| line.len() <= COLUMNS), "{out}");
        assert_eq!(out.split_whitespace().count(), 1 + 40 + 1, "no word is lost or broken");
    }
}
