//! The words of the reasons: what was found, on what, and the remedy.

use std::fmt::Write;
use std::ops::Range;
use std::path::Path;

use rustix::io::Errno;

use super::facts::{Facts, all_regions};
use super::report::{
    BlockDevice, HugePages, MemoryRegion, Mount, Namespace, Reason, ReasonCode, Target,
};

/// How many ranges are listed before the rest is only counted.
const RANGES_LISTED: usize = 8;

fn reason(code: ReasonCode, text: String, remedy: Option<Remedy>) -> Reason {
    Reason { code, text, remedy }
}

/// What a memory region is called: `NVDIMM region region0`.
fn named(region: &MemoryRegion) -> String {
    let kind = match region.provider.as_str() {
        "cxl" => "CXL region",
        "ACPI.NFIT" => "NVDIMM region",
        _ => "memory region",
    };
    format!("{kind} {}", region.name)
}

pub(super) fn mounted_dax_never(mount: &Mount) -> Reason {
    let point = mount.point.display();
    reason(
        ReasonCode::MountedDaxNever,
        format!("{point} is mounted dax=never"),
        Some(Remedy::advice(format!("unmount {point} and mount it with dax=always"))),
    )
}

pub(super) fn dax_inode_without_flag(facts: &Facts, mount: &Mount) -> Reason {
    let path = quoted(&facts.path);
    let point = mount.point.display();
    let directory = match facts.target {
        Target::Directory => path.clone(),
        Target::Missing => quoted(
            facts.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")),
        ),
        _ => String::new(),
    };
    let (text, remedy) = if directory.is_empty() && facts.target == Target::File {
        (
            format!("{point} decides DAX by inode, and {} has no DAX flag", facts.path.display()),
            format!(
                "xfs_io -c 'chattr +x' {path}, on a file that is empty, and close it everywhere; or {}",
                remount(mount)
            ),
        )
    } else if directory.is_empty() {
        (format!("{point} decides DAX by inode (mount option dax=inode)"), remount(mount))
    } else {
        (
            format!(
                "{point} decides DAX by inode, and the directory {directory} has no DAX flag to pass on"
            ),
            format!(
                "xfs_io -c 'chattr +x' {directory} (files created in it inherit it); or {}",
                remount(mount)
            ),
        )
    };
    reason(ReasonCode::DaxInodeWithoutFlag, text, Some(remedy))
}

pub(super) fn dax_flag_set_file_open(facts: &Facts) -> Reason {
    reason(
        ReasonCode::DaxFlagSetFileOpen,
        format!(
            "{} has the DAX flag, but was open when it was set, and is not DAX yet",
            facts.path.display()
        ),
        Some(
            "close the file in every process, then let the inode go: \
             sync; echo 2 > /proc/sys/vm/drop_caches; or remount"
                .to_owned(),
        ),
    )
}

pub(super) fn filesystem_without_dax(facts: &Facts, offers_dax: bool) -> Reason {
    let name = facts.filesystem.as_deref().unwrap_or("this filesystem");
    let remedy = match (&facts.device, &facts.mount) {
        (Some(device), Some(mount)) if offers_dax => format!(
            "mkfs.ext4 -b 4096 /dev/{0} (erases it), then mount -o dax=always /dev/{0} {1}",
            device.name,
            quoted(&mount.point)
        ),
        _ => "use ext4 or xfs on persistent memory, mounted dax=always".to_owned(),
    };
    reason(ReasonCode::FilesystemWithoutDax, format!("{name} has no MAP_SYNC"), Some(remedy))
}

pub(super) fn block_size_not_page_size(facts: &Facts, block_size: u64) -> Reason {
    let page = facts.page_size;
    let device = facts.device.as_ref().map_or("DEVICE", |device| device.name.as_str());
    let remedy = match facts.filesystem.as_deref() {
        Some("xfs") => {
            format!("mkfs.xfs -f -b size={page} -d su=2m,sw=1 /dev/{device} (erases it)")
        }
        _ => format!("mkfs.ext4 -b {page} /dev/{device} (erases it)"),
    };
    reason(
        ReasonCode::BlockSizeNotPageSize,
        format!(
            "{} on {device} has blocks of {block_size} bytes, and DAX needs the page size, {page}",
            facts.filesystem.as_deref().unwrap_or("the filesystem")
        ),
        Some(remedy),
    )
}

pub(super) fn xfs_fell_back(mount: &Mount) -> Reason {
    reason(
        ReasonCode::XfsFellBackToDaxNever,
        format!(
            "{} shows dax=never: xfs mounts so, without an error, when dax=always is not possible",
            mount.point.display()
        ),
        Some(format!(
            "remove the cause named beside this (dmesg says \"Turning off DAX\"), then {}",
            remount(mount)
        )),
    )
}

pub(super) fn raw_namespace(device: &BlockDevice, namespace: &Namespace) -> Reason {
    reason(
        ReasonCode::RawNamespace,
        format!(
            "{} is a raw namespace ({}), which has no struct pages and so no DAX",
            namespace.name, device.name
        ),
        Some(format!("ndctl create-namespace -f -e {} -m fsdax (erases it)", namespace.name)),
    )
}

