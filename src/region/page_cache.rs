//! Every filesystem without `MAP_SYNC`: `pwrite`, one `fdatasync` per drain, reads from a
//! mapping.
//!
//! Why not stores into a writable mapping: ext4 and xfs keep file data in large folios, and a
//! store through a shared writable mapping dirties the whole folio. Persisting 64 bytes then
//! wrote 1,024 KiB to the device; `pwrite` and `fdatasync` wrote 4 KiB.
//!
//! # System calls
//!
//! | method | system calls |
//! |---|---|
//! | `read`, `load_u64` | none; `mmap` twice for the first of a draft; `pread` without the fault guard, or where a file cannot be mapped |
//! | `write`, `write_flush`, `store_u64` of at most 16 KiB | none if it touches the gathered run; else `pwrite` of the run |
//! | `write` of more | `pwrite` for each 256 KiB, after the same for a gathered run that it overlaps |
//! | `flush` | none; of more than 16 KiB while other threads drain too, `sync_file_range` |
//! | `write` with a writable mapping | `pwrite` for each page |
//! | `write_atomic` | `pwritev2` past the page cache, after a gathered run that it overlaps |
//! | `drain` | `pwrite` of a gathered run, `fdatasync`; none if another thread's covered it |
//!
//! Before a `pwrite` to the last page of the region, to a draft that nobody has read, without the fault
//! guard, and where a file cannot be mapped or a server may cut it, there is a `statx`: see [`writes`].

mod atomic;
mod draft;
mod open;
mod reads;
#[cfg(test)]
mod tests;
mod writes;

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use rustix::mm::MapFlags;

use super::bounds;
use super::clean;
use super::contract::{Region, joined, write_each};
use super::descriptor::{self, Descriptor};
use super::group::Group;
use super::growth::{self, End, Resize, Writers};
use super::identity;
use super::mapping::page_size;
use super::observer::Observer;
use super::options::Growth;
use super::siblings::Membership;
use super::storage;
use atomic::Direct;
use draft::Written;
use open::{How, View, access};
pub(super) use open::{Parts, map};

use crate::cpu::Fault;
use crate::durability::{Backend, Durability, Granularity};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;

/// A region that writes with `pwrite`, drains with `fdatasync` and reads through a mapping.
///
/// Small writes that touch each other are gathered in this process and sent to the file as one,
/// at the latest by `drain`. Every region of the file in this process sees them at once; other
/// processes see them when they are sent.
#[allow(clippy::struct_excessive_bools)] // independent facts
pub(super) struct PageCacheRegion {
    path: PathBuf,
    fd: Descriptor,
    /// Made when it is opened; of a draft, when it is read first.
    view: OnceLock<View>,
    /// Held by who maps the file, and seldom.
    how: Box<Mutex<How>>,
    /// What has been written of a draft that has no name yet.
    draft: Option<Written>,
    read_only: bool,
    growth: Growth,
    /// Small writes may be kept back from the file for a while.
    gathers: bool,
    /// The caller may store through the mapping: see `Options::writable_mapping`.
    writable_mapping: bool,
    /// The file may be replaced by a copy under its descriptor.
    may_be_copied: bool,
    /// When the file was made that is mapped.
    born: Option<(i64, u32)>,
    /// A clean close says so: see [`clean`].
    leaves_mark: bool,
    durability: Durability,
    len: AtomicU64,
    file: Membership,
    /// Of this open file: a write-back error is reported to each open file once, so no region may
    /// believe another's sync.
    group: Group,
    observer: Option<Observer>,
    /// Bytes sent since the last sync, where somebody is told of it.
    sent: AtomicU64,
    /// Writes to the last page that this region has synced: see `Shared::tails`.
    tails: AtomicU64,
    /// What pages are written whole by, once somebody has asked.
    direct: OnceLock<Direct>,
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

impl PageCacheRegion {
    pub(super) fn new(path: PathBuf, fd: OwnedFd, parts: Parts, file: Membership) -> Self {
        let fd = Descriptor::new(fd);
        let Parts {
            view,
            how,
            len,
            read_only,
            writable_mapping,
            durability,
            gathers,
            growth,
            observer,
            leaves_mark,
        } = parts;
        // Where another region of the file cannot be found, it could not see what is kept back.
        let gathers = gathers && file.known;
        // Of a file that may be replaced under its descriptor, the mapping would show the old one.
        let may_be_copied = read_only && file.may_be_copied;
        let born = if may_be_copied { identity::born(fd.as_fd()) } else { None };
        let draft = view.is_none().then(Written::default);
        let view = view.map_or_else(OnceLock::new, |view| {
            OnceLock::from(View { guarded: view.guarded && !may_be_copied, ..view })
        });
        if writable_mapping {
            file.shared.lends_memory.store(true, Ordering::Relaxed);
        }
        let (len, group) = (AtomicU64::new(len), Group::default());
        Self {
            path,
            fd,
            view,
            how: Box::new(Mutex::new(how)),
            draft,
            read_only,
            growth,
            gathers,
            writable_mapping,
            may_be_copied,
            born,
            leaves_mark,
            durability,
            len,
            file,
            group,
            observer,
            sent: AtomicU64::new(0),
            tails: AtomicU64::new(0),
            direct: OnceLock::new(),
        }
    }

