//! What the compiler computes: no number can put one of these on, so each is built by itself.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::hunt::Fate;
use crate::list::{Mutant, Place};
use crate::report;
use crate::tests::{End, Runner, Test};
use crate::tree::{self, Build, Program, own_tests};

/// Of the time of tests, for each; and for all of the library's own, which take no longer.
const BUDGET: Duration = Duration::from_secs(60);
const OWN: Duration = Duration::from_secs(150);

/// Programs of tests that are built for one.
const PROGRAMS: usize = 3;

/// A copy of the sources without numbers in it, and where it is built.
pub struct Alone<'a> {
    workspace: &'a Path,
    root: PathBuf,
    build: Build,
    runner: Runner,
    tests: &'a [Test],
    mutants: &'a [Mutant],
}

impl<'a> Alone<'a> {
    pub fn new(
        workspace: &'a Path,
        directory: &Path,
        tests: &'a [Test],
        mutants: &'a [Mutant],
    ) -> io::Result<Self> {
        let root = directory.join("plain");
        tree::copy(workspace, &root)?;
        let build = Build::new(&root, &directory.join("plain-target"));
        let runner = Runner::new(build.environment(), &directory.join("plain-scratch"))?;
        Ok(Self { workspace, root, build, runner, tests, mutants })
    }

    /// Tries these, one after the other.
    pub fn run(&self, ids: &[u32]) -> io::Result<HashMap<u32, Fate>> {
        let sources: HashSet<&Path> =
            self.mutants.iter().map(|mutant| mutant.file.as_path()).collect();
        for file in sources {
            self.write(file, &fs::read_to_string(self.workspace.join(file))?)?;
        }
        let mut fates = HashMap::new();
        for &id in ids {
            let mutant = &self.mutants[id as usize - 1];
            let source = fs::read_to_string(self.workspace.join(&mutant.file))?;
            self.write(&mutant.file, &changed(&source, mutant))?;
            let fate = self.attempt(mutant)?;
            self.write(&mutant.file, &source)?;
            println!("{}: {}", mutant.name, report::words(&fate));
            fates.insert(id, fate);
        }
        Ok(fates)
    }

    fn write(&self, file: &Path, text: &str) -> io::Result<()> {
        let path = self.root.join(file);
        if fs::read_to_string(&path).ok().as_deref() == Some(text) {
            return Ok(());
        }
        fs::write(path, text)
    }

    fn attempt(&self, mutant: &Mutant) -> io::Result<Fate> {
        let Some(programs) = self.build.tests(&own_tests())? else { return Ok(Fate::Refused) };
        let killed = |by: String, end| Fate::Killed { by, hangs: end == End::Hangs };
        for program in &programs {
            let end = self.twice(program, None, OWN)?;
            if end != End::Passed {
                return Ok(killed(format!("{}'s own tests", program.name), end));
            }
        }
        let mut tried = programs.len();
        let near = self.near(mutant);
        let mut left = 0;
        for (name, mut tests) in near {
            let arguments = ["-p", "pmem-tests", "--test", &name].map(str::to_owned);
            let Some(programs) = self.build.tests(&arguments)? else { return Ok(Fate::Refused) };
            if name.ends_with("_cli") {
                // They would build it themselves, in their own time.
                self.build.command_line()?;
            }
            tests.sort_by_key(|test| test.time);
            let mut spent = Duration::ZERO;
            for test in tests {
                // Without optimization it takes some times as long.
                let patience = test.time * 20 + Duration::from_secs(4);
                if spent + test.time > BUDGET / 10 {
                    left += 1;
                    continue;
                }
                spent += test.time;
                tried += 1;
                let end = self.twice(&programs[0], Some(&test.name), patience)?;
                if end != End::Passed {
                    return Ok(killed(format!("{name}: {}", test.name), end));
                }
            }
        }
        Ok(Fate::Missed { tried, left })
    }

    /// A failure that comes and goes is not the mutant's.
    fn twice(&self, program: &Program, test: Option<&str>, patience: Duration) -> io::Result<End> {
        let run = || match test {
            Some(name) => self.runner.run(0, program, name, None, None, patience),
            None => self.runner.run_all(program, patience),
        };
        match run()? {
            End::Failed => run(),
            end => Ok(end),
        }
    }

    /// The programs of which most tests reach something in the mutant's file, and these tests.
    fn near(&self, mutant: &Mutant) -> Vec<(String, Vec<&'a Test>)> {
        let here: HashSet<u32> = (1..)
            .zip(self.mutants)
            .filter(|(_, other)| other.file == mutant.file)
            .map(|(id, _)| id)
            .collect();
        // What the command line itself is not changed in need not be built for it.
        let is_near = |name: &str| {
            name != "daxmap" && (mutant.file.starts_with("cli") || !name.ends_with("_cli"))
        };
        let mut programs: HashMap<String, Vec<&Test>> = HashMap::new();
        for test in self.tests {
            if is_near(&test.program.name) && test.reached.iter().any(|id| here.contains(id)) {
                programs.entry(test.program.name.clone()).or_default().push(test);
            }
        }
        let mut programs: Vec<_> = programs.into_iter().collect();
        programs.sort_by_key(|(name, tests)| (usize::MAX - tests.len(), name.clone()));
        programs.truncate(PROGRAMS);
        programs
    }
}

/// The source with a mutant in the place of what it changes.
fn changed(source: &str, mutant: &Mutant) -> String {
    let from = offset(source, mutant.span.start);
    let to = offset(source, mutant.span.end);
    format!("{}{}{}", &source[..from], mutant.replacement, &source[to..])
}

/// Where a place is, in bytes.
fn offset(source: &str, place: Place) -> usize {
    let before: usize = source.split_inclusive('\n').take(place.line - 1).map(str::len).sum();
    let line = &source[before..];
    before + line.char_indices().nth(place.column - 1).map_or(line.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::{Genre, Span};

    #[test]
    fn a_span_is_replaced() {
        let source = "const A: u64 =\n    \u{e9} << 20;\n";
        let mutant = Mutant {
            name: String::new(),
            file: "src/lib.rs".into(),
            function: None,
            genre: Genre::BinaryOperator,
            replacement: ">>".to_owned(),
            span: Span { start: Place { line: 2, column: 7 }, end: Place { line: 2, column: 9 } },
            line: String::new(),
        };
        assert_eq!(changed(source, &mutant), "const A: u64 =\n    \u{e9} >> 20;\n");
    }
}
