//! A memory-backed file (tmpfs, memfd): survives the process, not the kernel. On request it
//! imitates persistent memory, write-backs and all, for development and for counting.

use std::os::fd::BorrowedFd;

use rustix::mm::MapFlags;

use super::fsdax::map_populated;
use super::mapped::Parts;
use super::mapping::HUGE_PAGE;
use super::options::{Emulation, Plan};
use crate::cpu::{Cpu, WriteBack};
use crate::durability::{Backend, Durability, Granularity};
use crate::error::{Error, ErrorKind, Operation, Result};

pub(super) fn map(plan: &Plan, fd: BorrowedFd<'_>) -> Result<Parts> {
    let granularity = match plan.emulate {
        Some(Emulation::Adr) if Cpu::get().write_back() == WriteBack::None => {
            let why = "this processor has no cache write-back to imitate ADR with";
            return Err(Error::new(Operation::Map, ErrorKind::Unsupported(why)));
        }
        Some(Emulation::Adr) => Granularity::CacheLine,
        Some(Emulation::Eadr) | None => Granularity::Byte,
    };
    map_populated(plan, fd, MapFlags::SHARED, HUGE_PAGE).map(|mapping| Parts {
        mapping,
        flags: MapFlags::SHARED,
        len: plan.len,
        read_only: plan.read_only,
        backend: Backend::Volatile,
        durability: Durability::ProcessOnly,
        granularity,
        emulated: plan.emulate.is_some(),
        growth: plan.growth,
    })
}
