//! What was being done when an operation failed.

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)] // each name is the operation
pub enum Operation {
    Open,
    Create,
    Lock,
    Probe,
    Map,
    Populate,
    Allocate,
    Read,
    Write,
    Load,
    Store,
    CompareExchange,
    View,
    Flush,
    Drain,
    Sync,
    Grow,
    Shrink,
    Publish,
    Append,
    Recover,
    Truncate,
    Checkpoint,
    Restore,
    Close,
}

impl Operation {
    /// The operation as it stands in the error message.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Lock => "lock",
            Self::Probe => "probe",
            Self::Map => "map",
            Self::Populate => "populate",
            Self::Allocate => "allocate",
            Self::Read => "read",
            Self::Write => "write",
            Self::Load => "load",
            Self::Store => "store",
            Self::CompareExchange => "compare-exchange",
            Self::View => "view",
            Self::Flush => "flush",
            Self::Drain => "drain",
            Self::Sync => "sync",
            Self::Grow => "grow",
            Self::Shrink => "shrink",
            Self::Publish => "publish",
            Self::Append => "append",
            Self::Recover => "recover",
            Self::Truncate => "truncate",
            Self::Checkpoint => "checkpoint",
            Self::Restore => "restore",
            Self::Close => "close",
        }
    }
}
