//! What the mount options leave of a flush.
//!
//! The mount table does not show an option of ext4 that is the filesystem's own default; those are
//! read of `/proc/fs/ext4/DISK/options`. Options count for a `MAP_SYNC` mapping too: the fault that makes a block part of the file commits
//! the log, and the log reaches its device by the same flushes.

use super::{Ground, words};
use crate::durability::Durability;
use crate::probe::filesystem;
use crate::probe::filesystem_log;
use crate::probe::reasons;
use crate::probe::report::{Layer, Target};
use crate::probe::verdict::Judge;

pub(super) fn cap(judge: &mut Judge<'_>, ground: Ground<'_>) {
    let Some(mount) = ground.mount else {
        // A device that is not mounted has no options yet.
        if judge.facts.target != Target::BlockDevice {
            let reason = words::mount_not_shown(&judge.facts.path, judge.facts.mounts_shown);
            judge.limit(Layer::Visibility, Durability::Unverified, reason);
        }
        return;
    };
    let layer = Layer::MountOptions;
    let own = ground.device.and_then(|device| device.options.as_deref());
    if let Some(option) = filesystem::no_barrier(&mount.options) {
        return judge.limit(
            layer,
            Durability::Unverified,
            reasons::no_barrier(judge.facts, mount, option),
        );
    }
    // Those of an ext4 are not all in the mount table.
    if let (Some(device), "ext4" | "ext3") = (ground.device, ground.name) {
        let Some(own) = own else {
            let path = filesystem_log::options_path(&device.name);
            let reason = words::unread(&mount.point.display().to_string(), &path);
            return judge.limit(layer, Durability::Unverified, reason);
        };
        if let Some(option) = filesystem::no_barrier(own) {
            let reason = reasons::no_barrier(judge.facts, mount, option);
            return judge.limit(layer, Durability::Unverified, reason);
        }
    }
    let evidence = format!("no option of {} turns flushes off", mount.point.display());
    judge.grant(layer, Durability::PowerFail, evidence);
}
