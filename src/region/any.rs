//! The region that opening returns: whichever backend the file got.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::contract::{Region, delegate};
use super::mapped::{self, MappedRegion};
use super::page_cache::{self, PageCacheRegion};
use super::siblings::Membership;
use crate::durability::{Backend, Durability, Granularity};
use crate::error::Result;
use crate::probe::Report;

/// An open region of a file. [`Options`](crate::Options) makes it; [`Region`] is what it does.
#[derive(Debug)]
pub struct AnyRegion {
    inner: Inner,
    report: Box<Report>,
}

#[derive(Debug)]
enum Inner {
    Mapped(MappedRegion),
    PageCache(PageCacheRegion),
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
        Self { inner, report: Box::new(report) }
    }

    pub(super) fn page_cache(
        path: &Path,
        fd: OwnedFd,
        parts: page_cache::Parts,
        file: Membership,
        report: Report,
    ) -> Self {
        let inner = Inner::PageCache(PageCacheRegion::new(path.to_owned(), fd, parts, file));
        Self { inner, report: Box::new(report) }
    }

    /// What lies under the file, as it was found when the region was opened.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }
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

impl Region for AnyRegion {
    delegate!(self, inner);
}

impl AsFd for AnyRegion {
    /// The open file, for fstat(2) and the like. What is done to the file through it, the region
    /// does not notice.
    fn as_fd(&self) -> BorrowedFd<'_> {
        inner!(self.fd())
    }
}
