//! The region that opening returns: whichever backend the file got.

mod repair;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use super::contract::{Region, delegate};
use super::mapped::{self, MappedRegion};
use super::page_cache::{self, PageCacheRegion};
use super::reopen::Shows;
use super::siblings::Membership;
use crate::durability::{Backend, Durability, Granularity};
use crate::error::Result;
use crate::probe::{Report, Shutdowns};

/// An open region of a file. [`Options`](crate::Options) makes it; [`Region`] is what it does.
#[derive(Debug)]
pub struct AnyRegion {
    inner: Inner,
    report: Box<Report>,
    shows: Shows,
}

#[derive(Debug)]
enum Inner {
    Mapped(MappedRegion),
    PageCache(PageCacheRegion),
}

/// One branch, then the backend's own method, which can be inlined.
macro_rules! inner {
    ($self:ident.$($call:tt)*) => {
        match &$self.inner {
            Inner::Mapped(region) => region.$($call)*,
            Inner::PageCache(region) => region.$($call)*,
        }
    };
}

impl AnyRegion {
    pub(super) fn mapped(
        path: &Path,
        fd: OwnedFd,
        parts: mapped::Parts,
        file: Membership,
        report: Report,
    ) -> Self {
        let inner = Inner::Mapped(MappedRegion::new(path.to_owned(), fd, parts, file));
        Self { inner, report: Box::new(report), shows: Shows::Medium }
    }

    pub(super) fn page_cache(
        path: &Path,
        fd: OwnedFd,
        parts: page_cache::Parts,
        file: Membership,
        report: Report,
    ) -> Self {
        let inner = Inner::PageCache(PageCacheRegion::new(path.to_owned(), fd, parts, file));
        Self { inner, report: Box::new(report), shows: Shows::Medium }
    }

    /// The path that the region was opened by; that of the file at that time, where it was made of an
    /// open file.
    #[must_use]
    pub fn path(&self) -> &Path {
        inner!(self.path())
    }

    /// The same region, of a file that showed this when it was opened.
    pub(super) fn showing(mut self, shows: Shows) -> Self {
        if let (Shows::Cache, Inner::PageCache(region)) = (shows, &mut self.inner) {
            region.leave_no_mark();
        }
        Self { shows, ..self }
    }

    /// Of a draft: whether every byte of it was written, so that no part can be allocated and unwritten.
    pub(crate) fn is_written(&self) -> bool {
        matches!(&self.inner, Inner::PageCache(region) if region.is_written())
    }

    /// Of a draft: it has its name.
    pub(crate) fn is_published(&mut self) {
        if let Inner::PageCache(region) = &mut self.inner {
            region.is_published();
        }
    }

    /// Changes the report, and has the region report no higher level than that.
    pub(crate) fn lower<T>(&mut self, change: impl FnOnce(&mut Report) -> T) -> T {
        let changed = change(&mut self.report);
        let level = self.report.durability;
        match &mut self.inner {
            Inner::Mapped(region) => region.lower(level),
            Inner::PageCache(region) => region.lower(level),
        }
        changed
    }

    /// True if everything that the region showed when it was opened was on the medium. False if it
    /// cannot be known: the region was opened read-only, or without the lock, and pages were cached
    /// that a failed sync of another process may have left behind. Then open the file for writing,
    /// with the lock, before what it holds is relied on.
    #[must_use]
    pub fn shows_medium(&self) -> bool {
        self.shows == Shows::Medium
    }

    /// The backend's own, of a region that is known to be the page cache's.
    #[cfg(test)]
    pub(super) fn in_page_cache(&self) -> &PageCacheRegion {
        match &self.inner {
            Inner::PageCache(region) => region,
            Inner::Mapped(_) => panic!("a region that is a mapping"),
        }
    }

    /// What lies under the file, as it was found when the region was opened.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }
}

impl Region for AnyRegion {
    delegate!(self, inner);

    fn shutdowns(&self) -> Option<Shutdowns> {
        self.report.shutdowns()
    }
}

impl AsFd for AnyRegion {
    /// The open file, for fstat(2) and the like. What is done to the file through it, the region
    /// does not notice.
    fn as_fd(&self) -> BorrowedFd<'_> {
        inner!(self.fd())
    }
}

impl AsRawFd for AnyRegion {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
