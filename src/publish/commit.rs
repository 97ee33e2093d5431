//! How does a written draft get its data on the medium, and its name?

use std::ffi::{CStr, OsStr};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::Old;
use super::{Commit, Inherits};
use crate::durability::Backend;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;
use crate::region::calls;
use crate::region::draft::Place;
use crate::region::quirks::Quirks;
use crate::region::storage;
use crate::region::{AnyRegion, Region};

/// Makes the data durable, with every block written.
pub(super) fn complete(region: &AnyRegion) -> Result<()> {
    let len = region.len();
    primitive!("publish.persist", region.persist(0, len), Ok(()))?;
    if region.backend() == Backend::PageCache && !region.is_written() {
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
    let mut buffer = storage::buffer(PIECE.min(part.end - part.start) as usize, 0);
    let mut at = part.start;
    while at < part.end {
        let most = (part.end - at).min(buffer.len() as u64);
        let piece = &mut buffer[..most as usize];
        region.read(at, piece)?;
        region.write(at, piece)?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// Gives the file its name. An error has changed nothing.
pub(super) fn name(
    place: &mut Place,
    fd: BorrowedFd<'_>,
    inherits: &Inherits,
    how: Commit<'_>,
) -> Result<()> {
    const RACES: u32 = 8;
    let quirks = inherits.quirks;
    match how {
        Commit::CreateOnly => place.name_new(fd),
        Commit::Replace => {
            for _ in 0..RACES {
                if inherits.inherit(place, fd)? {
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
            check_kept_name(place, &old, keep)?;
            inherits.inherit(place, fd)?;
            // Two exchanges make one version the old one: another's in between would bring the
            // replaced version back.
            place.exclude_others()?;
            exchange(place, fd, quirks, keep)
        }
    }
}

/// A single name, of a regular file other than the one in place, or of nothing.
fn check_kept_name(place: &Place, old: &Old, keep: &OsStr) -> Result<()> {
    let plain = Path::new(keep).file_name() == Some(keep);
    let refused = || Error::os(Operation::Publish, "renameat2", Errno::INVAL);
    if !plain || keep == place.name() {
        return Err(refused());
    }
    let found = match calls::statat(place.directory(), keep) {
        Err(Errno::NOENT) => return Ok(()),
        found => found.map_err(|errno| Error::os(Operation::Publish, "fstatat", errno))?,
    };
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        let what = "the name to keep the old version under is not a regular file's";
        return Err(Error::new(Operation::Publish, ErrorKind::WrongFileType(what)));
    }
    if old.is(&found) && !are_two_names(place, keep)? {
        return Err(refused().advise(
            "the name to keep the old version under is another spelling of the name itself",
        ));
    }
    Ok(())
}

/// Whether the final name and another that leads to the same file are two entries of the directory:
/// hard links. Where case or composition of letters does not matter, one entry answers to several
/// names, and the directory lists it once, as it was made.
fn are_two_names(place: &Place, other: &OsStr) -> Result<bool> {
    let wanted = [place.name().as_bytes(), other.as_bytes()];
    let mut listed = [false; 2];
    let failed = |call| move |errno| Error::os(Operation::Publish, call, errno);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // A description of its own: reading moves its position.
    let directory = calls::openat(place.directory(), OsStr::new("."), flags, Mode::empty())
        .map_err(failed("openat of the directory"))?;
    calls::each_name(directory.as_fd(), &mut |name: &CStr| {
        for (listed, wanted) in listed.iter_mut().zip(wanted) {
            *listed |= name.to_bytes() == wanted;
        }
    })
    .map_err(failed("getdents64"))?;
    Ok(listed == [true; 2])
}

/// The new file takes the final name, the old one `keep`. A temporary name only ever names the
/// draft or what `keep` named before, never the version to be kept.
fn exchange(place: &mut Place, fd: BorrowedFd<'_>, quirks: Quirks, keep: &OsStr) -> Result<()> {
    let name = place.name().to_owned();
    if !place.keeps_rename_flags() {
        place.name_temporarily(fd)?;
        return place.name_over_and_keep(quirks, fd, keep);
    }
    match place.name_as_new(fd, keep) {
        Ok(()) => match place.exchange(keep, &name) {
            Ok(true) => Ok(()),
            Ok(false) => {
                place.take_name_back(keep)?;
                place.name_over_and_keep(quirks, fd, keep)
            }
            Err(error) => {
                place.unname_if(fd, keep);
                Err(error)
            }
        },
        Err(error) if error.errno() == Some(Errno::EXIST) => {
            let temporary = place.name_temporarily(fd)?.to_owned();
            if !place.exchange(&temporary, keep)? {
                return place.name_over_and_keep(quirks, fd, keep);
            }
            let done = place.exchange(keep, &name).and_then(|done| {
                let lacks = || Error::os(Operation::Publish, "renameat2", Errno::INVAL);
                if done { Ok(()) } else { Err(lacks()) }
            });
            done.inspect_err(|_| {
                if !matches!(place.exchange(&temporary, keep), Ok(true)) {
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
