//! What the block devices keep, each down to the last.
//!
//! | device | cap | source |
//! |---|---|---|
//! | partition, md, bcache | the least of the devices below | a flush goes to every one of them |
//! | device-mapper, its targets read (as root), or made by LVM, cryptsetup, multipath | the least of the devices below | see `device_mapper` |
//! | device-mapper of other targets, or of whose targets and maker nothing can be read | `Unverified` | dm-flakey and foreign targets leave flushes out |
//! | loop, every block of its file allocated | as that file's filesystem | drivers/block/loop.c: a flush is an fsync of the file |
//! | loop over holes or shared blocks | `Unverified` | see `loop_device`: a full disk below was not always an error above |
//! | disk of a bus (virtio, SCSI, NVMe, ...) | `Fsync` | a flush reaches it; what its firmware does is assumed |
//! | pmem | as its region | see `region` |
//! | zram, RAM disk | `ProcessOnly` | nothing there outlives the kernel |
//! | nbd, rbd, drbd, ublk | `Unverified` | a server or a program keeps the data |
//! | `queue/write_cache` is `write through`, and the device itself (`cache_type`, NVMe Identify), or one below, says `write back` | `Unverified` | block/blk-core.c `submit_bio_noacct` leaves out the flush |
//! | a driver that is not known, an unreadable directory, nothing visible below | `Unverified` | |

use super::{Ground, Way, ground, region, words};
use crate::durability::Durability;
use crate::probe::filesystem::{self, Class};
use crate::probe::reasons;
use crate::probe::report::{BlockDevice, Layer, LoopImage, Mapping, WriteCache};
use crate::probe::verdict::Judge;

const LAYER: Layer = Layer::BlockStack;

pub(super) fn cap(judge: &mut Judge<'_>, device: &BlockDevice, way: Way) {
    let (name, kind) = (&device.name, device.kind.as_str());
    if let Some(unread) = &device.unread {
        judge.limit(LAYER, Durability::Unverified, words::unread(name, unread));
    }
    if let Some(region) = &device.region {
        let evidence = format!("{name} ({kind}) is persistent memory");
        judge.grant(LAYER, Durability::PowerFail, evidence);
        if region.asynchronous {
            cache(judge, device);
        }
        return region::cap(judge, region, way);
    }
    match kind {
        "zram" | "ramdisk" => {
            let reason = reasons::memory_backed(&format!("block device {name} ({kind})"));
            judge.limit(LAYER, Durability::ProcessOnly, reason);
        }
        "network" | "userspace" => {
            judge.limit(LAYER, Durability::Unverified, words::remote_device(name));
        }
        "loop" => loop_device(judge, device),
        "disk" if device.below.is_empty() => {
            let evidence = match device.write_cache {
                Some(WriteCache::Through) => format!(
                    "{name} ({kind}) is sent no flush, as it says that it needs none; that this is so \
                     is assumed of its firmware or hypervisor"
                ),
                _ => format!(
                    "{name} ({kind}) is sent every flush; that its firmware or hypervisor does it is \
                     assumed"
                ),
            };
            judge.grant(LAYER, Durability::Fsync, evidence);
            cache(judge, device);
        }
        "partition" | "device-mapper" | "raid" | "bcache" | "filesystem"
            if !device.below.is_empty() =>
        {
            passes_on(judge, device);
            if !matches!(kind, "partition" | "filesystem") {
                cache(judge, device);
            }
            for below in &device.below {
                cap(judge, below, way);
            }
        }
        "partition" | "device-mapper" | "raid" | "bcache" | "filesystem" => {
            judge.limit(LAYER, Durability::Unverified, words::nothing_below(name));
        }
        "pmem" => judge.limit(LAYER, Durability::Unverified, words::pmem_without_region(name)),
        _ if device.unread.is_some() => {}
        _ => judge.limit(LAYER, Durability::Unverified, words::unknown_driver(name)),
    }
}

