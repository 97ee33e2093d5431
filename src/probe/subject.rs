//! What is asked of the open file itself: the facts that do not come from `/proc` or `/sys`.

use std::cell::OnceCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::extents::Extent;
use super::report::{MapSync, Mount};
use super::sources::{FilesystemSize, Number, Sources};
use super::{ioctl, statmount, traces, trial};

/// What `statx` says of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    pub(super) file_type: FileType,
    /// Device of the filesystem.
    pub(super) device: Number,
    /// The device a device node stands for.
    pub(super) node: Number,
    pub(super) size: u64,
    /// `STATX_MNT_ID`, from Linux 5.8: its number in the mount table.
    pub(super) mount_id: Option<u64>,
    /// `STATX_ATTR_DAX`, if the attribute mask says that it is reported (from Linux 5.8).
    pub(super) dax: Option<bool>,
    /// `STATX_ATTR_ENCRYPTED`.
    pub(super) encrypted: bool,
    pub(super) inode: u64,
    /// Allocated, in units of 512 bytes.
    pub(super) blocks: u64,
}

/// What rules DAX out for a file, or what a directory hands on to those made in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HandedOn {
    /// ext4: the data of new files goes through the journal (`chattr +j`).
    pub(super) data_journal: bool,
    /// xfs: the data of new files is on the real-time device (`FS_XFLAG_RTINHERIT`).
    pub(super) realtime: bool,
}

/// An open file as the probe sees it. Tests answer for files that are not there.
pub(super) trait Subject {
    fn stat(&self) -> Stat;
    /// Its mount, where the kernel tells of that alone.
    fn mount(&self) -> Option<Mount>;
    /// `STATX_ATTR_DAX` as it is now: a device-DAX node has it only once it was opened
    /// (drivers/dax/device.c `dax_open`).
    fn dax_now(&self) -> Option<bool>;
    /// The trial mapping, over this many bytes; `None` if it would leave a trace.
    fn map_sync(&self, len: usize) -> Option<MapSync>;
    /// What of the inode rules DAX out; `None` if it cannot be opened.
    fn hands_on(&self) -> Option<HandedOn>;
    /// Whether an ext4 keeps the file's bytes in its inode.
    fn is_inline(&self) -> bool;
    /// `statfs`: type magic, and block size in bytes.
    fn filesystem(&self) -> Option<(u64, u64)>;
    /// `statfs`: how large the filesystem is.
    fn filesystem_size(&self) -> Option<FilesystemSize>;
    /// Whether the descriptor may write.
    fn is_open_for_writing(&self) -> bool;
    /// The path of what is open, as the kernel has it.
    fn path(&self) -> Option<PathBuf>;
    /// `FS_XFLAG_DAX`.
    fn dax_flag(&self) -> Option<bool>;
    /// FIEMAP.
    fn extents(&self) -> Option<Vec<Extent>>;
    /// The UUID of the btrfs it lies on.
    fn btrfs_uuid(&self) -> Option<String>;
}

/// A file descriptor of any kind, `O_PATH` ones included.
pub(super) struct OpenFile<'fd> {
    sources: &'fd Sources,
    fd: BorrowedFd<'fd>,
    stat: Stat,
    /// The same file opened for reading, made when the descriptor itself does not do.
    readable: OnceCell<Result<OwnedFd, Errno>>,
}

impl<'fd> OpenFile<'fd> {
    pub(super) fn new(sources: &'fd Sources, fd: BorrowedFd<'fd>) -> Result<Self, Errno> {
        Ok(Self { sources, fd, stat: stat(sources, fd)?, readable: OnceCell::new() })
    }

    fn is_file(&self) -> bool {
        self.stat.file_type == FileType::RegularFile
    }

    /// Whether the descriptor is of a file that is open, not only found.
    fn is_open(&self) -> bool {
        rustix::fs::fcntl_getfl(self.fd).is_ok_and(|flags| !flags.contains(OFlags::PATH))
    }

