//! What became of the count of unsafe shutdowns since a file was last open.

/// Whether the memory behind a file lost power without saving its buffers since the file was last
/// opened for writing.
///
/// `PowerFail` rests on a promise of the machine: on power loss it saves what its memory controller
/// holds. The promise can fail, and persistent memory counts how often it did
/// (`dirty_shutdown` in sysfs). Structures keep the count and report here what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnsafeShutdown {
    /// The count is known, and the same as when the file was last opened for writing.
    None,
    /// No count can be read now, or none was when the file was last opened, or it went down. Disks
    /// count none: always, there.
    #[default]
    Unknown,
    /// The count is higher: acknowledged data may be missing.
    Raised {
        /// The file was open for writing then. If not, all of it had been durable before.
        was_open: bool,
    },
    /// The file was last opened on another medium: what its count says is unknown.
    Moved,
}

impl UnsafeShutdown {
    /// The name used in reports and JSON: `none`, `unknown`, `raised_open`, `raised_closed`,
    /// `moved`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Unknown => "unknown",
            Self::Raised { was_open: true } => "raised_open",
            Self::Raised { was_open: false } => "raised_closed",
            Self::Moved => "moved",
        }
    }
}

impl std::fmt::Display for UnsafeShutdown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "none since it was last opened",
            Self::Unknown => "unknown, the medium has no count to compare",
            Self::Raised { was_open: true } => "raised while it was open, data may be missing",
            Self::Raised { was_open: false } => "raised while it was closed",
            Self::Moved => "unknown, it was last opened on another medium",
        })
    }
}
