//! How much address space does a region take, and where from?
//!
//! A region never moves, so room for its growth is reserved when it is opened. That costs no memory,
//! but of address space there is only so much: 128 TiB for a process on x86-64. Few regions reserve
//! plenty; of many, each reserves what its length suggests.
//!
//! # Safety
//!
//! A [`Space`] is a mapping without access rights that nobody else knows of, until it is dropped.
#![allow(unsafe_code)]

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::mm::{self, MapFlags, ProtFlags};

use super::mapping::page_size;

/// Address space reserved for growth where [`Options::max_len`](crate::Options::max_len) is not
/// given: this many bytes, or four times the length if that is more. Once the regions of a process
/// have taken a sixteenth of its address space (512 of them on x86-64), it is
/// [`FRUGAL_RESERVE`] for those that are opened after. Reserved address space costs no memory.
pub const DEFAULT_RESERVE: u64 = 16 << 30;

/// Address space reserved for growth by each of many regions: this many bytes, or four times the
/// length if that is more. See [`DEFAULT_RESERVE`].
pub const FRUGAL_RESERVE: u64 = 64 << 20;

/// Bytes of address space that regions have reserved in this process.
static RESERVED: AtomicUsize = AtomicUsize::new(0);

/// How much address space a region takes, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Reserve {
    /// Enough for the growth that was asked for, or the default.
    pub(super) wanted: usize,
    /// Enough to open: taken where `wanted` cannot be had.
    pub(super) least: usize,
}

impl Reserve {
    pub(super) fn exactly(len: usize) -> Self {
        Self { wanted: len, least: len }
    }

    /// For a region of `len` bytes that may grow, nobody has said how far.
    pub(super) fn to_grow(len: usize) -> Self {
        Self { wanted: usual(len, RESERVED.load(Ordering::Relaxed), space()), least: len }
    }
}

fn usual(len: usize, reserved: usize, space: usize) -> usize {
    let plenty = reserved < space / 16;
    let room = if plenty { DEFAULT_RESERVE } else { FRUGAL_RESERVE };
    len.saturating_mul(4).max(room as usize)
}

/// How much address space a process has, about: stacks lie near its end.
fn space() -> usize {
    let local = 0_u8;
    ptr::from_ref(&local).addr().checked_next_power_of_two().unwrap_or(usize::MAX)
}

/// Address space of our own, without access rights.
pub(super) struct Space {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: an address and a number; nobody else gives the memory back.
unsafe impl Send for Space {}
// SAFETY: as above.
unsafe impl Sync for Space {}

impl Space {
    /// Reserves address space at a multiple of `align` (a power of two).
    pub(super) fn reserve(wanted: &Reserve, align: usize) -> Result<Self, Errno> {
        match Self::exactly(wanted.wanted, align) {
            // A limit on address space (setrlimit(2), RLIMIT_AS) is no reason not to open.
            Err(Errno::NOMEM) if wanted.least < wanted.wanted => Self::exactly(wanted.least, align),
            result => result,
        }
    }

    fn exactly(len: usize, align: usize) -> Result<Self, Errno> {
        // A region of 0 bytes has an address as well.
        let len = len.max(1).checked_next_multiple_of(page_size()).ok_or(Errno::NOMEM)?;
        // The kernel's choice is a multiple of the page size already.
        let slack = if align > page_size() { align } else { 0 };
        let span = len.checked_add(slack).ok_or(Errno::NOMEM)?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice.
        let start = unsafe {
            mm::mmap_anonymous(
                ptr::null_mut(),
                span,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let head = start.align_offset(align);
        let base = start.wrapping_byte_add(head);
        let tail = span - head - len;
        // SAFETY: both pieces are parts of the mapping just made, outside [base, base + len).
        // A failure to give them back wastes address space and nothing else.
        unsafe {
            if head > 0 {
                let _ = mm::munmap(start, head);
            }
            if tail > 0 {
                let _ = mm::munmap(base.wrapping_byte_add(len), tail);
            }
        }
        let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        RESERVED.fetch_add(len, Ordering::Relaxed);
        Ok(Self { base, len })
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// In bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        RESERVED.fetch_sub(self.len, Ordering::Relaxed);
        // SAFETY: reserved with this length and not given back since. Nothing borrows from a
        // space that is dropped.
        let _ = unsafe { mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIB: usize = 1 << 40;

    #[test]
    fn few_regions_take_plenty_and_many_what_their_length_suggests() {
        let space = 128 * TIB;
        let gib = 1 << 30;
        for (len, reserved, takes) in [
            (4096, 0, 16 * gib),
            (8 * gib, 0, 32 * gib),
            (4096, 8 * TIB - 1, 16 * gib),
            (4096, 8 * TIB, gib / 16),
            (gib, 8 * TIB, 4 * gib),
            (usize::MAX / 2, 0, usize::MAX),
        ] {
            assert_eq!(usual(len, reserved, space), takes, "{len} {reserved}");
        }
    }

    #[test]
    fn what_is_reserved_is_given_back() {
        let len = 3 << 30;
        let before = RESERVED.load(Ordering::Relaxed);
        let space = Space::reserve(&Reserve::exactly(len), 2 << 20).unwrap();
        assert!(space.base().addr().get().is_multiple_of(2 << 20) && space.len() == len);
        // Other tests reserve less at a time.
        drop(space);
        assert!(RESERVED.load(Ordering::Relaxed) < before + len || before > len);
    }

    #[test]
    fn this_process_has_more_than_it_has_taken() {
        assert!(space() > ptr::from_ref(&RESERVED).addr() && space() >= 1 << 38);
    }
}
