//! A file that has no name yet, and the place where it will get one.

use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::calls;
use super::quirks::Quirks;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;

/// What a temporary name begins with; sixteen hexadecimal digits follow.
pub(crate) const TEMPORARY_PREFIX: &str = ".daxmap-draft-";
const TEMPORARY_DIGITS: usize = 16;

/// Links followed to the file that they name, as in `path_resolution(7)`.
const LINKS_MAX: usize = 40;
/// Temporary names tried. They are random: a second try is rare, a third one a defect.
const NAMES_MAX: usize = 16;

/// A directory and a name in it, for a file that is under construction.
///
/// With `O_TMPFILE` that file has no name at all, and a crash leaves nothing behind. Where the
/// filesystem has no `O_TMPFILE`, and for the moment between link and rename, it has a temporary
/// one, which is removed when the place is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    directory: OwnedFd,
    name: OsString,
    temporary: Option<OsString>,
    /// The path that was asked for is a symbolic link, and this is what it points to.
    pub(crate) through_link: bool,
}

fn failed(call: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::os(Operation::Create, call, errno)
}

impl Place {
    /// The place of `path` itself, be it a symbolic link.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let name = path.file_name().ok_or_else(|| failed("openat")(Errno::ISDIR))?.to_owned();
        // `file_name` overlooks a slash or a dot at the end; open(2) does not.
        if !path.as_os_str().as_bytes().ends_with(name.as_bytes()) {
            return Err(failed("openat")(Errno::ISDIR));
        }
        // For fsync, so not O_PATH.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = calls::open(parent(path), flags, Mode::empty()).map_err(failed("open"))?;
        Ok(Self { directory, name, temporary: None, through_link: false })
    }

    /// The place of what `path` points to, through symbolic links that may dangle.
    pub(crate) fn following(path: &Path) -> Result<Self> {
        let mut path = path.to_owned();
        for link in 0..=LINKS_MAX {
            let mut place = Self::of(&path)?;
            place.through_link = link > 0;
            match calls::readlinkat(place.directory(), &place.name) {
                Ok(target) => path = parent(&path).join(OsStr::from_bytes(target.as_bytes())),
                // EINVAL: not a link. Any other error meets the caller again.
                Err(_) => return Ok(place),
            }
        }
        Err(failed("readlinkat")(Errno::LOOP))
    }

    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// EEXIST if there is something of the final name.
    pub(crate) fn check_free(&self) -> Result<()> {
        match calls::statat(self.directory(), &self.name) {
            Ok(_) => Err(failed("openat")(Errno::EXIST)),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("fstatat")(errno)),
        }
    }

    /// Makes the file, unnamed where that is possible, with these permission bits less the
    /// umask, and locked (flock(2), exclusive). A filesystem without locks is an error only if
    /// the lock is `required`.
    pub(crate) fn create(&mut self, mode: Mode, required: bool) -> Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::TMPFILE;
        match calls::openat(self.directory(), OsStr::new("."), flags, mode) {
            Ok(fd) => {
                lock_if_possible(fd.as_fd(), required)?;
                Ok(fd)
            }
            // EISDIR: a kernel without O_TMPFILE; the others: a filesystem without (open(2)).
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => {
                self.create_named(mode, required)
            }
            Err(errno) => Err(failed("openat")(errno)),
        }
    }

    /// As [`create`](Self::create), with a temporary name.
    pub(crate) fn create_named(&mut self, mode: Mode, required: bool) -> Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL;
        for _ in 0..NAMES_MAX {
            let temporary = temporary_name();
            let fd = match calls::openat(self.directory(), &temporary, flags, mode) {
                Err(Errno::EXIST) => continue,
                result => result.map_err(failed("openat"))?,
            };
            self.temporary = Some(temporary);
            match lock_if_possible(fd.as_fd(), required) {
                // Somebody who cleans up may have met it before it was locked, and removed it.
                Ok(()) if calls::fstat(fd.as_fd()).map_err(failed("fstat"))?.st_nlink > 0 => {
                    return Ok(fd);
                }
                Ok(()) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Locked) => {}
                Err(error) => return Err(error),
            }
            self.remove_temporary();
        }
        Err(failed("openat")(Errno::EXIST))
    }

    /// Closes and opens the file anew, by its temporary name, so that the kernel takes its inode
    /// flags over.
    pub(crate) fn reopen(&self, fd: OwnedFd, required: bool) -> Result<OwnedFd> {
        drop(fd);
        let name = self.temporary.as_ref().ok_or_else(|| failed("openat")(Errno::NOENT))?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = calls::openat(self.directory(), name, flags, Mode::empty())
            .map_err(failed("openat"))?;
        lock_if_possible(fd.as_fd(), required)?;
        Ok(fd)
    }

    /// Gives the file its final name, unless that is taken (EEXIST).
    pub(crate) fn name_new(&mut self, fd: BorrowedFd<'_>) -> Result<()> {
        let name = self.name.clone();
        self.name_as_new(fd, &name)
    }

    /// Gives the file a name in the directory, unless that is taken (EEXIST).
    pub(crate) fn name_as_new(&mut self, fd: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let Some(temporary) = &self.temporary else { return self.link(fd, name) };
        let directory = self.directory();
        let flags = primitive!("name.no_replace", RenameFlags::NOREPLACE, RenameFlags::empty());
        match calls::renameat2(directory, temporary, name, flags) {
            // No RENAME_NOREPLACE here (rename(2)): link refuses an existing name too.
            Err(Errno::INVAL | Errno::NOSYS) => {
                calls::linkat(directory, temporary, name).map_err(failed("linkat"))?;
                // The file has its name: an error now would say that it has not. Dropping the place
                // tries again.
                if calls::unlinkat(directory, temporary).is_err() {
                    return Ok(());
                }
            }
            result => result.map_err(failed("renameat2"))?,
        }
        self.temporary = None;
        Ok(())
    }

    /// Waits for others that exchange names in this directory, and keeps them off for as long as
    /// this place lives (flock(2) on the directory). Where there are no locks, nobody is kept off.
    pub(crate) fn exclude_others(&self) -> Result<()> {
        loop {
            let locked = primitive!(
                "publish.exchange_alone",
                fs::flock(self.directory(), FlockOperation::LockExclusive),
                Ok(())
            );
            match locked {
                Err(Errno::INTR) => {}
                Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                Err(errno) => return Err(Error::os(Operation::Lock, "flock", errno)),
            }
        }
    }

    /// Forgets the temporary name: it leads to somebody else's file.
    pub(crate) fn leave_temporary(&mut self) {
        self.temporary = None;
    }

    /// Gives the file its final name, in place of whatever has it. linkat(2) cannot replace, so
    /// an unnamed file gets a temporary name first, immediately before the rename.
    ///
    /// Where nothing orders a name and the link count of the file that it led to, the old file gets
    /// the temporary name in exchange, and keeps it until [`sync`](Self::sync): a rename would lower
    /// its count to none, and if only that were on the medium, the name would lead to a deleted file.
    pub(crate) fn name_over(&mut self, quirks: Quirks, fd: BorrowedFd<'_>) -> Result<()> {
        let temporary = self.name_temporarily(fd)?.to_owned();
        if primitive!("name.replaced_keeps_a_name", quirks.no_journal, false) {
            let name = &self.name;
            match calls::renameat2(self.directory(), &temporary, name, RenameFlags::EXCHANGE) {
                // No RENAME_EXCHANGE here (rename(2)).
                Err(Errno::INVAL | Errno::NOSYS) => {}
                result => return result.map_err(failed("renameat2")),
            }
        }
        calls::renameat(self.directory(), &temporary, &self.name).map_err(failed("renameat"))?;
        self.temporary = None;
        Ok(())
    }

    /// Gives an unnamed file its temporary name.
    pub(crate) fn name_temporarily(&mut self, fd: BorrowedFd<'_>) -> Result<&OsStr> {
        for _ in 0..NAMES_MAX {
            if self.temporary.is_some() {
                break;
            }
            let temporary = temporary_name();
            match self.link(fd, &temporary) {
                Err(error) if error.errno() == Some(Errno::EXIST) => {}
                result => {
                    result?;
                    self.temporary = Some(temporary);
                }
            }
        }
        self.temporary.as_deref().ok_or_else(|| failed("linkat")(Errno::EXIST))
    }

    /// Exchanges two names of the directory: each names a file at every moment.
    pub(crate) fn exchange(&self, one: &OsStr, other: &OsStr) -> Result<()> {
        match calls::renameat2(self.directory(), one, other, RenameFlags::EXCHANGE) {
            Err(Errno::INVAL | Errno::NOSYS) => {
                let why = "the filesystem has no RENAME_EXCHANGE";
                Err(Error::new(Operation::Publish, ErrorKind::Unsupported(why)))
            }
            result => result.map_err(failed("renameat2")),
        }
    }

    /// Syncs what the filesystem needs synced after the file got its final name. Then what had it
    /// before can go.
    pub(crate) fn sync(&mut self, quirks: Quirks, fd: BorrowedFd<'_>) -> Result<()> {
        // Stays where it is if the sync fails.
        let replaced = primitive!("name.replaced_until_synced", self.temporary.take(), {
            self.remove_temporary();
            None
        });
        let failed = |call| move |errno| Error::os(Operation::Sync, call, errno);
        if quirks.sync_file {
            primitive!("name.fsync", calls::fsync(fd), Ok(())).map_err(failed("fsync"))?;
        }
        if quirks.sync_directory {
            primitive!("name.fsync_directory", calls::fsync_directory(self.directory()), Ok(()))
                .map_err(failed("fsync of the directory"))?;
        }
        self.temporary = replaced;
        self.remove_temporary();
        Ok(())
    }

    /// Before a file loses its last name: makes durable that another name does not lead to it, where
    /// nothing else orders the two. Best effort, on the way out of an error.
    pub(crate) fn settle_names(&self, quirks: Quirks) {
        if primitive!("name.settle", quirks.no_journal, false) {
            let _ = calls::fsync_directory(self.directory());
        }
    }

    /// Takes a name that this place gave away again.
    pub(crate) fn unname(&self, name: &OsStr) {
        let _ = calls::unlinkat(self.directory(), name);
    }

    /// Takes the final name back from the file, if it is still its own.
    pub(crate) fn unname_own(&self, fd: BorrowedFd<'_>) {
        self.unname_if(fd, &self.name);
    }

    /// Takes a name from the file, if it is the file's.
    pub(crate) fn unname_if(&self, fd: BorrowedFd<'_>, name: &OsStr) {
        let (own, named) = (calls::fstat(fd), calls::statat(self.directory(), name));
        if let (Ok(own), Ok(named)) = (own, named)
            && (own.st_dev, own.st_ino) == (named.st_dev, named.st_ino)
        {
            self.unname(name);
        }
    }

    fn link(&self, fd: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        calls::link_open(fd, self.directory(), name).map_err(failed("linkat"))
    }

    /// Removes the temporary name, if there is one.
    pub(crate) fn remove_temporary(&mut self) {
        if let Some(temporary) = primitive!("name.no_leftovers", self.temporary.take(), None) {
            let _ = calls::unlinkat(self.directory(), &temporary);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.remove_temporary();
    }
}

