//! Cache lines: covering a byte range, writing it back, fencing, and copies that are durable
//! after the next fence.
//!
//! This layer knows nothing of files. Its copies take raw pointers into a mapping that other
//! threads and processes may change at the same time; they are assembly, so that this is not a
//! data race in the language's sense: concurrent accesses get interleaved 8-byte pieces.
//!
//! # Safety
//!
//! Every `unsafe fn` here asks for pointers into mapped memory. What may go wrong in mapped
//! memory all the same, a SIGBUS because the page is gone, is returned as [`Fault`] once
//! [`guard_faults`] has succeeded; without it the signal takes its usual course.
#![allow(unsafe_code)]

mod counters;
mod guard;
mod lines;
mod write_back;

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), path = "other.rs")]
mod arch;

use std::fmt;
use std::sync::OnceLock;

use crate::primitives::primitive;
use std::sync::atomic::{Ordering, fence};

pub use counters::Counts;
#[cfg(any(test, feature = "counters"))]
pub use counters::counts;
pub use guard::guard_faults;
pub use lines::LineCover;
pub use write_back::WriteBack;

/// From this many bytes on, [`Cpu::store_flush`] uses non-temporal stores and orders them.
///
/// Chosen by measurement (`benches/compare`, group `batch`): in a batch of sixteen, 4 KiB take
/// 271 instead of 291 ns with the order, 178 without; 2 KiB take 183 instead of 133 in a batch, but
/// 184 instead of 277 alone.
const ORDERED_NON_TEMPORAL_MIN: usize = 2048;

/// From this many bytes on, [`Cpu::store_flush_cached_domain`] uses non-temporal stores.
///
/// Chosen by measurement (`benches/compare`, group `eadr`): from here on they win on lines that
/// are in the cache too. 256 KiB take 15 instead of 22 us on fresh lines and 13 instead of 20 on
/// cached ones; for 64 KiB it is 3.0 instead of 5.1 us, but 2.9 instead of 2.3.
const CACHED_DOMAIN_NON_TEMPORAL_MIN: usize = 256 << 10;

/// The memory under the access is gone: the file was truncated, the page is poisoned, or the
/// medium could not be read. What was copied before the fault stays copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory fault: file truncated, page poisoned, or unreadable on the medium")
    }
}

impl std::error::Error for Fault {}

/// `(to, from, len)`; returns 0, or 1 after a fault. See the architecture's file.
type Routine = unsafe extern "C" fn(*mut u8, *const u8, usize) -> usize;

/// What this processor offers, chosen once per process. The fields that every write reads share
/// a cache line.
#[repr(C, align(64))]
pub struct Cpu {
    store: Routine,
    /// `store` and `write_back_lines` in one pass.
    store_write_back: Option<Routine>,
    /// `(first line, line size, lines)`, at least one line.
    write_back_lines: Option<Routine>,
    /// `(to, from, len)`, `to` and `len` multiples of 8, `len` at least 8.
    non_temporal: Option<Routine>,
    /// `(block, [bytes, mask], _)`: non-temporal store of the bytes whose mask byte has its high
    /// bit set, in a block of 16 bytes at a multiple of 16.
    non_temporal_masked: Option<Routine>,
    /// From this many bytes on it is faster than `store_write_back`.
    non_temporal_min: usize,
    line_size: usize,
    load: Routine,
    /// `(word, [expected in, found out; new], _)`
    compare_exchange: Routine,
    write_back: WriteBack,
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpu")
            .field("write_back", &self.write_back)
            .field("line_size", &self.line_size)
            .finish_non_exhaustive()
    }
}

#[inline]
fn outcome(result: usize) -> Result<(), Fault> {
    if result == 0 { Ok(()) } else { Err(Fault) }
}

/// Orders this thread's non-temporal stores before its later stores: without it, another thread
/// could find a later store and not the earlier bytes. No drain, and not counted as one.
#[inline]
fn order_non_temporal() {
    counters::count_order_fence();
    arch::fence();
}

