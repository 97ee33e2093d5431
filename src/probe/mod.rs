//! What lies under a path: the facts, the verdict, and what to change.

mod report;

pub use report::{
    BlockDevice, HugePages, MapSync, MemoryRegion, Mount, Namespace, Reason, ReasonCode, Report,
    Target,
};
