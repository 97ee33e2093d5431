//! What lies under a file, is it enough, and how is the file mapped?

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, FlockOperation};

use super::{Emulation, Growth, Options};
use crate::durability::{Backend, Durability};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;
use crate::probe::{self, Report, Target};
use crate::region::any::AnyRegion;
use crate::region::calls;
use crate::region::draft::Place;
use crate::region::ground::{self, Seen};
use crate::region::identity::Driver;
use crate::region::lock::Lock;
use crate::region::observer::Observer;
use crate::region::quirks::{Quirks, overwrites_in_place};
use crate::region::reserve::Reserve;
use crate::region::siblings::Membership;
use crate::region::{devdax, fsdax, mapped, page_cache, storage, volatile};

impl Options {
    /// What lies under a draft, which is locked and empty, and whether that is enough. Gives it a
    /// temporary name where it needs one to be synced.
    pub(crate) fn survey_draft(
        &self,
        path: &Path,
        place: &mut Place,
        fd: BorrowedFd<'_>,
    ) -> Result<(Report, Quirks, Option<Seen>)> {
        self.creation_len()?;
        let (report, quirks, seen) = calls::glance(fd, path)?;
        match &seen {
            Some(seen) => check_driver(seen.driver())?,
            None => check_unit(fd)?,
        }
        self.check_level(&report)?;
        self.check_storable(&report)?;
        if primitive!("publish.named_when_synced", quirks.no_journal, false) {
            place.name_temporarily(fd)?;
        }
        Ok((report, quirks, seen))
    }

    /// Makes the region of a draft: allocated and mapped, not synced, and not written where
    /// [`unwritten`](super::unwritten) can tell later.
    pub(crate) fn attach_draft(
        &self,
        path: &Path,
        fd: OwnedFd,
        mut report: Report,
        seen: Option<&Seen>,
    ) -> Result<AnyRegion> {
        let len = self.creation_len()?;
        if report.backend == Backend::PageCache && !self.writable_mapping {
            let known = seen.is_some_and(Seen::tells_unwritten);
            let told = storage::reserve(fd.as_fd(), len, known)?;
            if let Some(seen) = seen.filter(|_| told && !known) {
                seen.has_told_unwritten();
            }
        } else {
            storage::extend(fd.as_fd(), 0, len)?;
            // Once more, now that there are extents to look at.
            report = calls::look(fd.as_fd(), path)?.0;
        }
        self.attach_seen(path, fd, len, report, seen, true)
    }

    /// Makes an empty file hold these bytes, durably.
    pub(crate) fn fill(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
        storage::fill(fd, bytes)
    }

    /// What lies under the file, and whether that is enough.
    pub(super) fn judge(&self, fd: BorrowedFd<'_>, path: &Path) -> Result<(Report, Quirks)> {
        let (report, quirks) = calls::look(fd, path)?;
        // Before the level: a level that is not there is not what is wrong with a device.
        if !matches!(report.target, Target::File | Target::DaxDevice) {
            let what = "a device that is not device DAX";
            return Err(Error::new(Operation::Open, ErrorKind::WrongFileType(what)));
        }
        check_unit(fd)?;
        self.check_level(&report)?;
        self.check_storable(&report)?;
        Ok((report, quirks))
    }

    /// Before anything is written: a writable mapping is not for every filesystem.
    fn check_storable(&self, report: &Report) -> Result<()> {
        let asked = self.writable_mapping && !self.read_only;
        if asked
            && report.backend == Backend::PageCache
            && primitive!("open.in_place", !overwrites_in_place(report), false)
        {
            let why = "a writable mapping here: a store would take new space, and a full disk would \
                       be a SIGBUS";
            return Err(Error::new(Operation::Map, ErrorKind::Unsupported(why)));
        }
        Ok(())
    }

    pub(in crate::region) fn check_level(&self, report: &Report) -> Result<()> {
        let available = self.level(report);
        match self.require {
            Some(required) if available < required => {
                let reasons = report.reasons_below(required);
                let kind = ErrorKind::Durability { required, available, reasons };
                Err(Error::new(Operation::Open, kind))
            }
            _ => Ok(()),
        }
    }

    /// Lowers the level of a file whose directory cannot be synced. An error if it is below the
    /// required one then.
    pub(crate) fn without_directory_sync(&self, report: &mut Report) -> Result<()> {
        ground::without_directory_sync(report);
        self.check_level(report)
    }

    fn level(&self, report: &Report) -> Durability {
        if self.emulate.is_some() { Durability::ProcessOnly } else { report.durability }
    }

    pub(super) fn attach(
        &self,
        path: &Path,
        fd: OwnedFd,
        len: u64,
        report: Report,
    ) -> Result<AnyRegion> {
        self.attach_seen(path, fd, len, report, None, false)
    }

