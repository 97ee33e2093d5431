//! The report: plain data, filled in by the sources of facts and judged by the verdict.

use std::ops::Range;
use std::path::PathBuf;

use super::memory_device::MemoryDevice;
use crate::cpu::WriteBack;
use crate::durability::{Backend, Durability, Granularity, PersistenceDomain};
pub use crate::reason::{Cap, Layer, Reason, ReasonCode};

/// What the path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// A regular file.
    File,
    /// A directory: the report says what a file created in it would get.
    Directory,
    /// Nothing yet: the report says what a file created under this name would get.
    Missing,
    /// A block device.
    BlockDevice,
    /// A device-DAX character device.
    DaxDevice,
    /// Something that cannot hold a region (FIFO, socket, another character device).
    Other,
}

/// The trial mapping with `MAP_SHARED_VALIDATE | MAP_SYNC`, which alone decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MapSync {
    /// The kernel accepted the trial mapping of this very file.
    Accepted,
    /// The kernel refused it with this errno.
    Refused(i32),
    /// There is no file to try it on; the facts say it would be accepted (`true`) or refused.
    Predicted(bool),
    /// It could not be tried (no permission, not a file), with the errno that stood in the way.
    NotTried(i32),
}

/// Whether 2 MiB mappings are possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HugePages {
    /// Every 2 MiB piece of the file can be mapped by one huge page.
    Possible {
        /// 2 MiB pieces whose blocks are contiguous and congruent modulo 2 MiB.
        aligned: u64,
        /// 2 MiB pieces in the file.
        total: u64,
    },
    /// Not for this file: extents are not aligned to 2 MiB.
    Misaligned {
        /// 2 MiB pieces that could be mapped by a huge page all the same.
        aligned: u64,
        /// 2 MiB pieces in the file.
        total: u64,
    },
    /// The question does not arise: not DAX, or a file of less than 2 MiB.
    NotApplicable,
    /// Could not be found out: no file yet, holes in it, or a device (device-mapper) whose mapping
    /// onto the memory cannot be read without privilege.
    Unknown,
}

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mount {
    /// The mount's number, as `STATX_MNT_ID` gives it.
    pub id: u64,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The part of the filesystem that is mounted there (`/` unless bind mount or subvolume).
    pub root: PathBuf,
    /// Filesystem type: `ext4`, `xfs`, ...
    pub filesystem: String,
    /// What is mounted: a device path, `tmpfs`, ...
    pub source: String,
    /// Per-mount options and superblock options, in that order, without repetition. One `ro`
    /// among them makes the mount read-only, whatever else says `rw`.
    pub options: Vec<String>,
    /// Major and minor number of the filesystem's device.
    pub device: (u32, u32),
}

/// A block device, with what it is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockDevice {
    /// Kernel name: `pmem0`, `dm-0`, `vda1`. For a filesystem over several devices, the name of
    /// the filesystem.
    pub name: String,
    /// Major and minor number.
    pub number: (u32, u32),
    /// What it is: `disk`, `pmem`, `partition`, `device-mapper`, `loop`, `raid`, `bcache`, `ramdisk`,
    /// `zram`, `network`, `userspace`; `filesystem` where one filesystem spans several devices;
    /// `unknown` where it cannot be told.
    pub kind: String,
    /// What should tell what the device is, or what is below it, and cannot be read.
    pub unread: Option<PathBuf>,
    /// `queue/write_cache`: whether the kernel sends the device flushes (`write back`) or leaves them
    /// out (`write through`); `None` if it cannot be read.
    pub write_cache: Option<WriteCache>,
    /// The device's own word for its cache, where it can be had: `cache_type` of virtio-blk and of
    /// SCSI disks; Identify Controller of NVMe, which is asked as root and only where `write_cache` is
    /// write through.
    pub own_cache: Option<WriteCache>,
    /// A device-mapper device: what it does with a flush, as far as that is known.
    pub mapping: Option<Mapping>,
    /// `queue/dax`: whether the driver offers DAX at all. A partition has that of its disk.
    pub dax: Option<bool>,
    /// Logical sector size in bytes.
    pub sector_size: Option<u32>,
    /// True if the kernel refuses writes to it (`ro` in sysfs).
    pub read_only: bool,
    /// Bad ranges of the device, in bytes from its start.
    pub bad_blocks: Vec<Range<u64>>,
    /// True if the device lists its own bad ranges: a pmem device without a translation table, and a
    /// partition of one.
    pub bad_blocks_known: bool,
    /// A partition: its first byte on the disk.
    pub start: Option<u64>,
    /// Where the log of the filesystem on this device lies; `None` for a device that is below another
    /// one, or has no filesystem.
    pub log: Option<FilesystemLog>,
    /// Every option of an ext4 on this device, those included that are its default and so not among
    /// the mount's (`/proc/fs/ext4/DISK/options`); `None` if it cannot be read, or is not ext4.
    pub options: Option<Vec<String>>,
    /// A loop device: the file behind it.
    pub backing_file: Option<PathBuf>,
    /// A loop device: the mount that file lies in, if it is visible.
    pub backing_mount: Option<Box<Mount>>,
    /// A loop device: what that file is.
    pub image: Option<LoopImage>,
    /// Persistent memory: the namespace the device shows.
    pub namespace: Option<Namespace>,
    /// Persistent memory: the region of that namespace.
    pub region: Option<MemoryRegion>,
    /// The devices below it: the disk of a partition, the targets of a device-mapper device, the
    /// device of the filesystem that holds a loop device's file.
    pub below: Vec<BlockDevice>,
}

