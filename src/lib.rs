//! A durable region of a file behind one trait.
//!
//! On a DAX filesystem the file is mapped with `MAP_SHARED_VALIDATE | MAP_SYNC`, and CPU
//! cache-line write-backs make data durable. On any other filesystem the same promise is kept
//! with `pwrite` and `fdatasync`. The program is the same; what differs is the price, and the
//! region says which price it pays, and what a crash leaves.
//!
//! ```
//! use daxmap::{Options, Region};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("wal");
//! let region = Options::new().len(1 << 20).open_or_create(&path)?;
//! println!("{}: {}", region.backend(), region.durability().after_power_cut());
//!
//! // Sixty-four records, one drain: the drain is the price.
//! for record in 0..64 {
//!     region.write_flush(record * 64, b"a record")?;
//! }
//! region.drain()?;
//! // All of them now survive what `region.durability()` names.
//! # Ok::<(), daxmap::Error>(())
//! ```
//!
//! # The parts
//!
//! - [`Region`] is the contract; [`Options`] opens and creates regions.
//! - [`Adopted`] makes ranges of a mapping durable that the caller made and keeps.
//! - [`log`] is an append-only log on a region: one drain a commit, checked recovery.
//! - [`publish`] creates or replaces a whole file atomically and keeps it mapped.
//! - [`checkpoint`] saves a working set in memory on demand, all or nothing.
//! - [`pages`] replaces pages of 4 to 64 KiB in place, old or new after any crash.
//! - [`state`] keeps one plain value, old or new after any crash.
//! - [`probe`] says what lies under a path, why it is or is not DAX, and what to change.
//! - The package `daxmap-sim` crashes what is built on a region, in tests.
//! - [`cpu`] has the cache-line primitives, for those who bring their own mapping.
//!
//! # Which crash leaves what
//!
//! | [`Durability`] | process killed | OS crash or power cut | who gives it |
//! |---|---|---|---|
//! | `PowerFail` | survives | survives | `MAP_SYNC` or device DAX on a region whose persistence domain is known |
//! | `Fsync` | survives | survives | ext4, xfs, btrfs, ... through `fdatasync`; DAX without `MAP_SYNC` |
//! | `Unverified` | survives | only if the layer below keeps its word | `MAP_SYNC` on a region that names no domain; FUSE, network, overlay, `nobarrier` |
//! | `ProcessOnly` | survives | lost | tmpfs, memfd, volatile or e820 regions, emulation on DRAM |
//!
//! "Survives" is said of what was written, flushed and drained.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("daxmap supports 64-bit Linux only");

pub mod checkpoint;
pub mod cpu;
mod durability;
mod error;
#[cfg(test)]
extern crate self as daxmap;
mod fiemap;
mod format;
pub mod log;
#[cfg(feature = "model")]
pub mod model;
pub mod pages;
mod primitives;
pub mod probe;
pub mod publish;
mod reason;
mod region;
#[cfg(all(test, feature = "model"))]
mod sim;
pub mod state;
mod unsafe_shutdown;

pub use durability::{Backend, Durability, Granularity, PersistenceDomain};
pub use error::{Error, ErrorKind, Operation, Result};
pub use region::{
    Adopted, AnyRegion, DEFAULT_RESERVE, Emulation, FRUGAL_RESERVE, Growth, Lock, Options, Region,
    Synced,
};
pub use unsafe_shutdown::UnsafeShutdown;
