//! Create or replace a whole file atomically, the mapping kept.
//!
//! A [`Draft`] is a region without a name, in the directory that it will live in. It is written
//! like any other region, then [committed](Draft::commit): it takes its name, and is open, mapped
//! and usable afterwards, at the same address.
//!
//! ```
//! use daxmap::publish::Commit;
//! use daxmap::{Options, Region};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("index");
//! let draft = Options::new().len(1 << 20).draft(&path)?;
//! draft.write(0, b"all of the new content")?;
//! let region = draft.commit(Commit::Replace)?;   // durable, under its name, still mapped
//! region.write_persist(0, b"and updated in place")?;
//! # Ok::<(), daxmap::Error>(())
//! ```
//!
//! # What is promised
//!
//! - At every moment, and after a crash at any moment, the name shows what it showed before or
//!   the whole draft as it was committed. Nothing else, ever.
//! - When `commit` returns `Ok`, the draft's data, attributes and name are as durable as
//!   [`Region::durability`](crate::Region::durability) says. The level is that of the new file itself: a required level was
//!   checked on it when the draft was made. A directory without fsync lowers the level to
//!   `Unverified` at the commit; if a higher one is required, the commit is `PublishedNotDurable`.
//! - An error changes nothing, with one exception that says so:
//!   [`ErrorKind::PublishedNotDurable`](crate::ErrorKind::PublishedNotDurable).
//! - A file that is replaced hands on its owner, permission bits, extended attributes, access
//!   control list, DAX flag, project id and, on btrfs, its flag against copy-on-write. Not its times,
//!   nor what the kernel computes from the content (`security.ima`, `security.evm`). What cannot be
//!   handed on stops nothing and widens no right: [`Draft::not_kept`] lists it.
//!
//! If `path` is a symbolic link, the file that it points to is replaced or made, and the link stays.
//! Another user's link in a sticky, world-writable directory is refused (`EACCES`). Other hard links of a replaced file go on
//! naming the old version, and so do open files and mappings of it: whoever wants the new one
//! opens it anew.
//!
//! # The calls, and what a crash leaves without each
//!
//! | | call | without it a crash leaves |
//! |---|---|---|
//! | 1 | `openat` with `O_TMPFILE`, `fallocate` | a full disk would show at a later write, or a leftover |
//! | 2 | `pwrite` by the caller | |
//! | 3 | `fdatasync` of the file | the name, on a file of zeros or of no length: names are journalled, data is not, and nothing orders the two (ext4 with delayed allocation or preallocation, xfs, btrfs) |
//! | 4 | unless all was written from the first byte to the last: `FS_IOC_FIEMAP`; rewrite and `fdatasync` of what was never written, if any | correct data, but an unwritten extent to convert at a later write |
//! | 5 | owner, attributes, mode, if they differ | a file with other rights |
//! | 6 | `linkat` to a temporary name; to the final one if that is free | no name to rename: linkat(2) cannot replace |
//! | 7 | `renameat`, or `renameat2` to exchange | the old version under the name |
//! | 8 | `fsync` of the directory; on btrfs, of the file | the old version under the name, or no file: the rename is in memory only |
//!
//! No `msync`: the page cache backend stores with `pwrite`, and what fsync(2) syncs is all of the
//! file's dirty pages in any case, those dirtied through a mapping included (mm/msync.c: `msync`
//! is an fsync of a range). No second `fsync` of the file: size and extents are part of what
//! fdatasync(2) keeps, and link count, owner and mode are in the journal before the rename that
//! step 8 commits. Where that is not so, `src/region/quirks.rs` has the table of what is done
//! instead: without a journal, the file has a temporary name from the beginning, and step 7 gives
//! that name to the file in place, by an exchange, until step 8 is done; a crash leaves it behind.
//! Elsewhere there is one for the moment between 6 and 7.
//!
//! On a DAX filesystem with `MAP_SYNC`, step 1 writes zeros and syncs the file once, so that size
//! and extents are durable; step 3 is a write-back of the draft's cache lines and a fence, without
//! a system call (mmap(2), `MAP_SYNC`); 4 does not arise; 5 to 8 are the same, since `MAP_SYNC`
//! covers the block mapping of the file and no directory entry.
//!
//! In memory (tmpfs) nothing is synced.
//!
//! `pmem-tests/tests/publish_cut.rs` cuts the power and kills the process before each of these
//! calls on ext4 with and without a journal and with the block maps of ext3, on xfs and btrfs, and
//! leaves each sync out in turn;
//! `publish_calls.rs` counts them. `docs/publish.md` has the long answer, with its sources.
//!
//! # Exchange
//!
//! [`Commit::Exchange`] keeps the old version under another name. The draft takes that other name
//! first, then the two names are exchanged in one step (renameat2(2), `RENAME_EXCHANGE`), so both
//! lead to whole versions at every moment, and what is kept is exactly what was replaced even
//! while others publish too. One sync makes both names durable. A crash in between leaves the old
//! version under its name, and the new one under the other.
//!
//! # Leftovers
//!
//! A temporary name is `.daxmap-draft-` and sixteen hexadecimal digits. [`clean_leftovers`] removes
//! those that no live process holds.

