//! Two names that are published to: what they show, and what they may show after recovery.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use daxmap::publish::{Commit, clean_leftovers};
use daxmap::{ErrorKind as Kind, Options, Region};
use pmem_tests::versions;

use crate::history::How;

const NAMES: [&str; 2] = ["published", "kept"];

/// The version that each name shows.
type State = [Option<u64>; 2];

/// What is known of the names.
#[derive(Clone, Debug)]
pub struct Names {
    /// What they show while the filesystem is mounted.
    now: State,
    /// What they may show after recovery.
    possible: Vec<State>,
    versions: u64,
}

impl Names {
    pub fn new() -> Self {
        Self { now: [None; 2], possible: vec![[None; 2]], versions: 0 }
    }

    /// Publishes one more version. Returns whether a call failed; an error is what was promised
    /// and not kept.
    pub fn publish(&mut self, directory: &Path, how: How, len: u64) -> Result<bool, String> {
        self.versions += 1;
        let [published, kept] = self.now;
        let new = Some(self.versions);
        let between = [published, new];
        let after = if how == How::Exchange { [new, published] } else { [new, kept] };
        let result = commit(directory, how, self.versions, len);
        match &result {
            Ok(()) => {
                self.now = after;
                if how == How::Exchange {
                    self.possible.clear();
                }
                // A name that was not published to is as durable as it was.
                self.possible.iter_mut().for_each(|state| state[0] = new);
                self.possible.push(after);
            }
            Err(error) if matches!(error.kind(), Kind::PublishedNotDurable(_)) => {
                if how == How::Exchange {
                    self.possible.push(between);
                }
                self.possible.push(after);
                self.now = after;
            }
            // Nothing has changed. An exchange took the other name back, which may not be
            // durable.
            Err(_) if how == How::Exchange => self.possible.push(between),
            Err(_) => {}
        }
        match look(directory) {
            Ok(shown) if shown != self.now => Err(format!(
                "after {how:?} returned {result:?}, the names show {shown:?}, not {:?}",
                self.now
            )),
            // A filesystem that has shut down shows nothing any more.
            _ => Ok(result.is_err()),
        }
    }

    /// Runs recovery, and checks what the names show.
    pub fn check(&self, directory: &Path) -> Result<(), String> {
        let cleaned = clean_leftovers(directory).map_err(|error| error.to_string())?;
        if (cleaned.in_use, cleaned.denied) != (0, 0) {
            return Err(format!("leftovers that stay: {cleaned:?}"));
        }
        for entry in fs::read_dir(directory).map_err(|error| error.to_string())? {
            let name = entry.map_err(|error| error.to_string())?.file_name();
            if name.as_encoded_bytes().starts_with(b".daxmap-draft-") {
                return Err(format!("{} was not cleaned away", name.display()));
            }
        }
        let shown = look(directory)?;
        if self.possible.contains(&shown) {
            return Ok(());
        }
        Err(format!("{NAMES:?} show {shown:?}, where {:?} are possible", self.possible))
    }
}

fn commit(directory: &Path, how: How, version: u64, len: u64) -> daxmap::Result<()> {
    let draft = Options::new().len(len).draft(directory.join(NAMES[0]))?;
    let content = versions::content(version, len as usize);
    let middle = content.len() / 2;
    draft.write(middle as u64, &content[middle..])?;
    draft.write_flush(0, &content[..middle])?;
    let how = match how {
        How::Replace => Commit::Replace,
        How::CreateOnly => Commit::CreateOnly,
        How::Exchange => Commit::Exchange(OsStr::new(NAMES[1])),
    };
    draft.commit(how).map(drop)
}

fn look(directory: &Path) -> Result<State, String> {
    let mut state = [None; 2];
    for (shown, name) in state.iter_mut().zip(NAMES) {
        *shown = match fs::read(directory.join(name)) {
            Ok(bytes) => Some(
                versions::version_of(&bytes)
                    .ok_or_else(|| format!("{name} shows no whole version: {}", bytes.len()))?,
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(format!("{name}: {error}")),
        };
    }
    Ok(state)
}