/// A range that begins or ends within a word: the words by `words`, the bytes before and after
/// them by `masked`, so that no line is fetched.
///
/// # Safety
///
/// As [`Cpu::store`], with a processor's own routines.
unsafe fn store_ragged(
    words: Routine,
    masked: Routine,
    to: *mut u8,
    from: *const u8,
    len: usize,
) -> Result<(), Fault> {
    let head = ((to as usize).wrapping_neg() % 8).min(len);
    let middle = (len - head) & !7;
    let tail = len - head - middle;
    // SAFETY: head + middle + tail == len, so the pieces lie within the caller's ranges. `middle`
    // starts on a word if it is not empty, and so does `tail`; neither `head` nor `tail` has 8
    // bytes or crosses a word boundary.
    unsafe {
        if head > 0 {
            store_masked(masked, to, from, head)?;
        }
        if middle > 0 {
            outcome(words(to.add(head), from.add(head), middle))?;
        }
        if tail > 0 {
            store_masked(masked, to.add(head + middle), from.add(head + middle), tail)?;
        }
    }
    Ok(())
}

/// Up to 7 bytes within one aligned word.
///
/// # Safety
///
/// As [`store_ragged`].
unsafe fn store_masked(
    masked: Routine,
    to: *mut u8,
    from: *const u8,
    len: usize,
) -> Result<(), Fault> {
    let mut bytes = [0_u8; 8];
    for (i, byte) in bytes.iter_mut().enumerate().take(len) {
        // SAFETY: `i < len`.
        *byte = unsafe { *from.add(i) };
    }
    let into_block = to as usize % 16;
    let shift = 8 * into_block;
    let operands =
        [u128::from(u64::from_le_bytes(bytes)) << shift, ((1_u128 << (8 * len)) - 1) << shift];
    // SAFETY: the block lies in the page that `to` lies in, and only the `len` bytes are written:
    // the mask's other bytes are 0.
    outcome(unsafe {
        masked(to.wrapping_sub(into_block), operands.as_ptr().cast(), size_of_val(&operands))
    })
}

