//! A durable region of a file behind one trait.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("daxmap supports 64-bit Linux only");

pub mod cpu;
mod durability;
mod error;
pub mod probe;
mod region;

pub use durability::{Backend, Durability, Granularity, PersistenceDomain};
pub use error::{Error, ErrorKind, Operation, Result};
pub use region::{
    AnyRegion, DEFAULT_RESERVE, Emulation, MappedRegion, Options, PageCacheRegion, Region,
};
