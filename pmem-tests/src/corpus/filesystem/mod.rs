//! Bugs in how a file is made durable: one file each, found on the modelled filesystem.

mod directory_not_synced;
mod directory_synced_for_data;
mod fsync_retried;
mod marker_before_data;
mod overwritten_in_place;
mod removed_before_named;
mod renamed_before_synced;
mod replaced_without_journal;
mod size_before_data;
mod temporary_reused;
mod truncated_and_written;
mod unnamed_not_synced_again;
mod unnamed_synced_then_linked;

use daxmap_sim::filesystem::{Crash, Image, Model, Profile, Shown, Tamper, Verdict};
use std::io::Result;

use crate::versions;

/// The mark of a crash point after the program has said that it is done.
pub const DONE: u32 = 1;

/// The file that the programs are about, and the versions that it has.
const FILE: &str = "file";
const TEMPORARY: &str = "file.tmp";
const OLD: u64 = 1;
const NEW: u64 = 2;
/// In bytes: three sectors, the last in part.
const LEN: usize = 1200;

/// A program with a bug, and the same without it.
#[derive(Debug)]
pub struct Bug {
    /// What is wrong, in a word or three.
    pub name: &'static str,
    /// Where it was met.
    pub source: &'static str,
    /// What is on the medium when the program begins.
    pub before: fn(&Model) -> Result<()>,
    /// Done to the program's calls.
    pub tampers: &'static [Tamper],
    /// The program, which marks [`DONE`] when it says that it is done.
    pub buggy: fn(&Model) -> Result<()>,
    /// The program without the bug.
    pub fixed: fn(&Model) -> Result<()>,
    /// What the program promises, as its own recovery sees it.
    pub check: fn(Crash<'_>) -> Verdict,
    /// The same of the one without the bug, which may be one of recovery.
    pub check_fixed: fn(Crash<'_>) -> Verdict,
    /// Where a crash shows the bug: on these profiles, and on no others.
    pub shows_on: &'static [Profile],
}

/// All of them.
pub static ALL: [Bug; 13] = [
    renamed_before_synced::BUG,
    directory_not_synced::BUG,
    directory_synced_for_data::BUG,
    marker_before_data::BUG,
    overwritten_in_place::BUG,
    truncated_and_written::BUG,
    temporary_reused::BUG,
    size_before_data::BUG,
    unnamed_not_synced_again::BUG,
    unnamed_synced_then_linked::BUG,
    removed_before_named::BUG,
    replaced_without_journal::BUG,
    fsync_retried::BUG,
];

const EVERYWHERE: &[Profile] = &Profile::ALL;
const WHERE_DATA_IS_NOT_ORDERED: &[Profile] =
    &[Profile::Ext4, Profile::Xfs, Profile::Btrfs, Profile::NothingUntilFsync];

#[allow(clippy::unnecessary_wraps)] // as every `before`
fn nothing(_: &Model) -> Result<()> {
    Ok(())
}

fn content(version: u64) -> Vec<u8> {
    versions::content(version, LEN)
}

/// The old version, under the file's name.
fn put_old(model: &Model) -> Result<()> {
    let file = model.create(FILE)?;
    model.write(&file, &content(OLD), 0)
}

/// A file of this name, with the new version, not synced.
fn write_new(model: &Model, name: &str) -> Result<std::os::fd::OwnedFd> {
    let file = model.create(name)?;
    model.write(&file, &content(NEW), 0)?;
    Ok(file)
}

/// Replaces the file as it should be. The old one keeps a name until the new one's is durable, which
/// a journal makes needless: see `replaced_without_journal`.
fn replace_durably(model: &Model) -> Result<()> {
    let file = write_new(model, TEMPORARY)?;
    model.sync(&file)?;
    model.exchange(TEMPORARY, FILE)?;
    model.sync_directory()?;
    model.unlink(TEMPORARY)?;
    model.mark(DONE);
    Ok(())
}

/// The whole version that a name shows; `Ok(None)` if there is no such name.
fn version(image: &Image, name: &str) -> std::result::Result<Option<u64>, String> {
    match image.shows(name) {
        Shown::Nothing => Ok(None),
        Shown::Broken => Err(format!("{name} leads to no file")),
        Shown::File(file) => versions::version_of(&file.bytes())
            .map(Some)
            .ok_or_else(|| format!("{name} is no whole version, {} bytes", file.len())),
    }
}

/// The old version or the new one, and the new one when the program is done.
fn old_or_new(crash: Crash<'_>) -> Verdict {
    match version(crash.image, FILE)? {
        Some(NEW) => Ok(()),
        Some(OLD) if crash.mark != DONE => Ok(()),
        other => Err(format!("version {other:?}, done: {}", crash.mark == DONE)),
    }
}

/// No file or the new version, and the new version when the program is done.
fn none_or_new(crash: Crash<'_>) -> Verdict {
    match version(crash.image, FILE)? {
        Some(NEW) => Ok(()),
        None if crash.mark != DONE => Ok(()),
        other => Err(format!("version {other:?}, done: {}", crash.mark == DONE)),
    }
}
