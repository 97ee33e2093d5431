//! x86-64: CLWB, CLFLUSHOPT, CLFLUSH, SFENCE, and copies with SSE2 or AVX.
//!
//! # Safety
//!
//! The routines read and write raw memory, and any of their accesses may raise SIGBUS when a
//! file was truncated or a page is poisoned. Each is a leaf that touches no stack and fills one
//! *slot*: the code starts at the slot's first byte, the error exit stands [`EXIT`] bytes after
//! it, and the slot is [`SLOT`] bytes long; the assembler refuses a routine that does not fit.
//! So the handler in [`super::guard`] knows from the address of a routine alone which
//! instructions may fault and where to resume.
//!
//! # 8-byte pieces
//!
//! An aligned 8-byte word of the region is always covered by one access. Words are accessed
//! with aligned 8-byte moves (atomic: SDM vol. 3, 10.1.1; APM vol. 2, 7.3.2), or lie whole
//! within one vector access. A vector access may be carried out as several (SDM vol. 3, 10.1.1),
//! of no less than a quadword each on every processor known to the authors;
//! `pmem-tests` looks for torn words on the machine it runs on.
//!
//! # References
//!
//!  - Intel SDM vol. 2, CLWB, CLFLUSHOPT, CLFLUSH, SFENCE, MOVNTDQ; vol. 3, 12.10 (memory
//!    ordering of the flush instructions)
//!  - AMD APM vol. 3, the same instructions
#![allow(unsafe_code)]

use super::{Cpu, Routine, WriteBack};
use core::arch::naked_asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, __get_cpuid_max};

/// Bytes from the start of a routine to its error exit.
pub(super) const EXIT: usize = 992;
/// Bytes in a routine's slot.
const SLOT: usize = 1024;

/// Cache line size in bytes: CLWB and its relatives work on 64 bytes on every x86-64 processor
/// that has them (cpuid 1.EBX bits 15:8 reports 8 quadwords).
pub(super) const LINE_SIZE: usize = 64;

