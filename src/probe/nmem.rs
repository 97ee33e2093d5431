//! The devices behind an nvdimm region: from `regionX/mappingN` to `nmemN`, and what each says.
//!
//! `mappings` counts them, and `mappingN` reads `nmemN,start,size,position` (drivers/nvdimm
//! `region_devs.c`, `mappingN`). A device lies beside the region, below the same bus. Its bus adds a
//! directory of its own attributes:
//!
//! | directory | source | identity | flags | unsafe shutdowns |
//! |---|---|---|---|---|
//! | `nfit` | drivers/acpi/nfit/core.c | `id` | `flags` | `dirty_shutdown` |
//! | `papr` | sysfs-bus-papr-pmem | the unit's GUID (device tree) | `flags` | `dirty_shutdown` |
//! | `cxl` | drivers/cxl/pmem.c | `id` | none | `dirty_shutdown`, from 6.16 |
//!
//! Security: `nmemX/security` and `nmemX/frozen` (drivers/nvdimm/dimm_devs.c), there only if the
//! device has security commands; a CXL memory device says it in `memX/security/state` as well
//! (sysfs-bus-cxl).

use std::path::{Path, PathBuf};

use super::memory_device::{MemoryDevice, Security};
use super::sources::Sources;

/// No region is interleaved over more devices (include/uapi/linux/ndctl.h `ND_MAX_MAPPINGS`).
const MAPPINGS_MAX: usize = 32;

/// The devices of a region, and what could not be read on the way to them.
pub(super) fn of_region(sources: &Sources, region: &Path) -> (Vec<MemoryDevice>, Vec<PathBuf>) {
    let (mut devices, mut unread) = (Vec::<MemoryDevice>::new(), Vec::new());
    let count = region.join("mappings");
    let Some(mappings) = sources.number::<usize>(&count).filter(|n| *n <= MAPPINGS_MAX) else {
        unread.push(count);
        return (devices, unread);
    };
    for n in 0..mappings {
        let mapping = region.join(format!("mapping{n}"));
        let named = sources.text(&mapping).and_then(|text| device_of_mapping(&text));
        let Some((name, bus)) = named.zip(region.parent()) else {
            unread.push(mapping);
            continue;
        };
        // One device may hold several parts of a region.
        if devices.iter().any(|known| known.name == name) {
            continue;
        }
        let directory = bus.join(&name);
        if sources.text(directory.join("uevent")).is_none() {
            unread.push(directory);
            continue;
        }
        devices.push(device(sources, &directory, name));
    }
    (devices, unread)
}

/// `nmem0,0,1073741824,0`: the name, if the line is one.
fn device_of_mapping(text: &str) -> Option<String> {
    let (name, numbers) = text.split_once(',')?;
    let number = name.strip_prefix("nmem")?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let numbers: Vec<_> = numbers.split(',').collect();
    (is_number(number) && numbers.len() == 3 && numbers.iter().all(|text| is_number(text)))
        .then(|| name.to_owned())
}

fn device(sources: &Sources, directory: &Path, name: String) -> MemoryDevice {
    let mut device = MemoryDevice { name, ..MemoryDevice::default() };
    let family = ["nfit", "papr", "cxl"].into_iter().find(|family| {
        // Which attributes there are depends on the device: the directory decides.
        !sources.names(directory.join(family)).is_empty()
    });
    if let Some(family) = family {
        family.clone_into(&mut device.family);
        let at = directory.join(family);
        device.identity = match family {
            "papr" => unit_guid(sources, directory),
            _ => sources.text(at.join("id")).filter(|id| !id.is_empty()),
        };
        if family != "cxl" {
            let flags = at.join("flags");
            device.flags = sources
                .text(&flags)
                .map(|text| text.split_ascii_whitespace().map(str::to_owned).collect());
            if device.flags.is_none() {
                device.unread.push(flags);
            }
        }
        device.dirty_shutdown = count(sources, &at.join("dirty_shutdown"));
    } else {
        device.unread.push(directory.to_owned());
    }
    security(sources, directory, &mut device);
    device
}

/// `ibm,unit-guid` of the platform device above the bus (arch/powerpc/platforms/pseries/papr_scm.c):
/// each unit has a bus of its own.
fn unit_guid(sources: &Sources, directory: &Path) -> Option<String> {
    let unit = directory.parent()?.parent()?;
    let guid = sources.text(unit.join("of_node/ibm,unit-guid"))?;
    let guid = guid.trim_end_matches('\0').trim();
    (!guid.is_empty()).then(|| guid.to_owned())
}

/// A count; NFIT's is an unsigned 32-bit number that the kernel writes as a signed one.
fn count(sources: &Sources, path: &Path) -> Option<u64> {
    let text = sources.text(path)?;
    let signed = || Some(u32::from_ne_bytes(text.parse::<i32>().ok()?.to_ne_bytes()));
    text.parse::<u64>().ok().or_else(|| signed().map(u64::from))
}

fn security(sources: &Sources, directory: &Path, device: &mut MemoryDevice) {
    let mut states = vec![directory.join("security")];
    if device.family == "cxl" {
        // The provider is the bridge from the nvdimm bus; the device above it is the memory's.
        let provider = sources.text(directory.join("cxl/provider"));
        let bridge =
            provider.and_then(|name| sources.link(Path::new("/sys/bus/cxl/devices").join(name)));
        states.extend(bridge.and_then(|at| Some(at.parent()?.join("security/state"))));
    }
    let mut worst = None;
    for path in states {
        match sources.text(&path).map(|text| parse_security(&text)) {
            Some(None) => device.frozen = true,
            Some(Some(state)) => worst = worst.max(Some(state)),
            None if !sources.is_absent(&path) => device.unread.push(path),
            None => {}
        }
    }
    device.frozen |= sources.flag(directory.join("frozen")).unwrap_or(false);
    // `lock` among the flags: the label area refused to be read (drivers/nvdimm/dimm.c).
    let flags = sources.text(directory.join("flags")).unwrap_or_default();
    let is_locked = flags.split_ascii_whitespace().any(|word| word == "lock");
    // POWER has no security commands; it says so among its own flags.
    if is_locked || device.flags.iter().flatten().any(|flag| flag == "locked") {
        worst = worst.max(Some(Security::Locked));
    }
    device.security = worst.or(device.frozen.then_some(Security::Unknown));
}

/// A state; `None` for one that is frozen and does not say what it is: `security_show` of
/// drivers/nvdimm/dimm_devs.c and `security_state_show` of drivers/cxl/core/memdev.c.
fn parse_security(text: &str) -> Option<Security> {
    Some(match text {
        "disabled" => Security::Disabled,
        "unlocked" => Security::Unlocked,
        "locked" => Security::Locked,
        "overwrite" | "sanitize" | "erase" => Security::Erasing,
        "frozen" => return None,
        _ => Security::Unknown,
    })
}
