//! What a region of memory keeps.
//!
//! | region | mapped | by `fdatasync` | source |
//! |---|---|---|---|
//! | names a persistence domain | `PowerFail` | the same | sysfs-bus-nvdimm |
//! | names none | `Unverified` | the same: a flush of drivers/nvdimm/pmem.c ends at the memory controller | the kernel maps it all the same |
//! | virtio-pmem | `Unverified` | `Fsync` | drivers/nvdimm/virtio_pmem.c: a flush is an fsync on the host |
//! | volatile or e820 | `ProcessOnly` | the same | drivers/nvdimm/e820.c: RAM declared with `memmap=` |

use super::{Way, region_devices, words};
use crate::durability::{Durability, PersistenceDomain};
use crate::probe::reasons;
use crate::probe::report::{Layer, MemoryRegion};
use crate::probe::verdict::Judge;

pub(super) fn cap(judge: &mut Judge<'_>, region: &MemoryRegion, way: Way) {
    let layer = Layer::Region;
    let (name, domain) = (&region.name, region.persistence_domain);
    match domain {
        PersistenceDomain::MemoryController | PersistenceDomain::CpuCache => {
            let evidence = format!("{name} names the persistence domain {domain}");
            judge.grant(layer, Durability::PowerFail, evidence);
        }
        PersistenceDomain::Unknown if region.asynchronous && way == Way::Flushed => {
            let evidence = format!("{name} (virtio-pmem) makes of a flush an fsync on the host");
            judge.grant(layer, Durability::Fsync, evidence);
        }
        PersistenceDomain::Volatile if region.provider == "e820" => {
            judge.limit(layer, Durability::ProcessOnly, reasons::e820_region(region));
        }
        PersistenceDomain::Volatile => {
            judge.limit(layer, Durability::ProcessOnly, reasons::volatile_region(region));
        }
        PersistenceDomain::Unknown | PersistenceDomain::None => {
            let reason = reasons::persistence_domain_unknown(region);
            judge.limit(layer, Durability::Unverified, reason);
        }
    }
    region_devices::cap(judge, region);
}

/// A mapping with no region to be seen behind it.
pub(super) fn none(judge: &mut Judge<'_>) {
    let reason = words::no_region(&judge.facts.path);
    judge.limit(Layer::Visibility, Durability::Unverified, reason);
}
