//! How many write-backs and fences a call costs, by the library's own counters. What they count
//! is checked against the machine code elsewhere.

use super::Verdict;
use super::support::Bench;

#[cfg(not(feature = "counters"))]
mod counting {
    use super::{Bench, Verdict};

    pub(in crate::conformance) fn flush_counts(_: &Bench<'_>) -> Verdict {
        Verdict::NotApplicable("built without the feature `counters`")
    }

    pub(in crate::conformance) use flush_counts as deep_flush_counts;
    pub(in crate::conformance) use flush_counts as write_flush_counts;
}

#[cfg(feature = "counters")]
mod counting {
    use daxmap::cpu::{Counts, Cpu, LineCover, counts};
    use daxmap::{Backend, Granularity, Region, Result};

    use super::super::support::PAGE;
    use super::{Bench, Verdict};

    #[track_caller]
    fn counted(call: impl FnOnce() -> Result<()>) -> Counts {
        let before = counts();
        call().expect("a call inside works");
        counts().since(before)
    }

    /// So many of each, and nothing else.
    fn expected(write_backs: u64, fences: u64) -> Counts {
        let mut counts = Counts::default();
        (counts.write_backs, counts.fences) = (write_backs, fences);
        counts
    }

    /// The base is a page boundary, so offsets have the lines that addresses have.
    fn lines(offset: u64, len: u64) -> u64 {
        LineCover::of(offset as usize, len as usize, Cpu::get().line_size()).count() as u64
    }

    fn write_backs(bench: &Bench<'_>, lines: u64) -> u64 {
        if bench.writes_lines_back() { lines } else { 0 }
    }

    const RANGES: [(u64, u64); 12] = [
        (0, 0),
        (0, 1),
        (63, 1),
        (63, 2),
        (0, 64),
        (1, 64),
        (64, 128),
        (100, 1000),
        (0, PAGE),
        (1, PAGE),
        (PAGE - 1, 2),
        (7, 3 * PAGE),
    ];

    pub(in crate::conformance) fn flush_counts(bench: &Bench<'_>) -> Verdict {
        let region = bench.create(4 * PAGE);
        let fence = fence(bench);
        for (offset, len) in RANGES {
            region.fill_flush(0, region.len(), 7).expect("the region can be filled");
            let write_backs = write_backs(bench, lines(offset, len));
            let flushed = counted(|| region.flush(offset, len));
            assert_eq!(flushed, expected(write_backs, 0), "flush({offset}, {len})");
            let persisted = counted(|| region.persist(offset, len));
            assert_eq!(persisted, expected(write_backs, fence), "persist({offset}, {len})");
        }
        let drained = counted(|| region.drain());
        assert_eq!(drained, expected(0, fence), "drain");
        let stored = counted(|| region.store_u64(0, 1).and_then(|()| region.write(9, b"stores")));
        assert_eq!(stored, Counts::default(), "stores are not flushed");
        Verdict::Passed
    }

    pub(in crate::conformance) fn write_flush_counts(bench: &Bench<'_>) -> Verdict {
        let region = bench.create(4 * PAGE);
        for (offset, len) in RANGES {
            let data = vec![9; len as usize];
            let wrote = counted(|| region.write_flush(offset, &data));
            each_line_once(bench, &*region, "write_flush", offset, len, wrote);
            let filled = counted(|| region.fill_flush(offset, len, 3));
            each_line_once(bench, &*region, "fill_flush", offset, len, filled);
            let streamed = counted(|| region.write_stream(offset, &data));
            // Nobody is promised to see it before the drain.
            assert_eq!(streamed.order_fences, 0, "write_stream({offset}, {len})");
            each_line_once(bench, &*region, "write_stream", offset, len, streamed);
            let mut persisted = counted(|| region.write_persist(offset, &data));
            assert_eq!(persisted.fences, fence(bench), "write_persist({offset}, {len})");
            persisted.fences = 0;
            each_line_once(bench, &*region, "write_persist", offset, len, persisted);
        }
        Verdict::Passed
    }

    /// A deep flush and a close wait for what was flushed, as a drain does; where the kernel is
    /// asked to go further, it does not empty the caches.
    pub(in crate::conformance) fn deep_flush_counts(bench: &Bench<'_>) -> Verdict {
        let region = bench.create(4 * PAGE);
        let facts = bench.facts();
        for (offset, len) in RANGES {
            let before = counts();
            let flushed = region.deep_flush(offset, len);
            // The kernel offers no deep flush of a device; the lines are written back all the same.
            assert_eq!(flushed.is_ok(), facts.backend != Backend::DevDax, "{flushed:?}");
            let all = match facts.backend {
                Backend::FsDax | Backend::DevDax => lines(offset, len),
                _ => write_backs(bench, lines(offset, len)),
            };
            assert_eq!(
                counts().since(before),
                expected(all, fence(bench)),
                "deep_flush({offset}, {len})"
            );
        }
        let closed = counted(|| region.close());
        assert_eq!(closed, expected(0, fence(bench)), "close");
        Verdict::Passed
    }

    /// Fences of a drain.
    fn fence(bench: &Bench<'_>) -> u64 {
        u64::from(bench.facts().granularity != Granularity::Page)
    }

    fn each_line_once(
        bench: &Bench<'_>,
        region: &dyn Region,
        call: &str,
        offset: u64,
        len: u64,
        found: Counts,
    ) {
        let what = format!("{call}({offset}, {len}) of {}: {found:?}", region.len());
        assert_eq!(found.fences, 0, "{what}");
        let done = found.write_backs + found.non_temporal_lines;
        assert_eq!(done, write_backs(bench, lines(offset, len)), "{what}");
    }
}

pub(super) use counting::{deep_flush_counts, flush_counts, write_flush_counts};
