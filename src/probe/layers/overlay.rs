//! What an overlay keeps: what it writes goes to its upper directory, and an fsync with it
//! (fs/overlayfs/file.c `ovl_fsync`; overlayfs.rst).
//!
//! So it is as good as the filesystem of that directory, for a file that is in there: one that was
//! made through the overlay, or that was copied up to it. Opening a file for writing copies it up
//! before the descriptor exists, so a descriptor for writing is always one of the upper file.
//!
//! The mount table gives the directory's path as whoever mounted the overlay saw it. It is taken for
//! the directory only if its filesystem is of the very size that the overlay says of its own, which
//! is that of the upper (`ovl_statfs`).

use super::{Ground, ground, words};
use crate::durability::Durability;
use crate::probe::filesystem::{self, Class};
use crate::probe::mountinfo::option;
use crate::probe::report::{Layer, Mount};
use crate::probe::verdict::Judge;

pub(super) fn cap(judge: &mut Judge<'_>, here: Ground<'_>, upper: Option<&Mount>) {
    let facts = judge.facts;
    let mut unverified = |layer, reason| judge.limit(layer, Durability::Unverified, reason);
    let Some(mount) = here.mount else {
        let reason = words::mount_not_shown(&facts.path, facts.mounts_shown);
        return unverified(Layer::Visibility, reason);
    };
    let point = &mount.point;
    let Some(upper) = upper else {
        let layer =
            if option(mount, "upperdir").is_some() { Layer::Visibility } else { Layer::Overlay };
        return unverified(layer, words::overlay_upper_unseen(point));
    };
    let class = filesystem::class(&upper.filesystem);
    if class == Class::Overlay {
        // It is not followed further than this.
        return unverified(Layer::Overlay, words::overlay_of_overlay(point));
    }
    if filesystem::is_volatile_overlay(mount) {
        let reason = words::volatile_overlay(point);
        judge.limit(Layer::Overlay, Durability::ProcessOnly, reason);
    } else if facts.in_upper {
        let evidence =
            format!("{} hands its writes and syncs to {}", point.display(), upper.point.display());
        judge.grant(Layer::Overlay, Durability::Fsync, evidence);
    } else {
        unverified(Layer::Overlay, words::overlay_lower(&facts.path));
    }
    let name = upper.filesystem.as_str();
    ground(judge, Ground { class, name, mount: Some(upper), ..here }, None);
}
