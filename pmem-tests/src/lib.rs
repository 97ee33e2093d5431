//! Evidence for daxmap: the conformance suite of the trait, the emulated-NVDIMM guest, and a
//! block device that can fail.

pub mod blockdev;
pub mod careless;
pub mod conformance;
#[cfg(feature = "sim")]
pub mod corpus;
pub mod cut;
pub mod failing;
mod fuse;
pub mod guest;
pub mod killed;
pub mod load;
#[cfg(feature = "sim")]
pub mod log_beside;
#[cfg(feature = "sim")]
pub mod log_model;
pub mod long_run;
pub mod pass_on;
pub mod passthrough;
pub mod random;
#[cfg(feature = "sim")]
pub mod record_log;
pub mod recorded;
pub mod scratch;
pub mod snapshot;
pub mod storing;
pub mod traced;
pub mod unprivileged;
pub mod unreadable;
pub mod versions;
pub mod watched;
pub mod wordwise;
pub mod write_log;
