//! From facts to the verdict, without asking the system anything.
//!
//! The rules, strongest first; several things in the way of a promise each weaken it, none
//! strengthens it:
//!
//! | what keeps the bytes | level | source |
//! |---|---|---|
//! | `MAP_SYNC` or device DAX, every region names a persistence domain | `PowerFail` | sysfs-bus-nvdimm; mmap(2) `MAP_SYNC` |
//! | the same, a region names none | `Unverified` | the kernel maps it all the same |
//! | the same, a region is volatile or e820 | `ProcessOnly` | drivers/nvdimm/e820.c: RAM declared with `memmap=` |
//! | `fdatasync` on a filesystem of class `Dax` or `Local`, on disks | `Fsync` | fsync(2) |
//! | ... virtio-pmem | `Fsync` | drivers/nvdimm/virtio_pmem.c: a flush is an fsync on the host |
//! | ... pmem without a persistence domain | `Unverified` | a flush of drivers/nvdimm/pmem.c ends at the memory controller |
//! | ... pmem of an e820 or volatile region, zram, RAM disk | `ProcessOnly` | nothing there outlives the kernel |
//! | ... a loop device | as its backing file | drivers/block/loop.c: a flush is an fsync of the file |
//! | ... nbd, rbd, drbd, ublk | `Unverified` | a server or a program keeps the data |
//! | ... device-mapper, md, partition | the weakest below | a flush goes to every device below |
//! | ... no device visible | `Unverified` (zfs: `Fsync`) | zfs keeps its pools out of sysfs |
//! | mounted `nobarrier` or the like | at most `Unverified` | see `filesystem::no_barrier` |
//! | overlay | at most `Unverified`, and the upper's level | overlayfs.rst |
//! | overlay mounted `volatile` | `ProcessOnly` | overlayfs.rst, "Volatile mount" |
//! | FUSE, network, unknown filesystems | `Unverified` | see `filesystem` |
//! | tmpfs, ramfs, hugetlbfs, memfd | `ProcessOnly` | tmpfs(5), memfd_create(2) |

use rustix::io::Errno;

use super::facts::{self, Facts, offers_dax, regions, walk};
use super::filesystem::{self, Class, DaxMode};
use super::reasons;
use super::report::{
    BlockDevice, HugePages, MapSync, MemoryRegion, Mount, Reason, ReasonCode, Report, Target,
};
use crate::cpu::WriteBack;
use crate::durability::{Backend, Durability, Granularity, PersistenceDomain};

/// Judges the facts and makes the report.
pub(super) fn judge(facts: Facts) -> Report {
    let regions: Vec<MemoryRegion> = all_regions(&facts).into_iter().cloned().collect();
    let persistence_domain = facts::weakest(&regions.iter().collect::<Vec<_>>());
    let mut judge = Judge { facts: &facts, reasons: Vec::new() };
    let backend = judge.backend();
    let durability = judge.durability(backend, &regions);
    let granularity = granularity(backend, persistence_domain);
    judge.obstacles(backend);
    judge.state();
    let read_only = facts::read_only(&facts);
    let is_read_only = read_only.is_some();
    if let Some((text, remedy)) = read_only {
        judge.push(reasons::read_only(text, remedy));
    }
    let mut reasons = judge.reasons;
    reasons.sort_by_key(|reason| weight(reason.code));

    let namespace = match &facts.dax_device {
        Some((namespace, _)) => Some(namespace.clone()),
        None => facts.device.as_ref().and_then(first_namespace),
    };
    Report {
        numa_node: regions.iter().find_map(|region| region.numa_node),
        path: facts.path,
        target: facts.target,
        mount: facts.mount,
        filesystem: facts.filesystem,
        upper: facts.upper,
        device: facts.device,
        namespace,
        regions,
        statx_dax: facts.statx_dax,
        dax_flag: facts.dax_flag,
        map_sync: facts.map_sync,
        persistence_domain,
        backend,
        durability,
        granularity,
        huge_pages: facts.huge_pages,
        write_back: facts.write_back,
        block_size: facts.block_size,
        read_only: is_read_only,
        bad_ranges: facts.bad_ranges,
        reasons,
    }
}

