//! `libpmem.so.1` on [`daxmap`]: what PMDK 1.12 exports, for programs that link to it unchanged.
//!
//! `libpmem/build` makes the shared object of this static library. Its 23 functions have the
//! version `LIBPMEM_1.0`; their meaning is that of the manual pages libpmem(7), pmem_flush(3),
//! pmem_is_pmem(3) and pmem_memmove_persist(3), and of Debian's 1.12.1 as it was seen to behave.
//! `README.md` lists what differs.
//!
//! No function installs a signal handler, starts a thread or panics. Copies, flushes, drains and
//! persists take no lock and allocate nothing: what they use is selected by a constructor, so a
//! signal handler may be the first to call them. Mapping, unmapping, `pmem_is_pmem` and
//! `pmem_msync` share a lock, which fork(2) leaves free in the child.
//!
//! # Safety
//!
//! Every function that takes a pointer trusts it, as C does: a range is mapped and, where it is
//! written, writable. `errno` is part of the interface, after a success too: fio asks for it.
#![allow(unsafe_code, reason = "every function is the C interface itself")]
#![allow(clippy::missing_safety_doc, reason = "the crate's section on safety holds for each")]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("64-bit Linux only");

mod auto_flush;
mod copies;
mod device;
mod environment;
mod flushes;
mod map;
mod mapping;
mod message;
mod place;
mod registry;
mod selected;
mod syncs;
mod version;
