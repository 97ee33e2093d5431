//! How do stores into a mapping become durable that the caller made and keeps?
//!
//! | what is mapped | flush | drain |
//! |---|---|---|
//! | with `MAP_SYNC`, or device DAX | write-back of the cache lines | store fence |
//! | anything else on a disk, DAX without `MAP_SYNC` too | notes the range | `msync` of the noted ranges |
//! | memory (tmpfs, memfd) | nothing | store fence |
//!
//! `msync` with `MS_SYNC` is an fsync of a range of the mapped file (`vfs_fsync_range`, mm/msync.c): the
//! pages of the range are written, then metadata is committed and the device flushed. No other call
//! does that for a range: sync_file_range(2) flushes no device, and after it a sync of another range
//! does not wait for what btrfs still has to record of the first (`btrfs_sync_file`, fs/btrfs/file.c).
//! So each range has an `msync` of its own. There are few of them: neighbours are joined.
//!
//! # Safety
//!
//! The memory is the caller's, who vouches that it stays mapped. It is never read or written here:
//! its address is given to msync(2) and to write-back instructions.
#![allow(unsafe_code)]

mod places;
mod ranges;

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::time::Instant;

use rustix::mm::{self, MsyncFlags};

use self::places::Place;
use self::ranges::Ranges;
use super::bounds;
use super::calls;
use super::cores::OtherCores;
use super::descriptor;
use super::group::Group;
use super::mapping::page_size;
use super::observer::{Observer, Synced};
use super::options::Options;
use super::process;
use super::siblings::{Membership, lock};
use crate::cpu::{Cpu, Fault, WriteBack, guard_faults};
use crate::durability::{Backend, Durability, Granularity};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::probe::{self, Report};

/// A shared mapping of a file that the caller made, made durable by ranges.
///
/// For engines and virtual machine monitors that have a file mapped already, and now sync all of it:
/// stores go through the caller's own pointers, [`flush`](Self::flush) and [`drain`](Self::drain) make a
/// range durable, and an error is [final](crate::Region#the-contract), for every region of the file in
/// this process too. [`Options::adopt`] makes one. It unmaps and closes nothing.
///
/// Offsets are bytes from the start of the mapping.
pub struct Adopted<F> {
    file: F,
    path: PathBuf,
    memory: Memory,
    way: Way,
    report: Box<Report>,
    siblings: Membership,
    /// A forked child has the same open file, and would be told of an error in its parent's place.
    process: u64,
    flushed: Mutex<Ranges>,
    group: Group,
    observer: Option<Observer>,
}

impl<F> std::fmt::Debug for Adopted<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adopted")
            .field("path", &self.path)
            .field("memory", &self.memory)
            .field("way", &self.way)
            .field("durability", &self.report.durability)
            .finish_non_exhaustive()
    }
}

/// Where the caller's mapping is.
#[derive(Clone, Copy, Debug)]
struct Memory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: an address and a length, of memory that is not accessed through them.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// How a range becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By write-backs of cache lines and a fence.
    Lines(OtherCores),
    /// By a fence: there is nothing to write back to, or the caches are in the persistence domain.
    Fence(OtherCores),
    /// By msync(2).
    Pages,
}

impl Options {
    /// Takes care of the durability of a mapping that the caller made of `file`, from byte `offset` of
    /// the file on, and keeps. Of the options, [`require`](Self::require),
    /// [`fault_guard`](Self::fault_guard) and [`observer`](Self::observer) count. The kernel is asked about the mapping
    /// (`/proc/self/smaps`), once, which takes a walk over the page tables of the process on DAX.
    ///
    /// The level is that of a region of the file where the mapping was made with `MAP_SYNC`; at most
    /// [`Durability::Fsync`] where it was not, and at most [`Durability::Unverified`] where the kernel
    /// cannot be asked. Nothing is said of the file's name, nor of what it held before: sync the file
    /// and its directory once if they are new.
    ///
    /// Where pages are cached, a store dirties as much as the kernel caches in one piece: up to a
    /// megabyte for one byte. [`Options::writable_mapping`](Self::writable_mapping) of a region avoids that.
    ///
    /// # Errors
    ///
    /// `Unsupported` for a private mapping, whose stores never reach the file, and for a mapping of
    /// another file or another offset, as far as the kernel tells; `Os(ENOMEM)` if part of it is not
    /// mapped; `Durability` if the required level is not there; `WrongFileType`; `Os` from probing.
    ///
    /// # Safety
    ///
    /// Until the [`Adopted`] is dropped, all of `mapping` stays mapped, as a shared mapping of `file` from
    /// `offset` on. No fsync(2), fdatasync(2) or msync(2) of the caller's runs on the open file that
    /// was mapped: the kernel reports a failed write to each open file once, and it must be reported here.
    pub unsafe fn adopt<F: AsFd>(
        &self,
        file: F,
        mapping: NonNull<[u8]>,
        offset: u64,
    ) -> Result<Adopted<F>> {
        let path = path_of(file.as_fd());
        let memory = Memory { start: mapping.cast(), len: mapping.len() };
        let made = self.judge_adopted(file.as_fd(), &path, memory, offset).and_then(|judged| {
            let siblings = Membership::join(file.as_fd(), None)?;
            Ok((judged, siblings))
        });
        let ((report, way), siblings) = made.map_err(|error| error.at(&path))?;
        Ok(Adopted {
            file,
            path,
            memory,
            way,
            report: Box::new(report),
            siblings,
            process: process::mark(),
            flushed: Mutex::default(),
            group: Group::default(),
            observer: self.observes(),
        })
    }

