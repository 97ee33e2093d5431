//! Block devices: from a device number down to the disks, through partitions, device-mapper, md
//! and loop.
//!
//! A device is found by its number (`/sys/dev/block/major:minor`) and what is below it by the links
//! and the nesting of its directory, never by a name. Attributes: Documentation/ABI/stable/sysfs-block.

use std::path::{Path, PathBuf};

use super::badblocks::{self, SECTOR_BYTES};
use super::device_mapper;
use super::filesystem::{self, Class};
use super::filesystem_log::{self, Place};
use super::loop_device;
use super::mountinfo::{self, Mounts};
use super::nvdimm;
use super::nvme;
use super::report::{BlockDevice, FilesystemLog, LoopImage, Mount, WriteCache};
use super::sources::{Number, Sources};

/// How deep a stack of devices is followed, and how many devices of it. Deeper ones are left out,
/// which can only weaken a verdict: a device with nothing known below it keeps no promise.
const DEPTH_MAX: usize = 16;
const DEVICES_MAX: usize = 512;

/// Static major numbers (include/uapi/linux/major.h, Documentation/admin-guide/devices.txt).
const RAMDISK_MAJOR: u32 = 1;
const LOOP_MAJOR: u32 = 7;
const NBD_MAJOR: u32 = 43;
const DRBD_MAJOR: u32 = 147;

/// Where everything is read.
pub(super) struct Context<'a> {
    pub(super) sources: &'a Sources,
    mounts: &'a Mounts,
    /// In bytes.
    page_size: u64,
}

impl<'a> Context<'a> {
    pub(super) fn new(sources: &'a Sources, mounts: &'a Mounts, page_size: u64) -> Self {
        Self { sources, mounts, page_size }
    }

    pub(super) fn mounts(&self) -> &'a Mounts {
        self.mounts
    }
}

/// The device with this number; `None` if sysfs does not show it.
pub(super) fn device(context: &Context<'_>, number: Number) -> Option<BlockDevice> {
    Walk { context, left: DEVICES_MAX }.device(number, 0)
}

/// How many bytes a device has; `None` if sysfs does not say.
pub(super) fn size(sources: &Sources, number: Number) -> Option<u64> {
    let directory = sources.block_directory(number)?;
    sources.number::<u64>(directory.join("size"))?.checked_mul(SECTOR_BYTES)
}

/// The device or devices under a mounted filesystem. `btrfs` is its UUID if the file gave one.
pub(super) fn of_mount(
    context: &Context<'_>,
    mount: &Mount,
    st_dev: Number,
    btrfs: Option<&str>,
) -> Option<BlockDevice> {
    Walk { context, left: DEVICES_MAX }.of_mount(mount, st_dev, btrfs, 0)
}

/// Where btrfs shows its filesystems.
const BTRFS: &str = "/sys/fs/btrfs";

/// The devices of one filesystem.
#[derive(Default)]
struct Members {
    numbers: Vec<Number>,
    /// What should have told of more of them.
    unread: Option<PathBuf>,
}

struct Walk<'a> {
    context: &'a Context<'a>,
    left: usize,
}

