//! Device DAX: from a character device to its memory.
//!
//! Three kinds of memory come as `/dev/daxX.Y` (drivers/dax): an nvdimm namespace of mode `devdax`,
//! which is persistent and whose region says how; memory that firmware set aside ("hmem", EFI
//! specific-purpose memory); and a volatile CXL region. The last two are ordinary memory.
//! Attributes: Documentation/ABI/testing/sysfs-bus-dax.

use std::ops::Range;
use std::path::Path;

use super::badblocks;
use super::nvdimm;
use super::report::{MemoryRegion, Namespace};
use super::sources::{Number, Sources};
use crate::durability::PersistenceDomain;

/// A device-DAX instance with the memory behind it.
#[derive(Debug)]
pub(super) struct DaxDevice {
    pub(super) namespace: Namespace,
    pub(super) region: MemoryRegion,
    /// Its bad ranges, from its own start; `None` if its region has some, and where it begins in the
    /// region cannot be read.
    pub(super) bad_ranges: Option<Vec<Range<u64>>>,
}

/// The mode of an instance whose memory the kernel uses as its own (drivers/dax/kmem.c).
pub(super) const SYSTEM_RAM: &str = "system-ram";

/// The device-DAX instance with this character device number; `None` if it is another kind.
pub(super) fn find(sources: &Sources, number: Number) -> Option<DaxDevice> {
    at(sources, &sources.char_directory(number)?)
}

/// The device-DAX instance whose directory this is; `None` if it is something else's.
pub(super) fn at(sources: &Sources, directory: &Path) -> Option<DaxDevice> {
    if sources.link_name(directory.join("subsystem"))? != "dax" {
        return None;
    }
    let align = ["align", "dax_region/align", "../dax_region/align"]
        .iter()
        .find_map(|attribute| sources.number::<u64>(directory.join(attribute)))
        .filter(|align| align.is_power_of_two());
    let is_memory =
        sources.link_name(directory.join("driver")).is_some_and(|driver| driver == "kmem");
    let mut namespace = Namespace {
        name: nvdimm::name(directory),
        mode: if is_memory { SYSTEM_RAM } else { "devdax" }.to_owned(),
        size: sources.number(directory.join("size")),
        align,
        claims: None,
    };
    let Some(found) = nvdimm::above(sources, directory, true) else {
        let region = ordinary_memory(sources, directory);
        return Some(DaxDevice { namespace, region, bad_ranges: Some(Vec::new()) });
    };
    if let Some(above) = found.namespace {
        namespace.size = namespace.size.or(above.size);
        namespace.claims = Some(above.name);
    }
    let bad_ranges = bad_ranges(sources, directory, &found.directory, &found.region, &namespace);
    Some(DaxDevice { namespace, region: found.region, bad_ranges })
}

/// The region's bad ranges that lie in the instance, from the instance's start. A region lists the
/// errors of all its namespaces, and an instance begins behind its namespace's own metadata.
fn bad_ranges(
    sources: &Sources,
    instance: &Path,
    region: &Path,
    memory: &MemoryRegion,
    namespace: &Namespace,
) -> Option<Vec<Range<u64>>> {
    if memory.bad_blocks.is_empty() {
        return memory.bad_blocks_known.then(Vec::new);
    }
    let start = sources
        .address(instance.join("resource"))?
        .checked_sub(sources.address(region.join("resource"))?)?;
    let end = start.checked_add(namespace.size?)?;
    Some(badblocks::within(&memory.bad_blocks, &(start..end)))
}

/// The memory of an instance without an nvdimm region above it.
fn ordinary_memory(sources: &Sources, directory: &Path) -> MemoryRegion {
    let mut name = nvdimm::name(directory);
    let mut provider = String::new();
    for above in directory.ancestors().skip(1).take_while(|dir| dir.starts_with("/sys/devices/")) {
        let this = nvdimm::name(above);
        match nvdimm::devtype(sources, above).as_deref() {
            // drivers/cxl/core/region.c makes a dax_region only for volatile regions.
            Some("cxl_region") => {
                (name, provider) = (this, "cxl".to_owned());
                break;
            }
            Some("cxl_dax_region") => {
                (name, provider) = (this, "cxl".to_owned());
                continue;
            }
            _ => {}
        }
        let driver = sources.link_name(above.join("driver")).unwrap_or_default();
        if provider.is_empty()
            && (driver == "dax_hmem" || driver == "hmem" || this.starts_with("hmem."))
        {
            (name, provider) = (this, "hmem".to_owned());
            break;
        }
    }
    let persistence_domain =
        if provider.is_empty() { PersistenceDomain::Unknown } else { PersistenceDomain::Volatile };
    MemoryRegion {
        name,
        provider: if provider.is_empty() { "unknown".to_owned() } else { provider },
        persistence_domain,
        read_only: false,
        numa_node: nvdimm::numa_node(sources, directory)
            .or_else(|| sources.number(directory.join("target_node")).filter(|node| *node >= 0)),
        asynchronous: false,
        bad_blocks: Vec::new(),
        bad_blocks_known: true,
        clears_errors: None,
        scrubs: None,
        devices: Vec::new(),
        devices_unread: Vec::new(),
    }
}
