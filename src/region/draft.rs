//! A file that has no name yet, and gets its final one when it is complete.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::error::{Error, Operation, Result};

/// A file under construction in the directory it will live in.
///
/// With `O_TMPFILE` it has no name at all, and a crash leaves nothing behind. Where the
/// filesystem has no `O_TMPFILE` it has a temporary name, `.NAME.daxmap-draft-PID-N`, which is
/// removed when the draft is dropped.
pub(super) struct Draft {
    directory: OwnedFd,
    name: OsString,
    /// Taken by `publish`.
    fd: Option<OwnedFd>,
    temporary: Option<OsString>,
}

fn failed(call: &'static str, errno: Errno) -> Error {
    Error::os(Operation::Create, call, errno)
}

impl Draft {
    /// Starts a file that will be `path`, with these permission bits less the umask. Fails with
    /// EEXIST if there is something of that name already.
    pub(super) fn new(path: &Path, mode: Mode) -> Result<Self> {
        let name = path.file_name().ok_or_else(|| failed("openat", Errno::ISDIR))?.to_owned();
        // `file_name` overlooks a slash or a dot at the end; open(2) does not.
        if !path.as_os_str().as_bytes().ends_with(name.as_bytes()) {
            return Err(failed("openat", Errno::ISDIR));
        }
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        // For fsync, so not O_PATH.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            fs::open(parent, flags, Mode::empty()).map_err(|errno| failed("open", errno))?;
        match fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => return Err(failed("openat", Errno::EXIST)),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed("fstatat", errno)),
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        match fs::openat(&directory, ".", flags | OFlags::TMPFILE, mode) {
            Ok(fd) => return Ok(Self { directory, name, fd: Some(fd), temporary: None }),
            // EISDIR: a kernel without O_TMPFILE; the others: a filesystem without (open(2)).
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => {}
            Err(errno) => return Err(failed("openat", errno)),
        }
        for attempt in 0..1000 {
            let temporary = temporary_name(&name, attempt);
            match fs::openat(&directory, &temporary, flags | OFlags::CREATE | OFlags::EXCL, mode) {
                Ok(fd) => {
                    return Ok(Self { directory, name, fd: Some(fd), temporary: Some(temporary) });
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed("openat", errno)),
            }
        }
        Err(failed("openat", Errno::EXIST))
    }

    /// The file.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("only publish takes it, and publish consumes the draft").as_fd()
    }

    /// Gives the finished file its name, durably, unless the name is taken (EEXIST). The caller
    /// has synced the file. `sync_after_link`: the filesystem forgets an unnamed file that is
    /// linked but not synced again (btrfs).
    pub(super) fn publish(mut self, sync_after_link: bool) -> Result<OwnedFd> {
        if let Some(temporary) = &self.temporary {
            self.rename(temporary)?;
            self.temporary = None;
        } else {
            self.link()?;
        }
        let synced = if sync_after_link { fs::fsync(self.fd()) } else { Ok(()) }
            .and_then(|()| fs::fsync(&self.directory));
        if let Err(errno) = synced {
            // The name is there, but may be gone after a crash: take it back.
            let _ = fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
            return Err(Error::os(Operation::Sync, "fsync of the directory", errno).unknown());
        }
        Ok(self.fd.take().expect("taken here only, once"))
    }

    fn link(&self) -> Result<()> {
        // linkat(2): /proc/self/fd needs no privilege; AT_EMPTY_PATH works without /proc.
        let through_proc = format!("/proc/self/fd/{}", self.fd().as_raw_fd());
        let linked = fs::linkat(
            CWD,
            through_proc.as_str(),
            &self.directory,
            &self.name,
            AtFlags::SYMLINK_FOLLOW,
        );
        match linked {
            Err(Errno::NOENT) => fs::linkat(
                self.fd(),
                OsStr::new(""),
                &self.directory,
                &self.name,
                AtFlags::EMPTY_PATH,
            ),
            result => result,
        }
        .map_err(|errno| failed("linkat", errno))
    }

    fn rename(&self, temporary: &OsStr) -> Result<()> {
        let directory = &self.directory;
        match fs::renameat_with(directory, temporary, directory, &self.name, RenameFlags::NOREPLACE)
        {
            // No RENAME_NOREPLACE here (rename(2)): link refuses an existing name too.
            Err(Errno::INVAL | Errno::NOSYS) => {
                fs::linkat(directory, temporary, directory, &self.name, AtFlags::empty())
                    .map_err(|errno| failed("linkat", errno))?;
                fs::unlinkat(directory, temporary, AtFlags::empty())
                    .map_err(|errno| failed("unlinkat", errno))
            }
            result => result.map_err(|errno| failed("renameat2", errno)),
        }
    }
}

fn temporary_name(name: &OsStr, attempt: u32) -> OsString {
    // Names have at most 255 bytes: the end needs some of them.
    const NAME_MAX: usize = 200;
    let name = name.as_bytes();
    let mut temporary = OsString::from(".");
    temporary.push(OsStr::from_bytes(&name[..name.len().min(NAME_MAX)]));
    temporary.push(format!(".daxmap-draft-{}-{attempt}", std::process::id()));
    temporary
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::unlinkat(&self.directory, temporary, AtFlags::empty());
        }
    }
}
