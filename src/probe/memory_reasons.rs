//! The words of the reasons that persistent memory gives: its devices, its bad bytes, and device DAX.

use std::fmt::Write;
use std::ops::Range;
use std::path::Path;

use rustix::io::Errno;

use super::bad_in::BadIn;
use super::facts::{Facts, all_regions};
use super::memory_device::MemoryDevice;
use super::reasons::{SEE_SYS, named as named_region};
use super::report::{MemoryRegion, Namespace, Reason, ReasonCode, Target};
use crate::reason::remedy::Remedy;

/// How many ranges are listed before the rest is only counted.
const RANGES_LISTED: usize = 8;

/// Where a write cannot clear an error.
const CANNOT_CLEAR: &str = "this platform cannot clear errors (no clear_error among the commands of \
    its nvdimm bus): copy what can be read to a new file, and keep this one, so that no other file \
    gets its blocks";

/// The same for what is no file.
const CANNOT_CLEAR_DEVICE: &str = "this platform cannot clear errors (no clear_error among the \
    commands of its nvdimm bus): copy what can be read elsewhere, and leave those bytes unused";

fn advice(code: ReasonCode, text: String, remedy: impl Into<String>) -> Reason {
    Reason { code, text, remedy: Some(Remedy::advice(remedy)) }
}

/// `nmem0 (serial)`.
fn named(device: &MemoryDevice) -> String {
    match &device.identity {
        Some(identity) => format!("{} ({identity})", device.name),
        None => device.name.clone(),
    }
}

const NO_DATA: &str = "keep no data here that must survive a power loss";

/// A flag that says that a save at a power loss failed, or will.
pub(super) fn device_flag(region: &MemoryRegion, device: &MemoryDevice, flag: &str) -> Reason {
    let what = match (flag, device.family.as_str()) {
        ("not_armed", "papr") => "its contents do not survive a power loss",
        ("not_armed", _) => "nothing is ready to save its contents at a power loss",
        ("save_fail", _) => "its contents were not saved at the last power loss",
        ("restore_fail", _) => "its contents were not restored after the last power loss",
        ("flush_fail", _) => "the processor's buffers did not reach it at the last power loss",
        ("map_fail", _) => "firmware could not map it",
        _ => "this version does not know what that means",
    };
    let code = match flag {
        "not_armed" => ReasonCode::MemoryDeviceNotArmed,
        "save_fail" | "restore_fail" | "flush_fail" | "map_fail" => ReasonCode::MemoryDeviceFailed,
        _ => ReasonCode::MemoryDeviceUnknown,
    };
    advice(
        code,
        format!(
            "memory device {} of {} reports {flag}: {what}",
            named(device),
            named_region(region)
        ),
        match code {
            ReasonCode::MemoryDeviceNotArmed => format!(
                "replace its battery or capacitor, or the device (ndctl list -DH shows its health); \
                 until then, {NO_DATA}"
            ),
            ReasonCode::MemoryDeviceFailed => format!(
                "check the data against a copy, then the device: ndctl list -DH shows its health, \
                 its vendor's tools clear the flag; until then, {NO_DATA}"
            ),
            _ => format!("look the flag up in the kernel's documentation; until then, {NO_DATA}"),
        },
    )
}

pub(super) fn device_locked(region: &MemoryRegion, device: &MemoryDevice) -> Reason {
    let remedy = if device.frozen {
        "its security state is frozen: power the machine off and on, then unlock it"
    } else {
        "unlock it with its passphrase: ndctl load-keys, then enable its region again"
    };
    advice(
        ReasonCode::MemoryDeviceLocked,
        format!("memory device {} of {} is locked", named(device), named_region(region)),
        remedy,
    )
}

pub(super) fn device_erasing(region: &MemoryRegion, device: &MemoryDevice) -> Reason {
    advice(
        ReasonCode::MemoryDeviceErasing,
        format!(
            "memory device {} of {} is being overwritten: nothing stored there stays",
            named(device),
            named_region(region)
        ),
        "wait until it is done: ndctl wait-overwrite",
    )
}

pub(super) fn device_security_unknown(region: &MemoryRegion, device: &MemoryDevice) -> Reason {
    advice(
        ReasonCode::MemoryDeviceUnknown,
        format!(
            "memory device {} of {} does not say whether it is locked",
            named(device),
            named_region(region)
        ),
        "ndctl list -D shows its security state",
    )
}

/// Something on the way to a device, or of it, that could not be read.
pub(super) fn device_unread(region: &MemoryRegion, path: &Path) -> Reason {
    advice(
        ReasonCode::MemoryDeviceUnknown,
        format!(
            "{} cannot be read, so nothing is known of a memory device of {}",
            path.display(),
            named_region(region)
        ),
        SEE_SYS,
    )
}

/// A region that names no device.
pub(super) fn no_devices(region: &MemoryRegion) -> Reason {
    advice(
        ReasonCode::MemoryDeviceUnknown,
        format!(
            "{} (provider {}) names no memory device, so nothing says that its contents are saved \
             at a power loss",
            named_region(region),
            region.provider
        ),
        "use memory whose devices the platform describes: ndctl list -RD shows them",
    )
}