    fn judge_adopted(
        &self,
        file: BorrowedFd<'_>,
        path: &Path,
        memory: Memory,
        offset: u64,
    ) -> Result<(Report, Way)> {
        let (mut report, _) = calls::look(file, path)?;
        let start = memory.start.as_ptr() as usize;
        let place = places::of(file, start..start + memory.len, offset, &report)?;
        if place == Place::Unknown {
            let text =
                "the kernel does not say how the file is mapped: /proc/self/smaps cannot be read";
            probe::lower(&mut report, Durability::Unverified, text.to_owned(), "mount /proc");
        }
        let way = way(&mut report, place)?;
        self.check_level(&report)?;
        if matches!(way, Way::Lines(_)) && self.guards() {
            guard_faults();
        }
        Ok((report, way))
    }
}

/// The way for a mapping, and the report lowered to what that is worth.
fn way(report: &mut Report, place: Place) -> Result<Way> {
    let synchronous = match report.backend {
        Backend::DevDax => true,
        Backend::FsDax => place == Place::Synchronous,
        Backend::Volatile => return Ok(Way::Fence(OtherCores::arrange())),
        Backend::PageCache => false,
    };
    if synchronous && report.granularity == Granularity::Byte {
        return Ok(Way::Fence(OtherCores::arrange()));
    }
    if synchronous && Cpu::get().write_back() != WriteBack::None {
        return Ok(Way::Lines(OtherCores::arrange()));
    }
    if report.backend == Backend::DevDax {
        let why = "this processor has no cache write-back, and a device has no msync";
        return Err(Error::new(Operation::Open, ErrorKind::Unsupported(why)));
    }
    report.granularity = Granularity::Page;
    if report.durability > Durability::Fsync {
        let text = "the file can be mapped with MAP_SYNC, and this mapping was made without";
        probe::lower(
            report,
            Durability::Fsync,
            text.to_owned(),
            "map it with MAP_SHARED_VALIDATE | MAP_SYNC",
        );
    }
    Ok(Way::Pages)
}

fn path_of(file: BorrowedFd<'_>) -> PathBuf {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::read_link(&link).unwrap_or_else(|_| link.into())
}

