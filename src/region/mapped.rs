//! Regions whose stores go straight into a shared mapping: fsdax, devdax and volatile.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

use super::bounds;
use super::contract::{Region, joined, write_each};
use super::cores::OtherCores;
use super::descriptor::{self, Descriptor};
use super::growth::{self, End, Resize, Writers};
use super::mapping::{HUGE_PAGE, Mapping, page_size};
use super::options::Growth;
use super::siblings::Membership;
use crate::cpu::Fault;
use crate::durability::{Backend, Durability, Granularity};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;

/// What a backend file settles before the region can be used.
pub(super) struct Parts {
    pub(super) mapping: Mapping,
    pub(super) flags: MapFlags,
    pub(super) len: u64,
    pub(super) read_only: bool,
    pub(super) backend: Backend,
    pub(super) durability: Durability,
    pub(super) granularity: Granularity,
    pub(super) emulated: bool,
    pub(super) growth: Growth,
}

/// A region that is a shared mapping. `flush` writes cache lines back where the granularity asks
/// for it, `drain` is a store fence.
pub(super) struct MappedRegion {
    path: PathBuf,
    fd: Descriptor,
    parts: Parts,
    len: AtomicU64,
    file: Membership,
    other_cores: OtherCores,
}

impl std::fmt::Debug for MappedRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MappedRegion")
            .field("path", &self.path)
            .field("len", &self.len.load(Ordering::Relaxed))
            .field("backend", &self.parts.backend)
            .field("durability", &self.parts.durability)
            .finish_non_exhaustive()
    }
}

impl MappedRegion {
    pub(super) fn new(path: PathBuf, fd: OwnedFd, parts: Parts, file: Membership) -> Self {
        let fd = Descriptor::new(fd);
        let len = AtomicU64::new(parts.len);
        let other_cores = OtherCores::arrange();
        Self { path, fd, parts, len, file, other_cores }
    }

    /// Reports no level above this one from now on.
    pub(super) fn lower(&mut self, level: Durability) {
        self.parts.durability = self.parts.durability.min(level);
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

    #[inline]
    fn word(&self, operation: Operation, offset: u64) -> Result<usize> {
        bounds::check_word(operation, offset, self.len()).map_err(|e| e.at(&self.path))
    }

    /// Refuses a store once poisoned or closed, and on a read-only region.
    #[inline]
    fn check_writable(&self, operation: Operation) -> Result<()> {
        if self.parts.read_only {
            return Err(Error::new(operation, ErrorKind::ReadOnly).at(&self.path));
        }
        primitive!("mapped.poison_is_sticky", self.file.latch.check(operation), Ok(()))
            .map_err(|e| e.at(&self.path))
    }

    /// Whether a store or a flush of `len` bytes at `offset` is refused neither by
    /// [`check_writable`](Self::check_writable) nor by [`range`](Self::range).
    #[inline]
    fn may_store(&self, offset: u64, len: u64) -> bool {
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.len());
        fits && !self.parts.read_only && self.file.latch.is_open()
    }

    /// Where in the mapping it is. The errors are made elsewhere: what a caller spills for them are
    /// stores, and each of those waits behind a fence.
    #[inline]
    fn place(&self, operation: Operation, offset: u64, len: u64) -> Result<usize> {
        if self.may_store(offset, len) {
            return Ok(offset as usize);
        }
        self.refuse(operation, offset, len)
    }

    #[cold]
    #[inline(never)]
    fn refuse(&self, operation: Operation, offset: u64, len: u64) -> Result<usize> {
        self.check_writable(operation)?;
        Ok(self.range(operation, offset, len)?.0)
    }

    #[inline]
    fn check_readable(&self, operation: Operation) -> Result<()> {
        self.file.latch.check_readable(operation).map_err(|e| e.at(&self.path))
    }

    /// Makes an error final for every region of the file.
    #[cold]
    pub(super) fn poison(&self, error: Error) -> Error {
        primitive!("mapped.poison", self.file.shared.poison(error), error)
    }

    /// A forked child may store and drain, but the file's length is its parent's business: what the
    /// child adds, the parent knows nothing of.
    fn check_ours(&self, operation: Operation) -> Result<()> {
        if self.fd.is_ours() {
            return Ok(());
        }
        Err(descriptor::in_a_child(operation).at(&self.path))
    }

