//! A device-DAX character device: no filesystem, so no metadata that could lag behind.
//!
//! Mappings are shared only, and offset and length are multiples of the device's alignment
//! (drivers/dax/device.c, `check_vma`).

use std::os::fd::BorrowedFd;

use super::fsdax::{FLAGS, map_populated};
use super::mapped::Parts;
use super::mapping::{HUGE_PAGE, page_size};
use super::options::Plan;
use super::reserve::Reserve;
use crate::durability::Backend;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::probe::Report;

pub(super) fn map(plan: &Plan, fd: BorrowedFd<'_>, report: &Report) -> Result<Parts> {
    let align = report.namespace.as_ref().and_then(|n| n.align).filter(|align| *align != 0);
    let align = align.unwrap_or(HUGE_PAGE as u64);
    if plan.len % align != 0 {
        return Err(Error::new(Operation::Map, ErrorKind::Unaligned { align }).over(0, plan.len));
    }
    // A device does not grow: reserve what it has.
    let reserve = Reserve::exactly(plan.len as usize);
    let whole = Plan { reserve, observer: None, ..*plan };
    let align = usize::try_from(align).unwrap_or(HUGE_PAGE).next_power_of_two().max(page_size());
    map_populated(&whole, fd, FLAGS, align).map(|mapping| Parts {
        mapping,
        flags: FLAGS,
        len: plan.len,
        read_only: plan.read_only,
        backend: Backend::DevDax,
        durability: report.durability,
        granularity: report.granularity,
        emulated: false,
        growth: plan.growth,
    })
}
