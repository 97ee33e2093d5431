//! Stores through pointers: which pages did they change?

use super::changes::Changes;
use super::choice::Tracking;
use super::kernel_marks::KernelMarks;
use super::memory::Memory;
use crate::error::{Error, Operation, Result};
use crate::format::PAGE;
use crate::format::check::Key;
use crate::primitives::primitive;

/// How the pages are found.
#[derive(Debug)]
pub(super) enum Pointers {
    /// Nobody has a pointer.
    None,
    Kernel(KernelMarks),
    /// A check value of each page, as it was the last time.
    Compare(Vec<u64>),
}

impl Pointers {
    /// From now on stores through pointers are found; by the kernel where it can, unless comparison
    /// is asked for.
    pub(super) fn start(&mut self, memory: &mut Memory, compare: bool) {
        if !matches!(self, Self::None) {
            return;
        }
        // Nobody has a pointer yet: the memory may move.
        let protect = !compare && memory.map().is_ok();
        let marks = if protect { KernelMarks::start(memory).ok() } else { None };
        *self = marks.map_or_else(|| Self::Compare(checks(memory).collect()), Self::Kernel);
    }

    pub(super) fn tracking(&self) -> Tracking {
        match self {
            Self::None => Tracking::Marked,
            Self::Kernel(_) => Tracking::WriteProtect,
            Self::Compare(_) => Tracking::Comparison,
        }
    }

    /// Marks what was stored into since the last time.
    pub(super) fn collect(&mut self, memory: &Memory, changes: &mut Changes) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Kernel(marks) => {
                primitive!("checkpoint.kernel_marks", marks.collect(memory, changes), Ok(()))
                    .map_err(|e| Error::os(Operation::Checkpoint, "ioctl PAGEMAP_SCAN", e))
            }
            Self::Compare(before) => {
                for ((page, check), before) in (0..).zip(checks(memory)).zip(before) {
                    if primitive!("checkpoint.comparison", check != *before, false) {
                        changes.mark_page(page);
                        *before = check;
                    }
                }
                Ok(())
            }
        }
    }
}

/// The check value of each page.
fn checks(memory: &Memory) -> impl Iterator<Item = u64> + '_ {
    // Of use to nobody else, so the key is of no importance.
    memory.bytes().chunks(PAGE as usize).map(|page| Key::new(PAGE).check(0, page))
}
