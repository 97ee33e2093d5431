//! Stores through pointers: which pages did they change?

use super::changes::Changes;
use super::choice::Tracking;
use super::comparison::Comparison;
use super::kernel_marks::KernelMarks;
use super::memory::Memory;
use crate::format::PAGE;
use crate::primitives::primitive;

/// How the pages are found.
#[derive(Debug)]
pub(super) enum Pointers {
    /// Nobody has a pointer.
    None,
    Kernel(KernelMarks),
    Compare(Comparison),
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
        *self = marks.map_or_else(|| Self::Compare(Comparison::of(memory)), Self::Kernel);
    }

    pub(super) fn tracking(&self) -> Tracking {
        match self {
            Self::None => Tracking::Marked,
            Self::Kernel(_) => Tracking::WriteProtect,
            Self::Compare(_) => Tracking::Comparison,
        }
    }

    /// Marks what was stored into since the last time. Where the kernel has begun to refuse (a filter
    /// of system calls, a descriptor that somebody closed), nobody can say: all of it, and from then on
    /// by comparison.
    pub(super) fn collect(&mut self, memory: &Memory, changes: &mut Changes) {
        match self {
            Self::None => {}
            Self::Kernel(marks) => {
                let told =
                    primitive!("checkpoint.kernel_marks", marks.collect(memory, changes), Ok(()));
                if told.is_err() {
                    (0..memory.bytes().len() as u64 / PAGE)
                        .for_each(|page| changes.mark_page(page));
                    let compare = Self::Compare(Comparison::of(memory));
                    if let Self::Kernel(marks) = std::mem::replace(self, compare) {
                        marks.disown();
                    }
                }
            }
            Self::Compare(before) => before.collect(memory, changes),
        }
    }
}
