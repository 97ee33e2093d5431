//! Every filesystem without `MAP_SYNC`: `pwrite`, one `fdatasync` per drain, reads from a
//! mapping.
//!
//! Why not stores into a writable mapping: ext4 and xfs keep file data in large folios, and a
//! store through a shared writable mapping dirties the whole folio. Persisting 64 bytes then
//! wrote 1,024 KiB to the device; `pwrite` and `fdatasync` wrote 4 KiB.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use super::bounds;
use super::contract::Region;
use super::descriptor::Descriptor;
use super::kernel_copy;
use super::latch::Latch;
use super::mapping::{Mapping, page_size};
use super::options::Plan;
use super::storage;
use crate::cpu::Fault;
use crate::durability::{Backend, Durability, Granularity};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::probe::Report;

/// A region that writes with `pwrite`, drains with `fdatasync` and reads through a mapping.
pub struct PageCacheRegion {
    path: PathBuf,
    fd: Descriptor,
    mapping: Mapping,
    read_only: bool,
    guarded: bool,
    durability: Durability,
    len: AtomicU64,
    latch: Latch,
    /// Odd while a write is in progress; half of it is the number of finished writes. Readers
    /// use it to notice a write that ran meanwhile, drains to know what a sync covers.
    sequence: AtomicU64,
    writing: Mutex<()>,
    /// Finished writes that a sync has covered.
    synced: Mutex<u64>,
    growing: Mutex<()>,
}

impl std::fmt::Debug for PageCacheRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageCacheRegion")
            .field("path", &self.path)
            .field("len", &self.len.load(Ordering::Relaxed))
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

/// A mutex whose data stays consistent when a holder panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often a read is repeated because a write ran meanwhile, before it waits for the writer.
const OPTIMISTIC_READS: u32 = 3;

/// What mapping settles.
pub(super) struct Parts {
    mapping: Mapping,
    len: u64,
    read_only: bool,
    guarded: bool,
    durability: Durability,
}

pub(super) fn map(plan: &Plan, fd: BorrowedFd<'_>, report: &Report) -> Result<Parts> {
    let failed = |errno| Error::os(Operation::Map, "mmap", errno);
    let mapping = if plan.read_only {
        Mapping::adopt(read_mapping(fd, plan.len).map_err(failed)?, plan.guard)
    } else {
        let mapping = Mapping::reserve(&plan.reserve, page_size(), plan.guard).map_err(failed)?;
        let to = (plan.len as usize).next_multiple_of(page_size());
        mapping.map(fd, 0, to, ProtFlags::READ, MapFlags::SHARED).map_err(failed)?;
        mapping
    };
    Ok(Parts {
        mapping,
        len: plan.len,
        read_only: plan.read_only,
        guarded: plan.guard,
        durability: report.durability,
    })
}

impl PageCacheRegion {
    pub(super) fn new(path: PathBuf, fd: OwnedFd, parts: Parts) -> Self {
        let fd = Descriptor::new(fd);
        let Parts { mapping, len, read_only, guarded, durability } = parts;
        Self {
            path,
            fd,
            mapping,
            read_only,
            guarded,
            durability,
            len: AtomicU64::new(len),
            latch: Latch::new(),
            sequence: AtomicU64::new(0),
            writing: Mutex::new(()),
            synced: Mutex::new(0),
            growing: Mutex::new(()),
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    #[inline]
    fn range(&self, operation: Operation, offset: u64, len: u64) -> Result<(usize, usize)> {
        bounds::check(operation, offset, len, self.len()).map_err(|e| e.at(&self.path))
    }

    fn word(&self, operation: Operation, offset: u64) -> Result<usize> {
        bounds::check_word(operation, offset, self.len()).map_err(|e| e.at(&self.path))
    }

    fn check_writable(&self, operation: Operation) -> Result<()> {
        if self.read_only {
            return Err(Error::new(operation, ErrorKind::ReadOnly).at(&self.path));
        }
        self.latch.check(operation).map_err(|e| e.at(&self.path))
    }

    fn check_readable(&self, operation: Operation) -> Result<()> {
        self.latch.check_readable(operation).map_err(|e| e.at(&self.path))
    }

    /// One copy out of the page cache.
    #[inline]
    fn copy_out(&self, at: usize, buf: &mut [u8]) -> std::result::Result<(), ErrorKind> {
        if self.guarded {
            return self.mapping.read(at, buf).map_err(|Fault| ErrorKind::Gone);
        }
        kernel_copy::read_file(self.fd.as_fd(), at as u64, buf).map_err(|Fault| ErrorKind::Gone)
    }

    /// Runs `copy` such that no write of this region runs at the same time: a kernel copies in
    /// pieces of its own choice, so a word could be seen torn.
    #[inline]
    fn undisturbed<T>(&self, mut copy: impl FnMut() -> T) -> T {
        for _ in 0..OPTIMISTIC_READS {
            let before = self.sequence.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let result = copy();
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return result;
                }
            }
        }
        let _writing = lock(&self.writing);
        copy()
    }

