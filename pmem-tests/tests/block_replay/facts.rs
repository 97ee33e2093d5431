//! What a workload was told, when, and what a medium may therefore show.
//!
//! Time is the length of the device's log. A call that began when the log had `began` entries has
//! its effects in later entries only: a medium made of the first `end` entries can show it if
//! `began < end`. A call that returned when the log had `acknowledged` entries has been promised
//! from then on: a medium of a crash at `end >= acknowledged` must hold it.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use daxmap::publish::clean_leftovers;
use daxmap::{Options, Region};
use pmem_tests::random::mix;
use pmem_tests::storing::Structure;
use pmem_tests::versions;

use crate::log::{self, LogFacts};
use crate::stores::{STRUCTURES, StoreFacts};

/// When a call was made, and when it said that what it did is durable, if it did.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub began: usize,
    pub acknowledged: Option<usize>,
}

impl Span {
    pub fn new(began: usize) -> Self {
        Self { began, acknowledged: None }
    }

    pub fn required(self, end: usize) -> bool {
        self.acknowledged.is_some_and(|at| at <= end)
    }

    pub fn possible(self, end: usize) -> bool {
        self.began < end
    }
}

/// Versions of a slot: 0 is zeros, 1 what a file is published with, then one for each write.
const FIRST_WRITE: u64 = 2;

/// A word of a slot: it says which version it is of, and where it belongs.
fn word(slot: usize, version: u64, index: usize) -> [u8; 8] {
    if version == 0 {
        return [0; 8];
    }
    // Never zero, which is version 0.
    (mix((slot as u64) << 40 | version << 20 | index as u64) | 1).to_le_bytes()
}

/// How a file of slots came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `Options::create`: zeros.
    Created,
    /// A draft that was written with version 1 and committed.
    Published,
    /// Written with version 1 by somebody who syncs nothing, and opened by the library. Before
    /// that, nothing is promised.
    Foreign,
}

/// A region's file: slots that are written whole, one writer a slot at a time.
pub struct SlotFile {
    pub name: &'static str,
    pub slot_bytes: usize,
    origin: Origin,
    /// Lengths in slots, and when each came to be; the first is that of the creation.
    lengths: Vec<(usize, Span)>,
    /// Of each slot, its writes.
    writes: Vec<Vec<Span>>,
}

/// A write that is not acknowledged yet.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    slot: usize,
    index: usize,
}

impl SlotFile {
    pub fn new(
        name: &'static str,
        origin: Origin,
        slots: usize,
        slot_bytes: usize,
        span: Span,
    ) -> Self {
        let lengths = vec![(slots, span)];
        Self { name, slot_bytes, origin, lengths, writes: vec![Vec::new(); slots] }
    }

    pub fn slots(&self) -> usize {
        self.writes.len()
    }

    pub fn offset(&self, slot: usize) -> u64 {
        (slot * self.slot_bytes) as u64
    }

    pub fn grown(&mut self, slots: usize, span: Span) {
        self.lengths.push((slots, span));
        self.writes.resize(slots, Vec::new());
    }

    /// The bytes of a version of a slot.
    pub fn bytes(&self, slot: usize, version: u64) -> Vec<u8> {
        (0..self.slot_bytes / 8).flat_map(|index| word(slot, version, index)).collect()
    }

    /// Every slot as it is published.
    pub fn published_bytes(&self) -> Vec<u8> {
        (0..self.slots()).flat_map(|slot| self.bytes(slot, 1)).collect()
    }

    /// The bytes of the write of a slot that comes after `earlier` others.
    pub fn write_bytes(&self, slot: usize, earlier: usize) -> Vec<u8> {
        self.bytes(slot, FIRST_WRITE + earlier as u64)
    }

    pub fn writes_of(&self, slot: usize) -> usize {
        self.writes[slot].len()
    }

    pub fn wrote(&mut self, slot: usize, span: Span) -> Pending {
        self.writes[slot].push(span);
        Pending { slot, index: self.writes[slot].len() - 1 }
    }

    pub fn acknowledged(&mut self, pending: Pending, at: usize) {
        self.writes[pending.slot][pending.index].acknowledged = Some(at);
    }

    /// Versions that a slot may show: the last one that was promised, and any that came later.
    fn versions(&self, slot: usize, end: usize) -> Vec<u64> {
        let writes = self.writes.get(slot).map_or(&[][..], Vec::as_slice);
        let promised = writes.iter().rposition(|write| write.required(end));
        let first = promised.map_or_else(
            || u64::from(self.origin != Origin::Created && slot < self.lengths[0].0),
            |index| FIRST_WRITE + index as u64,
        );
        let later = (promised.map_or(0, |index| index + 1)..writes.len())
            .filter(|&index| writes[index].possible(end))
            .map(|index| FIRST_WRITE + index as u64);
        std::iter::once(first).chain(later).collect()
    }

