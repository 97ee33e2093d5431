//! What a file that is replaced hands on to the one in its place.
//!
//! Replacing needs none of it. So what cannot be handed on stops nothing unless the caller is
//! strict: it is listed. Rights are never widened by it: without the old group, the group may do what
//! everybody may; without the old owner or group, set-id bits go.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::inode_flags::{self, Extended};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::region::calls;
use crate::region::draft::Place;

/// `XATTR_LIST_MAX` and `XATTR_SIZE_MAX` (include/uapi/linux/limits.h), in bytes.
const BYTES_MAX: usize = 64 << 10;

/// Attributes that the kernel computes from a file's content.
const OF_THE_CONTENT: &[&[u8]] = &[b"security.ima", b"security.evm"];

/// The access control list, and the tags of two of its entries
/// (include/uapi/linux/posix_acl_xattr.h, posix_acl.h).
const ACCESS_LIST: &CStr = c"system.posix_acl_access";
const TAG_GROUP: u16 = 0x04;
const TAG_OTHER: u16 = 0x20;

/// An attribute that a replaced file has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attribute {
    /// Its owner. The new file is this process's, without the set-user-id bit.
    Owner,
    /// Its group. The new file has this process's, and that group gets no right that everybody has
    /// not; the set-group-id bit is gone.
    Group,
    /// Its permission bits.
    Mode,
    /// The names of its extended attributes, which cannot be read: all of them.
    AllExtended,
    /// The extended attribute of this name. Without an access control list, the group gets no right
    /// that everybody has not.
    Extended(CString),
    /// Its DAX flag.
    Dax,
    /// The project that its space is counted under.
    Project,
    /// Its flag against copy-on-write, on btrfs.
    NoCow,
}

/// An attribute of the file in place that the new one cannot have, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotKept {
    /// The attribute.
    pub attribute: Attribute,
    /// The errno of the system call that refused it.
    pub errno: i32,
}

impl fmt::Display for NotKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.attribute {
            Attribute::Owner => f.write_str("the owner"),
            Attribute::Group => f.write_str("the group"),
            Attribute::Mode => f.write_str("the permission bits"),
            Attribute::AllExtended => f.write_str("extended attributes"),
            Attribute::Extended(name) => {
                write!(f, "the extended attribute {}", name.to_string_lossy())
            }
            Attribute::Dax => f.write_str("the DAX flag"),
            Attribute::Project => f.write_str("the project id"),
            Attribute::NoCow => f.write_str("the flag against copy-on-write"),
        }?;
        write!(f, " is not kept: {}", std::io::Error::from_raw_os_error(self.errno))
    }
}

/// What became of the attributes.
#[derive(Debug)]
pub(super) struct Handed {
    strict: bool,
    /// Anything of the new file was changed.
    pub(super) changed: bool,
    /// A write takes some of it away again: set-id bits and capabilities (`file_remove_privs`,
    /// fs/inode.c).
    pub(super) fragile: bool,
    pub(super) not_kept: Vec<NotKept>,
}

impl Handed {
    pub(super) fn new(strict: bool) -> Self {
        Self { strict, changed: false, fragile: false, not_kept: Vec::new() }
    }

    /// Takes note of what a system call refused. What is no refusal, such as an I/O error, is an
    /// error all the same.
    fn refused(&mut self, attribute: Attribute, call: &'static str, errno: Errno) -> Result<()> {
        let refusal = match errno {
            Errno::NOSPC | Errno::DQUOT => matches!(attribute, Attribute::Extended(_)),
            Errno::PERM
            | Errno::ACCESS
            | Errno::INVAL
            | Errno::BADF
            | Errno::NOENT
            | Errno::OPNOTSUPP
            | Errno::NOSYS
            | Errno::NOTTY
            | Errno::XDEV
            | Errno::TOOBIG
            | Errno::RANGE
            | Errno::WOULDBLOCK => true,
            _ => false,
        };
        if self.strict || !refusal {
            return Err(failed(call)(errno));
        }
        self.not_kept.push(NotKept { attribute, errno: errno.raw_os_error() });
        Ok(())
    }

    fn lacks(&self, attribute: &Attribute) -> bool {
        self.not_kept.iter().any(|lost| lost.attribute == *attribute)
    }
}

/// The regular file that has the name now.
#[derive(Debug)]
pub(super) struct Old {
    fd: OwnedFd,
    /// `O_PATH` where it may not be read, or somebody has a lease on it (fcntl(2)): nothing here
    /// needs its content.
    path_only: Option<Errno>,
    stat: Stat,
}

