//! The model in the place of the kernel: what the library calls, and what a test calls itself.

use std::ffi::{CStr, CString, OsStr};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{Mode, OFlags, RenameFlags, Stat};
use rustix::io::{Errno, Result};

use super::history::{History, Sync};
use super::image::{Image, Inode};
use super::live::{Live, Object};
use super::profile::Profile;
use super::{Feature, Tamper};
use daxmap::model::{self, Calls, Quirks, Seen, kernel};
use daxmap::probe::Report;
use daxmap::{Backend, Durability, Granularity};

/// Where every model is mounted. Only a thread that has entered one finds it there.
const MOUNT_POINT: &str = "/daxmap-model";

/// A modelled filesystem: one directory, and files in it.
///
/// A thread that [enters](Self::enter) it uses it through the library, by paths below
/// [`path`](Self::path). The methods here are for programs that make their calls themselves. Errors
/// are those of the manual pages.
pub struct Model {
    live: Mutex<Live>,
    path: PathBuf,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("profile", &self.profile()).finish_non_exhaustive()
    }
}

/// Until it is dropped, the thread that made it finds the model under [`Model::path`].
#[derive(Debug)]
#[must_use = "the thread leaves the model when this is dropped"]
pub struct Inside {
    _entered: model::Entered,
}

impl Model {
    /// An empty filesystem.
    ///
    /// # Errors
    ///
    /// Those of memfd_create(2), which holds what the files hold.
    pub fn new(profile: Profile) -> io::Result<Arc<Self>> {
        Self::after_crash(profile, &Image::default())
    }

    /// The filesystem as it is found after a crash.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn after_crash(profile: Profile, image: &Image) -> io::Result<Arc<Self>> {
        let live = Mutex::new(Live::new(profile, image.clone())?);
        Ok(Arc::new(Self { live, path: PathBuf::from(MOUNT_POINT) }))
    }

    /// From now on, until the guard is dropped, the calling thread finds the model under
    /// [`path`](Self::path). A thread is in one model at a time, the one entered last.
    pub fn enter(self: &Arc<Self>) -> Inside {
        Inside { _entered: model::enter(Arc::clone(self) as Arc<dyn Calls>) }
    }

    /// Where it is mounted, for a thread that has entered it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its profile.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.live().history.profile
    }

    /// Everything so far is on the medium, and the history begins anew. Tampering stays.
    pub fn settle(&self) {
        self.live().settle();
    }

    /// Does something to later calls, besides what is done already.
    pub fn tamper(&self, tamper: Tamper) {
        self.live().tampers.push(tamper);
    }

    /// Notes how far the program is, for the checks: crash points from here on have this mark.
    pub fn mark(&self, mark: u32) {
        self.live().history.mark = mark;
    }

    /// What was called and changed since the medium was settled.
    #[must_use]
    pub fn history(&self) -> History {
        self.live().history.clone()
    }

    /// What there would be if all of it reached the medium now.
    #[must_use]
    pub fn image(&self) -> Image {
        let mut image = self.live().history.settled();
        image.recover();
        image
    }

    /// Makes a file, which must not exist. openat(2), `O_CREAT | O_EXCL`.
    pub fn create(&self, name: &str) -> io::Result<OwnedFd> {
        Ok(self.live().create(Some(OsStr::new(name)), Mode::from_raw_mode(0o600))?)
    }

    /// Makes a file without a name. openat(2), `O_TMPFILE`.
    pub fn create_unnamed(&self) -> io::Result<OwnedFd> {
        Ok(self.live().create(None, Mode::from_raw_mode(0o600))?)
    }

    /// Opens a file for reading and writing. openat(2).
    pub fn open(&self, name: &str) -> io::Result<OwnedFd> {
        Ok(self.live().open(OsStr::new(name), OFlags::RDWR)?)
    }

    /// Writes at an offset. pwrite(2).
    pub fn write(&self, file: &OwnedFd, data: &[u8], offset: u64) -> io::Result<()> {
        Ok(self.pwrite(file.as_fd(), data, offset).map(drop)?)
    }

    /// Gives a range space, and the file that length at least. fallocate(2).
    pub fn allocate(&self, file: &OwnedFd, offset: u64, len: u64) -> io::Result<()> {
        Ok(self.fallocate(file.as_fd(), offset, len)?)
    }

    /// Sets the length. ftruncate(2).
    pub fn truncate(&self, file: &OwnedFd, len: u64) -> io::Result<()> {
        Ok(self.ftruncate(file.as_fd(), len)?)
    }

    /// Sets the permission bits. fchmod(2).
    pub fn change_mode(&self, file: &OwnedFd, bits: u32) -> io::Result<()> {
        Ok(self.fchmod(file.as_fd(), Mode::from_raw_mode(bits))?)
    }

    /// fsync(2) of a file.
    pub fn sync(&self, file: &OwnedFd) -> io::Result<()> {
        Ok(self.fsync(file.as_fd())?)
    }

    /// fdatasync(2) of a file.
    pub fn sync_data(&self, file: &OwnedFd) -> io::Result<()> {
        Ok(self.fdatasync(file.as_fd())?)
    }

    /// fsync(2) of the directory.
    pub fn sync_directory(&self) -> io::Result<()> {
        Ok(self.live().sync(Sync::Directory)?)
    }

    /// Gives a file a name, which must not exist. linkat(2).
    pub fn link(&self, file: &OwnedFd, name: &str) -> io::Result<()> {
        let inode = self.file(file.as_fd()).ok_or(Errno::BADF)?;
        Ok(self.live().link(inode, OsStr::new(name))?)
    }

    /// Renames, over what has the name. renameat(2).
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(self.live().rename(OsStr::new(from), OsStr::new(to), true)?)
    }

    /// Exchanges what two names lead to. renameat2(2), `RENAME_EXCHANGE`.
    pub fn exchange(&self, one: &str, other: &str) -> io::Result<()> {
        Ok(self.live().exchange(OsStr::new(one), OsStr::new(other))?)
    }

    /// Takes a name away. unlinkat(2).
    pub fn unlink(&self, name: &str) -> io::Result<()> {
        Ok(self.live().unlink(OsStr::new(name))?)
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, of: BorrowedFd<'_>) -> Option<Inode> {
        match self.live().object(of)? {
            Object::File(inode) => Some(inode),
            Object::Directory => None,
        }
    }

    fn is_directory(&self, of: BorrowedFd<'_>) -> bool {
        self.live().object(of) == Some(Object::Directory)
    }

    /// The name in the directory that a path is, if it is one of the model's.
    fn name_of<'a>(&self, path: &'a Path) -> Option<&'a OsStr> {
        path.file_name().filter(|_| path.parent() == Some(&self.path))
    }

    fn report(&self, file: BorrowedFd<'_>, path: &Path) -> daxmap::Result<Report> {
        // What does not depend on the file costs more to find out than all the rest.
        static MEMORY: OnceLock<Report> = OnceLock::new();
        let memory = match MEMORY.get() {
            Some(report) => report,
            None => MEMORY.get_or_init({
                let (report, _) = kernel::look(file, path)?;
                || report
            }),
        };
        let mut report = memory.clone();
        path.clone_into(&mut report.path);
        report.filesystem = Some(format!("model of {}", self.profile().as_str()));
        report.backend = Backend::PageCache;
        report.durability = Durability::Fsync;
        report.granularity = Granularity::Page;
        report.reasons.clear();
        Ok(report)
    }
}

