//! x86-64: CLWB, CLFLUSHOPT, CLFLUSH, SFENCE, and copies with SSE2, AVX or AVX-512.
//!
//! # References
//!
//!  - Intel SDM vol. 2, CLWB, CLFLUSHOPT, CLFLUSH, SFENCE, MOVNTDQ, MASKMOVDQU; vol. 3, 12.10
//!    (memory ordering of the flush instructions)
//!  - AMD APM vol. 3, the same instructions
#![allow(unsafe_code)]

#[path = "x86_64_routines.rs"]
mod routines;

use core::arch::x86_64::{__cpuid, __cpuid_count, __get_cpuid_max};

use super::{Cpu, Routine, WriteBack};
pub(super) use routines::{EXIT, GUARDED};
use routines::{
    compare_exchange, load_avx, load_sse2, non_temporal_avx, non_temporal_avx512,
    non_temporal_masked, non_temporal_sse2, store_avx, store_clflush_avx, store_clflush_sse2,
    store_clflushopt_avx, store_clflushopt_sse2, store_clwb_avx, store_clwb_sse2, store_sse2,
    write_back_clflush, write_back_clflushopt, write_back_clwb,
};

/// Cache line size in bytes: CLWB and its relatives work on 64 bytes on every x86-64 processor
/// that has them (cpuid 1.EBX bits 15:8 reports 8 quadwords).
pub(super) const LINE_SIZE: usize = 64;

/// Orders every earlier store, write-back and non-temporal store of this thread before every
/// later one (SDM vol. 2, SFENCE).
#[inline]
pub(super) fn fence() {
    // SAFETY: SFENCE has no operands and is part of SSE, which x86-64 implies. Not `nomem`:
    // the compiler must not move stores across it.
    unsafe { core::arch::asm!("sfence", options(nostack, preserves_flags)) };
}

/// Starts fetching the line of an address (SDM vol. 2, PREFETCHh): a hint, which does not fault,
/// whatever the address.
#[inline]
pub(super) fn prefetch(address: *const u8) {
    // SAFETY: reads nothing that the program can see.
    unsafe {
        core::arch::asm!("prefetcht0 [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
}

/// Which instruction the processor has: CLWB keeps the line in the cache, CLFLUSHOPT evicts it,
/// CLFLUSH in addition waits for its predecessors.
pub(super) fn detect() -> WriteBack {
    if __get_cpuid_max(0).0 >= 7 {
        let ebx = __cpuid_count(7, 0).ebx;
        if ebx & (1 << 24) != 0 {
            return WriteBack::Clwb;
        }
        if ebx & (1 << 23) != 0 {
            return WriteBack::ClflushOpt;
        }
    }
    if __cpuid(1).edx & (1 << 19) != 0 {
        return WriteBack::Clflush;
    }
    WriteBack::None
}

/// From how many bytes on non-temporal stores beat stores and write-backs here.
///
/// AMD: from a line on, at every size, on fresh lines and on cached ones (64 bytes: 101 against
/// 163 ns; measured on family 19h). Intel: 256 bytes 229 against 195 ns, 512 bytes 239 against
/// 249; and so for everybody else.
fn non_temporal_min() -> usize {
    let vendor = __cpuid(0);
    // "AuthenticAMD" (APM vol. 3, CPUID Fn0000_0000).
    if (vendor.ebx, vendor.edx, vendor.ecx) == (0x6874_7541, 0x6974_6e65, 0x444d_4163) {
        LINE_SIZE
    } else {
        8 * LINE_SIZE
    }
}

/// The routines for this processor.
pub(super) fn select() -> Cpu {
    // `is_x86_feature_detected` asks XGETBV whether the kernel saves the vector state.
    let vectors = if std::arch::is_x86_feature_detected!("avx512f") {
        Vectors::Avx512
    } else if std::arch::is_x86_feature_detected!("avx") {
        Vectors::Avx
    } else {
        Vectors::Sse2
    };
    with(vectors, detect(), non_temporal_min())
}

/// The widest vectors that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Vectors {
    Sse2,
    Avx,
    Avx512,
}

/// The routines for a processor with these vectors and this write-back.
pub(super) fn with(vectors: Vectors, write_back: WriteBack, non_temporal_min: usize) -> Cpu {
    let avx = vectors >= Vectors::Avx;
    let either = |with_avx: Routine, without: Routine| if avx { with_avx } else { without };
    let (store_write_back, write_back_lines): (Option<Routine>, Option<Routine>) = match write_back
    {
        WriteBack::Clwb => (Some(either(store_clwb_avx, store_clwb_sse2)), Some(write_back_clwb)),
        WriteBack::ClflushOpt => {
            (Some(either(store_clflushopt_avx, store_clflushopt_sse2)), Some(write_back_clflushopt))
        }
        WriteBack::Clflush => {
            (Some(either(store_clflush_avx, store_clflush_sse2)), Some(write_back_clflush))
        }
        _ => (None, None),
    };
    Cpu {
        store: either(store_avx, store_sse2),
        load: either(load_avx, load_sse2),
        compare_exchange,
        non_temporal: Some(match vectors {
            Vectors::Sse2 => non_temporal_sse2,
            Vectors::Avx => non_temporal_avx,
            Vectors::Avx512 => non_temporal_avx512,
        }),
        non_temporal_masked: Some(non_temporal_masked),
        non_temporal_min,
        store_write_back,
        write_back_lines,
        write_back,
        line_size: LINE_SIZE,
    }
}

/// The instruction pointer in a signal handler's third argument.
///
/// # Safety
///
/// `context` is the third argument of an `SA_SIGINFO` handler.
pub(super) unsafe fn instruction_pointer(context: *mut libc::c_void) -> *mut usize {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the caller passes the kernel's ucontext. Its machine context begins with the
    // general registers as 64-bit words, RIP at index REG_RIP, in glibc and in musl alike
    // (arch/x86/include/uapi/asm/sigcontext.h).
    unsafe { (&raw mut (*context).uc_mcontext).cast::<usize>().add(libc::REG_RIP as usize) }
}
