//! Where a mounted filesystem keeps its log, and what the mount table leaves out of its options.
//!
//! ext4 and ext3: the journal's name is the device it is on, and for one inside of the filesystem
//! the number of its inode besides (`vda1-8`; fs/jbd2/journal.c). `/proc/fs/jbd2` lists the names,
//! so one that begins with the filesystem's own device is the internal one. Otherwise
//! `/sys/fs/ext4/DISK/journal_task` has the number of the journal's thread (fs/ext4/sysfs.c), and the
//! thread is called `jbd2/` and the journal's name. xfs names a log device among its mount options;
//! reiserfs may have one that nothing names.

use std::path::{Path, PathBuf};

use super::mountinfo;
use super::report::Mount;
use super::sources::{Number, Sources};

/// Length of a thread's name in `/proc/PID/comm` before Linux 5.17, which cut it there.
const NAME_CUT: usize = 15;

/// Where the log is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Internal,
    Absent,
    /// On the device with this number.
    Device(Number),
    /// What could not be read.
    Unknown(String),
}

/// Where this filesystem keeps its log, if the kernel calls its device `device`.
pub(super) fn find(sources: &Sources, mount: &Mount, device: &str) -> Place {
    match mount.filesystem.as_str() {
        "ext4" | "ext3" => ext4(sources, device),
        "xfs" => match mountinfo::option(mount, "logdev") {
            None => Place::Internal,
            Some(path) => sources.block_node(Path::new(path)).map_or_else(
                || Place::Unknown(format!("its log device {path} is not visible here")),
                Place::Device,
            ),
        },
        // Its superblock may name another device, and nothing shows that.
        "reiserfs" => {
            Place::Unknown("it may be on another device, which reiserfs does not show".to_owned())
        }
        // A file of the filesystem, or none at all.
        _ => Place::Internal,
    }
}

/// Where the kernel shows every option of an ext4.
pub(super) fn options_path(device: &str) -> PathBuf {
    Path::new("/proc/fs/ext4").join(device.replace('/', "!")).join("options")
}

/// Every option of an ext4. The mount table leaves out those that are the filesystem's own default
/// (tune2fs(8) `-o`), and one of these may be `nobarrier` (fs/ext4/super.c `_ext4_show_options`).
pub(super) fn options(sources: &Sources, mount: &Mount, device: &str) -> Option<Vec<String>> {
    if !matches!(mount.filesystem.as_str(), "ext4" | "ext3") {
        return None;
    }
    let text = sources.text(options_path(device))?;
    Some(text.lines().map(str::to_owned).collect())
}

fn ext4(sources: &Sources, device: &str) -> Place {
    // sysfs and jbd2 write a slash in a device's name as an exclamation mark.
    let device = device.replace('/', "!");
    let own = format!("{device}-");
    let internal = |name: &str| {
        name.strip_prefix(&own).is_some_and(|inode| {
            !inode.is_empty() && inode.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    if sources.names("/proc/fs/jbd2").iter().any(|name| internal(name)) {
        return Place::Internal;
    }
    let task = Path::new("/sys/fs/ext4").join(&device).join("journal_task");
    let Some(number) = sources.text(&task) else { return unread(&task) };
    if number == "<none>" {
        return Place::Absent;
    }
    let comm = Path::new("/proc").join(&number).join("comm");
    let Some(thread) = sources.text(&comm).filter(|_| number != "0") else { return unread(&comm) };
    let Some(journal) = thread.strip_prefix("jbd2/") else { return unread(&comm) };
    if internal(journal) {
        return Place::Internal;
    }
    // A name that was cut off is that of no device for certain.
    let cut = thread.len() == NAME_CUT;
    let number = sources.device(Path::new("/sys/class/block").join(journal).join("dev"));
    match number.filter(|_| !cut) {
        Some(number) => Place::Device(number),
        None => Place::Unknown(format!("its journal is on {journal}, which is not visible here")),
    }
}

fn unread(path: &Path) -> Place {
    Place::Unknown(format!("{} cannot be read", path.display()))
}