    /// Writes with the write lock held.
    fn write_locked(&self, operation: Operation, at: u64, data: &[u8]) -> Result<()> {
        self.sequence.fetch_add(1, Ordering::AcqRel);
        let written = kernel_copy::write_file(self.fd.as_fd(), at, data);
        self.sequence.fetch_add(1, Ordering::AcqRel);
        written.map_err(|errno| {
            Error::os(operation, "pwrite", errno).at(&self.path).over(at, data.len() as u64)
        })
    }

    /// The file must still be as long as the region: a `pwrite` past a truncation would succeed
    /// and leave a hole where data was.
    fn check_length(&self) -> Result<()> {
        let len = self.len();
        let found = fs::fstat(&self.fd)
            .map_err(|errno| Error::os(Operation::Drain, "fstat", errno).at(&self.path))?
            .st_size
            .cast_unsigned();
        if found < len {
            return Err(Error::new(Operation::Drain, ErrorKind::Gone)
                .at(&self.path)
                .over(found, len - found));
        }
        Ok(())
    }

    /// One `fdatasync` for all threads that wait: whoever finds that a sync which began after
    /// its last write has finished returns without one of its own.
    fn sync(&self) -> Result<()> {
        let mine = self.sequence.load(Ordering::Acquire) / 2;
        let mut synced = lock(&self.synced);
        self.latch.check(Operation::Drain).map_err(|e| e.at(&self.path))?;
        if *synced >= mine {
            return Ok(());
        }
        let covers = self.sequence.load(Ordering::Acquire) / 2;
        self.check_length().map_err(|error| self.latch.poison(error))?;
        // Not repeated after EINTR: whether an error was reported and cleared is unknown.
        fs::fdatasync(&self.fd).map_err(|errno| {
            let error = Error::os(Operation::Drain, "fdatasync", errno).at(&self.path);
            self.latch.poison(error.over(0, self.len()))
        })?;
        *synced = covers;
        Ok(())
    }
}

fn read_mapping(fd: BorrowedFd<'_>, len: u64) -> std::result::Result<memmap2::Mmap, Errno> {
    // SAFETY: the mapping is only accessed through `Mapping`, which never makes a reference to
    // its bytes; what other processes do to the file is a matter of its guarded copies.
    #[allow(unsafe_code)]
    unsafe { memmap2::MmapOptions::new().len(len as usize).map(fd.as_raw_fd()) }
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
}

impl Region for PageCacheRegion {
    #[inline]
    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn granularity(&self) -> Granularity {
        Granularity::Page
    }

    fn backend(&self) -> Backend {
        Backend::PageCache
    }

    fn is_emulated(&self) -> bool {
        false
    }

