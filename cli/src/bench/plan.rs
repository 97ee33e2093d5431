//! What is measured: the ways to make an update durable, the sizes, and where in the file.

use daxmap::Durability;

/// Sizes of an update, in bytes.
pub const SIZES: [usize; 5] = [8, 64, 512, 4096, 65536];

/// Position in [`SIZES`] of the size that the summary is about.
pub const SUMMARY_SIZE: usize = 1;

/// A page: first touches are this far apart at least.
const PAGE: u64 = 4096;
/// A cache line: steady updates are this far apart at least.
const LINE: u64 = 64;
/// Areas begin on multiples of this, so that no two share a large folio or a huge page.
const AREA_ALIGN: u64 = 2 << 20;

/// A way to make an update durable, or a floor that no way can undercut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `write_persist` of a region in the directory, by the backend it gets there.
    RegionPersist,
    /// The same on DRAM that is treated like ADR memory: lines written back, then a fence.
    CacheLineFlush,
    /// `pwrite`, then `fdatasync`.
    PwriteFdatasync,
    /// `pwrite`, then `fsync`.
    PwriteFsync,
    /// `pwrite` to a file opened with `O_DSYNC`.
    DsyncPwrite,
    /// A store through a shared mapping, then `msync` of the range.
    StoreMsync,
    /// Floor: a copy to memory, nothing more.
    Copy,
    /// Floor: the device's cache flush, without data.
    DeviceFlush,
    /// Floor: the cheapest system call there is.
    EmptyCall,
    /// What reading the clock adds to every time in the table.
    Clock,
}

impl Method {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 10] = [
        Self::RegionPersist,
        Self::CacheLineFlush,
        Self::PwriteFdatasync,
        Self::PwriteFsync,
        Self::DsyncPwrite,
        Self::StoreMsync,
        Self::Copy,
        Self::DeviceFlush,
        Self::EmptyCall,
        Self::Clock,
    ];

    /// The name in the JSON; stable.
    pub const fn key(self) -> &'static str {
        match self {
            Self::RegionPersist => "region_persist",
            Self::CacheLineFlush => "region_persist_cache_line",
            Self::PwriteFdatasync => "pwrite_fdatasync",
            Self::PwriteFsync => "pwrite_fsync",
            Self::DsyncPwrite => "pwrite_o_dsync",
            Self::StoreMsync => "store_msync",
            Self::Copy => "copy",
            Self::DeviceFlush => "device_flush",
            Self::EmptyCall => "empty_system_call",
            Self::Clock => "clock",
        }
    }

    /// The name in the table.
    pub const fn label(self) -> &'static str {
        match self {
            Self::RegionPersist => "region persist",
            Self::CacheLineFlush => "cache-line flush (emulated)",
            Self::PwriteFdatasync => "pwrite + fdatasync",
            Self::PwriteFsync => "pwrite + fsync",
            Self::DsyncPwrite => "pwrite, O_DSYNC",
            Self::StoreMsync => "store + msync",
            Self::Copy => "floor: plain copy to DRAM",
            Self::DeviceFlush => "floor: bare device flush",
            Self::EmptyCall => "floor: empty system call",
            Self::Clock => "clock: one reading",
        }
    }

    /// True if it imitates persistent memory on DRAM.
    pub const fn is_emulated(self) -> bool {
        matches!(self, Self::CacheLineFlush)
    }

    /// True if it writes to a file in the directory.
    pub const fn needs_file(self) -> bool {
        matches!(
            self,
            Self::RegionPersist
                | Self::PwriteFdatasync
                | Self::PwriteFsync
                | Self::DsyncPwrite
                | Self::StoreMsync
        )
    }

    /// True if nothing of it reaches a filesystem.
    pub const fn stays_in_processor(self) -> bool {
        matches!(self, Self::CacheLineFlush | Self::Copy | Self::EmptyCall | Self::Clock)
    }

    /// True if there is a row for every size.
    const fn has_size(self) -> bool {
        self.needs_file() || matches!(self, Self::CacheLineFlush | Self::Copy)
    }

    /// True if the first touch of memory is a case of its own.
    const fn has_first_touch(self) -> bool {
        self.needs_file() || matches!(self, Self::CacheLineFlush)
    }

    /// What an update made this way survives, in a directory whose regions give `region`.
    ///
    /// The system calls keep what the filesystem keeps, so on persistent memory they are one level
    /// below the region; a layer that promises less promises less to them too.
    pub fn durability(self, region: Durability) -> Option<Durability> {
        match self {
            Self::RegionPersist => Some(region),
            Self::CacheLineFlush => Some(Durability::ProcessOnly),
            _ if self.needs_file() => Some(region.min(Durability::Fsync)),
            _ => None,
        }
    }
}