/// Takes the advisory lock of a file, without waiting.
pub(crate) fn lock(fd: BorrowedFd<'_>) -> Result<()> {
    loop {
        match fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::new(Operation::Lock, ErrorKind::Locked));
            }
            Err(errno) => return Err(Error::os(Operation::Lock, "flock", errno)),
        }
    }
}

fn lock_if_possible(fd: BorrowedFd<'_>, required: bool) -> Result<()> {
    match lock(fd) {
        Err(error)
            if !required
                && matches!(
                    error.errno(),
                    Some(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS)
                ) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// The directory that a path names its file in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn temporary_name() -> OsString {
    // Keyed anew by the standard library for every call.
    let random = RandomState::new().build_hasher().finish();
    format!("{TEMPORARY_PREFIX}{random:0TEMPORARY_DIGITS$x}").into()
}

/// Whether a name is one that [`temporary_name`] makes.
pub(crate) fn is_temporary(name: &[u8]) -> bool {
    name.strip_prefix(TEMPORARY_PREFIX.as_bytes()).is_some_and(|digits| {
        digits.len() == TEMPORARY_DIGITS
            && digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_are_recognised_and_differ() {
        let one = temporary_name();
        assert!(is_temporary(one.as_encoded_bytes()), "{one:?}");
        assert_ne!(one, temporary_name());
        for other in ["", ".daxmap-draft-", ".daxmap-draft-00000000000000000", "x", "wal"] {
            assert!(!is_temporary(other.as_bytes()), "{other}");
        }
        assert!(!is_temporary(b".daxmap-draft-0123456789abcdeF"));
    }
}
