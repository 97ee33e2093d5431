//! What filesystems do differently when a file gets its name: all of it, in one table.
//!
//! | filesystem | before the sync of the file | after the rename | why |
//! |---|---|---|---|
//! | ext4 and ext3 with a journal | | directory | link, rename, owner, mode and attributes are records of one journal, in their order; fsync of the directory commits it (`ext4_sync_file`, fs/ext4/fsync.c) |
//! | xfs | | directory | one log; fsync of the directory forces it (`xfs_dir_fsync`, fs/xfs/xfs_file.c) |
//! | btrfs | | file, directory | fsync of a file without links writes its data and no log, and fsync of the directory does not log the inode behind a new name (`btrfs_log_inode_parent`, fs/btrfs/tree-log.c) |
//! | tmpfs, ramfs | | | nothing outlives the kernel |
//! | ext4 without a journal, ext2, every other | a temporary name | directory | without a journal, the inode on the medium still says that it has no links, and is taken for a deleted file (`ext4_iget`, fs/ext4/inode.c); of others it is not known |

use std::path::Path;

use crate::probe::Report;

/// What the way from data to a durable name takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quirks {
    /// The file needs a name when it is synced, and that sync must cover its inode.
    pub(crate) name_before_sync: bool,
    /// fsync of the file once it has its final name.
    pub(crate) sync_file_after_name: bool,
    /// fsync of the directory, after that.
    pub(crate) sync_directory: bool,
}

impl Quirks {
    const JOURNAL: Self =
        Self { name_before_sync: false, sync_file_after_name: false, sync_directory: true };
    const BTRFS: Self = Self { sync_file_after_name: true, ..Self::JOURNAL };
    const NOTHING_LASTS: Self = Self { sync_directory: false, ..Self::JOURNAL };
    /// What is right on any filesystem.
    const CAREFUL: Self = Self { name_before_sync: true, ..Self::JOURNAL };

    /// Those of the filesystem that the report is about.
    pub(crate) fn of(report: &Report) -> Self {
        match report.filesystem.as_deref() {
            Some("ext4" | "ext3") if has_journal(report) => Self::JOURNAL,
            Some("xfs") => Self::JOURNAL,
            Some("btrfs") => Self::BTRFS,
            Some("tmpfs" | "ramfs") => Self::NOTHING_LASTS,
            _ => Self::CAREFUL,
        }
    }
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
