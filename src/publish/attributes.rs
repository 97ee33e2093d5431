//! What a file that is replaced hands on to the one in its place.
//!
//! Replacing needs none of it. So what cannot be handed on stops nothing unless the caller is
//! strict: it is listed. Rights are never widened by it: without the old group, the group may do what
//! everybody may; without the old owner or group, set-id bits go.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::BorrowedFd;

use rustix::fs::{self, FileType, Mode, Stat, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::in_place::{Way, names, read_all};
use super::inode_flags::{self, Extended};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::region::calls;
use crate::region::clean;
use crate::region::draft::Place;
use crate::region::ground::Seen;

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

/// Whose the new file is, and its permission bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights {
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Rights {
    pub(super) fn of(new: BorrowedFd<'_>) -> Result<Self> {
        let found = calls::fstat(new).map_err(failed("fstat"))?;
        Ok(Self { mode: found.st_mode, uid: found.st_uid, gid: found.st_gid })
    }

    pub(super) fn seen(seen: &Seen) -> Self {
        Self { mode: seen.mode, uid: seen.uid, gid: seen.gid }
    }
}

/// The regular file that has the name now.
#[derive(Debug)]
pub(super) struct Old {
    way: Way,
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
        let Some(way) = reached(Way::open(place))? else { return Ok(None) };
        let stat = match way.fd() {
            Some(fd) => calls::fstat(fd).map_err(failed("fstat"))?,
            None => *found,
        };
        check_type(&stat)?;
        Ok(Some(Self { way, stat }))
    }

    /// The same, without asking what was opened, and without opening what has nothing to hand on. Good
    /// for what is looked at [again](Self::is_unchanged) before it counts: another file in its place by
    /// then, or in between, is noticed by the time of the last change of the one that was found, which a
    /// rename moves too.
    pub(super) fn open_as_found(
        place: &Place,
        found: &Stat,
        may_be_plain: bool,
    ) -> Result<Option<Self>> {
        check_type(found)?;
        let way = if may_be_plain { Way::find(place) } else { Way::open(place) };
        Ok(reached(way)?.map(|way| Self { way, stat: *found }))
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
        without_set_id(&self.stat)
    }

    /// Gives owner, extended attributes (access control lists among them) and permission bits to
    /// the new file, in this order: a change of owner clears set-id bits and capabilities, and an
    /// access control list sets permission bits. Before the content is written, set-id bits are left
    /// out: a write could clear them.
    pub(super) fn hand_on(
        &self,
        new: BorrowedFd<'_>,
        rights: Rights,
        strict: bool,
        written: bool,
    ) -> Result<Handed> {
        let mut handed = Handed::new(strict);
        let mut changed = self.hand_owner_on(new, rights, &mut handed)?;
        changed |= self.hand_extended_on(new, &mut handed)?;
        let mut mode = self.mode_for(&handed);
        handed.fragile |= mode & 0o6000 != 0;
        mode &= if written { 0o7777 } else { 0o1777 };
        if changed || mode != rights.mode & 0o7777 {
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
            && matches!(self.way.value(ACCESS_LIST), Ok(Some(_)));
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
        rights: Rights,
        handed: &mut Handed,
    ) -> Result<bool> {
        let uid = (self.stat.st_uid != rights.uid).then(|| Uid::from_raw(self.stat.st_uid));
        let gid = (self.stat.st_gid != rights.gid).then(|| Gid::from_raw(self.stat.st_gid));
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
        let mut wanted = match self.way.names() {
            Ok(names) => names,
            Err(errno) => {
                handed.refused(Attribute::AllExtended, "flistxattr", errno)?;
                return Ok(false);
            }
        };
        // Says how the old file was closed.
        wanted.retain(|name| name.to_bytes() != clean::MARK.as_bytes());
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
            let mut theirs = match self.way.value(name) {
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

    /// The flags that a filesystem of this type may have; for another descriptor than this one's.
    pub(super) fn extended(&self) -> std::result::Result<Extended, Errno> {
        self.way.extended()
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
            Err(_) if !self.way.is_path_only() || Extended::of(new).is_err() => return Ok(()),
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
        let old = self.way.no_cow();
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

/// The permission bits for a file that is to take the place of the one found, without set-id bits.
pub(super) fn mode_of(found: &Stat) -> Result<Mode> {
    check_type(found)?;
    Ok(without_set_id(found))
}

fn without_set_id(found: &Stat) -> Mode {
    Mode::from_raw_mode(found.st_mode & 0o1777)
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

/// `None` if nothing has the name any more.
fn reached(way: std::result::Result<Way, Errno>) -> Result<Option<Way>> {
    match way {
        Ok(way) => Ok(Some(way)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP) => Err(wrong_type(FileType::Symlink)),
        Err(errno) => Err(failed("openat of the file in place")(errno)),
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
