//! How a file keeps its checkpoints, and how changes are found: what was chosen, and why.
//!
//! There is no strategy that clones the file (ioctl_ficlone(2)) and overwrites what changed in the
//! clone, where the filesystem shares extents. A clone takes time for each extent of the file, and each
//! overwritten page becomes an extent of its own: of 1 GiB with 1 % changed, it takes 0.66 of a full
//! rewrite on btrfs and 3.0 on xfs at first, 1.9 and 9.0 after sixty checkpoints, where shadow pages take
//! 0.03, and 0.04 to 0.05 in a file whose free pages lie all over (`benches/checkpoint` has the rows).

use std::fmt;

use crate::durability::Granularity;

/// How a checkpoint reaches the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// Changed pages go to free pages of the file, then a root that names them. Each changed page
    /// is written once, and a node of the page table for every 256 or fewer of them. Earlier
    /// checkpoints can be kept.
    Shadow,
    /// Changed lines of 64 bytes go to a redo record, then to their places. Each is written
    /// twice, and nothing besides but check values. Only the newest checkpoint is kept.
    Redo,
}

impl Strategy {
    /// What suits a region in which a flush works in such units, and why.
    pub(super) fn for_region(granularity: Granularity, keep: u32) -> (Self, &'static str) {
        match granularity {
            _ if keep > 0 => (Self::Shadow, "earlier checkpoints are kept"),
            Granularity::Page => {
                (Self::Shadow, "the medium is written in pages: each is written once")
            }
            _ => (Self::Redo, "the medium is written in lines: only those that changed are"),
        }
    }

    /// As it stands in the header.
    pub(super) const fn number(self) -> u64 {
        match self {
            Self::Shadow => 0,
            Self::Redo => 1,
        }
    }

    pub(super) const fn of(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Shadow),
            1 => Some(Self::Redo),
            _ => None,
        }
    }

    /// The name used in reports and JSON: `shadow`, `redo`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Redo => "redo",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shadow => "shadow pages",
            Self::Redo => "redo record",
        })
    }
}

/// How the changes of a working set are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tracking {
    /// Every change came through [`write`](super::WorkingSet::write) or
    /// [`slice_mut`](super::WorkingSet::slice_mut) and was marked there.
    Marked,
    /// Besides, the kernel marks the pages that are stored into through a pointer: a page fault
    /// for the first store to a page after a checkpoint, and a walk over the page table of the
    /// memory, 1 to 3 ns a page, for each checkpoint.
    WriteProtect,
    /// Besides, each checkpoint compares a check value of every page with that of the last time:
    /// its time follows the size of the set.
    Comparison,
}

impl Tracking {
    /// The name used in reports and JSON: `marked`, `write_protect`, `comparison`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Marked => "marked",
            Self::WriteProtect => "write_protect",
            Self::Comparison => "comparison",
        }
    }
}

impl fmt::Display for Tracking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Marked => "marked by the calls that change them",
            Self::WriteProtect => "marked by the kernel (userfaultfd write-protect)",
            Self::Comparison => "found by comparison",
        })
    }
}
