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
//! | `read`, `load_u64` | none; `pread` without the fault guard, or where a file cannot be mapped |
//! | `write`, `write_flush`, `store_u64` of at most 16 KiB | none if it touches the gathered run; else `statx`, `pwrite` of the run |
//! | `write` of more | `statx`, `pwrite`, after the same for a gathered run that it overlaps |
//! | `flush` | none |
//! | `write` with a writable mapping | `pwrite` for each page |
//! | `drain` | `statx`, `pwrite` of a gathered run, `fdatasync`; none if another thread's covered it |

mod growth;
#[cfg(test)]
mod tests;

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use super::bounds;
use super::calls;
use super::contract::{Region, joined, write_each};
use super::descriptor::{self, Descriptor};
use super::gather::{Gather, WRITE_MAX};
use super::group::Group;
use super::identity;
use super::kernel_copy;
use super::mapping::{Mapping, page_size};
use super::options::{Growth, Plan};
use super::siblings::{Membership, lock};
use super::storage;
use crate::cpu::Fault;
use crate::durability::{Backend, Durability, Granularity};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;
use crate::probe::Report;

/// A region that writes with `pwrite`, drains with `fdatasync` and reads through a mapping.
///
/// Small writes that touch each other are gathered in this process and sent to the file as one,
/// at the latest by `drain`. Every region of the file in this process sees them at once; other
/// processes see them when they are sent.
#[allow(clippy::struct_excessive_bools)] // independent facts
pub(super) struct PageCacheRegion {
    path: PathBuf,
    fd: Descriptor,
    mapping: Mapping,
    read_only: bool,
    growth: Growth,
    /// Small writes may be kept back from the file for a while.
    gathers: bool,
    /// The caller may store through the mapping: see `Options::writable_mapping`.
    writable_mapping: bool,
    guarded: bool,
    /// The file may be replaced by a copy under its descriptor.
    may_be_copied: bool,
    /// When the file was made that is mapped.
    born: Option<(i64, u32)>,
    /// The file could be mapped. If not, all reads are `pread`.
    mapped: bool,
    durability: Durability,
    len: AtomicU64,
    file: Membership,
    /// Of this open file: a write-back error is reported to each open file once, so no region may
    /// believe another's sync.
    group: Group,
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

/// How often a read is repeated because a write ran meanwhile, before it waits for the writer.
const OPTIMISTIC_READS: u32 = 3;

/// What mapping settles.
#[allow(clippy::struct_excessive_bools)] // independent facts
pub(super) struct Parts {
    mapping: Mapping,
    len: u64,
    read_only: bool,
    writable_mapping: bool,
    guarded: bool,
    mapped: bool,
    durability: Durability,
    gathers: bool,
    growth: Growth,
}

pub(super) fn map(plan: &Plan, fd: BorrowedFd<'_>, report: &Report) -> Result<Parts> {
    let failed = |errno| Error::os(Operation::Map, "mmap", errno);
    if plan.writable_mapping {
        primitive!("page_cache.open.storable", storage::make_storable(fd, 0, plan.len), Ok(()))?;
    }
    let reserve = || Mapping::reserve(&plan.reserve, page_size(), plan.guard).map_err(failed);
    let adopted = plan.read_only.then(|| read_mapping(fd, plan.len));
    let (mapping, mapped) = match adopted {
        Some(Err(errno)) if lacks_mappings(errno) => (reserve()?, false),
        Some(mapping) => (Mapping::adopt(mapping.map_err(failed)?, plan.guard), true),
        None => {
            let mapping = reserve()?;
            let to = (plan.len as usize).next_multiple_of(page_size());
            match mapping.map(fd, 0, to, access(plan.writable_mapping), MapFlags::SHARED) {
                Err(errno) if lacks_mappings(errno) && !plan.writable_mapping => (mapping, false),
                done => {
                    done.map_err(failed)?;
                    (mapping, true)
                }
            }
        }
    };
    if plan.writable_mapping {
        let to = (plan.len as usize).next_multiple_of(page_size());
        primitive!("page_cache.open.single_pages", mapping.fault_single_pages(0, to), ());
    }
    Ok(Parts {
        mapping,
        len: plan.len,
        read_only: plan.read_only,
        writable_mapping: plan.writable_mapping,
        // Without a mapping, reads go through the kernel.
        guarded: plan.guard && mapped,
        mapped,
        durability: report.durability,
        gathers: plan.gather,
        growth: plan.growth,
    })
}

/// What mmap(2) answers where a file cannot be mapped shared: FUSE with `direct_io`, 9p without a
/// cache.
fn lacks_mappings(errno: Errno) -> bool {
    matches!(errno, Errno::NODEV | Errno::OPNOTSUPP)
}

fn access(writable_mapping: bool) -> ProtFlags {
    if writable_mapping { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ }
}

impl PageCacheRegion {
    pub(super) fn new(path: PathBuf, fd: OwnedFd, parts: Parts, file: Membership) -> Self {
        let fd = Descriptor::new(fd);
        let Parts {
            mapping,
            len,
            read_only,
            writable_mapping,
            guarded,
            mapped,
            durability,
            gathers,
            growth,
        } = parts;
        // Where another region of the file cannot be found, it could not see what is kept back.
        let gathers = gathers && file.known;
        // Of a file that may be replaced under its descriptor, the mapping would show the old one.
        let may_be_copied = read_only && file.may_be_copied;
        let born = if may_be_copied { identity::born(fd.as_fd()) } else { None };
        if writable_mapping {
            file.shared.lends_memory.store(true, Ordering::Relaxed);
        }
        let (len, group) = (AtomicU64::new(len), Group::default());
        Self {
            path,
            fd,
            mapping,
            read_only,
            growth,
            gathers,
            writable_mapping,
            guarded: guarded && !may_be_copied,
            may_be_copied,
            born,
            mapped,
            durability,
            len,
            file,
            group,
        }
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

    /// One copy out of the page cache.
    #[inline]
    fn copy_cached(&self, at: usize, buf: &mut [u8]) -> std::result::Result<(), Fault> {
        if self.guarded {
            self.mapping.read(at, buf)
        } else {
            kernel_copy::read_file(self.fd.as_fd(), at as u64, buf)
        }
    }

    /// Copies out what the file and the gathered run have, while nothing changes either: a kernel
    /// copies a write in pieces of its own choice, so a word could be seen torn.
    #[inline]
    fn copy_out(&self, at: usize, buf: &mut [u8]) -> std::result::Result<(), Fault> {
        let shared = &*self.file.shared;
        let (from, to) = (at as u64, (at + buf.len()) as u64);
        for _ in 0..OPTIMISTIC_READS {
            let before = shared.sequence.load(Ordering::Acquire);
            if !before.is_multiple_of(2) {
                std::hint::spin_loop();
                continue;
            }
            // Relaxed: within the sequence.
            if from < shared.gathered_end.load(Ordering::Relaxed)
                && shared.gathered_start.load(Ordering::Relaxed) < to
            {
                break;
            }
            let copied = self.copy_cached(at, buf);
            fence(Ordering::Acquire);
            if shared.sequence.load(Ordering::Relaxed) == before {
                return copied;
            }
        }
        let gather = lock(&shared.gather);
        self.copy_locked(&gather, at, buf)
    }

    /// [`copy_out`](Self::copy_out) with the lock held.
    fn copy_locked(
        &self,
        gather: &Gather,
        at: usize,
        buf: &mut [u8],
    ) -> std::result::Result<(), Fault> {
        self.copy_cached(at, buf)?;
        gather.overlay(at as u64, buf);
        Ok(())
    }

    #[cold]
    fn gone(&self, operation: Operation, offset: u64, len: u64) -> Error {
        Error::new(operation, ErrorKind::Gone).at(&self.path).over(offset, len)
    }

    /// Runs `change` such that readers notice, and tells them the gathered range after it.
    fn changing<T>(&self, gather: &mut Gather, change: impl FnOnce(&mut Gather) -> T) -> T {
        let shared = &*self.file.shared;
        shared.sequence.fetch_add(1, Ordering::AcqRel);
        // No store of the change is seen before the odd number.
        fence(Ordering::Release);
        let result = change(gather);
        shared.gathered_start.store(gather.start(), Ordering::Relaxed);
        shared.gathered_end.store(gather.end(), Ordering::Relaxed);
        shared.sequence.fetch_add(1, Ordering::AcqRel);
        result
    }

    /// Makes an error final for every region of the file, and forgets the gathered run: what was
    /// never drained must not turn up in the file's next life.
    #[cold]
    fn poison(&self, gather: &mut Gather, error: Error) -> Error {
        let error = primitive!("page_cache.poison", self.file.shared.poison(error), error);
        primitive!("page_cache.poison.forget_gathered", self.changing(gather, Gather::clear), ());
        error
    }

    /// Writes to the file. Page by page where others store through a mapping: a longer write
    /// would bring a large folio into the page cache, and a store would then dirty all of it.
    fn put(&self, at: u64, data: &[u8]) -> std::result::Result<(), Errno> {
        if primitive!("page_cache.write.single_pages", !self.writable_mapping, true) {
            return kernel_copy::write_file(self.fd.as_fd(), at, data);
        }
        let page = page_size();
        let (head, rest) = data.split_at(data.len().min(page - at as usize % page));
        kernel_copy::write_file(self.fd.as_fd(), at, head)?;
        let from = at + head.len() as u64;
        rest.chunks(page)
            .zip((from..).step_by(page))
            .try_for_each(|(piece, at)| kernel_copy::write_file(self.fd.as_fd(), at, piece))
    }

    /// Sends the gathered run to the file. A failure is final: the writes in the run have
    /// returned `Ok`, and readers have seen them.
    fn send_gathered(&self, gather: &mut Gather) -> Result<()> {
        if gather.is_empty() {
            return Ok(());
        }
        if primitive!("page_cache.send.fork", !self.fd.is_ours(), false) {
            // The run is the parent's, which sends its own copy.
            let why = "a forked child cannot write what its parent gathered";
            return Err(Error::new(Operation::Write, ErrorKind::Unsupported(why)).at(&self.path));
        }
        // Also as far as the run goes: it may be a longer region's.
        primitive!("page_cache.send.length", self.check_length(gather.end()), Ok(()))
            .map_err(|error| self.poison(gather, error))?;
        let (start, len) = (gather.start(), gather.bytes().len() as u64);
        let sent = self.changing(gather, |gather| {
            let sent = self.put(start, gather.bytes());
            if sent.is_ok() {
                gather.clear();
            }
            sent
        });
        sent.map_err(|errno| {
            let error = Error::os(Operation::Write, "pwrite", errno).at(&self.path);
            self.poison(gather, error.over(start, len))
        })
    }

    /// One write, gathered or sent.
    fn write_locked(
        &self,
        operation: Operation,
        gather: &mut Gather,
        at: u64,
        data: &[u8],
    ) -> Result<()> {
        // The region may have become shorter since the range was checked, and a write past the end of
        // the file would make that longer.
        self.range(operation, at, data.len() as u64)?;
        // Where somebody stores through a pointer, a write that is sent later would undo the store.
        let gathers = primitive!("page_cache.write.at_once", !self.lends_memory(), true);
        if data.len() <= WRITE_MAX && gathers && self.gathers {
            if !gather.accepts(at, data.len()) {
                self.send_gathered(gather)?;
            }
            self.changing(gather, |gather| gather.put(at, data));
        } else {
            if gather.overlaps(at, data.len()) {
                self.send_gathered(gather)?;
            }
            primitive!("page_cache.write.length", self.check_length(0), Ok(()))
                .map_err(|error| self.poison(gather, error))?;
            let put = self.changing(gather, |_| self.put(at, data));
            // Final, as for a write that is gathered: one rule for every size.
            put.map_err(|errno| {
                let error = Error::os(operation, "pwrite", errno).at(&self.path);
                self.poison(gather, error.over(at, data.len() as u64))
            })?;
        }
        self.file.shared.written.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Takes the lock of all writers of the file. A poison that came while waiting counts.
    fn writer(&self, operation: Operation) -> Result<MutexGuard<'_, Gather>> {
        let gather = lock(&self.file.shared.gather);
        self.check_writable(operation)?;
        Ok(gather)
    }

    /// A view is of the file that was mapped, and shows nothing of a copy that has taken its place.
    fn check_not_copied(&self, offset: u64, len: u64) -> Result<()> {
        if !self.may_be_copied {
            return Ok(());
        }
        if self.born.is_some() && identity::born(self.fd.as_fd()) == self.born {
            return Ok(());
        }
        let why = "a view: the overlay has put a copy in the place of the file since it was opened; \
                   open it anew, or use `read`";
        let error = Error::new(Operation::View, ErrorKind::Unsupported(why));
        Err(error.at(&self.path).over(offset, len))
    }

    /// A view is of the file, which must have what is gathered of the range.
    fn send_for_view(&self, at: u64, len: usize) -> Result<()> {
        let mut gather = lock(&self.file.shared.gather);
        if primitive!("page_cache.view.send", !gather.overlaps(at, len), true) {
            return Ok(());
        }
        if self.read_only {
            let why = "another region of the file has writes here that it has not drained";
            let error = Error::new(Operation::View, ErrorKind::Unsupported(why));
            return Err(error.at(&self.path).over(at, len as u64));
        }
        self.send_gathered(&mut gather)
    }

    /// The file must still be as long as the region: a `pwrite` past a truncation would succeed
    /// and leave a hole where data was.
    ///
    /// Asks for the size alone. Whoever asks for the time of the last change, as fstat(2) does,
    /// makes the kernel give the next write a new one (multigrain timestamps, fs/inode.c), and
    /// ext4 then journals the inode at every sync: 8 KiB to the device instead of 4.
    fn check_length(&self, end: u64) -> Result<()> {
        let len = self.len().max(end);
        let found = storage::length(self.fd.as_fd())
            .map_err(|errno| Error::os(Operation::Drain, "statx", errno).at(&self.path))?;
        if found < len {
            return Err(self.gone(Operation::Drain, found, len - found));
        }
        Ok(())
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

    /// One sync of everything written to the file so far; returns the number of the last write
    /// that it covers. Run by one thread at a time.
    fn sync(&self) -> Result<u64> {
        let shared = &*self.file.shared;
        let covers = {
            let mut gather = lock(&shared.gather);
            if gather.is_empty() {
                primitive!("page_cache.sync.length", self.check_length(0), Ok(()))
                    .map_err(|error| self.poison(&mut gather, error))?;
            }
            primitive!("page_cache.sync.send", self.send_gathered(&mut gather), Ok(()))?;
            shared.written.load(Ordering::Acquire)
        };
        // Not repeated after EINTR: whether an error was reported and cleared is unknown.
        let synced =
            primitive!("page_cache.sync.fdatasync", calls::fdatasync(self.fd.as_fd()), Ok(()));
        synced.map_err(|errno| {
            let error = Error::os(Operation::Drain, "fdatasync", errno).at(&self.path);
            self.poison(&mut lock(&shared.gather), error.over(0, self.len()))
        })?;
        Ok(primitive!(
            "page_cache.sync.covers_before",
            covers,
            shared.written.load(Ordering::Acquire)
        ))
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
        self.copy_out(at, buf).map_err(|Fault| self.gone(Operation::Read, offset, len))
    }

    fn prefetch(&self, offset: u64, len: u64) {
        if let (true, Ok((at, bytes))) = (self.guarded, self.range(Operation::Read, offset, len)) {
            self.mapping.prefetch(at, bytes);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.check_writable(Operation::Write)?;
        self.range(Operation::Write, offset, data.len() as u64)?;
        if data.is_empty() {
            return Ok(());
        }
        let mut gather = self.writer(Operation::Write)?;
        self.write_locked(Operation::Write, &mut gather, offset, data)
    }

    fn write_vectored(&self, offset: u64, parts: &[IoSlice<'_>]) -> Result<()> {
        self.check_writable(Operation::Write)?;
        self.range(Operation::Write, offset, joined(parts))?;
        write_each(self, offset, parts)
    }

    fn fill_flush(&self, offset: u64, len: u64, byte: u8) -> Result<()> {
        self.check_writable(Operation::Write)?;
        self.range(Operation::Write, offset, len)?;
        let pattern = vec![byte; (len as usize).min(1 << 20)];
        let mut done = 0;
        while done < len {
            // Pieces end on multiples of their size, so that no word is split.
            let size = pattern.len() as u64;
            let piece = (len - done).min(size - (offset + done) % size);
            let mut gather = self.writer(Operation::Write)?;
            let data = &pattern[..piece as usize];
            self.write_locked(Operation::Write, &mut gather, offset + done, data)?;
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
        Ok(())
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
        self.group.commit(mine, check, || self.sync())
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
        if !self.mapped {
            let why = "a view: the filesystem cannot map the file shared. `read` works";
            let error = Error::new(Operation::View, ErrorKind::Unsupported(why));
            return Err(error.at(&self.path).over(offset, len as u64));
        }
        self.send_for_view(at as u64, len)?;
        // SAFETY: the range is mapped for as long as self is borrowed, and the caller vouches
        // that nobody changes it meanwhile.
        Ok(unsafe { std::slice::from_raw_parts(self.mapping.at(at), len) })
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
        self.send_for_view(at as u64, len)?;
        // SAFETY: the range is mapped for writing for as long as self is borrowed, and the caller
        // vouches that nobody else accesses it meanwhile.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.mapping.at(at), len) })
    }

    fn grow(&self, new_len: u64) -> Result<()> {
        self.grow_to(new_len)
    }

    fn grow_to_file(&self) -> Result<u64> {
        self.adopt_length()
    }

    fn shrink(&self, new_len: u64) -> Result<()> {
        self.shrink_to(new_len)
    }

    fn close(&self) -> Result<()> {
        let drained = if self.read_only {
            self.check_readable(Operation::Close)
        } else {
            primitive!("page_cache.close.drain", self.drain(), Ok(()))
                .map_err(|error| error.during(Operation::Close))
        };
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