    /// What it shows is not known to be on the medium: no clean close will say so.
    pub(super) fn leave_no_mark(&mut self) {
        self.leaves_mark = false;
    }

    /// Reports no level above this one from now on.
    pub(super) fn lower(&mut self, level: Durability) {
        self.durability = self.durability.min(level);
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
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

    #[inline]
    fn check_writable(&self, operation: Operation) -> Result<()> {
        if self.read_only {
            return Err(Error::new(operation, ErrorKind::ReadOnly).at(&self.path));
        }
        primitive!("page_cache.poison_is_sticky", self.file.latch.check(operation), Ok(()))
            .map_err(|e| e.at(&self.path))
    }

    #[inline]
    fn check_readable(&self, operation: Operation) -> Result<()> {
        self.file.latch.check_readable(operation).map_err(|e| e.at(&self.path))
    }

    #[cold]
    fn gone(&self, operation: Operation, offset: u64, len: u64) -> Error {
        Error::new(operation, ErrorKind::Gone).at(&self.path).over(offset, len)
    }

    /// Whether this or another region of the file lets callers store through a pointer.
    fn lends_memory(&self) -> bool {
        self.file.shared.lends_memory.load(Ordering::Relaxed)
    }

    /// A forked child has the same open file: it would be told of a write-back error in its
    /// parent's place, who would take the next sync's success for its own.
    fn check_ours(&self, operation: Operation) -> Result<()> {
        if primitive!("page_cache.drain.fork", self.fd.is_ours(), true) {
            return Ok(());
        }
        Err(descriptor::in_a_child(operation).at(&self.path))
    }
}

impl Resize for PageCacheRegion {
    fn end(&self) -> End<'_> {
        End {
            path: &self.path,
            fd: self.fd.as_fd(),
            file: &self.file,
            len: &self.len,
            // Mapped by `may_resize`.
            max: self.view.get().map_or(0, |view| view.mapping.capacity() as u64),
            growth: self.growth,
            storable: self.writable_mapping,
            synced_when_mapped: false,
        }
    }

    fn may_resize(&self, operation: Operation) -> Result<()> {
        self.check_writable(operation)?;
        self.check_ours(operation)?;
        if let Some(written) = &self.draft {
            written.forget();
        }
        self.view(operation).map(drop)
    }

    fn alone(
        &self,
        operation: Operation,
        writers: Writers,
        work: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        self.group.alone(|| {
            let mut gather = self.writer(operation)?;
            // So that the sync takes along what is gathered.
            primitive!("page_cache.grow.send", self.send_gathered(&mut gather), Ok(()))?;
            let held = (writers == Writers::Wait).then_some(gather);
            let done = work();
            drop(held);
            done
        })
    }

