//! Everything seen of a path, before it is judged.

use std::ops::Range;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::devdax::SYSTEM_RAM;
use super::filesystem::Class;
use super::report::{BlockDevice, HugePages, MapSync, MemoryRegion, Mount, Namespace, Target};
use crate::cpu::WriteBack;
use crate::durability::PersistenceDomain;

/// Everything seen, before it is judged.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // each a fact of its own
pub(super) struct Facts {
    pub(super) path: PathBuf,
    pub(super) target: Target,
    pub(super) mount: Option<Mount>,
    /// Whether there is a mount table to be read.
    pub(super) mounts_shown: bool,
    /// What a command may do to that mount.
    pub(super) mounted: Mounted,
    /// A character device of which sysfs does not say whether it is device DAX.
    pub(super) hidden_node: bool,
    /// The part of sysfs that hides block devices, asked only where one was not found.
    pub(super) masked: Option<&'static Path>,
    pub(super) filesystem: Option<String>,
    pub(super) class: Option<Class>,
    pub(super) upper: Option<Mount>,
    /// An overlay: whether the bytes of the file are, or will be, in that upper directory.
    pub(super) in_upper: bool,
    pub(super) device: Option<BlockDevice>,
    /// The filesystem is larger than that device, and so has others.
    pub(super) has_more_devices: bool,
    pub(super) dax_device: Option<(Namespace, MemoryRegion)>,
    pub(super) statx_dax: Option<bool>,
    pub(super) dax_flag: Option<bool>,
    pub(super) map_sync: MapSync,
    /// What keeps a file to be made from being DAX, beside mount and flag.
    pub(super) bar: Option<Bar>,
    /// The file's bytes are in its inode.
    pub(super) inline_data: bool,
    pub(super) block_size: Option<u64>,
    pub(super) page_size: u64,
    /// Version of the running kernel.
    pub(super) kernel: Option<(u32, u32)>,
    pub(super) write_back: WriteBack,
    pub(super) huge_pages: HugePages,
    /// How far the device's first byte lies past a 2 MiB boundary of memory, if known.
    pub(super) shift: Option<u64>,
    pub(super) bad_ranges: Vec<Range<u64>>,
    /// False if memory below has bad ranges, and which of them lie here cannot be told.
    pub(super) bad_ranges_known: bool,
    /// For a device node that is not there: regions with room for a namespace, and how many bytes.
    pub(super) free_regions: Vec<(MemoryRegion, u64)>,
}

impl Facts {
    /// A device-DAX node that nobody can open: the kernel uses its memory, or it has no driver.
    pub(super) fn is_unusable(&self) -> bool {
        let without_driver = [Errno::NXIO, Errno::NODEV].map(Errno::raw_os_error);
        let is_memory = |(namespace, _): &(Namespace, MemoryRegion)| namespace.mode == SYSTEM_RAM;
        self.dax_device.as_ref().is_some_and(is_memory)
            || matches!(self.map_sync, MapSync::NotTried(errno) if without_driver.contains(&errno))
    }
}

/// What was seen of a mount that stands in the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mounted {
    /// Which mount: its number in the table.
    pub(super) id: u64,
    /// Nothing else is mounted on its point: the point names it.
    pub(super) alone: bool,
    /// mount(8) can make it again once it is unmounted: the filesystem is mounted nowhere else here,
    /// by the node of its device, with a log that it finds.
    pub(super) again: bool,
}

impl Mounted {
    pub(super) fn is_alone(self, mount: &Mount) -> bool {
        self.alone && self.id == mount.id
    }
}

/// What keeps files of a directory from being DAX, whatever mount and flag say
/// (fs/ext4/inode.c `ext4_should_enable_dax`, fs/xfs/xfs_iops.c `xfs_inode_supports_dax`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bar {
    /// They are encrypted.
    Encrypted,
    /// Their data goes through the journal.
    DataJournal,
    /// Their data is on the real-time device, which is not looked at.
    Realtime,
    /// The directory cannot be opened, so what it hands on is not known.
    Unreadable,
}

/// Whether the bad blocks of a device are all those of the memory below it: of persistent memory
/// itself, or of a partition of it. Whatever else lies between may put them anywhere.
pub(super) fn bad_blocks_are_its_own(device: &BlockDevice) -> bool {
    let has_none = |region: &&MemoryRegion| region.bad_blocks_known && region.bad_blocks.is_empty();
    device.bad_blocks_known || regions(device).iter().all(has_none)
}

/// Whether the driver offers DAX on this device.
pub(super) fn offers_dax(device: &BlockDevice) -> bool {
    device.dax == Some(true)
}

/// The memory regions that the device itself is made of, each once. A loop device's file is not
/// followed: its pages are never the memory below.
pub(super) fn regions(device: &BlockDevice) -> Vec<&MemoryRegion> {
    let mut out: Vec<&MemoryRegion> = Vec::new();
    walk(device, &mut |device| {
        if let Some(region) = &device.region {
            if !out.contains(&region) {
                out.push(region);
            }
        }
    });
    out
}

/// Visits a device and what it is made of, except behind loop devices.
pub(super) fn walk<'a>(device: &'a BlockDevice, visit: &mut impl FnMut(&'a BlockDevice)) {
    visit(device);
    if device.kind != "loop" {
        for below in &device.below {
            walk(below, visit);
        }
    }
}

/// The weakest domain of several regions: one of them may hold any byte of a file.
pub(super) fn weakest(regions: &[&MemoryRegion]) -> PersistenceDomain {
    let rank = |domain| match domain {
        PersistenceDomain::None => 4,
        PersistenceDomain::CpuCache => 3,
        PersistenceDomain::MemoryController => 2,
        PersistenceDomain::Unknown => 1,
        PersistenceDomain::Volatile => 0,
    };
    regions
        .iter()
        .map(|region| region.persistence_domain)
        .min_by_key(|domain| rank(*domain))
        .unwrap_or(PersistenceDomain::None)
}

/// The memory regions behind the path, each once.
pub(super) fn all_regions(facts: &Facts) -> Vec<&MemoryRegion> {
    match (&facts.dax_device, &facts.device) {
        (Some((_, region)), _) => vec![region],
        (None, Some(device)) => regions(device),
        (None, None) => Vec::new(),
    }
}
