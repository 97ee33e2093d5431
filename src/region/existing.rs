//! A file that exists: found, opened, still the one that has its name, and its name made durable.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::calls;
use super::ground;
use super::resolve::{Spot, Stuck, resolve};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;
use crate::probe::{self, Target};

/// `lease_break_time` (fs/locks.c), in seconds, where /proc does not say.
const LEASE_BREAK_SECONDS: u64 = 45;

/// A regular file or a device-DAX node that this process has opened.
#[derive(Debug)]
pub(super) struct Existing {
    fd: OwnedFd,
    stat: Stat,
    /// `None` for a link of procfs to an open file: nobody knows the name it was opened by.
    spot: Option<Spot>,
}

fn failed(call: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::os(Operation::Open, call, errno)
}

impl Existing {
    /// Opens what `path` names; `None` if nothing has that name, in a directory that exists.
    pub(super) fn find(path: &Path, read_only: bool) -> Result<Option<Self>> {
        let spot = match resolve(path) {
            Ok(spot) => Some(spot),
            Err(Stuck::MagicLink) => None,
            // A path that can only be a directory's.
            Err(Stuck::Call(call, Errno::ISDIR)) => {
                let found = calls::stat(path).map_err(failed("stat"))?;
                check_type(&found)?;
                return Err(failed(call)(Errno::ISDIR));
            }
            Err(stuck) => return Err(stuck.during(Operation::Open)),
        };
        // Looked at before it is opened: opening a FIFO or a device can have effects.
        let found = match &spot {
            Some(Spot { found: None, .. }) => return Ok(None),
            Some(Spot { found: Some(found), .. }) => *found,
            None => calls::stat(path).map_err(failed("stat"))?,
        };
        check_type(&found)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
            && probe::probe(path)?.target != Target::DaxDevice
        {
            let what = "a character device that is not device DAX";
            return Err(Error::new(Operation::Open, ErrorKind::WrongFileType(what)));
        }
        let access = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
        let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = through_lease(|| match &spot {
            Some(spot) => {
                let flags = flags | OFlags::NOFOLLOW;
                calls::openat(spot.directory.as_fd(), &spot.name, flags, Mode::empty())
            }
            None => calls::open(path, flags, Mode::empty()),
        });
        let fd = match opened {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.map_err(failed("openat"))?,
        };
        // It may have been replaced in between: what counts is what was opened.
        let stat = calls::fstat(fd.as_fd()).map_err(failed("fstat"))?;
        check_type(&stat)?;
        Ok(Some(Self { fd, stat, spot }))
    }

    /// A file that somebody opened; where its name is, nobody says.
    pub(super) fn of(fd: OwnedFd) -> Result<Self> {
        let stat = calls::fstat(fd.as_fd()).map_err(failed("fstat"))?;
        check_type(&stat)?;
        Ok(Self { fd, stat, spot: None })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Length in bytes when it was opened.
    pub(super) fn len(&self) -> u64 {
        self.stat.st_size.unsigned_abs()
    }

    /// Whether the name still leads to it.
    pub(super) fn is_still_named(&self) -> Result<bool> {
        let Some(spot) = &self.spot else { return Ok(true) };
        match calls::statat(spot.directory.as_fd(), &spot.name) {
            Err(Errno::NOENT) => Ok(false),
            named => {
                let named = named.map_err(failed("fstatat"))?;
                Ok((named.st_dev, named.st_ino) == (self.stat.st_dev, self.stat.st_ino))
            }
        }
    }

    /// Makes the name of a file that somebody else made durable. `mount` is the file's own. False if
    /// the filesystem has no sync of a directory, and all of it was synced instead.
    ///
    /// A file that is mounted on its name has its entry in another directory, which cannot be seen
    /// from here; nor can that of a file in a directory that may not be read. Then the file's whole
    /// filesystem is synced (syncfs(2)), which is as good and takes longer.
    pub(super) fn sync_name(&self, mount: Option<u64>) -> Result<bool> {
        let Some(spot) = self.spot.as_ref().filter(|spot| spot.readable) else {
            return sync_all(self.fd()).map(|()| true);
        };
        let directory = spot.directory.as_fd();
        if let (Some(own), Some(beside)) = (mount, ground::mount_of(directory)) {
            if own != beside {
                return sync_all(self.fd()).map(|()| true);
            }
        }
        let synced = primitive!("open.fsync_directory", calls::fsync_directory(directory), Ok(()));
        match synced {
            // No such operation (`vfs_fsync_range`, fs/sync.c).
            Err(Errno::INVAL) => sync_all(self.fd()).map(|()| false),
            synced => synced
                .map(|()| true)
                .map_err(|errno| Error::os(Operation::Sync, "fsync of the directory", errno)),
        }
    }
}

fn sync_all(fd: BorrowedFd<'_>) -> Result<()> {
    calls::syncfs(fd).map_err(|errno| Error::os(Operation::Sync, "syncfs", errno))
}

/// Opens without waiting, again and again while somebody has a lease on the file (fcntl(2),
/// `F_SETLEASE`; smbd takes them). The first attempt asks for it; its holder has a limited time, and
/// then the kernel takes it.
///
/// Not an open that waits: a FIFO may have taken the file's place, and that waits for ever.
fn through_lease(
    open: impl Fn() -> std::result::Result<OwnedFd, Errno>,
) -> std::result::Result<OwnedFd, Errno> {
    let mut until = None;
    let mut pause = Duration::from_millis(1);
    loop {
        match open() {
            Err(Errno::WOULDBLOCK) => {}
            Err(Errno::INTR) => continue,
            decided => return decided,
        }
        if Instant::now() > *until.get_or_insert_with(|| Instant::now() + lease_break_time()) {
            return Err(Errno::WOULDBLOCK);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// How long a lease can last once it is asked for, and some more.
fn lease_break_time() -> Duration {
    let text = std::fs::read_to_string("/proc/sys/fs/lease-break-time").unwrap_or_default();
    Duration::from_secs(text.trim().parse().unwrap_or(LEASE_BREAK_SECONDS).saturating_add(5))
}

fn check_type(found: &Stat) -> Result<()> {
    let what = match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile | FileType::CharacterDevice => return Ok(()),
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::BlockDevice => "a block device",
        _ => "a file of unknown type",
    };
    Err(Error::new(Operation::Open, ErrorKind::WrongFileType(what)))
}