mod attributes;
mod commit;
mod in_place;
mod inode_flags;
mod leftovers;
mod whole;

use std::ffi::OsStr;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;

pub use self::attributes::{Attribute, NotKept};
use self::attributes::{Handed, Old, Rights};
use self::commit::{complete, name};
use self::inode_flags::Extended;
pub use self::leftovers::{Leftovers, clean_leftovers};
pub use self::whole::replace;
use crate::error::{Error, Operation, Result};
use crate::primitives::primitive;
use crate::probe::Report;
use crate::region::calls;
use crate::region::draft::Place;
use crate::region::ground::Seen;
use crate::region::quirks::Quirks;
use crate::region::{AnyRegion, Options};

/// What becomes of a file that has the draft's name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Commit<'a> {
    /// It is replaced, and hands its owner, permission bits, extended attributes and access
    /// control lists on. If there is none, the file is created.
    Replace,
    /// It stays, and the commit fails with `EEXIST`.
    CreateOnly,
    /// It is replaced as with `Replace`, and stays under this other name of the same directory.
    /// The version kept is exactly the one replaced, whoever else publishes meanwhile: exchanges
    /// in one directory wait for each other, 5 seconds at most (flock(2) on the directory, which
    /// anybody who may read it can lock: `EAGAIN`). A file that has the other name is replaced.
    ///
    /// The commit fails with `ENOENT` if there is nothing to keep, and with `EINVAL` if the other name
    /// is this one in another spelling, on a filesystem that folds case. Without `RENAME_EXCHANGE`, and
    /// where a server might ignore that flag (FUSE, overlay, network), the old version is linked to the
    /// other name first; without hard links either, the commit fails.
    Exchange(&'a OsStr),
}

impl<'a> Commit<'a> {
    /// [`Exchange`](Self::Exchange), with the name in any form.
    #[must_use]
    pub fn keep<Name: AsRef<OsStr> + ?Sized>(name: &'a Name) -> Self {
        Self::Exchange(name.as_ref())
    }
}

/// A region that has no name yet: write it as any other, then [`commit`](Self::commit) it.
///
/// Dropping a draft leaves nothing behind. It grows like any region. On the page cache it is mapped when
/// it is read first; if that fails, reads ask the kernel, and growing and views are errors.
#[derive(Debug)]
#[must_use = "a draft that is not committed leaves nothing"]
pub struct Draft {
    // Dropped first: takes the temporary name away while the file is still locked.
    place: Place,
    region: AnyRegion,
    path: PathBuf,
    inherits: Inherits,
    options: Options,
}

/// A file under construction that is still empty.
struct Begun {
    // Dropped first, as in `Draft`.
    place: Place,
    fd: OwnedFd,
    report: Report,
    seen: Option<Seen>,
    inherits: Inherits,
}

/// What the draft has of the file in place, and how it gets its name.
#[derive(Debug)]
struct Inherits {
    quirks: Quirks,
    strict: bool,
    /// The file in place when the draft was made, if what it hands on stays as it was handed on.
    from: Option<Old>,
    not_kept: Vec<NotKept>,
}

