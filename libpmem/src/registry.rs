//! The mappings that `pmem_map_file` made: what each is, and whether it lost something.
//!
//! One lock. fork(2) takes it first and gives it back on both sides, so that the child finds the
//! table whole and the lock free, whatever the parent's other threads were doing.

use std::cell::UnsafeCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::message;

const PAGE: usize = 4096;

/// What a mapping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// MAP_SYNC was refused.
    Ordinary,
    /// MAP_SYNC was accepted.
    Sync,
    /// Device DAX, of this NVDIMM region.
    Device(Option<u32>),
}

/// A mapping, or what is left of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) kind: Kind,
    /// Whether `pmem_is_pmem` may say so: with `DAXMAP_PMEM_STRICT=1`, what the probe found.
    pub(crate) pmem: bool,
    /// The errno of the msync that failed.
    pub(crate) failed: Option<i32>,
}

impl Range {
    fn overlaps(&self, start: usize, end: usize) -> bool {
        start < self.end && self.start < end
    }
}

/// Every mapping, in ascending order; no two overlap.
#[derive(Debug, Default)]
pub(crate) struct Registry(Vec<Range>);

static REGISTRY: Mutex<Registry> = Mutex::new(Registry(Vec::new()));

/// The table, locked. No code that holds it panics, but a lock that says so is still a whole table.
pub(crate) fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lock, held over a fork.
struct Held(UnsafeCell<Option<MutexGuard<'static, Registry>>>);

// SAFETY: used by the forking thread alone, between taking the lock and giving it back; the lock
// keeps every other thread out of it.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));

extern "C" fn before_fork() {
    let guard = registry();
    // SAFETY: this thread has the lock, and so `HELD` for itself.
    unsafe { *HELD.0.get() = Some(guard) };
}

extern "C" fn after_fork() {
    // SAFETY: `before_fork` took the lock in this thread; in the child this is that thread's copy.
    drop(unsafe { (*HELD.0.get()).take() });
}

unsafe extern "C" {
    /// pthread_atfork(3).
    fn pthread_atfork(
        prepare: extern "C" fn(),
        parent: extern "C" fn(),
        child: extern "C" fn(),
    ) -> i32;
}

/// Has forks take the lock. Without memory for it, a child that is forked while another thread maps
/// must not map.
pub(crate) fn survive_forks() {
    // SAFETY: functions of this library, which glibc forgets when it is unloaded.
    unsafe { pthread_atfork(before_fork, after_fork, after_fork) };
}

impl Registry {
    /// Makes room for what [`add`](Self::add) or [`remove`](Self::remove) needs next.
    pub(crate) fn reserve(&mut self) -> Result<(), i32> {
        self.0.try_reserve(1).map_err(|_| {
            message::refuse(libc::ENOMEM, format_args!("no memory for the table of mappings"));
            libc::ENOMEM
        })
    }

    /// Adds a mapping that the kernel has just made. Refused if one of persistent memory is known
    /// there: it was unmapped by other means than `pmem_unmap`, which PMDK reports too.
    pub(crate) fn add(&mut self, new: Range) -> Result<(), i32> {
        if new.kind != Kind::Ordinary
            && self.overlapping(new.start, new.end).any(|old| old.kind != Kind::Ordinary)
        {
            message::refuse(
                libc::ENOMEM,
                format_args!(
                    "the mapping at {:#x} is known already: unmap it with pmem_unmap, not munmap",
                    new.start
                ),
            );
            return Err(libc::ENOMEM);
        }
        // What else was there is gone.
        self.0.retain(|old| !old.overlaps(new.start, new.end));
        let at = self.0.partition_point(|old| old.start < new.start);
        self.0.insert(at, new);
        Ok(())
    }

    /// Forgets `[start, start + len)`, to the end of its last page.
    pub(crate) fn remove(&mut self, start: usize, len: usize) {
        let end = start.saturating_add(len).checked_next_multiple_of(PAGE).unwrap_or(usize::MAX);
        let mut at = 0;
        while at < self.0.len() {
            let old = self.0[at];
            if !old.overlaps(start, end) {
                at += 1;
                continue;
            }
            let (before, after) = (old.start < start, end < old.end);
            let (first, last) = (Range { end: start, ..old }, Range { start: end, ..old });
            match (before, after) {
                (true, true) => {
                    self.0[at] = first;
                    self.0.insert(at + 1, last);
                    return;
                }
                (true, false) => self.0[at] = first,
                (false, true) => self.0[at] = last,
                (false, false) => {
                    self.0.remove(at);
                    continue;
                }
            }
            at += 1;
        }
    }

    /// The mappings that a range touches, in ascending order.
    pub(crate) fn overlapping(&self, start: usize, end: usize) -> impl Iterator<Item = &Range> {
        let from = self.0.partition_point(move |range| range.end <= start);
        self.0[from..].iter().take_while(move |range| range.start < end)
    }

    /// Whether all of a range is persistent memory.
    pub(crate) fn is_pmem(&self, start: usize, len: usize) -> bool {
        let Some(end) = start.checked_add(len) else { return false };
        let mut covered = start;
        for range in self.overlapping(start, end) {
            if range.start > covered || !range.pmem {
                return false;
            }
            covered = range.end;
        }
        covered >= end
    }

    /// The errno of a failed msync of a mapping that a range touches.
    pub(crate) fn failure(&self, start: usize, end: usize) -> Option<i32> {
        self.overlapping(start, end).find_map(|range| range.failed)
    }

    /// Notes a failure for every mapping that a range touches.
    pub(crate) fn fail(&mut self, start: usize, end: usize, errno: i32) {
        for range in self.0.iter_mut().filter(|range| range.overlaps(start, end)) {
            range.failed.get_or_insert(errno);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: usize, end: usize, kind: Kind) -> Range {
        Range { start, end, kind, pmem: kind != Kind::Ordinary, failed: None }
    }

    fn known(registry: &Registry) -> Vec<(usize, usize)> {
        registry.0.iter().map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn what_is_unmapped_in_part_is_split() {
        let whole = range(0x1_0000, 0x5_0000, Kind::Sync);
        for (start, len, left) in [
            (0x1_0000, 0x4_0000, vec![]),
            (0x1_0000, 0x1000, vec![(0x1_1000, 0x5_0000)]),
            (0x1_0000, 1, vec![(0x1_1000, 0x5_0000)]),
            (0x4_0000, 0x1_0000, vec![(0x1_0000, 0x4_0000)]),
            (0x4_0000, 0x9_0000, vec![(0x1_0000, 0x4_0000)]),
            (0x2_0000, 0x1_0000, vec![(0x1_0000, 0x2_0000), (0x3_0000, 0x5_0000)]),
            (0, 0x1_0000, vec![(0x1_0000, 0x5_0000)]),
            (0x5_0000, 0x1_0000, vec![(0x1_0000, 0x5_0000)]),
            (0, usize::MAX, vec![]),
        ] {
            let mut registry = Registry(vec![whole]);
            registry.remove(start, len);
            assert_eq!(known(&registry), left, "{start:#x} {len:#x}");
        }
        let mut registry = Registry::default();
        for start in [0x3000, 0x1000, 0x5000] {
            registry.add(range(start, start + 0x2000, Kind::Sync)).unwrap();
        }
        registry.remove(0x2000, 0x4000);
        assert_eq!(known(&registry), [(0x1000, 0x2000), (0x6000, 0x7000)]);
    }

    #[test]
    fn persistent_memory_is_that_without_a_gap() {
        let mut registry = Registry::default();
        registry.add(range(0x1000, 0x3000, Kind::Sync)).unwrap();
        registry.add(range(0x3000, 0x4000, Kind::Device(None))).unwrap();
        registry.add(range(0x4000, 0x5000, Kind::Ordinary)).unwrap();
        registry.add(range(0x6000, 0x7000, Kind::Sync)).unwrap();
        for (start, len, expected) in [
            (0x1000, 0x3000, true),
            (0x1001, 0x2fff, true),
            (0x1000, 0x3001, false),
            (0xfff, 2, false),
            (0x4000, 1, false),
            (0x5000, 1, false),
            (0x6fff, 1, true),
            (0x6fff, 2, false),
            (0x7000, 1, false),
            (0x6fff, usize::MAX, false),
        ] {
            assert_eq!(registry.is_pmem(start, len), expected, "{start:#x} {len:#x}");
        }
        // The probe's word counts.
        registry.0[0].pmem = false;
        assert!(!registry.is_pmem(0x1000, 1));
    }

    #[test]
    fn a_failure_stays_with_its_mapping_until_it_is_unmapped() {
        let mut registry = Registry::default();
        registry.add(range(0x1000, 0x3000, Kind::Ordinary)).unwrap();
        registry.add(range(0x3000, 0x4000, Kind::Ordinary)).unwrap();
        registry.fail(0x2000, 0x2001, libc::EIO);
        registry.fail(0x1000, 0x2000, libc::ENOSPC);
        assert_eq!(registry.failure(0x1000, 0x1001), Some(libc::EIO));
        assert_eq!(registry.failure(0x3000, 0x4000), None);
        // Both parts of what is split keep it.
        registry.remove(0x1000, 0x1000);
        assert_eq!(registry.failure(0x2000, 0x2001), Some(libc::EIO));
        registry.remove(0x2000, 0x1000);
        assert_eq!(registry.failure(0x1000, 0x4000), None);
        // The kernel reused the addresses: nothing of the old mapping is left.
        registry.fail(0x3000, 0x4000, libc::EIO);
        registry.add(range(0x3000, 0x5000, Kind::Ordinary)).unwrap();
        assert_eq!(registry.failure(0x3000, 0x5000), None);
        assert_eq!(known(&registry), [(0x3000, 0x5000)]);
    }

    #[test]
    fn persistent_memory_is_not_known_twice() {
        let mut registry = Registry::default();
        registry.add(range(0x1000, 0x3000, Kind::Sync)).unwrap();
        assert_eq!(registry.add(range(0x2000, 0x4000, Kind::Sync)), Err(libc::ENOMEM));
        assert_eq!(known(&registry), [(0x1000, 0x3000)]);
        registry.add(range(0x2000, 0x4000, Kind::Ordinary)).unwrap();
        assert_eq!(known(&registry), [(0x2000, 0x4000)]);
        registry.add(range(0x3000, 0x5000, Kind::Sync)).unwrap();
        assert_eq!(known(&registry), [(0x3000, 0x5000)]);
    }
}
