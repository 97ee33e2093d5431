//! Device DAX: from a character device to its memory.
//!
//! Three kinds of memory come as `/dev/daxX.Y` (drivers/dax): an nvdimm namespace of mode `devdax`,
//! which is persistent and whose region says how; memory that firmware set aside ("hmem", EFI
//! specific-purpose memory); and a volatile CXL region. The last two are ordinary memory.
//! Attributes: Documentation/ABI/testing/sysfs-bus-dax.

use std::path::Path;

use super::nvdimm;
use super::report::{MemoryRegion, Namespace};
use super::sources::{Number, Sources};
use crate::durability::PersistenceDomain;

/// A device-DAX instance with the memory behind it.
#[derive(Debug)]
pub(super) struct DaxDevice {
    pub(super) namespace: Namespace,
    pub(super) region: MemoryRegion,
}

/// The device-DAX instance with this character device number; `None` if it is another kind.
pub(super) fn find(sources: &Sources, number: Number) -> Option<DaxDevice> {
    let directory = sources.link(format!("/sys/dev/char/{}:{}", number.0, number.1))?;
    if sources.link_name(directory.join("subsystem"))? != "dax" {
        return None;
    }
    let align = ["align", "dax_region/align", "../dax_region/align"]
        .iter()
        .find_map(|attribute| sources.number::<u64>(directory.join(attribute)))
        .filter(|align| align.is_power_of_two());
    let mut namespace = Namespace {
        name: nvdimm::name(&directory),
        mode: "devdax".to_owned(),
        size: sources.number(directory.join("size")),
        align,
    };
    let region = match nvdimm::above(sources, &directory, true) {
        Some(found) => {
            if namespace.size.is_none() {
                namespace.size = found.namespace.and_then(|above| above.size);
            }
            found.region
        }
        None => ordinary_memory(sources, &directory),
    };
    Some(DaxDevice { namespace, region })
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
        clears_errors: None,
        devices: Vec::new(),
        devices_unread: Vec::new(),
    }
}