    #[cold]
    #[inline(never)]
    fn gone(&self, operation: Operation, offset: u64, len: u64) -> Error {
        Error::new(operation, ErrorKind::Gone).at(&self.path).over(offset, len)
    }

    /// [`write_flush`](Region::write_flush) of any size, and where it is refused.
    #[inline(never)]
    fn write_flush_at_length(&self, offset: u64, data: &[u8]) -> Result<()> {
        let len = data.len() as u64;
        let at = self.place(Operation::Write, offset, len)?;
        let mapping = &self.parts.mapping;
        let written = if self.writes_lines_back() {
            mapping.write_flush(at, data).inspect(|()| self.written_back())
        } else {
            mapping.write_flush_cached_domain(at, data)
        };
        written.map_err(|Fault| self.gone(Operation::Write, offset, len))
    }

    /// [`write_persist`](Region::write_persist) of any size, and where it is refused.
    #[inline(never)]
    fn write_persist_at_length(&self, offset: u64, data: &[u8]) -> Result<()> {
        if !self.writes_lines_back() {
            self.write_flush(offset, data)?;
            return self.drain();
        }
        let len = data.len() as u64;
        let at = self.place(Operation::Write, offset, len)?;
        self.parts
            .mapping
            .write_persist(at, data)
            .map_err(|Fault| self.gone(Operation::Write, offset, len))
    }

    /// After write-backs that only a later [`sync_all`](Region::sync_all) of another thread may wait
    /// for.
    #[inline]
    fn written_back(&self) {
        if self.other_cores == OtherCores::Fenced {
            self.parts.mapping.cpu.fence();
        }
    }

    #[inline]
    fn writes_lines_back(&self) -> bool {
        self.parts.granularity == Granularity::CacheLine
    }
}

impl Resize for MappedRegion {
    fn end(&self) -> End<'_> {
        let parts = &self.parts;
        End {
            path: &self.path,
            fd: self.fd.as_fd(),
            file: &self.file,
            len: &self.len,
            max: match parts.backend {
                Backend::DevDax => parts.len,
                _ => parts.mapping.capacity() as u64,
            },
            growth: parts.growth,
            storable: false,
            synced_when_mapped: parts.backend == Backend::FsDax,
        }
    }

    fn may_resize(&self, operation: Operation) -> Result<()> {
        self.check_writable(operation)?;
        self.check_ours(operation)
    }

    fn alone(
        &self,
        _operation: Operation,
        _writers: Writers,
        work: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        work()
    }

    fn take_in(&self, old_len: u64, new_len: u64) -> Result<()> {
        let parts = &self.parts;
        let last_page = old_len as usize / page_size() * page_size();
        let mapped = (old_len as usize).next_multiple_of(page_size());
        let to = (new_len as usize).next_multiple_of(page_size());
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        parts
            .mapping
            .map(self.fd.as_fd(), mapped, to, prot, parts.flags)
            .map_err(|errno| Error::os(Operation::Grow, "mmap", errno))?;
        let mut populated = last_page;
        if parts.backend == Backend::FsDax {
            parts
                .mapping
                .msync(last_page, to - last_page)
                .map_err(|errno| Error::os(Operation::Sync, "msync", errno))?;
            // The last page may be part of a huge one, which is write-protected as a whole.
            populated = last_page / HUGE_PAGE * HUGE_PAGE;
        }
        primitive!("mapped.grow.populate", parts.mapping.populate(populated, to, true), Ok(()))
            .map_err(|errno| Error::os(Operation::Grow, "madvise", errno))
    }
}

impl Region for MappedRegion {
    #[inline]
    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    #[inline]
    fn durability(&self) -> Durability {
        self.parts.durability
    }

    #[inline]
    fn granularity(&self) -> Granularity {
        self.parts.granularity
    }

    #[inline]
    fn backend(&self) -> Backend {
        self.parts.backend
    }

    #[inline]
    fn is_emulated(&self) -> bool {
        self.parts.emulated
    }

