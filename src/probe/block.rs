//! Block devices: from a device number down to the disks, through partitions, device-mapper, md
//! and loop.
//!
//! A device is found by its number (`/sys/dev/block/major:minor`) and what is below it by the links
//! and the nesting of its directory, never by a name. Attributes: Documentation/ABI/stable/sysfs-block.

use std::cell::OnceCell;
use std::path::Path;

use super::badblocks::{self, SECTOR_BYTES};
use super::filesystem::{self, Class};
use super::mountinfo::{self, Mounts};
use super::nvdimm;
use super::report::{BlockDevice, FilesystemLog, Mount};
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

/// The sources, with the mount table read at most once.
pub(super) struct Context<'a> {
    pub(super) sources: &'a Sources,
    /// In bytes.
    page_size: u64,
    mounts: OnceCell<Mounts>,
}

impl<'a> Context<'a> {
    pub(super) fn new(sources: &'a Sources, page_size: u64) -> Self {
        Self { sources, page_size, mounts: OnceCell::new() }
    }

    pub(super) fn mounts(&self) -> &Mounts {
        self.mounts.get_or_init(|| Mounts::read(self.sources))
    }
}

/// The device with this number; `None` if sysfs does not show it.
pub(super) fn device(context: &Context<'_>, number: Number) -> Option<BlockDevice> {
    Walk { context, left: DEVICES_MAX }.device(number, 0)
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
        let mut numbers: Vec<Number> = Vec::new();
        for number in [st_dev, mount.device] {
            if numbers.is_empty() && number.0 != 0 {
                numbers.push(number);
            }
        }
        if numbers.is_empty() {
            if let Some(uuid) = btrfs {
                numbers = self.btrfs_devices(uuid);
            }
            if numbers.is_empty() {
                numbers = self.devices_of_source(mount);
            }
        }
        // An xfs may keep its real-time files on another device.
        if let Some(path) = mountinfo::option(mount, "rtdev")
            && let Some(number) = self.context.sources.block_node(Path::new(path))
        {
            numbers.push(number);
        }
        numbers.dedup();
        let log = self.log(mount, depth);
        let device = match numbers.as_slice() {
            [] => None,
            [number] => self.device(*number, depth),
            [_, _, ..] => {
                let below: Vec<_> =
                    numbers.iter().filter_map(|number| self.device(*number, depth + 1)).collect();
                Some(BlockDevice {
                    name: mount.filesystem.clone(),
                    number: st_dev,
                    kind: "filesystem".to_owned(),
                    dax: below.first().and_then(|device| device.dax),
                    sector_size: below.iter().filter_map(|device| device.sector_size).max(),
                    read_only: below.iter().any(|device| device.read_only),
                    below,
                    ..BlockDevice::default()
                })
            }
        };
        device.map(|device| BlockDevice { log: Some(log), ..device })
    }

    /// Where a mounted filesystem keeps its log.
    fn log(&mut self, mount: &Mount, depth: usize) -> FilesystemLog {
        let Some(path) = mountinfo::option(mount, "logdev") else { return FilesystemLog::Internal };
        let number = self.context.sources.block_node(Path::new(path));
        match number.and_then(|number| self.device(number, depth + 1)) {
            Some(device) => FilesystemLog::External(Box::new(device)),
            None => FilesystemLog::Unknown(format!("its log device {path} is not visible here")),
        }
    }

    fn btrfs_devices(&self, uuid: &str) -> Vec<Number> {
        let directory = Path::new("/sys/fs/btrfs").join(uuid).join("devices");
        let sources = self.context.sources;
        let names = sources.names(&directory);
        names.iter().filter_map(|name| sources.device(directory.join(name).join("dev"))).collect()
    }

    /// The devices named in a mount's source; bcachefs separates several by colons. A btrfs of
    /// several devices names one of them, and sysfs the others.
    fn devices_of_source(&self, mount: &Mount) -> Vec<Number> {
        let sources = self.context.sources;
        let named: Vec<_> = mount
            .source
            .split(':')
            .filter_map(|path| sources.block_node(Path::new(path)))
            .collect();
        if mount.filesystem == "btrfs" && !named.is_empty() {
            for uuid in sources.names("/sys/fs/btrfs") {
                let devices = self.btrfs_devices(&uuid);
                if devices.iter().any(|device| named.contains(device)) {
                    return devices;
                }
            }
        }
        named
    }

    fn device(&mut self, number: Number, depth: usize) -> Option<BlockDevice> {
        if depth > DEPTH_MAX || self.left == 0 {
            return None;
        }
        self.left -= 1;
        let sources = self.context.sources;
        let directory = sources.link(format!("/sys/dev/block/{}:{}", number.0, number.1))?;
        let names = sources.names(&directory);
        let has = |name: &str| names.iter().any(|found| found == name);
        let mut device = BlockDevice {
            // A slash in a kernel name stands as an exclamation mark in sysfs.
            name: nvdimm::name(&directory).replace('!', "/"),
            number,
            read_only: sources.flag(directory.join("ro")).unwrap_or(false),
            ..BlockDevice::default()
        };
        if has("partition") {
            self.partition(&mut device, &directory, depth);
            return Some(device);
        }
        device.dax = sources.flag(directory.join("queue/dax"));
        device.sector_size = sources.number(directory.join("queue/logical_block_size"));
        let below =
            if has("slaves") { sources.names(directory.join("slaves")) } else { Vec::new() };
        for name in below {
            if let Some(number) = sources.device(directory.join("slaves").join(name).join("dev")) {
                device.below.extend(self.device(number, depth + 1));
            }
        }
        let virtual_device = !has("device");
        if has("loop") {
            "loop".clone_into(&mut device.kind);
            self.backing(&mut device, &directory, depth);
        } else if has("dm") {
            "device-mapper".clone_into(&mut device.kind);
        } else if has("md") {
            "raid".clone_into(&mut device.kind);
        } else if has("mm_stat") {
            "zram".clone_into(&mut device.kind);
        } else {
            kind_by_number(number, &device.name, virtual_device).clone_into(&mut device.kind);
        }
        if !virtual_device
            && let Some(found) = nvdimm::above(sources, &directory, device.dax == Some(true))
        {
            "pmem".clone_into(&mut device.kind);
            device.namespace = found.namespace;
            device.region = Some(found.region);
            // A sector namespace has a table between, and an attribute that is always empty.
            let is_plain = device.namespace.as_ref().is_none_or(|found| found.mode != "sector");
            let bad = sources.text(directory.join("badblocks")).filter(|_| is_plain);
            device.bad_blocks_known = bad.is_some();
            device.bad_blocks = bad.map_or_else(Vec::new, |text| badblocks::parse(&text));
        }
        Some(device)
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
        let whole_pages =
            [device.start, size].iter().flatten().all(|bytes| bytes.is_multiple_of(page));
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
        let Some(file) = self.context.sources.path(directory.join("loop/backing_file")) else {
            return;
        };
        // The path is as the mount namespace that set the device up saw it. Where it leads nowhere
        // here, the mount it seems to lie in is another one, and nothing is known.
        let mount = if self.context.sources.is_absent(&file) {
            None
        } else {
            self.context.mounts().by_path(&file).cloned()
        };
        if let Some(mount) = mount {
            if filesystem::class(&mount.filesystem) != Class::Memory {
                device.below.extend(self.of_mount(&mount, mount.device, None, depth + 1));
            }
            device.backing_mount = Some(Box::new(mount));
        }
        device.backing_file = Some(file);
    }
}

/// The kind of a device that its directory does not tell. The driver gives the kernel name, and
/// drivers without a number of their own show in nothing else.
fn kind_by_number(number: Number, name: &str, virtual_device: bool) -> &'static str {
    let driver = name.trim_end_matches(|c: char| c.is_ascii_digit());
    match number.0 {
        RAMDISK_MAJOR => "ramdisk",
        LOOP_MAJOR => "loop",
        NBD_MAJOR | DRBD_MAJOR => "network",
        _ if virtual_device && driver == "ublkb" => "userspace",
        _ if driver == "rbd" || driver == "nbd" => "network",
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
            (259, "ublkb7", false, "disk"),
            (252, "other7", true, "disk"),
            (8, "sda", false, "disk"),
        ] {
            assert_eq!(kind_by_number((major, 5), name, virtual_device), kind, "{name}");
        }
    }
}
