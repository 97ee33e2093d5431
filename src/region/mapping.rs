//! A range of address space with a file mapped at its start, and copies in and out of it.
//!
//! # Safety
//!
//! The address space is reserved once ([`reserve`](super::reserve)), and only this module maps into
//! it, always within the reservation (`MAP_FIXED` replaces nothing else). What is mapped stays
//! mapped until the value is dropped, so a pointer to a mapped byte is valid for as long as the
//! mapping is borrowed. The bytes behind it are shared with the world: they are only accessed by
//! the routines of [`crate::cpu`].
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, MsyncFlags, ProtFlags};

use super::kernel_copy;
use super::reserve::{Reserve, Space};
use crate::cpu::{Cpu, Fault, guard_faults};
use crate::primitives::primitive;

/// Memory maps of 2 MiB congruence can use huge pages: address and file offset must be equal
/// modulo 2 MiB (`dax_iomap_pmd_fault`, fs/dax.c), and regions start at file offset 0.
pub(super) const HUGE_PAGE: usize = 2 << 20;

/// How safe copies reach mapped memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Directly; a SIGBUS resumes at an error exit.
    Guarded,
    /// Through the kernel (process_vm_readv(2)), which answers EFAULT where a page is gone.
    Kernel,
}

/// Who gives the memory back.
enum Owner {
    /// The file is mapped over its start.
    Reserved(Space),
    /// An ordinary read mapping that never grows.
    Adopted(memmap2::Mmap),
}

pub(super) struct Mapping {
    base: NonNull<u8>,
    owner: Owner,
    access: Access,
    /// Bytes from the base on that have been mapped: they stay mapped when the file becomes shorter,
    /// and are there when it becomes longer again.
    mapped: AtomicUsize,
    pub(super) cpu: &'static Cpu,
}

// SAFETY: the base is plain shared memory, accessed only by routines that allow concurrent use;
// the owner is not touched between construction and drop.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// The page size in bytes.
pub(super) fn page_size() -> usize {
    rustix::param::page_size()
}

impl Mapping {
    /// Reserves address space at a multiple of `align` (a power of two).
    pub(super) fn reserve(wanted: &Reserve, align: usize, guard: bool) -> Result<Self, Errno> {
        let space = Space::reserve(wanted, align)?;
        let access = if guard && guard_faults() { Access::Guarded } else { Access::Kernel };
        let (base, mapped) = (space.base(), AtomicUsize::new(0));
        Ok(Self { base, owner: Owner::Reserved(space), access, mapped, cpu: Cpu::get() })
    }

    /// Takes over an ordinary read mapping.
    pub(super) fn adopt(map: memmap2::Mmap, guard: bool) -> Self {
        let base = NonNull::new(map.as_ptr().cast_mut()).unwrap_or(NonNull::dangling());
        let access = if guard && guard_faults() { Access::Guarded } else { Access::Kernel };
        let mapped = AtomicUsize::new(map.len());
        Self { base, owner: Owner::Adopted(map), access, mapped, cpu: Cpu::get() }
    }

    /// Bytes that can be mapped.
    pub(super) fn capacity(&self) -> usize {
        match &self.owner {
            Owner::Reserved(space) => space.len(),
            Owner::Adopted(map) => map.len(),
        }
    }

    /// Maps the bytes `from..to` of the file at the same distance from the base, but for those that
    /// are mapped already; both are multiples of the page size within the reservation. The callers
    /// see to it that one thread at a time does.
    pub(super) fn map(
        &self,
        fd: BorrowedFd<'_>,
        from: usize,
        to: usize,
        prot: ProtFlags,
        flags: MapFlags,
    ) -> Result<(), Errno> {
        let Owner::Reserved(space) = &self.owner else { return Err(Errno::INVAL) };
        if from > to || to > space.len() {
            return Err(Errno::INVAL);
        }
        let from = from.max(self.mapped.load(Ordering::Relaxed));
        if from >= to {
            return Ok(());
        }
        // SAFETY: MAP_FIXED stays within the reservation, which is ours alone, and past what was ever
        // mapped of it, so no pointer into it exists yet.
        unsafe {
            mm::mmap(
                self.at(from).cast(),
                to - from,
                prot,
                flags | MapFlags::FIXED,
                fd,
                from as u64,
            )?;
        }
        self.mapped.store(to, Ordering::Relaxed);
        Ok(())
    }

