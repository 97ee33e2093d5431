//! How a region of the page cache is opened: what of the file is mapped, and how.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use crate::durability::Durability;
use crate::error::{Error, Operation, Result};
use crate::primitives::primitive;
use crate::probe::Report;
use crate::region::mapping::{Mapping, page_size};
use crate::region::observer::Observer;
use crate::region::options::{Growth, Plan};
use crate::region::reserve::Reserve;
use crate::region::storage;

/// What opening settles.
#[allow(clippy::struct_excessive_bools)] // independent facts
pub(in crate::region) struct Parts {
    /// None of a draft: it is mapped when it is read first.
    pub(super) view: Option<View>,
    pub(super) how: How,
    pub(super) len: u64,
    pub(super) read_only: bool,
    pub(super) writable_mapping: bool,
    pub(super) durability: Durability,
    pub(super) gathers: bool,
    pub(super) growth: Growth,
    pub(super) observer: Option<Observer>,
    pub(super) leaves_mark: bool,
}

/// A file as it is mapped, or the address space of one that cannot be.
pub(super) struct View {
    pub(super) mapping: Mapping,
    /// The file could be mapped. If not, all reads are `pread`.
    pub(super) mapped: bool,
    /// Copies out of the mapping are errors where a page is gone. Without a mapping, reads go through
    /// the kernel.
    pub(super) guarded: bool,
}

/// How a file is to be mapped.
#[derive(Clone, Copy)]
pub(super) struct How {
    len: u64,
    reserve: Reserve,
    read_only: bool,
    writable_mapping: bool,
    guard: bool,
}

pub(in crate::region) fn map(plan: &Plan, fd: BorrowedFd<'_>, report: &Report) -> Result<Parts> {
    let how = How {
        len: plan.len,
        reserve: plan.reserve,
        read_only: plan.read_only,
        writable_mapping: plan.writable_mapping,
        guard: plan.guard,
    };
    if plan.writable_mapping {
        primitive!("page_cache.open.storable", storage::make_storable(fd, 0, plan.len), Ok(()))?;
    }
    let now = !plan.is_draft || plan.writable_mapping;
    let view = if now { Some(how.map(fd)) } else { None };
    let failed = |errno| Error::os(Operation::Map, "mmap", errno);
    Ok(Parts {
        view: view.transpose().map_err(failed)?,
        how,
        len: plan.len,
        read_only: plan.read_only,
        writable_mapping: plan.writable_mapping,
        durability: report.durability,
        gathers: plan.gather,
        growth: plan.growth,
        observer: plan.observer.clone(),
        leaves_mark: plan.leaves_mark,
    })
}

impl How {
    pub(super) fn map(&self, fd: BorrowedFd<'_>) -> std::result::Result<View, Errno> {
        let reserve = || Mapping::reserve(&self.reserve, page_size(), self.guard);
        let adopted = self.read_only.then(|| read_mapping(fd, self.len));
        let to = (self.len as usize).next_multiple_of(page_size());
        let (mapping, mapped) = match adopted {
            Some(Err(errno)) if lacks_mappings(errno) => (reserve()?, false),
            Some(mapping) => (Mapping::adopt(mapping?, self.guard), true),
            None => {
                let mapping = reserve()?;
                match mapping.map(fd, 0, to, access(self.writable_mapping), MapFlags::SHARED) {
                    Err(errno) if lacks_mappings(errno) && !self.writable_mapping => {
                        (mapping, false)
                    }
                    done => {
                        done?;
                        (mapping, true)
                    }
                }
            }
        };
        if self.writable_mapping {
            primitive!("page_cache.open.single_pages", mapping.fault_single_pages(0, to), ());
        }
        Ok(View { mapping, mapped, guarded: self.guard && mapped })
    }
}

/// What mmap(2) answers where a file cannot be mapped shared: FUSE with `direct_io`, 9p without a
/// cache.
fn lacks_mappings(errno: Errno) -> bool {
    matches!(errno, Errno::NODEV | Errno::OPNOTSUPP)
}

pub(super) fn access(writable_mapping: bool) -> ProtFlags {
    if writable_mapping { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ }
}

fn read_mapping(fd: BorrowedFd<'_>, len: u64) -> std::result::Result<memmap2::Mmap, Errno> {
    // SAFETY: the mapping is only accessed through `Mapping`, which never makes a reference to
    // its bytes; what other processes do to the file is a matter of its guarded copies.
    #[allow(unsafe_code)]
    unsafe { memmap2::MmapOptions::new().len(len as usize).map(fd.as_raw_fd()) }
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
}
