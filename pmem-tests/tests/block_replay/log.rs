//! A log among the files of a workload: what it was told, and what a medium may therefore show.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use daxmap::log::{Log, LogOptions, Lsn};
use daxmap::{AnyRegion, Options};
use pmem_tests::storing::payload;

use crate::facts::Span;

/// The log's file.
pub const NAME: &str = "log";

/// Three segments, so that they are used again soon.
fn options() -> LogOptions {
    LogOptions::new().region(Options::new().len(16384 + 3 * 20480)).segment_bytes(20480)
}

/// Creates it.
pub fn create(directory: &Path) -> daxmap::Result<Log<AnyRegion>> {
    options().create(directory.join(NAME))
}

/// Opens it.
pub fn open(directory: &Path) -> daxmap::Result<Log<AnyRegion>> {
    options().open(directory.join(NAME))
}

/// What was promised of the log: its records have the payloads that follow from their Lsns.
pub struct LogFacts {
    created: Span,
    /// Of each commit, the Lsn of its last record.
    commits: Vec<(u64, Span)>,
    /// Of each release, the Lsn up to which it goes.
    releases: Vec<(u64, Span)>,
}

impl LogFacts {
    pub fn new(created: Span) -> Self {
        Self { created, commits: Vec::new(), releases: Vec::new() }
    }

    pub fn committed(&mut self, last: u64, span: Span) {
        self.commits.push((last, span));
    }

    pub fn released(&mut self, up_to: u64, span: Span) {
        self.releases.push((up_to, span));
    }

    /// Opens the log that a crash at log position `end` left, and reads it.
    pub fn check(&self, directory: &Path, end: usize) -> Result<(), String> {
        match fs::symlink_metadata(directory.join(NAME)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let lost = self.created.required(end);
                return if lost { Err("the log is gone".to_owned()) } else { Ok(()) };
            }
            Err(error) => return Err(format!("the log: {error}")),
            Ok(_) if !self.created.possible(end) => return Err("a log too early".to_owned()),
            Ok(_) => {}
        }
        let log = open(directory).map_err(|error| error.to_string())?;
        let (released, last) = (log.released().get(), log.last().get());
        between("the log's last record", &self.commits, last, end)?;
        between("the log's last released one", &self.releases, released, end)?;
        let mut next = released;
        for record in log.reader(Lsn::ZERO).map_err(|error| error.to_string())? {
            let (lsn, bytes) = record.map_err(|error| error.to_string())?;
            next += 1;
            if lsn.get() != next || bytes != payload(next) {
                return Err(format!("the log: {lsn}, where {next} should be, or another payload"));
            }
        }
        if next == last { Ok(()) } else { Err(format!("the log: read to {next}, not to {last}")) }
    }
}

/// A commit is there whole or not at all, and in its order.
pub fn between(what: &str, done: &[(u64, Span)], found: u64, end: usize) -> Result<(), String> {
    let promised = done.iter().filter(|(_, span)| span.required(end)).map(|(lsn, _)| *lsn);
    let least = promised.max().unwrap_or(0);
    let possible = done.iter().filter(|(_, span)| span.possible(end)).map(|(lsn, _)| *lsn);
    let allowed: Vec<u64> =
        std::iter::once(least).chain(possible.filter(|lsn| *lsn > least)).collect();
    if allowed.contains(&found) {
        return Ok(());
    }
    Err(format!("{what} is {found}, where {allowed:?} are possible"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(began: usize, acknowledged: usize) -> Span {
        Span { began, acknowledged: Some(acknowledged) }
    }

    #[test]
    fn a_log_shows_what_was_promised_or_later() {
        let directory = tempfile::tempdir().unwrap();
        let mut facts = LogFacts::new(span(1, 3));
        facts.committed(2, span(4, 6));
        facts.committed(3, span(7, 9));
        facts.released(1, span(10, 12));
        let verdicts =
            || [2, 3, 5, 6, 8, 9, 12].map(|end| facts.check(directory.path(), end).is_ok());
        assert_eq!(verdicts(), [true, false, false, false, false, false, false]);
        let log = create(directory.path()).unwrap();
        drop(log);
        assert_eq!(verdicts(), [true, true, true, false, false, false, false]);
        let log = open(directory.path()).unwrap();
        log.append_many(&[payload(1), payload(2)]).unwrap();
        drop(log);
        assert_eq!(verdicts(), [false, false, true, true, true, false, false]);
        let log = open(directory.path()).unwrap();
        log.append(&payload(3)).unwrap();
        drop(log);
        assert_eq!(verdicts(), [false, false, false, false, true, true, false]);
        let log = open(directory.path()).unwrap();
        log.release_up_to(Lsn::new(1)).unwrap();
        drop(log);
        assert_eq!(verdicts(), [false, false, false, false, false, false, true]);
    }
}
