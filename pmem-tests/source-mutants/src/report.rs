//! The table, and the mutants that nothing notices, with the reason for each.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::hunt::Fate;
use crate::list::Mutant;

/// What stands in the place of a part for those that are built one by one. After all parts.
const CONSTANTS: &str = "what the compiler computes";

/// What a row without a reason says.
const UNEXPLAINED: &str = "**unexplained**";

const PREFACE: &str = "\
# Mutants of the source

`ci/source-mutants` writes this file. Every change of the library, the command and the simulator that
cargo-mutants lists is tried on the tests that reach it: an operator for another, a function that only
returns a value, a match arm less. All that compile are in one build, each behind a number, so that a try
takes as long as a test. Tests that
take longer than a quarter of a minute, or what `--longest` says, are left out, and so are guests, fault
devices, block replay, kills and loom. The primitives that durability stands on are in the
[kill matrix](../MUTANTS.md), with every test.

*Refused* does not compile. *Constant* is what the compiler computes, which no number can change while a
test runs: `ci/source-mutants --constants` builds each of these by itself, and adds a row for them.
*Noticed* is by a test that fails twice or (*hang*) does not end. *Missed* are those that no test failed
with, or that none reached, with the reason; *unexplained* is where a test is missing, or one of those left
out would have to be asked. Rows are of the source as it was when its part was last tried.
";

/// A fate in words.
pub fn words(fate: &Fate) -> String {
    match fate {
        Fate::Killed { by, hangs: false } => format!("noticed by {by}"),
        Fate::Killed { by, hangs: true } => format!("noticed by {by}, which hangs"),
        Fate::Missed { tried, left: 0 } => format!("MISSED by {tried} tests"),
        Fate::Missed { tried, left } => format!("MISSED by {tried} tests; {left} were too long"),
        Fate::NotReached => "MISSED: not reached".to_owned(),
        Fate::Refused => "refused by the compiler".to_owned(),
        Fate::Constant => "constant".to_owned(),
    }
}

/// The part of the source that a mutant is of: a folder or file of `src`, or another package.
pub fn part(mutant: &Mutant) -> String {
    let mut names = mutant.file.iter();
    let name = names.next().filter(|name| *name != "src").or_else(|| names.next());
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// Counts of a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Row {
    mutants: usize,
    refused: usize,
    constant: usize,
    noticed: usize,
    hangs: usize,
    missed: usize,
}

/// A mutant that was missed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Miss {
    file: String,
    what: String,
    line: String,
    reason: String,
}

/// The file, part by part.
#[derive(Debug, Default)]
pub struct Report {
    rows: BTreeMap<String, Row>,
    misses: BTreeMap<String, Vec<Miss>>,
}

impl Miss {
    /// Of one mutant. The same change twice in a line is two of the same.
    fn is(&self, mutant: &Mutant) -> bool {
        let (file, what, line) = mutant.key();
        (&self.file, &self.what, &self.line) == (&file, &what, &quoted(&line))
    }
}

/// A line as the table has it.
fn quoted(line: &str) -> String {
    line.replace('`', "'").trim().to_owned()
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|")
}

/// The cells of a row of a table.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
    Some(inner.split(" | ").map(|cell| cell.replace("\\|", "|")).collect())
}

