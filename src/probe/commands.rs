//! The remedies that may be commands, and the advice where they may not.

use std::path::Path;

use super::facts::Facts;
use super::remedy::{Remedy, word};
use super::report::{BlockDevice, MemoryRegion, Mount, Namespace, Target};

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
            "give the file the DAX flag; whoever opens it once it was closed everywhere gets DAX",
            chattr(&facts.path),
        ),
        _ => Remedy::command(
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
    let unused = facts.target == Target::BlockDevice
        && facts.mount.is_none()
        && facts.device.as_ref().is_some_and(|top| top.number == device.number);
    if unused && name.starts_with("namespace") {
        return Remedy::command(
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

/// A read-only region of memory.
pub(super) fn writable_region(_region: &MemoryRegion) -> Remedy {
    Remedy::advice(
        "find out why: a region of NVDIMMs that are not armed is read-only because it loses what is \
         written to it at a power loss, and must stay so",
    )
}

/// A read-only block device.
pub(super) fn writable_device(device: &BlockDevice) -> Remedy {
    Remedy::advice(format!("make {} writable (blockdev --setrw)", device.name))
}

/// A read-only mount.
pub(super) fn writable_mount(_facts: &Facts, mount: &Mount) -> Remedy {
    Remedy::advice(format!(
        "remount {} read-write, with its other options as they are",
        mount.point.display()
    ))
}
