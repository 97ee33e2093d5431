//! The words of the reasons that name what could not be read, or who keeps the data.

use std::path::Path;

use crate::probe::reasons::{self, layer_unverified};
use crate::probe::report::{LoopImage, Reason};

pub(super) fn invisible_device(path: &Path, masked: Option<&Path>) -> Reason {
    let path = path.display();
    let why = masked.map_or_else(String::new, |masked| {
        format!(" ({} is empty or cannot be read)", masked.display())
    });
    layer_unverified(
        format!(
            "the device under {path} is not visible in /sys{why}, so its flushes are not known"
        ),
        reasons::SEE_SYS,
    )
}

pub(super) fn invisible_pool(path: &Path) -> Reason {
    layer_unverified(
        format!(
            "the devices of the zfs pool under {} are not visible in /sys, nor is its property sync",
            path.display()
        ),
        "use ext4, xfs or btrfs where a level is required; zpool status and zfs get sync show what zfs \
         does",
    )
}

pub(super) fn no_region(path: &Path) -> Reason {
    layer_unverified(
        format!("no memory region is visible in /sys under {}", path.display()),
        reasons::SEE_SYS,
    )
}

pub(super) fn mount_not_shown(path: &Path, table: bool) -> Reason {
    let (why, remedy) = if table {
        (
            "/proc/self/mountinfo does not show its mount",
            "probe from outside the chroot, or without the mount that hides it",
        )
    } else {
        (
            "/proc/self/mountinfo cannot be read",
            "make /proc visible to this process, or probe from outside of its container or chroot",
        )
    };
    let text = format!("the mount options of {} are not known: {why}", path.display());
    layer_unverified(text, remedy)
}

pub(super) fn log_unknown(filesystem: &str, device: &str, why: &str) -> Reason {
    layer_unverified(
        format!("where {filesystem} on {device} keeps its log is not known: {why}"),
        "make that readable to this process, or use a filesystem with its log on the same device",
    )
}

pub(super) fn server(name: &str, at: &str) -> Reason {
    layer_unverified(
        format!(
            "{name}{at} leaves fdatasync to a program or a server that cannot be checked from here"
        ),
        "put the file on a local filesystem: ext4, xfs or btrfs on a disk",
    )
}

pub(super) fn unflushed(name: &str, at: &str) -> Reason {
    layer_unverified(
        format!(
            "fdatasync on {name}{at} sends the disk no flush: what it wrote may be in the disk's cache"
        ),
        "put the file on ext4, xfs or btrfs",
    )
}

pub(super) fn more_devices(name: &str, device: &str) -> Reason {
    layer_unverified(
        format!(
            "{name} is larger than {device}: it has more devices, and which they are is not visible \
             in /sys"
        ),
        "use ext4, xfs or btrfs; for one filesystem over several disks, btrfs, device-mapper or md",
    )
}

pub(super) fn unknown_filesystem(name: &str, at: &str) -> Reason {
    layer_unverified(
        format!("nothing is known here of what fdatasync does on {name}{at}"),
        "put the file on a filesystem that is known: ext4, xfs or btrfs on a disk",
    )
}

pub(super) fn volatile_overlay(point: &Path) -> Reason {
    layer_unverified(
        format!("the overlay on {} is mounted volatile and leaves out every sync", point.display()),
        "mount the overlay without the option volatile",
    )
}

/// What to do where an overlay grants too little. Its path in a container is that of an image.
const VOLUME: &str = "put the data on a volume, a directory of a filesystem that is not an overlay";

pub(super) fn overlay_upper_unseen(point: &Path) -> Reason {
    layer_unverified(
        format!(
            "{} is an overlay, and where it writes to (its upper directory) is not visible from here",
            point.display()
        ),
        VOLUME,
    )
}

pub(super) fn overlay_of_overlay(point: &Path) -> Reason {
    layer_unverified(
        format!("{} is an overlay that writes to another overlay", point.display()),
        VOLUME,
    )
}

