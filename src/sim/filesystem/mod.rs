//! x
mod crash;
mod history;
mod image;
mod live;
mod profile;
mod system;

use rustix::io::Errno;

pub use crash::{Crash, Limits, Tally, Verdict, Violation};
pub use history::History;
pub use image::{File, Image, SECTOR, Shown};
pub use profile::Profile;
pub use system::{Inside, Model};

/// Which kind of sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncCall {
    /// fdatasync(2).
    Data,
    /// fsync(2) of a file.
    File,
    /// fsync(2) of the directory.
    Directory,
}

/// Which of the syncs of a kind, counted from 0 since the medium was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// This one.
    Only(usize),
    /// This one and all later ones.
    From(usize),
}

/// What is done to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tamper {
    /// The sync is reported as done, and not made.
    LeaveOut(SyncCall, Which),
    /// The sync is reported as done, and made after so many further calls that give a name.
    Late(SyncCall, Which, usize),
    /// The call of this number, in the order of [`History::calls`], fails and changes nothing. A
    /// sync that fails leaves the file's pages marked clean.
    Fail(usize, Errno),
    /// The filesystem lacks something, and says so.
    Lack(Feature),
    /// The library takes the filesystem for another, and leaves out what that does not need.
    Disguise(Profile),
}

/// What not every filesystem has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// `O_TMPFILE`: `EOPNOTSUPP`.
    UnnamedFiles,
    /// The flags of renameat2(2): `EINVAL`.
    RenameFlags,
}

#[cfg(test)]
mod tests;