fn failed(call: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::os(Operation::Publish, call, errno)
}

impl Old {
    /// `None` if nothing has the name. What is not a regular file cannot be replaced.
    pub(super) fn find(place: &Place) -> Result<Option<Self>> {
        match calls::statat(place.directory(), place.name()) {
            Err(Errno::NOENT) => Ok(None),
            found => Self::open(place, &found.map_err(failed("fstatat"))?),
        }
    }

    /// What was found under the name. Looked at before it is opened: opening a FIFO or a device can
    /// have effects.
    pub(super) fn open(place: &Place, found: &Stat) -> Result<Option<Self>> {
        check_type(found)?;
        let open = |flags| {
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            calls::openat(place.directory(), place.name(), flags, Mode::empty())
        };
        let mut path_only = None;
        let opened = match open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
            Err(errno @ (Errno::ACCESS | Errno::PERM | Errno::WOULDBLOCK)) => {
                path_only = Some(errno);
                open(OFlags::PATH)
            }
            opened => opened,
        };
        match opened {
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP) => Err(wrong_type(FileType::Symlink)),
            Err(errno) => Err(failed("openat of the file in place")(errno)),
            Ok(fd) => {
                let stat = calls::fstat(fd.as_fd()).map_err(failed("fstat"))?;
                check_type(&stat)?;
                Ok(Some(Self { fd, path_only, stat }))
            }
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether it is the file that was found.
    pub(super) fn is(&self, found: &Stat) -> bool {
        (self.stat.st_dev, self.stat.st_ino) == (found.st_dev, found.st_ino)
    }

    /// Whether it is still the one in place, and nothing of it has changed: any change of an
    /// attribute moves the time of the last change (inode(7)). Only where the kernel gives each
    /// change that somebody looks for a time of its own.
    pub(super) fn is_unchanged(&self, place: &Place) -> Result<bool> {
        let found = match calls::statat(place.directory(), place.name()) {
            Err(Errno::NOENT) => return Ok(false),
            found => found.map_err(failed("fstatat"))?,
        };
        let changed = |stat: &Stat| (stat.st_ctime, stat.st_ctime_nsec, stat.st_mode);
        Ok(self.is(&found) && changed(&self.stat) == changed(&found))
    }

    /// Its permission bits, without set-id bits, which a write could clear.
    pub(super) fn mode(&self) -> Mode {
        Mode::from_raw_mode(self.stat.st_mode & 0o1777)
    }

    /// Gives owner, extended attributes (access control lists among them) and permission bits to
    /// the new file, in this order: a change of owner clears set-id bits and capabilities, and an
    /// access control list sets permission bits. Before the content is written, set-id bits are left
    /// out: a write could clear them.
    pub(super) fn hand_on(
        &self,
        new: BorrowedFd<'_>,
        strict: bool,
        written: bool,
    ) -> Result<Handed> {
        let mut handed = Handed::new(strict);
        let found = calls::fstat(new).map_err(failed("fstat"))?;
        let mut changed = self.hand_owner_on(new, &found, &mut handed)?;
        changed |= self.hand_extended_on(new, &mut handed)?;
        let mut mode = self.mode_for(&handed);
        handed.fragile |= mode & 0o6000 != 0;
        mode &= if written { 0o7777 } else { 0o1777 };
        if changed || mode != found.st_mode & 0o7777 {
            let done = calls::fchmod(new, Mode::from_raw_mode(mode));
            done.or_else(|errno| handed.refused(Attribute::Mode, "fchmod", errno))?;
            changed = true;
        }
        handed.changed = changed;
        Ok(handed)
    }

    /// The permission bits that the new file can have.
    fn mode_for(&self, handed: &Handed) -> u32 {
        let mut mode = self.stat.st_mode & 0o7777;
        let list = Attribute::Extended(ACCESS_LIST.to_owned());
        let has_list = !handed.not_kept.is_empty()
            && !handed.lacks(&list)
            && matches!(self.value(ACCESS_LIST), Ok(Some(_)));
        let no_list = handed.lacks(&list) || handed.lacks(&Attribute::AllExtended);
        // With a list, these bits are its mask, and its own entry is the group's.
        if no_list || handed.lacks(&Attribute::Group) && !has_list {
            mode &= !0o070 | (mode & 0o007) << 3;
        }
        if handed.lacks(&Attribute::Owner) {
            mode &= !0o4000;
        }
        if handed.lacks(&Attribute::Group) {
            mode &= !0o2000;
        }
        mode
    }