impl Walk<'_> {
    fn of_mount(
        &mut self,
        mount: &Mount,
        st_dev: Number,
        btrfs: Option<&str>,
        depth: usize,
    ) -> Option<BlockDevice> {
        // Filesystems with an anonymous number (major 0) hide their devices: btrfs shows them in
        // sysfs, others name them as their source.
        let mut members = Members::default();
        for number in [st_dev, mount.device] {
            if members.numbers.is_empty() && number.0 != 0 {
                members.numbers.push(number);
            }
        }
        if members.numbers.is_empty() {
            if let Some(uuid) = btrfs {
                members.numbers = self.btrfs_devices(uuid);
            }
            if members.numbers.is_empty() {
                members = self.devices_of_source(mount);
            }
        }
        // An xfs may keep its real-time files on another device.
        if let Some(path) = mountinfo::option(mount, "rtdev") {
            match self.context.sources.block_node(Path::new(path)) {
                Some(number) => members.numbers.push(number),
                None => members.unread = Some(PathBuf::from(path)),
            }
        }
        members.numbers.dedup();
        let device = match members.numbers.as_slice() {
            [] => None,
            [number] if members.unread.is_none() => self.device(*number, depth),
            _ => Some(self.spanned(mount, st_dev, members, depth)),
        }?;
        let log = match filesystem_log::find(self.context.sources, mount, &device.name) {
            Place::Internal => FilesystemLog::Internal,
            Place::Absent => FilesystemLog::Absent,
            Place::Unknown(why) => FilesystemLog::Unknown(why),
            Place::Device(number) => match self.device(number, depth + 1) {
                Some(log) => FilesystemLog::External(Box::new(log)),
                None => FilesystemLog::Unknown(format!("/sys does not show {}", text(number))),
            },
        };
        let options = filesystem_log::options(self.context.sources, mount, &device.name);
        Some(BlockDevice { log: Some(log), options, ..device })
    }

    /// A filesystem over several devices, as one that is made of them.
    fn spanned(
        &mut self,
        mount: &Mount,
        st_dev: Number,
        members: Members,
        depth: usize,
    ) -> BlockDevice {
        let mut device = BlockDevice {
            name: mount.filesystem.clone(),
            number: st_dev,
            kind: "filesystem".to_owned(),
            unread: members.unread,
            ..BlockDevice::default()
        };
        for number in members.numbers {
            self.add_below(&mut device, number, depth);
        }
        let below = &device.below;
        device.dax = below.first().and_then(|device| device.dax);
        device.sector_size = below.iter().filter_map(|device| device.sector_size).max();
        device.read_only = below.iter().any(|device| device.read_only);
        device
    }

    /// Adds the device with this number to what `device` is made of, or says that it is not shown.
    fn add_below(&mut self, device: &mut BlockDevice, number: Number, depth: usize) {
        match self.device(number, depth + 1) {
            Some(below) => device.below.push(below),
            None => device.unread = Some(Path::new("/sys/dev/block").join(text(number))),
        }
    }

    fn btrfs_devices(&self, uuid: &str) -> Vec<Number> {
        let directory = Path::new(BTRFS).join(uuid).join("devices");
        let sources = self.context.sources;
        let names = sources.names(&directory);
        names.iter().filter_map(|name| sources.device(directory.join(name).join("dev"))).collect()
    }

    /// The devices named in a mount's source; bcachefs separates several by colons. A btrfs of
    /// several devices names one of them, and sysfs the others.
    fn devices_of_source(&self, mount: &Mount) -> Members {
        let sources = self.context.sources;
        let mut members = Members::default();
        for path in mount.source.split(':').map(Path::new) {
            match sources.block_node(path) {
                Some(number) => members.numbers.push(number),
                None => members.unread = Some(path.to_owned()),
            }
        }
        if mount.filesystem == "btrfs" && !members.numbers.is_empty() {
            for uuid in sources.names(BTRFS) {
                let devices = self.btrfs_devices(&uuid);
                if devices.iter().any(|device| members.numbers.contains(device)) {
                    return Members { numbers: devices, unread: None };
                }
            }
            members.unread = Some(PathBuf::from(BTRFS));
        }
        members
    }

    fn device(&mut self, number: Number, depth: usize) -> Option<BlockDevice> {
        if depth > DEPTH_MAX || self.left == 0 {
            return None;
        }
        self.left -= 1;
        let sources = self.context.sources;
        let directory = sources.block_directory(number)?;
        let mut device = BlockDevice {
            // A slash in a kernel name stands as an exclamation mark in sysfs.
            name: nvdimm::name(&directory).replace('!', "/"),
            number,
            read_only: sources.flag(directory.join("ro")).unwrap_or(false),
            ..BlockDevice::default()
        };
        // Without its directory, nothing says that it is a disk.
        let names = sources.listing(&directory).filter(|names| {
            let has = |name: &str| names.iter().any(|found| found == name);
            has("partition") || has("queue")
        });
        let Some(names) = names else {
            "unknown".clone_into(&mut device.kind);
            device.unread = Some(directory);
            return Some(device);
        };
        let has = |name: &str| names.iter().any(|found| found == name);
        if has("partition") {
            self.partition(&mut device, &directory, depth);
            return Some(device);
        }
        device.dax = sources.flag(directory.join("queue/dax"));
        device.sector_size = sources.number(directory.join("queue/logical_block_size"));
        device.write_cache =
            sources.text(directory.join("queue/write_cache")).and_then(|text| write_cache(&text));
        device.own_cache = self.own_cache(&directory, &device);
        if has("slaves") {
            self.slaves(&mut device, &directory.join("slaves"), depth);
        }
        let virtual_device = !has("device");
        if has("loop") {
            "loop".clone_into(&mut device.kind);
            self.backing(&mut device, &directory, depth);
        } else if has("dm") {
            "device-mapper".clone_into(&mut device.kind);
            let uuid = sources.text(directory.join("dm/uuid")).unwrap_or_default();
            device.mapping = Some(device_mapper::mapping(sources, &device.name, number, &uuid));
        } else if has("md") {
            "raid".clone_into(&mut device.kind);
        } else if has("bcache") {
            "bcache".clone_into(&mut device.kind);
        } else if has("mm_stat") {
            "zram".clone_into(&mut device.kind);
        } else if is_memory(sources, &directory) {
            "ramdisk".clone_into(&mut device.kind);
        } else {
            kind_by_number(number, &device.name, virtual_device).clone_into(&mut device.kind);
        }
        if !virtual_device {
            if let Some(found) = nvdimm::above(sources, &directory, device.dax == Some(true)) {
                "pmem".clone_into(&mut device.kind);
                device.namespace = found.namespace;
                device.region = Some(found.region);
                // A sector namespace has a table between, and an attribute that is always empty.
                let is_plain = device.namespace.as_ref().is_none_or(|found| found.mode != "sector");
                let bad = sources.text(directory.join("badblocks")).filter(|_| is_plain);
                device.bad_blocks_known = bad.is_some();
                device.bad_blocks = bad.map_or_else(Vec::new, |text| badblocks::parse(&text));
            }
        }
        Some(device)
    }

    /// The devices that a device-mapper or md device is made of.
    fn slaves(&mut self, device: &mut BlockDevice, directory: &Path, depth: usize) {
        let sources = self.context.sources;
        let Some(names) = sources.listing(directory) else {
            device.unread = Some(directory.to_owned());
            return;
        };
        for name in names {
            let slave = directory.join(name);
            match sources.device(slave.join("dev")) {
                Some(number) => self.add_below(device, number, depth),
                None => device.unread = Some(slave),
            }
        }
    }

    /// What virtio-blk, a SCSI disk or an NVMe controller says of its own cache.
    fn own_cache(&self, directory: &Path, device: &BlockDevice) -> Option<WriteCache> {
        let sources = self.context.sources;
        let scsi = directory.join("device/scsi_disk");
        let scsi = sources.names(&scsi).into_iter().map(|name| scsi.join(name).join("cache_type"));
        std::iter::once(directory.join("cache_type"))
            .chain(scsi)
            .find_map(|path| write_cache(&sources.text(path)?))
            .or_else(|| match device.write_cache {
                Some(WriteCache::Through) => nvme::own_cache(sources, &device.name, device.number),
                _ => None,
            })
    }

    fn partition(&mut self, device: &mut BlockDevice, directory: &Path, depth: usize) {
        let sources = self.context.sources;
        "partition".clone_into(&mut device.kind);
        let bytes = |name| sources.number::<u64>(directory.join(name))?.checked_mul(SECTOR_BYTES);
        device.start = bytes("start");
        let size = bytes("size");
        let Some(disk) = directory
            .parent()
            .and_then(|parent| sources.device(parent.join("dev")))
            .and_then(|number| self.device(number, depth + 1))
        else {
            return;
        };
        // drivers/dax/super.c fs_dax_get_by_bdev refuses a partition that does not begin and end
        // on page boundaries.
        let page = self.context.page_size;
        let whole_pages = [device.start, size].iter().flatten().all(|bytes| bytes % page == 0);
        device.dax = disk.dax.map(|dax| dax && whole_pages);
        device.sector_size = disk.sector_size;
        if let (Some(start), Some(size)) = (device.start, size) {
            device.bad_blocks_known = disk.bad_blocks_known;
            device.bad_blocks =
                badblocks::within(&disk.bad_blocks, &(start..start.saturating_add(size)));
        }
        device.below.push(disk);
    }

    /// A loop device keeps its data in a file; what that file promises is its filesystem's matter.
    fn backing(&mut self, device: &mut BlockDevice, directory: &Path, depth: usize) {
        let sources = self.context.sources;
        let Some(file) = sources.path(directory.join("loop/backing_file")) else { return };
        // The path is as the mount namespace that set the device up saw it.
        let mut image = LoopImage::Unknown;
        if let Some(identity) = loop_device::file(sources, &device.name, device.number) {
            image = loop_device::image(sources, &file, identity);
            let mount = self.context.mounts().by_path(&file).cloned();
            if let Some(mount) = mount.filter(|_| image != LoopImage::Elsewhere) {
                if filesystem::class(&mount.filesystem) != Class::Memory {
                    device.below.extend(self.of_mount(&mount, mount.device, None, depth + 1));
                }
                device.backing_mount = Some(Box::new(mount));
            }
        }
        device.image = Some(image);
        device.backing_file = Some(file);
    }
}

