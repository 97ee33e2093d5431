//! What is asked of the open file itself: the facts that do not come from `/proc` or `/sys`.

use std::cell::OnceCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::extents::Extent;
use super::report::MapSync;
use super::sources::{Number, Sources};
use super::{ioctl, trial};

/// What `statx` says of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    pub(super) file_type: FileType,
    /// Device of the filesystem.
    pub(super) device: Number,
    /// The device a device node stands for.
    pub(super) node: Number,
    pub(super) size: u64,
    /// `STATX_MNT_ID`, from Linux 5.8.
    pub(super) mount_id: Option<u64>,
    /// `STATX_ATTR_DAX`, if the attribute mask says that it is reported (from Linux 5.8).
    pub(super) dax: Option<bool>,
}

/// An open file as the probe sees it. Tests answer for files that are not there.
pub(super) trait Subject {
    fn stat(&self) -> Stat;
    /// `STATX_ATTR_DAX` as it is now: a device-DAX node has it only once it was opened
    /// (drivers/dax/device.c `dax_open`).
    fn dax_now(&self) -> Option<bool>;
    /// The trial mapping, over this many bytes.
    fn map_sync(&self, len: usize) -> MapSync;
    /// `statfs`: type magic, and block size in bytes.
    fn filesystem(&self) -> Option<(u64, u64)>;
    /// `FS_XFLAG_DAX`.
    fn dax_flag(&self) -> Option<bool>;
    /// FIEMAP.
    fn extents(&self) -> Option<Vec<Extent>>;
    /// The UUID of the btrfs it lies on.
    fn btrfs_uuid(&self) -> Option<String>;
}

/// A file descriptor of any kind, `O_PATH` ones included.
pub(super) struct OpenFile<'fd> {
    fd: BorrowedFd<'fd>,
    stat: Stat,
    /// The same file opened for reading, made when the descriptor itself does not do.
    readable: OnceCell<Result<OwnedFd, Errno>>,
}

impl<'fd> OpenFile<'fd> {
    pub(super) fn new(sources: &Sources, fd: BorrowedFd<'fd>) -> Result<Self, Errno> {
        Ok(Self { fd, stat: stat(sources, fd)?, readable: OnceCell::new() })
    }

    /// The same inode, opened for reading through its descriptor: the path is not asked again. Only
    /// regular files, directories and device-DAX nodes come here; opening those has no effect.
    fn readable(&self) -> Result<BorrowedFd<'_>, Errno> {
        let opened = self.readable.get_or_init(|| {
            let path = format!("/proc/thread-self/fd/{}", self.fd.as_raw_fd());
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
            // A mapping would count as an access; only the owner may ask for it not to.
            match rustix::fs::open(&path, flags | OFlags::NOATIME, Mode::empty()) {
                Err(Errno::PERM) => rustix::fs::open(&path, flags, Mode::empty()),
                other => other,
            }
        });
        match opened {
            Ok(fd) => Ok(fd.as_fd()),
            Err(errno) => Err(*errno),
        }
    }
}

impl Subject for OpenFile<'_> {
    fn stat(&self) -> Stat {
        self.stat
    }

    fn dax_now(&self) -> Option<bool> {
        dax(&statx(self.fd).ok()?)
    }

    fn map_sync(&self, len: usize) -> MapSync {
        // A descriptor that is not open for reading cannot be mapped, though the file may be.
        let here = trial::map_sync(self.fd, len);
        let not_readable = [Errno::ACCESS, Errno::BADF].map(Errno::raw_os_error);
        if !matches!(here, MapSync::NotTried(errno) if not_readable.contains(&errno)) {
            return here;
        }
        match self.readable() {
            Ok(fd) => trial::map_sync(fd, len),
            Err(errno) => MapSync::NotTried(errno.raw_os_error()),
        }
    }

    fn filesystem(&self) -> Option<(u64, u64)> {
        let statfs = rustix::fs::fstatfs(self.fd).ok()?;
        // The kernel's numbers are unsigned; their C type differs among architectures.
        #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
        let (magic, block_size) = (statfs.f_type as u64 & 0xffff_ffff, statfs.f_bsize as u64);
        Some((magic, block_size))
    }

    fn dax_flag(&self) -> Option<bool> {
        ioctl::dax_flag(self.fd).or_else(|| ioctl::dax_flag(self.readable().ok()?))
    }

    fn extents(&self) -> Option<Vec<Extent>> {
        ioctl::extents(self.fd).or_else(|| ioctl::extents(self.readable().ok()?))
    }

    fn btrfs_uuid(&self) -> Option<String> {
        ioctl::btrfs_uuid(self.fd).or_else(|| ioctl::btrfs_uuid(self.readable().ok()?))
    }
}

fn statx(fd: BorrowedFd<'_>) -> Result<Statx, Errno> {
    // A stale answer of a network filesystem will do; waiting for its server will not.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let mask = StatxFlags::TYPE | StatxFlags::SIZE | StatxFlags::MNT_ID;
    rustix::fs::statx(fd, "", flags, mask)
}

fn dax(found: &Statx) -> Option<bool> {
    let known = found.stx_attributes_mask.contains(StatxAttributes::DAX);
    known.then(|| found.stx_attributes.contains(StatxAttributes::DAX))
}

/// `statx` of a descriptor; `fstat` and fdinfo where `statx` is missing or forbidden.
fn stat(sources: &Sources, fd: BorrowedFd<'_>) -> Result<Stat, Errno> {
    let mut stat = match statx(fd) {
        Ok(found) => Stat {
            file_type: FileType::from_raw_mode(found.stx_mode.into()),
            device: (found.stx_dev_major, found.stx_dev_minor),
            node: (found.stx_rdev_major, found.stx_rdev_minor),
            size: found.stx_size,
            mount_id: (found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(found.stx_mnt_id),
            dax: dax(&found),
        },
        Err(Errno::NOSYS | Errno::PERM) => {
            let found = rustix::fs::fstat(fd)?;
            let number = |dev| (rustix::fs::major(dev), rustix::fs::minor(dev));
            Stat {
                file_type: FileType::from_raw_mode(found.st_mode),
                device: number(found.st_dev),
                node: number(found.st_rdev),
                size: u64::try_from(found.st_size).unwrap_or(0),
                mount_id: None,
                dax: None,
            }
        }
        Err(errno) => return Err(errno),
    };
    if stat.mount_id.is_none() {
        let info = sources.text(format!("/proc/thread-self/fdinfo/{}", fd.as_raw_fd()));
        stat.mount_id = info.and_then(|info| {
            info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        });
    }
    Ok(stat)
}
