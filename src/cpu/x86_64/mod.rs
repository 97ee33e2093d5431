//! x86-64: CLWB, CLFLUSHOPT, CLFLUSH, SFENCE, MOVDIR64B, and copies with SSE2, AVX or AVX-512.
//!
//! # References
//!
//!  - Intel SDM vol. 2, CLWB, CLFLUSHOPT, CLFLUSH, SFENCE, MOVNTDQ, MOVDIR64B; vol. 3, 12.10
//!    (memory ordering of the flush instructions)
//!  - AMD APM vol. 3, the same instructions
#![allow(unsafe_code)]

#[macro_use]
mod slot;
mod copies;
mod durable;
mod whole_lines;

use core::arch::x86_64::{__cpuid_count, __get_cpuid_max, CpuidResult};

use super::ways::{Basis, Ways};
use super::{Cpu, Past, Routine, WriteBack};
use copies::{
    compare_exchange, load_avx, load_avx512, load_sse2, store_avx, store_avx512, store_sse2,
};
use durable::{
    non_temporal_avx, non_temporal_avx512, non_temporal_direct, non_temporal_sse2,
    store_clflush_avx, store_clflush_avx512, store_clflush_sse2, store_clflushopt_avx,
    store_clflushopt_avx512, store_clflushopt_sse2, store_clwb_avx, store_clwb_avx512,
    store_clwb_sse2, write_back_clflush, write_back_clflushopt, write_back_clwb,
};
pub(super) use slot::EXIT;
use whole_lines::{
    fill_avx, fill_avx512, fill_sse2, non_temporal_down_avx, non_temporal_down_avx512,
    non_temporal_down_sse2, non_temporal_fill_avx, non_temporal_fill_avx512,
    non_temporal_fill_sse2, store_down_avx, store_down_avx512, store_down_sse2,
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

/// Calls one of the routines of this file, which change few registers: what the caller has in the
/// others needs no place on the stack. Each such place would be a store, and a store waits behind
/// the fence of the copy before (eight cost 6 % of a durable copy of 64 bytes).
///
/// # Safety
///
/// Those of the routine, which is one of [`GUARDED`].
#[inline]
pub(super) unsafe fn call(routine: Routine, to: *mut u8, from: *const u8, len: usize) -> usize {
    let failed;
    // SAFETY: the caller's. These are all the registers that a routine changes; none has need of an
    // aligned stack.
    unsafe {
        core::arch::asm!(
            "call {routine}",
            routine = in(reg) routine,
            inout("rdi") to => _,
            inout("rsi") from => _,
            inout("rdx") len => _,
            out("rax") failed,
            out("rcx") _,
            out("r8") _,
            // VZEROUPPER changes all of the first sixteen.
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            out("xmm16") _, out("xmm20") _, out("xmm21") _, out("xmm22") _, out("xmm23") _,
        );
    }
    failed
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

/// What CPUID says of a leaf, subleaf 0; `None` where the processor has no such leaf.
fn cpuid(leaf: u32) -> Option<CpuidResult> {
    // SAFETY: every 64-bit x86 processor has CPUID (APM vol. 3). Newer compilers ask for no proof.
    #[allow(unused_unsafe)]
    unsafe {
        (__get_cpuid_max(0).0 >= leaf).then(|| __cpuid_count(leaf, 0))
    }
}

/// Which instruction the processor has: CLWB keeps the line in the cache, CLFLUSHOPT evicts it,
/// CLFLUSH in addition waits for its predecessors.
pub(super) fn detect() -> WriteBack {
    if let Some(CpuidResult { ebx, .. }) = cpuid(7) {
        if ebx & (1 << 24) != 0 {
            return WriteBack::Clwb;
        }
        if ebx & (1 << 23) != 0 {
            return WriteBack::ClflushOpt;
        }
    }
    if cpuid(1).is_some_and(|found| found.edx & (1 << 19) != 0) {
        return WriteBack::Clflush;
    }
    WriteBack::None
}

/// What is known of processors, by vendor and feature bits. Family and model are not asked: on the
/// virtual machines that this was measured on they are the hypervisor's choice. `None`: the ways
/// have to be measured.
///
/// | vendor, features | from here on past the caches | ordered | source |
/// |---|---|---|---|
/// | AMD | 64 | 2048 | EPYC, family 19h, not measured again: 64 B 101 against 163 ns, fresh or cached |
/// | Intel without MOVDIR64B | 512 | 2048 | Xeon, not measured again: 256 B 229 against 195, 512 B 239 against 249 ns |
/// | Intel with MOVDIR64B | | | two Xeons do not agree: 64 B by it 174 against 206 ns, and (family 6 model 207, 2026-11-30) 152 against 122 |
pub(super) fn known() -> Option<Ways> {
    let vendor = cpuid(0)?;
    // "AuthenticAMD" (APM vol. 3, CPUID Fn0000_0000), "GenuineIntel" (SDM vol. 2, CPUID).
    match (vendor.ebx, vendor.edx, vendor.ecx) {
        (0x6874_7541, 0x6974_6e65, 0x444d_4163) => Some(Ways {
            persist: LINE_SIZE,
            partial_lines: true,
            basis: Basis::Table("AMD"),
            ..Ways::UNKNOWN
        }),
        (0x756e_6547, 0x4965_6e69, 0x6c65_746e) if !has_direct() => {
            Some(Ways { basis: Basis::Table("Intel"), ..Ways::UNKNOWN })
        }
        _ => None,
    }
}

/// Whether there is MOVDIR64B (SDM vol. 2: CPUID.7.0:ECX bit 28).
pub(super) fn has_direct() -> bool {
    cpuid(7).is_some_and(|found| found.ecx & (1 << 28) != 0)
}

/// The routines for this processor, by way of the caches alone.
pub(super) fn select() -> Cpu {
    with(vectors(), detect(), has_direct())
}

/// The same with a write-back that need not be the best one; with the best if the processor does not
/// have it.
pub(super) fn select_with(write_back: WriteBack) -> Cpu {
    // CLWB came after CLFLUSHOPT, and that after CLFLUSH: who has one has those before it.
    let strength = |write_back| match write_back {
        WriteBack::Clwb => 3,
        WriteBack::ClflushOpt => 2,
        WriteBack::Clflush => 1,
        _ => 0,
    };
    let best = detect();
    let possible = 1..=strength(best);
    let write_back = if possible.contains(&strength(write_back)) { write_back } else { best };
    with(vectors(), write_back, has_direct())
}

/// The widest vectors of this processor that do no harm.
fn vectors() -> Vectors {
    // `is_x86_feature_detected` asks XGETBV whether the kernel saves the vector state.
    if std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512vl")
    {
        // Before VBMI2 (Ice Lake, Zen 4) registers of 64 bytes lower the clock for a while (Intel
        // optimization manual, 2.6.3): nothing that large copies notice, which wait for memory.
        if std::arch::is_x86_feature_detected!("avx512vbmi2") {
            Vectors::Wide
        } else {
            Vectors::Avx512
        }
    } else if std::arch::is_x86_feature_detected!("avx") {
        Vectors::Avx
    } else {
        Vectors::Sse2
    }
}

/// The widest vectors that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Vectors {
    Sse2,
    Avx,
    /// 64 bytes past the caches, 32 by way of them.
    Avx512,
    /// 64 bytes everywhere.
    Wide,
}

/// The routines for a processor with these vectors and this write-back.
pub(super) fn with(vectors: Vectors, write_back: WriteBack, direct: bool) -> Cpu {
    let widest = |routines: [Routine; 3]| match vectors {
        Vectors::Sse2 => routines[0],
        Vectors::Avx => routines[1],
        Vectors::Avx512 | Vectors::Wide => routines[2],
    };
    let cached = |routines: [Routine; 3]| match vectors {
        Vectors::Avx512 => routines[1],
        _ => widest(routines),
    };
    let (store_write_back, write_back_lines): (Option<[Routine; 3]>, Option<Routine>) =
        match write_back {
            WriteBack::Clwb => {
                (Some([store_clwb_sse2, store_clwb_avx, store_clwb_avx512]), Some(write_back_clwb))
            }
            WriteBack::ClflushOpt => (
                Some([store_clflushopt_sse2, store_clflushopt_avx, store_clflushopt_avx512]),
                Some(write_back_clflushopt),
            ),
            WriteBack::Clflush => (
                Some([store_clflush_sse2, store_clflush_avx, store_clflush_avx512]),
                Some(write_back_clflush),
            ),
            _ => (None, None),
        };
    Cpu {
        store: cached([store_sse2, store_avx, store_avx512]),
        load: cached([load_sse2, load_avx, load_avx512]),
        store_down: Some(cached([store_down_sse2, store_down_avx, store_down_avx512])),
        fill: Some(cached([fill_sse2, fill_avx, fill_avx512])),
        compare_exchange,
        past: Some(Past {
            words: widest([non_temporal_sse2, non_temporal_avx, non_temporal_avx512]),
            direct: direct.then_some(non_temporal_direct as Routine),
            down: widest([non_temporal_down_sse2, non_temporal_down_avx, non_temporal_down_avx512]),
            fill: widest([non_temporal_fill_sse2, non_temporal_fill_avx, non_temporal_fill_avx512]),
        }),
        ways: Ways::UNKNOWN,
        store_write_back: store_write_back.map(cached),
        write_back_lines,
        write_back,
        line_size: LINE_SIZE,
    }
}

/// Puts lines out of the caches, so that a measurement finds them in memory.
///
/// # Safety
///
/// `len` bytes at `to` are mapped; `to` is a multiple of the line size, `len` is not 0.
pub(super) unsafe fn evict(to: *mut u8, len: usize) {
    let routine = if matches!(detect(), WriteBack::Clflush) {
        write_back_clflush
    } else {
        write_back_clflushopt
    };
    // SAFETY: the lines of the caller's range.
    unsafe { routine(to, std::ptr::null(), len.div_ceil(LINE_SIZE)) };
    fence();
}

/// Every routine that may fault, for the signal handler.
pub(super) const GUARDED: [Routine; 35] = [
    compare_exchange,
    store_sse2,
    store_avx,
    store_avx512,
    load_sse2,
    load_avx,
    load_avx512,
    store_down_sse2,
    store_down_avx,
    store_down_avx512,
    fill_sse2,
    fill_avx,
    fill_avx512,
    store_clwb_sse2,
    store_clwb_avx,
    store_clwb_avx512,
    store_clflushopt_sse2,
    store_clflushopt_avx,
    store_clflushopt_avx512,
    store_clflush_sse2,
    store_clflush_avx,
    store_clflush_avx512,
    non_temporal_sse2,
    non_temporal_avx,
    non_temporal_avx512,
    non_temporal_direct,
    non_temporal_down_sse2,
    non_temporal_down_avx,
    non_temporal_down_avx512,
    non_temporal_fill_sse2,
    non_temporal_fill_avx,
    non_temporal_fill_avx512,
    write_back_clwb,
    write_back_clflushopt,
    write_back_clflush,
];

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
