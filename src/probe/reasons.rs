//! The words of the reasons: what was found, on what, and the remedy.

use std::path::Path;

use rustix::io::Errno;

use super::commands;
use super::facts::{Bar, Facts};
use super::report::{
    BlockDevice, HugePages, MemoryRegion, Mount, Namespace, Reason, ReasonCode, Target,
};
use crate::reason::remedy::Remedy;

fn reason(code: ReasonCode, text: String, remedy: Option<Remedy>) -> Reason {
    Reason { code, text, remedy }
}

/// What a memory region is called: `NVDIMM region region0`.
pub(super) fn named(region: &MemoryRegion) -> String {
    let kind = match region.provider.as_str() {
        "cxl" | "CXL" => "CXL region",
        "ACPI.NFIT" => "NVDIMM region",
        _ => "memory region",
    };
    format!("{kind} {}", region.name)
}

pub(super) fn mounted_dax_never(facts: &Facts, mount: &Mount) -> Reason {
    let point = mount.point.display();
    reason(
        ReasonCode::MountedDaxNever,
        format!("{point} is mounted dax=never"),
        Some(commands::dax_always(facts, mount)),
    )
}

pub(super) fn mounted_without_dax(mount: &Mount, kernel: (u32, u32)) -> Reason {
    let point = mount.point.display();
    reason(
        ReasonCode::MountedDaxNever,
        format!(
            "{point} is mounted without dax, without which Linux {}.{} has no DAX file",
            kernel.0, kernel.1
        ),
        Some(Remedy::advice(format!(
            "stop what uses {point}, unmount it, and mount it with -o dax (in /etc/fstab too)"
        ))),
    )
}

pub(super) fn dax_inode_without_flag(facts: &Facts, mount: &Mount) -> Reason {
    let point = mount.point.display();
    let text = match facts.target {
        Target::File => {
            format!("{point} decides DAX by inode, and {} has no DAX flag", facts.path.display())
        }
        _ => format!(
            "{point} decides DAX by inode, and the directory {} has no DAX flag to pass on",
            commands::directory(facts, mount).display()
        ),
    };
    reason(ReasonCode::DaxInodeWithoutFlag, text, Some(commands::dax_flag(facts, mount)))
}

/// Before Linux 5.8 there was one option, and no flag of an inode did anything.
pub(super) fn name_the_old_option(reasons: &mut [Reason]) {
    let old = |text: &mut String| *text = text.replace("dax=always", "dax");
    for reason in reasons {
        old(&mut reason.text);
        if let Some(remedy) = &mut reason.remedy {
            old(&mut remedy.text);
            if let Some(command) = &mut remedy.command {
                old(command);
            }
        }
    }
}

pub(super) fn never_dax(facts: &Facts, mount: &Mount, bar: Bar) -> Reason {
    let what = if facts.target == Target::File {
        facts.path.display().to_string()
    } else {
        format!("a file made in {}", commands::directory(facts, mount).display())
    };
    let (text, remedy) = match bar {
        Bar::Encrypted => (
            format!("{what} is encrypted, and an encrypted file is never DAX"),
            "use a directory that is not encrypted",
        ),
        Bar::DataJournal => (
            format!("{what} has its data in the journal (data=journal), and so is never DAX"),
            "mount without data=journal, and take the flag j from the directory (chattr -j)",
        ),
        Bar::Realtime => (
            format!("{what} is on the real-time device of xfs, whose DAX is not looked at here"),
            "use a directory without the flag rtinherit",
        ),
        Bar::Unreadable => (
            format!("what {what} inherits is not known: the directory cannot be opened"),
            "probe as a user who may read the directory",
        ),
    };
    reason(ReasonCode::NeverDax, text, Some(Remedy::advice(remedy)))
}

pub(super) fn dax_flag_set_file_open(facts: &Facts) -> Reason {
    let path = facts.path.display();
    reason(
        ReasonCode::DaxFlagSetFileOpen,
        format!("{path} has the DAX flag, but was open when it was set, and is not DAX yet"),
        Some(Remedy::advice(
            "close the file in every process (fuser names them): the next one that opens it gets \
             DAX",
        )),
    )
}

pub(super) fn filesystem_without_dax(facts: &Facts, offers_dax: bool) -> Reason {
    let name = facts.filesystem.as_deref().unwrap_or("this filesystem");
    let remedy = match &facts.device {
        Some(device) if offers_dax => Remedy::advice(format!(
            "copy the files elsewhere, make ext4 or xfs with blocks of {} bytes on {}, and mount it \
             with dax=always",
            facts.page_size, device.name
        ))
        .erasing(),
        _ => Remedy::advice(
            "for MAP_SYNC, use ext4 or xfs on persistent memory, mounted with dax=always",
        ),
    };
    reason(ReasonCode::FilesystemWithoutDax, format!("{name} has no MAP_SYNC"), Some(remedy))
}

