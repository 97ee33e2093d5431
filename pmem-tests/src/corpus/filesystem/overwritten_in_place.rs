//! A file is overwritten where it is: a crash leaves some sectors of either version.

use daxmap_sim::filesystem::Model;
use std::io::Result;

use super::{Bug, DONE, EVERYWHERE, FILE, NEW, content, old_or_new, put_old, replace_durably};

pub(super) const BUG: Bug = Bug {
    name: "overwritten in place",
    source: "Pillai et al., OSDI 2014: no filesystem makes a write of several blocks atomic",
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
    model.write(&file, &content(NEW), 0)?;
    model.sync(&file)?;
    model.mark(DONE);
    Ok(())
}
