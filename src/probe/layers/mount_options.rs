//! What the mount options leave of a flush.
//!
//! They count for a `MAP_SYNC` mapping too: the fault that makes a block part of the file commits
//! the log, and the log reaches its device by the same flushes.

use super::{Ground, words};
use crate::durability::Durability;
use crate::probe::filesystem;
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
    if let Some(option) = filesystem::no_barrier(mount) {
        let reason = reasons::no_barrier(judge.facts, mount, option);
        judge.limit(Layer::MountOptions, Durability::Unverified, reason);
    } else {
        let evidence = format!("no option of {} turns flushes off", mount.point.display());
        judge.grant(Layer::MountOptions, Durability::PowerFail, evidence);
    }
}
