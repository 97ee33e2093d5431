//! The remedies that may be commands, and the advice where they may not.

use std::path::Path;

use super::facts::Facts;
use super::memory_device::MemoryDevice;
use super::mounted;
use super::mountinfo::has_option;
use super::report::{BlockDevice, MemoryRegion, Mount, Namespace, Target};
use crate::reason::remedy::{Recipe, Remedy, word};

/// The directory whose DAX flag a new file here inherits.
pub(super) fn directory<'a>(facts: &'a Facts, mount: &'a Mount) -> &'a Path {
    match facts.target {
        Target::Directory => &facts.path,
        Target::Missing => match facts.path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        },
        _ => &mount.point,
    }
}

/// The DAX flag for a file, or for what is created in a directory.
pub(super) fn dax_flag(facts: &Facts, mount: &Mount) -> Remedy {
    let chattr = |path| Some(format!("xfs_io -c 'chattr +x' {}", word(path)?));
    match facts.target {
        Target::File => Remedy::command(
            Recipe::DaxFlag,
            "give the file the DAX flag; whoever opens it once it was closed everywhere gets DAX",
            chattr(&facts.path),
        ),
        _ => Remedy::command(
            Recipe::DaxFlag,
            format!(
                "give the directory the DAX flag, which files created in it afterwards inherit, or \
                 mount {} with dax=always",
                mount.point.display()
            ),
            chattr(directory(facts, mount)),
        ),
    }
}

/// A namespace without DAX, made one of mode fsdax. ndctl refuses while the device is in use.
pub(super) fn fsdax_namespace(
    facts: &Facts,
    device: &BlockDevice,
    namespace: &Namespace,
) -> Remedy {
    let name = &namespace.name;
    let writable = !device.region.as_ref().is_some_and(|region| region.read_only);
    let unused = writable
        && facts.target == Target::BlockDevice
        && facts.mount.is_none()
        && facts.device.as_ref().is_some_and(|top| top.number == device.number);
    if unused && name.starts_with("namespace") {
        return Remedy::command(
            Recipe::FsdaxNamespace,
            format!("make {name} a namespace of mode fsdax, for a filesystem with MAP_SYNC"),
            word(Path::new(name))
                .map(|name| format!("ndctl create-namespace -f -e {name} -m fsdax")),
        )
        .erasing();
    }
    Remedy::advice(format!(
        "copy the data elsewhere, release the device, and make {name} a namespace of mode fsdax \
         (ndctl create-namespace)"
    ))
    .erasing()
}

/// A mount without DAX.
pub(super) fn dax_always(facts: &Facts, mount: &Mount) -> Remedy {
    let point = mount.point.display();
    // The first two make dax=always fail: fs/ext4/super.c; fs/xfs/xfs_super.c `xfs_setup_dax_always`.
    if has_option(mount, "data=journal") {
        return Remedy::advice(format!(
            "unmount {point}, and mount it with dax=always and without data=journal, which rules \
             out DAX"
        ));
    }
    if mount.filesystem == "xfs" && mounted::on_partition(facts.device.as_ref()) {
        return Remedy::advice(format!(
            "unmount {point}, and mount it with dax=always, which xfs refuses on a partition if it \
             has reflink (xfs_info shows reflink=1); then mount it with dax=inode, and give the \
             directory of the file the DAX flag"
        ));
    }
    if mount.root != Path::new("/") {
        return Remedy::advice(format!(
            "{point} is a part of a filesystem: unmount that everywhere, mount it with dax=always, \
             and make this bind mount again"
        ));
    }
    Remedy::command(
        Recipe::DaxAlways,
        format!(
            "stop what uses {point}, unmount it everywhere, and mount it with dax=always (in \
             /etc/fstab too), for MAP_SYNC"
        ),
        mounted::with_dax_always(facts, mount),
    )
}

/// A mount that sends no flushes.
pub(super) fn barriers(facts: &Facts, mount: &Mount, option: &str) -> Remedy {
    Remedy::command(
        Recipe::Barriers,
        format!(
            "remount {} without {option} (in /etc/fstab too), so that fdatasync flushes the device",
            mount.point.display()
        ),
        mounted::with_barriers(facts, mount),
    )
}

/// A read-only region of memory.
pub(super) fn writable_region(region: &MemoryRegion) -> Remedy {
    // Of a region whose devices are not armed the kernel makes memory that only can be read
    // (drivers/nvdimm/region_devs.c): what is written there is lost with the power.
    let armed = |device: &MemoryDevice| device.flags.as_ref().is_some_and(Vec::is_empty);
    let all_armed = region.devices_unread.is_empty()
        && !region.devices.is_empty()
        && region.devices.iter().all(armed);
    if !all_armed {
        return Remedy::advice(
            "repair or replace the memory devices of the region: leave it read-only as long as one \
             of them is not known to save what is written at a power loss",
        );
    }
    let region = Path::new(&region.name);
    Remedy::command(
        Recipe::WritableRegion,
        "make the region writable; its memory devices are in order",
        word(region).map(|name| format!("echo 0 > /sys/bus/nd/devices/{name}/read_only")),
    )
}

/// A read-only block device.
pub(super) fn writable_device(device: &BlockDevice) -> Remedy {
    let name = &device.name;
    match device.kind.as_str() {
        "disk" | "pmem" | "partition" => Remedy::command(
            Recipe::WritableDevice,
            format!("make {name} writable; if it stays as it is, the device itself is protected"),
            word(Path::new(name)).map(|name| format!("blockdev --setrw /dev/{name}")),
        ),
        "loop" => Remedy::advice(format!("attach {name} again without --read-only (losetup)")),
        "raid" => Remedy::advice(format!("make {name} writable (mdadm --readwrite)")),
        "device-mapper" => Remedy::advice(format!("load the table of {name} without --readonly")),
        _ => Remedy::advice(format!("make {name} writable where it was set up")),
    }
}

/// A read-only mount; `below` says that something under it is read-only as well.
pub(super) fn writable_mount(facts: &Facts, mount: &Mount, below: bool) -> Remedy {
    let point = mount.point.display();
    if below {
        return Remedy::advice(format!("then remount {point} read-write"));
    }
    Remedy::command(
        Recipe::WritableMount,
        format!("remount {point} read-write (in /etc/fstab too)"),
        mounted::read_write(facts, mount),
    )
}
