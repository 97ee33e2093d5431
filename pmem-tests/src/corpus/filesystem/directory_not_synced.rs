//! A file is replaced in the right order, and the program is done when the rename has returned: the
//! rename is in memory only.

use daxmap_sim::filesystem::Model;
use std::io::Result;

use super::{
    Bug, DONE, EVERYWHERE, FILE, TEMPORARY, old_or_new, put_old, replace_durably, write_new,
};

pub(super) const BUG: Bug = Bug {
    name: "missing directory fsync",
    source: "fsync(2), on directory entries; Pillai et al., OSDI 2014",
    before: put_old,
    tampers: &[],
    buggy,
    fixed: replace_durably,
    check: old_or_new,
    check_fixed: old_or_new,
    shows_on: EVERYWHERE,
};

fn buggy(model: &Model) -> Result<()> {
    let file = write_new(model, TEMPORARY)?;
    model.sync(&file)?;
    model.rename(TEMPORARY, FILE)?;
    model.mark(DONE);
    Ok(())
}
