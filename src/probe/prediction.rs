//! Whether a file that is still to be made gets `MAP_SYNC`: never more than the file then does.

use super::block::Context;
use super::facts::{Bar, Facts, offers_dax, regions};
use super::filesystem::{self, Class, DaxMode};
use super::mountinfo::option;
use super::report::{BlockDevice, Target};
use super::subject::Subject;

/// mmap(2): `MAP_SHARED_VALIDATE` and `MAP_SYNC` exist since Linux 4.15.
pub(super) const MAP_SYNC_KERNEL: (u32, u32) = (4, 15);

/// `dax=always`, `dax=inode` and `dax=never` exist since Linux 5.8; before there was only `dax`, for
/// the whole mount (Documentation/filesystems/dax.rst).
pub(super) const DAX_BY_INODE_KERNEL: (u32, u32) = (5, 8);

/// What rules DAX out for a file, or what its directory hands on to a file to be made.
pub(super) fn bar(facts: &Facts, subject: &dyn Subject) -> Option<Bar> {
    let stat = subject.stat();
    if stat.encrypted {
        return Some(Bar::Encrypted);
    }
    let is_ext4 = facts.filesystem.as_deref() != Some("xfs");
    let journal = |options: &[String]| options.iter().any(|option| option == "data=journal");
    let mounted = facts
        .mount
        .as_ref()
        .is_some_and(|mount| option(mount, "data") == Some("journal"))
        || facts.device.as_ref().and_then(|device| device.options.as_deref()).is_some_and(journal);
    if is_ext4 && mounted {
        return Some(Bar::DataJournal);
    }
    match subject.hands_on() {
        None if facts.target == Target::File => None,
        None => Some(Bar::Unreadable),
        Some(found) if is_ext4 && found.data_journal => Some(Bar::DataJournal),
        Some(found) if !is_ext4 && found.realtime => Some(Bar::Realtime),
        Some(_) => None,
    }
}

/// Whether a file created here would get `MAP_SYNC`, from the facts alone.
pub(super) fn new_file(facts: &Facts) -> bool {
    let Some(device) = &facts.device else { return false };
    if !can_map_sync(facts, device) {
        return false;
    }
    match (facts.class, &facts.mount) {
        // No filesystem yet: one can be made that does it.
        (None, _) => true,
        (Some(Class::Dax), Some(mount)) => {
            facts.bar.is_none()
                && facts.block_size.is_none_or(|size| size == facts.page_size)
                && match filesystem::dax_mode(mount) {
                    DaxMode::Always => true,
                    DaxMode::Inode => by_inode(facts) && facts.dax_flag == Some(true),
                    DaxMode::Never => false,
                }
        }
        _ => false,
    }
}

/// The same of a file that is there, and could not be tried without a trace: one that is DAX.
pub(super) fn old_file(facts: &Facts) -> bool {
    facts.statx_dax == Some(true)
        && facts.class == Some(Class::Dax)
        && facts.device.as_ref().is_some_and(|device| can_map_sync(facts, device))
}

fn can_map_sync(facts: &Facts, device: &BlockDevice) -> bool {
    offers_dax(device)
        && !regions(device).iter().any(|region| region.asynchronous)
        && has_map_sync(facts)
}

/// Whether the running kernel knows `MAP_SYNC`.
pub(super) fn has_map_sync(facts: &Facts) -> bool {
    facts.kernel.is_none_or(|kernel| kernel >= MAP_SYNC_KERNEL)
}

/// Whether the running kernel decides DAX by inode; a kernel of unknown version is a new one.
pub(super) fn by_inode(facts: &Facts) -> bool {
    facts.kernel.is_none_or(|kernel| kernel >= DAX_BY_INODE_KERNEL)
}

/// The version of the running kernel.
pub(super) fn kernel(context: &Context<'_>) -> Option<(u32, u32)> {
    let release = context.sources.text("/proc/sys/kernel/osrelease")?;
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
