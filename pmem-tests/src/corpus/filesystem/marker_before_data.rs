//! Two files: the data, and a marker which says that the data is complete. Both are synced at the
//! end, and nothing says which comes first.

use daxmap_sim::filesystem::{Crash, Model, Verdict};
use std::io::Result;

use super::{Bug, DONE, FILE, NEW, WHERE_DATA_IS_NOT_ORDERED, nothing, version, write_new};

const MARKER: &str = "complete";

pub(super) const BUG: Bug = Bug {
    name: "marker before its data",
    source: "Pillai et al., OSDI 2014: order across files taken for granted",
    before: nothing,
    tampers: &[],
    buggy,
    fixed,
    check,
    check_fixed: check,
    shows_on: WHERE_DATA_IS_NOT_ORDERED,
};

fn check(crash: Crash<'_>) -> Verdict {
    let marked = crash.image.names().any(|name| name == MARKER);
    match version(crash.image, FILE) {
        _ if !marked && crash.mark != DONE => Ok(()),
        Ok(Some(NEW)) if marked => Ok(()),
        found => Err(format!("marked as complete: {marked}, and {found:?}")),
    }
}

fn buggy(model: &Model) -> Result<()> {
    let data = write_new(model, FILE)?;
    let marker = model.create(MARKER)?;
    model.sync(&data)?;
    model.sync(&marker)?;
    model.sync_directory()?;
    model.mark(DONE);
    Ok(())
}

fn fixed(model: &Model) -> Result<()> {
    let data = write_new(model, FILE)?;
    model.sync(&data)?;
    model.sync_directory()?;
    let marker = model.create(MARKER)?;
    model.sync(&marker)?;
    model.sync_directory()?;
    model.mark(DONE);
    Ok(())
}
