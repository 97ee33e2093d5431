//! Durable copies written by hand, as a reader of the processor manuals would write them: what
//! the library is measured against, not what it is made of. Each ends with the fence.
//!
//! # Safety
//!
//! Every function writes `len` bytes at `to` and reads `len` bytes at `from`. `to` is a multiple
//! of 64, `len` too and not 0; only processors that have its instructions may call a function.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;

/// A durable copy of `len` bytes: see the module for what it asks of its caller.
pub type DurableCopy = unsafe fn(to: *mut u8, from: *const u8, len: usize);

/// One way to do it, and whether this processor can.
pub struct Hand {
    pub name: &'static str,
    pub copy: DurableCopy,
    pub available: fn() -> bool,
}

pub const HANDS: [Hand; 9] = [
    Hand { name: "hand: avx + clwb", copy: avx_clwb, available: avx_and_clwb },
    Hand { name: "hand: memcpy, clwb", copy: memcpy_clwb, available: clwb },
    Hand { name: "hand: rep movsb, clwb", copy: rep_movsb_clwb, available: clwb },
    Hand { name: "hand: movnti", copy: movnti, available: always },
    Hand { name: "hand: nt sse2", copy: nt_sse2, available: always },
    Hand { name: "hand: nt avx", copy: nt_avx, available: avx },
    Hand { name: "hand: nt avx, prefetch", copy: nt_avx_prefetch, available: avx },
    Hand { name: "hand: nt avx512", copy: nt_avx512, available: avx512 },
    Hand { name: "hand: movdir64b", copy: movdir64b, available: has_movdir64b },
];

fn always() -> bool {
    true
}

fn avx() -> bool {
    is_x86_feature_detected!("avx")
}

fn avx512() -> bool {
    is_x86_feature_detected!("avx512f")
}

/// CPUID.7.0:EBX bit 24.
pub fn clwb() -> bool {
    __cpuid_count(7, 0).ebx & (1 << 24) != 0
}

fn avx_and_clwb() -> bool {
    avx() && clwb()
}

/// CPUID.7.0:ECX bit 28.
fn has_movdir64b() -> bool {
    __cpuid_count(7, 0).ecx & (1 << 28) != 0
}

