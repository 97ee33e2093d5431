//! What changed since the last checkpoint: pages, and within each the lines of 64 bytes.

use super::bits::Bits;
use crate::format::{LINE, PAGE};

/// Changed lines. A mark costs a few instructions a page, an enumeration what there is.
#[derive(Debug)]
pub(super) struct Changes {
    pages: Bits,
    /// Of each page a bit for each of its 64 lines.
    lines: Vec<u64>,
}

impl Changes {
    pub(super) fn none(pages: u64) -> Self {
        Self { pages: Bits::new(pages), lines: vec![0; pages as usize] }
    }

    /// Marks a range of bytes, which lies within the set.
    pub(super) fn mark(&mut self, offset: u64, len: u64) {
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let page = at / PAGE;
            let stop = end.min((page + 1) * PAGE);
            let first = at % PAGE / LINE;
            let last = (stop - 1) % PAGE / LINE;
            self.mark_lines(page, u64::MAX >> (63 - (last - first)) << first);
            at = stop;
        }
    }

    pub(super) fn mark_page(&mut self, page: u64) {
        self.mark_lines(page, u64::MAX);
    }

    fn mark_lines(&mut self, page: u64, lines: u64) {
        let marked = &mut self.lines[page as usize];
        if *marked == 0 {
            self.pages.insert(page);
        }
        *marked |= lines;
    }

    /// The changed pages, ascending.
    pub(super) fn pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.pages.iter()
    }

    pub(super) fn page_count(&self) -> u64 {
        self.pages.count()
    }

    /// The changed lines of a page, as bits.
    pub(super) fn lines(&self, page: u64) -> u64 {
        self.lines[page as usize]
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        let Self { pages, lines } = self;
        for page in pages.iter() {
            lines[page as usize] = 0;
        }
        pages.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn exactly_the_lines_of_what_was_marked() {
        const PAGES: u64 = 5;
        let mut random = fastrand::Rng::with_seed(3);
        let mut changes = Changes::none(PAGES);
        for _ in 0..500 {
            let mut model = BTreeSet::new();
            for _ in 0..random.u32(..4) {
                let offset = random.u64(..PAGES * PAGE);
                let len = random.u64(..=PAGES * PAGE - offset);
                let len = if random.bool() { len } else { len.min(200) };
                changes.mark(offset, len);
                model.extend((offset..offset + len).map(|byte| byte / LINE));
            }
            let found: BTreeSet<u64> = changes
                .pages()
                .flat_map(|page| (0..64).map(move |line| (page, line)))
                .filter(|(page, line)| changes.lines(*page) >> line & 1 == 1)
                .map(|(page, line)| page * 64 + line)
                .collect();
            assert_eq!(found, model);
            changes.clear();
            assert_eq!(changes.page_count(), 0);
            assert!((0..PAGES).all(|page| changes.lines(page) == 0));
        }
    }
}
