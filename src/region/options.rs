//! How a region is opened and created.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{self, FlockOperation, MemfdFlags, Mode, OFlags};
use rustix::io::Errno;

use super::any::AnyRegion;
use super::calls;
use super::draft::Place;
use super::existing::Existing;
use super::ground::{self, Seen};
use super::identity::Driver;
use super::lock::Lock;
use super::observer::{Observer, Synced};
use super::quirks::{Quirks, overwrites_in_place};
use super::reopen::{self, Shows};
use super::reserve::Reserve;
use super::siblings::Membership;
use super::{devdax, fsdax, page_cache, storage, volatile};
use crate::durability::{Backend, Durability};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;
use crate::probe::{self, Report, Target};

/// Which persistent memory to imitate on DRAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Emulation {
    /// Lines are written back and fenced, as memory in the ADR domain needs it.
    Adr,
    /// Only the fence, as with caches in the persistence domain.
    Eadr,
}

/// How a region grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Growth {
    /// Zeros are written and synced: the first write to a new page costs what every other does.
    Zeroed,
    /// Space is reserved, and reads as zero (fallocate(2)). A full disk is still an error of growth.
    /// Growing by a gigabyte takes a moment, and the first write to each new block changes metadata,
    /// which the next drain writes too. Refused where `MAP_SYNC` maps the file: each first store to a
    /// page would wait for the filesystem's journal. Where the filesystem reserves no space, zeros are
    /// written.
    Allocated,
}

