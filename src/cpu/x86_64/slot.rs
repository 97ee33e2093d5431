//! What every routine is built into.
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
//! of no less than a quadword each on every processor known to the authors; MOVDIR64B writes its
//! 64 bytes at once (SDM vol. 2). `pmem-tests` looks for torn words on the machine it runs on.

/// Bytes from the start of a routine to its error exit.
pub(in crate::cpu) const EXIT: usize = 992;
/// Bytes in a routine's slot.
pub(super) const SLOT: usize = 1024;

/// The routine is assembled by itself, not as a naked function, which Rust has since 1.88. Its symbol
/// has the version of this library in it: a program may have several versions.
macro_rules! slot {
    ($(#[$doc:meta])* $name:ident, exit: $exit:literal, $($line:expr),* $(,)?) => {
        core::arch::global_asm!(
            $crate::cpu::symbol!(begin $name),
            "777:",
            $($line,)*
            ".org 777b + {at_exit}, 0xcc",
            $exit,
            "mov eax, 1",
            "ret",
            ".org 777b + {end}, 0xcc",
            $crate::cpu::symbol!(end $name),
            at_exit = const super::slot::EXIT,
            end = const super::slot::SLOT,
        );
        unsafe extern "C" {
            $(#[$doc])*
            #[link_name = $crate::cpu::symbol!(name $name)]
            pub(in crate::cpu) fn $name(to: *mut u8, from: *const u8, len: usize) -> usize;
        }
    };
}