pub(super) fn block_size_not_page_size(facts: &Facts, block_size: u64) -> Reason {
    let page = facts.page_size;
    let device = facts.device.as_ref().map_or("the device", |device| device.name.as_str());
    let make = match facts.filesystem.as_deref() {
        Some("xfs") => format!("mkfs.xfs -b size={page}"),
        _ => format!("mkfs.ext4 -b {page}"),
    };
    reason(
        ReasonCode::BlockSizeNotPageSize,
        format!(
            "{} on {device} has blocks of {block_size} bytes, and DAX needs the page size, {page}",
            facts.filesystem.as_deref().unwrap_or("the filesystem")
        ),
        Some(
            Remedy::advice(format!(
                "copy the files elsewhere, and make the filesystem again with that block size \
                 ({make})"
            ))
            .erasing(),
        ),
    )
}

pub(super) fn xfs_fell_back(mount: &Mount) -> Reason {
    let point = mount.point.display();
    reason(
        ReasonCode::XfsFellBackToDaxNever,
        format!(
            "{point} shows dax=never: xfs mounts so, without an error, when dax=always is not possible"
        ),
        Some(Remedy::advice(format!(
            "remove the other causes named here (the kernel log says \"Turning off DAX\"), then \
             unmount {point} and mount it with dax=always"
        ))),
    )
}

pub(super) fn raw_namespace(facts: &Facts, device: &BlockDevice, namespace: &Namespace) -> Reason {
    reason(
        ReasonCode::RawNamespace,
        format!(
            "{} is a raw namespace ({}), which has no struct pages and so no DAX",
            namespace.name, device.name
        ),
        Some(commands::fsdax_namespace(facts, device, namespace)),
    )
}

pub(super) fn sector_namespace(
    facts: &Facts,
    device: &BlockDevice,
    namespace: &Namespace,
) -> Reason {
    reason(
        ReasonCode::SectorNamespace,
        format!(
            "{} is a sector namespace ({}), whose translation table (BTT) rules out DAX",
            namespace.name, device.name
        ),
        Some(commands::fsdax_namespace(facts, device, namespace)),
    )
}

pub(super) fn no_dax_device(facts: &Facts) -> Reason {
    let page = facts.page_size;
    let below_is_dax =
        |device: &BlockDevice| device.below.iter().any(|below| below.dax == Some(true));
    let (text, remedy) = match &facts.device {
        Some(device) if device.kind == "device-mapper" && below_is_dax(device) => (
            format!("device-mapper device {} does not pass on the DAX of its devices", device.name),
            Remedy::advice("use only linear and striped targets, over DAX devices alone"),
        ),
        Some(device) if device.kind == "partition" && below_is_dax(device) => (
            format!(
                "partition {} does not begin and end at multiples of the page size, {page} bytes",
                device.name
            ),
            Remedy::advice(
                "copy the files elsewhere, and make the partition again, beginning and ending at \
                 multiples of 2 MiB",
            )
            .erasing(),
        ),
        Some(device)
            if matches!(device.kind.as_str(), "raid" | "bcache" | "filesystem")
                && below_is_dax(device) =>
        {
            let below: Vec<_> = device.below.iter().map(|below| below.name.as_str()).collect();
            (
                format!(
                    "{} ({}) is made of {} and does not pass on the DAX of what is below it",
                    device.name,
                    device.kind,
                    below.join(" and ")
                ),
                Remedy::advice(
                    "for MAP_SYNC, make a filesystem on each namespace, or join them by \
                     device-mapper: only its linear and striped targets pass DAX on",
                ),
            )
        }
        Some(device) => (
            format!("{} ({}) is not a DAX device", device.name, device.kind),
            Remedy::advice(
                "for MAP_SYNC, use persistent memory: an NVDIMM or CXL namespace of mode fsdax \
                 (/dev/pmemN)",
            ),
        ),
        None => (
            format!("no block device is visible in /sys under {}", facts.path.display()),
            Remedy::advice(SEE_SYS),
        ),
    };
    reason(ReasonCode::NoDaxDevice, text, Some(remedy))
}

/// Where sysfs does not show a device.
pub(super) const SEE_SYS: &str = "make sysfs visible at /sys (a container runtime may mask parts of it), or probe from outside the \
     container";

/// When a level of emulated memory means something: the emulator keeps only what its backend keeps.
const PERSISTENT_BACKEND: &str = "only where its memory-backend-file has pmem=on and share=on, on a DAX file or a device-DAX node of \
     the host";

pub(super) fn virtio_pmem(region: &MemoryRegion) -> Reason {
    reason(
        ReasonCode::VirtioPmemAsynchronous,
        format!(
            "{} is virtio-pmem, which flushes through the host and cannot MAP_SYNC",
            named(region)
        ),
        Some(Remedy::advice(format!(
            "give the guest an NVDIMM instead (QEMU: -device nvdimm), {PERSISTENT_BACKEND}"
        ))),
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
        Some(Remedy::advice(format!(
            "put the file in a directory of {} itself; in a container, on a volume",
            upper.point.display()
        ))),
    )
}