    fn take_in(&self, old_len: u64, new_len: u64) -> Result<()> {
        let View { mapping, mapped, .. } = self.view(Operation::Grow)?;
        // Not mapped: reads are made by the kernel.
        if !mapped {
            return Ok(());
        }
        let from = (old_len as usize).next_multiple_of(page_size());
        let to = (new_len as usize).next_multiple_of(page_size());
        mapping
            .map(self.fd.as_fd(), from, to, access(self.writable_mapping), MapFlags::SHARED)
            .map_err(|errno| Error::os(Operation::Grow, "mmap", errno))?;
        if self.writable_mapping {
            let advise = || mapping.fault_single_pages(from, to);
            primitive!("page_cache.grow.single_pages", advise(), ());
        }
        Ok(())
    }
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
        self.copy_out(at, buf).map_err(|Fault| self.gone(Operation::Read, offset, len))
    }

    fn prefetch(&self, offset: u64, len: u64) {
        if let (Ok(view), Ok((at, bytes))) =
            (self.view(Operation::Read), self.range(Operation::Read, offset, len))
        {
            if view.guarded {
                view.mapping.prefetch(at, bytes);
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.check_writable(Operation::Write)?;
        self.range(Operation::Write, offset, data.len() as u64)?;
        if data.is_empty() {
            return Ok(());
        }
        self.write_pieces(Operation::Write, offset, data)
    }

    fn write_vectored(&self, offset: u64, parts: &[IoSlice<'_>]) -> Result<()> {
        self.check_writable(Operation::Write)?;
        self.range(Operation::Write, offset, joined(parts))?;
        write_each(self, offset, parts)
    }

    fn write_atomic(&self, offset: u64, page: &[u8]) -> Result<()> {
        self.check_writable(Operation::Write)?;
        bounds::check_page(offset, page.len() as u64, self.len()).map_err(|e| e.at(&self.path))?;
        self.write_whole(offset, page)
    }

    fn fill_flush(&self, offset: u64, len: u64, byte: u8) -> Result<()> {
        self.check_writable(Operation::Write)?;
        self.range(Operation::Write, offset, len)?;
        let pattern = storage::buffer((len as usize).min(1 << 20), byte);
        let mut done = 0;
        while done < len {
            // Pieces end on multiples of their size, so that no word is split.
            let size = pattern.len() as u64;
            let piece = (len - done).min(size - (offset + done) % size);
            self.write_pieces(Operation::Write, offset + done, &pattern[..piece as usize])?;
            done += piece;
        }
        Ok(())
    }

    fn flush(&self, offset: u64, len: u64) -> Result<()> {
        self.check_writable(Operation::Flush)?;
        self.range(Operation::Flush, offset, len)?;
        // The page cache and the gathered run know what is dirty; `drain` syncs all of it. Of a
        // store through the mapping nobody has heard until now.
        if self.lends_memory() && len > 0 {
            let written = &self.file.shared.written;
            primitive!("page_cache.flush.stores", written.fetch_add(1, Ordering::Release), 0);
        }
        self.start_write_back(offset, len)
    }

    fn drain(&self) -> Result<()> {
        let check = || {
            primitive!("page_cache.drain.latch", self.file.latch.check(Operation::Drain), Ok(()))
                .map_err(|e| e.at(&self.path))
        };
        check()?;
        if self.read_only {
            return Ok(());
        }
        self.check_ours(Operation::Drain)?;
        let shared = &*self.file.shared;
        let mine = shared.written.load(Ordering::Acquire);
        let mut told = None;
        let drained = self.group.commit(mine, check, || self.sync(&mut told));
        if let (Some(observer), Some(synced)) = (&self.observer, &told) {
            observer.tell(synced);
        }
        drained
    }

    /// A drain covers whatever was written by then, by whomever.
    fn sync_all(&self) -> Result<()> {
        self.drain()
    }

    fn send(&self) -> Result<()> {
        self.check_writable(Operation::Write)?;
        self.send_gathered(&mut *self.writer(Operation::Write)?)
    }

    fn deep_flush(&self, offset: u64, len: u64) -> Result<()> {
        self.persist(offset, len)
    }

    fn load_u64(&self, offset: u64) -> Result<u64> {
        self.check_readable(Operation::Load)?;
        let at = self.word(Operation::Load, offset)?;
        let mut bytes = [0; 8];
        self.copy_out(at, &mut bytes).map_err(|Fault| self.gone(Operation::Load, offset, 8))?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn store_u64(&self, offset: u64, value: u64) -> Result<()> {
        self.check_writable(Operation::Store)?;
        self.word(Operation::Store, offset)?;
        let mut gather = self.writer(Operation::Store)?;
        self.write_locked(Operation::Store, &mut gather, offset, &value.to_ne_bytes())
    }

    fn compare_exchange_u64(
        &self,
        offset: u64,
        current: u64,
        new: u64,
    ) -> Result<std::result::Result<u64, u64>> {
        const OPERATION: Operation = Operation::CompareExchange;
        self.check_writable(OPERATION)?;
        let at = self.word(OPERATION, offset)?;
        let mut gather = self.writer(OPERATION)?;
        let mut bytes = [0; 8];
        self.copy_locked(&gather, at, &mut bytes)
            .map_err(|Fault| self.gone(OPERATION, offset, 8))?;
        let found = u64::from_ne_bytes(bytes);
        if found != current {
            return Ok(Err(found));
        }
        self.write_locked(OPERATION, &mut gather, offset, &new.to_ne_bytes())?;
        Ok(Ok(found))
    }

    #[allow(unsafe_code)]
    unsafe fn slice(&self, offset: u64, len: u64) -> Result<&[u8]> {
        self.check_readable(Operation::View)?;
        let (at, len) = self.range(Operation::View, offset, len)?;
        self.check_not_copied(offset, len as u64)?;
        let View { mapping, mapped, .. } = self.view(Operation::View)?;
        if !mapped {
            let why = "a view: the filesystem cannot map the file shared. `read` works";
            let error = Error::new(Operation::View, ErrorKind::Unsupported(why));
            return Err(error.at(&self.path).over(offset, len as u64));
        }
        self.send_for_view(at as u64, len)?;
        // SAFETY: the range is mapped for as long as self is borrowed, and the caller vouches
        // that nobody changes it meanwhile.
        Ok(unsafe { std::slice::from_raw_parts(mapping.at(at), len) })
    }

    #[allow(unsafe_code, clippy::mut_from_ref)]
    unsafe fn slice_mut(&self, offset: u64, len: u64) -> Result<&mut [u8]> {
        self.check_writable(Operation::View)?;
        let (at, len) = self.range(Operation::View, offset, len)?;
        if !self.writable_mapping {
            let why = "the page-cache backend writes with pwrite: a store through a mapping would \
                       dirty a whole large folio. Options::writable_mapping allows it";
            let error = Error::new(Operation::View, ErrorKind::Unsupported(why));
            return Err(error.at(&self.path).over(offset, len as u64));
        }
        let View { mapping, .. } = self.view(Operation::View)?;
        self.send_for_view(at as u64, len)?;
        // SAFETY: the range is mapped for writing for as long as self is borrowed, and the caller
        // vouches that nobody else accesses it meanwhile.
        Ok(unsafe { std::slice::from_raw_parts_mut(mapping.at(at), len) })
    }

    fn grow(&self, new_len: u64) -> Result<()> {
        growth::grow(self, new_len)
    }

    fn grow_to_file(&self) -> Result<u64> {
        growth::grow_to_file(self)
    }

    fn shrink(&self, new_len: u64) -> Result<()> {
        growth::shrink(self, new_len)
    }

    fn close(&self) -> Result<()> {
        let mark = self.mark_of_close();
        let drained = if self.read_only {
            self.check_readable(Operation::Close)
        } else {
            primitive!("page_cache.close.drain", self.drain(), Ok(()))
                .map_err(|error| error.during(Operation::Close))
        };
        if let (Some(mark), Ok(())) = (&mark, &drained) {
            clean::leave(self.fd.as_fd(), mark);
        }
        self.file.latch.close();
        drained
    }
}

impl Drop for PageCacheRegion {
    fn drop(&mut self) {
        // Best effort; `close` reports. Nothing to do after `close` or an error. What a forked
        // child has is a copy of its parent's run.
        if !self.read_only && self.fd.is_ours() {
            let _ = primitive!("page_cache.drop.drain", self.drain(), Ok(()));
        }
    }
}