/// What a device-mapper device does with a flush.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mapping {
    /// Its targets, of these types, pass it on to the devices below. Only root may read the types.
    PassesOn(Vec<String>),
    /// Its UUID names this program (LVM, cryptsetup, multipath), whose targets pass it on. The targets
    /// themselves could not be read.
    MadeBy(String),
    /// A target of this type may leave it out, or keep its own table in memory.
    Foreign(String),
    /// Neither its targets nor who made it could be read.
    Unknown,
}

/// What a device does with a write before it calls it done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WriteCache {
    /// It may keep it in a cache that loses it: a flush is needed.
    Back,
    /// It is on the medium, or the cache outlives a power loss: no flush is needed.
    Through,
}

impl WriteCache {
    /// The kernel's words: `write back`, `write through`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Back => "write back",
            Self::Through => "write through",
        }
    }
}

/// The file behind a loop device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LoopImage {
    /// Every byte has a block that is the file's own, so a write needs no new one.
    Allocated,
    /// It has holes.
    Sparse,
    /// It shares blocks with another file, or its filesystem writes every block to a new place.
    CopyOnWrite,
    /// The path that sysfs gives leads to another file here, or nowhere.
    Elsewhere,
    /// It cannot be looked at.
    Unknown,
}

/// Where a filesystem keeps its log (journal).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FilesystemLog {
    /// On the device that has the files.
    Internal,
    /// On a device of its own.
    External(Box<BlockDevice>),
    /// It has none.
    Absent,
    /// It cannot be told where; the text names what could not be read.
    Unknown(String),
}

/// An nvdimm namespace or device-DAX instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Namespace {
    /// Kernel name: `namespace0.0`, `dax0.0`.
    pub name: String,
    /// `raw`, `fsdax`, `devdax`, `sector`; `system-ram` for device DAX that the kernel uses as
    /// ordinary memory.
    pub mode: String,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Alignment of mappings in bytes.
    pub align: Option<u64>,
    /// A device-DAX instance: the nvdimm namespace it shows, which is what `ndctl` is given:
    /// `namespace0.0` for `dax0.0`, and another number for another.
    pub claims: Option<String>,
}

/// Address range scrubs: the platform's search for bad memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Scrubs {
    /// How many ended since the driver was loaded.
    pub completed: u64,
    /// True while one runs.
    pub running: bool,
}

/// The memory region behind a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryRegion {
    /// Kernel name: `region0`.
    pub name: String,
    /// Who describes it: `ACPI.NFIT`, `e820`, `virtio-pmem`, `cxl`, ...
    pub provider: String,
    /// Its persistence domain.
    pub persistence_domain: PersistenceDomain,
    /// True if the kernel refuses writes to it.
    pub read_only: bool,
    /// NUMA node, if the platform names one.
    pub numa_node: Option<i32>,
    /// True if the region flushes through a host or device queue and so cannot `MAP_SYNC`.
    pub asynchronous: bool,
    /// Bad ranges of the region, in bytes from its start, those of all its namespaces.
    pub bad_blocks: Vec<Range<u64>>,
    /// False if that list could not be read: a region that is disabled has none to show.
    pub bad_blocks_known: bool,
    /// Whether a write can clear them: its bus knows the command `clear_error`
    /// (drivers/nvdimm/bus.c `nvdimm_clear_poison`); `None` if the bus does not say.
    pub clears_errors: Option<bool>,
    /// The scrubs of its bus; `None` if the bus has none: then only those errors are known that were
    /// met (or that firmware listed).
    pub scrubs: Option<Scrubs>,
    /// The devices that hold it, each once, in the order of the region's mappings. Empty for a region
    /// that names none (e820, virtio-pmem, ordinary memory as device DAX).
    pub devices: Vec<MemoryDevice>,
    /// What on the way to its devices could not be read: not every device is in `devices` then.
    pub devices_unread: Vec<PathBuf>,
}