/// A CXL device that shows no sign of being able to flush at a power loss.
pub(super) fn cxl_flush_unknown(region: &MemoryRegion, device: &MemoryDevice) -> Reason {
    advice(
        ReasonCode::CxlFlushUnknown,
        format!(
            "{} is CXL memory, for which the kernel names memory_controller whatever its devices \
             can do, and {} shows no count of unsafe shutdowns: nothing says that it flushes at a \
             power loss (Global Persistent Flush)",
            named_region(region),
            named(device)
        ),
        "use a device with Global Persistent Flush, and Linux 6.16 or later, which shows such a \
         device's cxl/dirty_shutdown",
    )
}

/// A region with room for a namespace, where the device of one is looked for.
pub(super) fn region_without_namespace(region: &MemoryRegion, bytes: u64) -> Reason {
    advice(
        ReasonCode::RegionWithoutNamespace,
        format!(
            "{} has {bytes} bytes free, in which no namespace was made, so no device shows them",
            named_region(region)
        ),
        format!("make a namespace there: ndctl create-namespace -m fsdax -r {}", region.name),
    )
}

/// A device-DAX node whose memory the kernel uses.
pub(super) fn system_ram(facts: &Facts, namespace: &Namespace) -> Reason {
    advice(
        ReasonCode::SystemRam,
        format!(
            "{} is in mode system-ram: the kernel uses {} as ordinary memory",
            facts.path.display(),
            namespace.name
        ),
        "take the memory from the kernel, which moves what is on it elsewhere, and make it device \
         DAX again: daxctl offline-memory, then daxctl reconfigure-device --mode=devdax",
    )
}

/// `ranges` as text, the first few of them.
fn listed(ranges: &[Range<u64>]) -> String {
    let mut out = String::new();
    for (i, range) in ranges.iter().take(RANGES_LISTED).enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        let _ = write!(out, "{comma}[{}, {})", range.start, range.end);
    }
    if let Some(more) = ranges.len().checked_sub(RANGES_LISTED).filter(|more| *more > 0) {
        let _ = write!(out, " and {more} more");
    }
    out
}

/// Whether some memory behind the path keeps its errors whatever is written to it.
fn keeps_errors(facts: &Facts) -> bool {
    all_regions(facts).iter().any(|region| region.clears_errors == Some(false))
}

/// Bad bytes of a file.
pub(super) fn bad_bytes_of_file(facts: &Facts) -> Reason {
    let page = facts.page_size;
    let remedy = if keeps_errors(facts) {
        CANNOT_CLEAR.to_owned()
    } else {
        format!(
            "write whole pages of {page} bytes over them with pwrite, from a good copy (dd \
             conv=notrunc,fsync): a write clears the errors"
        )
    };
    let text = format!("{} has bad bytes {}", facts.path.display(), listed(&facts.bad_ranges));
    advice(ReasonCode::BadBlocks, text, remedy)
}

/// Bad bytes of a block device, which some files may have.
pub(super) fn bad_bytes_of_device(facts: &Facts, name: &str, ranges: &[Range<u64>]) -> Reason {
    let remedy = if keeps_errors(facts) {
        CANNOT_CLEAR
    } else {
        "probe each file to find those that lie there, and write whole pages over the bad bytes \
         with pwrite, from a good copy"
    };
    advice(ReasonCode::BadBlocks, format!("{name} has bad bytes {}", listed(ranges)), remedy)
}

/// Bad bytes of a device-DAX node.
pub(super) fn bad_bytes_of_node(facts: &Facts) -> Reason {
    let namespace = facts.dax_device.as_ref().and_then(|(found, _)| found.claims.as_deref());
    let remedy = match namespace {
        _ if keeps_errors(facts) => CANNOT_CLEAR_DEVICE.to_owned(),
        Some(namespace) => format!(
            "copy what can be read, close the device everywhere, then ndctl clear-errors \
             {namespace}, which replaces the bad bytes by zeros"
        ),
        None => "copy what can be read, and clear the errors with ndctl".to_owned(),
    };
    let text = format!("{} has bad bytes {}", facts.path.display(), listed(&facts.bad_ranges));
    advice(ReasonCode::BadBlocks, text, remedy)
}

/// Bad bytes of a region, some of which may be those of a device-DAX node.
pub(super) fn bad_bytes_somewhere(facts: &Facts, region: &MemoryRegion) -> Reason {
    let why = not_all_told(&facts.path, BadIn::DaxDevice, std::slice::from_ref(region));
    let text = format!("the bad bytes of {} are not known: {why}", facts.path.display());
    advice(ReasonCode::BadBlocks, text, "probe as root, with the region enabled")
}

