//! The new version has a name of its own and is durable, but for that name, when the old one is
//! removed: where names are not ordered, a crash can leave neither.

use daxmap_sim::filesystem::{Crash, Model, Profile, Verdict};
use std::io::Result;

use super::{Bug, DONE, FILE, NEW, OLD, put_old, version, write_new};

const NEXT: &str = "file.2";

pub(super) const BUG: Bug = Bug {
    name: "old name removed before the new one is durable",
    source: "Pillai et al., OSDI 2014: directory operations out of order, met on btrfs",
    before: put_old,
    tampers: &[],
    buggy,
    fixed,
    check,
    check_fixed: check,
    shows_on: &[Profile::Btrfs, Profile::NothingUntilFsync],
};

/// The newest version that is whole, under either name.
fn check(crash: Crash<'_>) -> Verdict {
    match (version(crash.image, FILE), version(crash.image, NEXT)) {
        (_, Ok(Some(NEW))) => Ok(()),
        (Ok(Some(OLD)), _) if crash.mark != DONE => Ok(()),
        found => Err(format!("{found:?}")),
    }
}

/// The new one is synced first, so that only the order of names is wrong.
fn buggy(model: &Model) -> Result<()> {
    let file = write_new(model, "file.tmp")?;
    model.sync(&file)?;
    model.rename("file.tmp", NEXT)?;
    model.unlink(FILE)?;
    model.sync_directory()?;
    model.mark(DONE);
    Ok(())
}

fn fixed(model: &Model) -> Result<()> {
    let file = write_new(model, "file.tmp")?;
    model.sync(&file)?;
    model.rename("file.tmp", NEXT)?;
    model.sync_directory()?;
    model.unlink(FILE)?;
    model.sync_directory()?;
    model.mark(DONE);
    Ok(())
}