fn all_regions(facts: &Facts) -> Vec<&MemoryRegion> {
    match (&facts.dax_device, &facts.device) {
        (Some((_, region)), _) => vec![region],
        (None, Some(device)) => regions(device),
        (None, None) => Vec::new(),
    }
}

fn first_namespace(device: &BlockDevice) -> Option<super::report::Namespace> {
    let mut found = None;
    walk(device, &mut |device| {
        if found.is_none() {
            found.clone_from(&device.namespace);
        }
    });
    found
}

/// Byte only where every region behind the mapping has its CPU caches in the persistence domain,
/// or where there is nothing to write back to.
fn granularity(backend: Backend, domain: PersistenceDomain) -> Granularity {
    match backend {
        Backend::Volatile => Granularity::Byte,
        Backend::FsDax | Backend::DevDax if domain == PersistenceDomain::CpuCache => {
            Granularity::Byte
        }
        Backend::FsDax | Backend::DevDax => Granularity::CacheLine,
        Backend::PageCache => Granularity::Page,
    }
}

/// Reasons are told in this order: what rules the path out, what weakens the promise, what keeps
/// it from being DAX, what makes it slower.
fn weight(code: ReasonCode) -> usize {
    const ORDER: &[ReasonCode] = &[
        ReasonCode::NotARegularFile,
        ReasonCode::PermissionDenied,
        ReasonCode::ReadOnly,
        ReasonCode::BadBlocks,
        ReasonCode::E820Region,
        ReasonCode::VolatileRegion,
        ReasonCode::MemoryBacked,
        ReasonCode::PersistenceDomainUnknown,
        ReasonCode::NoBarrier,
        ReasonCode::OverlayOnDax,
        ReasonCode::LayerUnverified,
        ReasonCode::KernelTooOld,
        ReasonCode::VirtioPmemAsynchronous,
        ReasonCode::RawNamespace,
        ReasonCode::SectorNamespace,
        ReasonCode::FilesystemWithoutDax,
        ReasonCode::NoDaxDevice,
        ReasonCode::BlockSizeNotPageSize,
        ReasonCode::XfsFellBackToDaxNever,
        ReasonCode::MountedDaxNever,
        ReasonCode::DaxFlagSetFileOpen,
        ReasonCode::DaxInodeWithoutFlag,
        ReasonCode::NoWriteBackInstruction,
        ReasonCode::MapSyncRefused,
        ReasonCode::HugePagesMisaligned,
    ];
    ORDER.iter().position(|known| *known == code).unwrap_or(ORDER.len())
}

struct Judge<'a> {
    facts: &'a Facts,
    reasons: Vec<Reason>,
}