impl Options {
    /// Starts a file that will be `path`: space allocated, mapped, locked, level checked, in the
    /// directory it will live in, without a name. [`len`](Self::len) is needed.
    ///
    /// If `path` is a symbolic link, the draft is made beside the file that it points to, and
    /// will take that file's place: the link stays.
    ///
    /// What the file in place hands on is given to the draft now. [`Draft::not_kept`] lists what
    /// cannot be handed on; with [`strict_attributes`](Self::strict_attributes) that is an error.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create), but a file of that name is none; `WrongFileType` for a
    /// directory, a device and the like. Nothing is changed.
    pub fn draft(&self, path: impl AsRef<Path>) -> Result<Draft> {
        let path = path.as_ref();
        self.draft_at(path).map_err(|error| error.at(path))
    }

    fn draft_at(&self, path: &Path) -> Result<Draft> {
        let Begun { place, fd, report, seen, inherits } = self.begin(path)?;
        let region = self.attach_draft(path, fd, report, seen.as_ref())?;
        Ok(Draft { place, region, path: path.to_owned(), inherits, options: self.clone() })
    }

    /// An empty file beside the one in place, with what that hands on.
    fn begin(&self, path: &Path) -> Result<Begun> {
        let mut place = Place::of(path)?;
        let found = place.found().copied();
        // Permission bits that need no change later need no sync of it either.
        let mode = found.as_ref().map_or(Ok(self.file_mode()), attributes::mode_of)?;
        let fd = place.create(mode, self.locks())?;
        let (report, quirks, seen) = self.survey_draft(path, &mut place, fd.as_fd())?;
        let old = match &found {
            Some(found) => Old::open_as_found(&place, found, has_plain_files(&report))?,
            None => None,
        };
        let inherits = Inherits::new(quirks, self.is_strict());
        let begun = Begun { place, fd, report, seen, inherits };
        match old {
            None => Ok(begun),
            Some(old) => self.inherit_early(path, begun, old),
        }
    }

    /// Gives the empty file what the one in place has, and takes note of what it cannot have.
    fn inherit_early(&self, path: &Path, mut begun: Begun, old: Old) -> Result<Begun> {
        let strict = begun.inherits.strict;
        if may_have_dax_flag(&begun.report) {
            if let (Ok(theirs), Ok(ours)) = (old.extended(), Extended::of(begun.fd.as_fd())) {
                if theirs.dax() != ours.dax() {
                    let Begun { place, fd, .. } = &mut begun;
                    *fd = self.with_dax_flag(place, old.mode(), theirs.dax())?;
                    (begun.report, _, begun.seen) = self.survey_draft(path, place, fd.as_fd())?;
                }
            }
        }
        let Begun { place, fd, report, seen, inherits } = &mut begun;
        let mut flags = Handed::new(strict);
        if may_have_project(report) {
            old.hand_project_on(place, fd.as_fd(), &mut flags)?;
        }
        if report.filesystem.as_deref() == Some("btrfs") {
            old.hand_no_cow_on(fd.as_fd(), &mut flags)?;
        }
        let rights = match seen {
            Some(seen) => Rights::seen(seen),
            None => Rights::of(fd.as_fd())?,
        };
        let handed = hand_on(&old, fd.as_fd(), rights, strict, false)?;
        inherits.not_kept = handed.not_kept;
        inherits.not_kept.append(&mut flags.not_kept);
        // Written to, it would lose some of it.
        inherits.from = (inherits.quirks.exact_times && !handed.fragile).then_some(old);
        Ok(begun)
    }

    /// The empty file with the DAX flag of the one in place. A flag takes effect when an inode is
    /// read again, after its last close (Documentation/filesystems/dax.rst). A file without a name
    /// would not outlive that.
    fn with_dax_flag(&self, place: &mut Place, mode: Mode, on: bool) -> Result<OwnedFd> {
        place.remove_temporary();
        let fd = place.create_named(mode, self.locks())?;
        let failed = |errno| Error::os(Operation::Create, "ioctl FS_IOC_FSSETXATTR", errno);
        Extended::of(fd.as_fd()).and_then(|own| own.set_dax(fd.as_fd(), on)).map_err(failed)?;
        place.reopen(fd, self.locks())
    }
}

fn hand_on(
    old: &Old,
    new: BorrowedFd<'_>,
    rights: Rights,
    strict: bool,
    written: bool,
) -> Result<Handed> {
    primitive!(
        "publish.attributes",
        old.hand_on(new, rights, strict, written),
        Ok(Handed::new(strict))
    )
}

