//! The mutants, as `cargo mutants --list --json` names them.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::tree::PACKAGES;

/// What is changed, in cargo-mutants' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum Genre {
    FnValue,
    BinaryOperator,
    UnaryOperator,
    MatchArm,
    MatchArmGuard,
    StructField,
}

/// Lines and columns from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Span {
    pub start: Place,
    /// Behind the last character.
    pub end: Place,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Function {
    pub function_name: String,
}

/// A change of the source.
#[derive(Clone, Debug, Deserialize)]
pub struct Mutant {
    /// With line and column.
    pub name: String,
    pub file: PathBuf,
    pub function: Option<Function>,
    pub genre: Genre,
    pub replacement: String,
    pub span: Span,
    /// The line that it changes, trimmed.
    #[serde(skip)]
    pub line: String,
}

impl Mutant {
    /// What it does, without where.
    pub fn what(&self) -> &str {
        self.name.splitn(4, ':').nth(3).map_or(self.name.as_str(), str::trim)
    }

    pub fn function(&self) -> &str {
        self.function.as_ref().map_or("", |function| &function.function_name)
    }

    /// What stays the same when lines are added above it.
    pub fn key(&self) -> (String, String, String) {
        (self.file.display().to_string(), self.what().to_owned(), self.line.clone())
    }
}

/// All mutants of the packages that users get, in the workspace `root`.
pub fn mutants(root: &Path) -> io::Result<Vec<Mutant>> {
    let output = Command::new("cargo")
        .current_dir(root)
        .args(["mutants", "--list", "--json"])
        .args(PACKAGES)
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("cargo mutants --list: {said}")));
    }
    let mut mutants: Vec<Mutant> = serde_json::from_slice(&output.stdout)?;
    // Tests in files of their own, which it takes for the library.
    let is_test = |name: &OsStr| name == "tests" || name == "tests.rs";
    mutants.retain(|mutant| !mutant.file.iter().any(is_test));
    for mutant in &mut mutants {
        let source = std::fs::read_to_string(root.join(&mutant.file))?;
        let line = source.lines().nth(mutant.span.start.line - 1).unwrap_or_default();
        line.trim().clone_into(&mut mutant.line);
    }
    Ok(mutants)
}
