//! A file made with `O_TMPFILE` is written, synced, and then given its name: the sync was of a file
//! without names.

use daxmap_sim::filesystem::Model;
use std::io::Result;

use super::{
    Bug, DONE, EVERYWHERE, FILE, NEW, TEMPORARY, content, none_or_new, nothing, write_new,
};

pub(super) const BUG: Bug = Bug {
    name: "O_TMPFILE, linked and not synced again",
    source: "btrfs_log_inode_parent, fs/btrfs/tree-log.c: a file without links is not logged",
    before: nothing,
    tampers: &[],
    buggy,
    fixed,
    check: none_or_new,
    check_fixed: none_or_new,
    shows_on: EVERYWHERE,
};

fn buggy(model: &Model) -> Result<()> {
    let file = model.create_unnamed()?;
    model.write(&file, &content(NEW), 0)?;
    model.sync(&file)?;
    model.link(&file, FILE)?;
    model.mark(DONE);
    Ok(())
}

/// With a temporary name when it is synced, which is right on every filesystem.
fn fixed(model: &Model) -> Result<()> {
    let file = write_new(model, TEMPORARY)?;
    model.sync(&file)?;
    model.rename(TEMPORARY, FILE)?;
    model.sync(&file)?;
    model.sync_directory()?;
    model.mark(DONE);
    Ok(())
}
