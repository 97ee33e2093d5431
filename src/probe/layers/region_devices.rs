//! What the devices of a region keep of what reached it.
//!
//! A region that names a persistence domain says where data counts as safe; whether it is saved from
//! there when the power goes is up to each of its devices.
//!
//! | of a device is read | the most it keeps | source |
//! |---|---|---|
//! | its flags, none of those below; not locked | what the region keeps | |
//! | `not_armed` | `Unverified`; on POWER `ProcessOnly`: "contents will not survive a power cycle" | ACPI NFIT, sysfs-bus-papr-pmem |
//! | `save_fail`, `restore_fail`, `flush_fail`, `map_fail` | `Unverified` | drivers/acpi/nfit/core.c `flags_show` |
//! | a flag that is not known here | `Unverified` | |
//! | `smart_event`, `smart_notify`, `encrypted` | nothing is lowered: health and secrecy | the same |
//! | security `locked`, or `locked` among POWER's flags | `Unverified`: it cannot be accessed | sysfs-bus-nvdimm, sysfs-bus-papr-pmem |
//! | security `overwrite`, `sanitize` | `ProcessOnly`: all of it is being erased | the same |
//! | security frozen | nothing is lowered: its state is kept until it is powered off | the same |
//! | CXL: `cxl/dirty_shutdown` is there | what the region keeps | see below |
//! | CXL: it is not | `Unverified` | |
//! | an attribute that should be there cannot be read | `Unverified` | |
//! | the region names no device, or not all are found | `Unverified` | |
//!
//! For every CXL region the kernel names `memory_controller` (drivers/cxl/pmem.c sets
//! `ND_REGION_PERSIST_MEMCTRL` without a question). From 6.16 on it shows `dirty_shutdown` of those
//! devices only that have the Global Persistent Flush registers, that took the order to mark a
//! shutdown as dirty, and that keep a count of them (the same file,
//! `cxl_nvdimm_arm_dirty_shutdown_tracking`). Such a device is flushed at a power loss, and says
//! afterwards if it was not: that is the evidence. Older kernels give none.

use crate::durability::{Durability, PersistenceDomain};
use crate::probe::memory_device::{MemoryDevice, Security};
use crate::probe::memory_reasons as words;
use crate::probe::report::{Layer, MemoryRegion, Reason};
use crate::probe::verdict::Judge;

pub(super) fn cap(judge: &mut Judge<'_>, region: &MemoryRegion) {
    // Neither has devices: what keeps their contents is the host, or nothing.
    if region.asynchronous || region.persistence_domain == PersistenceDomain::Volatile {
        return;
    }
    for (level, reason) in of_region(region) {
        judge.limit(Layer::RegionDevices, level, reason);
    }
    for device in &region.devices {
        let findings = of_device(region, device);
        if findings.is_empty() {
            judge.grant(Layer::RegionDevices, Durability::PowerFail, evidence(device));
        }
        for (level, reason) in findings {
            judge.limit(Layer::RegionDevices, level, reason);
        }
    }
}

/// What was seen of a device that lowers nothing.
fn evidence(device: &MemoryDevice) -> String {
    let flags = match &device.flags {
        Some(flags) if flags.is_empty() => "reports no fault".to_owned(),
        Some(flags) => format!("reports no fault, but {}", flags.join(" ")),
        None => "counts unsafe shutdowns".to_owned(),
    };
    let security = device.security.map_or("without security commands", Security::as_str);
    format!("{} {flags}; security: {security}", device.name)
}

/// What of the devices cannot be seen at all.
fn of_region(region: &MemoryRegion) -> Vec<(Durability, Reason)> {
    let unread = region.devices_unread.iter();
    let mut out: Vec<_> =
        unread.map(|path| (Durability::Unverified, words::device_unread(region, path))).collect();
    // One that names no domain is not verified, whatever its devices say.
    let names_domain = region.persistence_domain != PersistenceDomain::Unknown;
    if region.devices.is_empty() && out.is_empty() && names_domain {
        out.push((Durability::Unverified, words::no_devices(region)));
    }
    out
}

/// What lowers the level, with the most that is left.
fn of_device(region: &MemoryRegion, device: &MemoryDevice) -> Vec<(Durability, Reason)> {
    let mut out = Vec::new();
    for path in &device.unread {
        out.push((Durability::Unverified, words::device_unread(region, path)));
    }
    let is_papr = device.family == "papr";
    for flag in device.flags.iter().flatten() {
        let level = match flag.as_str() {
            "smart_event" | "smart_notify" => continue,
            // The last two come with the lock that `nmem` found.
            "encrypted" | "scrubbed" | "locked" if is_papr => continue,
            "not_armed" if is_papr => Durability::ProcessOnly,
            _ => Durability::Unverified,
        };
        out.push((level, words::device_flag(region, device, flag)));
    }
    match device.security {
        None | Some(Security::Disabled | Security::Unlocked) => {}
        Some(Security::Locked) => {
            out.push((Durability::Unverified, words::device_locked(region, device)));
        }
        Some(Security::Erasing) => {
            out.push((Durability::ProcessOnly, words::device_erasing(region, device)));
        }
        Some(Security::Unknown) => {
            out.push((Durability::Unverified, words::device_security_unknown(region, device)));
        }
    }
    if device.family == "cxl" && device.dirty_shutdown.is_none() {
        out.push((Durability::Unverified, words::cxl_flush_unknown(region, device)));
    }
    out
}
