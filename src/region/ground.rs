//! What lay under the last drafts, for each mount and device, used again for as long as it is still
//! true.
//!
//! Probing reads the mount table and a dozen files of sysfs, some 150 us, of which a program that
//! publishes all the time would pay a new share with every file. What it answers for a file on
//! the page cache depends on the mount, not on the file. So the file itself is asked what only it
//! can answer (which mount and device it is on, whether it is DAX, and if it may be, the trial mapping
//! with `MAP_SYNC`); the rest is used again while the kernel reports no change of the mount table
//! (proc(5): mountinfo can be polled for that), in this process, and for a second at most: not every
//! change is of the mount table (a device's write cache, a filesystem reconfigured by fsconfig(2)).

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{self, AtFlags, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::identity::{Driver, Identity};
use super::mapping::page_size;
use super::process;
use super::quirks::Quirks;
use crate::durability::Backend;
use crate::error::{Error, Operation, Result};
use crate::probe::{self, MapSync, Report};

const AGE_MAX: Duration = Duration::from_secs(1);

/// Which mount, on which device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot {
    mount: u64,
    device: (u32, u32),
}

struct Known {
    /// By its mark. A child process after fork(2) shares the table's events, and would miss some.
    process: u64,
    table: File,
    since: Instant,
    spot: Spot,
    driver: Driver,
    report: Report,
    quirks: Quirks,
    /// A file that was just allocated has been seen to be unwritten: the filesystem tells.
    tells_unwritten: bool,
}

/// What a file answered when it was asked on which mount it is.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    spot: Spot,
    driver: Driver,
    tells_unwritten: bool,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    device: u64,
    inode: u64,
}

impl Seen {
    pub(super) fn driver(&self) -> Driver {
        self.driver
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        self.driver.identifies(self.device, self.inode)
    }

    /// Whether files of this mount tell which parts of them were never written.
    pub(super) fn tells_unwritten(&self) -> bool {
        self.tells_unwritten
    }

    /// One has told.
    pub(super) fn has_told_unwritten(&self) {
        let mut all = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        for known in all.iter_mut().filter(|known| known.spot == self.spot) {
            known.tells_unwritten = true;
        }
    }
}

impl Known {
    fn holds(&self, spot: Spot) -> bool {
        self.spot == spot
            && self.since.elapsed() < AGE_MAX
            && self.process == process::mark()
            && !self.table_changed()
    }

    fn table_changed(&self) -> bool {
        let mut table = [PollFd::new(&self.table, PollFlags::PRI)];
        !matches!(poll(&mut table, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
    }
}

/// How many mounts are remembered, each with an open descriptor.
const KNOWN_MAX: usize = 4;

static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());

/// As [`look_closely`], from what is known of the mount where that will do. Then what the file
/// answered is there as well, and need not be asked again.
pub(crate) fn glance(fd: BorrowedFd<'_>, path: &Path) -> Result<(Report, Quirks, Option<Seen>)> {
    let Some((spot, dax, found)) = spot(fd)? else {
        return look_closely(fd, path).map(|(report, quirks)| (report, quirks, None));
    };
    let seen = |driver, tells_unwritten| Seen {
        spot,
        driver,
        tells_unwritten,
        mode: found.stx_mode.into(),
        uid: found.stx_uid,
        gid: found.stx_gid,
        device: fs::makedev(spot.device.0, spot.device.1),
        inode: found.stx_ino,
    };
    let mut all = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = all.iter().find(|known| known.holds(spot)) {
        if dax == Dax::No || probe::try_map_sync(fd, page_size()) == known.report.map_sync {
            let report = Report { path: path.to_owned(), ..known.report.clone() };
            return Ok((report, known.quirks, Some(seen(known.driver, known.tells_unwritten))));
        }
    }
    // Opened first: what changes while the rest is read is noticed.
    let table = mount_table();
    let (report, quirks) = look_closely(fd, path)?;
    let driver = Driver::of(fd).map_err(|errno| Error::os(Operation::Open, "fstatfs", errno))?;
    // What is too old goes, and the oldest of too many.
    all.retain(|known| known.spot != spot && known.since.elapsed() < AGE_MAX);
    if all.len() == KNOWN_MAX {
        all.remove(0);
    }
    if let Some(table) = table.ok().filter(|_| depends_on_the_mount_only(&report)) {
        let (process, since) = (process::mark(), Instant::now());
        let report = report.clone();
        let tells_unwritten = false;
        all.push(Known { process, table, since, spot, driver, report, quirks, tells_unwritten });
    }
    Ok((report, quirks, Some(seen(driver, false))))
}

/// The table of the calling thread, which may be in a mount namespace of its own: the one that
/// [`probe`] reads. While it is open the namespace stays, with what is mounted in it: until a draft
/// a second later finds it too old.
fn mount_table() -> io::Result<File> {
    File::open("/proc/thread-self/mountinfo").or_else(|_| File::open("/proc/self/mountinfo"))
}

/// As [`probe::probe_file`], with the quirks of the filesystem.
pub(super) fn look_closely(fd: BorrowedFd<'_>, path: &Path) -> Result<(Report, Quirks)> {
    let report = probe::probe_file(fd, path)?;
    let quirks = Quirks::of(&report);
    Ok((report, quirks))
}

/// Where the file's own blocks and flags have no part in the verdict.
fn depends_on_the_mount_only(report: &Report) -> bool {
    report.backend == Backend::PageCache
        && report.regions.is_empty()
        && report.dax_flag.is_none()
        && report.bad_ranges.is_empty()
        && matches!(report.map_sync, MapSync::Refused(_))
}

/// What the file's inode is: `MAP_SYNC` is refused if it is not DAX (`daxdev_mapping_supported`,
/// include/linux/dax.h), and may be if it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dax {
    No,
    /// Or the kernel does not say (before Linux 5.8).
    Possibly,
}