macro_rules! slot {
    ($(#[$doc:meta])* $name:ident, exit: $exit:literal, $($line:expr),* $(,)?) => {
        $(#[$doc])*
        #[unsafe(naked)]
        unsafe extern "C" fn $name(to: *mut u8, from: *const u8, len: usize) -> usize {
            naked_asm!(
                "777:",
                $($line,)*
                ".org 777b + {at_exit}, 0xcc",
                $exit,
                "mov eax, 1",
                "ret",
                ".org 777b + {end}, 0xcc",
                at_exit = const EXIT,
                end = const SLOT,
            )
        }
    };
}

/// `rdi` to, `rsi` from, `rdx` len. `$side` is the low byte of the pointer into the region, the
/// side on which aligned words must stay whole.
macro_rules! copy {
    ($(#[$doc:meta])* $name:ident, $side:literal, $load:literal, $store:literal,
     $reg:literal, $width:literal, $done:literal) => {
        slot!(
            $(#[$doc])* $name, exit: $done,
            "xor eax, eax",
            "cmp rdx, 8",
            "jb 6f",
            // Up to 7 bytes, until the region's side is 8-byte aligned.
            concat!("test ", $side, ", 7"),
            "jz 5f",
            concat!("test ", $side, ", 1"),
            "jz 2f",
            "movzx ecx, byte ptr [rsi]",
            "mov byte ptr [rdi], cl",
            "inc rsi",
            "inc rdi",
            "dec rdx",
            "2:",
            concat!("test ", $side, ", 2"),
            "jz 3f",
            "movzx ecx, word ptr [rsi]",
            "mov word ptr [rdi], cx",
            "add rsi, 2",
            "add rdi, 2",
            "sub rdx, 2",
            "3:",
            concat!("test ", $side, ", 4"),
            "jz 5f",
            "mov ecx, dword ptr [rsi]",
            "mov dword ptr [rdi], ecx",
            "add rsi, 4",
            "add rdi, 4",
            "sub rdx, 4",
            "5:",
            "cmp rdx, 256",
            "jae 20f",
            // Vectors, words, then up to 7 bytes.
            "4:",
            concat!("sub rdx, ", $width),
            "jb 22f",
            "23:",
            concat!($load, " ", $reg, "0, [rsi]"),
            concat!($store, " [rdi], ", $reg, "0"),
            concat!("add rsi, ", $width),
            concat!("add rdi, ", $width),
            concat!("sub rdx, ", $width),
            "jae 23b",
            "22:",
            concat!("add rdx, ", $width),
            "24:",
            "cmp rdx, 8",
            "jb 6f",
            "mov rcx, qword ptr [rsi]",
            "mov qword ptr [rdi], rcx",
            "add rsi, 8",
            "add rdi, 8",
            "sub rdx, 8",
            "jmp 24b",
            "6:",
            "test dl, 4",
            "jz 7f",
            "mov ecx, dword ptr [rsi]",
            "mov dword ptr [rdi], ecx",
            "add rsi, 4",
            "add rdi, 4",
            "7:",
            "test dl, 2",
            "jz 8f",
            "movzx ecx, word ptr [rsi]",
            "mov word ptr [rdi], cx",
            "add rsi, 2",
            "add rdi, 2",
            "8:",
            "test dl, 1",
            "jz 9f",
            "movzx ecx, byte ptr [rsi]",
            "mov byte ptr [rdi], cl",
            "9:",
            $done,
            "ret",
            // 256 bytes and more: align the region's side to 64 bytes with words, then four
            // vectors at a time.
            "20:",
            concat!("test ", $side, ", 63"),
            "jz 21f",
            "mov rcx, qword ptr [rsi]",
            "mov qword ptr [rdi], rcx",
            "add rsi, 8",
            "add rdi, 8",
            "sub rdx, 8",
            "jmp 20b",
            "21:",
            concat!("sub rdx, 4 * ", $width),
            "25:",
            concat!($load, " ", $reg, "0, [rsi]"),
            concat!($load, " ", $reg, "1, [rsi + ", $width, "]"),
            concat!($load, " ", $reg, "2, [rsi + 2 * ", $width, "]"),
            concat!($load, " ", $reg, "3, [rsi + 3 * ", $width, "]"),
            concat!($store, " [rdi], ", $reg, "0"),
            concat!($store, " [rdi + ", $width, "], ", $reg, "1"),
            concat!($store, " [rdi + 2 * ", $width, "], ", $reg, "2"),
            concat!($store, " [rdi + 3 * ", $width, "], ", $reg, "3"),
            concat!("add rsi, 4 * ", $width),
            concat!("add rdi, 4 * ", $width),
            concat!("sub rdx, 4 * ", $width),
            "jae 25b",
            concat!("add rdx, 4 * ", $width),
            "jmp 4b",
        );
    };
}

copy!(
    /// Stores into the region; words are whole on the `to` side.
    store_sse2, "dil", "movdqu", "movdqu", "xmm", "16", ""
);
copy!(
    /// Loads from the region; words are whole on the `from` side.
    load_sse2, "sil", "movdqu", "movdqu", "xmm", "16", ""
);
copy!(
    /// As `store_sse2`, with 32-byte vectors.
    store_avx, "dil", "vmovdqu", "vmovdqu", "ymm", "32", "vzeroupper"
);
copy!(
    /// As `load_sse2`, with 32-byte vectors.
    load_avx, "sil", "vmovdqu", "vmovdqu", "ymm", "32", "vzeroupper"
);

/// Stores into the region and writes every line touched back, each right after its last byte:
/// the first write-backs are under way while the rest is still being copied. `$line_in` and
/// `$line_out` move 64 bytes, `$half_in` and `$half_out` 32, `$mov` 16, all at 8-byte alignment
/// at least on the `to` side.
macro_rules! store_write_back {
    ($name:ident, $write_back:literal, $mov:literal,
     [$($line:literal),*], [$($half:literal),*], $done:literal) => {
        slot!(
            $name, exit: $done,
            "xor eax, eax",
            "test rdx, rdx",
            "jz 9f",
            // r8: the first line that is not written back yet.
            "mov r8, rdi",
            "and r8, -64",
            "mov ecx, edi",
            "neg ecx",
            "and ecx, 63",
            "jz 20f",
            "cmp rdx, rcx",
            "jb 30f",
            // Up to the end of the first line: 1, 2, 4, ... bytes, so that each piece is aligned.
            "sub rdx, rcx",
            "test dil, 1",
            "jz 2f",
            "movzx ecx, byte ptr [rsi]",
            "mov byte ptr [rdi], cl",
            "inc rsi",
            "inc rdi",
            "2:",
            "test dil, 2",
            "jz 2f",
            "movzx ecx, word ptr [rsi]",
            "mov word ptr [rdi], cx",
            "add rsi, 2",
            "add rdi, 2",
            "2:",
            "test dil, 4",
            "jz 2f",
            "mov ecx, dword ptr [rsi]",
            "mov dword ptr [rdi], ecx",
            "add rsi, 4",
            "add rdi, 4",
            "2:",
            "test dil, 8",
            "jz 2f",
            "mov rcx, qword ptr [rsi]",
            "mov qword ptr [rdi], rcx",
            "add rsi, 8",
            "add rdi, 8",
            "2:",
            "test dil, 16",
            "jz 2f",
            concat!($mov, " xmm0, [rsi]"),
            concat!($mov, " [rdi], xmm0"),
            "add rsi, 16",
            "add rdi, 16",
            "2:",
            "test dil, 32",
            "jz 2f",
            $($half,)*
            "add rsi, 32",
            "add rdi, 32",
            "2:",
            concat!($write_back, " [r8]"),
            "mov r8, rdi",
            // Whole lines.
            "20:",
            "sub rdx, 64",
            "jb 22f",
            "21:",
            $($line,)*
            concat!($write_back, " [rdi]"),
            "add rsi, 64",
            "add rdi, 64",
            "sub rdx, 64",
            "jae 21b",
            "mov r8, rdi",
            "22:",
            "and edx, 63",
            "jz 9f",
            // What is left, less than a line, from an 8-byte boundary on: 32, 16, ... bytes.
            "40:",
            "test dl, 32",
            "jz 2f",
            $($half,)*
            "add rsi, 32",
            "add rdi, 32",
            "2:",
            "test dl, 16",
            "jz 2f",
            concat!($mov, " xmm0, [rsi]"),
            concat!($mov, " [rdi], xmm0"),
            "add rsi, 16",
            "add rdi, 16",
            "2:",
            "test dl, 8",
            "jz 43f",
            "mov rcx, qword ptr [rsi]",
            "mov qword ptr [rdi], rcx",
            "add rsi, 8",
            "add rdi, 8",
            "43:",
            "test dl, 4",
            "jz 2f",
            "mov ecx, dword ptr [rsi]",
            "mov dword ptr [rdi], ecx",
            "add rsi, 4",
            "add rdi, 4",
            "2:",
            "test dl, 2",
            "jz 2f",
            "movzx ecx, word ptr [rsi]",
            "mov word ptr [rdi], cx",
            "add rsi, 2",
            "add rdi, 2",
            "2:",
            "test dl, 1",
            "jz 2f",
            "movzx ecx, byte ptr [rsi]",
            "mov byte ptr [rdi], cl",
            "2:",
            concat!($write_back, " [r8]"),
            "9:",
            $done,
            "ret",
            // Within one line and not to its end: to an 8-byte boundary first, if a whole word
            // may follow.
            "30:",
            "cmp edx, 8",
            "jb 43b",
            "test dil, 1",
            "jz 2f",
            "movzx ecx, byte ptr [rsi]",
            "mov byte ptr [rdi], cl",
            "inc rsi",
            "inc rdi",
            "dec edx",
            "2:",
            "test dil, 2",
            "jz 2f",
            "movzx ecx, word ptr [rsi]",
            "mov word ptr [rdi], cx",
            "add rsi, 2",
            "add rdi, 2",
            "sub edx, 2",
            "2:",
            "test dil, 4",
            "jz 40b",
            "mov ecx, dword ptr [rsi]",
            "mov dword ptr [rdi], ecx",
            "add rsi, 4",
            "add rdi, 4",
            "sub edx, 4",
            "jmp 40b",
        );
    };
}

macro_rules! store_write_back_sse2 {
    ($name:ident, $write_back:literal) => {
        store_write_back!(
            $name,
            $write_back,
            "movdqu",
            [
                "movdqu xmm0, [rsi]",
                "movdqu xmm1, [rsi + 16]",
                "movdqu xmm2, [rsi + 32]",
                "movdqu xmm3, [rsi + 48]",
                "movdqu [rdi], xmm0",
                "movdqu [rdi + 16], xmm1",
                "movdqu [rdi + 32], xmm2",
                "movdqu [rdi + 48], xmm3"
            ],
            [
                "movdqu xmm0, [rsi]",
                "movdqu xmm1, [rsi + 16]",
                "movdqu [rdi], xmm0",
                "movdqu [rdi + 16], xmm1"
            ],
            ""
        );
    };
}

macro_rules! store_write_back_avx {
    ($name:ident, $write_back:literal) => {
        store_write_back!(
            $name,
            $write_back,
            "vmovdqu",
            [
                "vmovdqu ymm0, [rsi]",
                "vmovdqu ymm1, [rsi + 32]",
                "vmovdqu [rdi], ymm0",
                "vmovdqu [rdi + 32], ymm1"
            ],
            ["vmovdqu ymm0, [rsi]", "vmovdqu [rdi], ymm0"],
            "vzeroupper"
        );
    };
}

store_write_back_sse2!(store_clwb_sse2, "clwb");
store_write_back_sse2!(store_clflushopt_sse2, "clflushopt");
store_write_back_sse2!(store_clflush_sse2, "clflush");
store_write_back_avx!(store_clwb_avx, "clwb");
store_write_back_avx!(store_clflushopt_avx, "clflushopt");
store_write_back_avx!(store_clflush_avx, "clflush");

/// Non-temporal stores only. `to` and `len` are multiples of 8, `len` at least 8. Words up to the
/// first line boundary, then lines, eight vectors at a time while there are as many, then words:
/// a line that the range covers in part is not fetched either.
macro_rules! non_temporal {
    ($name:ident, $load:literal, $nt:literal, $reg:literal, $width:literal,
     [$($line:literal),*], $done:literal) => {
        slot!(
            $name, exit: $done,
            "xor eax, eax",
            "test dil, 63",
            "jz 21f",
            "20:",
            "mov rcx, qword ptr [rsi]",
            "movnti qword ptr [rdi], rcx",
            "add rsi, 8",
            "add rdi, 8",
            "sub rdx, 8",
            "jz 9f",
            "test dil, 63",
            "jnz 20b",
            "21:",
            concat!("sub rdx, 8 * ", $width),
            "jb 4f",
            "2:",
            concat!($load, " ", $reg, "0, [rsi]"),
            concat!($load, " ", $reg, "1, [rsi + ", $width, "]"),
            concat!($load, " ", $reg, "2, [rsi + 2 * ", $width, "]"),
            concat!($load, " ", $reg, "3, [rsi + 3 * ", $width, "]"),
            concat!($load, " ", $reg, "4, [rsi + 4 * ", $width, "]"),
            concat!($load, " ", $reg, "5, [rsi + 5 * ", $width, "]"),
            concat!($load, " ", $reg, "6, [rsi + 6 * ", $width, "]"),
            concat!($load, " ", $reg, "7, [rsi + 7 * ", $width, "]"),
            concat!($nt, " [rdi], ", $reg, "0"),
            concat!($nt, " [rdi + ", $width, "], ", $reg, "1"),
            concat!($nt, " [rdi + 2 * ", $width, "], ", $reg, "2"),
            concat!($nt, " [rdi + 3 * ", $width, "], ", $reg, "3"),
            concat!($nt, " [rdi + 4 * ", $width, "], ", $reg, "4"),
            concat!($nt, " [rdi + 5 * ", $width, "], ", $reg, "5"),
            concat!($nt, " [rdi + 6 * ", $width, "], ", $reg, "6"),
            concat!($nt, " [rdi + 7 * ", $width, "], ", $reg, "7"),
            concat!("add rsi, 8 * ", $width),
            concat!("add rdi, 8 * ", $width),
            concat!("sub rdx, 8 * ", $width),
            "jae 2b",
            "4:",
            concat!("add rdx, 8 * ", $width, " - 64"),
            "js 6f",
            "5:",
            $($line,)*
            "add rsi, 64",
            "add rdi, 64",
            "sub rdx, 64",
            "jns 5b",
            "6:",
            "and edx, 63",
            "jz 9f",
            "7:",
            "mov rcx, qword ptr [rsi]",
            "movnti qword ptr [rdi], rcx",
            "add rsi, 8",
            "add rdi, 8",
            "sub edx, 8",
            "jnz 7b",
            "9:",
            $done,
            "ret",
        );
    };
}

non_temporal!(
    non_temporal_sse2,
    "movdqu",
    "movntdq",
    "xmm",
    "16",
    [
        "movdqu xmm0, [rsi]",
        "movdqu xmm1, [rsi + 16]",
        "movdqu xmm2, [rsi + 32]",
        "movdqu xmm3, [rsi + 48]",
        "movntdq [rdi], xmm0",
        "movntdq [rdi + 16], xmm1",
        "movntdq [rdi + 32], xmm2",
        "movntdq [rdi + 48], xmm3"
    ],
    ""
);
non_temporal!(
    non_temporal_avx,
    "vmovdqu",
    "vmovntdq",
    "ymm",
    "32",
    [
        "vmovdqu ymm0, [rsi]",
        "vmovdqu ymm1, [rsi + 32]",
        "vmovntdq [rdi], ymm0",
        "vmovntdq [rdi + 32], ymm1"
    ],
    "vzeroupper"
);
non_temporal!(
    non_temporal_avx512,
    "vmovdqu64",
    "vmovntdq",
    "zmm",
    "64",
    ["vmovdqu64 zmm0, [rsi]", "vmovntdq [rdi], zmm0"],
    "vzeroupper"
);

slot!(
    /// Bytes of the 16 at `to`, chosen by the high bits of the 16 mask bytes behind the 16 data
    /// bytes at `from`. MASKMOVDQU is the only non-temporal store of single bytes, and stores to
    /// [rdi].
    non_temporal_masked, exit: "",
    "xor eax, eax",
    "movdqu xmm0, [rsi]",
    "movdqu xmm1, [rsi + 16]",
    "maskmovdqu xmm0, xmm1",
    "ret",
);

/// Writes back `len` lines from `to` on; `from` is not used.
macro_rules! write_back {
    ($name:ident, $instruction:literal) => {
        slot!(
            $name, exit: "",
            "xor eax, eax",
            "2:",
            concat!($instruction, " [rdi]"),
            "add rdi, 64",
            "dec rdx",
            "jnz 2b",
            "ret",
        );
    };
}

write_back!(write_back_clwb, "clwb");
write_back!(write_back_clflushopt, "clflushopt");
write_back!(write_back_clflush, "clflush");

slot!(
    /// Compare and exchange of the word at `to`; `from` points to the expected and the new word,
    /// and the word found is written over the expected one.
    compare_exchange, exit: "",
    "mov rax, qword ptr [rsi]",
    "mov rcx, qword ptr [rsi + 8]",
    "lock cmpxchg qword ptr [rdi], rcx",
    "mov qword ptr [rsi], rax",
    "xor eax, eax",
    "ret",
);

/// Every routine that may fault, for the signal handler.
pub(super) const GUARDED: [Routine; 18] = [
    compare_exchange,
    store_sse2,
    load_sse2,
    store_avx,
    load_avx,
    store_clwb_sse2,
    store_clflushopt_sse2,
    store_clflush_sse2,
    store_clwb_avx,
    store_clflushopt_avx,
    store_clflush_avx,
    non_temporal_sse2,
    non_temporal_avx,
    non_temporal_avx512,
    non_temporal_masked,
    write_back_clwb,
    write_back_clflushopt,
    write_back_clflush,
];

/// Orders every earlier store, write-back and non-temporal store of this thread before every
/// later one (SDM vol. 2, SFENCE).
#[inline]
pub(super) fn fence() {
    // SAFETY: SFENCE has no operands and is part of SSE, which x86-64 implies. Not `nomem`:
    // the compiler must not move stores across it.
    unsafe { core::arch::asm!("sfence", options(nostack, preserves_flags)) };
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
