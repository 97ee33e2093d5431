//! Whole lines: moved up in memory, and set to one value.
//!
//! # Safety
//!
//! See [`super::slot`]. `to` is a multiple of 64, `len` too, and not 0.
#![allow(unsafe_code)]

/// As many vectors as there are `$numbers`, by way of the registers of these numbers: all of them are
/// read before the first is stored. What is read and what is stored are neighbours, and would wait for
/// each other.
macro_rules! block {
    ($mov:literal, $store:literal, $reg:literal, $bytes:literal, $numbers:literal) => {
        concat!(
            concat!(".irp n,", $numbers, "\n"),
            concat!($mov, " ", $reg, "\\n, [rsi + rdx + ", $bytes, " * \\n]\n.endr\n"),
            concat!(".irp n,", $numbers, "\n"),
            concat!($store, " [rdi + rdx + ", $bytes, " * \\n], ", $reg, "\\n\n.endr"),
        )
    };
}

/// The last lines first: for ranges that overlap and move up. As many lines at a time as there are
/// registers, then fewer, then what is left in blocks of half as many, and half of that.
macro_rules! down {
    ($name:ident, [$mov:literal, $store:literal, $reg:literal, $bytes:literal],
     [$most:literal, $numbers:literal], [$less:literal, $fewer:literal],
     [$($size:literal, $few:literal),*], $done:literal) => {
        slot!(
            $name, exit: $done,
            "xor eax, eax",
            "2:",
            concat!("sub rdx, ", $most),
            "jb 3f",
            block!($mov, $store, $reg, $bytes, $numbers),
            "jmp 2b",
            "3:",
            concat!("add rdx, ", $most),
            "5:",
            concat!("sub rdx, ", $less),
            "jb 6f",
            block!($mov, $store, $reg, $bytes, $fewer),
            "jmp 5b",
            "6:",
            concat!("add rdx, ", $less),
            $(
                concat!("test edx, ", $size),
                "jz 4f",
                concat!("sub rdx, ", $size),
                block!($mov, $store, $reg, $bytes, $few),
                "4:",
            )*
            $done,
            "ret",
        );
    };
}

down!(
    store_down_sse2,
    ["movdqu", "movdqu", "xmm", "16"],
    ["256", "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"],
    ["128", "0,1,2,3,4,5,6,7"],
    ["64", "0,1,2,3"],
    ""
);
down!(
    store_down_avx,
    ["vmovdqu", "vmovdqu", "ymm", "32"],
    ["512", "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"],
    ["256", "0,1,2,3,4,5,6,7"],
    ["128", "0,1,2,3", "64", "0,1"],
    "vzeroupper"
);
down!(
    store_down_avx512,
    ["vmovdqu64", "vmovdqu64", "zmm", "64"],
    ["1024", "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"],
    ["512", "0,1,2,3,4,5,6,7"],
    ["256", "0,1,2,3", "128", "0,1", "64", "0"],
    "vzeroupper"
);
down!(
    non_temporal_down_sse2,
    ["movdqu", "movntdq", "xmm", "16"],
    ["256", "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"],
    ["128", "0,1,2,3,4,5,6,7"],
    ["64", "0,1,2,3"],
    ""
);
down!(
    non_temporal_down_avx,
    ["vmovdqu", "vmovntdq", "ymm", "32"],
    ["512", "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"],
    ["256", "0,1,2,3,4,5,6,7"],
    ["128", "0,1,2,3", "64", "0,1"],
    "vzeroupper"
);
down!(
    non_temporal_down_avx512,
    ["vmovdqu64", "vmovntdq", "zmm", "64"],
    ["1024", "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"],
    ["512", "0,1,2,3,4,5,6,7"],
    ["256", "0,1,2,3", "128", "0,1", "64", "0"],
    "vzeroupper"
);

/// Sets whole lines to the 64 bytes at `from`, by way of a register that is loaded once, four lines
/// at a time. `to` is a multiple of 64, `len` too, and not 0.
macro_rules! fill {
    ($name:ident, $load:literal, [$($lines:literal),*], [$($line:literal),*], $done:literal) => {
        slot!(
            $name, exit: $done,
            "xor eax, eax",
            $load,
            "2:",
            "sub rdx, 256",
            "jb 3f",
            $($lines,)*
            "add rdi, 256",
            "jmp 2b",
            "3:",
            "add rdx, 256",
            "jz 9f",
            "4:",
            $($line,)*
            "add rdi, 64",
            "sub rdx, 64",
            "jnz 4b",
            "9:",
            $done,
            "ret",
        );
    };
}

