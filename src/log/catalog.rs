//! Which segments can hold an Lsn, without a look at all of them.
//!
//! Lives that may get more records are as many as there are writers, and each is looked at. Those
//! that are full are in lanes, of which each holds lives that do not overlap: as many lanes as lives
//! overlap at one Lsn, however many segments there are, and a search in each.

use std::collections::BTreeMap;
use std::ops::Bound;

/// The base of a life and its number. Lives begin in this order: the base of one that begins later
/// is above every Lsn that was drawn before.
pub(super) type Key = (u64, u64);

/// A full life in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Full {
    life: u64,
    last: u64,
    segment: usize,
}

/// The lives of a log that hold records or may get some.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    open: BTreeMap<Key, usize>,
    /// Full lives by their base.
    lanes: Vec<BTreeMap<u64, Full>>,
    #[cfg(test)]
    pub(super) steps: std::cell::Cell<u64>,
}

impl Catalog {
    /// A life that may get records.
    pub(super) fn open(&mut self, key: Key, segment: usize) {
        self.open.insert(key, segment);
    }

    /// A life gets no more records; its last one is `last`.
    pub(super) fn fill(&mut self, key: Key, segment: usize, last: u64) {
        self.forget(key);
        let ((base, life), full) = (key, Full { life: key.1, last, segment });
        if last < base {
            return;
        }
        let fits = |lane: &&mut BTreeMap<u64, Full>| {
            let before = lane.range(..=last).next_back();
            before.is_none_or(|(_, before)| before.last < base)
        };
        match self.lanes.iter_mut().find(fits) {
            Some(lane) => drop(lane.insert(base, full)),
            None => self.lanes.push(BTreeMap::from([(base, full)])),
        }
        debug_assert!(self.lanes.iter().flatten().any(|(_, full)| full.life == life));
    }

    /// Nothing of a life is kept.
    pub(super) fn forget(&mut self, key: Key) {
        if self.open.remove(&key).is_some() {
            return;
        }
        let (base, life) = key;
        for lane in &mut self.lanes {
            if lane.get(&base).is_some_and(|full| full.life == life) {
                lane.remove(&base);
                break;
            }
        }
        self.lanes.retain(|lane| !lane.is_empty());
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.lanes.clear();
    }

    /// The segments that can hold this Lsn, and those that are open and can get it.
    pub(super) fn holding(&self, lsn: u64) -> Vec<usize> {
        let mut found: Vec<usize> =
            self.open.range(..=(lsn, u64::MAX)).map(|(_, segment)| self.step(*segment)).collect();
        for lane in &self.lanes {
            let at = lane.range(..=lsn).next_back().map(|(_, full)| self.step(*full));
            found.extend(at.filter(|full| full.last >= lsn).map(|full| full.segment));
        }
        found
    }

    /// The life that begins next after this one.
    pub(super) fn after(&self, key: Key) -> Option<(Key, usize)> {
        let from = (Bound::Excluded(key), Bound::Unbounded);
        let open = self.open.range(from).next().map(|(key, segment)| (*key, self.step(*segment)));
        let full = self.lanes.iter().filter_map(|lane| {
            let lives = lane.range(key.0..).map(|(base, full)| ((*base, full.life), full.segment));
            lives.map(|life| self.step(life)).find(|(other, _)| *other > key)
        });
        open.into_iter().chain(full).min()
    }

    /// The full life that ends next before this last Lsn and number: its own, and its segment.
    pub(super) fn full_before(&self, (last, life): (u64, u64)) -> Option<((u64, u64), usize)> {
        let ends = |lane: &BTreeMap<u64, Full>| {
            let lives = lane.range(..=last).rev();
            let mut lives =
                lives.map(|(_, full)| ((full.last, full.life), self.step(*full).segment));
            lives.find(|(end, _)| *end < (last, life))
        };
        self.lanes.iter().filter_map(ends).max()
    }

    /// Counts what a search looks at, for the tests.
    #[cfg_attr(not(test), allow(clippy::unused_self))]
    fn step<T>(&self, looked_at: T) -> T {
        #[cfg(test)]
        self.steps.set(self.steps.get() + 1);
        looked_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lives of three writers, of ten Lsns each, one behind the other for each writer.
    fn full(lives: u64) -> Catalog {
        let mut catalog = Catalog::default();
        for life in 0..lives {
            let base = life / 3 * 30 + life % 3 + 1;
            catalog.open((base, life + 1), life as usize);
        }
        for life in 0..lives {
            let base = life / 3 * 30 + life % 3 + 1;
            catalog.fill((base, life + 1), life as usize, base + 27);
        }
        catalog
    }

    #[test]
    fn a_search_is_the_same_as_a_look_at_every_life() {
        let catalog = full(30);
        assert_eq!(catalog.lanes.len(), 3);
        let lives: Vec<(Key, u64)> =
            (0..30).map(|n| (n / 3 * 30 + n % 3 + 1, n + 1)).map(|key| (key, key.0 + 27)).collect();
        for lsn in 0..320 {
            let mut found = catalog.holding(lsn);
            found.sort_unstable();
            let inside = |(key, last): &&(Key, u64)| key.0 <= lsn && lsn <= *last;
            let right: Vec<_> =
                lives.iter().filter(inside).map(|(key, _)| key.1 as usize - 1).collect();
            assert_eq!(found, right, "{lsn}");
            for life in [0, 5, 40] {
                let next = lives.iter().map(|(key, _)| *key).filter(|key| *key > (lsn, life)).min();
                assert_eq!(catalog.after((lsn, life)).map(|(key, _)| key), next);
                let ends = lives.iter().map(|(key, last)| (*last, key.1));
                let before = ends.filter(|end| *end < (lsn, life)).max();
                assert_eq!(catalog.full_before((lsn, life)).map(|(end, _)| end), before);
            }
        }
    }

    #[test]
    fn a_search_among_many_lives_costs_what_one_among_few_does() {
        let cost = |lives| {
            let catalog = full(lives);
            assert_eq!(catalog.lanes.len(), 3);
            let steps = |search: &dyn Fn()| {
                let before = catalog.steps.get();
                search();
                catalog.steps.get() - before
            };
            let middle = lives / 6 * 30 + 15;
            [
                steps(&|| assert_eq!(catalog.holding(middle).len(), 3)),
                steps(&|| assert!(catalog.after((middle, 0)).is_some())),
                steps(&|| assert!(catalog.full_before((middle, 0)).is_some())),
            ]
        };
        assert_eq!(cost(12), cost(6000));
        assert!(cost(6000).iter().all(|&steps| steps <= 9));
    }

    #[test]
    fn what_is_forgotten_leaves_no_lane_behind() {
        let mut catalog = full(12);
        for life in 0..12 {
            catalog.forget((life / 3 * 30 + life % 3 + 1, life + 1));
        }
        assert!(catalog.lanes.is_empty() && catalog.open.is_empty());
        // A life without a record is not looked for.
        catalog.open((7, 1), 0);
        catalog.fill((7, 1), 0, 0);
        assert!(catalog.holding(7).is_empty() && catalog.after((0, 0)).is_none());
    }
}