    /// The same inode, opened for reading through its descriptor: the path is not asked again. Only
    /// regular files, directories and device-DAX nodes come here, and of regular files only those
    /// whose opening breaks no lease.
    fn readable(&self) -> Result<BorrowedFd<'_>, Errno> {
        let opened = self.readable.get_or_init(|| {
            let path = format!("/proc/thread-self/fd/{}", self.fd.as_raw_fd());
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
            let is_file = self.is_file();
            // Also where it is open already: that may be the descriptor which has the lease.
            if is_file && !traces::is_free_of_leases(self.sources, self.stat.inode) {
                return Err(Errno::AGAIN);
            }
            // A mapping would count as an access; only the owner may ask for it not to.
            match rustix::fs::open(&path, flags | OFlags::NOATIME, Mode::empty()) {
                Err(Errno::PERM) if !is_file => rustix::fs::open(&path, flags, Mode::empty()),
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

    fn mount(&self) -> Option<Mount> {
        statmount::of_file(self.fd)
    }

    fn dax_now(&self) -> Option<bool> {
        dax(&statx(self.fd).ok()?)
    }

    fn map_sync(&self, len: usize) -> Option<MapSync> {
        // A file that is not DAX is refused with this errno (`daxdev_mapping_supported`,
        // include/linux/dax.h), and so need not be opened.
        if self.is_file() && self.stat.dax == Some(false) {
            return Some(MapSync::Refused(Errno::OPNOTSUPP.raw_os_error()));
        }
        match self.readable() {
            Ok(fd) => Some(trial::map_sync(fd, len)),
            // Not without a trace, then. What is open for reading can be mapped as it is.
            Err(Errno::AGAIN | Errno::PERM) if self.is_file() => {
                let can_read = |found: &MapSync| !matches!(found, MapSync::NotTried(_));
                self.is_open().then(|| trial::map_sync(self.fd, len)).filter(can_read)
            }
            Err(errno) => Some(MapSync::NotTried(errno.raw_os_error())),
        }
    }

    fn hands_on(&self) -> Option<HandedOn> {
        let fd = self.readable().ok()?;
        Some(HandedOn {
            data_journal: ioctl::has_flag(fd, ioctl::DATA_JOURNAL).unwrap_or(false),
            realtime: ioctl::is_realtime(fd).unwrap_or(false),
        })
    }

    fn is_inline(&self) -> bool {
        // ext4 tells the bytes of an inline file as blocks of 512 bytes, and everything else in whole
        // blocks of its own (fs/ext4/inode.c `ext4_file_getattr`).
        let told = ioctl::has_flag(self.fd, ioctl::INLINE_DATA);
        told.unwrap_or_else(|| {
            let block = self.filesystem().map_or(4096, |found| found.1) / 512;
            self.stat.size > 0 && block > 1 && self.stat.blocks % block != 0
        })
    }

    fn filesystem(&self) -> Option<(u64, u64)> {
        let statfs = rustix::fs::fstatfs(self.fd).ok()?;
        // The kernel's numbers are unsigned; their C type differs among architectures.
        #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
        let (magic, block_size) = (statfs.f_type as u64 & 0xffff_ffff, statfs.f_bsize as u64);
        Some((magic, block_size))
    }

    fn filesystem_size(&self) -> Option<FilesystemSize> {
        Some(FilesystemSize::of(&rustix::fs::fstatfs(self.fd).ok()?))
    }

    fn is_open_for_writing(&self) -> bool {
        let flags = rustix::fs::fcntl_getfl(self.fd).unwrap_or(OFlags::PATH);
        let writes = flags & OFlags::RWMODE != OFlags::RDONLY;
        writes && !flags.contains(OFlags::PATH)
    }

    fn path(&self) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/thread-self/fd/{}", self.fd.as_raw_fd())).ok()
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
    let mask = StatxFlags::TYPE
        | StatxFlags::SIZE
        | StatxFlags::INO
        | StatxFlags::BLOCKS
        | StatxFlags::MNT_ID;
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
            encrypted: found.stx_attributes.contains(StatxAttributes::ENCRYPTED),
            inode: found.stx_ino,
            blocks: found.stx_blocks,
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
                encrypted: false,
                inode: found.st_ino,
                blocks: u64::try_from(found.st_blocks).unwrap_or(0),
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;

    use super::*;

    /// A `/proc` of the first process namespace, in which this inode is leased.
    fn leased(inode: u64) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(root.path(), anybody).unwrap();
        std::fs::create_dir_all(root.path().join("proc/self/ns")).unwrap();
        let link = root.path().join("proc/self/ns/pid");
        std::os::unix::fs::symlink("pid:[4026531836]", link).unwrap();
        let locks = format!("1: LEASE  ACTIVE  READ 5 08:01:{inode} 0 EOF\n");
        std::fs::write(root.path().join("proc/locks"), locks).unwrap();
        root
    }

    fn found(path: &Path) -> File {
        File::options().read(true).custom_flags(libc::O_PATH).open(path).unwrap()
    }

    fn inode(file: &File) -> u64 {
        std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap())
    }

    #[test]
    fn a_file_is_opened_only_where_nobody_has_a_lease_on_it() {
        let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        for (path, is_file) in [(file.path(), true), (directory.path(), false)] {
            let found = found(path);
            for (leased_inode, refused) in [(inode(&found), is_file), (0, false)] {
                let root = leased(leased_inode);
                let sources = Sources::tree(root.path());
                let subject = OpenFile::new(&sources, found.as_fd()).unwrap();
                let opened = subject.readable().map(|_| ()).map_err(Errno::raw_os_error);
                let expected = if refused { Err(libc::EAGAIN) } else { Ok(()) };
                assert_eq!(opened, expected, "{}", path.display());
                if !is_file {
                    assert!(subject.hands_on().is_some());
                }
            }
        }
    }

    /// Neither looked at nor opened, a file that the kernel does not call DAX or not is not tried; one
    /// that is open for reading is mapped as it is.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_leased_file_is_tried_only_through_what_is_open() {
        let refused = Some(MapSync::Refused(libc::EOPNOTSUPP));
        let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        let root = leased(inode(file.as_file()));
        let sources = Sources::tree(root.path());
        let write_only = File::options().write(true).open(file.path()).unwrap();
        for (opened, expected) in [
            (&found(file.path()), None),
            // The kernel looks at the flags before it looks at the rights.
            (&write_only, refused),
            (&File::open(file.path()).unwrap(), refused),
        ] {
            let mut subject = OpenFile::new(&sources, opened.as_fd()).unwrap();
            subject.stat.dax = None;
            assert_eq!(subject.map_sync(4096), expected);
            subject.stat.dax = Some(false);
            assert_eq!(subject.map_sync(4096), refused, "not tried at all");
        }
    }