fill!(
    fill_sse2,
    "movdqu xmm0, [rsi]",
    [
        "movdqa [rdi], xmm0",
        "movdqa [rdi + 16], xmm0",
        "movdqa [rdi + 32], xmm0",
        "movdqa [rdi + 48], xmm0",
        "movdqa [rdi + 64], xmm0",
        "movdqa [rdi + 80], xmm0",
        "movdqa [rdi + 96], xmm0",
        "movdqa [rdi + 112], xmm0",
        "movdqa [rdi + 128], xmm0",
        "movdqa [rdi + 144], xmm0",
        "movdqa [rdi + 160], xmm0",
        "movdqa [rdi + 176], xmm0",
        "movdqa [rdi + 192], xmm0",
        "movdqa [rdi + 208], xmm0",
        "movdqa [rdi + 224], xmm0",
        "movdqa [rdi + 240], xmm0"
    ],
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
    "vmovdqu ymm0, [rsi]",
    [
        "vmovdqa [rdi], ymm0",
        "vmovdqa [rdi + 32], ymm0",
        "vmovdqa [rdi + 64], ymm0",
        "vmovdqa [rdi + 96], ymm0",
        "vmovdqa [rdi + 128], ymm0",
        "vmovdqa [rdi + 160], ymm0",
        "vmovdqa [rdi + 192], ymm0",
        "vmovdqa [rdi + 224], ymm0"
    ],
    ["vmovdqa [rdi], ymm0", "vmovdqa [rdi + 32], ymm0"],
    "vzeroupper"
);
fill!(
    fill_avx512,
    "vmovdqu64 zmm16, [rsi]",
    [
        "vmovdqa64 [rdi], zmm16",
        "vmovdqa64 [rdi + 64], zmm16",
        "vmovdqa64 [rdi + 128], zmm16",
        "vmovdqa64 [rdi + 192], zmm16"
    ],
    ["vmovdqa64 [rdi], zmm16"],
    ""
);
fill!(
    non_temporal_fill_sse2,
    "movdqu xmm0, [rsi]",
    [
        "movntdq [rdi], xmm0",
        "movntdq [rdi + 16], xmm0",
        "movntdq [rdi + 32], xmm0",
        "movntdq [rdi + 48], xmm0",
        "movntdq [rdi + 64], xmm0",
        "movntdq [rdi + 80], xmm0",
        "movntdq [rdi + 96], xmm0",
        "movntdq [rdi + 112], xmm0",
        "movntdq [rdi + 128], xmm0",
        "movntdq [rdi + 144], xmm0",
        "movntdq [rdi + 160], xmm0",
        "movntdq [rdi + 176], xmm0",
        "movntdq [rdi + 192], xmm0",
        "movntdq [rdi + 208], xmm0",
        "movntdq [rdi + 224], xmm0",
        "movntdq [rdi + 240], xmm0"
    ],
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
    "vmovdqu ymm0, [rsi]",
    [
        "vmovntdq [rdi], ymm0",
        "vmovntdq [rdi + 32], ymm0",
        "vmovntdq [rdi + 64], ymm0",
        "vmovntdq [rdi + 96], ymm0",
        "vmovntdq [rdi + 128], ymm0",
        "vmovntdq [rdi + 160], ymm0",
        "vmovntdq [rdi + 192], ymm0",
        "vmovntdq [rdi + 224], ymm0"
    ],
    ["vmovntdq [rdi], ymm0", "vmovntdq [rdi + 32], ymm0"],
    "vzeroupper"
);
fill!(
    non_temporal_fill_avx512,
    "vmovdqu64 zmm16, [rsi]",
    [
        "vmovntdq [rdi], zmm16",
        "vmovntdq [rdi + 64], zmm16",
        "vmovntdq [rdi + 128], zmm16",
        "vmovntdq [rdi + 192], zmm16"
    ],
    ["vmovntdq [rdi], zmm16"],
    ""
);
