//! The words of the contract: what a region promises and in which unit it works.

use std::fmt;
use std::str::FromStr;

/// What survives once [`drain`](crate::Region::drain) has returned `Ok`.
///
/// Levels are ordered: a later one promises everything an earlier one does.
///
/// | level | process killed | OS crash or power cut |
/// |---|---|---|
/// | `ProcessOnly` | survives | lost |
/// | `Unverified` | survives | survives only if the layer below keeps its word |
/// | `Fsync` | survives | survives |
/// | `PowerFail` | survives | survives |
///
/// `Fsync` and `PowerFail` promise the same survival; they differ in who keeps it: the
/// filesystem and the device at an `fdatasync`, or the persistence domain of the memory at a
/// store fence. Code that needs the data to survive a power cut requires `Fsync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// Survives the death of the process; lost with the running kernel (tmpfs, memfd, a
    /// volatile or e820 region, emulation on DRAM).
    ProcessOnly,
    /// The layer below gives no verifiable promise: `MAP_SYNC` on a region that names no
    /// persistence domain, FUSE, network filesystems, overlay, `nobarrier`.
    Unverified,
    /// Kept by `fdatasync`: ext4, xfs, btrfs and the like, and DAX without `MAP_SYNC`.
    Fsync,
    /// Kept by CPU write-backs and a store fence, on memory whose persistence domain is known
    /// (ADR or eADR).
    PowerFail,
}

impl Durability {
    /// The name used in reports and JSON: `PowerFail`, `Fsync`, `Unverified`, `ProcessOnly`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProcessOnly => "ProcessOnly",
            Self::Unverified => "Unverified",
            Self::Fsync => "Fsync",
            Self::PowerFail => "PowerFail",
        }
    }

    /// One sentence for people: what an OS crash or a power cut leaves.
    #[must_use]
    pub const fn after_power_cut(self) -> &'static str {
        match self {
            Self::ProcessOnly => "nothing survives a power cut",
            Self::Unverified => "survives a power cut only if the layer below keeps its word",
            Self::Fsync | Self::PowerFail => "survives a power cut",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        [Self::ProcessOnly, Self::Unverified, Self::Fsync, Self::PowerFail]
            .into_iter()
            .find(|level| level.as_str() == s)
            .ok_or_else(|| format!("{s:?} is not a durability level"))
    }
}

/// The unit a flush works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Granularity {
    /// Caches are inside the persistence domain (eADR), or there is nothing to write back to:
    /// a flush does nothing, a drain is a fence.
    Byte,
    /// A flush writes back whole cache lines (ADR).
    CacheLine,
    /// A flush writes back whole pages or filesystem blocks.
    Page,
}

impl Granularity {
    /// The name used in reports and JSON: `byte`, `cache_line`, `page`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Byte => "byte",
            Self::CacheLine => "cache_line",
            Self::Page => "page",
        }
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where data counts as safe, as the kernel reports it for the region behind a mapping
/// (`persistence_domain` in the nvdimm sysfs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PersistenceDomain {
    /// `memory_controller`: ADR. Lines must be written back, then fenced.
    MemoryController,
    /// `cpu_cache`: eADR. Only the fence is needed.
    CpuCache,
    /// There is a memory region, and it names no domain, or one this library does not know.
    Unknown,
    /// The memory is volatile: declared with `memmap=`, or a volatile CXL or HMAT range.
    Volatile,
    /// There is no memory region behind this path.
    None,
}

impl PersistenceDomain {
    /// The name used in reports and JSON: the kernel's word where there is one.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MemoryController => "memory_controller",
            Self::CpuCache => "cpu_cache",
            Self::Unknown => "unknown",
            Self::Volatile => "volatile",
            Self::None => "none",
        }
    }
}

impl fmt::Display for PersistenceDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a region keeps its promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// `MAP_SYNC` mapping of a file on a DAX filesystem; cache-line write-back.
    FsDax,
    /// Mapping of a device-DAX character device; cache-line write-back.
    DevDax,
    /// `pwrite` and `fdatasync`; reads come from a mapping.
    PageCache,
    /// Memory-backed file; nothing outlives the kernel.
    Volatile,
}

impl Backend {
    /// The name used in reports and JSON: `fsdax`, `devdax`, `page_cache`, `volatile`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FsDax => "fsdax",
            Self::DevDax => "devdax",
            Self::PageCache => "page_cache",
            Self::Volatile => "volatile",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_by_what_they_promise() {
        assert!(Durability::ProcessOnly < Durability::Unverified);
        assert!(Durability::Unverified < Durability::Fsync);
        assert!(Durability::Fsync < Durability::PowerFail);
    }

    #[test]
    fn names_read_back() {
        for level in [
            Durability::ProcessOnly,
            Durability::Unverified,
            Durability::Fsync,
            Durability::PowerFail,
        ] {
            assert_eq!(level.as_str().parse(), Ok(level));
        }
        assert!("powerfail".parse::<Durability>().is_err());
    }

    #[test]
    fn names_are_those_of_reports() {
        let granularities = [Granularity::Byte, Granularity::CacheLine, Granularity::Page];
        let names = granularities.map(|granularity| format!("{granularity:>10}"));
        assert_eq!(names, ["      byte", "cache_line", "      page"]);
        let domains = [
            PersistenceDomain::MemoryController,
            PersistenceDomain::CpuCache,
            PersistenceDomain::Unknown,
            PersistenceDomain::Volatile,
            PersistenceDomain::None,
        ];
        let names = domains.map(|domain| domain.to_string());
        assert_eq!(names, ["memory_controller", "cpu_cache", "unknown", "volatile", "none"]);
        let backends = [Backend::FsDax, Backend::DevDax, Backend::PageCache, Backend::Volatile];
        let names = backends.map(|backend| backend.to_string());
        assert_eq!(names, ["fsdax", "devdax", "page_cache", "volatile"]);
    }

    #[test]
    fn a_sentence_for_each_level() {
        let sentence = Durability::after_power_cut;
        assert!(sentence(Durability::ProcessOnly).starts_with("nothing"));
        assert!(sentence(Durability::Unverified).contains("only if"));
        assert_eq!(sentence(Durability::Fsync), "survives a power cut");
        assert_eq!(sentence(Durability::PowerFail), "survives a power cut");
    }
}
