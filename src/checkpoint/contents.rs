//! What is in a checkpoint file, for tools: sound or not, and changed by nothing.

use std::path::Path;

use super::record::Checkpoint;
use super::working_set::READ_ATTEMPTS;
use super::{Options, Strategy, file, settings};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::header::Kind;

/// What a file holds.
#[derive(Debug)]
#[non_exhaustive]
pub struct Contents {
    /// Bytes of the working set.
    pub bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// How checkpoints reach the file.
    pub strategy: Strategy,
    /// How many checkpoints can be kept besides the newest.
    pub keep: u32,
    /// Whole copies of the header: 1 or 2.
    pub header_copies: u8,
    /// The checkpoints, the oldest first, and of each whether it can be restored: every page of
    /// it was read and compared with its check value.
    pub checkpoints: Vec<(Checkpoint, Result<()>)>,
}

/// Reads a checkpoint file, every checkpoint in it. Needs the memory of one working set. The file
/// may be in use by a writer.
///
/// # Errors
///
/// Those of [`daxmap::Options::open`](crate::Options::open); `WrongFormat`, `NewerFormat`,
/// `TooShort`; `Damaged` if both copies of the header or of the root are.
pub fn contents(path: impl AsRef<Path>) -> Result<Contents> {
    let path = path.as_ref();
    let region = crate::Options::new().read_only(true).open(path)?;
    let read = || {
        let not_one =
            || Error::new(Operation::Open, ErrorKind::WrongFormat(Kind::Checkpoint.name()));
        let found = settings::find(&region)?.ok_or_else(not_one)?;
        let list = || file::records(&region, &found.settings, found.key);
        let mut records = list();
        // A writer may have changed between two reads what they have to agree in.
        let damaged = |error: &Error| matches!(error.kind(), ErrorKind::Damaged(_));
        for _ in 0..READ_ATTEMPTS {
            if records.as_ref().is_err_and(damaged) {
                records = list();
            }
        }
        let checkpoints = records?.into_iter().map(|checkpoint| {
            let options = Options::new(0).read_only(true).from_checkpoint(checkpoint.sequence);
            let sound = super::WorkingSet::open(&region, &options).map(drop);
            (checkpoint, sound)
        });
        Ok(Contents {
            bytes: found.settings.bytes,
            file_bytes: crate::Region::len(&region),
            strategy: found.settings.strategy,
            keep: found.settings.keep,
            header_copies: found.copies,
            checkpoints: checkpoints.collect(),
        })
    };
    read().map_err(|error: Error| error.at(path))
}