    #[inline]
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check_readable(Operation::Read)?;
        let len = buf.len() as u64;
        let (at, _) = self.range(Operation::Read, offset, len)?;
        self.parts.mapping.read(at, buf).map_err(|Fault| self.gone(Operation::Read, offset, len))
    }

    #[inline]
    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let len = data.len() as u64;
        let at = self.place(Operation::Write, offset, len)?;
        self.parts.mapping.write(at, data).map_err(|Fault| self.gone(Operation::Write, offset, len))
    }

    #[inline]
    fn write_flush(&self, offset: u64, data: &[u8]) -> Result<()> {
        let len = data.len() as u64;
        if self.may_store(offset, len) && self.writes_lines_back() {
            if let Some(written) = self.parts.mapping.write_flush_brief(offset as usize, data) {
                return match written {
                    Ok(()) => {
                        self.written_back();
                        Ok(())
                    }
                    Err(Fault) => Err(self.gone(Operation::Write, offset, len)),
                };
            }
        }
        self.write_flush_at_length(offset, data)
    }

    #[inline]
    fn write_persist(&self, offset: u64, data: &[u8]) -> Result<()> {
        let len = data.len() as u64;
        if self.may_store(offset, len) && self.writes_lines_back() {
            if let Some(written) = self.parts.mapping.write_persist_brief(offset as usize, data) {
                return match written {
                    Ok(()) => Ok(()),
                    Err(Fault) => Err(self.gone(Operation::Write, offset, len)),
                };
            }
        }
        self.write_persist_at_length(offset, data)
    }

    #[inline]
    fn write_stream(&self, offset: u64, data: &[u8]) -> Result<()> {
        if !self.writes_lines_back() {
            return self.write_flush(offset, data);
        }
        let len = data.len() as u64;
        let at = self.place(Operation::Write, offset, len)?;
        self.parts
            .mapping
            .write_stream(at, data)
            .inspect(|()| self.written_back())
            .map_err(|Fault| self.gone(Operation::Write, offset, len))
    }

    #[inline]
    fn prefetch(&self, offset: u64, len: u64) {
        if let Ok((at, bytes)) = self.range(Operation::Read, offset, len) {
            self.parts.mapping.prefetch(at, bytes);
        }
    }

    fn write_vectored(&self, offset: u64, parts: &[IoSlice<'_>]) -> Result<()> {
        self.check_writable(Operation::Write)?;
        self.range(Operation::Write, offset, joined(parts))?;
        write_each(self, offset, parts)
    }

    /// Nothing makes more than a word whole here.
    fn write_atomic(&self, offset: u64, page: &[u8]) -> Result<()> {
        self.check_writable(Operation::Write)?;
        bounds::not_whole(offset, page.len() as u64, self.len()).map_err(|e| e.at(&self.path))
    }

    fn fill_flush(&self, offset: u64, len: u64, byte: u8) -> Result<()> {
        self.check_writable(Operation::Write)?;
        let (at, bytes) = self.range(Operation::Write, offset, len)?;
        let mapping = &self.parts.mapping;
        if self.writes_lines_back() {
            mapping.fill_flush(at, bytes, byte).inspect(|()| self.written_back())
        } else {
            mapping.fill(at, bytes, byte)
        }
        .map_err(|Fault| self.gone(Operation::Write, offset, len))
    }

    #[inline]
    fn flush(&self, offset: u64, len: u64) -> Result<()> {
        let at = self.place(Operation::Flush, offset, len)?;
        if !self.writes_lines_back() {
            return Ok(());
        }
        let bytes = len as usize;
        let flushed =
            primitive!("mapped.flush.write_back", self.parts.mapping.flush(at, bytes), Ok(()));
        flushed
            .inspect(|()| self.written_back())
            .map_err(|Fault| self.poison(self.gone(Operation::Flush, offset, len)))
    }

    #[inline]
    fn drain(&self) -> Result<()> {
        primitive!("mapped.drain.latch", self.file.latch.check(Operation::Drain), Ok(()))
            .map_err(|e| e.at(&self.path))?;
        primitive!("mapped.drain.fence", self.parts.mapping.cpu.fence(), ());
        Ok(())
    }

    fn sync_all(&self) -> Result<()> {
        self.drain()?;
        if !self.writes_lines_back() {
            // A store that this thread can see is within reach of the caches' power supply.
            return Ok(());
        }
        self.other_cores
            .wait()
            .map_err(|errno| Error::os(Operation::Drain, "membarrier", errno).at(&self.path))?;
        // What failed meanwhile was not covered.
        self.file.latch.check(Operation::Drain).map_err(|e| e.at(&self.path))
    }

    /// A store is in the file as soon as it is made.
    fn send(&self) -> Result<()> {
        self.check_writable(Operation::Write)
    }

    fn deep_flush(&self, offset: u64, len: u64) -> Result<()> {
        self.check_writable(Operation::Flush)?;
        let (at, bytes) = self.range(Operation::Flush, offset, len)?;
        // msync does not push lines out of the caches on eADR: the kernel skips it there.
        if self.parts.backend != Backend::Volatile || self.writes_lines_back() {
            primitive!("mapped.deep_flush.write_back", self.parts.mapping.flush(at, bytes), Ok(()))
                .map_err(|Fault| self.poison(self.gone(Operation::Flush, offset, len)))?;
        }
        primitive!("mapped.deep_flush.drain", self.drain(), Ok(()))?;
        match self.parts.backend {
            Backend::DevDax => Err(Error::new(
                Operation::Flush,
                ErrorKind::Unsupported(
                    "device DAX answers EINVAL to msync; root can write 1 to the region's deep_flush file",
                ),
            )
            .at(&self.path)
            .over(offset, len)),
            Backend::FsDax if bytes > 0 => primitive!(
                "mapped.deep_flush.msync",
                self.parts.mapping.msync(at, bytes),
                Ok(())
            )
            .map_err(|errno| {
                let error = Error::os(Operation::Flush, "msync", errno);
                self.poison(error.at(&self.path).over(offset, len))
            }),
            _ => Ok(()),
        }
    }

    #[inline]
    fn load_u64(&self, offset: u64) -> Result<u64> {
        self.check_readable(Operation::Load)?;
        let at = self.word(Operation::Load, offset)?;
        self.parts.mapping.load_u64(at).map_err(|Fault| self.gone(Operation::Load, offset, 8))
    }

    #[inline]
    fn store_u64(&self, offset: u64, value: u64) -> Result<()> {
        self.check_writable(Operation::Store)?;
        let at = self.word(Operation::Store, offset)?;
        self.parts
            .mapping
            .store_u64(at, value)
            .map_err(|Fault| self.gone(Operation::Store, offset, 8))
    }

    #[inline]
    fn compare_exchange_u64(
        &self,
        offset: u64,
        current: u64,
        new: u64,
    ) -> Result<std::result::Result<u64, u64>> {
        self.check_writable(Operation::CompareExchange)?;
        let at = self.word(Operation::CompareExchange, offset)?;
        let found = self
            .parts
            .mapping
            .compare_exchange_u64(at, current, new)
            .map_err(|Fault| self.gone(Operation::CompareExchange, offset, 8))?;
        Ok(if found == current { Ok(found) } else { Err(found) })
    }

    #[allow(unsafe_code)]
    unsafe fn slice(&self, offset: u64, len: u64) -> Result<&[u8]> {
        self.check_readable(Operation::View)?;
        let (at, len) = self.range(Operation::View, offset, len)?;
        // SAFETY: the range is mapped for as long as self is borrowed, and the caller vouches
        // that nobody changes it meanwhile.
        Ok(unsafe { std::slice::from_raw_parts(self.parts.mapping.at(at), len) })
    }

    #[allow(unsafe_code, clippy::mut_from_ref)]
    unsafe fn slice_mut(&self, offset: u64, len: u64) -> Result<&mut [u8]> {
        self.check_writable(Operation::View)?;
        let (at, len) = self.range(Operation::View, offset, len)?;
        // SAFETY: the range is mapped for writing for as long as self is borrowed, and the
        // caller vouches that nobody else accesses it meanwhile.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.parts.mapping.at(at), len) })
    }

    fn grow(&self, new_len: u64) -> Result<()> {
        growth::grow(self, new_len)
    }

    fn grow_to_file(&self) -> Result<u64> {
        growth::grow_to_file(self)
    }

    fn shrink(&self, new_len: u64) -> Result<()> {
        if self.parts.backend == Backend::DevDax && new_len < self.len() {
            self.check_writable(Operation::Shrink)?;
            let why = "a device has the length it has";
            let error = Error::new(Operation::Shrink, ErrorKind::Unsupported(why));
            return Err(error.at(&self.path).over(new_len, self.len() - new_len));
        }
        growth::shrink(self, new_len)
    }

    fn close(&self) -> Result<()> {
        let drained = if self.parts.read_only {
            self.check_readable(Operation::Close)
        } else {
            self.file.latch.check(Operation::Close).map_err(|e| e.at(&self.path))
        };
        if drained.is_ok() {
            primitive!("mapped.close.fence", self.parts.mapping.cpu.fence(), ());
        }
        self.file.latch.close();
        drained
    }
}
