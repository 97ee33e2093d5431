//! A region that loses in a simulated crash what a real one may lose, and an explorer that tries
//! the crashes: for the tests of logs, tables and files built on [`Region`](daxmap::Region).
//!
//! For the tests of whoever builds on a region:
//!
//! ```toml
//! [dev-dependencies]
//! daxmap-sim = "0.1"
//! ```
//!
//! A test is a workload, which says what it has promised, and a check, which does what the program
//! does after a crash and compares what it finds with what was promised:
//!
//! ```
//! use daxmap_sim::{Explorer, History, Mode, Notes, SimRegion};
//! use daxmap::{Region, Result};
//!
//! const DATA: u64 = 0;
//! const VALID: u64 = 512;
//!
//! fn publish(region: &SimRegion, notes: &Notes) -> Result<()> {
//!     region.write(DATA, b"sixteen bytes ok")?;
//!     region.persist(DATA, 16)?; // without this line, the explorer says what is lost
//!     region.store_u64(VALID, 1)?;
//!     region.persist(VALID, 8)?;
//!     notes.ack(1);
//!     Ok(())
//! }
//!
//! fn check(region: &SimRegion, history: &History) -> std::result::Result<(), String> {
//!     let valid = region.load_u64(VALID).map_err(|error| error.to_string())? == 1;
//!     let mut data = [0; 16];
//!     region.read(DATA, &mut data).map_err(|error| error.to_string())?;
//!     if valid && &data != b"sixteen bytes ok" {
//!         return Err(format!("valid, but the data is {data:?}"));
//!     }
//!     if !valid && history.last_acked() == Some(1) {
//!         return Err("acknowledged, but not there".to_owned());
//!     }
//!     Ok(())
//! }
//!
//! for mode in Mode::ALL {
//!     let report = Explorer::new(mode, 4096).run(publish, check).expect_clean();
//!     assert!(report.is_exhaustive());
//! }
//!
//! // The same without the flush of the data.
//! let careless = |region: &SimRegion, _: &Notes| {
//!     region.write(DATA, b"sixteen bytes ok")?;
//!     region.store_u64(VALID, 1)?;
//!     region.persist(VALID, 8)
//! };
//! let failure = Explorer::new(Mode::Adr, 4096).run(careless, check).expect_failure();
//! assert!(failure.to_string().contains("line at 0x0, written at op 1"));
//! assert!(failure.to_string().contains("never flushed"));
//! ```
//!
//! A structure that is generic over `R: Region` and owns its region is given `region.clone()`:
//! a [`SimRegion`] is a handle.
//!
//! # The model
//!
//! It follows the published persistency model of x86 (Raad, Wickerson, Neis, Vafeiadis:
//! "Persistency semantics of the Intel-x86 architecture", POPL 2020; Khyzha, Lahav: "Taming
//! x86-TSO persistency", POPL 2021) as far as the contract of [`Region`](daxmap::Region) promises
//! it, and is weaker where the contract promises less:
//!
//! - Of the stores to one line a prefix survives, in the order in which they became visible,
//!   whoever stored them. Lines survive independently of each other, flushed or not.
//! - A flush captures what the line holds at that moment. The next drain of the same thread makes
//!   durable what the thread captured, and nothing else.
//! - [`write_flush`](daxmap::Region::write_flush) and the like go past the cache: any subset of
//!   their 8-byte pieces survives until the drain of the same thread, and older stores to the
//!   line are not flushed with them.
//! - Only an aligned 8-byte word is stored whole. Other bytes arrive one by one, in the order of
//!   their addresses (with [`Mode::TornWords`], in any).
//! - A compare-and-exchange is no fence, although x86 makes it one.
//! - Threads are sequentially consistent. Store buffers lose nothing that a crash could not lose
//!   anyway, but an interleaving that only they allow is not explored: that is loom's part.
//! - A growth that has returned is durable; a crash inside it leaves either length.
//!
//! # What a clean result does not prove
//!
//! That the compiled program flushes what the simulated one did: it is the same code over another
//! region, but the instructions, the kernel and the device are not part of the model. That other
//! workloads are safe: only this one was run. And, unless
//! [`Report::is_exhaustive`] says so, that the images left out are.
//!
//! | file | question |
//! |---|---|
//! | `mode` | which memory, or which disk? |
//! | `model` | what is in the caches, and what is surely durable? |
//! | `image` | what may a crash leave, and which of it has recovery looked at? |
//! | `region`, `state`, `thread`, `trace` | how does it answer the calls of the trait, and what was called? |
//! | `filesystem` | the same for the names and files of a directory |
//! | `explorer`, `driver`, `schedule` | which runs, which crashes, which interleavings? |
//! | `history`, `report`, `explain` | what was promised, what was found, and in which words? |
//! | `random` | where do seeded choices come from? |

mod driver;
mod explain;
mod explorer;
pub mod filesystem;
mod history;
mod image;
mod mode;
mod model;
mod random;
mod region;
mod report;
mod schedule;
mod state;
#[cfg(test)]
mod tests;
mod thread;
mod trace;

pub use explorer::{Body, Explorer};
pub use history::{History, Notes};
pub use mode::Mode;
pub use random::SplitMix64;
pub use region::SimRegion;
pub use report::{Crash, Failure, Report};
pub use state::Faults;