pub(super) fn sector_namespace(device: &BlockDevice, namespace: &Namespace) -> Reason {
    reason(
        ReasonCode::SectorNamespace,
        format!(
            "{} is a sector namespace ({}), whose translation table (BTT) rules out DAX",
            namespace.name, device.name
        ),
        Some(format!("ndctl create-namespace -f -e {} -m fsdax (erases it)", namespace.name)),
    )
}

pub(super) fn no_dax_device(facts: &Facts) -> Reason {
    let page = facts.page_size;
    let below_is_dax =
        |device: &BlockDevice| device.below.iter().any(|below| below.dax == Some(true));
    let (text, remedy) = match &facts.device {
        Some(device) if device.kind == "device-mapper" && below_is_dax(device) => (
            format!(
                "device-mapper device {} does not pass on the DAX of what is below it",
                device.name
            ),
            "use only linear and striped targets, over DAX devices alone".to_owned(),
        ),
        Some(device) if device.kind == "partition" && below_is_dax(device) => (
            format!(
                "partition {} does not begin and end at multiples of the page size, {page} bytes",
                device.name
            ),
            "make it begin at a multiple of 2MiB: parted DISK mkpart data 2MiB 100%".to_owned(),
        ),
        Some(device) => (
            format!("{} ({}) is not a DAX device", device.name, device.kind),
            "DAX needs persistent memory: an NVDIMM or CXL namespace of mode fsdax (/dev/pmemN)"
                .to_owned(),
        ),
        None => (
            format!("no block device is visible in /sys under {}", facts.path.display()),
            "mount /sys; in a container, let it see the host's".to_owned(),
        ),
    };
    reason(ReasonCode::NoDaxDevice, text, Some(remedy))
}

pub(super) fn virtio_pmem(region: &MemoryRegion) -> Reason {
    reason(
        ReasonCode::VirtioPmemAsynchronous,
        format!(
            "memory region {} is virtio-pmem, which flushes through the host and cannot MAP_SYNC",
            region.name
        ),
        Some(
            "give the guest an NVDIMM instead: QEMU -machine nvdimm=on -device nvdimm, backed by \
             persistent memory"
                .to_owned(),
        ),
    )
}

pub(super) fn overlay_on_dax(mount: &Mount, upper: &Mount) -> Reason {
    reason(
        ReasonCode::OverlayOnDax,
        format!(
            "{} is an overlay on DAX: statx passes the DAX of {} on, mmap does not pass MAP_SYNC",
            mount.point.display(),
            upper.point.display()
        ),
        Some(format!(
            "use a directory of {} itself, in a container as a bind mount (volume)",
            quoted(&upper.point)
        )),
    )
}

pub(super) fn persistence_domain_unknown(region: &MemoryRegion) -> Reason {
    let provider = if region.provider.is_empty() { "unknown" } else { region.provider.as_str() };
    reason(
        ReasonCode::PersistenceDomainUnknown,
        format!("memory region {} (provider {provider}) names no persistence domain", region.name),
        Some(
            "firmware has to describe it (ACPI NFIT platform capabilities); in QEMU: \
             -machine nvdimm-persistence=mem-ctrl"
                .to_owned(),
        ),
    )
}

pub(super) fn volatile_region(region: &MemoryRegion) -> Reason {
    reason(
        ReasonCode::VolatileRegion,
        format!("memory region {} (provider {}) is volatile memory", region.name, region.provider),
        Some("use a persistent region: ndctl list -R shows them".to_owned()),
    )
}

pub(super) fn e820_region(region: &MemoryRegion) -> Reason {
    reason(
        ReasonCode::E820Region,
        format!(
            "memory region {} comes from the e820 table (memmap= or a legacy NVDIMM): the kernel \
             maps it as persistent memory, nothing says that it is",
            region.name
        ),
        Some(
            "use an NVDIMM that ACPI NFIT describes, or CXL memory; memmap= is for tests"
                .to_owned(),
        ),
    )
}

pub(super) fn kernel_too_old(version: (u32, u32)) -> Reason {
    reason(
        ReasonCode::KernelTooOld,
        format!("Linux {}.{} has no MAP_SYNC", version.0, version.1),
        Some("run Linux 4.15 or later; 5.8 or later for dax=inode".to_owned()),
    )
}

