//! How is the file in place reached, to see what it hands on?
//!
//! | way | when |
//! |---|---|
//! | by its name | it has nothing but owner and mode: two calls say so, and none opens it (Linux 6.17) |
//! | opened for reading | it has more, or the kernel has no such calls |
//! | `O_PATH` | it may not be read, or somebody has a lease on it (fcntl(2)) |
//!
//! # Safety
//!
//! Two system calls that the `libc` crate does not wrap yet. Each is given names that end in NUL, and
//! buffers with their true sizes.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use super::inode_flags::{self, Extended};
use crate::region::calls;
use crate::region::draft::Place;

/// `listxattrat(2)` and `file_getattr(2)`: one number on every architecture
/// (scripts/syscall.tbl).
const SYS_LISTXATTRAT: libc::c_long = 465;
const SYS_FILE_GETATTR: libc::c_long = 468;

/// `XATTR_LIST_MAX` and `XATTR_SIZE_MAX` (include/uapi/linux/limits.h), in bytes.
const BYTES_MAX: usize = 64 << 10;

/// Attributes that the kernel computes from a file's content.
const OF_THE_CONTENT: &[&[u8]] = &[b"security.ima", b"security.evm"];

/// `struct file_attr` (include/uapi/linux/fs.h, `FILE_ATTR_SIZE_VER0`).
#[repr(C)]
#[derive(Default)]
struct FileAttributes {
    xflags: u64,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
}
const _: () = assert!(size_of::<FileAttributes>() == 24);

/// The way to the file in place.
#[derive(Debug)]
pub(super) enum Way {
    /// Not opened: it has no extended attribute, no project and no flag.
    Plain,
    Open(OwnedFd),
    /// And why it could not be opened for reading.
    PathOnly(OwnedFd, Errno),
}

