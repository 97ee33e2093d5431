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
//!   [`Region::durability`] says. The level is that of the new file itself: a required level was
//!   checked on it when the draft was made.
//! - An error changes nothing, with one exception that says so:
//!   [`ErrorKind::PublishedNotDurable`].
//! - A file that is replaced hands on its owner, permission bits, extended attributes, access
//!   control list and DAX flag. Not its times, nor what the kernel computes from the content
//!   (`security.ima`, `security.evm`).
//!
//! A draft that is a symbolic link's target takes the target's place, as editors do that care: the
//! link stays, and so does whatever else leads to it. Other hard links of a replaced file go on
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
//! | 4 | `FS_IOC_FIEMAP`; rewrite and `fdatasync` of what was never written, if any | correct data, but an unwritten extent to convert at a later write |
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
mod dax_flag;
mod leftovers;

use std::ffi::OsStr;
use std::ops::{Deref, Range};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use self::attributes::Old;
pub use self::leftovers::{Leftovers, clean_leftovers};
use crate::durability::Backend;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;
use crate::region::calls;
use crate::region::draft::Place;
use crate::region::quirks::Quirks;
use crate::region::{AnyRegion, Options, Region};

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
    /// in one directory wait for each other (flock(2) on the directory). A file that has the other
    /// name is replaced. If there is nothing to keep, the commit fails with
    /// `ENOENT`.
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
/// Dropping a draft leaves nothing behind. It grows like any region.
#[derive(Debug)]
#[must_use = "a draft that is not committed leaves nothing"]
pub struct Draft {
    // Dropped first: takes the temporary name away while the file is still locked.
    place: Place,
    region: AnyRegion,
    path: PathBuf,
    quirks: Quirks,
    options: Options,
}

impl Options {
    /// Starts a file that will be `path`: space allocated, mapped, locked, level checked, in the
    /// directory it will live in, without a name. [`len`](Self::len) is needed.
    ///
    /// If `path` is a symbolic link, the draft is made beside the file that it points to, and
    /// will take that file's place: the link stays.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create), but a file of that name is none; `WrongFileType` for a
    /// directory, a device and the like; `Os(EACCES)` for a file in place that may not be read,
    /// since its attributes could not be kept. Nothing is changed.
    pub fn draft(&self, path: impl AsRef<Path>) -> Result<Draft> {
        let path = path.as_ref();
        self.draft_at(path).map_err(|error| error.at(path))
    }

    fn draft_at(&self, path: &Path) -> Result<Draft> {
        let mut place = Place::following(path)?;
        let old = Old::find(&place)?;
        let fd = self.file_for(&mut place, old.as_ref())?;
        let (region, quirks) = self.attach_draft(path, &mut place, fd)?;
        Ok(Draft { place, region, path: path.to_owned(), quirks, options: self.clone() })
    }

    /// The empty file, with the DAX flag of the one in place.
    fn file_for(&self, place: &mut Place, old: Option<&Old>) -> Result<OwnedFd> {
        // Permission bits that need no change later need no sync of it either.
        let mode = old.map_or(self.file_mode(), Old::mode);
        let fd = place.create(mode, self.locks())?;
        let Some(wanted) = old.and_then(|old| dax_flag::get(old.fd())) else { return Ok(fd) };
        if dax_flag::get(fd.as_fd()).is_none_or(|flag| flag == wanted) {
            return Ok(fd);
        }
        // A flag takes effect when an inode is read anew, after its last close
        // (Documentation/filesystems/dax.rst). A file without a name would not outlive that.
        drop(fd);
        let fd = place.create_named(mode, self.locks())?;
        dax_flag::set(fd.as_fd(), wanted)
            .map_err(|errno| Error::os(Operation::Create, "ioctl FS_IOC_FSSETXATTR", errno))?;
        place.reopen(fd, self.locks())
    }
}

impl Draft {
    /// Makes everything written durable, gives the file its name, makes the name durable, and
    /// returns the region: the same mapping at the same address, open and locked as it was.
    ///
    /// All bytes stored into the draft are published, flushed or not; a thread that used
    /// `write_flush` on a DAX region drains before it hands the draft over, as always.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PublishedNotDurable`] if the file got its name and the sync that makes this
    /// durable failed. After any other error nothing has changed under any name, and the draft
    /// is gone.
    pub fn commit(self, how: Commit<'_>) -> Result<AnyRegion> {
        let Self { mut place, region, path, quirks, options } = self;
        primitive!(
            "publish.complete_before_name",
            complete(&region).and_then(|()| name(&mut place, &region, quirks, how)),
            name(&mut place, &region, quirks, how).and_then(|()| complete(&region))
        )
        .map_err(|error| error.before_publish().at(&path))?;
        primitive!("publish.sync", place.sync(quirks, region.as_fd()), Ok(()))
            .map_err(|error| error.after_publish().at(&path))?;
        options.settle_lock(region.as_fd());
        Ok(region)
    }
}

