//! What a file that is replaced hands on to the one in its place.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::region::calls;
use crate::region::draft::Place;

/// `XATTR_LIST_MAX` and `XATTR_SIZE_MAX` (include/uapi/linux/limits.h), in bytes.
const BYTES_MAX: usize = 64 << 10;

/// Attributes that the kernel computes from a file's content.
const OF_THE_CONTENT: &[&[u8]] = &[b"security.ima", b"security.evm"];

/// The regular file that has the name now.
pub(super) struct Old {
    fd: OwnedFd,
    stat: Stat,
}

fn failed(call: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::os(Operation::Publish, call, errno)
}

impl Old {
    /// `None` if nothing has the name. What is not a regular file cannot be replaced.
    pub(super) fn find(place: &Place) -> Result<Option<Self>> {
        // Looked at before it is opened: opening a FIFO or a device can have effects.
        match calls::statat(place.directory(), place.name()) {
            Err(Errno::NOENT) => return Ok(None),
            found => check_type(&found.map_err(failed("fstatat"))?)?,
        }
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match calls::openat(place.directory(), place.name(), flags, Mode::empty()) {
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed("openat of the file in place")(errno)),
            Ok(fd) => {
                let stat = calls::fstat(fd.as_fd()).map_err(failed("fstat"))?;
                check_type(&stat)?;
                Ok(Some(Self { fd, stat }))
            }
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Its permission bits, without set-id bits, which a write could clear.
    pub(super) fn mode(&self) -> Mode {
        Mode::from_raw_mode(self.stat.st_mode & 0o1777)
    }

    /// Gives owner, extended attributes (access control lists among them) and permission bits to
    /// the new file, in this order: a change of owner clears set-id bits and capabilities, and an
    /// access control list sets permission bits. True if anything was changed.
    pub(super) fn hand_on(&self, new: BorrowedFd<'_>) -> Result<bool> {
        let found = calls::fstat(new).map_err(failed("fstat"))?;
        let old = &self.stat;
        let uid = (old.st_uid != found.st_uid).then(|| Uid::from_raw(old.st_uid));
        let gid = (old.st_gid != found.st_gid).then(|| Gid::from_raw(old.st_gid));
        let mut changed = old.st_mode != found.st_mode;
        if uid.is_some() || gid.is_some() {
            fs::fchown(new, uid, gid).map_err(failed("fchown"))?;
            changed = true;
        }
        changed |= self.hand_attributes_on(new)?;
        if changed {
            let mode = Mode::from_raw_mode(old.st_mode & 0o7777);
            calls::fchmod(new, mode).map_err(failed("fchmod"))?;
        }
        Ok(changed)
    }

    /// Makes the new file's extended attributes those of the old one. True if any was changed.
    fn hand_attributes_on(&self, new: BorrowedFd<'_>) -> Result<bool> {
        let wanted = names(self.fd())?;
        let mut changed = false;
        for name in names(new)? {
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
            let Some(theirs) = value(self.fd(), name)? else { continue };
            if value(new, name)?.as_ref() != Some(&theirs) {
                fs::fsetxattr(new, name, &theirs, XattrFlags::empty())
                    .map_err(failed("fsetxattr"))?;
                changed = true;
            }
        }
        Ok(changed)
    }
}

fn check_type(found: &Stat) -> Result<()> {
    let what = match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link made meanwhile",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::BlockDevice => "a block device",
        FileType::CharacterDevice => "a character device",
        FileType::Unknown => "a file of unknown type",
    };
    Err(Error::new(Operation::Publish, ErrorKind::WrongFileType(what)))
}

/// The names of a file's extended attributes, but those computed from its content.
fn names(fd: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let list = match read_all(|buffer| fs::flistxattr(fd, buffer)) {
        // No extended attributes on this filesystem.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        result => result.map_err(failed("flistxattr"))?,
    };
    Ok(list
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|name| CString::from_vec_with_nul(name.to_vec()).ok())
        .filter(|name| !OF_THE_CONTENT.contains(&name.to_bytes()))
        .collect())
}

/// An attribute's value; `None` if the file does not have it.
fn value(fd: BorrowedFd<'_>, name: &CStr) -> Result<Option<Vec<u8>>> {
    match read_all(|buffer| fs::fgetxattr(fd, name, buffer)) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA) => Ok(None),
        Err(errno) => Err(failed("fgetxattr")(errno)),
    }
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
