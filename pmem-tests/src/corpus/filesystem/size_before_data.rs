//! A log makes room for a record first, then writes it, and takes everything up to the end of the
//! file for records: the length can be on the medium before the record.

use daxmap_sim::filesystem::{Crash, Image, Model, SECTOR, Shown, Verdict};
use std::io::Result;

use super::{Bug, DONE, EVERYWHERE, FILE};
use crate::versions;

/// In bytes. A record is a number, a checksum, and what follows from the number.
const RECORD: usize = SECTOR as usize;

pub(super) const BUG: Bug = Bug {
    name: "size durable before data",
    source: "fallocate(2), ftruncate(2): new bytes are zeros; Pillai et al., OSDI 2014, on appends",
    before,
    tampers: &[],
    buggy: append,
    fixed: append,
    check: by_length,
    check_fixed: by_checksum,
    // A length that is set before the data waits for nothing.
    shows_on: EVERYWHERE,
};

fn record(number: u64) -> Vec<u8> {
    versions::content(number, RECORD)
}

fn before(model: &Model) -> Result<()> {
    let log = model.create(FILE)?;
    model.write(&log, &record(1), 0)
}

fn append(model: &Model) -> Result<()> {
    let log = model.open(FILE)?;
    model.allocate(&log, RECORD as u64, RECORD as u64)?;
    model.write(&log, &record(2), RECORD as u64)?;
    model.sync_data(&log)?;
    model.mark(DONE);
    Ok(())
}

/// The pieces of the log, each with the number it has if it is a whole record.
fn pieces(image: &Image) -> std::result::Result<Vec<Option<u64>>, String> {
    let Shown::File(file) = image.shows(FILE) else { return Err("no log".into()) };
    Ok(file.bytes().chunks_exact(RECORD).map(versions::version_of).collect())
}

fn count(crash: Crash<'_>, records: &[Option<u64>]) -> Verdict {
    match records {
        [Some(1), Some(2)] => Ok(()),
        [Some(1)] if crash.mark != DONE => Ok(()),
        other => Err(format!("recovered as records: {other:?}")),
    }
}

/// The buggy recovery.
fn by_length(crash: Crash<'_>) -> Verdict {
    count(crash, &pieces(crash.image)?)
}

/// The log ends at the first piece that is no record.
fn by_checksum(crash: Crash<'_>) -> Verdict {
    let pieces = pieces(crash.image)?;
    let end = pieces.iter().position(Option::is_none).unwrap_or(pieces.len());
    count(crash, &pieces[..end])
}