pub(super) fn persistence_domain_unknown(region: &MemoryRegion) -> Reason {
    let provider = if region.provider.is_empty() { "unknown" } else { region.provider.as_str() };
    reason(
        ReasonCode::PersistenceDomainUnknown,
        format!(
            "{} (provider {provider}) names no persistence domain: nothing says that it keeps at a \
             power loss what is stored there",
            named(region)
        ),
        Some(Remedy::advice(format!(
            "the platform has to name it (ACPI NFIT, platform capabilities): update its firmware; \
             in QEMU, -machine nvdimm-persistence=mem-ctrl, {PERSISTENT_BACKEND}"
        ))),
    )
}

pub(super) fn volatile_region(region: &MemoryRegion) -> Reason {
    reason(
        ReasonCode::VolatileRegion,
        format!("{} (provider {}) is volatile memory", named(region), region.provider),
        Some(Remedy::advice("use a persistent region (ndctl list -R shows them), or a disk")),
    )
}

pub(super) fn e820_region(region: &MemoryRegion) -> Reason {
    reason(
        ReasonCode::E820Region,
        format!(
            "{} comes from the e820 table (memmap= or a legacy NVDIMM): the kernel maps it as \
             persistent memory, and nothing says that it is",
            named(region)
        ),
        Some(Remedy::advice(
            "use an NVDIMM that ACPI NFIT describes, CXL memory, or a disk; memmap= is for tests",
        )),
    )
}

pub(super) fn kernel_too_old(version: (u32, u32)) -> Reason {
    reason(
        ReasonCode::KernelTooOld,
        format!("Linux {}.{} has no MAP_SYNC", version.0, version.1),
        Some(Remedy::advice("run Linux 4.15 or later; 5.8 or later for dax=inode")),
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
                Remedy::advice(
                    "copy the files elsewhere, and make the partition again, beginning at a \
                     multiple of 2 MiB",
                )
                .erasing(),
            ),
        );
    }
    let remedy = match (facts.target, facts.filesystem.as_deref()) {
        (Target::DaxDevice, _) => Remedy::advice(
            "copy the contents elsewhere, and make the namespace again with an alignment of 2 MiB \
             (ndctl create-namespace --align)",
        )
        .erasing(),
        (_, Some("xfs")) => Remedy::advice(
            "copy the files elsewhere, make the filesystem again with mkfs.xfs -d su=2m,sw=1, and \
             allocate each file whole (fallocate)",
        )
        .erasing(),
        _ => Remedy::advice(
            "copy the file into a new one, allocated whole (fallocate) in multiples of 2 MiB; on a \
             full or fragmented filesystem that may not be enough",
        ),
    };
    reason(
        ReasonCode::HugePagesMisaligned,
        format!("{text}: its extents are not aligned to 2 MiB"),
        Some(remedy),
    )
}

pub(super) fn read_only(text: String, remedy: Option<Remedy>) -> Reason {
    reason(ReasonCode::ReadOnly, text, remedy)
}

pub(super) fn memory_backed(what: &str) -> Reason {
    reason(
        ReasonCode::MemoryBacked,
        format!("{what} is kept in memory and is lost with the running kernel"),
        Some(Remedy::advice("put the file on a filesystem on a disk or on persistent memory")),
    )
}

pub(super) fn layer_unverified(text: String, remedy: &str) -> Reason {
    reason(ReasonCode::LayerUnverified, text, Some(Remedy::advice(remedy)))
}

pub(super) fn no_barrier(facts: &Facts, mount: &Mount, option: &str) -> Reason {
    let point = mount.point.display();
    reason(
        ReasonCode::NoBarrier,
        format!("{point} is mounted {option}: fdatasync sends the device no flush"),
        Some(commands::barriers(facts, mount, option)),
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
        Some(Remedy::advice(
            "name a regular file, a directory, a block device or a device-DAX node",
        )),
    )
}

pub(super) fn hidden_node(path: &Path) -> Reason {
    reason(
        ReasonCode::NotARegularFile,
        format!(
            "{} is a character device, and whether it is device DAX is not visible: neither \
             /sys/dev/char nor /sys/bus/dax/devices can be read",
            path.display()
        ),
        Some(Remedy::advice(SEE_SYS)),
    )
}

pub(crate) fn cached_pages_stay(path: &Path) -> Reason {
    reason(
        ReasonCode::LayerUnverified,
        format!(
            "pages of {} stay cached, since another process has them mapped, and what they show may \
             not be on the medium",
            path.display()
        ),
        Some(Remedy::advice("open the file with its lock, or close it in the other process")),
    )
}

/// What opening a region on hugetlbfs is refused with.
pub(crate) const HUGETLBFS: &str =
    "hugetlbfs maps whole huge pages and has no write(2); use tmpfs, mounted with huge=within_size";

pub(super) fn hugetlbfs(path: &Path) -> Reason {
    reason(
        ReasonCode::NotARegularFile,
        format!(
            "{} is on hugetlbfs, which maps whole huge pages and has no write(2)",
            path.display()
        ),
        Some(Remedy::advice("use tmpfs, mounted with huge=within_size")),
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
        Some(Remedy::advice(
            "look for \"dax\" in the kernel log; files that are encrypted, verity, inline or \
             data=journal are never DAX",
        )),
    )
}
