//! Why nothing can be written, and what to do about it.

use super::facts::{Facts, regions, walk};
use super::mountinfo::{has_option, option};
use super::report::Target;
use super::{commands, reasons};
use crate::reason::remedy::Remedy;

/// Why nothing can be written here, and the remedy, the deepest cause first: nothing above it can be
/// changed before it.
pub(super) fn read_only(facts: &Facts) -> Vec<(String, Option<Remedy>)> {
    let mut out = Vec::new();
    // Device DAX does not ask whether its region is read-only (drivers/dax/device.c).
    let regions = facts.device.as_ref().map_or_else(Vec::new, regions);
    for region in regions.into_iter().filter(|region| region.read_only) {
        out.push((
            format!("{} is read-only", reasons::named(region)),
            Some(commands::writable_region(region)),
        ));
    }
    if let Some(device) = facts.device.as_ref().filter(|_| out.is_empty()) {
        walk(device, &mut |device| {
            // What is below makes it so.
            if device.read_only && !device.below.iter().any(|below| below.read_only) {
                out.push((
                    format!("block device {} is read-only", device.name),
                    Some(commands::writable_device(device)),
                ));
            }
        });
    }
    if let Some(mount) = facts.mount.as_ref().filter(|_| facts.target != Target::BlockDevice) {
        let point = &mount.point;
        if has_option(mount, "ro") {
            out.push((
                format!("{} is mounted read-only", point.display()),
                Some(commands::writable_mount(facts, mount, !out.is_empty())),
            ));
        } else if mount.filesystem == "overlay" && option(mount, "upperdir").is_none() {
            out.push((
                format!("the overlay on {} has no upper directory", point.display()),
                Some(Remedy::advice("put the data on a volume")),
            ));
        }
    }
    out
}
