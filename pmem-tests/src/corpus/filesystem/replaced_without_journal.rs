//! A file is replaced as the books say: written, synced, renamed over, and the directory synced.
//! Without a journal the link count of the old file is written apart from the directory: if only that
//! has reached the medium, the name leads to a deleted file, and e2fsck(8) takes it away.

use daxmap_sim::filesystem::{Model, Profile};
use std::io::Result;

use super::{Bug, DONE, FILE, TEMPORARY, old_or_new, put_old, replace_durably, write_new};

pub(super) const BUG: Bug = Bug {
    name: "replace by rename, without a journal",
    source: "met here, on ext4 without a journal: EUCLEAN under the name when another file whose \
             inode lies in the same block was synced after the rename",
    before: put_old,
    tampers: &[],
    buggy,
    fixed: replace_durably,
    check: old_or_new,
    check_fixed: old_or_new,
    shows_on: &[Profile::NothingUntilFsync],
};

fn buggy(model: &Model) -> Result<()> {
    let file = write_new(model, TEMPORARY)?;
    model.sync(&file)?;
    model.rename(TEMPORARY, FILE)?;
    model.sync_directory()?;
    model.mark(DONE);
    Ok(())
}
