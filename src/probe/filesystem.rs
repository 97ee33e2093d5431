//! What a filesystem type promises: the rules by which the verdict names a durability.
//!
//! | class | types | fdatasync on it | source of the rule |
//! |---|---|---|---|
//! | [`Class::Dax`] | ext4, ext3, xfs | commits and flushes the device; `MAP_SYNC` on DAX | `fs/ext4/fsync.c`, `fs/xfs/xfs_file.c`; only these set `FOP_MMAP_SYNC` |
//! | [`Class::Local`] | btrfs, f2fs, bcachefs, zfs, ext2, ... | commits and flushes the device | each one's `fsync` ends in `blkdev_issue_flush` or in a flushed commit; zfs(8) for the intent log |
//! | [`Class::Local`], not [`flushes`] | gfs2, hfs, jfs | writes, and sends no flush | fs/gfs2/file.c `gfs2_fsync`, fs/hfs/inode.c `hfs_file_fsync`, fs/jfs/file.c `jfs_fsync` and jfs_logmgr.c `lbmStartIO` |
//! | [`Class::Memory`] | tmpfs, ramfs, hugetlbfs | does nothing (`noop_fsync`) | mm/shmem.c, fs/ramfs, fs/hugetlbfs |
//! | [`Class::Overlay`] | overlay | passed on to the upper file, unless mounted `volatile` | Documentation/filesystems/overlayfs.rst |
//! | [`Class::Layered`] | FUSE, NFS, SMB, 9p, virtiofs, ceph, ... | a message to a program or a server, which may or may not do it | fuse(4) `FUSE_FSYNC`; nfs(5) `async` exports |
//! | [`Class::Unknown`] | every other | not known | |
//! | [`Class::Pseudo`] | proc, sysfs, cgroup, ... | holds no files of its own | filesystems(5) |
//!
//! `zfs` with the dataset property `sync=disabled`, and a disk that lies about its flushes, cannot
//! be told from honest ones without asking their own tools; the class is what the kernel's code
//! promises for its part.

use super::mountinfo::{has_option, option};
use super::report::Mount;

/// What kind of promise a filesystem can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// On a block device, can do DAX and `MAP_SYNC`.
    Dax,
    /// On a block device, without `MAP_SYNC`.
    Local,
    /// In memory.
    Memory,
    /// overlayfs.
    Overlay,
    /// Another program or machine keeps the data.
    Layered,
    /// Not known here, so nothing is known of what its `fdatasync` does.
    Unknown,
    /// An interface of the kernel, not storage.
    Pseudo,
}

const LOCAL: &[&str] = &[
    "bcachefs", "btrfs", "cramfs", "erofs", "exfat", "ext2", "f2fs", "gfs2", "hfs", "hfsplus",
    "iso9660", "jffs2", "jfs", "minix", "msdos", "nilfs2", "ntfs3", "ocfs2", "reiserfs", "romfs",
    "squashfs", "ubifs", "udf", "ufs", "vfat", "zfs", "zonefs",
];

/// Of these, those whose `fdatasync` waits for its writes and sends the device no flush: data, and with
/// jfs the log too, may still be in the cache of the drive.
const UNFLUSHED: &[&str] = &["gfs2", "hfs", "jfs"];

const MEMORY: &[&str] = &["devtmpfs", "hugetlbfs", "ramfs", "rootfs", "tmpfs"];

/// Those that hand a file to a program, to another machine or to another filesystem.
const LAYERED: &[&str] = &[
    "9p", "afs", "aufs", "beegfs", "ceph", "cifs", "coda", "ecryptfs", "fuse", "fuseblk", "gpfs",
    "lustre", "nfs", "nfs4", "orangefs", "prl_fs", "pvfs2", "smb3", "smbfs", "unionfs", "vboxsf",
    "virtiofs", "vmhgfs",
];

const PSEUDO: &[&str] = &[
    "anon_inodefs",
    "autofs",
    "bdev",
    "binder",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "cpuset",
    "debugfs",
    "devpts",
    "dmabuf",
    "efivarfs",
    "fusectl",
    "mqueue",
    "nfsd",
    "nsfs",
    "pidfs",
    "pipefs",
    "proc",
    "pstore",
    "resctrl",
    "rpc_pipefs",
    "secretmem",
    "securityfs",
    "selinuxfs",
    "smackfs",
    "sockfs",
    "sysfs",
    "tracefs",
];

/// The class of a filesystem type as mountinfo spells it. A type that is not known is
/// `Unknown`.
pub(super) fn class(filesystem: &str) -> Class {
    match filesystem {
        "ext4" | "ext3" | "xfs" => Class::Dax,
        "overlay" => Class::Overlay,
        name if LOCAL.contains(&name) => Class::Local,
        name if MEMORY.contains(&name) => Class::Memory,
        name if PSEUDO.contains(&name) => Class::Pseudo,
        name if LAYERED.contains(&name) || name.starts_with("fuse.") => Class::Layered,
        _ => Class::Unknown,
    }
}

/// Whether `fdatasync` on a local filesystem flushes the device.
pub(super) fn flushes(filesystem: &str) -> bool {
    !UNFLUSHED.contains(&filesystem)
}

/// The type behind a `statfs` magic number, for files in no visible mount (memfd, a detached
/// mount). Numbers: statfs(2), include/uapi/linux/magic.h.
pub(super) fn name_of_magic(magic: u64) -> Option<&'static str> {
    Some(match magic {
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x9584_58f6 => "hugetlbfs",
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0xf2f5_2010 => "f2fs",
        0xca45_1a4e => "bcachefs",
        0x2fc1_2fc1 => "zfs",
        0x794c_7630 => "overlay",
        0x6573_5546 => "fuse",
        0x6969 => "nfs",
        0x0102_1997 => "9p",
        0x9fa0 => "proc",
        0x6265_6572 => "sysfs",
        _ => return None,
    })
}

