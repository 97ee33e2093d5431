//! A file made with `O_TMPFILE` is written, synced, given its name, and the directory synced. That is
//! right with a journal or a log; without one, the medium has a name of an inode that says it has
//! none.

use daxmap_sim::filesystem::{Model, Profile};
use std::io::Result;

use super::{Bug, DONE, FILE, NEW, TEMPORARY, content, none_or_new, nothing};

pub(super) const BUG: Bug = Bug {
    name: "O_TMPFILE, synced without a name",
    source: "__ext4_iget, fs/ext4/inode.c: EUCLEAN for a name of a deleted inode; met without a journal",
    before: nothing,
    tampers: &[],
    buggy,
    fixed,
    check: none_or_new,
    check_fixed: none_or_new,
    shows_on: &[Profile::NothingUntilFsync],
};

fn buggy(model: &Model) -> Result<()> {
    let file = model.create_unnamed()?;
    model.write(&file, &content(NEW), 0)?;
    model.sync(&file)?;
    model.link(&file, FILE)?;
    model.sync_directory()?;
    model.mark(DONE);
    Ok(())
}

fn fixed(model: &Model) -> Result<()> {
    let file = model.create_unnamed()?;
    model.link(&file, TEMPORARY)?;
    model.write(&file, &content(NEW), 0)?;
    model.sync(&file)?;
    model.rename(TEMPORARY, FILE)?;
    model.sync_directory()?;
    model.mark(DONE);
    Ok(())
}
