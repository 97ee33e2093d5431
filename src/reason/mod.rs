//! Why a report says what it says: the cap of each layer, and the reasons with their remedies. Their
//! words are in `probe`: `reasons`, `memory_reasons` and `layers::words`.

pub(crate) mod remedy;

use std::fmt;

pub use self::remedy::{Recipe, Remedy};
use crate::durability::Durability;

/// What lies between a store and the medium. Each has a part in the level: see [`Cap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Layer {
    /// What this process can see of the others.
    Visibility,
    /// The file itself, and how it is written.
    File,
    /// An overlay filesystem.
    Overlay,
    /// The type of the filesystem.
    Filesystem,
    /// The options it is mounted with.
    MountOptions,
    /// Its log (journal).
    Log,
    /// The block devices, down to the last.
    BlockStack,
    /// The region of persistent memory.
    Region,
    /// The devices that the region is made of.
    RegionDevices,
}

impl Layer {
    /// The name used in reports and JSON: `mount-options`, `block-stack`, ...
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Visibility => "visibility",
            Self::File => "file",
            Self::Overlay => "overlay",
            Self::Filesystem => "filesystem",
            Self::MountOptions => "mount-options",
            Self::Log => "log",
            Self::BlockStack => "block-stack",
            Self::Region => "region",
            Self::RegionDevices => "region-devices",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What one layer under the path is known to keep. The level of the path is the least of its caps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cap {
    /// The layer.
    pub layer: Layer,
    /// The most that it keeps, by what was seen.
    pub level: Durability,
    /// What was seen, or could not be.
    pub evidence: String,
    /// The reason that says so among [`Report::reasons`](crate::probe::Report::reasons), where the layer lowers the level.
    pub reason: Option<ReasonCode>,
}

/// Why the verdict is what it is. Codes are stable: programs may match on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[allow(missing_docs)] // the text of each is its documentation: see `as_str`
pub enum ReasonCode {
    MountedDaxNever,
    DaxInodeWithoutFlag,
    DaxFlagSetFileOpen,
    NeverDax,
    FilesystemWithoutDax,
    BlockSizeNotPageSize,
    XfsFellBackToDaxNever,
    RawNamespace,
    SectorNamespace,
    NoDaxDevice,
    VirtioPmemAsynchronous,
    OverlayOnDax,
    PersistenceDomainUnknown,
    VolatileRegion,
    E820Region,
    KernelTooOld,
    HugePagesMisaligned,
    BadBlocks,
    ReadOnly,
    MemoryBacked,
    LayerUnverified,
    NoBarrier,
    NoWriteBackInstruction,
    NotARegularFile,
    PermissionDenied,
    MapSyncRefused,
    MapSyncNotTried,
    MemoryDeviceNotArmed,
    MemoryDeviceFailed,
    MemoryDeviceLocked,
    MemoryDeviceErasing,
    MemoryDeviceUnknown,
    CxlFlushUnknown,
    SystemRam,
    DeviceDaxDisabled,
    LeaseHeld,
    MemoryLimit,
    RegionWithoutNamespace,
}

impl ReasonCode {
    /// The stable name: `mounted-dax-never`, `overlay-on-dax`, ...
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MountedDaxNever => "mounted-dax-never",
            Self::DaxInodeWithoutFlag => "dax-inode-without-flag",
            Self::NeverDax => "never-dax",
            Self::DaxFlagSetFileOpen => "dax-flag-set-file-open",
            Self::FilesystemWithoutDax => "filesystem-without-dax",
            Self::BlockSizeNotPageSize => "block-size-not-page-size",
            Self::XfsFellBackToDaxNever => "xfs-fell-back-to-dax-never",
            Self::RawNamespace => "raw-namespace",
            Self::SectorNamespace => "sector-namespace",
            Self::NoDaxDevice => "no-dax-device",
            Self::VirtioPmemAsynchronous => "virtio-pmem-asynchronous",
            Self::OverlayOnDax => "overlay-on-dax",
            Self::PersistenceDomainUnknown => "persistence-domain-unknown",
            Self::VolatileRegion => "volatile-region",
            Self::E820Region => "e820-region",
            Self::KernelTooOld => "kernel-too-old",
            Self::HugePagesMisaligned => "huge-pages-misaligned",
            Self::BadBlocks => "bad-blocks",
            Self::ReadOnly => "read-only",
            Self::MemoryBacked => "memory-backed",
            Self::LayerUnverified => "layer-unverified",
            Self::NoBarrier => "no-barrier",
            Self::NoWriteBackInstruction => "no-write-back-instruction",
            Self::NotARegularFile => "not-a-regular-file",
            Self::PermissionDenied => "permission-denied",
            Self::MapSyncRefused => "map-sync-refused",
            Self::MapSyncNotTried => "map-sync-not-tried",
            Self::MemoryDeviceNotArmed => "memory-device-not-armed",
            Self::MemoryDeviceFailed => "memory-device-failed",
            Self::MemoryDeviceLocked => "memory-device-locked",
            Self::MemoryDeviceErasing => "memory-device-erasing",
            Self::MemoryDeviceUnknown => "memory-device-unknown",
            Self::CxlFlushUnknown => "cxl-flush-unknown",
            Self::SystemRam => "system-ram",
            Self::DeviceDaxDisabled => "device-dax-disabled",
            Self::LeaseHeld => "lease-held",
            Self::MemoryLimit => "memory-limit",
            Self::RegionWithoutNamespace => "region-without-namespace",
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One reason of the verdict, with its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reason {
    /// The stable code.
    pub code: ReasonCode,
    /// What was found, with the names of the things it was found on.
    pub text: String,
    /// What to do about it; `None` where nothing helps.
    pub remedy: Option<Remedy>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if let Some(remedy) = &self.remedy {
            write!(f, " (remedy: {remedy})")?;
        }
        Ok(())
    }
}
