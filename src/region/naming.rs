//! How a file under construction gets its names, by the best way that its filesystem has.
//!
//! | step | first way | second way | third way |
//! |---|---|---|---|
//! | a free name | link the unnamed file, or rename with `RENAME_NOREPLACE` | link, then remove the temporary name | look, then rename, with the directory locked |
//! | a name that is taken | rename; without a journal, exchange | without a journal, link the old version, then rename | rename |
//! | keep the old version | exchange twice | link the old version to the other name, then rename | |
//! | make names durable | fsync of the directory | syncfs | |
//!
//! The next way is tried where the kernel says that the filesystem, the kernel or a sandbox lacks the
//! operation. A lack and a refused permission share errnos (link(2): `EPERM`), so the error of the
//! last way is the one reported. Only the third way for a free name promises less: a file that a
//! program other than this library makes between the look and the rename is replaced.
//!
//! A FUSE server may ignore the flags of a rename, replace what was to stay, and report success: no
//! look afterwards brings that back. So flags are the first way only where the kernel's own code keeps
//! them ([`Driver::keeps_rename_flags`]); elsewhere it is the second way.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::fs::{self, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::calls;
use super::draft::{NAMES_MAX, Place, failed, temporary_name};
use super::identity::Driver;
use super::quirks::Quirks;
use crate::error::{Error, Operation, Result};
use crate::primitives::primitive;

/// How long one waits for the others that give names in the directory. Each holds its lock for a few
/// renames and a sync.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// What renameat2(2) with flags answers where the filesystem, the kernel or a sandbox lacks it.
fn lacks_rename_flags(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP)
}

/// What linkat(2) answers where the filesystem has no hard links, or none for this file.
fn lacks_links(errno: Errno) -> bool {
    matches!(errno, Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP | Errno::MLINK)
}

fn sync_filesystem(file: BorrowedFd<'_>) -> Result<()> {
    calls::syncfs(file).map_err(|errno| Error::os(Operation::Sync, "syncfs", errno))
}

impl Place {
    /// Gives the file its final name, unless that is taken (EEXIST).
    pub(crate) fn name_new(&mut self, fd: BorrowedFd<'_>) -> Result<()> {
        let name = self.name.clone();
        self.name_as_new(fd, &name)
    }

    /// Gives the file a name in the directory, unless that is taken (EEXIST).
    pub(crate) fn name_as_new(&mut self, fd: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let Some(temporary) = &self.temporary else { return self.link(fd, name) };
        let directory = self.directory();
        if self.keeps_rename_flags() {
            match self.rename_as_new(temporary, name) {
                Err(errno) if lacks_rename_flags(errno) => {}
                renamed => {
                    renamed.map_err(failed("renameat2"))?;
                    self.temporary = None;
                    return Ok(());
                }
            }
        }
        match calls::linkat(directory, temporary, name) {
            Err(errno) if lacks_links(errno) => {
                self.exclude_others()?;
                self.rename_if_free(name)
            }
            linked => {
                linked.map_err(failed("linkat"))?;
                // The file has its name: an error now would say that it has not. Dropping the place
                // tries again.
                if calls::unlinkat(directory, temporary).is_ok() {
                    self.temporary = None;
                }
                Ok(())
            }
        }
    }

    fn rename_as_new(&self, temporary: &OsStr, name: &OsStr) -> std::result::Result<(), Errno> {
        let flags = primitive!("name.no_replace", RenameFlags::NOREPLACE, RenameFlags::empty());
        calls::renameat2(self.directory(), temporary, name, flags)
    }

    /// See [`Driver::keeps_rename_flags`]. What cannot be asked is not trusted.
    pub(crate) fn keeps_rename_flags(&self) -> bool {
        Driver::of(self.directory()).is_ok_and(Driver::keeps_rename_flags)
    }