/// The mount option that turns device flushes off, if there is one: `nobarrier` or `barrier=0`
/// (ext4(5), btrfs(5)), f2fs `fsync_mode=nobarrier` (Documentation/filesystems/f2fs.rst), reiserfs
/// `barrier=none`.
pub(super) fn no_barrier(options: &[String]) -> Option<&str> {
    options.iter().map(String::as_str).find(|option| {
        matches!(
            *option,
            "nobarrier"
                | "barrier=0"
                | "barrier=none"
                | "fsync_mode=nobarrier"
                | "journal_flush_disabled"
                | "nointegrity"
        )
    })
}

/// Whether an allocated block that no other file shares is overwritten where it is: ext2 to ext4 and
/// xfs. btrfs, f2fs and others take a new place for every overwrite; of the rest it is not known.
pub(crate) fn overwrites_in_place(filesystem: &str) -> bool {
    matches!(filesystem, "ext4" | "ext3" | "ext2" | "xfs")
}

/// Whether an overlay leaves out every sync (mount option `volatile`).
pub(super) fn is_volatile_overlay(mount: &Mount) -> bool {
    mount.filesystem == "overlay"
        && (has_option(mount, "volatile") || option(mount, "fsync") == Some("volatile"))
}

/// How a mount decides which of its files are DAX (Documentation/filesystems/dax.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DaxMode {
    /// `dax=always`, or `dax` as older kernels print it.
    Always,
    /// `dax=inode`, or nothing, which means the same since Linux 5.8.
    Inode,
    /// `dax=never`.
    Never,
}

/// The DAX mode a mount of ext4 or xfs shows.
pub(super) fn dax_mode(mount: &Mount) -> DaxMode {
    match option(mount, "dax") {
        Some("always") => DaxMode::Always,
        Some("never") => DaxMode::Never,
        _ if has_option(mount, "dax") => DaxMode::Always,
        _ => DaxMode::Inode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(options: &[&str]) -> Mount {
        Mount { options: options.iter().map(ToString::to_string).collect(), ..Mount::default() }
    }

    #[test]
    fn classes_by_type() {
        for (name, expected) in [
            ("ext4", Class::Dax),
            ("xfs", Class::Dax),
            ("ext2", Class::Local),
            ("btrfs", Class::Local),
            ("zfs", Class::Local),
            ("tmpfs", Class::Memory),
            ("hugetlbfs", Class::Memory),
            ("overlay", Class::Overlay),
            ("fuse.sshfs", Class::Layered),
            ("fuseblk", Class::Layered),
            ("nfs4", Class::Layered),
            ("cifs", Class::Layered),
            ("virtiofs", Class::Layered),
            ("9p", Class::Layered),
            ("fuse", Class::Layered),
            ("never-heard-of", Class::Unknown),
            ("NOVA", Class::Unknown),
            ("fused", Class::Unknown),
            ("proc", Class::Pseudo),
            ("cgroup2", Class::Pseudo),
            ("devpts", Class::Pseudo),
        ] {
            assert_eq!(class(name), expected, "{name}");
        }
    }

    #[test]
    fn barriers() {
        assert_eq!(no_barrier(&mounted(&["rw", "barrier=1"]).options), None);
        for option in [
            "nobarrier",
            "barrier=0",
            "barrier=none",
            "fsync_mode=nobarrier",
            "journal_flush_disabled",
            "nointegrity",
        ] {
            assert_eq!(no_barrier(&mounted(&["rw", option]).options), Some(option));
        }
    }

    #[test]
    fn dax_modes() {
        assert_eq!(dax_mode(&mounted(&["rw", "dax=always"])), DaxMode::Always);
        assert_eq!(dax_mode(&mounted(&["rw", "dax"])), DaxMode::Always);
        assert_eq!(dax_mode(&mounted(&["rw", "dax=never"])), DaxMode::Never);
        assert_eq!(dax_mode(&mounted(&["rw", "dax=inode"])), DaxMode::Inode);
        assert_eq!(dax_mode(&mounted(&["rw"])), DaxMode::Inode);
    }

    /// Numbers as the C library has them; those that it lacks as the kernel has them.
    #[test]
    fn magic_numbers_have_names() {
        for (magic, name) in [
            (libc::TMPFS_MAGIC, "tmpfs"),
            (libc::HUGETLBFS_MAGIC, "hugetlbfs"),
            (libc::EXT4_SUPER_MAGIC, "ext4"),
            (libc::XFS_SUPER_MAGIC, "xfs"),
            (libc::BTRFS_SUPER_MAGIC, "btrfs"),
            (libc::F2FS_SUPER_MAGIC, "f2fs"),
            (libc::OVERLAYFS_SUPER_MAGIC, "overlay"),
            (libc::FUSE_SUPER_MAGIC, "fuse"),
            (libc::NFS_SUPER_MAGIC, "nfs"),
            (libc::PROC_SUPER_MAGIC, "proc"),
            (libc::SYSFS_MAGIC, "sysfs"),
            (0x0102_1997, "9p"),
            (0x2fc1_2fc1, "zfs"),
            (0x8584_58f6, "ramfs"),
            (0xca45_1a4e, "bcachefs"),
        ] {
            assert_eq!(name_of_magic(u64::try_from(magic).unwrap()), Some(name));
        }
        assert_eq!(name_of_magic(7), None);
    }
}
