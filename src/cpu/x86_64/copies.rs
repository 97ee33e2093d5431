//! Copies through the caches, which are not durable, and the one compare-and-exchange.
//!
//! # Safety
//!
//! See [`super::slot`].
#![allow(unsafe_code)]

/// `rdi` to, `rsi` from, `rdx` len. `$side` is the low byte of the pointer into the region, the
/// side on which aligned words must stay whole. `$mov` moves `$width` bytes by way of `$reg`,
/// `$small_mov` what is shorter, `$small_width` bytes at a time.
macro_rules! copy {
    ($(#[$doc:meta])* $name:ident, $side:literal, [$mov:literal, $reg:literal, $width:literal],
     [$small_mov:literal, $small:literal, $small_width:literal], $done:literal) => {
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
            // Words up to a line boundary leave four vectors of what is this long.
            concat!("cmp rdx, 64 + 4 * ", $width),
            "jae 20f",
            // Vectors, words, then up to 7 bytes.
            "4:",
            concat!("sub rdx, ", $small_width),
            "jb 22f",
            "23:",
            concat!($small_mov, " ", $small, "0, [rsi]"),
            concat!($small_mov, " [rdi], ", $small, "0"),
            concat!("add rsi, ", $small_width),
            concat!("add rdi, ", $small_width),
            concat!("sub rdx, ", $small_width),
            "jae 23b",
            "22:",
            concat!("add rdx, ", $small_width),
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
            // So many bytes and more: align the region's side to 64 bytes with words, then four
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
            concat!($mov, " ", $reg, "0, [rsi]"),
            concat!($mov, " ", $reg, "1, [rsi + ", $width, "]"),
            concat!($mov, " ", $reg, "2, [rsi + 2 * ", $width, "]"),
            concat!($mov, " ", $reg, "3, [rsi + 3 * ", $width, "]"),
            concat!($mov, " [rdi], ", $reg, "0"),
            concat!($mov, " [rdi + ", $width, "], ", $reg, "1"),
            concat!($mov, " [rdi + 2 * ", $width, "], ", $reg, "2"),
            concat!($mov, " [rdi + 3 * ", $width, "], ", $reg, "3"),
            concat!("add rsi, 4 * ", $width),
            concat!("add rdi, 4 * ", $width),
            concat!("sub rdx, 4 * ", $width),
            "jae 25b",
            concat!("add rdx, 4 * ", $width),
            "jmp 4b",
        );
    };
}

macro_rules! both_ways {
    ($store:ident, $load:ident, $big:tt, $small:tt, $done:literal) => {
        copy!(
            /// Stores into the region: words are whole on the `to` side.
            $store, "dil", $big, $small, $done
        );
        copy!(
            /// Loads from the region: words are whole on the `from` side.
            $load, "sil", $big, $small, $done
        );
    };
}

both_ways!(store_sse2, load_sse2, ["movdqu", "xmm", "16"], ["movdqu", "xmm", "16"], "");
both_ways!(store_avx, load_avx, ["vmovdqu", "ymm", "32"], ["vmovdqu", "ymm", "32"], "vzeroupper");
// Registers from 16 on: they leave nothing behind that slows other code down (SDM vol. 1, 15.1).
both_ways!(store_avx512, load_avx512, ["vmovdqu64", "zmm2", "64"], ["vmovdqu64", "ymm2", "32"], "");

/// Whole lines, the last one first: for ranges that overlap and move up. `to` is a multiple of 64,
/// `len` too, and not 0.
macro_rules! down {
    ($name:ident, [$($line:literal),*], $done:literal) => {
        slot!(
            $name, exit: $done,
            "xor eax, eax",
            "2:",
            "sub rdx, 64",
            $($line,)*
            // The moves leave the flags as SUB set them.
            "jnz 2b",
            $done,
            "ret",
        );
    };
}

