//! Replace a whole file in one line.

use std::os::fd::AsFd;
use std::path::Path;

use super::{Begun, Commit, name, not_as_required};
use crate::durability::Durability;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::region::Options;

/// Replaces the content of the file `path`, or creates it, and returns the level reached.
///
/// When it returns, the new content is as durable as that level says. At every moment, and after a
/// crash at any moment, the file has its old content or the new one, whole. A new file has mode 0600
/// less the umask; a file in place hands its owner, mode and attributes on, as far as it can. The
/// content may be empty. If `path` is a symbolic link, the file that it points to is replaced.
///
/// ```
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("config");
/// daxmap::publish::replace(&path, "color = blue\n")?;
/// assert_eq!(std::fs::read(&path).unwrap(), b"color = blue\n");
/// # Ok::<(), daxmap::Error>(())
/// ```
///
/// [`Options::replace`] does the same with a required level, another mode, or strict attributes.
///
/// # Errors
///
/// [`ErrorKind::PublishedNotDurable`] if the file got its name and the sync that makes this durable
/// failed. After any other error nothing has changed: `Os(ENOSPC)`, `Os(EACCES)`, `Os(EFBIG)` and the
/// like from the named system call, `WrongFileType` for a directory, a device and the like.
pub fn replace(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<Durability> {
    Options::new().replace(path, bytes)
}

impl Options {
    /// Replaces the content of the file `path`, or creates it: see [`replace`]. The length is that of
    /// `bytes`, and may be 0.
    ///
    /// # Errors
    ///
    /// As [`replace`], and `Durability` if the required level is not there.
    pub fn replace(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<Durability> {
        let path = path.as_ref();
        self.replace_at(path, bytes.as_ref()).map_err(|error| error.at(path))
    }

    fn replace_at(&self, path: &Path, bytes: &[u8]) -> Result<Durability> {
        if self.emulates() {
            let why = "emulation of memory for a file that is not mapped";
            return Err(Error::new(Operation::Publish, ErrorKind::Unsupported(why)));
        }
        // Of a draft, which this is, at least one byte is asked for.
        let options = self.clone().len((bytes.len() as u64).max(1));
        let Begun { mut place, fd, mut report, inherits, .. } = options.begin(path)?;
        Self::fill(fd.as_fd(), bytes)
            .and_then(|()| name(&mut place, fd.as_fd(), &inherits, Commit::Replace))
            .map_err(Error::before_publish)?;
        place
            .sync(inherits.quirks, fd.as_fd())
            .and_then(|synced| {
                if synced {
                    Ok(())
                } else {
                    options.without_directory_sync(&mut report).map_err(not_as_required)
                }
            })
            .map_err(Error::after_publish)?;
        Ok(report.durability)
    }
}
