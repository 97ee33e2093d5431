//! An fsync that failed is called again, and succeeds: the kernel has marked the pages clean, and the
//! medium holds the old data.

use daxmap_sim::filesystem::{Model, Tamper};
use std::io::Result;

use super::{
    Bug, DONE, EVERYWHERE, FILE, NEW, TEMPORARY, content, old_or_new, put_old, replace_durably,
};

pub(super) const BUG: Bug = Bug {
    name: "fsync called again after it failed",
    source: "Rebello et al., USENIX ATC 2020; PostgreSQL's fsync errors of 2018",
    before: put_old,
    // The program makes a file, writes it, and syncs it.
    tampers: &[Tamper::Fail(2, libc::EIO)],
    buggy,
    fixed,
    check: old_or_new,
    check_fixed: old_or_new,
    shows_on: EVERYWHERE,
};

fn buggy(model: &Model) -> Result<()> {
    let file = model.create(TEMPORARY)?;
    model.write(&file, &content(NEW), 0)?;
    while model.sync(&file).is_err() {}
    model.rename(TEMPORARY, FILE)?;
    model.sync_directory()?;
    model.mark(DONE);
    Ok(())
}

/// The file that could not be synced is given up, and another written.
fn fixed(model: &Model) -> Result<()> {
    let file = model.create(TEMPORARY)?;
    model.write(&file, &content(NEW), 0)?;
    if model.sync(&file).is_err() {
        model.unlink(TEMPORARY)?;
        return replace_durably(model);
    }
    model.rename(TEMPORARY, FILE)?;
    model.sync_directory()?;
    model.mark(DONE);
    Ok(())
}
