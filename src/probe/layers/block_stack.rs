//! What the block devices keep, each down to the last.
//!
//! | device | cap | source |
//! |---|---|---|
//! | partition, device-mapper, md | the least of the devices below | a flush goes to every one of them |
//! | loop | as its backing file | drivers/block/loop.c: a flush is an fsync of the file |
//! | disk | `Fsync` | a flush reaches it; what its firmware does is assumed |
//! | pmem | as its region | see `region` |
//! | zram, RAM disk | `ProcessOnly` | nothing there outlives the kernel |
//! | nbd, rbd, drbd, ublk | `Unverified` | a server or a program keeps the data |
//! | one with nothing visible below | `Unverified` | |

use super::{Ground, Way, ground, region, words};
use crate::durability::Durability;
use crate::probe::filesystem;
use crate::probe::reasons;
use crate::probe::report::{BlockDevice, Layer};
use crate::probe::verdict::Judge;

pub(super) fn cap(judge: &mut Judge<'_>, device: &BlockDevice, way: Way) {
    let layer = Layer::BlockStack;
    let (name, kind) = (&device.name, device.kind.as_str());
    if let Some(region) = &device.region {
        let evidence = format!("{name} ({kind}) is persistent memory");
        judge.grant(layer, Durability::PowerFail, evidence);
        return region::cap(judge, region, way);
    }
    match kind {
        "zram" | "ramdisk" => {
            let reason = reasons::memory_backed(&format!("block device {name} ({kind})"));
            judge.limit(layer, Durability::ProcessOnly, reason);
        }
        "network" | "userspace" => {
            let reason = words::remote_device(name);
            judge.limit(layer, Durability::Unverified, reason);
        }
        "loop" => loop_device(judge, device),
        "disk" if device.below.is_empty() => {
            let evidence = format!(
                "{name} ({kind}) is sent every flush; that its firmware or hypervisor does it is \
                 assumed"
            );
            judge.grant(layer, Durability::Fsync, evidence);
        }
        _ if device.below.is_empty() => {
            judge.limit(layer, Durability::Unverified, words::nothing_below(name));
        }
        _ => {
            let evidence = format!("{name} ({kind}) passes every flush on to what is below it");
            judge.grant(layer, Durability::PowerFail, evidence);
            for below in &device.below {
                cap(judge, below, way);
            }
        }
    }
}

/// A loop device keeps its data in a file, and so is as good as that file's filesystem.
fn loop_device(judge: &mut Judge<'_>, device: &BlockDevice) {
    let Some(mount) = &device.backing_mount else {
        let reason = words::nothing_below(&device.name);
        return judge.limit(Layer::BlockStack, Durability::Unverified, reason);
    };
    let evidence = format!("{} (loop) makes of a flush an fsync of its file", device.name);
    judge.grant(Layer::BlockStack, Durability::Fsync, evidence);
    let below = Ground {
        class: filesystem::class(&mount.filesystem),
        name: &mount.filesystem,
        mount: Some(mount),
        device: device.below.first(),
        way: Way::Flushed,
    };
    ground(judge, below, None);
}
