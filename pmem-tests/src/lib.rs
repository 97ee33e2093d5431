//! Evidence for daxmap: the conformance suite of the trait, and the emulated-NVDIMM guest.

pub mod conformance;
pub mod cut;
pub mod failing;
pub mod guest;
pub mod scratch;
pub mod traced;
pub mod versions;