impl Cpu {
    /// The processor this process runs on.
    #[inline]
    pub fn get() -> &'static Self {
        static CPU: OnceLock<Cpu> = OnceLock::new();
        CPU.get_or_init(arch::select)
    }

    /// The write-back instruction in use.
    #[inline]
    #[must_use]
    pub fn write_back(&self) -> WriteBack {
        self.write_back
    }

    /// Size of a cache line in bytes, as the write-back instruction sees it.
    #[inline]
    #[must_use]
    pub fn line_size(&self) -> usize {
        self.line_size
    }

    /// Copies `len` bytes into mapped memory. Visible to readers; not durable.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes and `from` for reads of `len` bytes, and they do not overlap.
    /// Other threads and processes may access `to` meanwhile, but not `from`.
    #[inline]
    pub unsafe fn store(&self, to: *mut u8, from: *const u8, len: usize) -> Result<(), Fault> {
        // SAFETY: the routine writes exactly [to, to + len) and reads exactly [from, from + len),
        // which the caller vouches for.
        outcome(unsafe { (self.store)(to, from, len) })
    }

    /// Copies `len` bytes out of mapped memory.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes and `from` for reads of `len` bytes, and they do not overlap.
    /// Other threads and processes may access `from` meanwhile, but not `to`.
    #[inline]
    pub unsafe fn load(&self, to: *mut u8, from: *const u8, len: usize) -> Result<(), Fault> {
        // SAFETY: as in `store`.
        outcome(unsafe { (self.load)(to, from, len) })
    }

    /// Starts fetching the lines of a range into the caches. A hint: it reads nothing, so the
    /// memory may be gone, and it faults no page in.
    #[inline]
    pub fn prefetch(&self, address: *const u8, len: usize) {
        let lines = LineCover::of(address as usize, len, self.line_size);
        for line in 0..lines.count() {
            arch::prefetch(address.with_addr(lines.first() + line * self.line_size));
        }
    }

    /// Loads an aligned word of mapped memory, whole.
    ///
    /// # Safety
    ///
    /// `from` is a multiple of 8 and valid for reads of 8 bytes. Others may access it meanwhile.
    #[inline]
    pub unsafe fn load_u64(&self, from: *const u8) -> Result<u64, Fault> {
        let mut word = 0_u64;
        // SAFETY: passed on; an aligned word is loaded by one access.
        unsafe { self.load((&raw mut word).cast(), from, 8)? };
        fence(Ordering::Acquire);
        Ok(word)
    }

    /// Stores an aligned word of mapped memory, whole.
    ///
    /// # Safety
    ///
    /// `to` is a multiple of 8 and valid for writes of 8 bytes. Others may access it meanwhile.
    #[inline]
    pub unsafe fn store_u64(&self, to: *mut u8, word: u64) -> Result<(), Fault> {
        fence(Ordering::Release);
        // SAFETY: passed on; an aligned word is stored by one access.
        unsafe { self.store(to, (&raw const word).cast(), 8) }
    }

    /// Replaces an aligned word of mapped memory by `new` if it is `current`; returns the word
    /// found.
    ///
    /// # Safety
    ///
    /// As [`store_u64`](Self::store_u64).
    #[inline]
    pub unsafe fn compare_exchange_u64(
        &self,
        to: *mut u8,
        current: u64,
        new: u64,
    ) -> Result<u64, Fault> {
        let mut words = [current, new];
        // SAFETY: passed on; `words` is what the routine reads and writes. The pointer is made
        // from a mutable borrow because the routine writes the word found into it.
        outcome(unsafe { (self.compare_exchange)(to, words.as_mut_ptr().cast(), 16) })?;
        Ok(words[0])
    }

    /// Starts writing back every line that `[address, address + len)` touches, each once.
    /// Durable after the next [`fence`](Self::fence) of this thread.
    ///
    /// Fails with [`Fault`] also where the processor has no write-back to persistence: there is
    /// no silent no-op.
    ///
    /// # Safety
    ///
    /// `[address, address + len)` lies within one mapping.
    #[inline]
    pub unsafe fn flush(&self, address: *const u8, len: usize) -> Result<(), Fault> {
        let all = LineCover::of(address as usize, len, self.line_size);
        let lines = primitive!("cpu.flush.last_line", all, all.without_last());
        if lines.count() == 0 {
            return Ok(());
        }
        let Some(write_back_lines) = self.write_back_lines else { return Err(Fault) };
        counters::count_write_backs(lines.count());
        let first = address.with_addr(lines.first());
        let step = std::ptr::without_provenance(self.line_size);
        // SAFETY: the routine touches the lines of the range and no others. Mappings begin and
        // end on page boundaries, so a line that the range touches lies within its mapping.
        outcome(unsafe {
            primitive!(
                "cpu.flush.write_back",
                write_back_lines(first.cast_mut(), step, lines.count()),
                0
            )
        })
    }

    /// From how many bytes on [`store_persist`](Self::store_persist) uses non-temporal stores;
    /// `usize::MAX` where there are none. Chosen by measurement for each make of processor
    /// (`benches/compare`, group `crossover`).
    #[inline]
    #[must_use]
    pub fn non_temporal_min(&self) -> usize {
        self.non_temporal_min
    }

    /// Copies `len` bytes into mapped memory such that they are durable after the next
    /// [`fence`](Self::fence) of this thread. On return other threads see them, before
    /// what this thread stores later.
    ///
    /// # Safety
    ///
    /// As [`store`](Self::store).
    #[inline]
    pub unsafe fn store_flush(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Result<(), Fault> {
        if len < ORDERED_NON_TEMPORAL_MIN || self.non_temporal.is_none() {
            // SAFETY: passed on.
            return unsafe { self.store_cached_flush(to, from, len) };
        }
        // SAFETY: passed on.
        let stored = unsafe { self.store_non_temporal_flush(to, from, len) };
        primitive!("cpu.store_flush.order", order_non_temporal(), ());
        stored
    }

    /// Copies `len` bytes into mapped memory, durable on return: one fence included. By stores
    /// and write-backs, or, from [`non_temporal_min`](Self::non_temporal_min) bytes on, by
    /// non-temporal stores.
    ///
    /// Several lines are stored first and then written back: where they are in no cache, they are
    /// fetched together so, and two take 145 instead of 183 ns (`benches/log` on an Intel
    /// processor, the ways by hand).
    ///
    /// # Safety
    ///
    /// As [`store`](Self::store).
    #[inline]
    pub unsafe fn store_persist(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Result<(), Fault> {
        // SAFETY: passed on.
        let stored = unsafe {
            if len >= self.non_temporal_min {
                self.store_non_temporal_flush(to, from, len)
            } else if LineCover::of(to as usize, len, self.line_size).count() > 1 {
                self.store(to, from, len).and_then(|()| self.flush(to, len))
            } else {
                self.store_cached_flush(to, from, len)
            }
        };
        primitive!("cpu.store_persist.fence", self.fence(), ());
        stored
    }

    /// [`store_flush`](Self::store_flush) by stores and write-backs, whatever the size.
    ///
    /// # Safety
    ///
    /// As [`store`](Self::store).
    #[inline]
    pub unsafe fn store_cached_flush(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Result<(), Fault> {
        let Some(store_write_back) = self.store_write_back else {
            // SAFETY: passed on; `to` with `len` lies within one mapping because it is valid.
            return unsafe { self.store(to, from, len).and_then(|()| self.flush(to, len)) };
        };
        counters::count_write_backs(LineCover::of(to as usize, len, self.line_size).count());
        // SAFETY: the routine writes exactly [to, to + len), reads exactly [from, from + len),
        // and writes back the lines of the former.
        outcome(unsafe {
            primitive!(
                "cpu.store_cached_flush.write_back",
                store_write_back(to, from, len),
                (self.store)(to, from, len)
            )
        })
    }

    /// [`store_flush`](Self::store_flush) by non-temporal stores, whatever the size, where the
    /// processor has them.
    ///
    /// Other threads are sure to see the bytes only after the next fence: until then, a later
    /// plain store of this thread, a releasing one too, may overtake them (SDM vol. 1, 10.4.6.2).
    /// Measured: of the readers of a flag that was stored after 64 bytes, 4 % found the old bytes.
    ///
    /// # Safety
    ///
    /// As [`store`](Self::store).
    #[inline]
    pub unsafe fn store_non_temporal_flush(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Result<(), Fault> {
        let (Some(words), Some(masked)) = (self.non_temporal, self.non_temporal_masked) else {
            // SAFETY: passed on.
            return unsafe { self.store_cached_flush(to, from, len) };
        };
        counters::count_non_temporal(LineCover::of(to as usize, len, self.line_size).count());
        if (to as usize | len).is_multiple_of(8) && len > 0 {
            // SAFETY: passed on; the routine asks for whole words.
            return outcome(unsafe { words(to, from, len) });
        }
        // SAFETY: passed on.
        unsafe { store_ragged(words, masked, to, from, len) }
    }

    /// [`store_flush`](Self::store_flush) for memory whose persistence domain includes the caches
    /// (eADR): nothing needs a write-back, but a large copy is faster past the cache. Ordered as
    /// [`store_flush`](Self::store_flush) is.
    ///
    /// # Safety
    ///
    /// As [`store`](Self::store).
    #[inline]
    pub unsafe fn store_flush_cached_domain(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Result<(), Fault> {
        if len < CACHED_DOMAIN_NON_TEMPORAL_MIN || self.non_temporal.is_none() {
            // SAFETY: passed on.
            return unsafe { self.store(to, from, len) };
        }
        // SAFETY: passed on.
        let stored = unsafe { self.store_non_temporal_flush(to, from, len) };
        primitive!("cpu.store_flush_cached_domain.order", order_non_temporal(), ());
        stored
    }

    /// Sets `len` bytes to `byte` such that they are durable after the next
    /// [`fence`](Self::fence) of this thread. Ordered as [`store_flush`](Self::store_flush) is.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes of `len` bytes.
    pub unsafe fn fill_flush(&self, to: *mut u8, byte: u8, len: usize) -> Result<(), Fault> {
        const PATTERN: usize = 4096;
        let pattern = [byte; PATTERN];
        let past_the_cache = len >= ORDERED_NON_TEMPORAL_MIN && self.non_temporal.is_some();
        let mut done = 0;
        let mut stored = Ok(());
        while done < len && stored.is_ok() {
            // Pieces end on line boundaries, so that no line is written back twice.
            let at = to.wrapping_add(done);
            let piece = (len - done).min(PATTERN - (at as usize & (self.line_size - 1)));
            // SAFETY: `done + piece <= len`, and the pattern has at least `piece` bytes.
            stored = unsafe {
                if past_the_cache {
                    self.store_non_temporal_flush(at, pattern.as_ptr(), piece)
                } else {
                    self.store_cached_flush(at, pattern.as_ptr(), piece)
                }
            };
            done += piece;
        }
        if past_the_cache {
            primitive!("cpu.fill_flush.order", order_non_temporal(), ());
        }
        stored
    }

    /// Waits until everything this thread wrote back, or stored past the cache, is in the
    /// persistence domain. Covers this thread's write-backs only: another thread's need a fence
    /// of their own (SDM vol. 2, SFENCE; Arm ARM, DSB).
    #[inline]
    pub fn fence(&self) {
        counters::count_fence();
        primitive!("cpu.fence", arch::fence(), ());
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod stepper;
#[cfg(test)]
mod tests;
