//! Which directory, and which name in it, does a path mean?
//!
//! One rule for opening, creating and publishing: a path that is a symbolic link means the file that
//! the link points to, whether that file exists or not. The kernel resolves every directory. Only
//! the last part is looked at here, since no system call resolves a name that is to be made and says
//! which directory it is in.
//!
//! A link in a sticky, world-writable directory is followed only if its owner is this user or the
//! directory's owner. That is the rule of `fs.protected_symlinks` (proc_sys_fs(5), `may_follow_link`
//! in fs/namei.c), and here it does not depend on the setting. It is checked on descriptors: what
//! was checked is what is followed.
//!
//! Directories of a link's target are opened with openat2(2), `RESOLVE_NO_MAGICLINKS`: the text of a
//! magic link (`/proc/PID/fd/N`) is no path. Where that call does not exist or a sandbox refuses it,
//! each part is opened by itself with `O_PATH | O_NOFOLLOW`, under the same rule.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

use rustix::fs::{self, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::calls;
use crate::error::{Error, Operation};

/// Links followed to the file that they name, as in `path_resolution(7)`.
const LINKS_MAX: usize = 40;
/// `PROC_SUPER_MAGIC` (include/uapi/linux/magic.h): only there are links that are no paths.
const PROC_MAGIC: u64 = 0x9fa0;

/// A directory, and a name in it that is not a symbolic link.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) directory: OwnedFd,
    /// The directory can be synced: it is open for reading. `O_PATH` where it may only be searched.
    pub(super) readable: bool,
    pub(super) name: OsString,
    /// What has the name; `None` if nothing has.
    pub(super) found: Option<Stat>,
}

/// Why a path leads to no spot.
#[derive(Debug)]
pub(super) enum Stuck {
    /// A system call refused.
    Call(&'static str, Errno),
    /// The last part is a link of procfs, which only the kernel can follow.
    MagicLink,
}

impl Stuck {
    pub(super) fn during(self, operation: Operation) -> Error {
        match self {
            Self::Call(call, errno) => Error::os(operation, call, errno),
            Self::MagicLink => Error::os(operation, "readlinkat of a link in /proc", Errno::LOOP),
        }
    }
}

fn stuck(call: &'static str) -> impl Fn(Errno) -> Stuck {
    move |errno| Stuck::Call(call, errno)
}

/// The spot of what `path` names, through symbolic links that may dangle.
pub(super) fn resolve(path: &Path) -> Result<Spot, Stuck> {
    let (parent, name) = split(path)?;
    let mut links = LINKS_MAX;
    let (mut directory, mut readable) =
        readable_or_path(|flags| calls::open(parent, flags, Mode::empty()))
            .map_err(stuck("open of the directory"))?;
    let mut name = name.to_owned();
    loop {
        let found = match calls::statat(directory.as_fd(), &name) {
            Err(Errno::NOENT) => None,
            found => Some(found.map_err(stuck("fstatat"))?),
        };
        let is_link = |found: &Stat| FileType::from_raw_mode(found.st_mode) == FileType::Symlink;
        if !found.as_ref().is_some_and(is_link) {
            return Ok(Spot { directory, readable, name, found });
        }
        let Some(target) = follow(directory.as_fd(), &name, &mut links)? else {
            // Replaced meanwhile: looked at again, and not for ever.
            links = links.checked_sub(1).ok_or(Stuck::Call("readlinkat", Errno::LOOP))?;
            continue;
        };
        let target = Path::new(&target);
        let (parent, last) = split(target)?;
        (directory, readable) = open_beside(directory.as_fd(), parent, &mut links)?;
        last.clone_into(&mut name);
    }
}

/// Directory and last part. A path that ends in a slash, a dot or two dots names a directory.
fn split(path: &Path) -> Result<(&Path, &OsStr), Stuck> {
    let name = path.file_name().ok_or(Stuck::Call("openat", Errno::ISDIR))?;
    // `file_name` overlooks a slash or a dot at the end; open(2) does not.
    if !path.as_os_str().as_bytes().ends_with(name.as_bytes()) {
        return Err(Stuck::Call("openat", Errno::ISDIR));
    }
    match path.parent() {
        Some(parent) if parent != Path::new("") => Ok((parent, name)),
        _ => Ok((Path::new("."), name)),
    }
}

/// A directory opened for reading, so that it can be synced; with `O_PATH` if it may be searched and
/// not read.
fn readable_or_path(
    open: impl Fn(OFlags) -> Result<OwnedFd, Errno>,
) -> Result<(OwnedFd, bool), Errno> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    match open(flags | OFlags::RDONLY) {
        Err(Errno::ACCESS) => open(flags | OFlags::PATH).map(|fd| (fd, false)),
        opened => opened.map(|fd| (fd, true)),
    }
}

