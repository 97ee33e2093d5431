//! Which pages are not what they were? Found by a check value of each.

use super::changes::Changes;
use super::memory::Memory;
use crate::format::PAGE;
use crate::format::check::Key;
use crate::primitives::primitive;

/// A check value of each page, as it was the last time.
#[derive(Debug)]
pub(super) struct Comparison(Vec<u64>);

impl Comparison {
    pub(super) fn of(memory: &Memory) -> Self {
        Self(checks(memory).collect())
    }

    /// Marks the pages that are not as they were, and takes them as they are.
    pub(super) fn collect(&mut self, memory: &Memory, changes: &mut Changes) {
        for ((page, check), before) in (0..).zip(checks(memory)).zip(&mut self.0) {
            if primitive!("checkpoint.comparison", check != *before, false) {
                changes.mark_page(page);
                *before = check;
            }
        }
    }
}

/// The check value of each page.
fn checks(memory: &Memory) -> impl Iterator<Item = u64> + '_ {
    // Of use to nobody else, so the key is of no importance.
    memory.bytes().chunks(PAGE as usize).map(|page| Key::new(PAGE).check(0, page))
}
