//! Which page of the file holds which page of the working set: a radix tree of nodes of 4096
//! bytes, kept in memory whole.
//!
//! A node is 256 entries of 16 bytes: the number of a page of the file (its offset divided by
//! 4096), and the check value of that page, keyed by its place. Zero stands for a page of zeros
//! that nobody wrote, or for a node of such pages. So whoever believes the entry of the top node
//! can check everything else.

use crate::checkpoint::record::Entry;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::PAGE;
use crate::format::check::Key;
use crate::primitives::primitive;
use crate::region::Region;

/// Entries of a node.
const FANOUT: u64 = 256;

/// A table of pages.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// The lowest level has an entry for each page of the set, each level above it one for each
    /// node of the level below. Whole nodes: the last one is filled up with zero entries.
    levels: Vec<Vec<Entry>>,
    /// The one node of the highest level.
    pub(super) top: Entry,
    /// Pages of the working set.
    pages: u64,
}

/// How one table differs from another.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Pages of the working set, ascending.
    pub(super) positions: Vec<u64>,
    /// Pages of the file that the new table uses and the old one does not.
    pub(super) used: Vec<u64>,
}

impl Table {
    /// The table of a set of zeros.
    pub(super) fn zeros(pages: u64) -> Self {
        let mut levels = Vec::new();
        let mut entries = pages.max(1);
        loop {
            entries = entries.next_multiple_of(FANOUT);
            levels.push(vec![Entry::default(); entries as usize]);
            if entries == FANOUT {
                break;
            }
            entries /= FANOUT;
        }
        Self { levels, top: Entry::default(), pages }
    }

    /// Nodes that the table of a set of so many pages has.
    pub(super) fn nodes(pages: u64) -> u64 {
        let mut nodes = pages.div_ceil(FANOUT);
        let mut sum = nodes;
        while nodes > 1 {
            nodes = nodes.div_ceil(FANOUT);
            sum += nodes;
        }
        sum
    }

    pub(super) fn levels(&self) -> usize {
        self.levels.len()
    }

    pub(super) fn get(&self, position: u64) -> Entry {
        self.levels[0][position as usize]
    }

    /// Puts an entry in its place and returns the one that was there. Level 0 is the pages of the
    /// set, the level after the last one is `top`.
    pub(super) fn replace(&mut self, level: usize, index: u64, entry: Entry) -> Entry {
        let place = match self.levels.get_mut(level) {
            Some(entries) => &mut entries[index as usize],
            None => &mut self.top,
        };
        std::mem::replace(place, entry)
    }

    /// A node as it is in the file.
    pub(super) fn node(&self, level: usize, node: u64) -> [u8; PAGE as usize] {
        let entries = &self.levels[level][(node * FANOUT) as usize..][..FANOUT as usize];
        let mut bytes = [0; PAGE as usize];
        for (place, entry) in bytes.chunks_exact_mut(16).zip(entries) {
            place[..8].copy_from_slice(&entry.page.to_le_bytes());
            place[8..].copy_from_slice(&entry.check.to_le_bytes());
        }
        bytes
    }

    /// Turns the table into the one below `top`, reading the nodes in which they differ and no
    /// other. An error leaves it as it was.
    pub(super) fn turn_into(
        &mut self,
        file: &File<'_, impl Region>,
        top: Entry,
    ) -> Result<Difference> {
        let mut found = Difference::default();
        let mut updates = Vec::new();
        // Nodes that differ, of the level at hand: their number, and the entry that leads there.
        let mut nodes = Vec::new();
        if top != self.top {
            nodes.push((0, top));
            found.used.extend((top.page != 0).then_some(top.page));
        }
        for level in (0..self.levels.len()).rev() {
            let mut below = Vec::new();
            for (node, entry) in nodes {
                let entries = file.node(entry)?;
                for (index, entry) in (node * FANOUT..).zip(entries) {
                    if entry == self.levels[level][index as usize] {
                        continue;
                    }
                    let beyond = level == 0 && index >= self.pages;
                    if primitive!("checkpoint.table.set_bound", beyond, false) {
                        return Err(damaged(entry.page, "a page beyond the working set"));
                    }
                    found.used.extend((entry.page != 0).then_some(entry.page));
                    updates.push((level, index, entry));
                    below.push((index, entry));
                }
            }
            nodes = below;
        }
        found.positions.extend(nodes.into_iter().map(|(position, _)| position));
        self.top = top;
        for (level, index, entry) in updates {
            self.levels[level][index as usize] = entry;
        }
        Ok(found)
    }
}

/// Nodes that hold these entries of a level, which ascend.
pub(super) fn nodes_of(entries: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut nodes: Vec<u64> = entries.map(|entry| entry / FANOUT).collect();
    nodes.dedup();
    nodes
}

