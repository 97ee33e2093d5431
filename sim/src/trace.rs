//! What a workload did, for the sentences that explain a failure.

use std::fmt;

/// What an operation was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Write,
    WriteFlush,
    Store,
    Exchange,
    Flush,
    Drain,
    SyncAll,
    Grow,
    Shrink,
}

/// One operation. Operations are numbered from 1 in the order in which they took effect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) thread: u16,
    pub(super) kind: Kind,
    pub(super) failed: bool,
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl Step {
    /// True if the operation's range touches the line.
    pub(super) fn touches(&self, line: u32, shift: u32) -> bool {
        self.len > 0
            && self.offset >> shift <= u64::from(line)
            && u64::from(line) <= (self.offset + self.len - 1) >> shift
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.offset + self.len;
        match self.kind {
            Kind::Write => write!(f, "write [{:#x}, {end:#x})", self.offset),
            Kind::WriteFlush => write!(f, "write_flush [{:#x}, {end:#x})", self.offset),
            Kind::Store => write!(f, "store_u64 {:#x}", self.offset),
            Kind::Exchange => write!(f, "compare_exchange_u64 {:#x}", self.offset),
            Kind::Flush => write!(f, "flush [{:#x}, {end:#x})", self.offset),
            Kind::Drain => f.write_str(if self.failed { "drain, which failed" } else { "drain" }),
            Kind::SyncAll if self.failed => f.write_str("sync_all, which failed"),
            Kind::SyncAll => f.write_str("sync_all"),
            Kind::Grow => write!(f, "grow from {:#x} to {end:#x}", self.offset),
            Kind::Shrink => write!(f, "shrink from {end:#x} to {:#x}", self.offset),
        }
    }
}
