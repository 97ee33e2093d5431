//! What filesystems do differently, all in one file.
//!
//! When a file gets its name:
//!
//! | filesystem | name when synced | after the final name | why |
//! |---|---|---|---|
//! | ext4, ext3 with a journal | not needed | directory | link, rename, owner, mode and attributes are records of one journal, in their order; fsync of the directory commits it (`ext4_sync_file`, fs/ext4/fsync.c) |
//! | xfs | not needed | directory | one log; fsync of the directory forces it (`xfs_dir_fsync`, fs/xfs/xfs_file.c) |
//! | btrfs | not needed | file | fsync of a file without links writes its data and no log; fsync of the file once it has its name logs inode and names together, and the names it took from others (`btrfs_log_inode_parent`, fs/btrfs/tree-log.c) |
//! | tmpfs, ramfs | not needed | nothing | nothing outlives the kernel |
//! | ext4 without a journal, ext2, every other | needed | directory | without a journal, the inode on the medium goes on saying that it has no links, and its name leads to what looks like a deleted file: EUCLEAN (`__ext4_iget`, fs/ext4/inode.c). Of others it is not known, and this is the order that POSIX programs rely on |
//!
//! Without a journal, nothing orders a name and the link count of the file that it leads to either:
//! each is written when its block is, and fsync of any file writes all inodes of its block. A rename
//! over a file lowers that file's count to none; met alone on the medium, it leaves the name on a
//! deleted file. So there the file that is replaced gets the temporary name in exchange, and loses it
//! when the directory is synced; by a second link where there is no RENAME_EXCHANGE that can be relied
//! on; and where there are no links either, it is a rename.
//!
//! `pmem-tests/tests/sim_filesystem/` shows every crash state of a model of each;
//! `pmem-tests/tests/publish_cut.rs` cuts the power of each after every system call, and takes
//! each sync away in turn.
//!
//! When a page is overwritten: see [`overwrites_in_place`].

use std::path::Path;

use crate::probe::{self, Report};

/// What the way from data to a durable name takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // independent facts
pub struct Quirks {
    /// Nothing orders an inode and the names that lead to it, or it is not known: the file has a
    /// temporary name from the beginning, so that it has one when it is synced; and a file that it
    /// replaces has one until the directory is synced.
    pub(crate) no_journal: bool,
    /// fsync of the file once it has its final name.
    pub(crate) sync_file: bool,
    /// fsync of the directory, after that.
    pub(crate) sync_directory: bool,
    /// Each change of an inode that was looked at moves its times (multigrain timestamps,
    /// `FS_MGTIME`; Documentation/filesystems/multigrain-ts.rst), so that equal times mean no change.
    pub(crate) exact_times: bool,
}

impl Quirks {
    const NOTHING_LASTS: Self =
        Self { no_journal: false, sync_file: false, sync_directory: false, exact_times: false };
    /// One journal orders all metadata (ext4, xfs): the directory is synced.
    pub const JOURNAL: Self = Self { sync_directory: true, ..Self::NOTHING_LASTS };
    /// A sync of a file makes its names durable (btrfs).
    pub const LOG_OF_FILES: Self = Self { sync_file: true, ..Self::NOTHING_LASTS };
    /// Nothing is known: every step that POSIX asks for.
    pub const PORTABLE: Self =
        Self { no_journal: true, sync_directory: true, ..Self::NOTHING_LASTS };

    /// Those of the filesystem that the report is about.
    pub(crate) fn of(report: &Report) -> Self {
        Self { exact_times: has_exact_times(report), ..Self::of_names(report) }
    }

    fn of_names(report: &Report) -> Self {
        match report.filesystem.as_deref() {
            Some("ext4" | "ext3") if has_journal(report) => Self::JOURNAL,
            Some("xfs") => Self::JOURNAL,
            Some("btrfs") => Self::LOG_OF_FILES,
            Some("tmpfs" | "ramfs") => Self::NOTHING_LASTS,
            _ => Self::PORTABLE,
        }
    }
}

/// Linux 6.13: ext4, xfs, btrfs and tmpfs set `FS_MGTIME`.
fn has_exact_times(report: &Report) -> bool {
    const SINCE: (u32, u32) = (6, 13);
    let known = matches!(report.filesystem.as_deref(), Some("ext4" | "xfs" | "btrfs" | "tmpfs"));
    known && release(&rustix::system::uname().release().to_string_lossy()) >= Some(SINCE)
}

fn release(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether an allocated page that no other file shares is overwritten where it is, so that a store
/// into it through a mapping cannot find the disk full: ext2 to ext4 and xfs. btrfs and f2fs take
/// new space for every overwrite; of the others it is not known.
pub(crate) fn overwrites_in_place(report: &Report) -> bool {
    report.filesystem.as_deref().is_some_and(probe::overwrites_in_place)
}

/// Whether the ext4 driver runs this filesystem with a journal: `journal_task` is the number of
/// the journal's thread, or `<none>` (fs/ext4/sysfs.c). No answer counts as no.
fn has_journal(report: &Report) -> bool {
    let Some(device) = &report.device else { return false };
    // sysfs writes a slash in a device's name as an exclamation mark.
    let directory = Path::new("/sys/fs/ext4").join(device.name.replace('/', "!"));
    std::fs::read_to_string(directory.join("journal_task"))
        .is_ok_and(|task| task.trim().parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_as_numbers() {
        assert_eq!(release("6.12.9-amd64"), Some((6, 12)));
        assert!(release("6.9") < release("6.13.0") && release("6.13") < release("10.1"));
        assert_eq!(release("unknown"), None);
    }
}
