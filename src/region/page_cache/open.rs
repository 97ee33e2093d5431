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
use crate::region::storage;

/// What mapping settles.
#[allow(clippy::struct_excessive_bools)] // independent facts
pub(in crate::region) struct Parts {
    pub(super) mapping: Mapping,
    pub(super) len: u64,
    pub(super) read_only: bool,
    pub(super) writable_mapping: bool,
    pub(super) guarded: bool,
    pub(super) mapped: bool,
    pub(super) durability: Durability,
    pub(super) gathers: bool,
    pub(super) growth: Growth,
    pub(super) observer: Option<Observer>,
    pub(super) leaves_mark: bool,
}

pub(in crate::region) fn map(plan: &Plan, fd: BorrowedFd<'_>, report: &Report) -> Result<Parts> {
    let failed = |errno| Error::os(Operation::Map, "mmap", errno);
    if plan.writable_mapping {
        primitive!("page_cache.open.storable", storage::make_storable(fd, 0, plan.len), Ok(()))?;
    }
    let reserve = || Mapping::reserve(&plan.reserve, page_size(), plan.guard).map_err(failed);
    let adopted = plan.read_only.then(|| read_mapping(fd, plan.len));
    let (mapping, mapped) = match adopted {
        Some(Err(errno)) if lacks_mappings(errno) => (reserve()?, false),
        Some(mapping) => (Mapping::adopt(mapping.map_err(failed)?, plan.guard), true),
        None => {
            let mapping = reserve()?;
            let to = (plan.len as usize).next_multiple_of(page_size());
            match mapping.map(fd, 0, to, access(plan.writable_mapping), MapFlags::SHARED) {
                Err(errno) if lacks_mappings(errno) && !plan.writable_mapping => (mapping, false),
                done => {
                    done.map_err(failed)?;
                    (mapping, true)
                }
            }
        }
    };
    if plan.writable_mapping {
        let to = (plan.len as usize).next_multiple_of(page_size());
        primitive!("page_cache.open.single_pages", mapping.fault_single_pages(0, to), ());
    }
    Ok(Parts {
        mapping,
        len: plan.len,
        read_only: plan.read_only,
        writable_mapping: plan.writable_mapping,
        // Without a mapping, reads go through the kernel.
        guarded: plan.guard && mapped,
        mapped,
        durability: report.durability,
        gathers: plan.gather,
        growth: plan.growth,
        observer: plan.observer.clone(),
        leaves_mark: plan.leaves_mark,
    })
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