    /// Maps `len` bytes of the file from `offset` on at the base.
    pub(super) fn map_at(
        &self,
        fd: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        prot: ProtFlags,
        flags: MapFlags,
    ) -> Result<(), Errno> {
        if !matches!(&self.owner, Owner::Reserved(space) if len <= space.len()) {
            return Err(Errno::INVAL);
        }
        // SAFETY: MAP_FIXED stays within the reservation, which is ours alone; the caller, who has
        // just made it, holds no pointer into it.
        unsafe {
            mm::mmap(self.at(0).cast(), len, prot, flags | MapFlags::FIXED, fd, offset)?;
        }
        Ok(())
    }

    /// Lets faults in `from..to`, which is mapped, read single pages into the page cache instead
    /// of large folios (madvise(2), `MADV_RANDOM`: no read-ahead; `do_sync_mmap_readahead`,
    /// mm/filemap.c). Advice: where it is not taken, stores dirty more.
    pub(super) fn fault_single_pages(&self, from: usize, to: usize) {
        if from < to {
            // SAFETY: the range is mapped; advice on faults changes no byte.
            let _ = unsafe { mm::madvise(self.at(from).cast(), to - from, Advice::Random) };
        }
    }

    /// The address of the byte at `offset`.
    #[inline]
    pub(super) fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.capacity());
        // SAFETY: within the reservation, or one past its end.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Whether copies can reach the memory: without the guard they go through the kernel, which
    /// may not let them (EPERM from a seccomp filter, ENOSYS).
    pub(super) fn check_access(&self) -> Result<(), Errno> {
        if self.access == Access::Guarded { Ok(()) } else { kernel_copy::check() }
    }

    /// Faults the pages of `from..to` in, for writing or for reading, and reports what a store
    /// would have met as SIGBUS. Poisoned pages are passed over: they must not keep their
    /// neighbours from being recovered, and their reads and writes return errors of their own.
    pub(super) fn populate(&self, from: usize, to: usize, write: bool) -> Result<(), Errno> {
        match self.populate_range(from, to, write) {
            // It stopped at the first bad page: the others one by one.
            Err(Errno::HWPOISON) => {}
            result => return result,
        }
        for page in (from..to).step_by(page_size()) {
            match self.populate_range(page, page + page_size(), write) {
                Ok(()) | Err(Errno::HWPOISON) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn populate_range(&self, from: usize, to: usize, write: bool) -> Result<(), Errno> {
        if from >= to {
            return Ok(());
        }
        let advice = if write { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
        loop {
            // SAFETY: the range is mapped; populating changes no byte.
            match unsafe { mm::madvise(self.at(from).cast::<c_void>(), to - from, advice) } {
                Err(Errno::INTR | Errno::AGAIN) => {}
                // Before Linux 5.14.
                Err(Errno::INVAL) => return self.touch(from, to, write),
                result => return result,
            }
        }
    }

    /// [`populate`](Self::populate) by accessing every page.
    fn touch(&self, from: usize, to: usize, write: bool) -> Result<(), Errno> {
        if self.access != Access::Guarded {
            // A page that is not there would be a SIGBUS.
            return Err(Errno::INVAL);
        }
        for offset in (from..to).step_by(page_size()) {
            // SAFETY: within the mapped range, page-aligned.
            let touched = unsafe {
                self.cpu.load_u64(self.at(offset)).and_then(|word| {
                    if write {
                        self.cpu.compare_exchange_u64(self.at(offset), word, word)?;
                    }
                    Ok(())
                })
            };
            touched.map_err(|Fault| Errno::FAULT)?;
        }
        Ok(())
    }

    /// Copies out. `offset + buf.len()` lies within what is mapped.
    #[inline]
    pub(super) fn read(&self, offset: usize, buf: &mut [u8]) -> Result<(), Fault> {
        match self.access {
            // SAFETY: the caller checked the range; the buffer is borrowed uniquely.
            Access::Guarded => unsafe {
                self.cpu.load(buf.as_mut_ptr(), self.at(offset), buf.len())
            },
            Access::Kernel => kernel_copy::read_memory(self.at(offset), buf),
        }
    }

    /// Copies in, without flushing. `offset + data.len()` lies within what is mapped for writing.
    #[inline]
    pub(super) fn write(&self, offset: usize, data: &[u8]) -> Result<(), Fault> {
        match self.access {
            // SAFETY: the caller checked the range; `data` is borrowed.
            Access::Guarded => unsafe {
                self.cpu.store(self.at(offset), data.as_ptr(), data.len())
            },
            Access::Kernel => kernel_copy::write_memory(self.at(offset), data),
        }
    }

    /// Copies in such that it is durable after the next fence.
    #[inline]
    pub(super) fn write_flush(&self, offset: usize, data: &[u8]) -> Result<(), Fault> {
        if self.access == Access::Kernel {
            self.write(offset, data)?;
            return primitive!(
                "mapping.write_flush.write_back",
                self.flush(offset, data.len()),
                Ok(())
            );
        }
        // SAFETY: as in `write`.
        unsafe { self.cpu.store_flush(self.at(offset), data.as_ptr(), data.len()) }
    }

    /// Copies in, durable on return.
    #[inline]
    pub(super) fn write_persist(&self, offset: usize, data: &[u8]) -> Result<(), Fault> {
        if self.access == Access::Kernel {
            return self.write_persist_by_kernel(offset, data);
        }
        // SAFETY: as in `write`.
        unsafe { self.cpu.store_persist(self.at(offset), data.as_ptr(), data.len()) }
    }

    /// [`write_persist`](Self::write_persist) of what is short, without a call that has the caller
    /// save its registers; `None`, and nothing done, if it is not.
    #[inline]
    pub(super) fn write_persist_brief(
        &self,
        offset: usize,
        data: &[u8],
    ) -> Option<Result<(), Fault>> {
        if self.access == Access::Kernel {
            return None;
        }
        // SAFETY: as in `write`.
        unsafe { self.cpu.store_brief_persist(self.at(offset), data.as_ptr(), data.len()) }
    }

    /// The same of [`write_flush`](Self::write_flush).
    #[inline]
    pub(super) fn write_flush_brief(
        &self,
        offset: usize,
        data: &[u8],
    ) -> Option<Result<(), Fault>> {
        if self.access == Access::Kernel {
            return None;
        }
        // SAFETY: as in `write`.
        unsafe { self.cpu.store_brief_flush(self.at(offset), data.as_ptr(), data.len()) }
    }

    #[cold]
    fn write_persist_by_kernel(&self, offset: usize, data: &[u8]) -> Result<(), Fault> {
        self.write_flush(offset, data)?;
        primitive!("mapping.write_persist.fence", self.cpu.fence(), ());
        Ok(())
    }

    /// Copies in past the caches such that it is durable after the next fence, and seen by other
    /// threads then.
    #[inline]
    pub(super) fn write_stream(&self, offset: usize, data: &[u8]) -> Result<(), Fault> {
        if self.access == Access::Kernel {
            return self.write_flush(offset, data);
        }
        // SAFETY: as in `write`.
        unsafe { self.cpu.store_non_temporal_flush(self.at(offset), data.as_ptr(), data.len()) }
    }

    /// Starts fetching a mapped range; more than a cache holds would not stay there.
    #[inline]
    pub(super) fn prefetch(&self, offset: usize, len: usize) {
        const MOST: usize = 256 << 10;
        self.cpu.prefetch(self.at(offset), len.min(MOST));
    }

    /// [`write_flush`](Self::write_flush) where the caches are in the persistence domain.
    #[inline]
    pub(super) fn write_flush_cached_domain(
        &self,
        offset: usize,
        data: &[u8],
    ) -> Result<(), Fault> {
        if self.access == Access::Kernel {
            return self.write(offset, data);
        }
        // SAFETY: as in `write`.
        unsafe { self.cpu.store_flush_cached_domain(self.at(offset), data.as_ptr(), data.len()) }
    }

    /// Fills, without flushing. `offset + len` lies within what is mapped for writing.
    pub(super) fn fill(&self, offset: usize, len: usize, byte: u8) -> Result<(), Fault> {
        const PATTERN: usize = 4096;
        if self.access == Access::Guarded {
            // SAFETY: as in `write`.
            return unsafe { self.cpu.fill(self.at(offset), byte, len) };
        }
        let pattern = [byte; PATTERN];
        let mut done = 0;
        while done < len {
            // Pieces end on multiples of their size, so that no word is split.
            let piece = (len - done).min(PATTERN - (offset + done) % PATTERN);
            self.write(offset + done, &pattern[..piece])?;
            done += piece;
        }
        Ok(())
    }

    /// Fills such that it is durable after the next fence.
    pub(super) fn fill_flush(&self, offset: usize, len: usize, byte: u8) -> Result<(), Fault> {
        if self.access == Access::Kernel {
            self.fill(offset, len, byte)?;
            return primitive!("mapping.fill_flush.write_back", self.flush(offset, len), Ok(()));
        }
        // SAFETY: as in `write`.
        unsafe { self.cpu.fill_flush(self.at(offset), byte, len) }
    }

    /// Writes the lines of a range back.
    #[inline]
    pub(super) fn flush(&self, offset: usize, len: usize) -> Result<(), Fault> {
        self.check_present(offset, len)?;
        // SAFETY: the caller checked the range.
        unsafe { self.cpu.flush(self.at(offset), len) }
    }

    /// Loads the aligned word at `offset`.
    #[inline]
    pub(super) fn load_u64(&self, offset: usize) -> Result<u64, Fault> {
        self.check_present(offset, 8)?;
        // SAFETY: the caller checked range and alignment; the base is page-aligned.
        unsafe { self.cpu.load_u64(self.at(offset)) }
    }

    /// Stores the aligned word at `offset`.
    #[inline]
    pub(super) fn store_u64(&self, offset: usize, word: u64) -> Result<(), Fault> {
        self.check_present(offset, 8)?;
        // SAFETY: as in `load_u64`.
        unsafe { self.cpu.store_u64(self.at(offset), word) }
    }

    /// Compares and exchanges the aligned word at `offset`; returns the word found.
    #[inline]
    pub(super) fn compare_exchange_u64(
        &self,
        offset: usize,
        current: u64,
        new: u64,
    ) -> Result<u64, Fault> {
        self.check_present(offset, 8)?;
        // SAFETY: as in `load_u64`.
        unsafe { self.cpu.compare_exchange_u64(self.at(offset), current, new) }
    }

    /// Without the guard, asks the kernel for a byte of every page before touching them. A page
    /// that vanishes between the question and the access still raises SIGBUS.
    #[inline]
    fn check_present(&self, offset: usize, len: usize) -> Result<(), Fault> {
        if self.access == Access::Guarded { Ok(()) } else { self.ask_for_pages(offset, len) }
    }

    #[cold]
    fn ask_for_pages(&self, offset: usize, len: usize) -> Result<(), Fault> {
        let mut at = offset;
        while at < offset + len {
            kernel_copy::read_memory(self.at(at), &mut [0])?;
            at = (at + 1).next_multiple_of(page_size());
        }
        Ok(())
    }

    /// Synchronises the pages of a range with the medium (msync(2)).
    pub(super) fn msync(&self, offset: usize, len: usize) -> Result<(), Errno> {
        let start = offset / page_size() * page_size();
        // SAFETY: msync reads no memory of ours; the range is mapped.
        unsafe { mm::msync(self.at(start).cast(), offset + len - start, MsyncFlags::SYNC) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::fs::FileExt;

    use super::*;

    const SPACE: usize = 1 << 20;

    /// A file of `SPACE` bytes, and space reserved for it of which nothing is mapped.
    fn reserved(guard: bool) -> (File, Mapping) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; SPACE], 0).unwrap();
        (file, Mapping::reserve(&Reserve::exactly(SPACE), page_size(), guard).unwrap())
    }

    fn map(mapping: &Mapping, file: &File, from: usize, to: usize) {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        mapping.map(file.as_fd(), from, to, access, MapFlags::SHARED).unwrap();
    }

    /// Whether the kernel finds something at an offset.
    fn is_mapped(mapping: &Mapping, offset: usize) -> bool {
        let file = tempfile::tempfile().unwrap();
        // SAFETY: write(2) checks what it is told to read, and answers EFAULT.
        let wrote = unsafe { libc::write(file.as_raw_fd(), mapping.at(offset).cast(), 1) };
        wrote == 1
    }

    /// Set by `ci/aarch64`: QEMU's user-mode emulation makes no copies between processes, and takes
    /// no advice.
    fn is_emulated() -> bool {
        std::env::var_os("DAXMAP_TEST_QEMU_USER").is_some()
    }

    /// Without the guard and with it. Without first: a handler, once there, would hide a signal.
    fn guards() -> &'static [bool] {
        if is_emulated() { &[true] } else { &[false, true] }
    }

    #[test]
    fn a_file_is_mapped_and_populated_in_steps_and_nothing_besides() {
        let (file, mapping) = reserved(true);
        for (from, to) in [(0, SPACE / 8), (SPACE / 8, SPACE / 4), (SPACE / 4, SPACE / 2)] {
            map(&mapping, &file, from, to);
            assert!(is_mapped(&mapping, from) && is_mapped(&mapping, to - 1));
            assert!(!is_mapped(&mapping, to), "{from} to {to}");
            mapping.populate(from, to, true).unwrap();
            mapping.populate(from, to, false).unwrap();
            mapping.touch(from, to, true).unwrap();
        }
        let access = ProtFlags::READ;
        for (from, to) in [(0, SPACE + page_size()), (page_size(), 0)] {
            let refused = mapping.map(file.as_fd(), from, to, access, MapFlags::SHARED);
            assert_eq!(refused, Err(Errno::INVAL));
        }
    }

    #[test]
    fn pages_that_are_gone_are_errors_with_the_guard_and_without() {
        for &guard in guards() {
            let (file, mapping) = reserved(guard);
            map(&mapping, &file, 0, SPACE);
            file.set_len(SPACE as u64 / 2).unwrap();
            let gone = SPACE / 2;
            assert_eq!(mapping.write_persist(gone, &[1; 100]), Err(Fault));
            assert_eq!(mapping.write_flush(gone - 50, &[1; 100]), Err(Fault));
            assert_eq!(mapping.write(gone, &[1; 100]), Err(Fault));
            assert_eq!(mapping.fill(gone - 50, 100, 1), Err(Fault));
            assert_eq!(mapping.fill_flush(gone - 50, 100, 1), Err(Fault));
            assert_eq!(mapping.read(gone, &mut [0; 100]), Err(Fault));
            assert!(mapping.flush(gone, 100) == Err(Fault) || is_emulated());
            assert_eq!(mapping.load_u64(gone), Err(Fault));
            let touched = if guard { Errno::FAULT } else { Errno::INVAL };
            assert_eq!(mapping.touch(0, SPACE, true), Err(touched));
            assert_eq!(mapping.touch(0, gone, false).is_ok(), guard);
            assert!(mapping.populate(0, SPACE, true).is_err() || is_emulated());
            mapping.write(0, &[1; 100]).unwrap();
        }
    }

    #[test]
    fn a_fill_is_of_its_range_however_far_in() {
        for &guard in guards() {
            let file = tempfile::tempfile().unwrap();
            let len = 20 << 20;
            file.set_len(len as u64).unwrap();
            let mapping = Mapping::reserve(&Reserve::exactly(len), page_size(), guard);
            let mapping = mapping.unwrap();
            map(&mapping, &file, 0, len);
            for (offset, filled) in [(0, 1), (4095, 2), (17 << 20, 9000), ((17 << 20) + 5, 4096)] {
                mapping.fill(offset, filled, 3).unwrap();
                let from = offset.saturating_sub(1);
                let mut found = vec![0; filled + 2];
                mapping.read(from, &mut found).unwrap();
                let filled_here = &found[offset - from..][..filled];
                assert!(filled_here.iter().all(|&byte| byte == 3), "{offset}");
                assert!(offset == 0 || found[0] != 3, "{offset}");
                assert_ne!(found[offset - from + filled], 3, "{offset}");
                mapping.fill(offset, filled, 0).unwrap();
            }
        }
    }
}