    /// For filesystems that cannot refuse to replace, or may not: the flag is asked for all the same.
    fn rename_if_free(&mut self, name: &OsStr) -> Result<()> {
        let Some(temporary) = &self.temporary else { return Err(failed("renameat")(Errno::NOENT)) };
        match calls::statat(self.directory(), name) {
            Ok(_) => return Err(failed("renameat")(Errno::EXIST)),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed("fstatat")(errno)),
        }
        match self.rename_as_new(temporary, name) {
            Err(errno) if lacks_rename_flags(errno) => {
                calls::renameat(self.directory(), temporary, name).map_err(failed("renameat"))?;
            }
            renamed => renamed.map_err(failed("renameat2"))?,
        }
        self.temporary = None;
        Ok(())
    }

    /// Waits for others that exchange names in this directory, and keeps them off for as long as
    /// this place lives (flock(2) on the directory). Where there are no locks, nobody is kept off.
    ///
    /// Anybody who may read the directory can hold that lock, so the wait has an end.
    pub(crate) fn exclude_others(&self) -> Result<()> {
        let until = Instant::now() + LOCK_WAIT;
        let mut pause = Duration::from_micros(200);
        loop {
            let locked = primitive!(
                "publish.exchange_alone",
                fs::flock(self.directory(), FlockOperation::NonBlockingLockExclusive),
                Ok(())
            );
            match locked {
                Err(Errno::INTR) => continue,
                Err(Errno::WOULDBLOCK) if Instant::now() < until => {}
                Err(Errno::WOULDBLOCK) => {
                    let call = "flock of the directory, waited 5 s for";
                    let error = Error::os(Operation::Lock, call, Errno::WOULDBLOCK);
                    return Err(error.advise(
                        "another process holds a lock on the directory: release it (fuser(1) names \
                         the process), or use Commit::Replace, which takes none",
                    ));
                }
                // BADF: a directory that may not be read.
                Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF) => {
                    return Ok(());
                }
                Err(errno) => return Err(Error::os(Operation::Lock, "flock", errno)),
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
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
    /// a temporary name, by an exchange or a link, and keeps it until [`sync`](Self::sync): a rename
    /// would lower its count to none, and if only that were on the medium, the name would lead to a
    /// deleted file.
    pub(crate) fn name_over(&mut self, quirks: Quirks, fd: BorrowedFd<'_>) -> Result<()> {
        let temporary = self.name_temporarily(fd)?.to_owned();
        let mut replaced = None;
        if primitive!("name.replaced_keeps_a_name", quirks.no_journal, false) {
            if self.exchange(&temporary, &self.name)? {
                return Ok(());
            }
            // Best effort: there may be no links either.
            replaced = self.link_again(&self.name).ok().flatten();
        }
        calls::renameat(self.directory(), &temporary, &self.name).map_err(|errno| {
            if let Some(replaced) = &replaced {
                self.unname(replaced);
            }
            failed("renameat")(errno)
        })?;
        self.temporary = replaced;
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

    /// Exchanges two names of the directory: each names a file at every moment. False where there
    /// is no such operation, or a server might replace one file by the other instead.
    pub(crate) fn exchange(&self, one: &OsStr, other: &OsStr) -> Result<bool> {
        if !self.keeps_rename_flags() {
            return Ok(false);
        }
        match calls::renameat2(self.directory(), one, other, RenameFlags::EXCHANGE) {
            Err(errno) if lacks_rename_flags(errno) => Ok(false),
            result => result.map(|()| true).map_err(failed("renameat2")),
        }
    }

    /// The file takes the final name, and what had it is kept under another, without
    /// `RENAME_EXCHANGE`: both names lead to whole versions at every moment. What had the other name
    /// before keeps a temporary one until [`sync`](Self::sync), and gets its own back on an error.
    pub(crate) fn name_over_and_keep(
        &mut self,
        quirks: Quirks,
        fd: BorrowedFd<'_>,
        keep: &OsStr,
    ) -> Result<()> {
        let name = self.name.clone();
        let old = self.link_again(&name)?.ok_or_else(|| failed("linkat")(Errno::NOENT))?;
        let before = self.link_again(keep).inspect_err(|_| self.unname(&old))?;
        // Where nothing orders names and link counts, the second links are made durable before a
        // rename takes the first ones, so that no count on the medium falls to none; and elsewhere
        // the kept name before the other changes.
        let settle_before = || {
            let both = [Some(&old), before.as_ref()].into_iter().flatten();
            let mut needed = both.filter(|_| quirks.no_journal);
            needed.try_for_each(|name| self.settle(name, quirks, fd))
        };
        let kept = settle_before().and_then(|()| {
            calls::renameat(self.directory(), &old, keep).map_err(failed("renameat"))?;
            self.settle(keep, quirks, fd)
        });
        // Also where both led to one file already: then a rename does nothing (rename(2)).
        self.unname(&old);
        match kept.and_then(|()| self.name_over(quirks, fd)) {
            Ok(()) => {
                self.remove_temporary();
                self.temporary = before;
                Ok(())
            }
            Err(error) => {
                match &before {
                    Some(before) => {
                        let _ = calls::renameat(self.directory(), before, keep);
                        self.settle_names(quirks);
                        self.unname(before);
                    }
                    None => self.unname(keep),
                }
                Err(error)
            }
        }
    }

    /// Makes a name durable, and the link count of what it leads to, by fsync of both; of the whole
    /// filesystem where the file may not be read.
    fn settle(&self, name: &OsStr, quirks: Quirks, file: BorrowedFd<'_>) -> Result<()> {
        if !quirks.sync_file && !quirks.sync_directory {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match calls::openat(self.directory(), name, flags, Mode::empty()) {
            Err(_) => return sync_filesystem(file),
            Ok(named) => calls::fsync(named.as_fd())
                .map_err(|errno| Error::os(Operation::Sync, "fsync", errno))?,
        }
        if quirks.sync_directory { self.sync_directory(file).map(drop) } else { Ok(()) }
    }

    /// A second, temporary name of what a name leads to; `None` if nothing has the name.
    fn link_again(&self, name: &OsStr) -> Result<Option<OsString>> {
        for _ in 0..NAMES_MAX {
            let temporary = temporary_name();
            match calls::linkat(self.directory(), name, &temporary) {
                Ok(()) => return Ok(Some(temporary)),
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::EXIST) => {}
                Err(errno) if lacks_links(errno) => {
                    let error = failed("linkat of the version to keep")(errno);
                    return Err(error.advise(
                        "the filesystem has no hard links, and no RENAME_EXCHANGE that the kernel \
                         vouches for, so it cannot keep the old version: use Commit::Replace, or another filesystem",
                    ));
                }
                Err(errno) => return Err(failed("linkat of the version to keep")(errno)),
            }
        }
        Err(failed("linkat")(Errno::EXIST))
    }

    /// Syncs what the filesystem needs synced after the file got its final name. Then what had it
    /// before can go. False if the filesystem cannot sync a directory, and all of it was synced instead.
    pub(crate) fn sync(&mut self, quirks: Quirks, fd: BorrowedFd<'_>) -> Result<bool> {
        // Stays where it is if the sync fails.
        let replaced = primitive!("name.replaced_until_synced", self.temporary.take(), {
            self.remove_temporary();
            None
        });
        if quirks.sync_file {
            primitive!("name.fsync", calls::fsync(fd), Ok(()))
                .map_err(|errno| Error::os(Operation::Sync, "fsync", errno))?;
        }
        let mut by_its_directory = true;
        if quirks.sync_directory {
            by_its_directory =
                primitive!("name.fsync_directory", self.sync_directory(fd), Ok(true))?;
        }
        self.temporary = replaced;
        self.remove_temporary();
        Ok(by_its_directory)
    }

    /// fsync(2) of the directory; syncfs(2) where it may not be read, or has no fsync (EINVAL:
    /// `vfs_fsync_range`, fs/sync.c). False if it has none.
    fn sync_directory(&self, file: BorrowedFd<'_>) -> Result<bool> {
        if !self.readable {
            return sync_filesystem(file).map(|()| true);
        }
        match calls::fsync_directory(self.directory()) {
            Err(Errno::INVAL) => sync_filesystem(file).map(|()| false),
            synced => synced
                .map(|()| true)
                .map_err(|errno| Error::os(Operation::Sync, "fsync of the directory", errno)),
        }
    }

    /// A name that the file was given is its temporary one again.
    pub(crate) fn take_name_back(&mut self, name: &OsStr) -> Result<()> {
        let temporary = temporary_name();
        calls::renameat(self.directory(), name, &temporary).map_err(failed("renameat"))?;
        self.temporary = Some(temporary);
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
        if let (Ok(own), Ok(named)) = (own, named) {
            if (own.st_dev, own.st_ino) == (named.st_dev, named.st_ino) {
                self.unname(name);
            }
        }
    }

    fn link(&self, fd: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        calls::link_open(fd, self.directory(), name).map_err(failed("linkat"))
    }
}
