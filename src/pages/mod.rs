//! Pages of 4 to 64 KiB that a crash leaves old or new, never torn.
//!
//! A [`Pages`] file is a page store: [`write_atomic`](Pages::write_atomic) replaces a page in its place,
//! durable on return, and [`read`](Pages::read) reads any range.
//!
//! ```
//! use daxmap::pages::Pages;
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("table");
//! let pages = Pages::create(&path, 1 << 20)?;
//! pages.write_atomic(3 * 16384, &[7; 16384])?; // durable
//! pages.close()?;
//!
//! let pages = Pages::open(&path)?;
//! let mut page = vec![0; 16384];
//! pages.read(3 * 16384, &mut page)?;
//! assert_eq!(page, [7; 16384]);
//! # Ok::<(), daxmap::Error>(())
//! ```
//!
//! # How a page is written
//!
//! | [`Way`] | where | what a write costs |
//! |---|---|---|
//! | `Record` | everywhere | the page twice, and one sync; on persistent memory two fences |
//! | `Kernel` | on request ([`PageOptions::kernel`]), where ext4 or xfs offers it ([`Region::write_atomic`]) | the page once, past the page cache, and one sync |
//!
//! A record is in the same file, before the pages: a file that is copied, renamed or moved has its
//! records with it. What a crash has interrupted is completed or taken back when the file is opened,
//! before any page can be read. There is nothing to call, and no other way to the pages.
//!
//! The two records take turns. Each holds a page and where it goes. A write makes its record durable,
//! then writes the page in its place. The next write uses the other record, and its sync makes that
//! place durable too.
//!
//! # What a crash leaves
//!
//! - During a write, the page before it or the new one, whole. Once the write has returned `Ok`, the
//!   new one, under the crashes that [`Pages::durability`] names. Other pages stay.
//! - During the making of a file, no file of that name: it gets its name when it is complete.
//! - During an open, what was there, or what the open was making of it.
//!
//! # What damage leaves
//!
//! Pages have no checksum of this library's: they are the caller's bytes, whole, and page stores have
//! their own. The header and the records have. A record that the medium damages is one that a crash has
//! torn: if the crash came before the page was durable in its place, the page is torn then, and that is
//! not noticed here.
//!
//! # Limits
//!
//! One process has the file open for writing, or any number for reading: a reader beside a writer is
//! [`ErrorKind::Locked`]. By the record, writes follow one another. A thread that reads a page while
//! another writes it may find old and new bytes. The lock is advisory (flock(2)): a program that takes
//! none can write into pages and records, which is not noticed.
//!
//! A full disk stops growth, with `Os(ENOSPC)`, and no write: the blocks of pages and records are
//! allocated when the file is made or grows. On btrfs, which writes to new blocks, a write can fail. It is
//! then the last until the pages are opened again, and what was acknowledged stays.
//!
//! `FORMAT.md` describes the file byte by byte.

mod options;
mod records;

use std::fmt;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use self::options::PageOptions;
use self::records::Records;
use crate::UnsafeShutdown;
use crate::durability::Durability;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::check::Key;
use crate::format::opening;
use crate::region::bounds;
use crate::region::{AnyRegion, Region};

/// Where in the file the pages begin, in bytes.
pub const FIRST: u64 = 192 << 10;

/// How pages are written whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Way {
    /// By `RWF_ATOMIC` (pwritev2(2)).
    Kernel,
    /// By a record in the file.
    Record,
}

/// What an open found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Nothing was to be completed, and both copies of header and opening mark are whole.
    pub clean: bool,
    /// Writes that a crash may have interrupted, and that are complete now: at most two.
    pub completed: u32,
    /// A copy of the header, or a slot of the opening mark, was damaged or torn.
    pub header_invalid: bool,
    /// Whether the memory under the pages lost power unsaved since they were last opened for writing.
    pub unsafe_shutdown: UnsafeShutdown,
}

/// Pages in a region. May be shared between threads.
///
/// Dropping it does what [`close`](Self::close) does, without a word about errors.
pub struct Pages<R: Region = AnyRegion> {
    region: R,
    key: Key,
    read_only: bool,
    recovery: Recovery,
    /// The process that opened it: a forked child must not write what it took along.
    process: u64,
    /// Shared by writes that the kernel makes, of one that is made by a record.
    writer: RwLock<Writer>,
    /// Of pages opened for reading: what records hold, and where in the region it goes.
    unlaid: Vec<(u64, Vec<u8>)>,
}

#[derive(Debug)]
struct Writer {
    way: Way,
    records: Records,
    closed: bool,
}

impl Pages {
    /// Creates the file, which must not exist, with `bytes` bytes of pages, all zero, durable on return.
    /// [`PageOptions`] has more choices.
    ///
    /// # Errors
    ///
    /// As [`PageOptions::create`].
    pub fn create(path: impl AsRef<Path>, bytes: u64) -> Result<Self> {
        PageOptions::new().create(path, bytes)
    }

    /// Opens the file.
    ///
    /// # Errors
    ///
    /// As [`PageOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        PageOptions::new().open(path)
    }

    /// Opens the file, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create(path: impl AsRef<Path>, bytes: u64) -> Result<Self> {
        PageOptions::new().open_or_create(path, bytes)
    }
}

impl<R: Region> Pages<R> {
    /// Bytes of pages: offsets of pages are below it.
    pub fn len(&self) -> u64 {
        self.region.len().saturating_sub(FIRST)
    }