pub(super) fn overlay_lower(path: &Path) -> Reason {
    layer_unverified(
        format!(
            "{} is in a lower layer of an overlay, or was not opened for writing: opening it for \
             writing copies it to the upper layer",
            path.display()
        ),
        VOLUME,
    )
}

pub(super) fn remote_device(name: &str) -> Reason {
    layer_unverified(
        format!(
            "block device {name} is kept by a program or a server that cannot be checked from here"
        ),
        "use a local disk",
    )
}

pub(super) fn inline_data(path: &Path) -> Reason {
    layer_unverified(
        format!(
            "{} is kept in its inode (ext4 inline_data): when it grows, a power loss may take back \
             bytes that fdatasync had reported as safe",
            path.display()
        ),
        "copy the file to a new one of at least one block, and rename the copy over it",
    )
}

pub(super) fn unread(name: &str, path: &Path) -> Reason {
    layer_unverified(
        format!("nothing is known of the device {name}: {} cannot be read", path.display()),
        reasons::SEE_SYS,
    )
}

pub(super) fn unknown_driver(name: &str) -> Reason {
    layer_unverified(
        format!(
            "block device {name} belongs to a driver that is not known here, nor whether it flushes"
        ),
        "use a disk, or device-mapper or md over disks",
    )
}

pub(super) fn foreign_target(name: &str, target: &str) -> Reason {
    layer_unverified(
        format!(
            "device-mapper device {name} has a target of the type {target}, which may leave flushes out \
             or forget what it was told when the machine stops"
        ),
        "use a device of LVM, or one of linear, striped or crypt targets",
    )
}

pub(super) fn unknown_targets(name: &str) -> Reason {
    layer_unverified(
        format!(
            "what device-mapper device {name} does with a flush is not known: only root may read its \
             targets, and its UUID is not one of LVM, cryptsetup or multipath"
        ),
        "probe as root, where /dev/mapper/control can be opened, or make the device with LVM",
    )
}

pub(super) fn pmem_without_region(name: &str) -> Reason {
    layer_unverified(format!("no memory region is visible in /sys above {name}"), reasons::SEE_SYS)
}

pub(super) fn flushes_left_out(name: &str, who: &str) -> Reason {
    layer_unverified(
        format!(
            "queue/write_cache of {name} was set to write through, so no flush is sent, but {who}"
        ),
        &format!(
            "as root, write the words \"write back\" into /sys/block/{}/queue/write_cache, and undo \
             what changed them (a udev rule, a tuning profile)",
            name.replace('/', "!")
        ),
    )
}

pub(super) fn image_not_found(name: &str, path: &Path, image: LoopImage) -> Reason {
    let path = path.display();
    if image == LoopImage::Elsewhere {
        layer_unverified(
            format!("{name} keeps its data in {path}, which is not that file here"),
            "probe from the mount namespace that set the loop device up",
        )
    } else {
        layer_unverified(
            format!(
                "{name} keeps its data in {path}, and /dev/{name} cannot be asked for that file"
            ),
            "probe as a user who may open the loop device and the file, such as root",
        )
    }
}

pub(super) fn image_takes_blocks(name: &str, path: &Path, image: LoopImage) -> Reason {
    let how = match image {
        LoopImage::Sparse => "has holes",
        LoopImage::Unknown => "may have holes (its blocks cannot be looked at)",
        _ => "is copied on write",
    };
    layer_unverified(
        format!(
            "{name} keeps its data in {}, which {how}: where the disk below is full, a write may be \
             lost though it was acknowledged",
            path.display()
        ),
        "put the image on ext4 or xfs and allocate all of it (fallocate), and do not trim the \
         filesystem in it",
    )
}

pub(super) fn nothing_below(name: &str) -> Reason {
    layer_unverified(
        format!("what is below block device {name} is not visible from here"),
        "probe from the mount namespace that set the device up",
    )
}
