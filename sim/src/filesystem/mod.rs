//! A modelled filesystem: what a crash can leave of the calls that a program made, all of it.
//!
//! A [`Model`] is a filesystem in memory. A thread that has [entered](Model::enter) it uses it through
//! the library under [`Model::path`]: create, open, grow, drain, publish and clean-up run as they are,
//! only their system calls go to the model. A program that makes its own calls makes them on the model.
//! Its [`History`] then shows, for a crash before every call, every state of the medium that the
//! [`Profile`] allows.
//!
//! ```
//! use daxmap_sim::filesystem::{Limits, Model, Profile, Shown};
//! use daxmap::{Options, Region};
//!
//! let model = Model::new(Profile::Ext4).expect("memory files can be made");
//! let inside = model.enter();
//! let region = Options::new().len(4096).create(model.path().join("file"))?;
//! region.write_persist(0, b"committed")?;
//! model.mark(1);
//!
//! let tally = model.history().explore(Limits::default(), |crash| match crash.image.shows("file") {
//!     Shown::Nothing if crash.mark == 0 => Ok(()),
//!     Shown::File(file) if crash.mark == 0 && file.len() == 4096 => Ok(()),
//!     Shown::File(file) if file.bytes().starts_with(b"committed") => Ok(()),
//!     other => Err(format!("{other:?}")),
//! });
//! println!("{}", tally.expect("no state breaks the promise"));
//! # drop(inside);
//! # Ok::<(), daxmap::Error>(())
//! ```
//!
//! What is modelled, the order that each profile keeps and where it is written down, and what all of
//! this does not prove: docs/filesystem_model.md.
//!
//! | file | question |
//! |---|---|
//! | `system` | how do the library's calls, and a test's own, come here? |
//! | `live` | what does the user of the filesystem see? |
//! | `history` | what was changed, what waits for what, what is surely durable? |
//! | `profile` | what differs between filesystems? |
//! | `crash` | which states can a crash leave? |
//! | `image` | what is on the medium? |

mod crash;
mod history;
mod image;
mod live;
mod profile;
mod system;

pub use crash::{Crash, Limits, Tally, Verdict, Violation};
pub use history::History;
pub use image::{File, Image, SECTOR, Shown};
pub use profile::Profile;
pub use system::{Inside, Model};

/// Which kind of sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
    /// The call of this number, in the order of [`History::calls`], fails with this errno (`libc::EIO`) and
    /// changes nothing. A sync that fails leaves the file's pages marked clean.
    Fail(usize, i32),
    /// The filesystem lacks something, and says so.
    Lack(Feature),
    /// The library takes the filesystem for another, and leaves out what that does not need.
    Disguise(Profile),
}

/// What not every filesystem has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// `O_TMPFILE`: `EOPNOTSUPP`.
    UnnamedFiles,
    /// The flags of renameat2(2): `EINVAL`.
    RenameFlags,
}

#[cfg(test)]
mod tests;
