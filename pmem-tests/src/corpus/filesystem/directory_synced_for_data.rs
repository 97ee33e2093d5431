//! A new file is written and only its directory synced, as if that synced what is in it.

use daxmap_sim::filesystem::{Crash, Model, Verdict};
use std::io::Result;

use super::{Bug, DONE, EVERYWHERE, FILE, none_or_new, nothing, write_new};

pub(super) const BUG: Bug = Bug {
    name: "directory synced in place of the file",
    source: "fsync(2): it is about the file that the descriptor refers to",
    before: nothing,
    tampers: &[],
    buggy,
    fixed,
    check,
    check_fixed: check,
    // Even where everything comes in order: the directory was last changed before the data.
    shows_on: EVERYWHERE,
};

/// A file that is not whole is one that was never finished: the program writes it anew. What it
/// has called done must be whole.
fn check(crash: Crash<'_>) -> Verdict {
    if crash.mark == DONE { none_or_new(crash) } else { Ok(()) }
}

fn buggy(model: &Model) -> Result<()> {
    write_new(model, FILE)?;
    model.sync_directory()?;
    model.mark(DONE);
    Ok(())
}

fn fixed(model: &Model) -> Result<()> {
    let file = write_new(model, FILE)?;
    model.sync(&file)?;
    model.sync_directory()?;
    model.mark(DONE);
    Ok(())
}
