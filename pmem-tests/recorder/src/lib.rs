//! What an emulated machine's write-backs and fences made durable, apart from what it stored.
//!
//! QEMU keeps a guest's persistent memory in a file of the host, and every store is in that file
//! at once: it behaves as if the CPU caches were persistent. This plugin keeps two more files
//! beside it, which behave like memory behind caches that a power cut empties:
//!
//! - `arrived`: every cache line as it was when the guest last wrote it back (clwb, clflushopt,
//!   clflush), and every byte that it stored around the caches (movnt...). Such a write-back is
//!   on its way; a power cut may or may not come first.
//! - `durable`: the same, once a fence of that processor (sfence, mfence) has waited for it.
//!
//! A power cut leaves each 64-byte line as one of the three files has it: `durable` at least,
//! `arrived` if the write-back was quicker than the cut, `live` if the line was evicted from the
//! cache without being asked. That is the x86 persistency model, but for lines that were stored
//! to several times since: a store in between may be what an eviction caught.
//!
//! A locked instruction orders write-backs too (SDM vol. 2, CLWB), as do serialising ones.
//! They do not count as fences here: the code under test must not depend on the accident that the
//! kernel takes a lock. The machine has one processor, so that nobody's fence is another's.
//!
//! # Files
//!
//! `live`, `durable` and `arrived` have the size of the NVDIMM. The control page has the words
//! that [`Control`] names. A test reads them while the processor stands before one of the events
//! that [`Word::Events`] counts.

mod control;
#[cfg(feature = "plugin")]
mod files;
#[cfg(feature = "plugin")]
mod instruction;
#[cfg(feature = "plugin")]
mod plugin;
#[cfg(feature = "plugin")]
mod qemu;
#[cfg(feature = "plugin")]
mod translate;

pub use control::{Control, Word};

/// Bytes of a cache line.
pub const LINE_BYTES: u64 = 64;

/// Displacement of the instruction `nop dword ptr [rax + ACKNOWLEDGE]`, by which a program in the
/// guest says that everything up to the number in `rax` is durable, in
/// [`Word::Acknowledged`]. It does nothing else, least of all order anything.
pub const ACKNOWLEDGE: i32 = 0x6461_786d;
