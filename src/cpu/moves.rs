//! Copies of ranges that may overlap: durable after the next fence, or only stored.

use std::mem::MaybeUninit;

use super::durable::{LINE_MAX, Parts, order_non_temporal};
use super::{Cpu, Fault, Past, counters, outcome};

/// Whether a copy from the beginning on would overwrite what it has not read yet. Every routine reads
/// what it moves next before it stores it, and goes up: what is moved down, it has read before it is
/// overwritten.
fn moves_up(to: *mut u8, from: *const u8, len: usize) -> bool {
    (to as usize).wrapping_sub(from as usize) < len
}

/// The longest range that is moved by way of the stack.
const APART_MAX: usize = 4 * LINE_MAX;

impl Cpu {
    /// [`store_flush`](Self::store_flush) of ranges that may overlap, as memmove(3) does it.
    ///
    /// # Safety
    ///
    /// As [`store`](Self::store), but the ranges may overlap.
    pub unsafe fn move_flush(&self, to: *mut u8, from: *const u8, len: usize) -> Result<(), Fault> {
        if !moves_up(to, from, len) {
            // SAFETY: passed on.
            return unsafe { self.store_flush(to, from, len) };
        }
        let past = self.past.filter(|_| len >= self.ways.flush && len > APART_MAX);
        // SAFETY: passed on.
        let moved = unsafe { self.move_up(to, from, len, past) };
        if past.is_some() {
            order_non_temporal();
        }
        moved
    }

    /// [`store_persist`](Self::store_persist) of ranges that may overlap: durable on return.
    ///
    /// # Safety
    ///
    /// As [`move_flush`](Self::move_flush).
    pub unsafe fn move_persist(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Result<(), Fault> {
        if !moves_up(to, from, len) {
            // SAFETY: passed on.
            return unsafe { self.store_persist(to, from, len) };
        }
        let past = self.past.filter(|_| len >= self.ways.persist);
        // SAFETY: passed on.
        let moved = unsafe { self.move_up(to, from, len, past) };
        self.fence();
        moved
    }

    /// Moves up, the last bytes first.
    ///
    /// # Safety
    ///
    /// As [`move_flush`](Self::move_flush).
    unsafe fn move_up(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
        past: Option<Past>,
    ) -> Result<(), Fault> {
        /// Bytes that are stored before they are written back.
        const PIECE: usize = 8 * LINE_MAX;
        if len <= APART_MAX {
            // SAFETY: passed on.
            return unsafe { self.store_apart(to, from, len) };
        }
        let Some(down) = self.store_down else {
            // SAFETY: passed on.
            return unsafe { self.move_up_by_pieces(to, from, len) };
        };
        let Parts { head, lines, tail } = Parts::of(to, len, self.line_size);
        // SAFETY: the parts are the caller's ranges; the middle one is of whole lines, and so are
        // its pieces.
        unsafe {
            self.store_apart(to.add(head + lines), from.add(head + lines), tail)?;
            if let (Some(past), true) = (past, lines > 0) {
                counters::count_non_temporal(lines / self.line_size);
                outcome((past.down)(to.add(head), from.add(head), lines))?;
            } else {
                let mut left = lines;
                while left > 0 {
                    let piece = left.min(PIECE);
                    left -= piece;
                    let at = head + left;
                    outcome(down(to.add(at), from.add(at), piece))?;
                    self.flush(to.add(at), piece)?;
                }
            }
            self.store_apart(to, from, head)
        }
    }

    /// [`move_up`](Self::move_up) where no routine does it.
    ///
    /// # Safety
    ///
    /// As [`move_flush`](Self::move_flush).
    unsafe fn move_up_by_pieces(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Result<(), Fault> {
        let mut left = len;
        while left > 0 {
            // Pieces begin on a boundary, so that no word is split.
            let end = to as usize + left;
            let piece = ((end - 1) % LINE_MAX + 1).min(left);
            left -= piece;
            // SAFETY: a part of the caller's ranges.
            unsafe { self.store_apart(to.add(left), from.add(left), piece)? };
        }
        Ok(())
    }

    /// What is short, read whole before any of it is stored.
    ///
    /// # Safety
    ///
    /// As [`move_flush`](Self::move_flush), `len` at most [`APART_MAX`].
    unsafe fn store_apart(&self, to: *mut u8, from: *const u8, len: usize) -> Result<(), Fault> {
        let mut bytes = [const { MaybeUninit::<u8>::uninit() }; APART_MAX];
        let bytes: *mut u8 = bytes.as_mut_ptr().cast();
        // SAFETY: the caller's ranges; `bytes` is apart from both, long enough, and read only as far as
        // it was written.
        unsafe {
            self.load(bytes, from, len)?;
            self.store_cached_flush(to, bytes, len)
        }
    }

    /// [`store`](Self::store) of ranges that may overlap. Visible to readers; not durable.
    ///
    /// # Safety
    ///
    /// As [`store`](Self::store), but the ranges may overlap.
    pub unsafe fn move_store(&self, to: *mut u8, from: *const u8, len: usize) -> Result<(), Fault> {
        if !moves_up(to, from, len) {
            // SAFETY: passed on; what is moved down is read before it is overwritten.
            return unsafe { self.store(to, from, len) };
        }
        let mut left = len;
        if let Some(down) = self.store_down.filter(|_| len > APART_MAX) {
            let Parts { head, lines, tail } = Parts::of(to, len, self.line_size);
            // SAFETY: parts of the caller's ranges; the middle one is of whole lines.
            unsafe {
                self.store_read_whole(to.add(head + lines), from.add(head + lines), tail)?;
                if lines > 0 {
                    outcome(down(to.add(head), from.add(head), lines))?;
                }
            }
            left = head;
        }
        while left > 0 {
            // Pieces begin on a boundary, so that no word is split.
            let end = to as usize + left;
            let piece = ((end - 1) % LINE_MAX + 1).min(left);
            left -= piece;
            // SAFETY: a part of the caller's ranges.
            unsafe { self.store_read_whole(to.add(left), from.add(left), piece)? };
        }
        Ok(())
    }

    /// What is at most a line, read whole before any of it is stored.
    ///
    /// # Safety
    ///
    /// As [`move_store`](Self::move_store), `len` at most [`LINE_MAX`].
    unsafe fn store_read_whole(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Result<(), Fault> {
        let mut bytes = [const { MaybeUninit::<u8>::uninit() }; LINE_MAX];
        let bytes: *mut u8 = bytes.as_mut_ptr().cast();
        // SAFETY: the caller's ranges; `bytes` is apart from both, long enough, and read only as far as
        // it was written.
        unsafe {
            self.load(bytes, from, len)?;
            self.store(to, bytes, len)
        }
    }
}