/// Makes the data durable, with every block written.
fn complete(region: &AnyRegion) -> Result<()> {
    let len = region.len();
    primitive!("publish.persist", region.persist(0, len), Ok(()))?;
    if region.backend() == Backend::PageCache {
        let parts = calls::unwritten(region.as_fd(), len).unwrap_or_default();
        for part in &parts {
            primitive!("publish.write_unwritten", rewrite(region, part), Ok(()))?;
        }
        if !parts.is_empty() {
            primitive!("publish.drain_rewritten", region.drain(), Ok(()))?;
        }
    }
    Ok(())
}

/// Writes what a part reads as, which for a part that was never written is zeros: it takes no
/// trust in the filesystem's answer to leave what was written as it is.
fn rewrite(region: &AnyRegion, part: &Range<u64>) -> Result<()> {
    const PIECE: u64 = 1 << 20;
    let mut buffer = vec![0; PIECE.min(part.end - part.start) as usize];
    let mut at = part.start;
    while at < part.end {
        let piece = &mut buffer[..PIECE.min(part.end - at) as usize];
        region.read(at, piece)?;
        region.write(at, piece)?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// Gives the file its name. An error has changed nothing.
fn name(place: &mut Place, region: &AnyRegion, quirks: Quirks, how: Commit<'_>) -> Result<()> {
    const RACES: u32 = 8;
    let fd = region.as_fd();
    match how {
        Commit::CreateOnly if place.through_link => {
            Err(Error::os(Operation::Publish, "linkat", Errno::EXIST))
        }
        Commit::CreateOnly => place.name_new(fd),
        Commit::Replace => {
            for _ in 0..RACES {
                if let Some(old) = Old::find(place)? {
                    inherit(&old, region, quirks)?;
                    match place.name_over(quirks, fd) {
                        // What was to be replaced is gone.
                        Err(error) if error.errno() == Some(Errno::NOENT) => continue,
                        result => return result,
                    }
                }
                match place.name_new(fd) {
                    // Somebody else was faster: theirs is the one to replace.
                    Err(error) if error.errno() == Some(Errno::EXIST) => {}
                    result => return result,
                }
            }
            Err(Error::os(Operation::Publish, "linkat", Errno::EXIST))
        }
        Commit::Exchange(keep) => {
            let Some(old) = Old::find(place)? else {
                return Err(Error::os(Operation::Publish, "openat", Errno::NOENT));
            };
            check_kept_name(place, keep)?;
            inherit(&old, region, quirks)?;
            // Two exchanges make one version the old one: another's in between would bring the
            // replaced version back.
            place.exclude_others()?;
            exchange(place, region, quirks, keep)
        }
    }
}

/// The attributes of the file in place. Where no later sync covers the inode, this one does.
fn inherit(old: &Old, region: &AnyRegion, quirks: Quirks) -> Result<()> {
    let changed = primitive!("publish.attributes", old.hand_on(region.as_fd()), Ok(false))?;
    if changed && quirks.no_journal {
        primitive!("publish.attributes.fsync", calls::fsync(region.as_fd()), Ok(()))
            .map_err(|errno| Error::os(Operation::Publish, "fsync", errno))?;
    }
    Ok(())
}

/// A single name, of a regular file or of nothing.
fn check_kept_name(place: &Place, keep: &OsStr) -> Result<()> {
    let plain = Path::new(keep).file_name() == Some(keep);
    if !plain || keep == place.name() {
        return Err(Error::os(Operation::Publish, "renameat2", Errno::INVAL));
    }
    match calls::statat(place.directory(), keep) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile => {
            let what = "the name to keep the old version under is not a regular file's";
            Err(Error::new(Operation::Publish, ErrorKind::WrongFileType(what)))
        }
        Err(errno) if errno != Errno::NOENT => Err(Error::os(Operation::Publish, "fstatat", errno)),
        _ => Ok(()),
    }
}

/// The new file takes the final name, the old one `keep`. A temporary name only ever names the
/// draft or what `keep` named before, never the version to be kept.
fn exchange(place: &mut Place, region: &AnyRegion, quirks: Quirks, keep: &OsStr) -> Result<()> {
    let name = place.name().to_owned();
    match place.name_as_new(region.as_fd(), keep) {
        Ok(()) => {
            place.exchange(keep, &name).inspect_err(|_| place.unname_if(region.as_fd(), keep))
        }
        Err(error) if error.errno() == Some(Errno::EXIST) => {
            let temporary = place.name_temporarily(region.as_fd())?.to_owned();
            place.exchange(&temporary, keep)?;
            place.exchange(keep, &name).inspect_err(|_| {
                if place.exchange(&temporary, keep).is_err() {
                    // It is the name of the version kept before, not the draft's.
                    place.leave_temporary();
                }
                place.settle_names(quirks);
            })?;
            if primitive!("publish.older_until_synced", !quirks.no_journal, true) {
                place.remove_temporary();
            }
            Ok(())
        }
        Err(error) => Err(error),
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