pub(super) fn huge_pages_misaligned(facts: &Facts) -> Reason {
    let what = facts.path.display();
    let text = match facts.huge_pages {
        HugePages::Misaligned { aligned, total } => {
            format!("only {aligned} of the {total} pieces of 2 MiB of {what} can be a huge page")
        }
        _ => format!("no file under {what} can have huge pages"),
    };
    if let Some(shift) = facts.shift.filter(|shift| *shift != 0) {
        return reason(
            ReasonCode::HugePagesMisaligned,
            format!("{text}: the partition begins {shift} bytes past a 2 MiB boundary"),
            Some(
                "make the partition begin at a multiple of 2MiB: parted DISK mkpart data 2MiB 100%"
                    .to_owned(),
            ),
        );
    }
    let device = facts.device.as_ref().map_or("DEVICE", |device| device.name.as_str());
    let remedy = match (facts.target, facts.filesystem.as_deref()) {
        (Target::DaxDevice, _) => format!(
            "ndctl create-namespace -f -e {} -m devdax -a 2M (erases it)",
            facts.dax_device.as_ref().map_or("NAMESPACE", |(namespace, _)| namespace.name.as_str())
        ),
        (_, Some("xfs")) => {
            format!(
                "mkfs.xfs -f -d su=2m,sw=1 /dev/{device} (erases it), then allocate the file whole: fallocate"
            )
        }
        _ => {
            "write the file anew, allocated whole (fallocate) in multiples of 2 MiB; on a full or \
              fragmented filesystem: mkfs.ext4 -b 4096 -E stride=512,stripe_width=512"
                .to_owned()
        }
    };
    reason(
        ReasonCode::HugePagesMisaligned,
        format!("{text}: its extents are not aligned to 2 MiB"),
        Some(remedy),
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

/// What to do where a write cannot clear an error.
const CANNOT_CLEAR: &str = "this platform cannot clear errors (no clear_error among the commands of \
    its nvdimm bus): copy what can be read to a new file, and leave this one where it is, so that \
    nothing else gets its blocks";

/// Whether some memory behind the path keeps its errors whatever is written to it.
fn keeps_errors(facts: &Facts) -> bool {
    all_regions(facts).iter().any(|region| region.clears_errors == Some(false))
}

pub(super) fn bad_blocks_in_file(facts: &Facts) -> Reason {
    let page = facts.page_size;
    let first = facts.bad_ranges.first().map_or(0, |range| range.start / page);
    let remedy = if keeps_errors(facts) {
        CANNOT_CLEAR.to_owned()
    } else {
        format!(
            "write whole pages over them with pwrite, from a good copy, which clears the poison: \
             dd if=COPY of={} bs={page} seek={first} skip={first} count=N conv=notrunc,fsync",
            quoted(&facts.path)
        )
    };
    let text = format!("{} has bad bytes {}", facts.path.display(), listed(&facts.bad_ranges));
    reason(ReasonCode::BadBlocks, text, Some(remedy))
}

pub(super) fn bad_blocks_on_device(facts: &Facts, name: &str, ranges: &[Range<u64>]) -> Reason {
    let remedy = if keeps_errors(facts) {
        CANNOT_CLEAR
    } else {
        "find the files on them by probing each, and write whole pages over them with pwrite; \
         ndctl list -M shows them"
    };
    let text = format!("{name} has bad bytes {}", listed(ranges));
    reason(ReasonCode::BadBlocks, text, Some(remedy.to_owned()))
}

pub(super) fn read_only(text: String, remedy: Option<String>) -> Reason {
    reason(ReasonCode::ReadOnly, text, remedy)
}

pub(super) fn memory_backed(what: &str) -> Reason {
    reason(
        ReasonCode::MemoryBacked,
        format!("{what} is kept in memory and is lost with the running kernel"),
        Some("keep the file on a filesystem on a disk or on persistent memory".to_owned()),
    )
}

pub(super) fn layer_unverified(text: String, remedy: &str) -> Reason {
    reason(ReasonCode::LayerUnverified, text, Some(remedy.to_owned()))
}

pub(super) fn no_barrier(mount: &Mount, option: &str) -> Reason {
    let point = quoted(&mount.point);
    let on = match option {
        "fsync_mode=nobarrier" => "fsync_mode=posix",
        "nobarrier" => "barrier",
        "barrier=none" => "barrier=flush",
        _ => "barrier=1",
    };
    reason(
        ReasonCode::NoBarrier,
        format!("{point} is mounted {option}: fdatasync sends the device no flush"),
        Some(format!("mount -o remount,{on} {point}")),
    )
}

pub(super) fn no_write_back(what: &str) -> Reason {
    reason(
        ReasonCode::NoWriteBackInstruction,
        format!(
            "{what} could be mapped with MAP_SYNC, but this processor has no known write-back to persistence"
        ),
        None,
    )
}

pub(super) fn not_a_regular_file(text: String) -> Reason {
    reason(
        ReasonCode::NotARegularFile,
        text,
        Some("name a regular file, a directory, a block device or a device-DAX node".to_owned()),
    )
}

pub(super) fn permission_denied(facts: &Facts, errno: i32) -> Reason {
    reason(
        ReasonCode::PermissionDenied,
        format!(
            "{} could not be opened for the trial mapping: {}",
            facts.path.display(),
            Errno::from_raw_os_error(errno)
        ),
        Some(format!(
            "run as a user who may read it, or: setfacl -m u:USER:rw {}",
            quoted(&facts.path)
        )),
    )
}

pub(super) fn map_sync_refused(facts: &Facts, errno: i32) -> Reason {
    reason(
        ReasonCode::MapSyncRefused,
        format!(
            "the kernel refused the trial mapping of {} ({}), for none of the causes known here",
            facts.path.display(),
            Errno::from_raw_os_error(errno)
        ),
        Some("look for \"dax\" in dmesg; files that are encrypted, verity, inline or data=journal are never DAX".to_owned()),
    )
}
