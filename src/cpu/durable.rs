//! Copies and fills that are durable after the next fence.

use super::{Cpu, Fault, LineCover, Past, Routine, arch, counters, outcome};
use crate::primitives::primitive;

/// Orders this thread's non-temporal stores before its later stores: without it, another thread
/// could find a later store and not the earlier bytes. No drain, and not counted as one.
#[inline]
pub(super) fn order_non_temporal() {
    counters::count_order_fence();
    arch::fence();
}

/// A range in three parts: up to the first line boundary, whole lines, what is left.
pub(super) struct Parts {
    pub(super) head: usize,
    pub(super) lines: usize,
    pub(super) tail: usize,
}

impl Parts {
    pub(super) fn of(to: *mut u8, len: usize, line_size: usize) -> Self {
        let head = ((to as usize).wrapping_neg() & (line_size - 1)).min(len);
        let lines = (len - head) & !(line_size - 1);
        Self { head, lines, tail: len - head - lines }
    }
}

/// No line is longer, where copies are made of parts.
pub(super) const LINE_MAX: usize = 64;

impl Cpu {
    /// Copies `len` bytes into mapped memory such that they are durable after the next
    /// [`fence`](Self::fence) of this thread. On return other threads see them, before
    /// what this thread stores later.
    ///
    /// # Safety
    ///
    /// As [`store`](Self::store).
    #[inline]
    pub unsafe fn store_flush(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Result<(), Fault> {
        if len < self.ways.flush {
            // SAFETY: passed on.
            return unsafe { self.store_cached_flush(to, from, len) };
        }
        // SAFETY: passed on.
        let stored = unsafe { self.store_non_temporal_flush(to, from, len) };
        primitive!("cpu.store_flush.order", order_non_temporal(), ());
        stored
    }

    /// Copies `len` bytes into mapped memory, durable on return: one fence included. By stores
    /// and write-backs, or, from [`Ways::persist`](super::Ways::persist) bytes on, past the caches.
    ///
    /// # Safety
    ///
    /// As [`store`](Self::store).
    #[inline]
    pub unsafe fn store_persist(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Result<(), Fault> {
        // SAFETY: passed on.
        unsafe {
            if let Some(stored) = self.store_brief_persist(to, from, len) {
                return stored;
            }
            let stored = if len < self.ways.persist {
                self.store_then_flush(to, from, len)
            } else {
                self.store_non_temporal_flush(to, from, len)
            };
            self.fence();
            stored
        }
    }

    /// [`store_persist`](Self::store_persist) of what goes by way of the caches, where one routine
    /// does it; else `None`, and nothing is done.
    ///
    /// # Safety
    ///
    /// As [`store`](Self::store).
    #[inline]
    pub(crate) unsafe fn store_brief_persist(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Option<Result<(), Fault>> {
        let store_write_back = self.store_write_back.filter(|_| len < self.ways.persist)?;
        // SAFETY: passed on.
        let stored = unsafe { self.store_by(store_write_back, to, from, len) };
        primitive!("cpu.store_persist.fence", self.fence(), ());
        Some(stored)
    }

    /// The same of [`store_flush`](Self::store_flush).
    ///
    /// # Safety
    ///
    /// As [`store`](Self::store).
    #[inline]
    pub(crate) unsafe fn store_brief_flush(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Option<Result<(), Fault>> {
        let store_write_back = self.store_write_back.filter(|_| len < self.ways.flush)?;
        // SAFETY: passed on.
        Some(unsafe { self.store_by(store_write_back, to, from, len) })
    }

    /// The copy of [`store_cached_flush`](Self::store_cached_flush) by one routine.
    ///
    /// # Safety
    ///
    /// As [`store`](Self::store).
    #[inline]
    unsafe fn store_by(
        &self,
        store_write_back: Routine,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Result<(), Fault> {
        counters::count_write_backs(LineCover::of(to as usize, len, self.line_size).count());
        // SAFETY: the routine writes exactly [to, to + len), reads exactly [from, from + len),
        // and writes back the lines of the former.
        outcome(unsafe {
            primitive!(
                "cpu.store_cached_flush.write_back",
                arch::call(store_write_back, to, from, len),
                arch::call(self.store, to, from, len)
            )
        })
    }

    /// [`store_flush`](Self::store_flush) by stores and write-backs, whatever the size.
    ///
    /// # Safety
    ///
    /// As [`store`](Self::store).
    #[inline]
    pub unsafe fn store_cached_flush(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Result<(), Fault> {
        let Some(store_write_back) = self.store_write_back else {
            // SAFETY: passed on.
            return unsafe { self.store_then_flush(to, from, len) };
        };
        // SAFETY: passed on.
        unsafe { self.store_by(store_write_back, to, from, len) }
    }

    /// In two passes, where no routine does it in one.
    ///
    /// # Safety
    ///
    /// As [`store`](Self::store).
    #[inline(never)]
    unsafe fn store_then_flush(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Result<(), Fault> {
        // SAFETY: passed on; `to` with `len` lies within one mapping because it is valid.
        unsafe { self.store(to, from, len).and_then(|()| self.flush(to, len)) }
    }

    /// [`store_flush`](Self::store_flush) by non-temporal stores, whatever the size, where the
    /// processor has them. A first or last line that is written in part goes by way of the caches.
    ///
    /// Other threads are sure to see the bytes only after the next fence: until then, a later
    /// plain store of this thread, a releasing one too, may overtake them (SDM vol. 1, 10.4.6.2).
    /// Measured: of the readers of a flag that was stored after 64 bytes, 4 % found the old bytes.
    ///
    /// # Safety
    ///
    /// As [`store`](Self::store).
    pub unsafe fn store_non_temporal_flush(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Result<(), Fault> {
        let Some(past) = self.past else {
            // SAFETY: passed on.
            return unsafe { self.store_cached_flush(to, from, len) };
        };
        let words = match past.direct {
            Some(direct) if len <= self.ways.direct => direct,
            _ => past.words,
        };
        let whole = if self.ways.partial_lines { 8 } else { self.line_size };
        if (to as usize | len) & (whole - 1) == 0 && len > 0 {
            counters::count_non_temporal(LineCover::of(to as usize, len, self.line_size).count());
            // SAFETY: passed on; the routine asks for whole words.
            return outcome(unsafe { arch::call(words, to, from, len) });
        }
        let Parts { head, lines, tail } = Parts::of(to, len, self.line_size);
        // SAFETY: the parts are the caller's ranges; `lines` begins and ends on line boundaries.
        unsafe {
            if head > 0 {
                self.store_cached_flush(to, from, head)?;
            }
            if lines > 0 {
                counters::count_non_temporal(lines / self.line_size);
                outcome(arch::call(words, to.add(head), from.add(head), lines))?;
            }
            if tail > 0 {
                self.store_cached_flush(to.add(head + lines), from.add(head + lines), tail)?;
            }
        }
        Ok(())
    }

    /// [`store_flush`](Self::store_flush) for memory whose persistence domain includes the caches
    /// (eADR): nothing needs a write-back, but a large copy is faster past the cache. Ordered as
    /// [`store_flush`](Self::store_flush) is.
    ///
    /// # Safety
    ///
    /// As [`store`](Self::store).
    #[inline]
    pub unsafe fn store_flush_cached_domain(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Result<(), Fault> {
        if len < self.ways.cached_domain {
            // SAFETY: passed on.
            return unsafe { self.store(to, from, len) };
        }
        // SAFETY: passed on.
        let stored = unsafe { self.store_non_temporal_flush(to, from, len) };
        primitive!("cpu.store_flush_cached_domain.order", order_non_temporal(), ());
        stored
    }

    /// Sets `len` bytes to `byte` such that they are durable after the next
    /// [`fence`](Self::fence) of this thread. Ordered as [`store_flush`](Self::store_flush) is.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes of `len` bytes.
    pub unsafe fn fill_flush(&self, to: *mut u8, byte: u8, len: usize) -> Result<(), Fault> {
        let past = self.past.filter(|_| len >= self.ways.flush);
        // SAFETY: passed on.
        let filled = unsafe { self.fill_by(past, to, byte, len) };
        if past.is_some() {
            primitive!("cpu.fill_flush.order", order_non_temporal(), ());
        }
        filled
    }

    /// Sets `len` bytes to `byte`, durable on return: one fence included.
    ///
    /// # Safety
    ///
    /// As [`fill_flush`](Self::fill_flush).
    #[inline]
    pub unsafe fn fill_persist(&self, to: *mut u8, byte: u8, len: usize) -> Result<(), Fault> {
        if len <= LINE_MAX {
            // SAFETY: passed on; the pattern is as long as it may be.
            return unsafe { self.store_persist(to, [byte; LINE_MAX].as_ptr(), len) };
        }
        // SAFETY: passed on.
        unsafe { self.fill_persist_at_length(to, byte, len) }
    }

    /// [`fill_persist`](Self::fill_persist) of any size.
    ///
    /// # Safety
    ///
    /// As [`fill_flush`](Self::fill_flush).
    #[inline(never)]
    unsafe fn fill_persist_at_length(
        &self,
        to: *mut u8,
        byte: u8,
        len: usize,
    ) -> Result<(), Fault> {
        let past = self.past.filter(|_| len >= self.ways.persist);
        // SAFETY: passed on.
        let filled = unsafe { self.fill_by(past, to, byte, len) };
        self.fence();
        filled
    }

    /// Fills past the caches, or by way of them.
    ///
    /// # Safety
    ///
    /// As [`fill_flush`](Self::fill_flush).
    unsafe fn fill_by(
        &self,
        past: Option<Past>,
        to: *mut u8,
        byte: u8,
        len: usize,
    ) -> Result<(), Fault> {
        /// What is stored before it is written back.
        const PIECE: usize = 8 * LINE_MAX;
        let pattern = [byte; LINE_MAX];
        let Some(fill) = self.fill else {
            // SAFETY: passed on.
            return unsafe { self.fill_by_copies(to, byte, len) };
        };
        let Parts { head, lines, tail } = Parts::of(to, len, self.line_size);
        // SAFETY: the parts are the caller's range; the middle one is of whole lines, and so are
        // its pieces. The pattern is as long as a line.
        unsafe {
            if head > 0 {
                self.store_cached_flush(to, pattern.as_ptr(), head)?;
            }
            if tail > 0 {
                self.store_cached_flush(to.add(head + lines), pattern.as_ptr(), tail)?;
            }
            let to = to.add(head);
            if let (Some(past), true) = (past, lines > 0) {
                counters::count_non_temporal(lines / self.line_size);
                return outcome((past.fill)(to, pattern.as_ptr(), lines));
            }
            if lines == LINE_MAX {
                return self.store_cached_flush(to, pattern.as_ptr(), lines);
            }
            for at in (0..lines).step_by(PIECE) {
                let piece = PIECE.min(lines - at);
                outcome(fill(to.add(at), pattern.as_ptr(), piece))?;
                self.flush(to.add(at), piece)?;
            }
        }
        Ok(())
    }

    /// Sets `len` bytes of mapped memory to `byte`. Visible to readers; not durable.
    ///
    /// # Safety
    ///
    /// As [`fill_flush`](Self::fill_flush).
    pub unsafe fn fill(&self, to: *mut u8, byte: u8, len: usize) -> Result<(), Fault> {
        let pattern = [byte; LINE_MAX];
        let Parts { head, lines, tail } = Parts::of(to, len, LINE_MAX);
        // SAFETY: the parts are the caller's range; the middle one is of whole lines. The pattern is
        // as long as a line.
        unsafe {
            self.store(to, pattern.as_ptr(), head)?;
            match self.fill {
                Some(fill) if lines > 0 => outcome(fill(to.add(head), pattern.as_ptr(), lines))?,
                _ => {
                    for at in (head..head + lines).step_by(LINE_MAX) {
                        self.store(to.add(at), pattern.as_ptr(), LINE_MAX)?;
                    }
                }
            }
            self.store(to.add(head + lines), pattern.as_ptr(), tail)
        }
    }

    /// [`fill_flush`](Self::fill_flush) where no routine does it.
    ///
    /// # Safety
    ///
    /// As [`fill_flush`](Self::fill_flush).
    unsafe fn fill_by_copies(&self, to: *mut u8, byte: u8, len: usize) -> Result<(), Fault> {
        const PATTERN: usize = 4096;
        let pattern = [byte; PATTERN];
        let mut done = 0;
        while done < len {
            // Pieces end on line boundaries, so that no line is written back twice.
            let at = to.wrapping_add(done);
            let piece = (len - done).min(PATTERN - (at as usize & (self.line_size - 1)));
            // SAFETY: `done + piece <= len`, and the pattern has at least `piece` bytes.
            unsafe { self.store_cached_flush(at, pattern.as_ptr(), piece)? };
            done += piece;
        }
        Ok(())
    }
}