impl<F> Adopted<F> {
    /// Length of the mapping in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.memory.len as u64
    }

    /// True of a mapping of 0 bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.memory.len == 0
    }

    /// What a drained store survives.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.report.durability
    }

    /// The unit a flush works in.
    #[must_use]
    pub fn granularity(&self) -> Granularity {
        match self.way {
            Way::Lines(_) => Granularity::CacheLine,
            Way::Fence(_) => Granularity::Byte,
            Way::Pages => Granularity::Page,
        }
    }

    /// What lies under the file.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The path of the file when it was adopted, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that was given.
    #[must_use]
    pub fn file(&self) -> &F {
        &self.file
    }

    /// Gives the file back. What was flushed and not drained stays so.
    #[must_use]
    pub fn into_file(self) -> F {
        self.file
    }

    /// True if [`drain`](Self::drain) may wait for a device: see
    /// [`Region::drain_blocks`](crate::Region::drain_blocks).
    #[must_use]
    pub fn drain_blocks(&self) -> bool {
        self.way == Way::Pages
    }

    /// Starts writing back what was stored to a range. Durable after the next [`drain`](Self::drain) of
    /// this thread. Where pages are cached, no system call: the range is noted.
    ///
    /// # Errors
    ///
    /// `OutOfBounds`; `Failed`; `Gone` if a page of persistent memory is gone, which is final.
    pub fn flush(&self, offset: u64, len: u64) -> Result<()> {
        self.check(Operation::Flush)?;
        let (at, bytes) = bounds::check(Operation::Flush, offset, len, self.len())
            .map_err(|error| error.at(&self.path))?;
        if bytes == 0 {
            return Ok(());
        }
        match self.way {
            Way::Pages => lock(&self.flushed).add(at..at + bytes),
            Way::Fence(_) => {}
            Way::Lines(cores) => {
                let address = self.memory.start.as_ptr().wrapping_add(at);
                // SAFETY: the range lies in the mapping, which the maker vouches for; the
                // instruction changes no byte.
                let written = unsafe { Cpu::get().flush(address, bytes) };
                written.map_err(|Fault| {
                    let gone = Error::new(Operation::Flush, ErrorKind::Gone).at(&self.path);
                    self.siblings.shared.poison(gone.over(offset, len))
                })?;
                if cores == OtherCores::Fenced {
                    Cpu::get().fence();
                }
            }
        }
        Ok(())
    }

    /// Waits until everything this thread flushed is durable. Where pages are cached, what other threads
    /// flushed before is covered too, and threads that drain at once share one sync.
    ///
    /// # Errors
    ///
    /// `Os` from msync(2), final for every region of the file in this process; `Failed` afterwards;
    /// `Unsupported` in a forked child where pages are cached: the error would be its parent's.
    pub fn drain(&self) -> Result<()> {
        self.check(Operation::Drain)?;
        if self.way != Way::Pages {
            Cpu::get().fence();
            return Ok(());
        }
        if self.process != process::mark() {
            return Err(descriptor::in_a_child(Operation::Drain).at(&self.path));
        }
        let mine = lock(&self.flushed).count();
        let mut told = None;
        let check = || self.check(Operation::Drain);
        let drained = self.group.commit(mine, check, || self.sync(&mut told));
        if let (Some(observer), Some(synced)) = (&self.observer, &told) {
            observer.tell(synced);
        }
        drained
    }

    /// [`drain`](Self::drain) of what every thread flushed before, in happens-before order: see
    /// [`Region::sync_all`](crate::Region::sync_all).
    ///
    /// # Errors
    ///
    /// As [`drain`](Self::drain), and `Os` from membarrier(2), which is not final.
    pub fn sync_all(&self) -> Result<()> {
        self.drain()?;
        if let Way::Lines(cores) = self.way {
            cores
                .wait()
                .map_err(|errno| Error::os(Operation::Drain, "membarrier", errno).at(&self.path))?;
        }
        // What failed meanwhile was not covered.
        self.check(Operation::Drain)
    }

    /// [`flush`](Self::flush), then [`drain`](Self::drain).
    ///
    /// # Errors
    ///
    /// As theirs.
    pub fn persist(&self, offset: u64, len: u64) -> Result<()> {
        self.flush(offset, len)?;
        self.drain()
    }

    fn check(&self, operation: Operation) -> Result<()> {
        self.siblings.latch.check(operation).map_err(|error| error.at(&self.path))
    }

    /// One sync of everything flushed so far; returns the number of the last flush that it covers. Run by
    /// one thread at a time.
    fn sync(&self, told: &mut Option<Synced>) -> Result<u64> {
        let (ranges, covers) = lock(&self.flushed).take();
        let began = self.observer.is_some().then(|| (Instant::now(), self.group.waiting()));
        let bytes = ranges.iter().map(|range| range.len() as u64).sum();
        let synced = self.sync_ranges(ranges);
        *told = began.map(|(began, threads)| {
            let errno = synced.as_ref().err().and_then(Error::raw_os_error);
            Synced { took: began.elapsed(), bytes, threads, errno }
        });
        synced.map(|()| covers)
    }

    fn sync_ranges(&self, ranges: Vec<Range<usize>>) -> Result<()> {
        for range in ranges {
            // From the start of the page: msync(2) asks for that, and the page is mapped as a whole.
            let address = self.memory.start.as_ptr().wrapping_add(range.start);
            let into_page = address as usize % page_size();
            let (start, len) = (address.wrapping_sub(into_page), range.len() + into_page);
            // SAFETY: msync reads no memory of ours; the range is mapped, as the maker vouches.
            let synced = unsafe { mm::msync(start.cast(), len, MsyncFlags::SYNC) };
            // Not repeated after EINTR: whether an error was reported and cleared is unknown.
            synced.map_err(|errno| {
                let error = Error::os(Operation::Drain, "msync", errno).at(&self.path);
                self.siblings.shared.poison(error.over(range.start as u64, range.len() as u64))
            })?;
        }
        Ok(())
    }
}