/// Where a link in this directory points to, if it may be followed; `None` if it is no link any
/// more.
fn follow(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    links: &mut usize,
) -> Result<Option<OsString>, Stuck> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = match calls::openat(directory, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened.map_err(stuck("openat of the link"))?,
    };
    let found = calls::fstat(link.as_fd()).map_err(stuck("fstat of the link"))?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
        return Ok(None);
    }
    read(directory, link.as_fd(), &found, links).map(Some)
}

/// The target of an open link, under the rule of sticky directories.
fn read(
    directory: BorrowedFd<'_>,
    link: BorrowedFd<'_>,
    found: &Stat,
    links: &mut usize,
) -> Result<OsString, Stuck> {
    *links = links.checked_sub(1).ok_or(Stuck::Call("readlinkat", Errno::LOOP))?;
    let holder = calls::fstat(directory).map_err(stuck("fstat of the directory"))?;
    if !may_follow(&holder, found, rustix::process::geteuid().as_raw()) {
        let call = "readlinkat of another user's link in a sticky directory";
        return Err(Stuck::Call(call, Errno::ACCESS));
    }
    if is_procfs(link) {
        return Err(Stuck::MagicLink);
    }
    let target = fs::readlinkat(link, "", Vec::new()).map_err(stuck("readlinkat"))?;
    Ok(OsString::from_vec(target.into_bytes()))
}

/// `may_follow_link`, fs/namei.c.
fn may_follow(directory: &Stat, link: &Stat, user: u32) -> bool {
    const STICKY_AND_OPEN_TO_ALL: u32 = 0o1002;
    link.st_uid == user
        || directory.st_mode & STICKY_AND_OPEN_TO_ALL != STICKY_AND_OPEN_TO_ALL
        || link.st_uid == directory.st_uid
}

fn is_procfs(fd: BorrowedFd<'_>) -> bool {
    // The type of the number differs among architectures; the kernel's are 32 bits.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
    fs::fstatfs(fd).is_ok_and(|found| found.f_type as u64 & 0xffff_ffff == PROC_MAGIC)
}

/// A directory of a link's target, which is relative to the directory that the link is in.
fn open_beside(
    from: BorrowedFd<'_>,
    path: &Path,
    links: &mut usize,
) -> Result<(OwnedFd, bool), Stuck> {
    match readable_or_path(|flags| calls::open_no_magic(from, path, flags)) {
        // Before Linux 5.6, or a sandbox that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => walk(from, path, links),
        opened => opened.map_err(stuck("openat2 of the directory")),
    }
}

/// [`open_beside`], part by part.
fn walk(from: BorrowedFd<'_>, path: &Path, links: &mut usize) -> Result<(OwnedFd, bool), Stuck> {
    let here = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let start = |path: &OsStr, from| {
        calls::openat(from, path, here, Mode::empty()).map_err(stuck("openat of the directory"))
    };
    let mut at = start(OsStr::new("."), from)?;
    let mut parts: VecDeque<OsString> = parts_of(path).collect();
    while let Some(part) = parts.pop_front() {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = calls::openat(at.as_fd(), &part, flags, Mode::empty())
            .map_err(stuck("openat of the directory"))?;
        let found = calls::fstat(next.as_fd()).map_err(stuck("fstat"))?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => at = next,
            FileType::Symlink => {
                let target = read(at.as_fd(), next.as_fd(), &found, links)?;
                for part in parts_of(Path::new(&target)).collect::<Vec<_>>().into_iter().rev() {
                    parts.push_front(part);
                }
            }
            _ => return Err(Stuck::Call("openat of the directory", Errno::NOTDIR)),
        }
    }
    readable_or_path(|flags| calls::openat(at.as_fd(), OsStr::new("."), flags, Mode::empty()))
        .map_err(stuck("openat of the directory"))
}

/// What is opened one after the other: `/` first if the path is absolute.
fn parts_of(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::CurDir | Component::Prefix(_) => None,
        part => Some(part.as_os_str().to_owned()),
    })
}
