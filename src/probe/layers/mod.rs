//! What a region here survives: the least of what each layer under it is known to keep.
//!
//! Each layer gives a [`Cap`](super::report::Cap): the most it can bear, what was seen that bears
//! this out, and a reason where it lowers the level. The level of the file is the least cap. What
//! cannot be read is never a pass: it is `Unverified`, with a reason that names what could not be
//! read. No other place decides a level. `docs/levels.md` has this table for people.
//!
//! | layer | read for `PowerFail` | read for `Fsync` | if it cannot be read |
//! |---|---|---|---|
//! | [`file`] | the trial mapping of this very file with `MAP_SYNC` was accepted | nothing: `fdatasync` is what it is written with | foretold from the rows below |
//! | [`overlay`] | never: overlayfs has no `MAP_SYNC` | its upper directory is visible, not mounted `volatile`; then the upper's own rows | `Unverified` |
//! | [`filesystem`] | ext4 or xfs | the type is one whose `fdatasync` is known to flush its device | `Unverified` |
//! | [`mount_options`] | none of them turns flushes off | the same | `Unverified` |
//! | [`log`](mod@log) | the filesystem's log is on the same device, or what that device bears | the same | `Unverified` |
//! | [`block_stack`] | every device down to persistent memory | every device down to the last passes flushes on | `Unverified` |
//! | [`region`] | it names a persistence domain | the same; virtio-pmem flushes through the host | `Unverified`; volatile and e820 memory: `ProcessOnly` |
//! | [`region_devices`] | all are visible, and none reports a fault; a CXL device counts its unsafe shutdowns | the same | `Unverified` |
//! | visibility | the mount table shows the mount, and sysfs the devices | the same | `Unverified` |
//!
//! What a drive's firmware or a hypervisor does with a flush that reached it cannot be read. That it
//! is done is an assumption, which the evidence of a disk states; it caps nothing.

mod block_stack;
mod file;
mod filesystem;
mod log;
mod mount_options;
mod overlay;
mod region;
mod region_devices;
mod words;

use super::facts::Facts;
use super::filesystem::Class;
use super::report::{BlockDevice, Cap, Layer, Mount, Reason, Target};
use super::verdict::Judge;
use crate::durability::{Backend, Durability};

/// How the bytes of a file get to the layers below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By stores into a `MAP_SYNC` mapping.
    Mapped,
    /// By `fdatasync`.
    Flushed,
}

/// One filesystem with the device it lies on: that of the file, of an overlay's upper directory, or
/// of the file behind a loop device.
#[derive(Clone, Copy)]
struct Ground<'a> {
    class: Class,
    /// Filesystem type.
    name: &'a str,
    mount: Option<&'a Mount>,
    device: Option<&'a BlockDevice>,
    way: Way,
}

impl Judge<'_> {
    /// Collects the caps of every layer; the level is the least of them.
    pub(super) fn durability(&mut self, backend: Backend) -> Durability {
        let facts = self.facts;
        file::cap(self, backend);
        if facts.target != Target::Other {
            below(self, facts, backend);
        }
        self.caps.iter().map(|cap| cap.level).min().unwrap_or(Durability::Unverified)
    }

    /// A layer that keeps `level`, by this evidence.
    fn grant(&mut self, layer: Layer, level: Durability, evidence: String) {
        self.cap(Cap { layer, level, evidence, reason: None });
    }

    /// A layer that keeps no more than `level`, for this reason.
    fn limit(&mut self, layer: Layer, level: Durability, reason: Reason) {
        let (evidence, code) = (reason.text.clone(), Some(reason.code));
        self.cap(Cap { layer, level, evidence, reason: code });
        self.push(reason);
    }

    fn cap(&mut self, cap: Cap) {
        if !self.caps.contains(&cap) {
            self.caps.push(cap);
        }
    }
}

/// The layers below the file itself.
fn below(judge: &mut Judge<'_>, facts: &Facts, backend: Backend) {
    let way = match backend {
        Backend::FsDax | Backend::DevDax => Way::Mapped,
        Backend::PageCache | Backend::Volatile => Way::Flushed,
    };
    if let Some((_, region)) = &facts.dax_device {
        return region::cap(judge, region, way);
    }
    let Some(class) = facts.class else {
        // A block device without a filesystem.
        return match &facts.device {
            Some(device) => block_stack::cap(judge, device, way),
            None => invisible_device(judge, None),
        };
    };
    let ground = Ground {
        class,
        name: facts.filesystem.as_deref().unwrap_or("this filesystem"),
        mount: facts.mount.as_ref(),
        device: facts.device.as_ref(),
        way,
    };
    self::ground(judge, ground, facts.upper.as_ref());
    if let Some(device) = facts.device.as_ref().filter(|_| facts.has_more_devices) {
        let name = facts.upper.as_ref().map_or(ground.name, |upper| upper.filesystem.as_str());
        let reason = words::more_devices(name, &device.name);
        judge.limit(Layer::Visibility, Durability::Unverified, reason);
    }
    if way == Way::Mapped && super::facts::all_regions(facts).is_empty() {
        region::none(judge);
    }
}

/// The layers of one filesystem; `upper` is that of an overlay.
fn ground(judge: &mut Judge<'_>, ground: Ground<'_>, upper: Option<&Mount>) {
    if ground.class == Class::Overlay {
        return overlay::cap(judge, ground, upper);
    }
    filesystem::cap(judge, ground);
    if matches!(ground.class, Class::Dax | Class::Local) {
        mount_options::cap(judge, ground);
        log::cap(judge, ground);
        match ground.device {
            Some(device) => block_stack::cap(judge, device, ground.way),
            None if ground.name == "zfs" => {
                let reason = words::invisible_pool(&judge.facts.path);
                judge.limit(Layer::Visibility, Durability::Unverified, reason);
            }
            None => invisible_device(judge, ground.mount),
        }
    }
}

/// No device is to be seen under this mount, or under the path itself.
fn invisible_device(judge: &mut Judge<'_>, mount: Option<&Mount>) {
    let path = mount.map_or(judge.facts.path.as_path(), |mount| mount.point.as_path());
    let reason = words::invisible_device(path, judge.facts.masked);
    judge.limit(Layer::Visibility, Durability::Unverified, reason);
}
