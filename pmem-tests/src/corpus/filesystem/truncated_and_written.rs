//! A file is replaced by cutting it to nothing and writing it anew, as `O_TRUNC` does: in between
//! there is neither version.

use daxmap_sim::filesystem::Model;
use std::io::Result;

use super::{Bug, DONE, EVERYWHERE, FILE, NEW, content, old_or_new, put_old, replace_durably};

pub(super) const BUG: Bug = Bug {
    name: "replace by truncating",
    source: "ext4(5), auto_da_alloc: the habit that it was made for",
    before: put_old,
    tampers: &[],
    buggy,
    fixed: replace_durably,
    check: old_or_new,
    check_fixed: old_or_new,
    shows_on: EVERYWHERE,
};

fn buggy(model: &Model) -> Result<()> {
    let file = model.open(FILE)?;
    model.truncate(&file, 0)?;
    model.write(&file, &content(NEW), 0)?;
    model.sync(&file)?;
    model.mark(DONE);
    Ok(())
}
