//! Cursors in several segments, merged in the order of Lsns.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::error::Result;

use super::cursor::Cursor;

/// What a look at a cursor's place has shown.
pub(super) enum Look {
    /// A block with this first Lsn.
    Block(u64),
    /// No block yet.
    Nothing,
    /// There will be none any more.
    Done,
}

/// Cursors, each of which is in one of two lists, or done.
#[derive(Debug, Default)]
pub(super) struct Merge {
    cursors: Vec<Cursor>,
    /// Places in `cursors` that nobody uses.
    done: Vec<usize>,
    /// Cursors whose next block is not known yet.
    waiting: Vec<usize>,
    /// Next blocks, by their first Lsn.
    ready: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Merge {
    /// Adds a cursor that waits.
    pub(super) fn add(&mut self, cursor: Cursor) {
        let index = self.done.pop().unwrap_or(self.cursors.len());
        if index == self.cursors.len() {
            self.cursors.push(cursor);
        } else {
            self.cursors[index] = cursor;
        }
        self.waiting.push(index);
    }

    /// Keeps of the cursors that wait those that this is true of.
    pub(super) fn retain_waiting(&mut self, mut keep: impl FnMut(&mut Cursor) -> bool) {
        let mut at = 0;
        while at < self.waiting.len() {
            let index = self.waiting[at];
            if keep(&mut self.cursors[index]) {
                at += 1;
            } else {
                self.waiting.swap_remove(at);
                self.done.push(index);
            }
        }
    }

    /// Looks at the places of the cursors that wait. After an error, those that were not looked at
    /// wait on.
    pub(super) fn poll(&mut self, mut look: impl FnMut(&mut Cursor) -> Result<Look>) -> Result<()> {
        let mut at = 0;
        while at < self.waiting.len() {
            let index = self.waiting[at];
            match look(&mut self.cursors[index])? {
                Look::Nothing => {
                    at += 1;
                    continue;
                }
                Look::Block(lsn) => self.ready.push(Reverse((lsn, index))),
                Look::Done => self.done.push(index),
            }
            self.waiting.swap_remove(at);
        }
        Ok(())
    }

    /// The lowest first Lsn of the blocks that are known.
    pub(super) fn lowest(&self) -> Option<u64> {
        self.ready.peek().map(|Reverse((lsn, _))| *lsn)
    }

    /// The cursor at the block of the lowest Lsn. It stays there until
    /// [`taken`](Self::taken) says otherwise.
    pub(super) fn cursor(&mut self) -> Option<&mut Cursor> {
        let Reverse((_, index)) = self.ready.peek()?;
        Some(&mut self.cursors[*index])
    }

    /// That cursor waits again, or is done.
    pub(super) fn taken(&mut self, waits: bool) {
        if let Some(Reverse((_, index))) = self.ready.pop() {
            if waits { self.waiting.push(index) } else { self.done.push(index) }
        }
    }

    /// How many cursors there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.cursors.len()
    }
}
