//! The file, by whichever strategy it was made for.

use super::changes::Changes;
use super::choice::Strategy;
use super::memory::Memory;
use super::record::Checkpoint;
use super::redo::{self, Redo};
use super::settings::Settings;
use super::shadow::{self, Shadow};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::PAGE;
use crate::format::cell::Other;
use crate::format::check::Key;
use crate::region::Region;

/// The state of a file.
#[derive(Debug)]
pub(super) enum File {
    Shadow(Box<Shadow>),
    Redo(Box<Redo>),
}

/// What was found besides the set.
#[derive(Debug)]
pub(super) struct Found {
    /// Nothing needs to be settled.
    pub(super) settled: bool,
    /// Something that is written for each checkpoint does not validate.
    pub(super) cut_short: bool,
    /// The newest number there is, of a damaged checkpoint too.
    pub(super) last: u64,
    /// Kept checkpoints whose tables are damaged.
    pub(super) damaged: Vec<u64>,
    pub(super) bytes_read: u64,
}

/// Bytes of a file in which every checkpoint fits, however much changes between two.
pub(super) fn file_bytes(settings: &Settings) -> u64 {
    match settings.strategy {
        Strategy::Shadow => shadow::file_bytes(settings),
        Strategy::Redo => redo::file_bytes(settings),
    }
}

/// Bytes of the smallest file that can be made.
pub(super) fn least_bytes(settings: &Settings) -> u64 {
    match settings.strategy {
        Strategy::Shadow => shadow::least_bytes(settings),
        Strategy::Redo => redo::file_bytes(settings),
    }
}

/// Bytes behind the header that say which checkpoint is the newest.
pub(super) fn newest_bytes(settings: &Settings) -> u64 {
    match settings.strategy {
        Strategy::Shadow => shadow::root_bytes(settings),
        Strategy::Redo => redo::NOTE_BYTES as u64,
    }
}

/// Writes a set of zeros.
pub(super) fn format(region: &impl Region, settings: &Settings, key: Key) -> Result<()> {
    match settings.strategy {
        Strategy::Shadow => shadow::format(region, settings, key),
        Strategy::Redo => redo::format(region, settings, key),
    }
}

/// Which checkpoints the file keeps, the oldest first. Nothing of them is read.
pub(super) fn records(
    region: &impl Region,
    settings: &Settings,
    key: Key,
) -> Result<Vec<Checkpoint>> {
    match settings.strategy {
        Strategy::Shadow => shadow::records(region, settings, key),
        Strategy::Redo => redo::records(region, settings, key),
    }
}

impl File {
    /// Reads the newest checkpoint, or the one of this number, into memory, which is all zero.
    pub(super) fn load(
        region: &impl Region,
        settings: &Settings,
        key: Key,
        from: Option<u64>,
        memory: &mut Memory,
    ) -> Result<(Self, Found)> {
        match settings.strategy {
            Strategy::Shadow => {
                let (shadow, found) = Shadow::load(region, settings, key, from, memory)?;
                let shadow::Found { other, last, damaged, bytes_read } = found;
                let (settled, cut_short) = (other == Other::Same, other == Other::Invalid);
                let found = Found { settled, cut_short, last, damaged, bytes_read };
                Ok((Self::Shadow(Box::new(shadow)), found))
            }
            Strategy::Redo => {
                let (redo, found) = Redo::load(region, settings, key, memory)?;
                let last = redo.newest().sequence;
                if let Some(sequence) = from.filter(|from| *from != last) {
                    return Err(Error::new(Operation::Open, ErrorKind::NoCheckpoint { sequence }));
                }
                let redo::Found { torn, differed, bytes_read } = found;
                let settled = !torn && !differed;
                let damaged = Vec::new();
                let found = Found { settled, cut_short: torn, last, damaged, bytes_read };
                Ok((Self::Redo(Box::new(redo)), found))
            }
        }
    }

    /// Makes whatever there are two of the same.
    pub(super) fn settle(&mut self, region: &impl Region) -> Result<()> {
        match self {
            Self::Shadow(shadow) => shadow.settle(region),
            Self::Redo(redo) => redo.settle(region),
        }
    }

    pub(super) fn set_keep(&mut self, keep: u32) {
        if let Self::Shadow(shadow) = self {
            shadow.set_keep(keep);
        }
    }

    pub(super) fn list(&self) -> Vec<Checkpoint> {
        match self {
            Self::Shadow(shadow) => shadow.list(),
            Self::Redo(redo) => vec![redo.newest().clone()],
        }
    }

    pub(super) fn newest(&self) -> Option<&Checkpoint> {
        match self {
            Self::Shadow(shadow) => shadow.newest(),
            Self::Redo(redo) => Some(redo.newest()),
        }
    }

    pub(super) fn grown(&mut self, region: &impl Region) {
        if let Self::Shadow(shadow) = self {
            shadow.grown(region);
        }
    }

    /// Bytes of the set that a checkpoint of these changes writes.
    pub(super) fn bytes(&self, changes: &Changes) -> u64 {
        match self {
            Self::Shadow(_) => changes.page_count() * PAGE,
            Self::Redo(redo) => redo.bytes(changes),
        }
    }

    pub(super) fn check_room(&self, changes: &Changes) -> Result<()> {
        match self {
            Self::Shadow(shadow) => shadow.check_room(changes),
            // A record of everything fits.
            Self::Redo(_) => Ok(()),
        }
    }

    pub(super) fn save(
        &mut self,
        region: &impl Region,
        memory: &Memory,
        changes: &Changes,
        checkpoint: &Checkpoint,
    ) -> Result<()> {
        match self {
            Self::Shadow(shadow) => shadow.save(region, memory, changes, checkpoint),
            Self::Redo(redo) => redo.save(region, memory, changes, checkpoint),
        }
    }

    pub(super) fn restore(
        &self,
        region: &impl Region,
        sequence: u64,
        memory: &mut Memory,
        changes: &mut Changes,
    ) -> Result<()> {
        match self {
            Self::Shadow(shadow) => shadow.restore(region, sequence, memory, changes),
            Self::Redo(redo) => {
                self.check_kept(sequence)?;
                redo.restore(region, memory, changes)
            }
        }
    }

    pub(super) fn verify(&self, region: &impl Region, sequence: u64) -> Result<()> {
        match self {
            Self::Shadow(shadow) => shadow.verify(region, sequence),
            Self::Redo(redo) => {
                self.check_kept(sequence)?;
                redo.verify(region)
            }
        }
    }

    fn check_kept(&self, sequence: u64) -> Result<()> {
        if self.newest().is_some_and(|newest| newest.sequence == sequence) {
            return Ok(());
        }
        Err(Error::new(Operation::Restore, ErrorKind::NoCheckpoint { sequence }))
    }
}
