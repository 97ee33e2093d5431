//! A file that has no name yet, and the place where it will get one.

use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{self, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::calls;
use super::resolve::{Spot, resolve};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;

/// What a temporary name begins with; sixteen hexadecimal digits follow.
pub(crate) const TEMPORARY_PREFIX: &str = ".daxmap-draft-";
const TEMPORARY_DIGITS: usize = 16;

/// Temporary names tried. They are random: a second try is rare, a third one a defect.
pub(super) const NAMES_MAX: usize = 16;

/// A directory and a name in it, for a file that is under construction.
///
/// With `O_TMPFILE` that file has no name at all, and a crash leaves nothing behind. Where the
/// filesystem has no `O_TMPFILE`, and for the moment between link and rename, it has a temporary
/// one, which is removed when the place is dropped. `naming` has how the file gets its names.
#[derive(Debug)]
pub(crate) struct Place {
    pub(super) directory: OwnedFd,
    /// The directory can be synced: see [`Spot::readable`](super::resolve::Spot).
    pub(super) readable: bool,
    pub(super) name: OsString,
    pub(super) temporary: Option<OsString>,
    /// What had the name when the place was found.
    found: Option<Stat>,
}

pub(super) fn failed(call: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::os(Operation::Create, call, errno)
}

impl Place {
    /// The place of what `path` names, through symbolic links that may dangle: see
    /// [`resolve`](super::resolve).
    pub(crate) fn of(path: &Path) -> Result<Self> {
        resolve(path).map(Self::at).map_err(|stuck| stuck.during(Operation::Create))
    }

    pub(super) fn at(spot: Spot) -> Self {
        let Spot { directory, readable, name, found } = spot;
        Self { directory, readable, name, temporary: None, found }
    }

    /// What had the name when the place was found.
    pub(crate) fn found(&self) -> Option<&Stat> {
        self.found.as_ref()
    }

    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// EEXIST if there was something of the final name when the place was found.
    pub(crate) fn check_free(&self) -> Result<()> {
        if self.found.is_some() { Err(failed("openat")(Errno::EXIST)) } else { Ok(()) }
    }

    /// Makes the file, unnamed where that is possible, with these permission bits less the
    /// umask, and locked (flock(2), exclusive). A filesystem without locks is an error only if
    /// the lock is `required`.
    pub(crate) fn create(&mut self, mode: Mode, required: bool) -> Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::TMPFILE;
        match calls::openat(self.directory(), OsStr::new("."), flags, mode) {
            Ok(fd) if can_be_named(fd.as_fd(), self.directory()) => {
                lock_if_possible(fd.as_fd(), required)?;
                Ok(fd)
            }
            Ok(_) => self.create_named(mode, required),
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

/// Whether a file without a name can be given one: the unprivileged need /proc for that before Linux
/// 6.10, and a sandbox may know neither way. Asked once a second, since rights can be given up.
fn can_be_named(fd: BorrowedFd<'_>, directory: BorrowedFd<'_>) -> bool {
    const AGE_MAX: Duration = Duration::from_secs(1);
    static SEEN: Mutex<Option<Instant>> = Mutex::new(None);
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.is_none_or(|seen| seen.elapsed() >= AGE_MAX) {
        *seen = calls::can_link_open(fd, directory).then(Instant::now);
    }
    seen.is_some()
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

pub(super) fn temporary_name() -> OsString {
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