/// Whether the memory under the update has been written through before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Each update is the first one in its page since the file was created.
    FirstTouch,
    /// The pages of the first touches again, line after line.
    Steady,
}

impl Phase {
    /// Both, in the order they run.
    pub const ALL: [Self; 2] = [Self::FirstTouch, Self::Steady];

    /// The name in the JSON; stable.
    pub const fn key(self) -> &'static str {
        match self {
            Self::FirstTouch => "first_touch",
            Self::Steady => "steady",
        }
    }

    /// The name in the table.
    pub const fn label(self) -> &'static str {
        match self {
            Self::FirstTouch => "first",
            Self::Steady => "steady",
        }
    }
}

/// One method at one size: what runs in turn with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Case {
    /// How.
    pub method: Method,
    /// How much: a position in [`SIZES`]; `None` for floors without data.
    pub size: Option<usize>,
}

impl Case {
    /// Bytes of an update.
    pub fn bytes(self) -> usize {
        self.size.map_or(0, |index| SIZES[index])
    }

    /// True if there is a row for it in this phase.
    pub fn runs_in(self, phase: Phase) -> bool {
        phase == Phase::Steady || self.method.has_first_touch()
    }
}

/// The cases for these methods, size by size, so that neighbours in time are neighbours in the
/// table.
pub fn cases(methods: &[Method]) -> Vec<Case> {
    let mut cases = Vec::new();
    for size in 0..SIZES.len() {
        let sized = methods.iter().filter(|method| method.has_size());
        cases.extend(sized.map(|&method| Case { method, size: Some(size) }));
    }
    let plain = methods.iter().filter(|method| !method.has_size());
    cases.extend(plain.map(|&method| Case { method, size: None }));
    cases
}

/// How a file is divided: one area for each size, so that each size has first touches of its own.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// First touches for each size.
    slots: [u64; SIZES.len()],
}

impl Layout {
    /// For measuring. Small where `available` bytes of space are few.
    pub fn to_measure(files: u64, available: u64) -> Self {
        let full = Self { slots: [1024, 1024, 1024, 1024, 64] };
        if full.len().saturating_mul(files).saturating_mul(2) <= available {
            full
        } else {
            Self::to_count()
        }
    }

    /// For counting system calls, which takes fewer updates.
    pub fn to_count() -> Self {
        Self { slots: [Self::COUNTED + 1; SIZES.len()] }
    }

    /// Updates that are counted at most, for each case and phase.
    pub const COUNTED: u64 = 63;

    fn area_len(self, size: usize) -> u64 {
        (self.slots[size] * Self::stride(size, Phase::FirstTouch)).next_multiple_of(AREA_ALIGN)
    }

    /// Length of a file, in bytes.
    pub fn len(self) -> u64 {
        (0..SIZES.len()).map(|size| self.area_len(size)).sum()
    }

    /// First touches there are for this size.
    pub fn slots(self, size: usize) -> u64 {
        self.slots[size]
    }

    /// Distance from one update to the next, in bytes.
    fn stride(size: usize, phase: Phase) -> u64 {
        let least = match phase {
            Phase::FirstTouch => PAGE,
            Phase::Steady => LINE,
        };
        least.max(SIZES[size] as u64)
    }

    /// Where the updates of a case go: `touched` is how many first touches there have been.
    pub fn walk(self, case: Case, phase: Phase, touched: u64) -> Walk {
        let Some(size) = case.size else { return Walk::NOWHERE };
        let stride = Self::stride(size, phase);
        let start = (0..size).map(|before| self.area_len(before)).sum();
        let slots = match phase {
            Phase::FirstTouch => self.slots[size],
            // Only pages that were touched before.
            Phase::Steady => (touched.max(1) * Self::stride(size, Phase::FirstTouch)) / stride,
        };
        Walk { start, stride, slots }
    }
}

/// A sequence of offsets: one after the other, then from the start again.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    start: u64,
    stride: u64,
    slots: u64,
}

impl Walk {
    /// Updates of this many bytes, one behind the other, in a file of `len` bytes.
    pub fn log(len: u64, bytes: u64) -> Self {
        Self { start: 0, stride: bytes, slots: len / bytes }
    }

    /// The numbers themselves.
    pub const NUMBERS: Self = Self { start: 0, stride: 1, slots: u64::MAX };

    /// For what has no offset.
    pub const NOWHERE: Self = Self { start: 0, stride: 0, slots: 1 };

