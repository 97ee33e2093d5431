//! Whether a command may change a mount, and how its other options are said again.
//!
//! mount(8) names a mount by its point and takes every option that is not given for its default. So
//! a command gives all of them, as mountinfo shows them, and is built only where that is the whole
//! truth: a filesystem whose options the guest tests carry out, one mount on the point, no option
//! that cannot be given.

use super::block::Context;
use super::facts::{Facts, Mounted};
use super::filesystem::{self, DaxMode};
use super::mountinfo::has_option;
use super::report::{BlockDevice, FilesystemLog, Mount};
use crate::reason::remedy::word;

/// Looks at the mount table only where a remedy needs it.
pub(super) fn look(context: &Context<'_>, mount: &Mount, device: Option<&BlockDevice>) -> Mounted {
    let never = filesystem::dax_mode(mount) == DaxMode::Never;
    if !never && !has_option(mount, "ro") && filesystem::no_barrier(&mount.options).is_none() {
        return Mounted::default();
    }
    let count =
        |same: &dyn Fn(&Mount) -> bool| context.mounts().iter().filter(|other| same(other)).count();
    let alone = count(&|other| other.point == mount.point) == 1;
    let again = never
        && count(&|other| other.device == mount.device) == 1
        && context.sources.block_node(mount.source.as_ref()) == Some(mount.device)
        && device.is_some_and(|device| finds_log(mount, device));
    Mounted { id: mount.id, alone, again }
}

/// Whether a later mount finds the log: an ext4 has it inside, an xfs shows its log device among the
/// options.
fn finds_log(mount: &Mount, device: &BlockDevice) -> bool {
    match device.log {
        Some(FilesystemLog::Internal | FilesystemLog::Absent) => true,
        Some(FilesystemLog::External(_)) => mount.filesystem == "xfs",
        Some(FilesystemLog::Unknown(_)) | None => false,
    }
}

/// Whether the filesystem itself, not its log, lies on a partition.
pub(super) fn on_partition(device: Option<&BlockDevice>) -> bool {
    device.is_some_and(|device| match device.kind.as_str() {
        "filesystem" => on_partition(device.below.first()),
        kind => kind == "partition",
    })
}

/// Options of the mount itself that `remount,bind` sets (mount(8), "filesystem-independent").
const OF_THE_MOUNT: &[&str] =
    &["nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "nosymfollow"];

/// The options of a mount as one word for `mount -o`, each as `change` makes it.
fn options(mount: &Mount, change: impl Fn(&str) -> String) -> Option<String> {
    const TESTED: &[&str] = &["ext4", "xfs", "btrfs"];
    // Not options of mount(8), or signs that the filesystem has given up.
    const NOT_GIVEN: &[&str] = &["idmapped", "shutdown", "emergency_ro", "norecovery", "noload"];
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=".contains(c);
    let can_be_given =
        |option: &String| !NOT_GIVEN.contains(&option.as_str()) && option.chars().all(plain);
    if !TESTED.contains(&mount.filesystem.as_str()) || !mount.options.iter().all(can_be_given) {
        return None;
    }
    let mut out: Vec<String> = mount.options.iter().map(|option| change(option)).collect();
    out.retain(|option| !option.is_empty());
    // Without any of them the table means strictatime, and mount(8) relatime.
    if !["noatime", "relatime"].iter().any(|name| has_option(mount, name)) {
        out.push("strictatime".to_owned());
    }
    Some(out.join(","))
}

/// `ro` and `rw` both: the mount and its filesystem differ.
fn is_mixed(mount: &Mount) -> bool {
    has_option(mount, "ro") && has_option(mount, "rw")
}

/// `mount` with these words, of the mount's source and on its point.
fn line(words: &str, mount: &Mount) -> Option<String> {
    Some(format!("mount {words} {} {}", word(mount.source.as_ref())?, word(&mount.point)?))
}

/// Mounts the whole filesystem again with `dax=always`, or as it was if that fails; not at all if it is
/// in use. What makes `dax=always` fail is ruled out before.
pub(super) fn with_dax_always(facts: &Facts, mount: &Mount) -> Option<String> {
    if !facts.mounted.is_alone(mount) || !facts.mounted.again || is_mixed(mount) {
        return None;
    }
    let kind = &mount.filesystem;
    let make = |options: String| line(&format!("-t {kind} -o {options}"), mount);
    let always = |option: &str| match option {
        "dax=never" => "dax=always".to_owned(),
        _ => option.to_owned(),
    };
    let (new, old) = (make(options(mount, always)?)?, make(options(mount, str::to_owned)?)?);
    let point = word(&mount.point)?;
    Some(format!("umount {point} && {{ {new} || {{ {old}; false; }}; }}"))
}

/// Remounts it with flushes.
pub(super) fn with_barriers(facts: &Facts, mount: &Mount) -> Option<String> {
    if !facts.mounted.is_alone(mount) || is_mixed(mount) {
        return None;
    }
    let with = match (mount.filesystem.as_str(), filesystem::no_barrier(&mount.options)?) {
        ("ext4", "nobarrier" | "barrier=0") => "barrier=1",
        ("btrfs", "nobarrier") => "barrier",
        _ => return None,
    };
    let change = |option: &str| match option {
        "nobarrier" | "barrier=0" => with.to_owned(),
        _ => option.to_owned(),
    };
    line(&format!("-o remount,{}", options(mount, change)?), mount)
}

/// Remounts it read-write.
pub(super) fn read_write(facts: &Facts, mount: &Mount) -> Option<String> {
    if !facts.mounted.is_alone(mount) {
        return None;
    }
    let position = |name| mount.options.iter().position(|option| option == name);
    if is_mixed(mount) && position("ro") < position("rw") {
        // Only the mount is read-only, not the filesystem: its options come first in the table.
        let of_the_mount = |option: &str| match option {
            "ro" => "bind,rw".to_owned(),
            _ if OF_THE_MOUNT.contains(&option) => option.to_owned(),
            _ => String::new(),
        };
        return line(&format!("-o remount,{}", options(mount, of_the_mount)?), mount);
    }
    let change = |option: &str| match option {
        "ro" if is_mixed(mount) => String::new(),
        "ro" => "rw".to_owned(),
        _ => option.to_owned(),
    };
    line(&format!("-o remount,{}", options(mount, change)?), mount)
}