    fn hand_owner_on(
        &self,
        new: BorrowedFd<'_>,
        found: &Stat,
        handed: &mut Handed,
    ) -> Result<bool> {
        let uid = (self.stat.st_uid != found.st_uid).then(|| Uid::from_raw(self.stat.st_uid));
        let gid = (self.stat.st_gid != found.st_gid).then(|| Gid::from_raw(self.stat.st_gid));
        if uid.is_none() && gid.is_none() {
            return Ok(false);
        }
        if uid.is_some() && gid.is_some() && fs::fchown(new, uid, gid).is_ok() {
            return Ok(true);
        }
        // Each by itself: a group can be given by its member, an owner by root alone.
        let mut changed = false;
        if gid.is_some() {
            match fs::fchown(new, None, gid) {
                Ok(()) => changed = true,
                Err(errno) => handed.refused(Attribute::Group, "fchown", errno)?,
            }
        }
        if uid.is_some() {
            match fs::fchown(new, uid, None) {
                Ok(()) => changed = true,
                Err(errno) => handed.refused(Attribute::Owner, "fchown", errno)?,
            }
        }
        Ok(changed)
    }

    /// Makes the new file's extended attributes those of the old one. True if any was changed.
    fn hand_extended_on(&self, new: BorrowedFd<'_>, handed: &mut Handed) -> Result<bool> {
        let wanted = match self.names() {
            Ok(names) => names,
            Err(errno) => {
                handed.refused(Attribute::AllExtended, "flistxattr", errno)?;
                return Ok(false);
            }
        };
        handed.fragile |= wanted.iter().any(|name| name.to_bytes() == b"security.capability");
        let mut changed = false;
        for name in names(|buffer| fs::flistxattr(new, buffer)).map_err(failed("flistxattr"))? {
            // A directory's default list has given it one that the old file lacks. Security
            // labels are the policy's.
            if !wanted.contains(&name) && !name.to_bytes().starts_with(b"security.") {
                match fs::fremovexattr(new, &name) {
                    // xfs shows root an access control list under a second name.
                    Ok(()) | Err(Errno::NODATA) => changed = true,
                    Err(errno) => return Err(failed("fremovexattr")(errno)),
                }
            }
        }
        for name in &wanted {
            let lost = |handed: &mut Handed, call, errno| {
                handed.refused(Attribute::Extended(name.clone()), call, errno)
            };
            let mut theirs = match self.value(name) {
                Ok(Some(value)) => value,
                Ok(None) => continue,
                Err(errno) => {
                    lost(handed, "fgetxattr", errno)?;
                    continue;
                }
            };
            if name.as_c_str() == ACCESS_LIST && handed.lacks(&Attribute::Group) {
                narrow_group(&mut theirs);
            }
            let ours = read_all(|buffer| fs::fgetxattr(new, name, buffer));
            if ours.as_ref() != Ok(&theirs) {
                match fs::fsetxattr(new, name, &theirs, XattrFlags::empty()) {
                    Ok(()) => changed = true,
                    Err(errno) => lost(handed, "fsetxattr", errno)?,
                }
            }
        }
        Ok(changed)
    }

    /// The names of its extended attributes, but those computed from its content.
    fn names(&self) -> std::result::Result<Vec<CString>, Errno> {
        match self.path_only {
            None => names(|buffer| fs::flistxattr(self.fd(), buffer)),
            Some(_) => names(|buffer| fs::listxattr(self.through_proc(), buffer)),
        }
    }

