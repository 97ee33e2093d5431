//! A file is renamed over another, and synced afterwards: in between, the name leads to a file
//! whose data is not there.

use daxmap_sim::filesystem::Model;
use std::io::Result;

use super::{
    Bug, DONE, FILE, TEMPORARY, WHERE_DATA_IS_NOT_ORDERED, old_or_new, put_old, replace_durably,
    write_new,
};

pub(super) const BUG: Bug = Bug {
    name: "rename before fsync",
    source: "Pillai et al., OSDI 2014, section 4: the commonest fault of the programs studied",
    before: put_old,
    tampers: &[],
    buggy,
    fixed: replace_durably,
    check: old_or_new,
    check_fixed: old_or_new,
    shows_on: WHERE_DATA_IS_NOT_ORDERED,
};

fn buggy(model: &Model) -> Result<()> {
    let file = write_new(model, TEMPORARY)?;
    model.rename(TEMPORARY, FILE)?;
    model.sync(&file)?;
    model.sync_directory()?;
    model.mark(DONE);
    Ok(())
}
