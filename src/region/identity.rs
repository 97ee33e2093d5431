//! Which file is this? A device number and an inode number say so where the kernel keeps the pair
//! unique among the files that are open, and nowhere else.
//!
//! | filesystem | why its inode numbers are unique |
//! |---|---|
//! | ext2, ext3, ext4 | the place in the inode table (`ext4_iget`, fs/ext4/inode.c) |
//! | xfs | the place on the disk (`xfs_iget`, fs/xfs/xfs_icache.c) |
//! | btrfs | unique within a subvolume, and each subvolume has a device number of its own (`btrfs_getattr`, fs/btrfs/inode.c) |
//! | f2fs | the number of the inode's own node (`f2fs_new_inode`, fs/f2fs/namei.c) |
//! | tmpfs, memfd | counted (`shmem_get_inode`, mm/shmem.c); one mounted `inode32` counts modulo 2^32 |
//! | a device node | the number of the device, whatever the node is called |
//!
//! Others answer what a server told them (FUSE, NFS, SMB, 9p, ceph), or keep the number when the
//! file becomes another one: overlay keeps it over a copy-up (Documentation/filesystems/overlayfs.rst,
//! "Inode properties"). exfat and vfat draw a number when a file is opened.

use std::os::fd::BorrowedFd;

use rustix::fs::{self, AtFlags, FileType, Stat, StatxFlags};
use rustix::io::Errno;

/// What tells an open file from every other open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Identity {
    File { device: u64, inode: u64 },
    Device(u64),
}

/// `f_type` of statfs(2), from include/uapi/linux/magic.h.
const EXT: u64 = 0xef53;
const XFS: u64 = 0x5846_5342;
const BTRFS: u64 = 0x9123_683e;
const F2FS: u64 = 0xf2f5_2010;
const TMPFS: u64 = 0x0102_1994;
const MSDOS: u64 = 0x4d44;
const HUGETLBFS: u64 = 0x9584_58f6;
const OVERLAY: u64 = 0x794c_7630;

/// Which filesystem driver answers for the file (fstatfs(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Driver(u64);

impl Driver {
    pub(super) fn of(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        // A signed field on some architectures; the numbers have 32 bits.
        #[allow(clippy::cast_sign_loss)]
        fs::fstatfs(fd).map(|found| Self(found.f_type as u64 & 0xffff_ffff))
    }

    /// Maps whole huge pages, has no write(2), and makes every mapping as long as one of its pages
    /// (`ksys_mmap_pgoff`, mm/mmap.c).
    pub(super) fn is_hugetlbfs(self) -> bool {
        self.0 == HUGETLBFS
    }

    /// A file may be copied to another filesystem when somebody opens it for writing. Mappings made
    /// before stay those of the old file; reads through a descriptor are of the new one
    /// (`ovl_real_file`, fs/overlayfs/file.c).
    pub(super) fn is_overlay(self) -> bool {
        self.0 == OVERLAY
    }

    /// The identity of a regular file by its device and inode, where there is one.
    pub(super) fn identifies(self, device: u64, inode: u64) -> Option<Identity> {
        self.numbers_files().then_some(Identity::File { device, inode })
    }

    /// tmpfs and memfd: a file's pages are the file.
    pub(super) fn is_memory(self) -> bool {
        self.0 == TMPFS
    }

    /// Whether the kernel's own code does what the flags of renameat2(2) ask for, or refuses them. A
    /// FUSE server is told of them, and may do a plain rename and report success, as cryfs and s3fs
    /// have done (`fuse_rename2`, fs/fuse/dir.c); an overlay passes them on to the filesystem that
    /// takes its writes (`ovl_do_rename`, fs/overlayfs/overlayfs.h).
    pub(super) fn keeps_rename_flags(self) -> bool {
        matches!(self.0, EXT | XFS | BTRFS | F2FS | TMPFS | MSDOS)
    }

    /// Whether inode numbers tell files apart.
    pub(super) fn numbers_files(self) -> bool {
        matches!(self.0, EXT | XFS | BTRFS | F2FS | TMPFS)
    }
}

/// The identity of an open file, where there is one.
pub(super) fn identity(driver: Driver, found: &Stat) -> Option<Identity> {
    if FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice {
        return Some(Identity::Device(found.st_rdev));
    }
    driver.identifies(found.st_dev, found.st_ino)
}

/// When the file was made, in seconds and nanoseconds: on an overlay, the file that is there now. A
/// copy cannot be given the time of the original. `None` where nobody keeps it.
pub(super) fn born(fd: BorrowedFd<'_>) -> Option<(i64, u32)> {
    let found = fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok()?;
    let known = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    known.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn only_drivers_that_are_known_to_number_their_files_do() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        let found = fs::fstat(&file).unwrap();
        let driver = Driver::of(file.as_fd()).unwrap();
        assert_eq!(driver, Driver(TMPFS));
        let own = identity(driver, &found).expect("tmpfs numbers its files");
        let other = tempfile::tempfile_in("/dev/shm").unwrap();
        let others = identity(driver, &fs::fstat(&other).unwrap());
        assert_ne!(others, Some(own));
        // FUSE, NFS, overlay, exfat, vfat, 9p, ceph, hugetlbfs, bcachefs.
        for magic in [
            0x6573_5546,
            0x6969,
            OVERLAY,
            0x2011_bab0,
            0x4d44,
            0x0102_1997,
            0x00c3_6400,
            HUGETLBFS,
            0xca45_1a4e,
        ] {
            assert_eq!(identity(Driver(magic), &found), None, "{magic:#x}");
        }
        for magic in [EXT, XFS, BTRFS, F2FS] {
            assert_eq!(identity(Driver(magic), &found), Some(own), "{magic:#x}");
        }
    }

    #[test]
    fn only_kernel_code_is_trusted_with_the_flags_of_a_rename() {
        for magic in [EXT, XFS, BTRFS, F2FS, TMPFS, MSDOS] {
            assert!(Driver(magic).keeps_rename_flags(), "{magic:#x}");
        }
        // FUSE, overlay, NFS.
        for magic in [0x6573_5546, OVERLAY, 0x6969] {
            assert!(!Driver(magic).keeps_rename_flags(), "{magic:#x}");
        }
    }

    #[test]
    fn a_device_is_known_by_its_number() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let found = fs::fstat(&null).unwrap();
        assert_eq!(identity(Driver(0), &found), Some(Identity::Device(found.st_rdev)));
    }
}
