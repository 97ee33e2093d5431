//! Persistent memory in the nvdimm sysfs: from a device directory up to its namespace and region.
//!
//! The nesting of the directories is the relation, so nothing is matched by name:
//! `.../ndbus0/region0/pfn0.1/block/pmem0`. What a directory is, its `uevent` says in `DEVTYPE`
//! (the `device_type` names of drivers/nvdimm): `nd_namespace_io`, `nd_namespace_pmem`, `nd_pfn`,
//! `nd_btt`, `nd_dax`; `nd_pmem` and `nd_volatile` for regions. Attributes:
//! Documentation/ABI/testing/sysfs-bus-nvdimm.
//!
//! `persistence_domain` exists only if the platform names one: NFIT platform capabilities
//! (drivers/acpi/nfit/core.c), always `memory_controller` for CXL (drivers/cxl/pmem.c), papr and
//! open firmware; never for e820 and virtio.

use std::path::{Path, PathBuf};

use super::badblocks;
use super::nmem;
use super::report::{MemoryRegion, Namespace, Scrubs};
use super::sources::Sources;
use crate::durability::PersistenceDomain;

/// What lies under a pmem block device or a device-DAX node.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) namespace: Option<Namespace>,
    pub(super) region: MemoryRegion,
    /// The directory of the region.
    pub(super) directory: PathBuf,
}

/// `DEVTYPE` of a device directory.
pub(super) fn devtype(sources: &Sources, directory: &Path) -> Option<String> {
    let uevent = sources.text(directory.join("uevent"))?;
    uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE=")).map(str::to_owned)
}

/// Walks up from a device directory; `None` if there is no nvdimm region above it. `dax` says
/// whether the block device on it offers DAX, which tells a raw namespace from one that the
/// platform brings up ready (e820, virtio).
pub(super) fn above(sources: &Sources, device: &Path, dax: bool) -> Option<Found> {
    let mut namespace = None;
    for directory in device.ancestors().take_while(|dir| dir.starts_with("/sys/devices/")) {
        let Some(devtype) = devtype(sources, directory) else { continue };
        match devtype.as_str() {
            "nd_pfn" => namespace = Some(claimed(sources, directory, "fsdax")),
            "nd_dax" => namespace = Some(claimed(sources, directory, "devdax")),
            "nd_btt" => namespace = Some(claimed(sources, directory, "sector")),
            "nd_namespace_io" | "nd_namespace_pmem" | "nd_namespace_blk" => {
                namespace = Some(Namespace {
                    name: name(directory),
                    mode: if dax { "fsdax" } else { "raw" }.to_owned(),
                    size: sources.number(directory.join("size")),
                    align: None,
                    claims: None,
                });
            }
            "nd_pmem" | "nd_volatile" | "nd_blk" => {
                return Some(Found {
                    namespace,
                    region: region(sources, directory, &devtype),
                    directory: directory.to_owned(),
                });
            }
            _ => {}
        }
    }
    None
}

/// The namespace that a pfn, dax or btt device claimed; its own directory says which.
fn claimed(sources: &Sources, directory: &Path, mode: &str) -> Namespace {
    Namespace {
        name: sources
            .text(directory.join("namespace"))
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| name(directory)),
        mode: mode.to_owned(),
        size: sources.number(directory.join("size")),
        align: sources.number(directory.join("align")),
        claims: None,
    }
}

/// The region whose directory this is.
pub(super) fn region_at(sources: &Sources, directory: &Path) -> Option<MemoryRegion> {
    let devtype = devtype(sources, directory)?;
    matches!(devtype.as_str(), "nd_pmem" | "nd_volatile" | "nd_blk")
        .then(|| region(sources, directory, &devtype))
}

/// The regions with room for a namespace, and how many bytes: `available_size` (sysfs-bus-nvdimm).
pub(super) fn free_regions(sources: &Sources) -> Vec<(MemoryRegion, u64)> {
    let bus = Path::new("/sys/bus/nd/devices");
    let names = sources.names(bus);
    let free = |name: &String| {
        let directory = sources.link(bus.join(name))?;
        let region = region_at(sources, &directory)?;
        let bytes: u64 = sources.number(directory.join("available_size"))?;
        (bytes > 0).then_some((region, bytes))
    };
    names.iter().filter_map(free).collect()
}

fn region(sources: &Sources, directory: &Path, devtype: &str) -> MemoryRegion {
    // The bus is the directory above the region, and knows who described it.
    let bus: PathBuf = directory.parent().map(Path::to_owned).unwrap_or_default();
    let provider = sources.text(bus.join("provider")).unwrap_or_default();
    let named = sources.text(directory.join("persistence_domain")).unwrap_or_default();
    // memmap= and legacy NVDIMMs look the same to the kernel, so e820 promises nothing.
    let persistence_domain = match named.as_str() {
        _ if devtype == "nd_volatile" || provider == "e820" => PersistenceDomain::Volatile,
        "memory_controller" => PersistenceDomain::MemoryController,
        "cpu_cache" => PersistenceDomain::CpuCache,
        _ => PersistenceDomain::Unknown,
    };
    // Not readable while the region is disabled (drivers/nvdimm/region_devs.c).
    let bad = sources.text(directory.join("badblocks"));
    let (devices, devices_unread) = nmem::of_region(sources, directory);
    MemoryRegion {
        name: name(directory),
        asynchronous: provider == "virtio-pmem",
        provider,
        persistence_domain,
        read_only: sources.flag(directory.join("read_only")).unwrap_or(false),
        numa_node: numa_node(sources, directory),
        clears_errors: sources
            .text(bus.join("commands"))
            .map(|commands| commands.split_ascii_whitespace().any(|name| name == "clear_error")),
        bad_blocks_known: bad.is_some(),
        bad_blocks: bad.map_or_else(Vec::new, |text| badblocks::parse(&text)),
        scrubs: sources.text(bus.join("nfit/scrub")).and_then(|text| scrubs(&text)),
        devices,
        devices_unread,
    }
}

/// `nfit/scrub`: how many scrubs ended since the driver was loaded, with a `+` while one runs
/// (sysfs-bus-nfit).
fn scrubs(text: &str) -> Option<Scrubs> {
    let number = text.strip_suffix('+').unwrap_or(text);
    Some(Scrubs { completed: number.parse().ok()?, running: number.len() < text.len() })
}

/// `numa_node` of a directory; the kernel writes -1 for none.
pub(super) fn numa_node(sources: &Sources, directory: &Path) -> Option<i32> {
    sources.number(directory.join("numa_node")).filter(|node| *node >= 0)
}

pub(super) fn name(directory: &Path) -> String {
    directory.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
