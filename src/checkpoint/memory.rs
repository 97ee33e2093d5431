//! The memory of a working set: private, zero at first, its own from the first byte to the last of
//! whole pages.
//!
//! A small set has it from the allocator: a mapping is a system call to make and one to drop, each
//! behind the lock that all threads of the process share. It moves into a mapping before anybody is
//! given a pointer, since only whole pages of the processor can be protected.
//!
//! # Safety
//!
//! The memory is taken once and given back on drop; nobody else has its address but who was given
//! it by [`Memory::base`]. References into it are borrowed from the value that owns it, so that the
//! compiler keeps a `&mut` alone; whoever stores through the bare address has promised, to the
//! documentation of `WorkingSet::pointer`, to do so only while no reference lives.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::{self, NonNull};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::cpu::Cpu;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::{LINE, PAGE};

/// A set of at most so many pages is allocated.
const ALLOCATED_MAX: u64 = 512;

/// Where the memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Allocator,
    Mapping,
}

/// Memory of whole pages.
#[derive(Debug)]
pub(super) struct Memory {
    base: NonNull<u8>,
    bytes: usize,
    origin: Origin,
}

// SAFETY: the memory belongs to the value and to no thread.
unsafe impl Send for Memory {}
// SAFETY: through a shared reference the memory is only read.
unsafe impl Sync for Memory {}

/// Room for so many bytes, which were found to be whole pages, at the start of a page.
fn layout(bytes: usize) -> Result<Layout> {
    Layout::from_size_align(bytes, PAGE as usize).map_err(|_| too_large())
}

fn too_large() -> Error {
    Error::new(Operation::Map, ErrorKind::TooLarge { max: isize::MAX as u64 })
}

impl Memory {
    /// Zeros: so many pages of 4096 bytes, at least one.
    pub(super) fn zeroed(pages: u64) -> Result<Self> {
        let bytes = pages.checked_mul(PAGE).ok_or_else(too_large)?;
        if bytes > isize::MAX as u64 {
            return Err(too_large());
        }
        let bytes = bytes as usize;
        if !(1..=ALLOCATED_MAX).contains(&pages) {
            return Self::mapped(bytes);
        }
        // SAFETY: at least one page, so the layout is not of zero bytes.
        let base = unsafe { alloc_zeroed(layout(bytes)?) };
        let base = NonNull::new(base)
            .ok_or_else(|| Error::os(Operation::Map, "posix_memalign", Errno::NOMEM))?;
        Ok(Self { base, bytes, origin: Origin::Allocator })
    }

    fn mapped(bytes: usize) -> Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping where the kernel likes: nothing that exists is touched.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), bytes, access, MapFlags::PRIVATE) }
            .map_err(|errno| Error::os(Operation::Map, "mmap", errno))?;
        let failed = || Error::new(Operation::Map, ErrorKind::Gone);
        let base = NonNull::new(base.cast()).ok_or_else(failed)?;
        Ok(Self { base, bytes, origin: Origin::Mapping })
    }

    /// Moves to a mapping, if it is not in one. On an error it stays.
    pub(super) fn map(&mut self) -> Result<()> {
        if self.origin == Origin::Allocator {
            let mut mapped = Self::mapped(self.bytes)?;
            mapped.bytes_mut().copy_from_slice(self.bytes());
            *self = mapped;
        }
        Ok(())
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `bytes` bytes are readable from the base on while the value lives, at most
        // isize::MAX, and initialised: allocator and kernel gave zeros. Stores need a `&mut self`,
        // or the promise of `WorkingSet::pointer`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.bytes) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and writable; `&mut self` keeps every other reference away.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.bytes) }
    }

    /// One page.
    pub(super) fn page(&self, page: u64) -> &[u8] {
        &self.bytes()[(page * PAGE) as usize..][..PAGE as usize]
    }

    /// These pages, each fetched from memory while the one before is in use.
    pub(super) fn in_turn(&self, pages: impl Iterator<Item = u64>) -> impl Iterator<Item = u64> {
        let mut pages = pages.peekable();
        std::iter::from_fn(move || {
            let page = pages.next()?;
            if let Some(&next) = pages.peek() {
                Cpu::get().prefetch(self.page(next).as_ptr(), PAGE as usize);
            }
            Some(page)
        })
    }

    /// Has those of a page's 64 lines fetched whose bits are set.
    pub(super) fn prefetch(&self, page: u64, lines: u64) {
        let base = self.page(page).as_ptr();
        let mut left = lines;
        while left != 0 {
            let line = left.trailing_zeros() as usize;
            Cpu::get().prefetch(base.wrapping_add(line * LINE as usize), 1);
            left &= left - 1;
        }
    }

    pub(super) fn page_mut(&mut self, page: u64) -> &mut [u8] {
        &mut self.bytes_mut()[(page * PAGE) as usize..][..PAGE as usize]
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match (self.origin, layout(self.bytes)) {
            // SAFETY: from `alloc_zeroed` with the same layout; no reference outlives the value.
            (Origin::Allocator, Ok(layout)) => unsafe { dealloc(self.base.as_ptr(), layout) },
            // There was such a layout when it was allocated.
            (Origin::Allocator, Err(_)) => {}
            (Origin::Mapping, _) => {
                // SAFETY: the mapping of `mapped`, whole; no reference outlives the value.
                let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
            }
        }
    }
}