impl Way {
    /// Opens what has the name, which the caller has looked at: opening a FIFO or a device can have
    /// effects.
    pub(super) fn open(place: &Place) -> Result<Self, Errno> {
        let open = |flags| {
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            calls::openat(place.directory(), place.name(), flags, Mode::empty())
        };
        match open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
            Err(errno @ (Errno::ACCESS | Errno::PERM | Errno::WOULDBLOCK)) => {
                open(OFlags::PATH).map(|fd| Self::PathOnly(fd, errno))
            }
            opened => opened.map(Self::Open),
        }
    }

    /// The same, without opening a file that has nothing to be handed on but owner and mode.
    pub(super) fn find(place: &Place) -> Result<Self, Errno> {
        if is_plain(place.directory(), place.name()) { Ok(Self::Plain) } else { Self::open(place) }
    }

    /// The descriptor, if there is one.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Plain => None,
            Self::Open(fd) | Self::PathOnly(fd, _) => Some(fd.as_fd()),
        }
    }

    /// Whether it could not be opened for reading.
    pub(super) fn is_path_only(&self) -> bool {
        matches!(self, Self::PathOnly(..))
    }

    /// The names of its extended attributes, but those computed from its content.
    pub(super) fn names(&self) -> Result<Vec<CString>, Errno> {
        match self {
            Self::Plain => Ok(Vec::new()),
            Self::Open(fd) => names(|buffer| fs::flistxattr(fd, buffer)),
            Self::PathOnly(fd, _) => names(|buffer| fs::listxattr(through_proc(fd), buffer)),
        }
    }

    /// An attribute's value; `None` if the file does not have it.
    pub(super) fn value(&self, name: &CStr) -> Result<Option<Vec<u8>>, Errno> {
        let value = match self {
            Self::Plain => return Ok(None),
            Self::Open(fd) => read_all(|buffer| fs::fgetxattr(fd, name, buffer)),
            Self::PathOnly(fd, _) => {
                read_all(|buffer| fs::getxattr(through_proc(fd), name, buffer))
            }
        };
        match value {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// The flags that a filesystem of this type may have, and the project.
    pub(super) fn extended(&self) -> Result<Extended, Errno> {
        match self {
            Self::Plain => Ok(Extended::default()),
            Self::Open(fd) => Extended::of(fd.as_fd()),
            Self::PathOnly(_, errno) => Err(*errno),
        }
    }

    /// Whether the file is overwritten in place, on btrfs.
    pub(super) fn no_cow(&self) -> Result<bool, Errno> {
        match self {
            Self::Plain => Ok(false),
            Self::Open(fd) => inode_flags::no_cow(fd.as_fd()),
            Self::PathOnly(_, errno) => Err(*errno),
        }
    }
}

/// Calls for open files refuse a descriptor that is a path only.
fn through_proc(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Whether the kernel says of what has this name that it has no extended attribute, no project and no
/// flag. False where it does not say: then the file is opened and asked itself.
///
/// Asked by name: another file may have had it in between. Who relies on the answer looks at the file
/// once more before it counts.
fn is_plain(directory: BorrowedFd<'_>, name: &OsStr) -> bool {
    static LACKING: AtomicBool = AtomicBool::new(false);
    if LACKING.load(Ordering::Relaxed) {
        return false;
    }
    let Ok(name) = CString::new(name.as_bytes()) else { return false };
    let plain = lists_nothing(directory, &name)
        .and_then(|nothing| Ok(nothing && has_no_flags(directory, &name)?));
    if matches!(plain, Err(Errno::NOSYS | Errno::PERM)) {
        // An older kernel, or a sandbox. Not asked again by this process.
        LACKING.store(true, Ordering::Relaxed);
    }
    plain.unwrap_or(false)
}

fn lists_nothing(directory: BorrowedFd<'_>, name: &CStr) -> Result<bool, Errno> {
    // SAFETY: the name ends in NUL; without a buffer, only the length of the list is told.
    let length = unsafe {
        libc::syscall(
            SYS_LISTXATTRAT,
            directory.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            std::ptr::null_mut::<u8>(),
            0_usize,
        )
    };
    match (length, last_errno()) {
        // No such thing on this filesystem.
        (-1, Errno::OPNOTSUPP) => Ok(true),
        (-1, errno) => Err(errno),
        (length, _) => Ok(length == 0),
    }
}

fn has_no_flags(directory: BorrowedFd<'_>, name: &CStr) -> Result<bool, Errno> {
    let mut found = FileAttributes::default();
    // SAFETY: the name ends in NUL, and the kernel writes as many bytes as the structure has.
    let answer = unsafe {
        libc::syscall(
            SYS_FILE_GETATTR,
            directory.as_raw_fd(),
            name.as_ptr(),
            &raw mut found,
            size_of::<FileAttributes>(),
            libc::AT_SYMLINK_NOFOLLOW,
        )
    };
    match (answer, last_errno()) {
        (-1, Errno::OPNOTSUPP) => Ok(true),
        (-1, errno) => Err(errno),
        // xfs says of every file with extended attributes, or that had some, that it has them.
        _ => Ok(found.project == 0 && found.xflags & !inode_flags::HAS_ATTRIBUTES == 0),
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The names in a list of extended attributes, but of those computed from a file's content.
pub(super) fn names(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
) -> Result<Vec<CString>, Errno> {
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
pub(super) fn read_all(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
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

    /// Only a file without extended attributes is plain, and the name is not followed.
    #[test]
    fn a_file_with_an_attribute_is_not_plain() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let at = std::fs::File::open(&directory).unwrap();
        let file = std::fs::File::create(directory.path().join("file")).unwrap();
        std::os::unix::fs::symlink("file", directory.path().join("link")).unwrap();
        let plain = |name: &str| is_plain(at.as_fd(), OsStr::new(name));
        assert!(!plain("missing") && !plain("a\0b"));
        if !plain("file") {
            // An older kernel: every file is opened.
            let asked =
                lists_nothing(at.as_fd(), c"file").and_then(|_| has_no_flags(at.as_fd(), c"file"));
            assert!(
                matches!(asked, Err(Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP)),
                "{asked:?}"
            );
            return;
        }
        fs::fsetxattr(&file, c"user.note", b"x", fs::XattrFlags::empty()).unwrap();
        assert!(!plain("file"));
        fs::fremovexattr(&file, c"user.note").unwrap();
        assert!(plain("file"));
    }
}