    /// The offset of the update with this number.
    #[inline]
    pub fn offset(self, number: u64) -> u64 {
        self.start + number % self.slots * self.stride
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn areas_hold_their_updates_and_do_not_overlap() {
        for layout in [Layout::to_measure(5, u64::MAX), Layout::to_count()] {
            let mut end_before = 0;
            for (size, &bytes) in SIZES.iter().enumerate() {
                let case = Case { method: Method::Copy, size: Some(size) };
                let walk = layout.walk(case, Phase::FirstTouch, 0);
                assert_eq!(walk.offset(0) % AREA_ALIGN, 0);
                assert!(walk.offset(0) >= end_before);
                let slots = layout.slots(size);
                let pages: HashSet<u64> = (0..slots).map(|n| walk.offset(n) / PAGE).collect();
                assert_eq!(pages.len() as u64, slots, "each first touch has a page of its own");
                end_before = walk.offset(slots - 1) + bytes as u64;
                assert!(end_before <= layout.len());
            }
        }
    }

    #[test]
    fn steady_updates_stay_where_first_touches_were() {
        let layout = Layout::to_count();
        for (size, &bytes) in SIZES.iter().enumerate() {
            let bytes = bytes as u64;
            let case = Case { method: Method::Copy, size: Some(size) };
            for touched in [1, 2, 7] {
                let first = layout.walk(case, Phase::FirstTouch, 0);
                let steady = layout.walk(case, Phase::Steady, touched);
                let end = first.offset(touched - 1) + PAGE.max(bytes);
                for number in 0..10_000 {
                    let at = steady.offset(number);
                    assert!(at >= first.offset(0) && at + bytes <= end);
                    assert_eq!(at % bytes, 0, "no update straddles a line or page");
                }
            }
        }
    }

    #[test]
    fn a_log_begins_again_where_the_next_record_does_not_fit() {
        let log = Walk::log(200, 64);
        assert_eq!([0, 1, 2, 3, 4].map(|number| log.offset(number)), [0, 64, 128, 0, 64]);
        assert_eq!([0, 7].map(|number| Walk::NUMBERS.offset(number)), [0, 7]);
        assert_eq!([0, 7].map(|number| Walk::NOWHERE.offset(number)), [0, 0]);
    }

    #[test]
    fn first_touches_are_told_apart_where_memory_is_mapped_or_allocated() {
        for method in Method::ALL {
            let sized = Case { method, size: Some(0) };
            let wanted = method.needs_file() || method == Method::CacheLineFlush;
            assert_eq!(sized.runs_in(Phase::FirstTouch), wanted, "{method:?}");
            // What writes to no file writes nothing to a device, but for the bare flush.
            let idle = !method.needs_file() && method != Method::DeviceFlush;
            assert_eq!(method.stays_in_processor(), idle, "{method:?}");
        }
        assert_eq!(Phase::ALL.map(Phase::label), ["first", "steady"]);
    }

    #[test]
    fn a_steady_walk_uses_every_line_that_was_touched() {
        let layout = Layout::to_count();
        for (size, &bytes) in SIZES.iter().enumerate() {
            let walk =
                layout.walk(Case { method: Method::Copy, size: Some(size) }, Phase::Steady, 3);
            let bytes = bytes as u64;
            let places: HashSet<u64> = (0..20_000).map(|number| walk.offset(number)).collect();
            assert_eq!(places.len() as u64, 3 * PAGE.max(bytes) / LINE.max(bytes), "{bytes}");
        }
    }

    #[test]
    fn little_space_gets_the_small_layout() {
        let small = Layout::to_measure(5, 64 << 20);
        assert_eq!(small.len(), Layout::to_count().len());
        assert!(Layout::to_measure(5, 1 << 30).len() > small.len());
    }

    #[test]
    fn system_calls_promise_no_more_than_the_filesystem() {
        let fdatasync = |region| Method::PwriteFdatasync.durability(region);
        assert_eq!(fdatasync(Durability::PowerFail), Some(Durability::Fsync));
        assert_eq!(fdatasync(Durability::Fsync), Some(Durability::Fsync));
        assert_eq!(fdatasync(Durability::Unverified), Some(Durability::Unverified));
        assert_eq!(fdatasync(Durability::ProcessOnly), Some(Durability::ProcessOnly));
        for region in [Durability::PowerFail, Durability::Fsync] {
            let emulated = Method::CacheLineFlush.durability(region);
            assert_eq!(emulated, Some(Durability::ProcessOnly), "DRAM keeps nothing");
        }
        assert_eq!(Method::DeviceFlush.durability(Durability::Fsync), None);
    }

    #[test]
    fn every_case_runs_once_in_the_steady_state() {
        let all = cases(&Method::ALL);
        let unique: HashSet<_> = all.iter().collect();
        assert_eq!(unique.len(), all.len());
        assert!(all.iter().all(|case| case.runs_in(Phase::Steady)));
        assert_eq!(all.len(), 7 * SIZES.len() + 3);
    }
}
