//! Tries every mutant of the library's source that cargo-mutants lists.
//!
//! ```text
//! source_mutants [--write FILE] [--missed | --unexplained] [--budget SECONDS] [--longest SECONDS]
//!                [--program NAME]... [--constants] [PART...]
//! ```
//!
//! All of `src`, or those parts: names of folders and files in it, or packages; only theirs are built. Of
//! what lies deeper (`region/adopted`), rows that are noticed now go from the file, and none is added. `--program`:
//! of the test package only this program, beside the library's own tests. `--write` puts the table into a
//! file; rows of other parts and reasons stay there as they are. `--missed`: only what the file
//! says was missed; `--unexplained`: of that, what has no reason there. `--longest`: tests that
//! take longer are left out (15); `--constants`: those alone that the compiler computes, each built
//! by itself; `--budget`: of tests' time for one mutant (40). Ends with 1 if
//! a mutant is missed without a reason. `ci/source-mutants` calls it.

mod alone;
mod hunt;
mod list;
mod report;
mod rewrite;
mod tests;
mod tree;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use alone::Alone;
use hunt::{Fate, Hunt};
use report::Report;
use tests::{Measured, Runner};
use tree::Tree;

/// Test programs that are not for this: they build for themselves, boot guests, or take long.
const LEFT_OUT: [&str; 6] =
    ["guest", "block_", "examples", "instructions", "sim_evidence", "sigkill"];

struct Arguments {
    file: Option<PathBuf>,
    budget: Duration,
    longest: Duration,
    parts: Vec<String>,
    /// Test programs; all where there is none.
    programs: Vec<String>,
    again: Again,
    constants: bool,
}

/// Of what an earlier run left.
#[derive(PartialEq, Eq)]
enum Again {
    All,
    Missed,
    Unexplained,
}

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(count) => {
            eprintln!("{count} are missed, and nobody says why");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("source_mutants: {error}");
            ExitCode::from(2)
        }
    }
}

fn arguments() -> io::Result<Arguments> {
    let mut given = Arguments {
        file: None,
        budget: Duration::from_secs(40),
        longest: Duration::from_secs(15),
        parts: Vec::new(),
        programs: Vec::new(),
        again: Again::All,
        constants: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value =
            || arguments.next().ok_or_else(|| io::Error::other(format!("{argument} of what?")));
        let seconds =
            |text: String| text.parse().map(Duration::from_secs).map_err(io::Error::other);
        match argument.as_str() {
            "--write" => given.file = Some(value()?.into()),
            "--constants" => given.constants = true,
            "--program" => given.programs.push(value()?),
            "--missed" => given.again = Again::Missed,
            "--unexplained" => given.again = Again::Unexplained,
            "--budget" => given.budget = seconds(value()?)?,
            "--longest" => given.longest = seconds(value()?)?,
            _ => given.parts.push(argument),
        }
    }
    Ok(given)
}

fn run() -> io::Result<usize> {
    let given = arguments()?;
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let directory = workspace.join("target/source-mutants");
    let workers = std::thread::available_parallelism()?.get();
    let mut mutants = list::mutants(&workspace)?;
    let mut report = given.file.as_deref().map(Report::read).transpose()?.unwrap_or_default();
    report.forget(&mutants);
    let is_within = |mutant: &list::Mutant, wanted: &String| {
        let source = Path::new("src").join(wanted);
        *wanted == report::part(mutant) || mutant.file.starts_with(source)
    };
    mutants.retain(|mutant| {
        given.parts.is_empty() || given.parts.iter().any(|wanted| is_within(mutant, wanted))
    });
    // A folder or file within a part: its counts are not those of the part.
    let is_narrow = given.parts.iter().any(|wanted| wanted.contains('/'));
    let wanted: Vec<u32> = (1..)
        .zip(&mutants)
        .filter(|(_, mutant)| match given.again {
            Again::All => true,
            Again::Missed => report.is_missed(mutant),
            Again::Unexplained => report.is_unexplained(mutant),
        })
        .map(|(id, _)| id)
        .collect();
    if wanted.is_empty() {
        return Err(io::Error::other(format!("no mutants in {}", given.parts.join(", "))));
    }

    let began = Instant::now();
    let tree = Tree::build(&workspace, &directory, &mutants)?;
    eprintln!(
        "{} of {} mutants are built, {} are refused, {:.0?}",
        tree.contained.len(),
        mutants.len(),
        tree.refused.len(),
        began.elapsed()
    );
    let programs = tree.tests(|name| {
        let is_left_out = LEFT_OUT.iter().any(|prefix| name.starts_with(prefix));
        match given.programs.as_slice() {
            [] => !is_left_out,
            named => named.iter().any(|program| program == name),
        }
    })?;
    tree.build.command_line()?;
    let runner = Runner::new(tree.build.environment(), &directory.join("scratch"))?;
    let kept = directory.join("tests.json");
    let measured = if let Some(measured) = Measured::read(&kept, &programs) {
        measured
    } else {
        let measured = runner.measure(&programs, mutants.len(), given.longest, workers)?;
        std::fs::write(&kept, serde_json::to_vec(&measured)?)?;
        measured
    };
    eprintln!("{} tests, {:.0?}; left out:", measured.tests.len(), began.elapsed());
    for test in &measured.unusable {
        eprintln!("  {test}");
    }

    if given.constants {
        let apart = |id: &u32| !tree.contained.contains(id) && !tree.refused.contains(id);
        let ids: Vec<u32> = wanted.into_iter().filter(apart).collect();
        let alone = Alone::new(&workspace, &directory, &measured.tests, &mutants)?;
        report.update_constants(&mutants, &alone.run(&ids)?);
        if let Some(file) = &given.file {
            report.write(file)?;
        }
        return Ok(report.unexplained());
    }

    let tried: Vec<u32> = wanted.iter().copied().filter(|id| tree.contained.contains(id)).collect();
    let hunt = Hunt::new(&runner, &measured.tests, &mutants, workers);
    let mut fates = hunt.run(&tried, given.budget)?;
    for id in wanted {
        let refused = tree.refused.contains(&id);
        let fate = fates.entry(id).or_insert(if refused { Fate::Refused } else { Fate::Constant });
        if matches!(fate, Fate::Refused | Fate::Constant) {
            println!("{}: {}", mutants[id as usize - 1].name, report::words(fate));
        }
    }
    if given.again == Again::All && !is_narrow {
        report.update(&mutants, &fates);
    } else {
        report.settle(&mutants, &fates);
    }
    if let Some(file) = &given.file {
        report.write(file)?;
    }
    Ok(report.unexplained())
}