down!(
    store_down_sse2,
    [
        "movdqu xmm0, [rsi + rdx]",
        "movdqu xmm1, [rsi + rdx + 16]",
        "movdqu xmm2, [rsi + rdx + 32]",
        "movdqu xmm3, [rsi + rdx + 48]",
        "movdqu [rdi + rdx], xmm0",
        "movdqu [rdi + rdx + 16], xmm1",
        "movdqu [rdi + rdx + 32], xmm2",
        "movdqu [rdi + rdx + 48], xmm3"
    ],
    ""
);
down!(
    store_down_avx,
    [
        "vmovdqu ymm0, [rsi + rdx]",
        "vmovdqu ymm1, [rsi + rdx + 32]",
        "vmovdqu [rdi + rdx], ymm0",
        "vmovdqu [rdi + rdx + 32], ymm1"
    ],
    "vzeroupper"
);
down!(store_down_avx512, ["vmovdqu64 zmm16, [rsi + rdx]", "vmovdqu64 [rdi + rdx], zmm16"], "");
down!(
    non_temporal_down_sse2,
    [
        "movdqu xmm0, [rsi + rdx]",
        "movdqu xmm1, [rsi + rdx + 16]",
        "movdqu xmm2, [rsi + rdx + 32]",
        "movdqu xmm3, [rsi + rdx + 48]",
        "movntdq [rdi + rdx], xmm0",
        "movntdq [rdi + rdx + 16], xmm1",
        "movntdq [rdi + rdx + 32], xmm2",
        "movntdq [rdi + rdx + 48], xmm3"
    ],
    ""
);
down!(
    non_temporal_down_avx,
    [
        "vmovdqu ymm0, [rsi + rdx]",
        "vmovdqu ymm1, [rsi + rdx + 32]",
        "vmovntdq [rdi + rdx], ymm0",
        "vmovntdq [rdi + rdx + 32], ymm1"
    ],
    "vzeroupper"
);
down!(
    non_temporal_down_avx512,
    ["vmovdqu64 zmm16, [rsi + rdx]", "vmovntdq [rdi + rdx], zmm16"],
    ""
);

/// Sets whole lines to the 64 bytes at `from`, by way of registers that are loaded once. `to` is a
/// multiple of 64, `len` too, and not 0.
macro_rules! fill {
    ($name:ident, [$($load:literal),*], [$($line:literal),*], $done:literal) => {
        slot!(
            $name, exit: $done,
            "xor eax, eax",
            $($load,)*
            "2:",
            $($line,)*
            "add rdi, 64",
            "sub rdx, 64",
            "jnz 2b",
            $done,
            "ret",
        );
    };
}

fill!(
    fill_sse2,
    ["movdqu xmm0, [rsi]"],
    [
        "movdqa [rdi], xmm0",
        "movdqa [rdi + 16], xmm0",
        "movdqa [rdi + 32], xmm0",
        "movdqa [rdi + 48], xmm0"
    ],
    ""
);
fill!(
    fill_avx,
    ["vmovdqu ymm0, [rsi]"],
    ["vmovdqa [rdi], ymm0", "vmovdqa [rdi + 32], ymm0"],
    "vzeroupper"
);
fill!(fill_avx512, ["vmovdqu64 zmm16, [rsi]"], ["vmovdqa64 [rdi], zmm16"], "");
fill!(
    non_temporal_fill_sse2,
    ["movdqu xmm0, [rsi]"],
    [
        "movntdq [rdi], xmm0",
        "movntdq [rdi + 16], xmm0",
        "movntdq [rdi + 32], xmm0",
        "movntdq [rdi + 48], xmm0"
    ],
    ""
);
fill!(
    non_temporal_fill_avx,
    ["vmovdqu ymm0, [rsi]"],
    ["vmovntdq [rdi], ymm0", "vmovntdq [rdi + 32], ymm0"],
    "vzeroupper"
);
fill!(non_temporal_fill_avx512, ["vmovdqu64 zmm16, [rsi]"], ["vmovntdq [rdi], zmm16"], "");

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