impl Judge<'_> {
    fn push(&mut self, reason: Reason) {
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    fn backend(&self) -> Backend {
        let facts = self.facts;
        let mappable = matches!(facts.map_sync, MapSync::Accepted | MapSync::Predicted(true));
        let can_write_back = facts.write_back != WriteBack::None;
        match facts.target {
            // A device-DAX node has no write(2): without a durable mapping nothing is left but
            // memory. If it may not be opened, what it is still decides.
            Target::DaxDevice => match facts.map_sync {
                MapSync::Accepted | MapSync::NotTried(_) if can_write_back => Backend::DevDax,
                _ => Backend::Volatile,
            },
            Target::Other => Backend::PageCache,
            _ if mappable && can_write_back => Backend::FsDax,
            _ if facts.class == Some(Class::Memory) => Backend::Volatile,
            _ => Backend::PageCache,
        }
    }

    fn durability(&mut self, backend: Backend, regions: &[MemoryRegion]) -> Durability {
        let facts = self.facts;
        if facts.target == Target::Other {
            return Durability::ProcessOnly;
        }
        match backend {
            Backend::FsDax | Backend::DevDax => {
                if regions.is_empty() {
                    self.push(reasons::layer_unverified(
                        format!(
                            "no memory region is visible in /sys under {}",
                            facts.path.display()
                        ),
                        "mount /sys, or use memory that the nvdimm drivers describe",
                    ));
                    return Durability::Unverified;
                }
                let weakest =
                    regions.iter().map(|region| self.region(region, Durability::PowerFail)).min();
                weakest.unwrap_or(Durability::Unverified)
            }
            Backend::Volatile => {
                if facts.target != Target::DaxDevice {
                    let what = facts.filesystem.as_deref().unwrap_or("this filesystem");
                    self.push(reasons::memory_backed(&format!(
                        "{what} under {}",
                        facts.path.display()
                    )));
                }
                Durability::ProcessOnly
            }
            Backend::PageCache => match (facts.class, &facts.device) {
                (None, Some(device)) => self.medium(device),
                (None, None) => self.invisible_device(None),
                (Some(class), device) => self.filesystem(
                    class,
                    facts.mount.as_ref(),
                    facts.upper.as_ref(),
                    device.as_ref(),
                ),
            },
        }
    }

    /// What a flush that reached this memory region keeps; `known` is the level that a named
    /// persistence domain gives.
    fn region(&mut self, region: &MemoryRegion, known: Durability) -> Durability {
        match region.persistence_domain {
            PersistenceDomain::MemoryController | PersistenceDomain::CpuCache => known,
            // Its flush is an fsync on the host, so for fdatasync that is as good as a disk.
            PersistenceDomain::Unknown if region.asynchronous && known == Durability::Fsync => {
                known
            }
            PersistenceDomain::Volatile if region.provider == "e820" => {
                self.push(reasons::e820_region(region));
                Durability::ProcessOnly
            }
            PersistenceDomain::Volatile => {
                self.push(reasons::volatile_region(region));
                Durability::ProcessOnly
            }
            PersistenceDomain::Unknown | PersistenceDomain::None => {
                self.push(reasons::persistence_domain_unknown(region));
                Durability::Unverified
            }
        }
    }

    /// What `fdatasync` on this filesystem keeps.
    fn filesystem(
        &mut self,
        class: Class,
        mount: Option<&Mount>,
        upper: Option<&Mount>,
        device: Option<&BlockDevice>,
    ) -> Durability {
        let name = mount.map_or("this filesystem", |mount| mount.filesystem.as_str());
        match class {
            Class::Pseudo => Durability::ProcessOnly,
            Class::Memory => {
                let at = mount
                    .map_or_else(String::new, |mount| format!(" on {}", mount.point.display()));
                self.push(reasons::memory_backed(&format!("{name}{at}")));
                Durability::ProcessOnly
            }
            Class::Layered => {
                let name =
                    self.facts.filesystem.as_deref().filter(|_| mount.is_none()).unwrap_or(name);
                let at = mount
                    .map_or_else(String::new, |mount| format!(" on {}", mount.point.display()));
                self.push(reasons::layer_unverified(
                    format!("{name}{at} leaves fdatasync to a program or a server that cannot be checked from here"),
                    "keep the file on a local filesystem: ext4, xfs or btrfs on a disk",
                ));
                Durability::Unverified
            }
            Class::Overlay => {
                let Some(mount) = mount else { return self.invisible_device(None) };
                self.overlay(mount, upper, device)
            }
            Class::Dax | Class::Local => {
                let mut level = match device {
                    Some(device) => self.medium(device),
                    // zfs keeps its pools out of sysfs; zfs(8) and its intent log vouch for it.
                    None if name == "zfs" => Durability::Fsync,
                    None => self.invisible_device(mount),
                };
                if let Some(mount) = mount
                    && let Some(option) = filesystem::no_barrier(mount)
                {
                    self.push(reasons::no_barrier(mount, option));
                    level = level.min(Durability::Unverified);
                }
                level
            }
        }
    }

    fn overlay(
        &mut self,
        mount: &Mount,
        upper: Option<&Mount>,
        device: Option<&BlockDevice>,
    ) -> Durability {
        let point = mount.point.display();
        if filesystem::is_volatile_overlay(mount) {
            self.push(reasons::layer_unverified(
                format!("the overlay on {point} is mounted volatile and leaves out every sync"),
                "mount the overlay without the option volatile",
            ));
            return Durability::ProcessOnly;
        }
        self.push(reasons::layer_unverified(
            format!("{point} is an overlay: a write goes to a copy in another filesystem"),
            "use a directory of a filesystem itself, in a container as a bind mount (volume)",
        ));
        let below = upper.map(|upper| {
            // An overlay on an overlay is not followed further than its class.
            self.filesystem(filesystem::class(&upper.filesystem), Some(upper), None, device)
        });
        below.unwrap_or(Durability::Unverified).min(Durability::Unverified)
    }

    fn invisible_device(&mut self, mount: Option<&Mount>) -> Durability {
        let what = mount.map_or_else(
            || self.facts.path.display().to_string(),
            |mount| mount.point.display().to_string(),
        );
        self.push(reasons::layer_unverified(
            format!(
                "the device under {what} is not visible in /sys, so nothing is known of its flushes"
            ),
            "mount /sys; in a container, let it see the host's",
        ));
        Durability::Unverified
    }

    /// What a flush sent to this block device keeps.
    fn medium(&mut self, device: &BlockDevice) -> Durability {
        if let Some(region) = &device.region {
            return self.region(region, Durability::Fsync);
        }
        let name = &device.name;
        match device.kind.as_str() {
            "zram" | "ramdisk" => {
                self.push(reasons::memory_backed(&format!(
                    "block device {name} ({})",
                    device.kind
                )));
                Durability::ProcessOnly
            }
            "network" | "userspace" => {
                self.push(reasons::layer_unverified(
                    format!("block device {name} is kept by a program or a server that cannot be checked from here"),
                    "use a local disk",
                ));
                Durability::Unverified
            }
            "loop" => match &device.backing_mount {
                Some(mount) => {
                    let class = filesystem::class(&mount.filesystem);
                    self.filesystem(class, Some(mount), None, device.below.first())
                }
                None => self.invisible_below(name),
            },
            "disk" | "pmem" if device.below.is_empty() => Durability::Fsync,
            _ => {
                let weakest = device.below.iter().map(|below| self.medium(below)).min();
                weakest.unwrap_or_else(|| self.invisible_below(name))
            }
        }
    }

    fn invisible_below(&mut self, name: &str) -> Durability {
        self.push(reasons::layer_unverified(
            format!("what is below block device {name} is not visible from here"),
            "probe from the mount namespace that set the device up",
        ));
        Durability::Unverified
    }

    /// What kept the path from being mapped with `MAP_SYNC`.
    fn obstacles(&mut self, backend: Backend) {
        let facts = self.facts;
        let mut refused = None;
        match facts.map_sync {
            _ if facts.target == Target::Other => {
                self.push(reasons::not_a_regular_file(match facts.class {
                    Some(Class::Pseudo) => format!(
                        "{} lies on {}, an interface of the kernel, not storage",
                        facts.path.display(),
                        facts.filesystem.as_deref().unwrap_or_default()
                    ),
                    _ => format!(
                        "{} is neither a file, a directory, a block device nor device DAX",
                        facts.path.display()
                    ),
                }));
                return;
            }
            MapSync::Accepted | MapSync::Predicted(true) => {
                if facts.write_back == WriteBack::None {
                    self.push(reasons::no_write_back(&facts.path.display().to_string()));
                }
                return;
            }
            MapSync::NotTried(errno) => {
                self.push(reasons::permission_denied(facts, errno));
            }
            MapSync::Refused(errno) => refused = Some(errno),
            MapSync::Predicted(false) => {}
        }
        if backend == Backend::Volatile && facts.target != Target::DaxDevice {
            return;
        }
        let before = self.reasons.len();
        if let Some(kernel) = facts.kernel.filter(|kernel| *kernel < facts::MAP_SYNC_KERNEL)
            && refused.is_none_or(|errno| errno == Errno::INVAL.raw_os_error())
        {
            self.push(reasons::kernel_too_old(kernel));
        }
        match (facts.class, &facts.mount) {
            (Some(Class::Overlay), Some(mount)) => self.overlay_obstacle(mount),
            (Some(Class::Local | Class::Layered), _) => self.filesystem_obstacle(),
            (Some(Class::Dax), mount) => {
                self.device_obstacle();
                self.mount_obstacle(mount.as_ref());
            }
            (None, _) if facts.target == Target::BlockDevice => self.device_obstacle(),
            _ => {}
        }
        if let Some(errno) = refused
            && self.reasons.len() == before
        {
            self.push(reasons::map_sync_refused(facts, errno));
        }
    }

    fn overlay_obstacle(&mut self, mount: &Mount) {
        match (&self.facts.upper, &self.facts.device) {
            (Some(upper), Some(device))
                if offers_dax(device) && filesystem::class(&upper.filesystem) == Class::Dax =>
            {
                self.push(reasons::overlay_on_dax(mount, upper));
            }
            _ => self.push(reasons::filesystem_without_dax(self.facts, false)),
        }
    }

    fn filesystem_obstacle(&mut self) {
        let facts = self.facts;
        let dax = facts.device.as_ref().is_some_and(offers_dax);
        self.push(reasons::filesystem_without_dax(facts, dax));
        if facts.device.is_some() && !dax {
            self.device_obstacle();
        }
    }

    fn device_obstacle(&mut self) {
        let facts = self.facts;
        let Some(device) = &facts.device else { return self.push(reasons::no_dax_device(facts)) };
        let mut found = Vec::new();
        walk(device, &mut |device| {
            if let Some(namespace) = &device.namespace {
                match namespace.mode.as_str() {
                    "raw" => found.push(reasons::raw_namespace(device, namespace)),
                    "sector" => found.push(reasons::sector_namespace(device, namespace)),
                    _ => {}
                }
            }
            if let Some(region) = &device.region
                && region.asynchronous
            {
                found.push(reasons::virtio_pmem(region));
            }
        });
        if found.is_empty() && !offers_dax(device) {
            found.push(reasons::no_dax_device(facts));
        }
        for reason in found {
            self.push(reason);
        }
    }

    /// Obstacles of the filesystem and its mount. Without a DAX device under it, its options are
    /// beside the point, except that xfs gave one up.
    fn mount_obstacle(&mut self, mount: Option<&Mount>) {
        let facts = self.facts;
        let Some(mount) = mount else { return };
        let mode = filesystem::dax_mode(mount);
        let dax_device = facts.device.as_ref().is_some_and(offers_dax);
        let wrong_blocks = facts.block_size.filter(|size| *size != facts.page_size);
        let is_xfs = mount.filesystem == "xfs";
        if is_xfs && mode == DaxMode::Never && (!dax_device || wrong_blocks.is_some()) {
            self.push(reasons::xfs_fell_back(mount));
        }
        if !dax_device {
            return;
        }
        if let Some(block_size) = wrong_blocks {
            return self.push(reasons::block_size_not_page_size(facts, block_size));
        }
        match (mode, facts.dax_flag) {
            (DaxMode::Never, _) => self.push(reasons::mounted_dax_never(mount)),
            (DaxMode::Inode, Some(true))
                if facts.target == Target::File && facts.statx_dax != Some(true) =>
            {
                self.push(reasons::dax_flag_set_file_open(facts));
            }
            (DaxMode::Inode, Some(false) | None) if facts.statx_dax != Some(true) => {
                self.push(reasons::dax_inode_without_flag(facts, mount));
            }
            _ => {}
        }
    }

    /// Bad blocks and huge pages.
    fn state(&mut self) {
        let facts = self.facts;
        if !facts.bad_ranges.is_empty() {
            self.push(reasons::bad_blocks_in_file(facts));
        } else if facts.target != Target::File
            || facts.device.as_ref().is_some_and(|device| device.bad_blocks.is_empty())
        {
            self.bad_devices();
        }
        let mappable = matches!(facts.map_sync, MapSync::Accepted | MapSync::Predicted(true));
        let misaligned = match facts.huge_pages {
            HugePages::Misaligned { .. } => true,
            HugePages::Unknown => facts.shift.is_some_and(|shift| shift != 0),
            _ => false,
        };
        if mappable && misaligned {
            self.push(reasons::huge_pages_misaligned(facts));
        }
    }

    /// Bad blocks that cannot be told to lie in a file: there is none yet, or a device-mapper device
    /// lies between.
    fn bad_devices(&mut self) {
        let mut found = Vec::new();
        if let Some((_, region)) = &self.facts.dax_device
            && !region.bad_blocks.is_empty()
        {
            found.push(reasons::bad_blocks_on_device(&region.name, &region.bad_blocks));
        }
        if let Some(device) = &self.facts.device {
            let is_file = self.facts.target == Target::File;
            walk(device, &mut |below| {
                // A partition has its disk's ranges already, as far as they are its own.
                let owner = below.kind == "pmem" && device.kind != "partition"
                    || below.kind == "partition" && !is_file;
                if owner && !below.bad_blocks.is_empty() {
                    found.push(reasons::bad_blocks_on_device(&below.name, &below.bad_blocks));
                }
            });
        }
        for reason in found {
            self.push(reason);
        }
    }
}
