//! The durable region: one trait, its options, and one file per backend.
//!
//! | file | question |
//! |---|---|
//! | `contract` | what does every region promise? |
//! | `options`, `lock`, `observer` | how is one opened and created? |
//! | `calls` | which system calls is all of this made of? |
//! | `storage`, `unwritten` | how does a file come to be complete, and grow? |
//! | `reopen` | is what an existing file shows on the medium? |
//! | `resolve`, `existing`, `draft`, `naming`, `quirks`, `ground` | which file does a path mean, and how does it get its name, durably? |
//! | `descriptor`, `process`, `identity`, `siblings`, `mapping`, `kernel_copy`, `bounds`, `latch` | what do all backends share? |
//! | `mapped`, with `fsdax`, `devdax`, `volatile`, `cores` | stores into a shared mapping |
//! | `adopted` | how do stores into a caller's own mapping become durable? |
//! | `page_cache`, with `gather`, `group`, `event` | `pwrite` and `fdatasync`, few and shared |
//! | `atomic_writes` | what does the kernel offer for pages that are written whole? |

mod adopted;
mod any;
mod atomic_writes;
pub(crate) mod bounds;
pub(crate) mod calls;
pub(crate) mod clean;
mod contract;
mod cores;
mod descriptor;
mod devdax;
pub(crate) mod draft;
mod event;
mod existing;
mod fsdax;
mod gather;
pub(crate) mod ground;
mod group;
mod growth;
mod identity;
mod kernel_copy;
mod latch;
mod lock;
mod mapped;
mod mapping;
mod naming;
mod observer;
mod options;
mod page_cache;
pub(crate) mod process;
pub(crate) mod quirks;
mod reopen;
mod reserve;
mod resolve;
mod siblings;
pub(crate) mod storage;
mod unwritten;
mod volatile;
mod write_back;

pub use adopted::Adopted;
pub use any::AnyRegion;
pub use contract::Region;
pub use lock::Lock;
pub use observer::Synced;
pub use options::{Emulation, Growth, Options};
pub use reserve::{DEFAULT_RESERVE, FRUGAL_RESERVE};
