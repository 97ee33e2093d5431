//! What opening found.

use crate::UnsafeShutdown;

/// What was found when the file was opened, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The checkpoint that was restored. 0: nothing was ever saved, the set is zero.
    pub checkpoint: u64,
    /// The file is as closing leaves it: nothing was damaged, and no part of the last checkpoint had to
    /// be put into its place or written a second time. So with shadow pages it is not if something was
    /// saved and the file not closed; with a redo record, if the process was killed while it saved.
    pub clean: bool,
    /// A copy of the root does not validate: a checkpoint that a crash cut short, or damage of the
    /// root of the last one before a crash. It is made whole again, unless the file is open for
    /// reading only.
    pub cut_short: bool,
    /// One of the two copies of the header, or of its opening mark, was damaged or cut by a crash. It is made whole again likewise.
    pub header_damaged: bool,
    /// Checkpoints before the newest that can no longer be read, and go with the next one.
    pub damaged: Vec<u64>,
    /// Whether the memory under the file lost power unsaved since it was last opened for writing.
    pub unsafe_shutdown: UnsafeShutdown,
    /// Bytes of the file that were read.
    pub bytes_read: u64,
}
