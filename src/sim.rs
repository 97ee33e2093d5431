//! The simulator of the package `daxmap-sim`, for unit tests that look inside what they crash.
//!
//! As a dependency it would be built on another copy of this library, whose `Region` is another trait.

#![allow(dead_code, unused_imports)] // these tests need a part of it

#[path = "../sim/src/driver.rs"]
mod driver;
#[path = "../sim/src/explain.rs"]
mod explain;
#[path = "../sim/src/explorer.rs"]
mod explorer;
#[path = "../sim/src/history.rs"]
mod history;
#[path = "../sim/src/image.rs"]
mod image;
#[path = "../sim/src/mode.rs"]
mod mode;
#[path = "../sim/src/model.rs"]
mod model;
#[path = "../sim/src/random.rs"]
mod random;
#[path = "../sim/src/region.rs"]
mod region;
#[path = "../sim/src/report.rs"]
mod report;
#[path = "../sim/src/schedule.rs"]
mod schedule;
#[path = "../sim/src/state.rs"]
mod state;
#[path = "../sim/src/thread.rs"]
mod thread;
#[path = "../sim/src/trace.rs"]
mod trace;

pub use explorer::{Body, Explorer};
pub use history::{History, Notes};
pub use mode::Mode;
pub use random::SplitMix64;
pub use region::SimRegion;
pub use report::{Crash, Failure, Report};
pub use state::Faults;
