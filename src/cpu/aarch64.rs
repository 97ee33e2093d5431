//! AArch64: DC CVADP or DC CVAP, DSB, and copies by pairs of 64-bit registers.
//!
//! # Safety
//!
//! As on x86-64, each routine is a leaf that touches no stack and fills one slot, with its
//! error exit at a fixed distance.
//!
//! # 8-byte pieces
//!
//! LDP and STP of 64-bit registers access two aligned words with single-copy atomicity each
//! (Arm ARM B2.2.1).
//!
//! # References
//!
//!  - Arm ARM, C5.3 (DC CVAP, DC CVADP), C6 (DSB), D7 (point of persistence), CTR_EL0
//!  - `Documentation/arch/arm64/elf_hwcaps.rst`: HWCAP_DCPOP, HWCAP2_DCPODP
#![allow(unsafe_code)]

use core::arch::{asm, global_asm};

use super::ways::Ways;
use super::{Cpu, Routine, WriteBack};

/// Bytes from the start of a routine to its error exit.
pub(super) const EXIT: usize = 496;
/// Bytes in a routine's slot.
const SLOT: usize = 512;

/// See the one of x86-64.
macro_rules! slot {
    ($(#[$doc:meta])* $name:ident, $($line:expr),* $(,)?) => {
        global_asm!(
            $crate::cpu::symbol!(begin $name),
            "777:",
            "hint #34", // BTI c: these are called through pointers
            $($line,)*
            ".org 777b + {at_exit}",
            "mov x0, #1",
            "ret",
            ".org 777b + {end}",
            $crate::cpu::symbol!(end $name),
            at_exit = const EXIT,
            end = const SLOT,
        );
        unsafe extern "C" {
            $(#[$doc])*
            #[link_name = $crate::cpu::symbol!(name $name)]
            fn $name(to: *mut u8, from: *const u8, len: usize) -> usize;
        }
    };
}

/// `x0` to, `x1` from, `x2` len. `$side` is the pointer into the region.
macro_rules! copy {
    ($(#[$doc:meta])* $name:ident, $side:literal) => {
        slot!(
            $(#[$doc])* $name,
            "cmp x2, #8",
            "b.lo 6f",
            // Up to 7 bytes, until the region's side is 8-byte aligned.
            concat!("tbz ", $side, ", #0, 2f"),
            "ldrb w3, [x1], #1",
            "strb w3, [x0], #1",
            "sub x2, x2, #1",
            "2:",
            concat!("tbz ", $side, ", #1, 3f"),
            "ldrh w3, [x1], #2",
            "strh w3, [x0], #2",
            "sub x2, x2, #2",
            "3:",
            concat!("tbz ", $side, ", #2, 4f"),
            "ldr w3, [x1], #4",
            "str w3, [x0], #4",
            "sub x2, x2, #4",
            "4:",
            "subs x2, x2, #32",
            "b.lo 5f",
            "20:",
            "ldp x3, x4, [x1]",
            "ldp x5, x6, [x1, #16]",
            "stp x3, x4, [x0]",
            "stp x5, x6, [x0, #16]",
            "add x1, x1, #32",
            "add x0, x0, #32",
            "subs x2, x2, #32",
            "b.hs 20b",
            "5:",
            "add x2, x2, #32",
            "21:",
            "cmp x2, #8",
            "b.lo 6f",
            "ldr x3, [x1], #8",
            "str x3, [x0], #8",
            "sub x2, x2, #8",
            "b 21b",
            "6:",
            "tbz x2, #2, 7f",
            "ldr w3, [x1], #4",
            "str w3, [x0], #4",
            "7:",
            "tbz x2, #1, 8f",
            "ldrh w3, [x1], #2",
            "strh w3, [x0], #2",
            "8:",
            "tbz x2, #0, 9f",
            "ldrb w3, [x1]",
            "strb w3, [x0]",
            "9:",
            "mov x0, #0",
            "ret",
        );
    };
}

copy!(
    /// Stores into the region; words are whole on the `to` side.
    store, "x0"
);
copy!(
    /// Loads from the region; words are whole on the `from` side.
    load, "x1"
);

/// Writes back `x2` lines of `x1` bytes from `x0` on. The instructions are given by their SYS
/// encodings, since assemblers know the names only with an architecture extension.
macro_rules! write_back {
    ($name:ident, $sys:literal) => {
        slot!(
            $name,
            "2:",
            $sys,
            "add x0, x0, x1",
            "subs x2, x2, #1",
            "b.ne 2b",
            "mov x0, #0",
            "ret",
        );
    };
}

write_back!(write_back_cvap, "sys #3, c7, c12, #1, x0");
write_back!(write_back_cvadp, "sys #3, c7, c13, #1, x0");

slot!(
    /// Compare and exchange of the word at `to`; `from` points to the expected and the new word,
    /// and the word found is written over the expected one.
    compare_exchange,
    "ldp x3, x4, [x1]",
    "2:",
    "ldaxr x5, [x0]",
    "cmp x5, x3",
    "b.ne 3f",
    "stlxr w6, x4, [x0]",
    "cbnz w6, 2b",
    "b 4f",
    "3:",
    "clrex",
    "4:",
    "str x5, [x1]",
    "mov x0, #0",
    "ret",
);

/// Every routine that may fault, for the signal handler.
pub(super) const GUARDED: [Routine; 5] =
    [store, load, compare_exchange, write_back_cvap, write_back_cvadp];

/// Waits for this thread's cache maintenance. A DMB does not: it orders, but does not wait for
/// DC CVAP to complete (Arm ARM, DSB).
#[inline]
pub(super) fn fence() {
    // SAFETY: DSB has no operands in memory. Not `nomem`: stores must not move across it.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}

/// Starts fetching the line of an address (Arm ARM, PRFM): a hint, which does not fault, whatever
/// the address.
#[inline]
pub(super) fn prefetch(address: *const u8) {
    // SAFETY: reads nothing that the program can see.
    unsafe {
        asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly))
    };
}

/// The best write-back of this processor.
pub(super) fn detect() -> WriteBack {
    const HWCAP_DCPOP: u64 = 1 << 16;
    const HWCAP2_DCPODP: u64 = 1 << 0;
    // SAFETY: getauxval reads this process's auxiliary vector.
    let (hwcap, hwcap2) =
        unsafe { (libc::getauxval(libc::AT_HWCAP), libc::getauxval(libc::AT_HWCAP2)) };
    if hwcap2 & HWCAP2_DCPODP != 0 {
        WriteBack::DcCvadp
    } else if hwcap & HWCAP_DCPOP != 0 {
        WriteBack::DcCvap
    } else {
        WriteBack::None
    }
}

fn line_size() -> usize {
    let ctr: u64;
    // SAFETY: CTR_EL0 is readable at EL0, or the kernel emulates the read
    // (Documentation/arch/arm64/cpu-feature-registers.rst).
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    // DminLine, bits 19:16: log2 of the words in the smallest data cache line.
    4 << ((ctr >> 16) & 0xf)
}

/// Calls one of the routines of this file.
///
/// # Safety
///
/// Those of the routine.
#[inline]
pub(super) unsafe fn call(routine: Routine, to: *mut u8, from: *const u8, len: usize) -> usize {
    // SAFETY: the caller's.
    unsafe { routine(to, from, len) }
}

/// Nothing goes past the caches, so there is nothing to know.
pub(super) fn known() -> Option<Ways> {
    Some(Ways::CACHED)
}

/// Never called: nothing is measured where nothing goes past the caches.
///
/// # Safety
///
/// None needed.
pub(super) unsafe fn evict(_to: *mut u8, _len: usize) {}

/// The routines for this processor.
pub(super) fn select() -> Cpu {
    let write_back = detect();
    Cpu {
        store,
        load,
        compare_exchange,
        // STNP is a hint that still goes through the caches: nothing bypasses them here.
        past: None,
        ways: Ways::CACHED,
        store_down: None,
        fill: None,
        store_write_back: None,
        write_back_lines: match write_back {
            WriteBack::DcCvadp => Some(write_back_cvadp),
            WriteBack::DcCvap => Some(write_back_cvap),
            _ => None,
        },
        write_back,
        line_size: line_size(),
    }
}

/// The same: there is no other write-back to choose.
pub(super) fn select_with(_write_back: WriteBack) -> Cpu {
    select()
}

/// The instruction pointer in a signal handler's third argument.
///
/// # Safety
///
/// `context` is the third argument of an `SA_SIGINFO` handler.
pub(super) unsafe fn instruction_pointer(context: *mut libc::c_void) -> *mut usize {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the caller passes the kernel's ucontext.
    unsafe { (&raw mut (*context).uc_mcontext.pc).cast::<usize>() }
}
