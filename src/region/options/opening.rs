//! How is a region created, opened, and made of an open file?

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, MemfdFlags, OFlags};
use rustix::io::Errno;

use super::Options;
use crate::durability::{Backend, Durability};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;
use crate::probe::{self, Report, Target};
use crate::region::any::AnyRegion;
use crate::region::calls;
use crate::region::clean;
use crate::region::draft::Place;
use crate::region::existing::Existing;
use crate::region::lock::Lock;
use crate::region::reopen::{self, Shows};
use crate::region::siblings::Membership;
use crate::region::storage;

impl Options {
    /// Creates the file, which must not exist, and opens it. If `path` is a symbolic link, the file
    /// is the one that it points to, as for [`open`](Self::open) and [`draft`](Self::draft). Another
    /// user's link in a sticky, world-writable directory is refused with `EACCES`, by all three.
    ///
    /// The file is allocated, filled with zeros, synced and mapped before it gets its name, so a
    /// file of this name is always complete; then the directory is synced. An error leaves no
    /// file behind, and takes no space. (A disk is called full once the filesystem was synced, so
    /// that what was removed a moment ago counts as free.)
    ///
    /// # Errors
    ///
    /// `Os(EEXIST)`, `Os(ENOSPC)`, `Os(EROFS)` and the like from the named system call;
    /// `Empty` without a [length](Self::len), `TooLarge` for one; `Durability` if the required level is not there.
    pub fn create(&self, path: impl AsRef<Path>) -> Result<AnyRegion> {
        let path = path.as_ref();
        self.create_at(path).map_err(|error| error.at(path))
    }

