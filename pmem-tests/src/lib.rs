//! Evidence for daxmap: the conformance suite of the trait, the emulated-NVDIMM guest, and a
//! block device that can fail.

pub mod blockdev;
pub mod guest;