/// The pages of a file, read and checked.
pub(super) struct File<'a, R> {
    pub(super) region: &'a R,
    pub(super) key: Key,
    /// The first page that tables and data may use.
    pub(super) first: u64,
}

impl<R: Region> File<'_, R> {
    /// Reads a page into `into`, which is 4096 bytes long.
    pub(super) fn page(&self, entry: Entry, into: &mut [u8]) -> Result<()> {
        if entry.page == 0 {
            into.fill(0);
            return Ok(());
        }
        let end = self.region.len() / PAGE;
        let there = (self.first..end).contains(&entry.page);
        if !primitive!("checkpoint.table.file_bound", there, true) {
            return Err(damaged(entry.page, "a page that the file does not have"));
        }
        let at = entry.page * PAGE;
        self.region.read(at, into).map_err(|error| error.during(Operation::Recover))?;
        let valid = self.key.check(at, into) == entry.check;
        if !primitive!("checkpoint.page_check", valid, true) {
            return Err(damaged(entry.page, "a page of the working set or of its table"));
        }
        Ok(())
    }

    fn node(&self, entry: Entry) -> Result<Vec<Entry>> {
        let mut bytes = [0; PAGE as usize];
        self.page(entry, &mut bytes)?;
        let word = |bytes: &[u8]| {
            let mut eight = [0; 8];
            eight.copy_from_slice(bytes);
            u64::from_le_bytes(eight)
        };
        let entries = bytes.chunks_exact(16);
        Ok(entries.map(|e| Entry { page: word(&e[..8]), check: word(&e[8..]) }).collect())
    }
}

pub(super) fn damaged(page: u64, what: &'static str) -> Error {
    let error = Error::new(Operation::Recover, ErrorKind::Damaged(what));
    error.over(page.saturating_mul(PAGE), PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_as_many_nodes_as_are_counted() {
        for (pages, nodes, levels) in [
            (1, 1, 1),
            (256, 1, 1),
            (257, 3, 2),
            (65_536, 257, 2),
            (65_537, 257 + 1 + 2, 3),
            (262_144, 1024 + 4 + 1, 3),
        ] {
            let table = Table::zeros(pages);
            assert_eq!((Table::nodes(pages), table.levels()), (nodes, levels), "{pages}");
            let counted: usize = table.levels.iter().map(|level| level.len() / 256).sum();
            // Above the lowest level, the last node may be filled up.
            assert!(counted as u64 == nodes, "{pages}: {counted}");
        }
    }

    const FIRST: u64 = 4;
    const END: u64 = 8;

    fn region() -> crate::AnyRegion {
        crate::Options::new().len(END * PAGE).in_memory().unwrap()
    }

    fn is_damage(result: Result<()>) -> bool {
        matches!(result.unwrap_err().kind(), ErrorKind::Damaged(_))
    }

    #[test]
    fn an_entry_that_names_no_page_of_tables_is_damage() {
        let (region, key) = (region(), Key::new(9));
        let file = File { region: &region, key, first: FIRST };
        let zeros = [0; PAGE as usize];
        let entry = |page: u64| Entry { page, check: key.check(page.wrapping_mul(PAGE), &zeros) };
        let mut into = zeros;
        file.page(entry(FIRST), &mut into).unwrap();
        file.page(entry(END - 1), &mut into).unwrap();
        // The header and the roots; past the end.
        for page in [1, FIRST - 1, END, u64::MAX / PAGE, u64::MAX] {
            assert!(is_damage(file.page(entry(page), &mut into)), "{page}");
        }
    }

    #[test]
    fn an_entry_past_the_set_is_damage_and_leaves_the_table_as_it_was() {
        let (region, key) = (region(), Key::new(9));
        let file = File { region: &region, key, first: FIRST };
        let data = Entry { page: FIRST + 1, check: 1 };
        for (index, sound) in [(0, true), (2, true), (3, false), (255, false)] {
            let mut table = Table::zeros(3);
            let mut written = table.clone();
            written.replace(0, index, data);
            let node = written.node(0, 0);
            region.write(FIRST * PAGE, &node).unwrap();
            let top = Entry { page: FIRST, check: key.check(FIRST * PAGE, &node) };
            let result = table.turn_into(&file, top);
            assert_eq!(result.is_ok(), sound, "{index}");
            if let Ok(found) = result {
                assert_eq!(found.positions, [index]);
            } else {
                assert!(is_damage(result.map(drop)));
                assert_eq!((table.top, table.get(0)), (Entry::default(), Entry::default()));
            }
        }
    }
}
