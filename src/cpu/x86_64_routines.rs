//! The routines of x86-64: copies, write-backs, one compare-and-exchange.
//!
//! # Safety
//!
//! The routines read and write raw memory, and any of their accesses may raise SIGBUS when a
//! file was truncated or a page is poisoned. Each is a leaf that touches no stack and fills one
//! *slot*: the code starts at the slot's first byte, the error exit stands [`EXIT`] bytes after
//! it, and the slot is [`SLOT`] bytes long; the assembler refuses a routine that does not fit.
//! So the handler in [`super::super::guard`] knows from the address of a routine alone which
//! instructions may fault and where to resume.
//!
//! # 8-byte pieces
//!
//! An aligned 8-byte word of the region is always covered by one access. Words are accessed
//! with aligned 8-byte moves (atomic: SDM vol. 3, 10.1.1; APM vol. 2, 7.3.2), or lie whole
//! within one vector access. A vector access may be carried out as several (SDM vol. 3, 10.1.1),
//! of no less than a quadword each on every processor known to the authors;
//! `pmem-tests` looks for torn words on the machine it runs on.
#![allow(unsafe_code)]

use core::arch::naked_asm;

use super::Routine;

/// Bytes from the start of a routine to its error exit.
pub(in crate::cpu) const EXIT: usize = 992;
/// Bytes in a routine's slot.
const SLOT: usize = 1024;

macro_rules! slot {
    ($(#[$doc:meta])* $name:ident, exit: $exit:literal, $($line:expr),* $(,)?) => {
        $(#[$doc])*
        #[unsafe(naked)]
        pub(in crate::cpu) unsafe extern "C" fn $name(to: *mut u8, from: *const u8, len: usize) -> usize {
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
/// first line boundary, then lines, then words: a line that the range covers in part is not
/// fetched either. The loop is not unrolled: it waits for memory, and eight vectors to a turn were
/// no faster at any size.
macro_rules! non_temporal {
    ($name:ident, [$($line:literal),*], $done:literal) => {
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
            "sub rdx, 64",
            "jb 6f",
            "5:",
            $($line,)*
            "add rsi, 64",
            "add rdi, 64",
            "sub rdx, 64",
            "jae 5b",
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
    [
        "vmovdqu ymm0, [rsi]",
        "vmovdqu ymm1, [rsi + 32]",
        "vmovntdq [rdi], ymm0",
        "vmovntdq [rdi + 32], ymm1"
    ],
    "vzeroupper"
);
non_temporal!(non_temporal_avx512, ["vmovdqu64 zmm0, [rsi]", "vmovntdq [rdi], zmm0"], "vzeroupper");

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
pub(in crate::cpu) const GUARDED: [Routine; 18] = [
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