/// Options and flags for opening a region.
///
/// ```no_run
/// # fn main() -> daxmap::Result<()> {
/// use daxmap::{Durability, Options, Region};
///
/// let region = Options::new()
///     .len(64 << 20)
///     .require(Durability::Fsync)
///     .open_or_create("/var/lib/engine/wal")?;
/// region.write_persist(0, b"committed")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // independent switches
pub struct Options {
    len: Option<u64>,
    view: Option<u64>,
    max_len: Option<u64>,
    mode: u32,
    require: Option<Durability>,
    emulate: Option<Emulation>,
    read_only: bool,
    lock: Option<Lock>,
    lock_patience: Duration,
    growth: Growth,
    fault_guard: bool,
    writable_mapping: bool,
    gather: bool,
    strict_attributes: bool,
    observer: Option<Observer>,
    /// An empty file is refused.
    holds_something: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// Read and write, mode 0600 less the umask, locked, guarded, no required level.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            len: None,
            view: None,
            max_len: None,
            mode: 0o600,
            require: None,
            emulate: None,
            read_only: false,
            lock: None,
            lock_patience: Duration::ZERO,
            growth: Growth::Zeroed,
            fault_guard: true,
            writable_mapping: false,
            gather: true,
            strict_attributes: false,
            observer: None,
            holds_something: false,
        }
    }

    /// Length in bytes of a region that is created; 0 is a length too. An existing file keeps its length: the region
    /// is as long as the file, and opening fails with [`ErrorKind::TooShort`] if that is less than
    /// `bytes`. To have a shorter file made longer, open it without `len` and
    /// [grow](crate::Region::grow) it.
    #[must_use]
    pub const fn len(mut self, bytes: u64) -> Self {
        self.len = Some(bytes);
        self
    }

    /// Open only the first `bytes` of an existing file. What lies behind them stays as it is: such
    /// a region does not [grow](crate::Region::grow), but can be made as long as its file
    /// ([`grow_to_file`](crate::Region::grow_to_file)). Without effect on a file that is created.
    /// Default: the whole file.
    #[must_use]
    pub const fn view(mut self, bytes: u64) -> Self {
        self.view = Some(bytes);
        self
    }

    /// The length up to which the region can grow, in bytes. Reserves address space, no memory.
    /// Default: [`DEFAULT_RESERVE`](crate::DEFAULT_RESERVE), and less for each of very many regions.
    #[must_use]
    pub const fn max_len(mut self, bytes: u64) -> Self {
        self.max_len = Some(bytes);
        self
    }

    /// Permission bits of a file that is created, less the umask. Default: `0o600`.
    #[must_use]
    pub const fn mode(mut self, bits: u32) -> Self {
        self.mode = bits;
        self
    }

    /// The level that the region must give at least. If it cannot, opening fails with
    /// [`ErrorKind::Durability`], which says why and what to change, and no file is made.
    #[must_use]
    pub const fn require(mut self, level: Durability) -> Self {
        self.require = Some(level);
        self
    }

    /// Imitate persistent memory on DRAM: the file must be memory-backed (tmpfs, memfd). The
    /// region calls itself emulated, and nothing in it survives the kernel.
    #[must_use]
    pub const fn emulate(mut self, memory: Emulation) -> Self {
        self.emulate = Some(memory);
        self
    }

    /// Open for reading only: nothing can be written, and no lock is taken unless
    /// [`lock`](Self::lock) asks for one. Default: false.
    #[must_use]
    pub const fn read_only(mut self, yes: bool) -> Self {
        self.read_only = yes;
        self
    }

    /// The advisory lock (flock(2)) that the region takes when it is opened, and holds until it is
    /// dropped. Who cannot have it, in this process or another, is refused with
    /// [`ErrorKind::Locked`]. Default: [`Lock::Exclusive`] for a region that is written,
    /// [`Lock::None`] for one that is read. `true` stands for the one, `false` for the other.
    ///
    /// With less than the exclusive lock, others may write the file at the same time, and the region
    /// cannot always know what the medium holds: see [`open`](Self::open).
    #[must_use]
    pub fn lock(mut self, how: impl Into<Lock>) -> Self {
        self.lock = Some(how.into());
        self
    }

    /// How long opening waits for a lock that another has. Default: not at all.
    #[must_use]
    pub const fn lock_timeout(mut self, patience: Duration) -> Self {
        self.lock_patience = patience;
        self
    }

    /// What [`grow`](crate::Region::grow) does with the space that it adds. Default:
    /// [`Growth::Zeroed`].
    #[must_use]
    pub const fn growth(mut self, how: Growth) -> Self {
        self.growth = how;
        self
    }

    /// Install a SIGBUS handler, once per process, so that a page that is gone is an error. It
    /// acts only on faults inside this library's copies and passes everything else on. A thread
    /// that blocks SIGBUS is killed by a page that is gone all the same (signal(7)).
    /// Default: true.
    ///
    /// Without it, reads and writes of mapped memory go through the kernel
    /// (process_vm_readv(2), some 200 ns each), or through pread(2) on the page cache. Flushes and word
    /// accesses ask the kernel for the page first; if it vanishes between question and access,
    /// the process gets the SIGBUS.
    #[must_use]
    pub const fn fault_guard(mut self, yes: bool) -> Self {
        self.fault_guard = yes;
        self
    }

    /// Let [`Region::slice_mut`](crate::Region::slice_mut) lend out the file's memory on
    /// filesystems without `MAP_SYNC` too, for code that must store through a pointer. Default:
    /// false, since its price is paid by everybody: a kernel that keeps the file in large folios
    /// would write a megabyte for each byte stored. Where there is `MAP_SYNC`, and on
    /// memory-backed files, nothing changes.
    ///
    /// With it the file is kept in small folios: what is cached is dropped at open, faults read
    /// single pages (MADV_RANDOM), and the region's own writes go page by page. One changed page
    /// then costs one page at the device, but the first access to each page costs a read from the
    /// device without read-ahead, and after every drain the first store to each page it cleaned a
    /// page fault. Where others have the file mapped or read it, the kernel may have large folios
    /// all the same.
    ///
    /// The space for every page is allocated at open, and shared extents are made the file's own,
    /// so that a full disk is an error of open and not a SIGBUS at a store. (Holes become allocated
    /// blocks; no byte and no length changes.) Where that cannot be had, opening is refused with
    /// [`ErrorKind::Unsupported`]: on btrfs, which takes new space at every overwrite, and where
    /// fallocate(2) does not allocate, as on ext2 and ext3.
    ///
    /// What no library can keep away from a pointer: a store is a SIGBUS if the page cannot be read
    /// from the device, if the filesystem has shut down, or if somebody cuts the file, punches a
    /// hole into it, or clones it (a reflink, a snapshot) and then fills the disk.
    ///
    /// Small writes to such a file are not gathered but sent at once, so that none comes after a
    /// store that was made after it. A store counts as written with the
    /// [`flush`](crate::Region::flush) of its range. A power
    /// cut may leave any 512-byte sector of a page stored into as it was at any time since the
    /// drain before, flushed or not: the kernel writes pages back when it likes.
    #[must_use]
    pub const fn writable_mapping(mut self, yes: bool) -> Self {
        self.writable_mapping = yes;
        self
    }

    /// Keep small writes that touch each other in this process until they are
    /// [sent](crate::Region::send) or drained, and send them to the file as one. Default: true.
    /// With false, each write is a system call, and other processes that read the file see it at
    /// once. Where the region is a shared mapping, they do in any case. On filesystems whose inode
    /// numbers do not tell files apart (overlay, FUSE, network, exfat and vfat) nothing is kept back.
    #[must_use]
    pub const fn gather(mut self, yes: bool) -> Self {
        self.gather = yes;
        self
    }

    /// Who is told of each sync of the region: how long it took, how many bytes the region had sent, how
    /// many threads waited. Default: **nobody**, and then nothing is measured. Where a drain is a fence,
    /// there is no sync, and nobody is told.
    ///
    /// It is called on the thread that made the sync, once all who waited may go on; what it does takes
    /// that thread's time. If it panics, so does the call that synced. The syncs by which a region
    /// is opened, created and grown are not told.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use daxmap::{Options, Region};
    ///
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("wal");
    /// let micros = Arc::new(AtomicU64::new(0));
    /// let total = Arc::clone(&micros);
    /// let region = Options::new()
    ///     .len(1 << 20)
    ///     .observer(move |sync| {
    ///         total.fetch_add(sync.took.as_micros() as u64, Ordering::Relaxed);
    ///     })
    ///     .create(&path)?;
    /// region.write_persist(0, b"a record")?;
    /// println!("{} us in fdatasync", micros.load(Ordering::Relaxed));
    /// # Ok::<(), daxmap::Error>(())
    /// ```
    #[must_use]
    pub fn observer(mut self, told: impl Fn(&Synced) + Send + Sync + 'static) -> Self {
        self.observer = Some(Observer::new(told));
        self
    }

    /// Who is told of syncs.
    pub(super) fn observes(&self) -> Option<Observer> {
        self.observer.clone()
    }

    /// For an existing file of a format that knows how long it is: any length will do but 0.
    pub(crate) fn for_any_length(&self) -> Self {
        Self { len: None, view: None, holds_something: true, ..self.clone() }
    }

    /// Let [`draft`](Self::draft) fail with the first attribute of the file in place that the new
    /// file cannot have, and [`commit`](crate::publish::Draft::commit) likewise if the file in place
    /// has changed. Default: **false**, replacing does what it can, and
    /// [`Draft::not_kept`](crate::publish::Draft::not_kept) lists the rest.
    #[must_use]
    pub const fn strict_attributes(mut self, yes: bool) -> Self {
        self.strict_attributes = yes;
        self
    }

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
    /// pages are dropped. Pages that stay, since another process has them mapped, are written once
    /// more with what they show; that needs the [lock](Self::lock). Without the lock the level is
    /// then at most [`Durability::Unverified`], with the reason. A region opened read-only may show
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

    fn creation_len(&self) -> Result<u64> {
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
        primitive!("create.extend", storage::extend(fd.as_fd(), 0, len), Ok(0))?;
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

    /// What lies under a draft, which is locked and empty, and whether that is enough. Gives it a
    /// temporary name where it needs one to be synced.
    pub(crate) fn survey_draft(
        &self,
        path: &Path,
        place: &mut Place,
        fd: BorrowedFd<'_>,
    ) -> Result<(Report, Quirks, Option<Seen>)> {
        self.creation_len()?;
        let (report, quirks, seen) = calls::glance(fd, path)?;
        match &seen {
            Some(seen) => check_driver(seen.driver())?,
            None => check_unit(fd)?,
        }
        self.check_level(&report)?;
        self.check_storable(&report)?;
        if primitive!("publish.named_when_synced", quirks.no_journal, false) {
            place.name_temporarily(fd)?;
        }
        Ok((report, quirks, seen))
    }

    /// Makes the region of a draft: allocated and mapped, not synced, and not written where
    /// [`unwritten`](super::unwritten) can tell later.
    pub(crate) fn attach_draft(
        &self,
        path: &Path,
        fd: OwnedFd,
        mut report: Report,
        seen: Option<&Seen>,
    ) -> Result<AnyRegion> {
        let len = self.creation_len()?;
        if report.backend == Backend::PageCache && !self.writable_mapping {
            let known = seen.is_some_and(Seen::tells_unwritten);
            let told = storage::reserve(fd.as_fd(), len, known)?;
            if let Some(seen) = seen.filter(|_| told && !known) {
                seen.has_told_unwritten();
            }
        } else {
            storage::extend(fd.as_fd(), 0, len)?;
            // Once more, now that there are extents to look at.
            report = calls::look(fd.as_fd(), path)?.0;
        }
        self.attach_seen(path, fd, len, report, seen)
    }

    /// Makes an empty file hold these bytes, durably.
    pub(crate) fn fill(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
        storage::fill(fd, bytes)
    }

    /// Whether pages that are gone are errors.
    pub(super) fn guards(&self) -> bool {
        self.fault_guard
    }

    /// Whether memory is imitated.
    pub(crate) fn emulates(&self) -> bool {
        self.emulate.is_some()
    }

    /// Whether a draft must have all that the file in place has.
    pub(crate) fn is_strict(&self) -> bool {
        self.strict_attributes
    }

    /// Whether the file must be locked.
    pub(crate) fn locks(&self) -> bool {
        self.lock_wanted() != Lock::None
    }

    fn lock_wanted(&self) -> Lock {
        let usual = if self.read_only { Lock::None } else { Lock::Exclusive };
        self.lock.unwrap_or(usual)
    }

    /// Permission bits of a new file.
    pub(crate) fn file_mode(&self) -> Mode {
        Mode::from_raw_mode(self.mode & 0o7777)
    }

    /// Gives up the exclusive lock that every file under construction has, as far as it was not
    /// asked for.
    pub(crate) fn settle_lock(&self, fd: BorrowedFd<'_>) {
        let settled = match self.lock_wanted() {
            Lock::Exclusive => return,
            Lock::Shared => FlockOperation::NonBlockingLockShared,
            Lock::None => FlockOperation::NonBlockingUnlock,
        };
        let _ = fs::flock(fd, settled);
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
        if self.read_only {
            // A reader drops nothing: others are at work.
            let cached = calls::cached_pages(fd);
            return Ok(if cached == Ok(0) { Shows::Medium } else { Shows::Cache });
        }
        let shows = reopen::read_anew(fd, len, self.lock_wanted() == Lock::Exclusive)?;
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

    /// What lies under the file, and whether that is enough.
    fn judge(&self, fd: BorrowedFd<'_>, path: &Path) -> Result<(Report, Quirks)> {
        let (report, quirks) = calls::look(fd, path)?;
        // Before the level: a level that is not there is not what is wrong with a device.
        if !matches!(report.target, Target::File | Target::DaxDevice) {
            let what = "a device that is not device DAX";
            return Err(Error::new(Operation::Open, ErrorKind::WrongFileType(what)));
        }
        check_unit(fd)?;
        self.check_level(&report)?;
        self.check_storable(&report)?;
        Ok((report, quirks))
    }

    /// Before anything is written: a writable mapping is not for every filesystem.
    fn check_storable(&self, report: &Report) -> Result<()> {
        let asked = self.writable_mapping && !self.read_only;
        if asked
            && report.backend == Backend::PageCache
            && primitive!("open.in_place", !overwrites_in_place(report), false)
        {
            let why = "a writable mapping here: a store would take new space, and a full disk would \
                       be a SIGBUS";
            return Err(Error::new(Operation::Map, ErrorKind::Unsupported(why)));
        }
        Ok(())
    }

    pub(super) fn check_level(&self, report: &Report) -> Result<()> {
        let available = self.level(report);
        match self.require {
            Some(required) if available < required => {
                let reasons = report.reasons_below(required);
                let kind = ErrorKind::Durability { required, available, reasons };
                Err(Error::new(Operation::Open, kind))
            }
            _ => Ok(()),
        }
    }

    /// Lowers the level of a file whose directory cannot be synced. An error if it is below the
    /// required one then.
    pub(crate) fn without_directory_sync(&self, report: &mut Report) -> Result<()> {
        ground::without_directory_sync(report);
        self.check_level(report)
    }

    fn level(&self, report: &Report) -> Durability {
        if self.emulate.is_some() { Durability::ProcessOnly } else { report.durability }
    }

    fn attach(&self, path: &Path, fd: OwnedFd, len: u64, report: Report) -> Result<AnyRegion> {
        self.attach_seen(path, fd, len, report, None)
    }

    fn attach_seen(
        &self,
        path: &Path,
        fd: OwnedFd,
        len: u64,
        report: Report,
        seen: Option<&Seen>,
    ) -> Result<AnyRegion> {
        Ok(self.prepare(path, fd.as_fd(), len, &report, seen)?.finish(path, fd, report))
    }

    /// Maps the file as its backend does it.
    fn prepare(
        &self,
        path: &Path,
        fd: BorrowedFd<'_>,
        len: u64,
        report: &Report,
        seen: Option<&Seen>,
    ) -> Result<Ready> {
        let exact = len as usize;
        let reserve = match self.max_len {
            _ if self.read_only => Reserve::exactly(exact),
            Some(max_len) => Reserve::exactly(max_len as usize),
            None => Reserve::to_grow(exact),
        };
        let plan = Plan {
            len,
            reserve,
            read_only: self.read_only,
            guard: self.fault_guard,
            emulate: self.emulate,
            writable_mapping: self.writable_mapping && !self.read_only,
            gather: self.gather,
            growth: self.growth,
            observer: self.observer.clone(),
        };
        if self.emulate.is_some() && report.backend != Backend::Volatile {
            let why = "emulation needs a memory-backed file: put it on tmpfs";
            return Err(Error::new(Operation::Open, ErrorKind::Unsupported(why)));
        }
        if self.growth == Growth::Allocated && report.backend == Backend::FsDax {
            let why = "growth without writing zeros where MAP_SYNC maps the file: each first store to a \
                       page would wait for the filesystem's journal";
            return Err(Error::new(Operation::Open, ErrorKind::Unsupported(why)));
        }
        let map = || {
            let file = Membership::join(fd, seen)?;
            let ready = match report.backend {
                Backend::FsDax => Ready::Mapped(fsdax::map(&plan, fd, report)?, file),
                Backend::DevDax => Ready::Mapped(devdax::map(&plan, fd, report)?, file),
                Backend::Volatile => Ready::Mapped(volatile::map(&plan, fd)?, file),
                Backend::PageCache => Ready::PageCache(page_cache::map(&plan, fd, report)?, file),
            };
            if !self.read_only {
                ready.membership().announce(len);
            }
            Ok(ready)
        };
        map().map_err(|error: Error| error.at(path))
    }
}

/// Refuses files that the kernel maps in larger units than pages: it would make the mapping longer
/// than it was asked for, over whatever lies behind it.
fn check_unit(fd: BorrowedFd<'_>) -> Result<()> {
    check_driver(Driver::of(fd).map_err(|errno| Error::os(Operation::Open, "fstatfs", errno))?)
}

fn check_driver(driver: Driver) -> Result<()> {
    if driver.is_hugetlbfs() {
        let kind = ErrorKind::Unsupported(probe::HUGETLBFS);
        return Err(Error::new(Operation::Open, kind));
    }
    Ok(())
}

/// What a backend needs to know to map a file.
#[allow(clippy::struct_excessive_bools)] // independent switches
pub(super) struct Plan {
    pub(super) len: u64,
    pub(super) reserve: Reserve,
    pub(super) read_only: bool,
    pub(super) guard: bool,
    pub(super) emulate: Option<Emulation>,
    pub(super) writable_mapping: bool,
    pub(super) gather: bool,
    pub(super) growth: Growth,
    pub(super) observer: Option<Observer>,
}

/// A mapped file that still lacks its descriptor.
enum Ready {
    Mapped(super::mapped::Parts, Membership),
    PageCache(page_cache::Parts, Membership),
}

impl Ready {
    fn membership(&self) -> &Membership {
        match self {
            Self::Mapped(_, file) | Self::PageCache(_, file) => file,
        }
    }

    fn finish(self, path: &Path, fd: OwnedFd, report: Report) -> AnyRegion {
        match self {
            Self::Mapped(parts, file) => AnyRegion::mapped(path, fd, parts, file, report),
            Self::PageCache(parts, file) => AnyRegion::page_cache(path, fd, parts, file, report),
        }
    }
}