impl Report {
    /// What an earlier run wrote; nothing if there is no file.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut report = Self::default();
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(report),
            Err(error) => return Err(error),
        };
        let mut section: Option<String> = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("## ") {
                section = Some(name.to_owned());
                continue;
            }
            let Some(cells) = cells(line) else { continue };
            match (&section, cells.as_slice()) {
                (None, [name, numbers @ ..]) => {
                    let numbers: Option<Vec<usize>> =
                        numbers.iter().map(|number| number.parse().ok()).collect();
                    if let Some([mutants, refused, constant, noticed, hangs, missed]) =
                        numbers.as_deref()
                        && name != "all"
                    {
                        let (mutants, refused, constant) = (*mutants, *refused, *constant);
                        let (noticed, hangs, missed) = (*noticed, *hangs, *missed);
                        let row = Row { mutants, refused, constant, noticed, hangs, missed };
                        report.rows.insert(name.clone(), row);
                    }
                }
                (Some(part), [file, what, line, reason]) if file != "file" => {
                    let line = line.trim_matches('`').trim().to_owned();
                    let (file, what, reason) = (file.clone(), what.clone(), reason.clone());
                    let miss = Miss { file, what, line, reason };
                    report.misses.entry(part.clone()).or_default().push(miss);
                }
                _ => {}
            }
        }
        Ok(report)
    }

    /// Replaces the parts that these mutants are of. Reasons stay.
    pub fn update(&mut self, mutants: &[Mutant], fates: &HashMap<u32, Fate>) {
        self.replace(mutants, fates, part);
    }

    /// Replaces what is said of those that were built one by one.
    pub fn update_constants(&mut self, mutants: &[Mutant], fates: &HashMap<u32, Fate>) {
        self.replace(mutants, fates, |_| CONSTANTS.to_owned());
    }

    fn replace(
        &mut self,
        mutants: &[Mutant],
        fates: &HashMap<u32, Fate>,
        part: impl Fn(&Mutant) -> String,
    ) {
        let mut rows: BTreeMap<String, Row> = BTreeMap::new();
        let mut misses: BTreeMap<String, Vec<Miss>> = BTreeMap::new();
        for (id, mutant) in (1..).zip(mutants) {
            let Some(fate) = fates.get(&id) else { continue };
            let part = part(mutant);
            let row = rows.entry(part.clone()).or_default();
            row.mutants += 1;
            match fate {
                Fate::Killed { hangs, .. } => {
                    row.noticed += 1;
                    row.hangs += usize::from(*hangs);
                }
                Fate::Refused => row.refused += 1,
                Fate::Constant => row.constant += 1,
                Fate::Missed { .. } | Fate::NotReached => {
                    row.missed += 1;
                    let mut old = self.misses.get(&part).into_iter().flatten();
                    let old = old.find(|miss| miss.is(mutant));
                    let reason = old.map_or(UNEXPLAINED, |miss| &miss.reason).to_owned();
                    let (file, what, line) = mutant.key();
                    let miss = Miss { file, what, line: quoted(&line), reason };
                    misses.entry(part).or_default().push(miss);
                }
            }
        }
        for (part, row) in rows {
            self.misses.insert(part.clone(), misses.remove(&part).unwrap_or_default());
            self.rows.insert(part, row);
        }
    }

    /// Whether a mutant is one of those that were missed.
    pub fn is_missed(&self, mutant: &Mutant) -> bool {
        let misses = self.misses.get(&part(mutant));
        misses.into_iter().flatten().any(|miss| miss.is(mutant))
    }

    /// Whether a mutant is one of those that were missed and nobody says why.
    pub fn is_unexplained(&self, mutant: &Mutant) -> bool {
        let misses = self.misses.get(&part(mutant)).into_iter().flatten();
        misses.filter(|miss| miss.reason == UNEXPLAINED).any(|miss| miss.is(mutant))
    }

    /// Takes out what was missed and is noticed now. Of changes that read the same, as many stay as
    /// are missed.
    pub fn settle(&mut self, mutants: &[Mutant], fates: &HashMap<u32, Fate>) {
        let tried: Vec<(&Mutant, &Fate)> =
            (1..).zip(mutants).filter_map(|(id, mutant)| Some((mutant, fates.get(&id)?))).collect();
        for (mutant, _) in &tried {
            let part = part(mutant);
            let same = || tried.iter().filter(|(other, _)| other.key() == mutant.key());
            let is_miss = |fate: &Fate| matches!(fate, Fate::Missed { .. } | Fate::NotReached);
            let still = same().filter(|(_, fate)| is_miss(fate)).count();
            let hang = same().any(|(_, fate)| matches!(fate, Fate::Killed { hangs: true, .. }));
            let misses = self.misses.entry(part.clone()).or_default();
            while misses.iter().filter(|miss| miss.is(mutant)).count() > still {
                let Some(index) = misses.iter().rposition(|miss| miss.is(mutant)) else { break };
                misses.remove(index);
                let row = self.rows.entry(part.clone()).or_default();
                row.missed = row.missed.saturating_sub(1);
                row.noticed += 1;
                row.hangs += usize::from(hang);
            }
        }
    }

    /// Forgets what was missed in lines that are no longer there.
    pub fn forget(&mut self, mutants: &[Mutant]) {
        let there: HashSet<(String, String, String)> = mutants
            .iter()
            .map(|mutant| {
                let (file, what, line) = mutant.key();
                (file, what, quoted(&line))
            })
            .collect();
        for (part, misses) in &mut self.misses {
            let before = misses.len();
            misses.retain(|miss| {
                there.contains(&(miss.file.clone(), miss.what.clone(), miss.line.clone()))
            });
            if let Some(row) = self.rows.get_mut(part) {
                let gone = before - misses.len();
                row.missed = row.missed.saturating_sub(gone);
                row.mutants = row.mutants.saturating_sub(gone);
            }
        }
    }

    /// How many were missed without a reason.
    pub fn unexplained(&self) -> usize {
        self.misses.values().flatten().filter(|miss| miss.reason == UNEXPLAINED).count()
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = PREFACE.to_owned();
        text.push_str("\n| part | mutants | refused | constant | noticed | hang | missed |\n");
        text.push_str("|---|---|---|---|---|---|---|\n");
        let mut all = Row::default();
        for (name, row) in &self.rows {
            if name == CONSTANTS {
                // They are in the other rows already.
                all.constant = all.constant.saturating_sub(row.mutants);
            } else {
                all.mutants += row.mutants;
            }
            all.refused += row.refused;
            all.constant += row.constant;
            all.noticed += row.noticed;
            all.hangs += row.hangs;
            all.missed += row.missed;
            line(&mut text, name, row);
        }
        line(&mut text, "all", &all);
        for (part, misses) in self.misses.iter().filter(|(_, misses)| !misses.is_empty()) {
            let _ = write!(text, "\n## {part}\n\n");
            text.push_str("| file | mutant | line | why nothing notices |\n|---|---|---|---|\n");
            for miss in misses {
                let (what, line) = (escape(&miss.what), escape(&miss.line));
                let _ = writeln!(text, "| {} | {what} | `{line}` | {} |", miss.file, miss.reason);
            }
        }
        fs::write(path, text)
    }
}