    #[inline]
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check_readable(Operation::Read)?;
        let len = buf.len() as u64;
        let (at, _) = self.range(Operation::Read, offset, len)?;
        self.undisturbed(|| self.copy_out(at, buf))
            .map_err(|kind| Error::new(Operation::Read, kind).at(&self.path).over(offset, len))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.check_writable(Operation::Write)?;
        self.range(Operation::Write, offset, data.len() as u64)?;
        if data.is_empty() {
            return Ok(());
        }
        let _writing = lock(&self.writing);
        self.write_locked(Operation::Write, offset, data)
    }

    fn fill_flush(&self, offset: u64, len: u64, byte: u8) -> Result<()> {
        self.check_writable(Operation::Write)?;
        self.range(Operation::Write, offset, len)?;
        let pattern = vec![byte; (len as usize).min(1 << 20)];
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(pattern.len() as u64);
            let _writing = lock(&self.writing);
            self.write_locked(Operation::Write, offset + done, &pattern[..piece as usize])?;
            done += piece;
        }
        Ok(())
    }

    fn flush(&self, offset: u64, len: u64) -> Result<()> {
        self.check_writable(Operation::Flush)?;
        self.range(Operation::Flush, offset, len)?;
        // The page cache knows what is dirty; `drain` syncs all of it.
        Ok(())
    }

    fn drain(&self) -> Result<()> {
        self.latch.check(Operation::Drain).map_err(|e| e.at(&self.path))?;
        if self.read_only { Ok(()) } else { self.sync() }
    }

    fn deep_flush(&self, offset: u64, len: u64) -> Result<()> {
        self.persist(offset, len)
    }

    fn load_u64(&self, offset: u64) -> Result<u64> {
        self.check_readable(Operation::Load)?;
        let at = self.word(Operation::Load, offset)?;
        let mut bytes = [0; 8];
        self.undisturbed(|| self.copy_out(at, &mut bytes))
            .map_err(|kind| Error::new(Operation::Load, kind).at(&self.path).over(offset, 8))?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn store_u64(&self, offset: u64, value: u64) -> Result<()> {
        self.check_writable(Operation::Store)?;
        self.word(Operation::Store, offset)?;
        let _writing = lock(&self.writing);
        self.write_locked(Operation::Store, offset, &value.to_ne_bytes())
    }

    fn compare_exchange_u64(
        &self,
        offset: u64,
        current: u64,
        new: u64,
    ) -> Result<std::result::Result<u64, u64>> {
        self.check_writable(Operation::CompareExchange)?;
        let at = self.word(Operation::CompareExchange, offset)?;
        let _writing = lock(&self.writing);
        let mut bytes = [0; 8];
        self.copy_out(at, &mut bytes).map_err(|kind| {
            Error::new(Operation::CompareExchange, kind).at(&self.path).over(offset, 8)
        })?;
        let found = u64::from_ne_bytes(bytes);
        if found != current {
            return Ok(Err(found));
        }
        self.write_locked(Operation::CompareExchange, offset, &new.to_ne_bytes())?;
        Ok(Ok(found))
    }

    #[allow(unsafe_code)]
    unsafe fn slice(&self, offset: u64, len: u64) -> Result<&[u8]> {
        self.check_readable(Operation::View)?;
        let (at, len) = self.range(Operation::View, offset, len)?;
        // SAFETY: the range is mapped for as long as self is borrowed, and the caller vouches
        // that nobody changes it meanwhile.
        Ok(unsafe { std::slice::from_raw_parts(self.mapping.at(at), len) })
    }

    #[allow(unsafe_code, clippy::mut_from_ref)]
    unsafe fn slice_mut(&self, offset: u64, len: u64) -> Result<&mut [u8]> {
        self.check_writable(Operation::View)?;
        self.range(Operation::View, offset, len)?;
        let why = "the page-cache backend writes with pwrite: a store through a mapping would \
                   dirty a whole large folio";
        Err(Error::new(Operation::View, ErrorKind::Unsupported(why))
            .at(&self.path)
            .over(offset, len))
    }

    fn grow(&self, new_len: u64) -> Result<()> {
        self.check_writable(Operation::Grow)?;
        let _growing = lock(&self.growing);
        let old_len = self.len();
        if new_len <= old_len {
            return Ok(());
        }
        let explain = |error: Error| error.at(&self.path).over(old_len, new_len - old_len);
        let max = self.mapping.capacity() as u64;
        if new_len > max {
            return Err(explain(Error::new(Operation::Grow, ErrorKind::TooLarge { max })));
        }
        let file_len = storage::extend(self.fd.as_fd(), old_len, new_len)
            .map_err(|error| self.latch.poison_by_sync(explain(error)))?;
        let from = (old_len as usize).next_multiple_of(page_size());
        let to = (new_len as usize).next_multiple_of(page_size());
        if let Err(errno) =
            self.mapping.map(self.fd.as_fd(), from, to, ProtFlags::READ, MapFlags::SHARED)
        {
            storage::shrink_back(self.fd.as_fd(), file_len);
            return Err(explain(Error::os(Operation::Grow, "mmap", errno)));
        }
        self.len.store(new_len, Ordering::Release);
        Ok(())
    }

    fn close(&self) -> Result<()> {
        let drained = if self.read_only {
            self.check_readable(Operation::Close)
        } else {
            self.drain().map_err(|error| error.during(Operation::Close))
        };
        self.latch.close();
        drained
    }
}

impl Drop for PageCacheRegion {
    fn drop(&mut self) {
        // Best effort; `close` reports. Nothing to do after `close` or an error.
        if !self.read_only {
            let _ = self.drain();
        }
    }
}