    /// True of a file without pages.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes out of pages: any range.
    ///
    /// # Errors
    ///
    /// `OutOfBounds`; those of [`Region::read`], whose ranges are offsets in the file.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        bounds::check(Operation::Read, offset, buf.len() as u64, self.len())?;
        let at = FIRST + offset;
        self.region.read(at, buf)?;
        for (place, bytes) in &self.unlaid {
            let from = at.max(*place);
            let to = (at + buf.len() as u64).min(place + bytes.len() as u64);
            if from < to {
                let new = &bytes[(from - place) as usize..(to - place) as usize];
                buf[(from - at) as usize..(to - at) as usize].copy_from_slice(new);
            }
        }
        Ok(())
    }

    /// Replaces a page, durable on return. A crash leaves the old page or the new one. `page` has 4096,
    /// 8192, 16384, 32768 or 65536 bytes, and `offset` is a multiple of its length. Pages of several sizes
    /// may be mixed.
    ///
    /// # Errors
    ///
    /// `PageSize`, `Unaligned`, `OutOfBounds`, `ReadOnly`, and `Unsupported` in a forked child: nothing is
    /// written. Those of [`Region::write_flush`] and [`Region::drain`], whose ranges are offsets in the
    /// file: the page is then the old one or the new one, every later write is `Failed`, and the
    /// next open settles it.
    pub fn write_atomic(&self, offset: u64, page: &[u8]) -> Result<()> {
        self.check_writable(Operation::Write)?;
        bounds::check_page(offset, page.len() as u64, self.len())?;
        if self.shared().way == Way::Kernel && self.write_by_kernel(FIRST + offset, page)? {
            return Ok(());
        }
        let mut writer = self.alone();
        // What is written by the kernel, no record knows of.
        writer.way = Way::Record;
        // It may have become shorter since.
        bounds::check_page(offset, page.len() as u64, self.len())?;
        writer.records.write(&self.region, self.key, FIRST + offset, page)
    }

    /// False if the kernel does not write such a page whole.
    fn write_by_kernel(&self, at: u64, page: &[u8]) -> Result<bool> {
        // Nobody writes a record meanwhile, which a recovery would lay over this page.
        let writer = self.shared();
        if writer.way != Way::Kernel {
            return Ok(false);
        }
        match self.region.write_atomic(at, page) {
            Ok(()) => self.region.drain().map(|()| true),
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds pages, all zero, durable on return, so that there are `bytes` bytes of them. A number not
    /// above [`len`](Self::len) changes nothing.
    ///
    /// # Errors
    ///
    /// As [`Region::grow`].
    pub fn grow(&self, bytes: u64) -> Result<()> {
        self.check_writable(Operation::Grow)?;
        self.region.grow(file_len(Operation::Grow, bytes)?)
    }

    /// Cuts pages off, durable on return, so that `bytes` bytes of them are left. What was cut off is
    /// zero when it is added again. A number not below [`len`](Self::len) changes nothing.
    ///
    /// # Errors
    ///
    /// As [`Region::shrink`].
    pub fn shrink(&self, bytes: u64) -> Result<()> {
        self.check_writable(Operation::Shrink)?;
        let mut writer = self.alone();
        if bytes >= self.len() {
            return Ok(());
        }
        // No record brings back what is cut off.
        writer.records.settle(&self.region)?;
        self.region.shrink(file_len(Operation::Shrink, bytes)?)
    }

    /// How pages are written; the way that is tried first, before the first page. It changes from `Kernel` to `Record` at the first page that the kernel
    /// does not take, and stays.
    pub fn way(&self) -> Way {
        self.shared().way
    }

    /// What a page that was written survives.
    pub fn durability(&self) -> Durability {
        self.region.durability()
    }

    /// What the open found and did.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// Makes every page durable in its place, so that no record is needed, and closes the region.
    ///
    /// # Errors
    ///
    /// As [`Region::close`]. What was acknowledged is durable all the same.
    pub fn close(self) -> Result<()> {
        let settled = self.finish();
        let closed = self.region.close();
        settled.and(closed)
    }

    /// Gives the pages up without touching the region again, as if the process had been killed: for
    /// tests of what a crash leaves. [`close`](Self::close) is the orderly way.
    pub fn abandon(self) {
        self.alone().closed = true;
    }

    fn check_writable(&self, operation: Operation) -> Result<()> {
        if self.read_only {
            return Err(Error::new(operation, ErrorKind::ReadOnly));
        }
        if self.process != crate::region::process::mark() {
            let why = "in a forked child: the pages are its parent's, open them anew";
            return Err(Error::new(operation, ErrorKind::Unsupported(why)));
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        let mut writer = self.alone();
        if writer.closed || self.check_writable(Operation::Close).is_err() {
            return Ok(());
        }
        writer.records.settle(&self.region)?;
        opening::close(&self.region, self.key)?;
        writer.closed = true;
        Ok(())
    }

    fn shared(&self) -> RwLockReadGuard<'_, Writer> {
        self.writer.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, Writer> {
        self.writer.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of a file with so many bytes of pages.
fn file_len(operation: Operation, bytes: u64) -> Result<u64> {
    let max = i64::MAX as u64 - FIRST;
    if bytes > max {
        return Err(Error::new(operation, ErrorKind::TooLarge { max }));
    }
    Ok(FIRST + bytes)
}

impl<R: Region> Drop for Pages<R> {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

impl<R: Region> fmt::Debug for Pages<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("len", &self.len())
            .field("way", &self.way())
            .field("recovery", &self.recovery)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
