//! What is in a checkpoint file, for tools: sound or not, and changed by nothing.

use std::path::Path;

use super::complete::Complete;
use super::record::Checkpoint;
use super::working_set::Patience;
use super::{Options, Strategy, complete, file};
use crate::UnsafeShutdown;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::header::{Header, Kind};
use crate::format::opening;
use crate::primitives::primitive;
use crate::region::Region;

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
    /// Whole copies of the header, with the opening mark behind them: 2 if nothing is damaged.
    pub header_copies: u8,
    /// Whether the memory under the file lost power unsaved since it was last opened for writing.
    pub unsafe_shutdown: UnsafeShutdown,
    /// The checkpoints, the oldest first, and of each whether it can be restored: every page of
    /// it was read and compared with its check value.
    pub checkpoints: Vec<(Checkpoint, Result<()>)>,
}

/// Reads a checkpoint file, every checkpoint in it. Needs the memory of one working set. The file
/// may be in use by a writer: what it replaced meanwhile is left out.
///
/// # Errors
///
/// Those of [`daxmap::Options::open`](crate::Options::open) and of [`contents_of`].
pub fn contents(path: impl AsRef<Path>) -> Result<Contents> {
    let path = path.as_ref();
    let region = crate::Options::new().for_any_length().read_only(true).open(path)?;
    contents_of(&region).map_err(|error| error.at(path))
}

/// [`contents`] of a region. Writes nothing.
///
/// # Errors
///
/// `WrongFormat`, `NewerFormat`, `TooShort`; `Damaged` if both copies of the header or of the root
/// are; `Busy` if a writer replaces the checkpoints faster than they can be read, for a second. Those
/// of the region.
pub fn contents_of(region: &impl Region) -> Result<Contents> {
    let not_one = || Error::new(Operation::Open, ErrorKind::WrongFormat(Kind::Checkpoint.name()));
    let found = complete::find(region)?.ok_or_else(not_one)?;
    let (patience, mut seen) = (Patience::begin(), None);
    let checkpoints = loop {
        match look(region, &found) {
            Ok((checkpoints, false)) => break checkpoints,
            Ok(_) => {}
            // A writer may have changed between two reads what they have to agree in.
            Err(error)
                if primitive!(
                    "checkpoint.contents.looks_again",
                    matches!(error.kind(), ErrorKind::Damaged(_)),
                    false
                ) =>
            {
                let now = Some(complete::newest(region)?);
                if seen == now {
                    return Err(error);
                }
                seen = now;
            }
            Err(error) => return Err(error),
        }
        patience.check()?;
    };
    let mark = opening::look(region, &found.header)?;
    let copies = Header::copies(region)?.map(|copy| copy == Some(found.header));
    Ok(Contents {
        bytes: found.settings.bytes,
        file_bytes: region.len(),
        strategy: found.settings.strategy,
        keep: found.settings.keep,
        header_copies: (0..2).filter(|&copy| copies[copy] && mark.whole[copy]).count() as u8,
        unsafe_shutdown: mark.unsafe_shutdown,
        checkpoints,
    })
}

type Listed = Vec<(Checkpoint, Result<()>)>;

/// What is listed, each read; and whether a writer has replaced one of them meanwhile that could not
/// be read.
fn look(region: &impl Region, found: &Complete) -> Result<(Listed, bool)> {
    let list = || file::records(region, &found.settings, found.key);
    let read = |checkpoint: Checkpoint| {
        let options = Options::new(0).read_only(true).from_checkpoint(checkpoint.sequence);
        let sound = super::WorkingSet::open(region, &options).map(drop);
        (checkpoint, sound)
    };
    let checkpoints: Listed = list()?.into_iter().map(read).collect();
    let mut unsound = checkpoints.iter().filter(|(_, sound)| sound.is_err()).peekable();
    let replaced = unsound.peek().is_some() && {
        let now = list()?;
        unsound.any(|(checkpoint, _)| !now.contains(checkpoint))
    };
    Ok((checkpoints, primitive!("checkpoint.contents.replaced", replaced, false)))
}
