//! Evidence for daxmap: the conformance suite of the trait, the emulated-NVDIMM guest, and a
//! block device that can fail.

pub mod blockdev;
pub mod conformance;
pub mod cut;
pub mod failing;
pub mod guest;
pub mod load;
pub mod recorded;
pub mod scratch;
pub mod snapshot;
pub mod traced;
pub mod unprivileged;
pub mod versions;
