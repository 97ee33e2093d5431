//! Copies that are durable after the next fence: by stores and write-backs, or past the caches; and
//! the write-back of lines.
//!
//! # Safety
//!
//! See [`super::slot`].
#![allow(unsafe_code)]

/// Stores into the region and writes every line touched back. Up to eight lines are stored, then
/// written back: lines that are in no cache are fetched together so. `$line` moves 64 bytes, `$half`
/// 32, `$mov` 16, all at 8-byte alignment at least on the `to` side.
macro_rules! store_write_back {
    ($name:ident, $write_back:literal, $mov:literal,
     [$($line:literal),*], [$($half:literal),*], $done:literal) => {
        slot!(
            $name, exit: $done,
            "xor eax, eax",
            // What is most frequent first: one whole line, one whole word.
            "cmp rdx, 64",
            "jne 50f",
            "test dil, 63",
            "jnz 52f",
            $($line,)*
            concat!($write_back, " [rdi]"),
            $done,
            "ret",
            "50:",
            "cmp rdx, 8",
            "jne 51f",
            "test dil, 7",
            "jnz 52f",
            "mov rcx, qword ptr [rsi]",
            "mov qword ptr [rdi], rcx",
            concat!($write_back, " [rdi]"),
            "ret",
            "51:",
            "test rdx, rdx",
            "jz 9f",
            "52:",
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
            "jz 20f",
            $($half,)*
            "add rsi, 32",
            "add rdi, 32",
            // Whole lines, eight at a time.
            "20:",
            "cmp rdx, 512",
            "jb 23f",
            "sub rdx, 512",
            "mov ecx, 8",
            "21:",
            $($line,)*
            "add rsi, 64",
            "add rdi, 64",
            "dec ecx",
            "jnz 21b",
            "22:",
            concat!($write_back, " [r8]"),
            "add r8, 64",
            "cmp r8, rdi",
            "jb 22b",
            "jmp 20b",
            // Less than eight.
            "23:",
            "sub edx, 64",
            "jb 25f",
            "24:",
            $($line,)*
            "add rsi, 64",
            "add rdi, 64",
            "sub edx, 64",
            "jae 24b",
            "25:",
            "and edx, 63",
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
            "inc rdi",
            // The lines up to the end. The range is not empty; none is left where it was of whole
            // groups of eight.
            "2:",
            "cmp r8, rdi",
            "jae 9f",
            "44:",
            concat!($write_back, " [r8]"),
            "add r8, 64",
            "cmp r8, rdi",
            "jb 44b",
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

// As with `store_avx512`, no register that would have to be cleared.
macro_rules! store_write_back_avx512 {
    ($name:ident, $write_back:literal) => {
        store_write_back!(
            $name,
            $write_back,
            "vmovdqu",
            ["vmovdqu64 zmm16, [rsi]", "vmovdqu64 [rdi], zmm16"],
            ["vmovdqu64 ymm16, [rsi]", "vmovdqu64 [rdi], ymm16"],
            ""
        );
    };
}

store_write_back_sse2!(store_clwb_sse2, "clwb");
store_write_back_sse2!(store_clflushopt_sse2, "clflushopt");
store_write_back_sse2!(store_clflush_sse2, "clflush");
store_write_back_avx!(store_clwb_avx, "clwb");
store_write_back_avx!(store_clflushopt_avx, "clflushopt");
store_write_back_avx!(store_clflush_avx, "clflush");
store_write_back_avx512!(store_clwb_avx512, "clwb");
store_write_back_avx512!(store_clflushopt_avx512, "clflushopt");
store_write_back_avx512!(store_clflush_avx512, "clflush");

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
non_temporal!(non_temporal_avx512, ["vmovdqu64 zmm16, [rsi]", "vmovntdq [rdi], zmm16"], "");
// The line at RDI; the register operand holds its address (SDM vol. 2, MOVDIR64B).
non_temporal!(non_temporal_direct, ["movdir64b rdi, [rsi]"], "");

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
