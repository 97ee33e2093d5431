//! In which order a filesystem makes changes durable: one profile each.

use super::history::{Change, Sync};
use super::image::{Effect, Inode};
use daxmap::model::Quirks;

/// Which order the filesystem keeps. The module's documentation has the rules and their sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Profile {
    /// Everything reaches the medium in the order of the calls.
    Strict,
    /// ext4 with a journal, `data=ordered`, delayed allocation.
    Ext4,
    /// xfs.
    Xfs,
    /// btrfs: no order between changes of different names.
    Btrfs,
    /// No order at all, and names only by a sync of their directory: the least that POSIX
    /// promises, and ext4 without a journal.
    NothingUntilFsync,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Strict, Self::Ext4, Self::Xfs, Self::Btrfs, Self::NothingUntilFsync];

    /// A short name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::NothingUntilFsync => "nothing until fsync",
        }
    }

    /// What the library is told of the filesystem: for the two that are no real one, nothing.
    pub(super) fn quirks(self) -> Quirks {
        match self {
            Self::Ext4 | Self::Xfs => Quirks::JOURNAL,
            Self::Btrfs => Quirks::LOG_OF_FILES,
            Self::Strict | Self::NothingUntilFsync => Quirks::PORTABLE,
        }
    }

    /// The steps in which the medium may take what one call does, each whole or not at all. In
    /// `Strict` they come in this order.
    pub(super) fn steps(self, effects: Vec<Effect>) -> Vec<Vec<Effect>> {
        let data = |effect: &Effect| matches!(effect, Effect::Sector { .. });
        if effects.iter().any(data) {
            return effects.into_iter().map(|effect| vec![effect]).collect();
        }
        let space = matches!(effects.first(), Some(Effect::Allocate { .. }));
        match self {
            // Space first, then the size, in a transaction of its own.
            Self::Xfs if space => effects.into_iter().map(|effect| vec![effect]).collect(),
            // A directory and an inode are two places. The entries of one call stay together.
            Self::NothingUntilFsync => {
                let entry = |effect: &Effect| matches!(effect, Effect::Entry { .. });
                let (entries, rest): (Vec<_>, Vec<_>) = effects.into_iter().partition(entry);
                let rest = rest.into_iter().map(|effect| vec![effect]);
                Some(entries)
                    .filter(|entries| !entries.is_empty())
                    .into_iter()
                    .chain(rest)
                    .collect()
            }
            _ => vec![effects],
        }
    }

    /// Whether metadata goes through one journal, in order.
    pub(super) fn has_journal(self) -> bool {
        matches!(self, Self::Ext4 | Self::Xfs)
    }

    /// Whether a length that a write past the end made waits for the data that it wrote.
    pub(super) fn lengths_follow_data(self) -> bool {
        !matches!(self, Self::NothingUntilFsync)
    }

    /// Blocks of this many bytes, within which a new length does not wait: the block has its place.
    pub(super) fn journals_lengths_within(self) -> Option<u64> {
        (self == Self::Ext4).then_some(4096)
    }

    /// Whether an entry waits for the inode that it leads to.
    pub(super) fn entry_follows_inode(self) -> bool {
        !matches!(self, Self::NothingUntilFsync)
    }

    /// What a sync makes durable by itself, of the pending changes, which come in order: for each,
    /// whether it does. What those wait for becomes durable with them.
    pub(super) fn covers(self, sync: Sync, pending: &[(usize, &Change)]) -> Vec<usize> {
        let mine = |change: &Change| match sync {
            Sync::Directory => change.has_entry(),
            Sync::File(inode) | Sync::Data(inode) => change.touches(inode),
        };
        let choose = |wanted: &dyn Fn(&Change) -> bool| {
            let chosen = pending.iter().filter(|(_, change)| wanted(change));
            chosen.map(|(at, _)| *at).collect::<Vec<_>>()
        };
        match (self, sync) {
            // The order does the rest: up to the last change of the object. An fdatasync on ext4 and
            // xfs waits for the last transaction that is needed to find the data.
            (Self::Ext4 | Self::Xfs, Sync::Data(inode)) => choose(&|c| c.finds_data_of(inode)),
            (Self::NothingUntilFsync, Sync::Data(inode)) => {
                // The inode is written whole, in its last state that was needed for the data.
                let needed = |change: &Change| {
                    change.finds_data_of(inode) && !change.is_data() || change.makes(inode)
                };
                let last = pending.iter().filter(|(_, c)| needed(c)).map(|(at, _)| *at).max();
                let links = |at| last.is_some_and(|last| at <= last);
                let chosen = pending.iter().filter(|(at, change)| {
                    change.finds_data_of(inode)
                        || links(*at) && !change.has_entry() && change.touches(inode)
                });
                chosen.map(|(at, _)| *at).collect()
            }
            (Self::NothingUntilFsync, Sync::File(inode)) => {
                choose(&|change| change.touches(inode) && !change.has_entry())
            }
            _ => choose(&mine),
        }
    }
}

/// Which inode's space, size or data an effect is about.
pub(super) fn data_of(effect: &Effect) -> Option<Inode> {
    match effect {
        Effect::Size { inode, .. }
        | Effect::Allocate { inode, .. }
        | Effect::Sector { inode, .. } => Some(*inode),
        _ => None,
    }
}