    /// Opens an existing file or device-DAX node. Its contents are not changed.
    ///
    /// For writing, file and directory are synced once, since whoever made the file may not
    /// have: a drained write must not be lost with the file's size or name. Where the directory may
    /// not be read, or the file is mounted on its name, its filesystem is synced instead (syncfs(2)). A
    /// lease that another process has on the file (fcntl(2)) is waited for, at most as long as the
    /// kernel lets it last (`/proc/sys/fs/lease-break-time`, 45 s). On DAX, every page is faulted in
    /// for writing, which fills
    /// the holes of a sparse file with allocated zeros.
    ///
    /// The region shows what the medium holds, also after another process's sync has failed. Cached
    /// pages are dropped, but after a clean close ([`keep_cache`](Self::keep_cache)). Pages that stay,
    /// since another process has them mapped, are written once more with what they show; that needs
    /// the [lock](Self::lock). Without the lock the level is then at most [`Durability::Unverified`], with the reason. A region opened read-only may show
    /// what the medium has not: see [`AnyRegion::shows_medium`].
    ///
    /// # Errors
    ///
    /// `Os(ENOENT)`, `Os(EACCES)`, `Os(EROFS)` and the like; `WrongFileType`; `TooShort`; `Locked`;
    /// `Durability` if the required level is not there.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<AnyRegion> {
        let path = path.as_ref();
        let missing = || Error::os(Operation::Open, "openat", Errno::NOENT);
        self.open_at(path).and_then(|found| found.ok_or_else(missing)).map_err(|e| e.at(path))
    }

    /// Opens the file, or creates it if [`open`](Self::open) finds nothing of its name.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create(&self, path: impl AsRef<Path>) -> Result<AnyRegion> {
        let path = path.as_ref();
        self.open_or_create_at(path).map_err(|error| error.at(path))
    }

    /// Creates where opening found nothing of the name, and opens where creating found something.
    fn open_or_create_at(&self, path: &Path) -> Result<AnyRegion> {
        // Each may write a whole file before it meets another's.
        const CREATIONS_MAX: u32 = 3;
        let mut creations = 0;
        loop {
            if let Some(region) = self.open_at(path)? {
                return Ok(region);
            }
            creations += 1;
            match self.create_at(path) {
                Err(error) if error.errno() == Some(Errno::EXIST) && creations < CREATIONS_MAX => {}
                decided => return decided,
            }
        }
    }

    /// Creates a region in memory, without a file: for tests, and for trying out emulation.
    /// Its level is `ProcessOnly`, but nothing of it outlives the last process that has it.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn in_memory(&self) -> Result<AnyRegion> {
        let path = Path::new("memfd:daxmap");
        let create = || {
            let len = self.creation_len()?;
            let fd = fs::memfd_create("daxmap", MemfdFlags::CLOEXEC)
                .map_err(|errno| Error::os(Operation::Create, "memfd_create", errno))?;
            let (report, _) = self.judge(fd.as_fd(), path)?;
            storage::extend(fd.as_fd(), 0, len)?;
            self.attach(path, fd, len, report)
        };
        create().map_err(|error: Error| error.at(path))
    }

    /// Makes a region of a file that is open, as it is. The options say the rest, the
    /// [lock](Self::lock) among it. Like [`open`](Self::open); the name of the file is made durable with
    /// the whole filesystem, where it is to be written (syncfs(2)).
    ///
    /// Nothing else may write or sync through this open file or a duplicate of it: the kernel
    /// reports a failed write to each open file once.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and `Unsupported` for a file that was opened with `O_APPEND` or
    /// `O_DIRECT`, or with `O_PATH`; `ReadOnly` if the region is to be written and the file was opened
    /// for reading; `Os(EACCES)` if the file was opened for writing alone.
    pub fn from_file(&self, file: File) -> Result<AnyRegion> {
        let fd = OwnedFd::from(file);
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let path = std::fs::read_link(&link).unwrap_or_else(|_| link.into());
        let adopt = || {
            let failed = |call| move |errno| Error::os(Operation::Open, call, errno);
            let flags = fs::fcntl_getfl(&fd).map_err(failed("fcntl"))?;
            for (flag, why) in [
                (OFlags::PATH, "a file opened with O_PATH"),
                (OFlags::APPEND, "a file opened with O_APPEND: it ignores where a write goes"),
                (OFlags::DIRECT, "a file opened with O_DIRECT: it takes whole blocks only"),
            ] {
                if flags.contains(flag) {
                    return Err(Error::new(Operation::Open, ErrorKind::Unsupported(why)));
                }
            }
            match flags & OFlags::RWMODE {
                OFlags::WRONLY => return Err(failed("fcntl")(Errno::ACCESS)),
                OFlags::RDONLY if !self.read_only => {
                    return Err(Error::new(Operation::Open, ErrorKind::ReadOnly));
                }
                _ => {}
            }
            let file = Existing::of(fd)?;
            self.lock_wanted().take(file.fd(), self.lock_patience)?;
            self.open_file(&path, file)
        };
        adopt().map_err(|error: Error| error.at(&path))
    }

    pub(super) fn creation_len(&self) -> Result<u64> {
        if self.read_only {
            return Err(Error::new(Operation::Create, ErrorKind::ReadOnly));
        }
        let len = self.len.ok_or_else(|| Error::new(Operation::Create, ErrorKind::Empty))?;
        self.check_len(Operation::Create, len)?;
        Ok(len)
    }

    fn check_len(&self, operation: Operation, len: u64) -> Result<()> {
        if len == 0 && self.holds_something {
            return Err(Error::new(operation, ErrorKind::Empty));
        }
        // The reservation is rounded up to pages and 2 MiB: leave room for that.
        let max = self.max_len.unwrap_or(u64::MAX).min((isize::MAX as u64) >> 1);
        if len > max {
            return Err(Error::new(operation, ErrorKind::TooLarge { max }).over(0, len));
        }
        Ok(())
    }

    fn create_at(&self, path: &Path) -> Result<AnyRegion> {
        let len = self.creation_len()?;
        let mut place = Place::of(path)?;
        place.check_free()?;
        let fd = place.create(self.file_mode(), self.locks())?;
        let (_, quirks) = self.judge(fd.as_fd(), path)?;
        if primitive!("create.named_when_synced", quirks.no_journal, false) {
            place.name_temporarily(fd.as_fd())?;
        }
        primitive!("create.extend", storage::extend(fd.as_fd(), 0, len), Ok(()))?;
        // Once more, now that there are extents to look at.
        let (report, _) = self.judge(fd.as_fd(), path)?;
        // Mapped before it has its name: what fails here leaves nothing.
        let mut region = self.attach(path, fd, len, report)?;
        place.name_new(region.as_fd())?;
        let synced = primitive!("create.sync", place.sync(quirks, region.as_fd()), Ok(true));
        if let Err(error) = synced.and_then(|synced| {
            if synced { Ok(()) } else { region.lower(|report| self.without_directory_sync(report)) }
        }) {
            // The name is there, but may be gone after a crash: take it back.
            primitive!("create.take_back", place.unname_own(region.as_fd()), ());
            return Err(error.unknown());
        }
        self.settle_lock(region.as_fd());
        Ok(region)
    }

    /// Opens a file that is, once it is locked, still the one that the path names: whoever held
    /// the lock before may have removed or replaced it. `None` if nothing has the name.
    fn open_at(&self, path: &Path) -> Result<Option<AnyRegion>> {
        const RACES: u32 = 8;
        for _ in 0..RACES {
            let Some(file) = Existing::find(path, self.read_only)? else { return Ok(None) };
            if self.locks() {
                self.lock_wanted().take(file.fd(), self.lock_patience)?;
                if primitive!("open.still_named", !file.is_still_named()?, false) {
                    continue;
                }
            }
            return self.open_file(path, file).map(Some);
        }
        Err(Error::os(Operation::Open, "openat", Errno::AGAIN))
    }

    fn open_file(&self, path: &Path, file: Existing) -> Result<AnyRegion> {
        let (mut report, _) = self.judge(file.fd(), path)?;
        let file_len = match report.target {
            Target::DaxDevice => report.namespace.as_ref().and_then(|n| n.size).unwrap_or(0),
            _ => file.len(),
        };
        let len = self.view.unwrap_or(file_len);
        self.check_len(Operation::Open, len)?;
        if len == 0 && report.target == Target::DaxDevice {
            return Err(Error::new(Operation::Open, ErrorKind::Empty));
        }
        let asked = len.max(self.len.unwrap_or(0));
        if asked > file_len {
            let kind = ErrorKind::TooShort { len: file_len, asked };
            return Err(Error::new(Operation::Open, kind));
        }
        if report.backend == Backend::PageCache && !self.read_only {
            storage::check_limit(Operation::Open, len)?;
        }
        let mut shows = Shows::Medium;
        if report.target == Target::File {
            if !self.read_only {
                reopen::sync_existing(&file, &mut report)?;
                self.check_level(&report)?;
            }
            if report.backend == Backend::PageCache {
                shows = self.read_anew(file.fd(), file_len, &mut report)?;
            }
        }
        Ok(self.attach(path, file.into_fd(), len, report)?.showing(shows))
    }

    /// Has the file show what the medium holds, as far as this opening may. A writer who cannot
    /// know does not get a level.
    fn read_anew(&self, fd: BorrowedFd<'_>, len: u64, report: &mut Report) -> Result<Shows> {
        let kept = || match calls::cached_pages(fd) {
            Ok(0) => Shows::Medium,
            _ => Shows::Cache,
        };
        if self.read_only {
            // A reader drops nothing: others are at work.
            return Ok(if clean::is_there(fd) { Shows::Medium } else { kept() });
        }
        // Taken away whatever is done: this opening will write.
        let closed = clean::take(fd);
        let shows = match self.keep_cache {
            None | Some(true) if closed => return Ok(Shows::Medium),
            Some(true) => kept(),
            _ => reopen::read_anew(fd, len, self.lock_wanted() == Lock::Exclusive)?,
        };
        // A region of this process that has been told of no error keeps them for a good reason.
        if shows == Shows::Cache && Membership::has_writer(fd)? {
            return Ok(Shows::Medium);
        }
        if shows == Shows::Cache && report.durability > Durability::Unverified {
            report.durability = Durability::Unverified;
            report.reasons.push(probe::cached_pages_stay(&report.path));
            self.check_level(report)?;
        }
        Ok(shows)
    }
}
