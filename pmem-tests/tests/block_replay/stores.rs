//! A state, two working sets and pages among the files of a workload, each of numbers that are stored one
//! after the other.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use daxmap::checkpoint::WorkingSet;
use daxmap::pages::Pages;
use daxmap::state::State;
use daxmap::{AnyRegion, Options};
use pmem_tests::storing::{self, STATE_WORDS, Structure};

use crate::facts::Span;
use crate::log::between;

/// Those that are not the log.
pub const STRUCTURES: [Structure; 4] =
    [Structure::State, Structure::Shadow, Structure::Redo, Structure::Pages];

/// One that is open.
pub enum Store {
    State(State<[u64; STATE_WORDS]>),
    Set(WorkingSet<AnyRegion>),
    Pages(Pages),
}

fn path(directory: &Path, structure: Structure) -> PathBuf {
    directory.join(structure.name())
}

impl Store {
    /// Creates it, with number 0.
    pub fn create(directory: &Path, structure: Structure) -> daxmap::Result<Self> {
        let path = path(directory, structure);
        if structure == Structure::State {
            return State::create(path, &[0; STATE_WORDS]).map(Self::State);
        }
        if structure == Structure::Pages {
            let pages = storing::page_options().create(path, storing::PAGES_BYTES);
            return pages.map(Self::Pages);
        }
        storing::set_options(Options::new(), structure).create(path).map(Self::Set)
    }

    /// Closes it and opens it again.
    pub fn reopen(self, directory: &Path, structure: Structure) -> daxmap::Result<Self> {
        let path = path(directory, structure);
        match self {
            Self::State(state) => {
                state.close()?;
                State::open(path).map(Self::State)
            }
            Self::Set(set) => {
                set.close()?;
                storing::set_options(Options::new(), structure).open(path).map(Self::Set)
            }
            Self::Pages(pages) => {
                pages.close()?;
                storing::page_options().open(path).map(Self::Pages)
            }
        }
    }

    /// Stores a number, durable on return.
    pub fn store(&mut self, number: u64) -> daxmap::Result<()> {
        match self {
            Self::State(state) => state.store(&[number; STATE_WORDS]),
            Self::Set(set) => storing::save(set, number),
            Self::Pages(pages) => storing::replace(pages, number),
        }
    }
}

/// What was promised of one of them.
pub struct StoreFacts {
    pub structure: Structure,
    created: Span,
    numbers: Vec<(u64, Span)>,
}

impl StoreFacts {
    pub fn new(structure: Structure, created: Span) -> Self {
        Self { structure, created, numbers: Vec::new() }
    }

    /// The number that is stored next.
    pub fn next(&self) -> u64 {
        self.numbers.len() as u64 + 1
    }

    pub fn stored(&mut self, span: Span) {
        self.numbers.push((self.next(), span));
    }

    /// Opens what a crash at log position `end` left.
    pub fn check(&self, directory: &Path, end: usize) -> Result<(), String> {
        let (path, name) = (path(directory, self.structure), self.structure.name());
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let lost = self.created.required(end);
                return if lost { Err(format!("the {name} is gone")) } else { Ok(()) };
            }
            Err(error) => return Err(format!("the {name}: {error}")),
            Ok(_) if !self.created.possible(end) => return Err(format!("a {name} too early")),
            Ok(_) => {}
        }
        let found = storing::looked_for(self.structure, &path)?;
        between(&format!("the {name}'s number"), &self.numbers, found, end)
    }
}
