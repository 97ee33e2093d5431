//! Which ranges wait for a sync? Few of them, disjoint and in order.

use std::ops::Range;

/// Ranges kept apart: each is a sync of its own. More are joined with their neighbours, and what lies
/// between is synced too.
const APART_MAX: usize = 8;

/// Ranges in bytes from the start of a mapping, and how many were ever added.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    apart: Vec<Range<usize>>,
    count: u64,
}

impl Ranges {
    /// Adds one that is not empty.
    pub(super) fn add(&mut self, new: Range<usize>) {
        self.count += 1;
        let from = self.apart.partition_point(|range| range.end < new.start);
        let to = self.apart.partition_point(|range| range.start <= new.end);
        let met = &self.apart[from..to];
        let start = met.first().map_or(new.start, |first| first.start.min(new.start));
        let end = met.last().map_or(new.end, |last| last.end.max(new.end));
        self.apart.splice(from..to, std::iter::once(start..end));
        if self.apart.len() > APART_MAX {
            self.join_nearest();
        }
    }

    fn join_nearest(&mut self) {
        let gap = |pair: &[Range<usize>]| pair[1].start - pair[0].end;
        let nearest = self.apart.windows(2).enumerate().min_by_key(|(_, pair)| gap(pair));
        if let Some((at, pair)) = nearest {
            let joined = pair[0].start..pair[1].end;
            self.apart.splice(at..at + 2, std::iter::once(joined));
        }
    }

    /// How many were ever added.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Those that wait, and the count that they are all of. None wait afterwards.
    pub(super) fn take(&mut self) -> (Vec<Range<usize>>, u64) {
        (std::mem::take(&mut self.apart), self.count)
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // a list of ranges is meant
mod tests {
    use super::*;

    fn added(all: &[Range<usize>]) -> (Vec<Range<usize>>, u64) {
        let mut ranges = Ranges::default();
        for range in all {
            ranges.add(range.clone());
        }
        ranges.take()
    }

    #[test]
    fn what_touches_is_one_and_nothing_else_is() {
        assert_eq!(added(&[5..9, 1..3]), (vec![1..3, 5..9], 2));
        assert_eq!(added(&[1..3, 3..5]).0, [1..5]);
        assert_eq!(added(&[3..5, 1..3]).0, [1..5]);
        assert_eq!(added(&[1..3, 5..7, 9..11, 2..10]).0, [1..11]);
        assert_eq!(added(&[1..9, 3..5]).0, [1..9]);
        assert_eq!(added(&[3..5, 1..9, 20..21]).0, [1..9, 20..21]);
    }

    #[test]
    fn too_many_are_joined_where_they_are_nearest() {
        let mut all: Vec<_> = (0..APART_MAX).map(|at| at * 100..at * 100 + 10).collect();
        assert_eq!(added(&all).0, all);
        all.push(250..260);
        let joined = added(&all).0;
        assert_eq!(joined.len(), APART_MAX);
        assert!(joined.contains(&(200..260)), "{joined:?}");
    }

    /// Every byte that was added is there, whatever came in which order.
    #[test]
    fn nothing_is_left_out() {
        let mut ranges = Ranges::default();
        let mut expected = [false; 512];
        let mut state = 1_u64;
        for round in 1..=4000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let start = (state >> 33) as usize % 500;
            let end = start + 1 + (state >> 50) as usize % 11;
            ranges.add(start..end);
            expected[start..end].fill(true);
            assert!(ranges.apart.len() <= APART_MAX);
            assert!(ranges.apart.windows(2).all(|pair| pair[0].end < pair[1].start));
            if round % 20 == 0 {
                let (taken, count) = ranges.take();
                assert_eq!(count, round);
                for at in (0..512).filter(|&at| expected[at]) {
                    assert!(taken.iter().any(|range| range.contains(&at)), "{at} of {taken:?}");
                }
                expected = [false; 512];
            }
        }
    }
}