    fn attach_seen(
        &self,
        path: &Path,
        fd: OwnedFd,
        len: u64,
        report: Report,
        seen: Option<&Seen>,
        is_draft: bool,
    ) -> Result<AnyRegion> {
        let ready =
            self.prepare(path, fd.as_fd(), len, &report, seen, is_draft).inspect_err(|_| {
                // Closing alone keeps the lock for as long as a child that is just starting has the file.
                let _ = fs::flock(&fd, FlockOperation::NonBlockingUnlock);
            })?;
        Ok(ready.finish(path, fd, report))
    }

    /// Maps the file as its backend does it.
    fn prepare(
        &self,
        path: &Path,
        fd: BorrowedFd<'_>,
        len: u64,
        report: &Report,
        seen: Option<&Seen>,
        is_draft: bool,
    ) -> Result<Ready> {
        let exact = len as usize;
        let reserve = match self.max_len {
            _ if self.read_only => Reserve::exactly(exact),
            Some(max_len) => Reserve::exactly(max_len as usize),
            None => Reserve::to_grow(exact),
        };
        let plan = Plan {
            len,
            reserve,
            read_only: self.read_only,
            guard: self.fault_guard,
            emulate: self.emulate,
            writable_mapping: self.writable_mapping && !self.read_only,
            gather: self.gather,
            growth: self.growth,
            leaves_mark: !self.read_only && self.lock_wanted() == Lock::Exclusive,
            is_draft,
            observer: self.observer.clone(),
        };
        if self.emulate.is_some() && report.backend != Backend::Volatile {
            let why = "emulation needs a memory-backed file: put it on tmpfs";
            return Err(Error::new(Operation::Open, ErrorKind::Unsupported(why)));
        }
        if self.growth == Growth::Allocated && report.backend == Backend::FsDax {
            let why = "growth without writing zeros where MAP_SYNC maps the file: each first store to a \
                       page would wait for the filesystem's journal";
            return Err(Error::new(Operation::Open, ErrorKind::Unsupported(why)));
        }
        let map = || {
            let file = Membership::join(fd, seen)?;
            let ready = match report.backend {
                Backend::FsDax => Ready::Mapped(fsdax::map(&plan, fd, report)?, file),
                Backend::DevDax => Ready::Mapped(devdax::map(&plan, fd, report)?, file),
                Backend::Volatile => Ready::Mapped(volatile::map(&plan, fd)?, file),
                Backend::PageCache => Ready::PageCache(page_cache::map(&plan, fd, report)?, file),
            };
            if !self.read_only {
                ready.membership().announce(len);
            }
            Ok(ready)
        };
        map().map_err(|error: Error| error.at(path))
    }
}

/// Refuses files that the kernel maps in larger units than pages: it would make the mapping longer
/// than it was asked for, over whatever lies behind it.
fn check_unit(fd: BorrowedFd<'_>) -> Result<()> {
    check_driver(Driver::of(fd).map_err(|errno| Error::os(Operation::Open, "fstatfs", errno))?)
}

fn check_driver(driver: Driver) -> Result<()> {
    if driver.is_hugetlbfs() {
        let kind = ErrorKind::Unsupported(probe::HUGETLBFS);
        return Err(Error::new(Operation::Open, kind));
    }
    Ok(())
}

/// What a backend needs to know to map a file.
#[allow(clippy::struct_excessive_bools)] // independent switches
pub(in crate::region) struct Plan {
    pub(in crate::region) len: u64,
    pub(in crate::region) reserve: Reserve,
    pub(in crate::region) read_only: bool,
    pub(in crate::region) guard: bool,
    pub(in crate::region) emulate: Option<Emulation>,
    pub(in crate::region) writable_mapping: bool,
    pub(in crate::region) gather: bool,
    pub(in crate::region) growth: Growth,
    /// When it is closed, what is cached is known to be on the medium.
    pub(in crate::region) leaves_mark: bool,
    pub(in crate::region) is_draft: bool,
    pub(in crate::region) observer: Option<Observer>,
}

/// A mapped file that still lacks its descriptor.
enum Ready {
    Mapped(mapped::Parts, Membership),
    PageCache(page_cache::Parts, Membership),
}

impl Ready {
    fn membership(&self) -> &Membership {
        match self {
            Self::Mapped(_, file) | Self::PageCache(_, file) => file,
        }
    }

    fn finish(self, path: &Path, fd: OwnedFd, report: Report) -> AnyRegion {
        match self {
            Self::Mapped(parts, file) => AnyRegion::mapped(path, fd, parts, file, report),
            Self::PageCache(parts, file) => AnyRegion::page_cache(path, fd, parts, file, report),
        }
    }
}
