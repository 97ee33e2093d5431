//! Leaves the library's durability primitives out, one at a time, and sees whether a test notices.
//!
//! ```text
//! kill_matrix [--write FILE] [NAME...]
//! ```
//!
//! All primitives, or those whose names contain one of the words. `--write` puts the table into a
//! file; rows of primitives that were not tried now stay there as they are. Ends with 1 if a
//! primitive is missed by nobody. `ci/mutants` calls it.

mod list;
mod suite;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use list::{PRIMITIVES, Primitive};
use suite::{Programs, Suite, Verdict};

/// What the table says of a survivor.
const NOBODY: &str = "**nobody**";

/// A primitive that was left out, and who noticed.
struct Row {
    primitive: &'static Primitive,
    killed_by: Option<String>,
}

fn main() -> ExitCode {
    match run() {
        Ok(survivors) if survivors.is_empty() => ExitCode::SUCCESS,
        Ok(survivors) => {
            eprintln!("nobody notices: {}", survivors.join(", "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("kill_matrix: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> io::Result<Vec<&'static str>> {
    let mut words = Vec::new();
    let mut file = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--write" => file = arguments.next().map(PathBuf::from),
            _ => words.push(argument),
        }
    }
    let wanted: Vec<&Primitive> = PRIMITIVES
        .iter()
        .filter(|p| words.is_empty() || words.iter().any(|word| p.name.contains(word.as_str())))
        .collect();
    let suites: Vec<Suite> = Suite::ALL
        .into_iter()
        .filter(|suite| wanted.iter().any(|primitive| primitive.suites.contains(suite)))
        .collect();
    // Without dots: tests compare paths with what the kernel calls them.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let target = workspace.join("target/mutants");
    let programs = Programs::build(&suites, &target)?;
    for &suite in &suites {
        let began = Instant::now();
        match programs.run(suite, None, None)? {
            Verdict::Passed => {}
            Verdict::Hangs => return Err(failing(suite, "it hangs")),
            Verdict::Failed(tests) => return Err(failing(suite, &tests.join(", "))),
        }
        println!("{} passes with everything in place, {:.1?}", suite.label(), began.elapsed());
    }
    let mut rows = Vec::new();
    for primitive in wanted {
        let began = Instant::now();
        let killed_by = killer(&programs, primitive)?;
        let by = killed_by.as_deref().unwrap_or("NOBODY");
        println!("{}: {by}, {:.1?}", primitive.name, began.elapsed());
        rows.push(Row { primitive, killed_by });
    }
    let killed = rows.iter().filter(|row| row.killed_by.is_some()).count();
    println!("{killed} of {} primitives are missed by a test", rows.len());
    if let Some(file) = file {
        let before = std::fs::read_to_string(&file).unwrap_or_default();
        std::fs::write(file, table(&rows, &before))?;
    }
    Ok(rows.iter().filter(|r| r.killed_by.is_none()).map(|r| r.primitive.name).collect())
}

fn failing(suite: Suite, what: &str) -> io::Error {
    io::Error::other(format!("{} fails with everything in place: {what}", suite.label()))
}

/// The first test that notices: it fails twice without the primitive, and passes with it. A suite
/// that dies or hangs must do so twice, and pass with everything in place.
fn killer(programs: &Programs, primitive: &Primitive) -> io::Result<Option<String>> {
    for &suite in primitive.suites {
        let first = programs.run(suite, None, Some(primitive.name))?;
        let (test, said) = match &first {
            Verdict::Passed => continue,
            Verdict::Failed(tests) => match tests.first() {
                Some(test) => (Some(test.as_str()), test.as_str()),
                None => (None, "the program dies"),
            },
            Verdict::Hangs => (None, "a thread waits for ever"),
        };
        if let Verdict::Passed = programs.run(suite, test, Some(primitive.name))? {
            println!("{}: {said} failed only once", primitive.name);
            continue;
        }
        match programs.run(suite, test, None)? {
            Verdict::Passed => return Ok(Some(format!("{}: {said}", suite.label()))),
            _ => return Err(failing(suite, said)),
        }
    }
    Ok(None)
}

/// What `MUTANTS.md` says: what was found now, and else what it said before.
fn table(rows: &[Row], before: &str) -> String {
    let mut text = String::from(
        "# The kill matrix\n\n\
         Each durability primitive of the library, left out or displaced by itself in a test build, \
         and a test that fails without it. Written by `ci/mutants`; a primitive that no test misses \
         fails that command. `src/primitives.rs` says how they are marked, \
         `pmem-tests/src/bin/kill_matrix/list.rs` lists them.\n\n\
         What it does not show: that these are all the primitives there ought to be, and that a \
         test which fails without one fails for every way to get it wrong.\n\n\
         | primitive | what it protects | noticed by |\n|---|---|---|\n",
    );
    let mut killed = 0;
    for primitive in PRIMITIVES {
        let now = rows.iter().find(|row| row.primitive.name == primitive.name);
        let by = match now {
            Some(row) => row.killed_by.as_deref().unwrap_or(NOBODY),
            None => said_before(before, primitive.name).unwrap_or("not tried"),
        };
        killed += usize::from(by != NOBODY && by != "not tried");
        let _ = writeln!(text, "| `{}` | {} | {by} |", primitive.name, primitive.protects);
    }
    let _ = writeln!(text, "\n{killed} of {} are noticed.", PRIMITIVES.len());
    text
}

/// Who noticed a primitive according to an earlier table.
fn said_before<'a>(table: &'a str, name: &str) -> Option<&'a str> {
    let start = format!("| `{name}` |");
    let row = table.lines().find(|line| line.starts_with(&start))?;
    row.strip_suffix(" |")?.rsplit(" | ").next()
}
