//! The temporary name is always the same, and is opened without `O_TRUNC`: what a crash left there
//! is longer than the new version, and its end becomes part of it.

use daxmap_sim::filesystem::Model;
use std::io::Result;

use super::{
    Bug, DONE, EVERYWHERE, FILE, LEN, NEW, TEMPORARY, content, old_or_new, put_old, replace_durably,
};

pub(super) const BUG: Bug = Bug {
    name: "temporary name reused",
    source: "open(2): without O_EXCL or O_TRUNC, an existing file is taken as it is",
    before,
    tampers: &[],
    buggy,
    fixed,
    check: old_or_new,
    check_fixed: old_or_new,
    shows_on: EVERYWHERE,
};

/// With what an earlier crash left of a longer version.
fn before(model: &Model) -> Result<()> {
    put_old(model)?;
    let left = model.create(TEMPORARY)?;
    model.write(&left, &vec![7; LEN + 300], 0)
}

fn buggy(model: &Model) -> Result<()> {
    let file = model.open(TEMPORARY)?;
    model.write(&file, &content(NEW), 0)?;
    model.sync(&file)?;
    model.rename(TEMPORARY, FILE)?;
    model.sync_directory()?;
    model.mark(DONE);
    Ok(())
}

fn fixed(model: &Model) -> Result<()> {
    match model.unlink(TEMPORARY) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => replace_durably(model),
    }
}