    /// An attribute's value; `None` if the file does not have it.
    fn value(&self, name: &CStr) -> std::result::Result<Option<Vec<u8>>, Errno> {
        let value = match self.path_only {
            None => read_all(|buffer| fs::fgetxattr(self.fd(), name, buffer)),
            Some(_) => read_all(|buffer| fs::getxattr(self.through_proc(), name, buffer)),
        };
        match value {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Calls for open files refuse a descriptor that is a path only.
    fn through_proc(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    /// The flags that a filesystem of this type may have; for another descriptor than this one's.
    pub(super) fn extended(&self) -> std::result::Result<Extended, Errno> {
        match self.path_only {
            None => Extended::of(self.fd()),
            Some(errno) => Err(errno),
        }
    }

    /// Hands the project on, by which space is counted, unless the directory imposes its own.
    pub(super) fn hand_project_on(
        &self,
        place: &Place,
        new: BorrowedFd<'_>,
        handed: &mut Handed,
    ) -> Result<()> {
        let old = match self.extended() {
            Ok(old) => old,
            // No such thing on this filesystem.
            Err(_) if self.path_only.is_none() || Extended::of(new).is_err() => return Ok(()),
            Err(errno) => return handed.refused(Attribute::Project, "openat", errno),
        };
        // What the new file has is what its directory imposes, or none.
        if old.project() == 0 {
            return Ok(());
        }
        let call = "ioctl FS_IOC_FSSETXATTR";
        let ours = match Extended::of(new) {
            Ok(ours) if ours.project() == old.project() => return Ok(()),
            Ok(ours) => ours,
            Err(errno) => return handed.refused(Attribute::Project, call, errno),
        };
        let imposed = Extended::of(place.directory()).is_ok_and(|of| of.imposes_project());
        let set = if imposed { Err(Errno::XDEV) } else { ours.set_project(new, old.project()) };
        set.or_else(|errno| handed.refused(Attribute::Project, call, errno))
    }

    /// Hands btrfs' flag against copy-on-write on, to a file that is still empty.
    pub(super) fn hand_no_cow_on(&self, new: BorrowedFd<'_>, handed: &mut Handed) -> Result<()> {
        let old = match self.path_only {
            None => inode_flags::no_cow(self.fd()),
            Some(errno) => Err(errno),
        };
        let call = "ioctl FS_IOC_SETFLAGS";
        let set = old.and_then(|on| {
            if inode_flags::no_cow(new)? == on { Ok(()) } else { inode_flags::set_no_cow(new, on) }
        });
        set.or_else(|errno| handed.refused(Attribute::NoCow, call, errno))
    }
}

/// In an access control list: the owning group may do what everybody may, and no more. Entries are
/// tag, permissions and id, after a version.
fn narrow_group(list: &mut [u8]) {
    const VERSION: usize = 4;
    const ENTRY: usize = 8;
    let Some(entries) = list.get_mut(VERSION..) else { return };
    let tag = |entry: &[u8]| u16::from_le_bytes([entry[0], entry[1]]);
    let other = entries.chunks_exact(ENTRY).find(|entry| tag(entry) == TAG_OTHER);
    let other = other.map_or(0, |entry| entry[2]);
    for entry in entries.chunks_exact_mut(ENTRY).filter(|entry| tag(entry) == TAG_GROUP) {
        entry[2] &= other;
    }
}

fn check_type(found: &Stat) -> Result<()> {
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => Ok(()),
        other => Err(wrong_type(other)),
    }
}

fn wrong_type(found: FileType) -> Error {
    let what = match found {
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link made meanwhile",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::BlockDevice => "a block device",
        FileType::CharacterDevice => "a character device",
        _ => "a file of unknown type",
    };
    Error::new(Operation::Publish, ErrorKind::WrongFileType(what))
}

/// The names in a list of extended attributes, but of those computed from a file's content.
fn names(
    list: impl Fn(&mut [u8]) -> std::result::Result<usize, Errno>,
) -> std::result::Result<Vec<CString>, Errno> {
    let list = match read_all(list) {
        // No extended attributes on this filesystem.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        list => list?,
    };
    Ok(list
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|name| CString::from_vec_with_nul(name.to_vec()).ok())
        .filter(|name| !OF_THE_CONTENT.contains(&name.to_bytes()))
        .collect())
}

/// Reads what is mostly short, and at most [`BYTES_MAX`] long.
fn read_all(
    read: impl Fn(&mut [u8]) -> std::result::Result<usize, Errno>,
) -> std::result::Result<Vec<u8>, Errno> {
    let mut short = [0; 256];
    match read(&mut short) {
        Ok(len) => Ok(short[..len].to_vec()),
        Err(Errno::RANGE) => {
            let mut long = vec![0; BYTES_MAX];
            let len = read(&mut long)?;
            long.truncate(len);
            Ok(long)
        }
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tags, permissions and ids of `u::rw-, g::rw-, m::rwx, o::r--`.
    #[test]
    fn a_list_of_another_group_gives_that_group_what_everybody_has() {
        let list = |group: u16| {
            let mut bytes = 2_u32.to_le_bytes().to_vec();
            for (tag, permissions) in [(0x01, 6), (0x04, group), (0x10, 7), (0x20, 4_u16)] {
                bytes.extend(u16::to_le_bytes(tag));
                bytes.extend(permissions.to_le_bytes());
                bytes.extend((!0_u32).to_le_bytes());
            }
            bytes
        };
        let mut narrowed = list(6);
        narrow_group(&mut narrowed);
        assert_eq!(narrowed, list(4));
        narrow_group(&mut narrowed);
        assert_eq!(narrowed, list(4));
        narrow_group(&mut [0; 3]);
    }
}
