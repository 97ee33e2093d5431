//! All pairs in a file of their own: a log that is written once and closed. So every byte of it has
//! a check value, and one that was cut by a crash is not closed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use daxmap::Options;
use daxmap::log::LogOptions;

use crate::record::{Pairs, apply, encode};
use crate::store::Failure;

const SEGMENT_BYTES: u64 = 1 << 20;
/// What of a segment certainly gets filled: the rest is its header, and where a batch did not fit.
const FILLED_BYTES: usize = 768 << 10;
/// A commit gets no further record from so many bytes on.
const BATCH_BYTES: usize = 64 << 10;

pub fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("snapshot-{number}"))
}

/// Writes the pairs, durable on return.
pub fn write(path: &Path, pairs: &Pairs) -> Result<(), Failure> {
    remove(path)?;
    let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len() + 16).sum();
    let segments = (bytes / FILLED_BYTES) as u64 + 2;
    let region = Options::new().len(16384 + segments * SEGMENT_BYTES);
    let log = LogOptions::new().region(region).segment_bytes(SEGMENT_BYTES).create(path)?;
    let mut writer = log.writer();
    let mut staged = 0;
    for (key, value) in pairs {
        let record = encode(key, Some(value));
        writer.stage(&record)?;
        staged += record.len();
        if staged >= BATCH_BYTES {
            writer.commit()?;
            staged = 0;
        }
    }
    writer.commit()?;
    drop(writer);
    Ok(log.close()?)
}

/// Reads the pairs of a snapshot that was completed.
pub fn read(path: &Path) -> Result<Pairs, Failure> {
    let log = LogOptions::new().read_only(true).open(path)?;
    if !log.recovery().was_closed {
        return Err(Failure::Damaged("the snapshot is not complete"));
    }
    let mut pairs = Pairs::new();
    for record in log.reader(log.released().next())? {
        let (_, bytes) = record?;
        apply(&mut pairs, &bytes).ok_or(Failure::Damaged("a record of the snapshot"))?;
    }
    Ok(pairs)
}

/// Removes a snapshot, if there is one. After a crash it may be there again: nothing refers to it.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