/// `None` if the kernel does not number mounts (before Linux 5.8).
fn spot(fd: BorrowedFd<'_>) -> Result<Option<(Spot, Dax, Statx)>> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let wanted = StatxFlags::MNT_ID
        | StatxFlags::TYPE
        | StatxFlags::MODE
        | StatxFlags::UID
        | StatxFlags::GID
        | StatxFlags::INO;
    let found = match fs::statx(fd, "", flags, wanted) {
        // A sandbox that does not know the call: the probe has another way.
        Err(Errno::NOSYS | Errno::PERM) => return Ok(None),
        found => found.map_err(|errno| Error::os(Operation::Probe, "statx", errno))?,
    };
    let numbered = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    let device = (found.stx_dev_major, found.stx_dev_minor);
    let says = found.stx_attributes_mask.contains(StatxAttributes::DAX);
    let is = found.stx_attributes.contains(StatxAttributes::DAX);
    let dax = if says && !is { Dax::No } else { Dax::Possibly };
    Ok(numbered.then_some((Spot { mount: found.stx_mnt_id, device }, dax, found)))
}

/// The number of the mount that a file is opened on; `None` if the kernel does not number them.
pub(super) fn mount_of(fd: BorrowedFd<'_>) -> Option<u64> {
    spot(fd).ok().flatten().map(|(spot, ..)| spot.mount)
}

/// Lowers the level of a report: the filesystem cannot sync a directory, so nobody can say what
/// becomes of a name in it.
pub(super) fn without_directory_sync(report: &mut Report) {
    let name = report.filesystem.as_deref().unwrap_or("this filesystem");
    let text = format!("{name} has no fsync of a directory: names are left to syncfs");
    let level = probe::SYNC_NAMES.level.unwrap_or(report.durability);
    probe::lower(report, level, text, "keep the file on ext4, xfs or btrfs");
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::durability::PersistenceDomain;
    use crate::region::identity::identity;

    #[test]
    fn the_second_look_is_the_first_ones() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let (first, quirks, _) = glance(file.as_fd(), Path::new("one")).unwrap();
        let (second, again, seen) = glance(file.as_fd(), Path::new("two")).unwrap();
        // What the file answers is what it answers to fstat(2) and fstatfs(2).
        let (seen, found) = (seen.expect("statx"), fs::fstat(&file).unwrap());
        assert_eq!((seen.mode, seen.uid, seen.gid), (found.st_mode, found.st_uid, found.st_gid));
        let driver = Driver::of(file.as_fd()).unwrap();
        assert_eq!((seen.driver(), seen.identity()), (driver, identity(driver, &found)));
        assert_eq!(second.path, Path::new("two"));
        assert_eq!(format!("{:?}", second.mount), format!("{:?}", first.mount));
        assert_eq!((second.durability, again), (first.durability, quirks));
    }

    /// What was found out of a file on the page cache just now.
    fn known() -> Known {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let (spot, dax, _) = spot(file.as_fd()).unwrap().expect("a kernel that numbers mounts");
        assert!(dax == Dax::No, "this folder is not on a DAX filesystem");
        let table = mount_table().unwrap();
        let (report, quirks) = look_closely(file.as_fd(), Path::new("file")).unwrap();
        let process = process::mark();
        let (since, driver) = (Instant::now(), Driver::of(file.as_fd()).unwrap());
        Known { process, table, since, spot, driver, report, quirks, tells_unwritten: false }
    }

    #[test]
    fn what_is_known_holds_for_a_process_and_a_mount_and_a_second() {
        let known = known();
        let spot = known.spot;
        assert!(known.holds(spot));
        assert!(!known.holds(Spot { mount: spot.mount + 1, ..spot }));
        assert!(!known.holds(Spot { device: (spot.device.0, spot.device.1 + 1), ..spot }));
        assert!(!Known { process: known.process + 1, ..self::known() }.holds(spot));
        let before = Instant::now().checked_sub(AGE_MAX).expect("up for a second");
        assert!(!Known { since: before, ..known }.holds(spot));
    }

    #[test]
    fn what_depends_on_the_file_is_not_known_of_another() {
        let report = known().report;
        assert!(depends_on_the_mount_only(&report));
        let memory = probe::MemoryRegion {
            name: "region0".to_owned(),
            provider: "virtio-pmem".to_owned(),
            persistence_domain: PersistenceDomain::Unknown,
            read_only: false,
            numa_node: None,
            asynchronous: true,
            bad_blocks: Vec::new(),
            bad_blocks_known: true,
            clears_errors: None,
            scrubs: None,
            devices: Vec::new(),
            devices_unread: Vec::new(),
        };
        let others = [
            Report { backend: Backend::FsDax, ..report.clone() },
            Report { regions: vec![memory.clone()], ..report.clone() },
            Report { dax_flag: Some(true), ..report.clone() },
            Report { bad_ranges: std::iter::once(0..4096).collect(), ..report.clone() },
            Report { map_sync: MapSync::Accepted, ..report.clone() },
        ];
        for other in others {
            assert!(!depends_on_the_mount_only(&other), "{other:#?}");
        }
    }

    #[test]
    fn another_mount_is_looked_at_itself() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        glance(file.as_fd(), Path::new("file")).unwrap();
        let memory = tempfile::tempfile_in("/dev/shm").unwrap();
        let (report, quirks, _) = glance(memory.as_fd(), Path::new("memory")).unwrap();
        assert_eq!(report.filesystem.as_deref(), Some("tmpfs"));
        assert!(!quirks.sync_directory);
    }
}
