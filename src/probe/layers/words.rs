//! The words of the reasons that name what could not be read, or who keeps the data.

use std::path::Path;

use crate::probe::reasons::{self, layer_unverified};
use crate::probe::report::Reason;

pub(super) fn invisible_device(path: &Path) -> Reason {
    layer_unverified(
        format!(
            "the device under {} is not visible in /sys, so nothing is known of its flushes",
            path.display()
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
        ("/proc/self/mountinfo cannot be read", "mount /proc")
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

pub(super) fn overlay(point: &Path) -> Reason {
    layer_unverified(
        format!("{} is an overlay: a write goes to a copy in another filesystem", point.display()),
        "put the data on a volume, a directory of a filesystem that is not an overlay",
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

pub(super) fn nothing_below(name: &str) -> Reason {
    layer_unverified(
        format!("what is below block device {name} is not visible from here"),
        "probe from the mount namespace that set the device up",
    )
}