/// Whether a flush of a device that is made of others goes to those.
fn passes_on(judge: &mut Judge<'_>, device: &BlockDevice) {
    let (name, kind) = (&device.name, &device.kind);
    let how = match &device.mapping {
        None => String::new(),
        Some(Mapping::PassesOn(targets)) => format!(" of {}", targets.join(", ")),
        Some(Mapping::MadeBy(maker)) => format!(
            ": its UUID says that {maker} made it; that it has the targets of {maker} still is assumed"
        ),
        Some(Mapping::Foreign(target)) => {
            let reason = words::foreign_target(name, target);
            return judge.limit(LAYER, Durability::Unverified, reason);
        }
        Some(Mapping::Unknown) => {
            return judge.limit(LAYER, Durability::Unverified, words::unknown_targets(name));
        }
    };
    let evidence = format!("{name} ({kind}{how}) passes every flush on to what is below it");
    judge.grant(LAYER, Durability::PowerFail, evidence);
}

/// Whether the kernel sends the device the flushes that it needs.
fn cache(judge: &mut Judge<'_>, device: &BlockDevice) {
    let name = &device.name;
    match device.write_cache {
        Some(WriteCache::Back) => {}
        Some(WriteCache::Through) => {
            if let Some(who) = needs_flush(device) {
                let reason = words::flushes_left_out(name, &who);
                return judge.limit(LAYER, Durability::Unverified, reason);
            }
            let whose = match device.own_cache {
                Some(_) => "and says so itself",
                None => "which is taken as its own word",
            };
            let evidence =
                format!("{name} is write through, {whose}: its writes are safe once they are done");
            judge.grant(LAYER, Durability::PowerFail, evidence);
        }
        None => {
            let path = std::path::Path::new("/sys/block").join(name).join("queue/write_cache");
            judge.limit(LAYER, Durability::Unverified, words::unread(name, &path));
        }
    }
}

/// What says that writes to this device are safe only once it is flushed, if anything does.
fn needs_flush(device: &BlockDevice) -> Option<String> {
    let name = &device.name;
    if device.region.as_ref().is_some_and(|region| region.asynchronous) {
        return Some(format!("{name} flushes through its host"));
    }
    match (device.own_cache, device.kind.as_str()) {
        (Some(WriteCache::Back), _) => Some(format!("{name} itself says write back")),
        (Some(WriteCache::Through), _) => None,
        (None, "loop") => Some(format!("{name} is a loop device, whose file has to be synced")),
        (None, _) => device.below.iter().find_map(|below| match below.write_cache {
            Some(WriteCache::Back) if below.region.is_none() => {
                Some(format!("{} below it says write back", below.name))
            }
            _ => needs_flush(below),
        }),
    }
}

/// A loop device keeps its data in a file, and so is as good as that file's filesystem, where a
/// write needs no new block of it.
fn loop_device(judge: &mut Judge<'_>, device: &BlockDevice) {
    let name = &device.name;
    let path = device.backing_file.as_deref();
    let (Some(image), Some(path)) = (device.image, path) else {
        return judge.limit(LAYER, Durability::Unverified, words::nothing_below(name));
    };
    let Some(mount) = &device.backing_mount else {
        let reason = words::image_not_found(name, path, image);
        return judge.limit(LAYER, Durability::Unverified, reason);
    };
    let class = filesystem::class(&mount.filesystem);
    if image == LoopImage::Allocated && filesystem::overwrites_in_place(&mount.filesystem) {
        let evidence = format!("{name} (loop) makes of a flush an fsync of its allocated file");
        judge.grant(LAYER, Durability::Fsync, evidence);
    } else if class != Class::Memory {
        // Memory lasts less long than this would grant.
        let reason = words::image_takes_blocks(name, path, image);
        judge.limit(LAYER, Durability::Unverified, reason);
    }
    cache(judge, device);
    let below = Ground {
        class,
        name: &mount.filesystem,
        mount: Some(mount),
        device: device.below.first(),
        way: Way::Flushed,
    };
    ground(judge, below, None);
}