    fn check(&self, directory: &Path, end: usize) -> Result<(), String> {
        let created = self.lengths[0].1;
        let path = directory.join(self.name);
        if self.origin == Origin::Foreign && !created.required(end) {
            return Ok(());
        }
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let lost = created.required(end);
                return if lost { Err(format!("{} is gone", self.name)) } else { Ok(()) };
            }
            Err(error) => return Err(format!("{}: {error}", self.name)),
            Ok(_) if !created.possible(end) => {
                return Err(format!("{} is there before it was made", self.name));
            }
            Ok(_) => {}
        }
        let region = Options::new().open(&path).map_err(|error| error.to_string())?;
        let mut found = vec![0; region.len() as usize];
        region.read(0, &mut found).map_err(|error| error.to_string())?;
        self.check_contents(&found, end).map_err(|why| format!("{}: {why}", self.name))
    }

    fn check_contents(&self, found: &[u8], end: usize) -> Result<(), String> {
        let bytes = |lengths: &mut dyn Iterator<Item = &(usize, Span)>| {
            lengths.map(|(slots, _)| slots * self.slot_bytes).max().unwrap_or(0)
        };
        // A file that is there was whole when it got its name.
        let least = bytes(&mut self.lengths.iter().filter(|(_, span)| span.required(end)))
            .max(self.lengths[0].0 * self.slot_bytes);
        let most = bytes(&mut self.lengths.iter().filter(|(_, span)| span.possible(end)));
        if !(least..=most).contains(&found.len()) {
            let len = found.len();
            return Err(format!("{len} bytes long, where {least} to {most} are possible"));
        }
        for (slot, found) in found.chunks(self.slot_bytes).enumerate() {
            let versions = self.versions(slot, end);
            for (index, found) in found.chunks(8).enumerate() {
                let is = |&version: &u64| found == &word(slot, version, index)[..found.len()];
                if !versions.iter().any(is) {
                    let shown = (0..FIRST_WRITE + self.writes_of(slot) as u64).find(is);
                    return Err(format!(
                        "word {index} of slot {slot} is of version {shown:?}, where {versions:?} \
                         are possible"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// What the two names that are replaced and exchanged show: versions.
pub type State = [Option<u64>; 2];

/// The names of [`State`].
pub const NAMES: [&str; 2] = ["file", "kept"];

/// Two names that one commit after another changes.
pub struct Names {
    /// Of each commit, the states that it passes through, to the final one.
    commits: Vec<(Vec<State>, Span)>,
}

impl Names {
    pub fn new() -> Self {
        // Nothing was there before the workload.
        Self { commits: vec![(vec![[None; 2]], Span { began: 0, acknowledged: Some(0) })] }
    }

    pub fn now(&self) -> State {
        let (states, _) = self.commits.last().expect("the first one");
        *states.last().expect("a final state")
    }

    pub fn committed(&mut self, states: Vec<State>, span: Span) {
        self.commits.push((states, span));
    }

    fn check(&self, directory: &Path, end: usize) -> Result<(), String> {
        let promised = self.commits.iter().rposition(|(_, span)| span.required(end)).unwrap_or(0);
        let mut allowed = vec![*self.commits[promised].0.last().expect("a final state")];
        for (states, span) in &self.commits[promised + 1..] {
            if span.possible(end) {
                allowed.extend(states);
            }
        }
        let mut shown = [None; 2];
        for (shown, name) in shown.iter_mut().zip(NAMES) {
            *shown = version_under(directory, name)?;
        }
        if allowed.contains(&shown) {
            return Ok(());
        }
        Err(format!("{NAMES:?} show {shown:?}, where {allowed:?} are possible"))
    }
}

/// A file that is published once, under a name of its own.
pub struct Once {
    pub name: String,
    pub version: u64,
    pub span: Span,
}

impl Once {
    fn check(&self, directory: &Path, end: usize) -> Result<(), String> {
        let (name, version) = (&self.name, self.version);
        match version_under(directory, name)? {
            None if self.span.required(end) => Err(format!("{name} is gone")),
            None => Ok(()),
            Some(_) if !self.span.possible(end) => Err(format!("{name} is there too early")),
            Some(found) if found == version => Ok(()),
            Some(found) => Err(format!("{name} shows version {found}, not {version}")),
        }
    }
}

/// The whole version that a name shows; an error if it shows anything else.
fn version_under(directory: &Path, name: &str) -> Result<Option<u64>, String> {
    match fs::read(directory.join(name)) {
        Ok(bytes) => versions::version_of(&bytes)
            .map(Some)
            .ok_or_else(|| format!("{name} shows no whole version, but {} bytes", bytes.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// Everything a workload was told.
pub struct Facts {
    pub files: Vec<SlotFile>,
    pub names: Names,
    pub once: Vec<Once>,
    /// None until there is a log.
    pub log: Option<LogFacts>,
    pub stores: Vec<StoreFacts>,
}

/// The file whose sync makes the filesystem commit: not the library's.
pub const TICK: &str = "tick";

impl Facts {
    pub fn new() -> Self {
        Self {
            files: Vec::new(),
            names: Names::new(),
            once: Vec::new(),
            log: None,
            stores: Vec::new(),
        }
    }

    /// Runs recovery, and checks what a crash at log position `end` left. Returns how many
    /// drafts were cleaned away.
    pub fn check(&self, directory: &Path, end: usize) -> Result<usize, String> {
        let cleaned = clean_leftovers(directory).map_err(|error| error.to_string())?;
        if (cleaned.in_use, cleaned.denied) != (0, 0) {
            return Err(format!("leftovers that stay: {cleaned:?}"));
        }
        self.check_directory(directory)?;
        for file in &self.files {
            file.check(directory, end)?;
        }
        self.names.check(directory, end)?;
        for once in &self.once {
            once.check(directory, end)?;
        }
        self.log.as_ref().map_or(Ok(()), |log| log.check(directory, end))?;
        self.stores.iter().try_for_each(|store| store.check(directory, end))?;
        Ok(cleaned.removed)
    }

    /// There is nothing that has no business there.
    fn check_directory(&self, directory: &Path) -> Result<(), String> {
        let known: BTreeSet<&str> = (self.files.iter().map(|file| file.name))
            .chain(NAMES)
            .chain(self.once.iter().map(|once| once.name.as_str()))
            .chain(STRUCTURES.map(Structure::name))
            .chain([TICK, log::NAME, "lost+found"])
            .collect();
        for entry in fs::read_dir(directory).map_err(|error| error.to_string())? {
            let name = entry.map_err(|error| error.to_string())?.file_name();
            if !name.to_str().is_some_and(|name| known.contains(name)) {
                return Err(format!("{} is in the directory", name.display()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(began: usize, acknowledged: usize) -> Span {
        Span { began, acknowledged: Some(acknowledged) }
    }

    /// One slot of two words, created at 0 to 5, written at 6 to 9 and at 10 without an answer.
    fn file() -> SlotFile {
        let mut file = SlotFile::new("file", Origin::Created, 1, 16, span(0, 5));
        file.wrote(0, span(6, 9));
        file.wrote(0, Span::new(10));
        file
    }

    #[test]
    fn a_slot_shows_what_was_promised_or_later() {
        let file = file();
        let of = |version| file.bytes(0, version);
        for (end, possible) in [(5, vec![0]), (7, vec![0, 2]), (9, vec![2]), (11, vec![2, 3])] {
            for version in 0..=3 {
                let verdict = file.check_contents(&of(version), end);
                assert_eq!(verdict.is_ok(), possible.contains(&version), "{end}, {version}");
            }
        }
        // Words whole, the slot torn.
        let torn = [&of(2)[..8], &of(3)[8..]].concat();
        assert!(file.check_contents(&torn, 11).is_ok());
        let moved = [&of(2)[8..], &of(2)[..8]].concat();
        assert!(file.check_contents(&moved, 11).is_err());
    }

    #[test]
    fn a_length_is_the_promised_one_or_a_later_one() {
        let mut file = file();
        file.grown(2, span(12, 14));
        let bytes = |slots| vec![file.bytes(0, 2), vec![0; 16]][..slots].concat();
        assert!(file.check_contents(&bytes(1), 13).is_ok());
        assert!(file.check_contents(&bytes(2), 13).is_ok());
        assert!(file.check_contents(&bytes(2), 12).is_err());
        assert!(file.check_contents(&bytes(1), 14).is_err());
        assert!(file.check_contents(&bytes(0), 1).is_err(), "a name before the file is whole");
    }

    #[test]
    fn names_show_a_promised_state_or_one_that_came_later() {
        let directory = tempfile::tempdir().unwrap();
        let mut names = Names::new();
        names.committed(vec![[Some(1), None]], span(1, 4));
        names.committed(vec![[Some(1), Some(2)], [Some(2), Some(1)]], span(6, 9));
        let write = |name: &str, version| {
            fs::write(directory.path().join(name), versions::content(version, 99)).unwrap();
        };
        let verdicts = || [1, 2, 4, 7, 9].map(|end| names.check(directory.path(), end).is_ok());
        assert_eq!(verdicts(), [true, true, false, false, false]);
        write("file", 1);
        assert_eq!(verdicts(), [false, true, true, true, false]);
        write("kept", 2);
        assert_eq!(verdicts(), [false, false, false, true, false]);
        write("file", 2);
        write("kept", 1);
        assert_eq!(verdicts(), [false, false, false, true, true]);
        fs::write(directory.path().join("file"), b"half").unwrap();
        assert_eq!(verdicts(), [false; 5]);
    }

    #[test]
    fn a_file_that_was_promised_is_there_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let mut facts = Facts::new();
        facts.once.push(Once { name: "once".to_owned(), version: 7, span: span(3, 5) });
        let check = |end| facts.check(directory.path(), end);
        assert_eq!((check(4), check(5).is_ok()), (Ok(0), false));
        fs::write(directory.path().join("once"), versions::content(7, 50)).unwrap();
        assert_eq!((check(5), check(3).is_ok()), (Ok(0), false));
        fs::write(directory.path().join(".daxmap-draft-0123456789abcdef"), b"").unwrap();
        assert_eq!(check(5), Ok(1));
        fs::write(directory.path().join("other"), b"").unwrap();
        assert!(check(5).is_err());
    }
}
