//! What a region here survives.
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

use super::filesystem::{self, Class};
use super::reasons;
use super::report::{BlockDevice, MemoryRegion, Mount, Target};
use super::verdict::Judge;
use crate::durability::{Backend, Durability, PersistenceDomain};

impl Judge<'_> {
    /// The level of this backend on these facts.
    pub(super) fn durability(&mut self, backend: Backend, regions: &[MemoryRegion]) -> Durability {
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
                        reasons::SEE_SYS,
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
                    "put the file on a local filesystem: ext4, xfs or btrfs on a disk",
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
            "put the data on a volume, a directory of a filesystem that is not an overlay",
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
            reasons::SEE_SYS,
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
}