/// `write back` or `write through`, with what a SCSI disk adds to it.
fn write_cache(text: &str) -> Option<WriteCache> {
    if text.starts_with("write back") {
        Some(WriteCache::Back)
    } else if text == "write through" || text == "none" {
        Some(WriteCache::Through)
    } else {
        None
    }
}

/// A SCSI disk that the kernel makes up of its own memory (drivers/scsi/scsi_debug.c).
fn is_memory(sources: &Sources, directory: &Path) -> bool {
    sources.text(directory.join("device/model")).is_some_and(|model| model == "scsi_debug")
}

/// A device number as sysfs writes it.
fn text(number: Number) -> String {
    format!("{}:{}", number.0, number.1)
}

/// The kind of a device that its directory does not tell. The driver gives the kernel name, and
/// drivers without a number of their own show in nothing else.
fn kind_by_number(number: Number, name: &str, virtual_device: bool) -> &'static str {
    let driver = name.trim_end_matches(|c: char| c.is_ascii_digit());
    match number.0 {
        RAMDISK_MAJOR => "ramdisk",
        LOOP_MAJOR => "loop",
        NBD_MAJOR | DRBD_MAJOR => "network",
        _ if driver == "ublkb" => "userspace",
        _ if matches!(driver, "rbd" | "nbd" | "rnbd") || driver.starts_with("etherd") => "network",
        // Its region decides; without one, nothing does.
        _ if name.starts_with("pmem") => "pmem",
        // A device of no bus is made up by a driver that is not known here.
        _ if virtual_device => "unknown",
        _ => "disk",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_is_known_by_its_number_or_by_its_name() {
        for (major, name, virtual_device, kind) in [
            (1, "ram3", true, "ramdisk"),
            (7, "loop0", true, "loop"),
            (43, "nbd0", true, "network"),
            (147, "drbd1", true, "network"),
            (252, "rbd0", false, "network"),
            (252, "nbd12", false, "network"),
            (259, "ublkb7", true, "userspace"),
            (259, "ublkb7", false, "userspace"),
            (252, "other7", true, "unknown"),
            (252, "nullb0", true, "unknown"),
            (230, "zd16", true, "unknown"),
            (252, "rnbd0", true, "network"),
            (152, "etherd/e1.1", true, "network"),
            (259, "pmem0s", false, "pmem"),
            (259, "nvme0n1", false, "disk"),
            (8, "sda", false, "disk"),
        ] {
            assert_eq!(kind_by_number((major, 5), name, virtual_device), kind, "{name}");
        }
    }
}