/// Only ext4 and xfs have the flag, and it has an effect only where the device offers DAX.
fn may_have_dax_flag(report: &Report) -> bool {
    matches!(report.filesystem.as_deref(), Some("ext4" | "xfs"))
        && report.device.as_ref().is_none_or(|device| device.dax != Some(false))
}

/// On btrfs, only an open file tells its flag against copy-on-write.
fn has_plain_files(report: &Report) -> bool {
    report.filesystem.as_deref().is_some_and(|name| name != "btrfs")
}

/// Those that have none for certain are not asked.
fn may_have_project(report: &Report) -> bool {
    !matches!(report.filesystem.as_deref(), Some("tmpfs" | "ramfs" | "btrfs"))
}

impl Draft {
    /// What of the file in place the draft does not have, and why. Empty if there is no file in
    /// place, or the draft has all of it.
    ///
    /// A file that takes that place before the commit hands on what it can as well.
    #[must_use]
    pub fn not_kept(&self) -> &[NotKept] {
        &self.inherits.not_kept
    }

    /// Makes everything written durable, gives the file its name, makes the name durable, and
    /// returns the region: the same mapping at the same address, open and locked as it was.
    ///
    /// All bytes stored into the draft are published, flushed or not; a thread that used
    /// `write_flush` on a DAX region drains before it hands the draft over, as always.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PublishedNotDurable`](crate::ErrorKind::PublishedNotDurable) if the file got its name and the sync that makes this
    /// durable failed, or is not there and a level above `Unverified` is required. After any other
    /// error nothing has changed under any name, and the draft is gone.
    pub fn commit(self, how: Commit<'_>) -> Result<AnyRegion> {
        let Self { mut place, mut region, path, inherits, options } = self;
        let quirks = inherits.quirks;
        let fd = region.as_fd();
        primitive!(
            "publish.complete_before_name",
            complete(&region).and_then(|()| name(&mut place, fd, &inherits, how)),
            name(&mut place, fd, &inherits, how).and_then(|()| complete(&region))
        )
        .map_err(|error| error.before_publish().at(&path))?;
        primitive!("publish.sync", place.sync(quirks, fd), Ok(true))
            .and_then(|synced| {
                if synced {
                    Ok(())
                } else {
                    region
                        .lower(|report| options.without_directory_sync(report))
                        .map_err(not_as_required)
                }
            })
            .map_err(|error| error.after_publish().at(&path))?;
        options.settle_lock(region.as_fd());
        region.is_published();
        Ok(region)
    }
}

/// The file has its name, and the level that is required is not there: its directory has no sync.
fn not_as_required(_: Error) -> Error {
    Error::os(Operation::Sync, "fsync of the directory", Errno::INVAL).advise(
        "the filesystem cannot sync a directory: keep the file on ext4, xfs or btrfs, or require \
         no more than Durability::Unverified",
    )
}

impl Inherits {
    fn new(quirks: Quirks, strict: bool) -> Self {
        Self { quirks, strict, from: None, not_kept: Vec::new() }
    }

    /// The attributes of the file in place; false if there is none. Where no later sync covers the
    /// inode, this one does. (What was handed on to the empty file is synced with its length.)
    fn inherit(&self, place: &Place, new: BorrowedFd<'_>) -> Result<bool> {
        if self.is_still_from(place)? {
            return Ok(true);
        }
        let Some(old) = Old::find(place)? else { return Ok(false) };
        let handed = hand_on(&old, new, Rights::of(new)?, self.strict, true)?;
        if handed.changed && self.quirks.no_journal {
            primitive!("publish.attributes.fsync", calls::fsync(new), Ok(()))
                .map_err(|errno| Error::os(Operation::Publish, "fsync", errno))?;
        }
        Ok(true)
    }

    fn is_still_from(&self, place: &Place) -> Result<bool> {
        self.from.as_ref().map_or(Ok(false), |from| from.is_unchanged(place))
    }
}

impl Deref for Draft {
    type Target = AnyRegion;

    fn deref(&self) -> &AnyRegion {
        &self.region
    }
}

impl AsRef<AnyRegion> for Draft {
    fn as_ref(&self) -> &AnyRegion {
        &self.region
    }
}
