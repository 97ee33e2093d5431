//! The memory of a working set: private, anonymous, zero at first, its own from the first byte to
//! the last of whole pages.
//!
//! # Safety
//!
//! The mapping is made once and unmapped on drop; nobody else has its address but who was given it
//! by [`Memory::base`]. References into it are borrowed from the value that owns it, so that the
//! compiler keeps a `&mut` alone; whoever stores through the bare address has promised, to the
//! documentation of `WorkingSet::pointer`, to do so only while no reference lives.
#![allow(unsafe_code)]

use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::cpu::Cpu;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::{LINE, PAGE};

/// A set of at most so many pages has its memory from the beginning, be they zeros or not.
const POPULATED_MAX: u64 = 64;

/// Anonymous memory of whole pages.
#[derive(Debug)]
pub(super) struct Memory {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the value and to no thread.
unsafe impl Send for Memory {}
// SAFETY: through a shared reference the memory is only read.
unsafe impl Sync for Memory {}

impl Memory {
    /// Zeros: so many pages of 4096 bytes.
    pub(super) fn zeroed(pages: u64) -> Result<Self> {
        let too_large =
            || Error::new(Operation::Map, ErrorKind::TooLarge { max: isize::MAX as u64 });
        let bytes = pages.checked_mul(PAGE).ok_or_else(too_large)?;
        if bytes > isize::MAX as u64 {
            return Err(too_large());
        }
        let bytes = bytes as usize;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // A page fault each is dearer than all the memory of a small set.
        let populate = if pages <= POPULATED_MAX { MapFlags::POPULATE } else { MapFlags::empty() };
        let flags = MapFlags::PRIVATE | populate;
        // SAFETY: a new mapping where the kernel likes: nothing that exists is touched.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), bytes, access, flags) }
            .map_err(|errno| Error::os(Operation::Map, "mmap", errno))?;
        let failed = || Error::new(Operation::Map, ErrorKind::Gone);
        let base = NonNull::new(base.cast()).ok_or_else(failed)?;
        Ok(Self { base, bytes })
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `bytes` bytes are mapped and readable from the base on while the value lives, at
        // most isize::MAX, and initialised: the kernel gives zeros. Stores need a `&mut self`, or
        // the promise of `WorkingSet::pointer`.
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
        // SAFETY: the mapping of `zeroed`, whole; no reference outlives the value.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
