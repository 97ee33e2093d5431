//! What an overlay keeps: what it writes goes to its upper directory (overlayfs.rst).

use super::{Ground, ground, words};
use crate::durability::Durability;
use crate::probe::filesystem::{self, Class};
use crate::probe::report::{Layer, Mount};
use crate::probe::verdict::Judge;

pub(super) fn cap(judge: &mut Judge<'_>, here: Ground<'_>, upper: Option<&Mount>) {
    let Some(mount) = here.mount else {
        let reason = words::mount_not_shown(&judge.facts.path, judge.facts.mounts_shown);
        return judge.limit(Layer::Visibility, Durability::Unverified, reason);
    };
    let point = &mount.point;
    if filesystem::is_volatile_overlay(mount) {
        let reason = words::volatile_overlay(point);
        judge.limit(Layer::Overlay, Durability::ProcessOnly, reason);
    }
    judge.limit(Layer::Overlay, Durability::Unverified, words::overlay(point));
    if let Some(upper) = upper {
        let class = filesystem::class(&upper.filesystem);
        // An overlay on an overlay is not followed further than its class.
        if class == Class::Overlay {
            return;
        }
        let name = upper.filesystem.as_str();
        ground(judge, Ground { class, name, mount: Some(upper), ..here }, None);
    }
}