/// `[to]` to `[to + len]`, `$bytes` a turn.
macro_rules! turns {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $($line:literal),+; $last:literal) => {
        $(#[$doc])*
        unsafe fn $name(to: *mut u8, from: *const u8, len: usize) {
            debug_assert!(len > 0 && len % $bytes == 0);
            // SAFETY: reads and writes `len` bytes, a multiple of what one turn does. The vector
            // registers used are named, or all of them by the C calling convention's clobbers.
            unsafe {
                asm!(
                    "2:",
                    $($line,)+
                    concat!("add {to}, ", $bytes),
                    concat!("add {from}, ", $bytes),
                    concat!("sub {len}, ", $bytes),
                    "jnz 2b",
                    $last,
                    "sfence",
                    to = inout(reg) to => _,
                    from = inout(reg) from => _,
                    len = inout(reg) len => _,
                    tmp = out(reg) _,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                    out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

turns!(
    /// Stores and their write-back line by line: the write-backs start while the copy goes on.
    avx_clwb, 64,
    "vmovdqu ymm0, [{from}]",
    "vmovdqu ymm1, [{from} + 32]",
    "vmovdqa [{to}], ymm0",
    "vmovdqa [{to} + 32], ymm1",
    "clwb [{to}]",
    "xor {tmp:e}, {tmp:e}";
    "vzeroupper"
);

turns!(
    movnti, 64,
    "mov {tmp}, [{from}]",
    "movnti [{to}], {tmp}",
    "mov {tmp}, [{from} + 8]",
    "movnti [{to} + 8], {tmp}",
    "mov {tmp}, [{from} + 16]",
    "movnti [{to} + 16], {tmp}",
    "mov {tmp}, [{from} + 24]",
    "movnti [{to} + 24], {tmp}",
    "mov {tmp}, [{from} + 32]",
    "movnti [{to} + 32], {tmp}",
    "mov {tmp}, [{from} + 40]",
    "movnti [{to} + 40], {tmp}",
    "mov {tmp}, [{from} + 48]",
    "movnti [{to} + 48], {tmp}",
    "mov {tmp}, [{from} + 56]",
    "movnti [{to} + 56], {tmp}";
    ""
);

turns!(
    nt_sse2, 64,
    "movdqu xmm0, [{from}]",
    "movdqu xmm1, [{from} + 16]",
    "movdqu xmm2, [{from} + 32]",
    "movdqu xmm3, [{from} + 48]",
    "movntdq [{to}], xmm0",
    "movntdq [{to} + 16], xmm1",
    "movntdq [{to} + 32], xmm2",
    "movntdq [{to} + 48], xmm3",
    "xor {tmp:e}, {tmp:e}";
    ""
);

turns!(
    nt_avx_64, 64,
    "vmovdqu ymm0, [{from}]",
    "vmovdqu ymm1, [{from} + 32]",
    "vmovntdq [{to}], ymm0",
    "vmovntdq [{to} + 32], ymm1",
    "xor {tmp:e}, {tmp:e}";
    "vzeroupper"
);

turns!(
    nt_avx_256, 256,
    "vmovdqu ymm0, [{from}]",
    "vmovdqu ymm1, [{from} + 32]",
    "vmovdqu ymm2, [{from} + 64]",
    "vmovdqu ymm3, [{from} + 96]",
    "vmovdqu ymm4, [{from} + 128]",
    "vmovdqu ymm5, [{from} + 160]",
    "vmovdqu ymm6, [{from} + 192]",
    "vmovdqu ymm7, [{from} + 224]",
    "vmovntdq [{to}], ymm0",
    "vmovntdq [{to} + 32], ymm1",
    "vmovntdq [{to} + 64], ymm2",
    "vmovntdq [{to} + 96], ymm3",
    "vmovntdq [{to} + 128], ymm4",
    "vmovntdq [{to} + 160], ymm5",
    "vmovntdq [{to} + 192], ymm6",
    "vmovntdq [{to} + 224], ymm7",
    "xor {tmp:e}, {tmp:e}";
    "vzeroupper"
);

unsafe fn nt_avx(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: passed on; the longer turn where the length is a multiple of it.
    unsafe { if len % 256 == 0 { nt_avx_256(to, from, len) } else { nt_avx_64(to, from, len) } }
}

turns!(
    /// The source of eight lines ahead is asked for; a prefetch past its end does no harm.
    nt_avx_prefetch, 64,
    "prefetchnta [{from} + 512]",
    "vmovdqu ymm0, [{from}]",
    "vmovdqu ymm1, [{from} + 32]",
    "vmovntdq [{to}], ymm0",
    "vmovntdq [{to} + 32], ymm1",
    "xor {tmp:e}, {tmp:e}";
    "vzeroupper"
);

turns!(
    nt_avx512, 64,
    "vmovdqu64 zmm0, [{from}]",
    "vmovntdq [{to}], zmm0",
    "xor {tmp:e}, {tmp:e}";
    "vzeroupper"
);

turns!(
    movdir64b, 64,
    "movdir64b {to}, [{from}]",
    "xor {tmp:e}, {tmp:e}";
    ""
);

/// The write-backs of whole lines, and the fence.
unsafe fn clwb_all(to: *mut u8, len: usize) {
    // SAFETY: the caller's range; CLWB changes no byte.
    unsafe {
        asm!(
            "2:",
            "clwb [{to}]",
            "add {to}, 64",
            "sub {len}, 64",
            "jnz 2b",
            "sfence",
            to = inout(reg) to => _,
            len = inout(reg) len => _,
            options(nostack),
        );
    }
}

unsafe fn memcpy_clwb(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: passed on.
    unsafe {
        libc::memcpy(to.cast(), from.cast(), len);
        clwb_all(to, len);
    }
}

unsafe fn rep_movsb_clwb(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the caller's ranges; the direction flag is clear by the calling convention.
    unsafe {
        asm!(
            "rep movsb",
            inout("rdi") to => _,
            inout("rsi") from => _,
            inout("rcx") len => _,
            options(nostack, preserves_flags),
        );
        clwb_all(to, len);
    }
}

/// The shortest sequence that makes one word durable.
///
/// # Safety
///
/// `to` is a multiple of 8 and valid for writes of 8 bytes; the processor has CLWB.
#[inline]
pub unsafe fn persist_8(to: *mut u8, word: u64) {
    // SAFETY: the caller's word.
    unsafe {
        asm!("mov [{to}], {word}", "clwb [{to}]", "sfence", to = in(reg) to, word = in(reg) word,
            options(nostack, preserves_flags));
    }
}

/// Stores one word, without more, in the same way for everybody who then persists it.
///
/// # Safety
///
/// `to` is a multiple of 8 and valid for writes of 8 bytes.
#[inline]
pub unsafe fn store_8(to: *mut u8, word: u64) {
    // SAFETY: the caller's word.
    unsafe {
        asm!("mov [{to}], {word}", to = in(reg) to, word = in(reg) word,
            options(nostack, preserves_flags));
    }
}

/// The shortest sequence that makes one line durable.
///
/// # Safety
///
/// As the module asks, with a length of 64; the processor has AVX and CLWB.
#[inline]
pub unsafe fn persist_64(to: *mut u8, from: *const u8) {
    // SAFETY: the caller's line.
    unsafe {
        asm!(
            "vmovdqu ymm0, [{from}]",
            "vmovdqu ymm1, [{from} + 32]",
            "vmovdqa [{to}], ymm0",
            "vmovdqa [{to} + 32], ymm1",
            "clwb [{to}]",
            "sfence",
            to = in(reg) to, from = in(reg) from, out("xmm0") _, out("xmm1") _,
            options(nostack, preserves_flags)
        );
    }
}

/// Stores one line, without more, in the same way for everybody who then persists it.
///
/// # Safety
///
/// As the module asks, with a length of 64; the processor has AVX.
#[inline]
pub unsafe fn store_64(to: *mut u8, from: *const u8) {
    // SAFETY: the caller's line.
    unsafe {
        asm!(
            "vmovdqu ymm0, [{from}]",
            "vmovdqu ymm1, [{from} + 32]",
            "vmovdqa [{to}], ymm0",
            "vmovdqa [{to} + 32], ymm1",
            to = in(reg) to, from = in(reg) from, out("xmm0") _, out("xmm1") _,
            options(nostack, preserves_flags)
        );
    }
}
