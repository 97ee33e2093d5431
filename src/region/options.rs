//! What can be asked of a region that is opened or created. `opening` has how it is found or made,
//! `backend` what lies under it and how it is mapped.

mod backend;
mod opening;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::fs::{self, FlockOperation, Mode};

use super::lock::Lock;
use super::observer::{Observer, Synced};
use crate::durability::Durability;

pub(super) use backend::Plan;

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
    /// `None`: as the mark says that the last region left.
    keep_cache: Option<bool>,
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
            keep_cache: None,
            gather: true,
            strict_attributes: false,
            observer: None,
            holds_something: false,
        }
    }

    /// Length in bytes of a region that is created; 0 is a length too. An existing file keeps its length: the region
    /// is as long as the file, and opening fails with [`ErrorKind::TooShort`](crate::ErrorKind::TooShort) if that is less than
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
    /// [`ErrorKind::Durability`](crate::ErrorKind::Durability), which says why and what to change, and no file is made.
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
    /// [`ErrorKind::Locked`](crate::ErrorKind::Locked). Default: [`Lock::Exclusive`] for a region that is written,
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
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): on btrfs, which takes new space at every overwrite, and where
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

    /// Keep what the page cache has of an existing file, or drop it and read the file anew, when it is
    /// opened for writing. Default: **kept** where the region before this one was
    /// [closed](crate::Region::close) without an error, with the exclusive [lock](Self::lock), since
    /// the kernel started, and the file has not been written since; **dropped** otherwise. Has no
    /// effect on persistent memory and memory-backed files.
    ///
    /// - By default a region shows what the medium holds. What closes it leaves says so in an extended
    ///   attribute of the file, `user.daxmap.closed`. A write by another program shows in the file's
    ///   times, before Linux 6.13 only if it came a clock tick (4 ms) later. What this hides: a medium
    ///   that has lost what it had. Reads find that out once the cache is gone.
    /// - `false`: the first read of each page is a read of the device, and finds what it holds. Pages that
    ///   others have mapped stay: see [`open`](Self::open).
    /// - `true`: after a failed sync, by whomever, the region may show bytes that the medium has not, no
    ///   drain writes them, and a power loss takes them. Where there is no mark and anything is cached,
    ///   the level is at most [`Durability::Unverified`], and
    ///   [`shows_medium`](crate::AnyRegion::shows_medium) is false.
    #[must_use]
    pub const fn keep_cache(mut self, yes: bool) -> Self {
        self.keep_cache = Some(yes);
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
}