fn line(text: &mut String, name: &str, row: &Row) {
    let Row { mutants, refused, constant, noticed, hangs, missed } = row;
    let _ = writeln!(
        text,
        "| {name} | {mutants} | {refused} | {constant} | {noticed} | {hangs} | {missed} |"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::{Genre, Place, Span};

    fn mutant(file: &str, what: &str, line: &str) -> Mutant {
        Mutant {
            name: format!("{file}:7:9: {what}"),
            file: file.into(),
            function: None,
            genre: Genre::BinaryOperator,
            replacement: String::new(),
            span: Span { start: Place { line: 7, column: 9 }, end: Place { line: 7, column: 9 } },
            line: line.to_owned(),
        }
    }

    #[test]
    fn reasons_and_other_parts_stay() {
        let directory = std::env::temp_dir().join(format!("report-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("mutants.md");
        let log = [
            mutant("src/log/a.rs", "replace || with && in f", "a || b"),
            mutant("src/log/a.rs", "replace + with - in f", "a + b"),
        ];
        let state = [mutant("src/state.rs", "replace f with ()", "x")];
        let killed = Fate::Killed { by: "t".to_owned(), hangs: true };
        let mut report = Report::read(&file).unwrap();
        report.update(&state, &HashMap::from([(1, Fate::NotReached)]));
        let missed = Fate::Missed { tried: 3, left: 0 };
        report.update(&log, &HashMap::from([(1, missed.clone()), (2, killed.clone())]));
        assert_eq!(report.unexplained(), 2);
        report.write(&file).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replacen(UNEXPLAINED, "equal here", 1)).unwrap();

        let mut again = Report::read(&file).unwrap();
        assert_eq!((again.unexplained(), again.rows.clone()), (1, report.rows.clone()));
        assert_eq!(again.misses["log"][0].reason, "equal here");
        again.update(&log, &HashMap::from([(1, missed), (2, Fate::NotReached)]));
        assert_eq!(again.unexplained(), 2);
        assert_eq!(again.misses["log"][0].reason, "equal here");
        assert_eq!((again.rows["log"].missed, again.rows["log"].noticed), (2, 0));
        let again_killed = killed.clone();
        again.update(&log, &HashMap::from([(1, killed.clone()), (2, killed)]));
        assert_eq!((again.unexplained(), again.rows["log"].hangs), (1, 2));

        again.update(&log, &HashMap::from([(1, Fate::NotReached), (2, Fate::NotReached)]));
        assert!(again.is_missed(&log[0]) && again.is_missed(&log[1]));
        assert!(again.is_unexplained(&log[1]));
        again.settle(&log, &HashMap::from([(1, again_killed), (2, Fate::NotReached)]));
        assert!(!again.is_missed(&log[0]) && again.is_missed(&log[1]));
        assert_eq!((again.rows["log"].missed, again.rows["log"].noticed), (1, 1));

        again.forget(&[log[0].clone(), state[0].clone()]);
        assert!(!again.is_missed(&log[1]) && again.is_missed(&state[0]));
        assert_eq!((again.rows["log"].missed, again.rows["log"].mutants), (0, 1));

        let fates = HashMap::from([(1, Fate::Constant), (2, Fate::NotReached)]);
        again.update(&log, &fates);
        again.update_constants(&log, &HashMap::from([(1, Fate::Refused)]));
        again.write(&file).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let last = text.lines().rfind(|line| line.starts_with("| all |")).unwrap();
        assert_eq!(last, "| all | 3 | 1 | 0 | 0 | 0 | 2 |");
        assert_eq!(Report::read(&file).unwrap().rows, again.rows);
        fs::remove_dir_all(directory).unwrap();
    }
}
