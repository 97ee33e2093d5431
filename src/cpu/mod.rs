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

/// What stands before and after a routine in assembly, and its symbol: hidden, so that no other library
/// sees it, and removed by the linker where nothing calls it.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! symbol {
    (name $name:ident) => {
        concat!("daxmap_", env!("CARGO_PKG_VERSION"), "_", stringify!($name))
    };
    (begin $name:ident) => {
        concat!(
            ".pushsection .text.", $crate::cpu::symbol!(name $name), ", \"ax\", %progbits\n",
            ".p2align 4\n",
            ".globl ", $crate::cpu::symbol!(name $name), "\n",
            ".hidden ", $crate::cpu::symbol!(name $name), "\n",
            ".type ", $crate::cpu::symbol!(name $name), ", %function\n",
            $crate::cpu::symbol!(name $name), ":\n",
            ".cfi_startproc"
        )
    };
    (end $name:ident) => {
        concat!(
            ".cfi_endproc\n",
            ".size ", $crate::cpu::symbol!(name $name), ", . - ", $crate::cpu::symbol!(name $name), "\n",
            ".popsection"
        )
    };
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use symbol;

mod counters;
mod durable;
mod guard;
mod lines;
mod moves;
mod ways;
mod write_back;

#[cfg_attr(target_arch = "x86_64", path = "x86_64/mod.rs")]
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
pub use ways::{Basis, Ways};
pub use write_back::WriteBack;

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

/// What this processor offers, chosen once per process. The fields that every write reads come
/// first.
#[repr(C, align(64))]
pub struct Cpu {
    ways: Ways,
    /// Store and write back in one pass.
    store_write_back: Option<Routine>,
    past: Option<Past>,
    store: Routine,
    /// `(first line, line size, lines)`, at least one line.
    write_back_lines: Option<Routine>,
    line_size: usize,
    load: Routine,
    /// Whole lines, the last one first: `to` and `len` multiples of the line size, `len` not 0.
    store_down: Option<Routine>,
    /// Whole lines, each set to the 64 bytes at `from`.
    fill: Option<Routine>,
    /// `(word, [expected in, found out; new], _)`
    compare_exchange: Routine,
    write_back: WriteBack,
}

/// Stores past the caches.
#[derive(Clone, Copy)]
struct Past {
    /// `to` and `len` multiples of 8, `len` at least 8.
    words: Routine,
    /// The same by MOVDIR64B, where the processor has it.
    direct: Option<Routine>,
    /// As `Cpu::store_down`.
    down: Routine,
    /// As `Cpu::fill`.
    fill: Routine,
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpu")
            .field("write_back", &self.write_back)
            .field("line_size", &self.line_size)
            .field("ways", &self.ways)
            .finish_non_exhaustive()
    }
}

#[inline]
fn outcome(result: usize) -> Result<(), Fault> {
    if result == 0 { Ok(()) } else { Err(Fault) }
}

impl Cpu {
    /// The processor this process runs on.
    #[inline]
    pub fn get() -> &'static Self {
        static CPU: OnceLock<Cpu> = OnceLock::new();
        CPU.get_or_init(|| {
            let mut cpu = arch::select();
            cpu.ways = Ways::choose(&cpu);
            cpu
        })
    }

    /// A description of the caller's own: copies that go another way than [`get`](Self::get)
    /// chose, or a write-back other than the best one. If the processor does not have
    /// `write_back`, its best one is used.
    ///
    /// [`Ways::flush`] counts as at least two lines: a shorter range may have no whole line.
    #[must_use]
    pub fn with(write_back: WriteBack, ways: Ways) -> Self {
        let mut cpu = arch::select_with(write_back);
        if cpu.past.is_some() {
            cpu.ways = Ways { flush: ways.flush.max(2 * cpu.line_size), ..ways };
        }
        cpu
    }

    /// From how many bytes on copies go past the caches, and why.
    #[must_use]
    #[inline]
    pub fn ways(&self) -> Ways {
        self.ways
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
        outcome(unsafe { arch::call(self.store, to, from, len) })
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
        outcome(unsafe { arch::call(self.load, to, from, len) })
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
                arch::call(write_back_lines, first.cast_mut(), step, lines.count()),
                0
            )
        })
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