/// What lies under one path, and what that means for a region there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The path as it was asked for.
    pub path: PathBuf,
    /// What the path is.
    pub target: Target,
    /// The mount it lies in. For a block device, where it is mounted; `None` if it is not, for
    /// device DAX, and for files in no visible mount (memfd).
    pub mount: Option<Mount>,
    /// Filesystem type; `None` for device nodes that are not mounted.
    pub filesystem: Option<String>,
    /// An overlay: the mount of its upper directory, which holds what is written.
    pub upper: Option<Mount>,
    /// The block device under the filesystem, resolved down to the disks.
    pub device: Option<BlockDevice>,
    /// The nvdimm namespace or device-DAX instance at the bottom.
    pub namespace: Option<Namespace>,
    /// The memory regions at the bottom, each once (striped device-mapper has several).
    pub regions: Vec<MemoryRegion>,
    /// `STATX_ATTR_DAX`, a hint only; `None` where the kernel does not report it.
    pub statx_dax: Option<bool>,
    /// `FS_XFLAG_DAX` of the file, or of the directory that a new file inherits it from; `None`
    /// where it was not needed to explain the trial mapping, or cannot be read.
    pub dax_flag: Option<bool>,
    /// The trial mapping.
    pub map_sync: MapSync,
    /// The weakest persistence domain of the regions.
    pub persistence_domain: PersistenceDomain,
    /// The backend a region opened here gets.
    pub backend: Backend,
    /// What a drained write survives here: the least of `caps`.
    pub durability: Durability,
    /// The unit a flush works in here.
    pub granularity: Granularity,
    /// Whether 2 MiB mappings are possible.
    pub huge_pages: HugePages,
    /// The CPU's write-back instruction.
    pub write_back: WriteBack,
    /// Block size of the filesystem, in bytes; `None` where it was not asked for, because only ext4
    /// and xfs make it a condition of DAX.
    pub block_size: Option<u64>,
    /// True if nothing can be written here (mount, device or region read-only).
    pub read_only: bool,
    /// Bytes of the file, block device or device-DAX node that are known to be bad, from its start.
    pub bad_ranges: Vec<Range<u64>>,
    /// False if memory below has bad ranges, and which of them lie in the path cannot be told.
    pub bad_ranges_known: bool,
    /// NUMA node of the memory, if known.
    pub numa_node: Option<i32>,
    /// Why, most important first.
    pub reasons: Vec<Reason>,
    /// What each layer under the path keeps, from the top down.
    pub caps: Vec<Cap>,
}

impl Report {
    /// The reasons that hold the level below `required`, most important first.
    ///
    /// What keeps `MAP_SYNC` away is among them only where a level is required that nothing else
    /// gives. A reason that lowers no level is never among them.
    #[must_use]
    pub fn reasons_below(&self, required: Durability) -> Vec<Reason> {
        let lower = |cap: &&Cap| cap.level < required;
        // How the file is written lowers the level: then whatever keeps it from being mapped does.
        let mapped = self.caps.iter().filter(lower).all(|cap| cap.layer != Layer::File);
        let lowers = |reason: &&Reason| {
            let caps = self.caps.iter().filter(|cap| cap.reason == Some(reason.code));
            let mut caps = caps.filter(|cap| cap.evidence == reason.text).peekable();
            match reason.code {
                ReasonCode::ReadOnly | ReasonCode::BadBlocks | ReasonCode::HugePagesMisaligned => {
                    false
                }
                _ if caps.peek().is_some() => caps.any(|cap| lower(&cap)),
                _ => !mapped,
            }
        };
        self.reasons.iter().filter(lowers).cloned().collect()
    }
}