impl Calls for Model {
    fn open(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        if path == self.path {
            return self.live().open_directory();
        }
        match self.name_of(path) {
            Some(name) => self.live().open(name, flags),
            None => kernel::open(path, flags, mode),
        }
    }

    fn openat(
        &self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd> {
        if !self.is_directory(directory) {
            return kernel::openat(directory, name, flags, mode);
        }
        if flags.contains(OFlags::TMPFILE) {
            if self.live().lacks(Feature::UnnamedFiles) {
                return Err(Errno::OPNOTSUPP);
            }
            self.live().create(None, mode)
        } else if flags.contains(OFlags::CREATE) {
            self.live().create(Some(name), mode)
        } else {
            self.live().open(name, flags)
        }
    }

    fn stat(&self, path: &Path) -> Result<Stat> {
        let Some(name) = self.name_of(path) else { return kernel::stat(path) };
        let live = self.live();
        live.stat(live.find(name)?)
    }

    fn statat(&self, directory: BorrowedFd<'_>, name: &OsStr) -> Result<Stat> {
        if !self.is_directory(directory) {
            return kernel::statat(directory, name);
        }
        let live = self.live();
        live.stat(live.find(name)?)
    }

    fn fstat(&self, file: BorrowedFd<'_>) -> Result<Stat> {
        match self.file(file) {
            Some(inode) => self.live().stat(inode),
            None => kernel::fstat(file),
        }
    }

    fn each_name(&self, directory: BorrowedFd<'_>, each: &mut dyn FnMut(&CStr)) -> Result<()> {
        if !self.is_directory(directory) {
            return kernel::each_name(directory, each);
        }
        let names = self.live().names();
        for name in names {
            each(&CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?);
        }
        Ok(())
    }

    fn look(&self, file: BorrowedFd<'_>, path: &Path) -> daxmap::Result<(Report, Quirks)> {
        match self.file(file) {
            Some(_) => Ok((self.report(file, path)?, self.live().disguise().quirks())),
            None => kernel::look(file, path),
        }
    }

    fn glance(
        &self,
        file: BorrowedFd<'_>,
        path: &Path,
    ) -> daxmap::Result<(Report, Quirks, Option<Seen>)> {
        match self.file(file) {
            Some(_) => self.look(file, path).map(|(report, quirks)| (report, quirks, None)),
            None => kernel::glance(file, path),
        }
    }

    fn fallocate(&self, file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<()> {
        match self.file(file) {
            Some(inode) => self.live().allocate(inode, offset, len),
            None => kernel::fallocate(file, offset, len),
        }
    }

    fn room(&self, file: BorrowedFd<'_>) -> Result<u64> {
        match self.file(file) {
            Some(_) => Ok(u64::MAX),
            None => kernel::room(file),
        }
    }

    fn syncfs(&self, file: BorrowedFd<'_>) -> Result<()> {
        match self.file(file) {
            Some(_) => self.live().sync_all(),
            None => kernel::syncfs(file),
        }
    }

    fn ftruncate(&self, file: BorrowedFd<'_>, len: u64) -> Result<()> {
        match self.file(file) {
            Some(inode) => self.live().truncate(inode, len),
            None => kernel::ftruncate(file, len),
        }
    }

    fn pwrite(&self, file: BorrowedFd<'_>, data: &[u8], offset: u64) -> Result<usize> {
        match self.file(file) {
            Some(inode) => self.live().write(inode, &[data], offset),
            None => kernel::pwrite(file, data, offset),
        }
    }

    fn pwritev(&self, file: BorrowedFd<'_>, data: &[IoSlice<'_>], offset: u64) -> Result<usize> {
        let Some(inode) = self.file(file) else { return kernel::pwritev(file, data, offset) };
        let parts: Vec<&[u8]> = data.iter().map(|part| &**part).collect();
        self.live().write(inode, &parts, offset)
    }

    fn fchmod(&self, file: BorrowedFd<'_>, mode: Mode) -> Result<()> {
        match self.file(file) {
            Some(inode) => self.live().change_mode(inode, mode),
            None => kernel::fchmod(file, mode),
        }
    }

    fn unwritten(&self, file: BorrowedFd<'_>, len: u64) -> Result<Vec<Range<u64>>> {
        match self.file(file) {
            Some(inode) => Ok(self.live().unwritten(inode, len)),
            None => kernel::unwritten(file, len),
        }
    }

    fn fdatasync(&self, file: BorrowedFd<'_>) -> Result<()> {
        match self.file(file) {
            Some(inode) => self.live().sync(Sync::Data(inode)),
            None => kernel::fdatasync(file),
        }
    }

    fn fsync(&self, file: BorrowedFd<'_>) -> Result<()> {
        match self.file(file) {
            Some(inode) => self.live().sync(Sync::File(inode)),
            None => kernel::fsync(file),
        }
    }

    fn fsync_directory(&self, directory: BorrowedFd<'_>) -> Result<()> {
        if self.is_directory(directory) {
            self.live().sync(Sync::Directory)
        } else {
            kernel::fsync_directory(directory)
        }
    }

    /// A model drops what it is told to drop.
    fn cached_pages(&self, file: BorrowedFd<'_>) -> Result<u64> {
        if self.file(file).is_some() { Ok(0) } else { kernel::cached_pages(file) }
    }

    fn forget_cached(&self, file: BorrowedFd<'_>) -> Result<()> {
        match self.file(file) {
            Some(inode) => self.live().forget_cached(inode),
            None => kernel::forget_cached(file),
        }
    }

    fn link_open(
        &self,
        file: BorrowedFd<'_>,
        directory: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<()> {
        match self.file(file) {
            Some(inode) if self.is_directory(directory) => self.live().link(inode, name),
            None if !self.is_directory(directory) => kernel::link_open(file, directory, name),
            _ => Err(Errno::XDEV),
        }
    }

    fn can_link_open(&self, file: BorrowedFd<'_>, directory: BorrowedFd<'_>) -> bool {
        match self.file(file) {
            Some(_) => self.is_directory(directory),
            None => kernel::can_link_open(file, directory),
        }
    }

    fn linkat(&self, directory: BorrowedFd<'_>, from: &OsStr, to: &OsStr) -> Result<()> {
        if !self.is_directory(directory) {
            return kernel::linkat(directory, from, to);
        }
        let mut live = self.live();
        let inode = live.find(from)?;
        live.link(inode, to)
    }

    fn renameat(&self, directory: BorrowedFd<'_>, from: &OsStr, to: &OsStr) -> Result<()> {
        if self.is_directory(directory) {
            self.live().rename(from, to, true)
        } else {
            kernel::renameat(directory, from, to)
        }
    }

    fn renameat2(
        &self,
        directory: BorrowedFd<'_>,
        from: &OsStr,
        to: &OsStr,
        flags: RenameFlags,
    ) -> Result<()> {
        if !self.is_directory(directory) {
            return kernel::renameat2(directory, from, to, flags);
        }
        if self.live().lacks(Feature::RenameFlags) {
            Err(Errno::INVAL)
        } else if flags.contains(RenameFlags::EXCHANGE) {
            self.live().exchange(from, to)
        } else {
            self.live().rename(from, to, !flags.contains(RenameFlags::NOREPLACE))
        }
    }

    fn unlinkat(&self, directory: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        if self.is_directory(directory) {
            self.live().unlink(name)
        } else {
            kernel::unlinkat(directory, name)
        }
    }
}