    /// `O_NOATIME` is the owner's: a directory is then opened without, a file not at all.
    #[test]
    fn what_is_anothers_is_not_accessed() {
        let root = leased(0);
        let sources = Sources::tree(root.path());
        for (path, expected) in [("/usr", Ok(())), ("/etc/passwd", Err(libc::EPERM))] {
            let found = found(Path::new(path));
            let subject = OpenFile::new(&sources, found.as_fd()).unwrap();
            let opened = std::thread::scope(|scope| {
                let nobody = scope.spawn(move || {
                    // SAFETY: changes the identity that this thread has towards filesystems, and
                    // nothing in memory.
                    #[allow(unsafe_code)]
                    unsafe {
                        libc::setfsuid(65534);
                    }
                    subject.readable().map(|_| ()).map_err(Errno::raw_os_error)
                });
                nobody.join().unwrap()
            });
            assert_eq!(opened, expected, "{path}");
        }
    }

    /// Where the flag cannot be asked for, blocks tell that a file is kept in its inode.
    #[test]
    fn inline_files_are_told_by_their_blocks() {
        let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        let found = found(file.path());
        let sources = Sources::system();
        let mut subject = OpenFile::new(&sources, found.as_fd()).unwrap();
        let whole = subject.filesystem().unwrap().1 / 512;
        for (size, blocks, expected) in [
            (100, 1, true),
            (0, 1, false),
            (100, 0, false),
            (100, whole, false),
            (9000, 3 * whole, false),
        ] {
            (subject.stat.size, subject.stat.blocks) = (size, blocks);
            assert_eq!(subject.is_inline(), expected, "{size} {blocks}");
        }
    }
}
