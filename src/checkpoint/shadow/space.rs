//! The pages of the file: which are free, and where the next one is taken.

use super::super::bits::Bits;

/// Free pages. Taken in ascending order, round and round: what a checkpoint writes lies together
/// as far as the free pages do, and a page is used again as late as can be.
#[derive(Debug)]
pub(super) struct Space {
    free: Bits,
    next: u64,
    end: u64,
}

impl Space {
    /// Pages `first..end`, all free.
    pub(super) fn new(first: u64, end: u64) -> Self {
        let mut space = Self { free: Bits::new(end), next: first, end: first };
        space.extend(end);
        space
    }

    /// More pages, up to `end`.
    pub(super) fn extend(&mut self, end: u64) {
        self.free.raise(end);
        self.free.insert_range(self.end, end);
        self.end = self.end.max(end);
    }

    pub(super) fn free(&self) -> u64 {
        self.free.count()
    }

    /// A free page, which is then in use. `None` if there is none.
    pub(super) fn take(&mut self) -> Option<u64> {
        let page = self.free.next(self.next).or_else(|| self.free.next(0))?;
        self.free.remove(page);
        self.next = page + 1;
        Some(page)
    }

    /// A page that is in use. False if it was already, or is none of these.
    pub(super) fn claim(&mut self, page: u64) -> bool {
        self.free.remove(page)
    }

    /// Gives a page back.
    pub(super) fn give(&mut self, page: u64) {
        self.free.insert(page);
    }
}
