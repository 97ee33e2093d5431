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