/// The trial mapping could not be tried, with what stood in the way.
pub(super) fn not_tried(facts: &Facts, errno: i32) -> Reason {
    let path = facts.path.display();
    let errno = Errno::from_raw_os_error(errno);
    let is_node = facts.target == Target::DaxDevice;
    let (code, why, remedy) = match errno {
        Errno::ACCESS if is_node => (
            ReasonCode::PermissionDenied,
            "the permission bits of the node forbid it to this user",
            "run as a user who may open it for reading and writing; to give it to a group at every \
             boot, add a udev rule for SUBSYSTEM \"dax\" with GROUP and MODE",
        ),
        Errno::ACCESS => (
            ReasonCode::PermissionDenied,
            "its permission bits, or a directory's, forbid it to this user",
            "run as a user who may read it, or give this user access (setfacl, chgrp)",
        ),
        Errno::PERM => (
            ReasonCode::PermissionDenied,
            "a policy forbids it, not the permission bits",
            "let the container, its seccomp filter or the security module allow it: a container \
             needs the device among those it was started with",
        ),
        Errno::NXIO | Errno::NODEV if is_node => (
            ReasonCode::DeviceDaxDisabled,
            "no driver is bound to it",
            "enable it: daxctl enable-device, or ndctl enable-namespace for its namespace",
        ),
        Errno::NOMEM => (
            ReasonCode::MemoryLimit,
            "this process has no address space or too many mappings for it",
            "raise the limits of the process: ulimit -v, vm.max_map_count",
        ),
        Errno::AGAIN if is_node => (
            ReasonCode::MemoryLimit,
            "this process locks its memory, and may not lock so much",
            "raise the limit of locked memory (ulimit -l), or do not call mlockall",
        ),
        Errno::AGAIN => (
            ReasonCode::LeaseHeld,
            "another process holds a lease on it, or this one may lock no more memory",
            "probe again when that program has given the lease back",
        ),
        _ => (
            ReasonCode::MapSyncNotTried,
            "the kernel gave no reason that is known here",
            "look for \"dax\" in the kernel log",
        ),
    };
    let text = format!("{path} could not be opened for the trial mapping: {why} ({errno})");
    advice(code, text, remedy)
}

/// How the errors of these ranges are cleared, or that they are not.
pub(super) fn clearing(kind: BadIn, regions: &[MemoryRegion], namespace: Option<&str>) -> Remedy {
    if regions.iter().any(|region| region.provider == "CXL") {
        return Remedy::advice(
            "a write does not clear an error of CXL memory: the device's command Clear Poison does \
             (as root, clear_poison of the device in /sys/kernel/debug/cxl); then write the bytes \
             again from a good copy",
        );
    }
    if regions.iter().any(|region| region.clears_errors == Some(false)) {
        return Remedy::advice(CANNOT_CLEAR_DEVICE);
    }
    match (kind, namespace) {
        (BadIn::File, _) => Remedy::advice(
            "write whole pages over them from a good copy, which clears the errors: \
             AnyRegion::repair of this library, or pwrite",
        ),
        (BadIn::DaxDevice, Some(namespace)) => Remedy::advice(format!(
            "close the device everywhere, clear the errors (ndctl clear-errors {namespace}), which \
             leaves zeros or anything there, and write the bytes again from a good copy"
        )),
        _ => Remedy::advice(
            "probe each file to find those that lie there, and write whole pages over the bad bytes \
             from a good copy; where no file lies, ndctl clear-errors clears them",
        ),
    }
}

/// A path that lies on no persistent memory.
pub(super) fn not_on_memory(name: &Path) -> String {
    format!(
        "no persistent memory is visible under {}: the kernel lists bad ranges of that alone",
        name.display()
    )
}

/// Ranges that cannot all be told.
pub(super) fn not_all_told(name: &Path, kind: BadIn, regions: &[MemoryRegion]) -> String {
    let name = name.display();
    let unread = regions.iter().find(|region| !region.bad_blocks_known);
    match (unread, kind) {
        (Some(region), _) => {
            format!("the list of {} cannot be read: is the region enabled?", named_region(region))
        }
        (None, BadIn::DaxDevice) => format!(
            "its region has bad ranges, and whether they lie in {name} cannot be told: only root \
             may read where it begins (resource)"
        ),
        (None, BadIn::File) => format!(
            "the memory below has bad ranges, and whether they lie in {name} cannot be told: the \
             file may not be read, or something lies between it and the memory"
        ),
        (None, _) => format!(
            "the memory below has bad ranges, and where they lie in {name} cannot be told: \
             something lies between it and the memory"
        ),
    }
}

/// The list of a CXL device, which is not read.
pub(super) fn poison_list(region: &MemoryRegion) -> String {
    let memory = region.devices.iter().map(|device| device.name.as_str());
    let memory: Vec<_> = memory.collect();
    format!(
        "{} has a poison list in its device ({}), which the kernel does not put into this list, and \
         reads only when told to: as root, enable the trace event cxl/cxl_poison, then write 1 to \
         trigger_poison_list of the device in /sys/bus/cxl/devices",
        named_region(region),
        memory.join(", ")
    )
}
