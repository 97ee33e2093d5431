//! What keeps a path from being DAX, or from being as good as it could be.

use rustix::io::Errno;

use super::devdax::SYSTEM_RAM;
use super::facts::{offers_dax, walk};
use super::filesystem::{self, Class, DaxMode};
use super::memory_reasons;
use super::report::{BlockDevice, HugePages, MapSync, Mount, Target};
use super::verdict::Judge;
use super::{prediction, reasons};
use crate::cpu::WriteBack;
use crate::durability::Backend;

impl Judge<'_> {
    /// What kept the path from being mapped with `MAP_SYNC`.
    pub(super) fn obstacles(&mut self, backend: Backend) {
        let facts = self.facts;
        let mut refused = None;
        match facts.map_sync {
            _ if facts.hidden_node => {
                self.push(reasons::hidden_node(&facts.path));
                return;
            }
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
            MapSync::NotTried(errno) => self.push(match &facts.dax_device {
                Some((namespace, _)) if namespace.mode == SYSTEM_RAM => {
                    memory_reasons::system_ram(facts, namespace)
                }
                _ => memory_reasons::not_tried(facts, errno),
            }),
            MapSync::Refused(errno) => refused = Some(errno),
            MapSync::Predicted(false) => {}
        }
        if backend == Backend::Volatile && facts.target != Target::DaxDevice {
            return;
        }
        let before = self.found();
        let einval = MapSync::Refused(Errno::INVAL.raw_os_error());
        let asks_kernel = facts.map_sync == einval || facts.device.as_ref().is_some_and(offers_dax);
        if let Some(kernel) = facts.kernel.filter(|kernel| *kernel < prediction::MAP_SYNC_KERNEL) {
            if asks_kernel {
                self.push(reasons::kernel_too_old(kernel));
            }
        }
        match (facts.class, &facts.mount) {
            (Some(Class::Overlay), Some(mount)) => self.overlay_obstacle(mount),
            // Foretold of a filesystem nobody knows, it would be a guess.
            (Some(Class::Unknown), _) if refused.is_none() => {}
            (Some(Class::Local | Class::Layered | Class::Unknown), _) => self.filesystem_obstacle(),
            (Some(Class::Dax), mount) => {
                self.device_obstacle();
                self.mount_obstacle(mount.as_ref());
            }
            (None, _) if facts.target == Target::BlockDevice => self.device_obstacle(),
            _ => {}
        }
        if let Some(errno) = refused {
            if self.found() == before && facts.class != Some(Class::Overlay) {
                self.push(reasons::map_sync_refused(facts, errno));
            }
        }
    }

    fn overlay_obstacle(&mut self, mount: &Mount) {
        match (&self.facts.upper, &self.facts.device) {
            (Some(upper), Some(device))
                if offers_dax(device) && filesystem::class(&upper.filesystem) == Class::Dax =>
            {
                self.push(reasons::overlay_on_dax(mount, upper));
            }
            // Nobody expects DAX of it.
            _ => {}
        }
    }

    fn filesystem_obstacle(&mut self) {
        let facts = self.facts;
        // Over several devices it is none of theirs.
        let one = |device: &BlockDevice| offers_dax(device) && device.kind != "filesystem";
        let dax = facts.device.as_ref().is_some_and(one);
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
                    "raw" => found.push(reasons::raw_namespace(facts, device, namespace)),
                    "sector" => found.push(reasons::sector_namespace(facts, device, namespace)),
                    _ => {}
                }
            }
            if let Some(region) = &device.region {
                if region.asynchronous {
                    found.push(reasons::virtio_pmem(region));
                }
            }
        });
        let spans = device.kind == "filesystem" && facts.class != Some(Class::Dax);
        if found.is_empty() && (spans || !offers_dax(device)) {
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
        if let (Some(bar), false) = (facts.bar, mode == DaxMode::Never) {
            return self.push(reasons::never_dax(facts, mount, bar));
        }
        let only_by_mount = prediction::MAP_SYNC_KERNEL..prediction::DAX_BY_INODE_KERNEL;
        if let Some(kernel) = facts.kernel.filter(|kernel| only_by_mount.contains(kernel)) {
            if mode != DaxMode::Always {
                return self.push(reasons::mounted_without_dax(mount, kernel));
            }
        }
        match (mode, facts.dax_flag) {
            // A kernel without MAP_SYNC is said to be so already.
            (DaxMode::Inode, _) if !prediction::has_map_sync(facts) => {}
            (DaxMode::Never, _) => self.push(reasons::mounted_dax_never(facts, mount)),
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
    pub(super) fn state(&mut self) {
        let facts = self.facts;
        if facts.filesystem.as_deref() == Some("hugetlbfs") {
            self.push(reasons::hugetlbfs(&facts.path));
        }
        for (region, bytes) in &facts.free_regions {
            self.push(memory_reasons::region_without_namespace(region, *bytes));
        }
        if let Some((_, region)) = &facts.dax_device {
            if !facts.bad_ranges.is_empty() {
                self.push(memory_reasons::bad_bytes_of_node(facts));
            } else if !facts.bad_ranges_known {
                self.push(memory_reasons::bad_bytes_somewhere(facts, region));
            }
        } else if facts.target == Target::File && !facts.bad_ranges.is_empty() {
            self.push(memory_reasons::bad_bytes_of_file(facts));
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
        if let Some(device) = &self.facts.device {
            let is_file = self.facts.target == Target::File;
            walk(device, &mut |below| {
                // A partition has its disk's ranges already, as far as they are its own.
                let owner = below.kind == "pmem" && device.kind != "partition"
                    || below.kind == "partition" && !is_file;
                if owner && !below.bad_blocks.is_empty() {
                    found.push(memory_reasons::bad_bytes_of_device(
                        self.facts,
                        &below.name,
                        &below.bad_blocks,
                    ));
                }
            });
        }
        for reason in found {
            self.push(reason);
        }
    }
}
