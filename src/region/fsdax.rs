//! A file on a DAX filesystem, mapped with `MAP_SHARED_VALIDATE | MAP_SYNC`.
//!
//! `MAP_SYNC` promises that when a page is writable, the metadata that leads to its block is
//! durable (mmap(2)); making the data durable is then a matter of write-backs and a fence.

use std::os::fd::BorrowedFd;

use rustix::mm::{MapFlags, ProtFlags};

use super::mapped::Parts;
use super::mapping::{HUGE_PAGE, Mapping, page_size};
use super::options::Plan;
use crate::durability::Backend;
use crate::error::{Error, Operation, Result};
use crate::primitives::primitive;
use crate::probe::Report;

/// Only the `VALIDATE` form is refused where `MAP_SYNC` is not supported.
pub(super) const FLAGS: MapFlags = MapFlags::SHARED_VALIDATE.union(MapFlags::SYNC);

pub(super) fn map(plan: &Plan, fd: BorrowedFd<'_>, report: &Report) -> Result<Parts> {
    let flags = primitive!("fsdax.map_sync", FLAGS, MapFlags::SHARED);
    map_populated(plan, fd, flags, HUGE_PAGE).map(|mapping| Parts {
        mapping,
        flags: FLAGS,
        len: plan.len,
        read_only: plan.read_only,
        backend: Backend::FsDax,
        durability: report.durability,
        granularity: report.granularity,
        emulated: false,
        growth: plan.growth,
    })
}

/// Reserves, maps the first `plan.len` bytes, and for a writer faults every page in, so that no
/// store meets a fault, a full disk or a journal commit later.
pub(super) fn map_populated(
    plan: &Plan,
    fd: BorrowedFd<'_>,
    flags: MapFlags,
    align: usize,
) -> Result<Mapping> {
    let failed = |call| move |errno| Error::os(Operation::Map, call, errno);
    let mapping = Mapping::reserve(&plan.reserve, align, plan.guard).map_err(failed("mmap"))?;
    let len = (plan.len as usize).next_multiple_of(align.min(page_size()));
    let prot = if plan.read_only { ProtFlags::READ } else { ProtFlags::READ | ProtFlags::WRITE };
    mapping.map(fd, 0, len, prot, flags).map_err(failed("mmap"))?;
    mapping.check_access().map_err(failed("process_vm_readv"))?;
    // For reading, nothing is faulted in: that gives the holes of a file in memory pages of their own
    // (`shmem_fault`, mm/shmem.c), and a page that is not there is an error when it is read.
    if plan.read_only {
        return Ok(mapping);
    }
    match primitive!("fsdax.populate", mapping.populate(0, len, true), Ok(())) {
        Ok(()) => Ok(mapping),
        Err(errno) => Err(Error::os(Operation::Populate, "madvise", errno).over(0, plan.len)),
    }
}
