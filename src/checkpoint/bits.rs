//! A set of numbers that finds the next member without looking at what lies between: one bit a
//! number, and above them one bit for every 64, up to a single word.

/// Numbers below a bound. Insertion, removal and the search for the next one take a step for each
/// level: four for sixteen million numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Bits {
    /// The lowest level first; a bit of the next says that a word has a bit.
    levels: Vec<Vec<u64>>,
    bound: u64,
    count: u64,
}

impl Bits {
    /// The empty set of numbers below `bound`.
    pub(super) fn new(bound: u64) -> Self {
        let mut bits = Self::default();
        bits.raise(bound);
        bits
    }

    /// Numbers below `bound` can be members from now on. Takes time in proportion to it.
    pub(super) fn raise(&mut self, bound: u64) {
        self.bound = self.bound.max(bound);
        let mut lowest = self.levels.drain(..).next().unwrap_or_default();
        lowest.resize(self.bound.div_ceil(64).max(1) as usize, 0);
        self.levels.push(lowest);
        while let Some(lower) = self.levels.last().filter(|lower| lower.len() > 1) {
            let summary = |words: &[u64]| {
                let bits = words.iter().enumerate().map(|(at, word)| u64::from(*word != 0) << at);
                bits.sum()
            };
            let upper = lower.chunks(64).map(summary).collect();
            self.levels.push(upper);
        }
    }

    /// How many members there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.levels[0]
            .get((number / 64) as usize)
            .is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// True if it was not a member. The number is below the bound.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        debug_assert!(number < self.bound);
        if self.contains(number) {
            return false;
        }
        let mut at = number;
        for level in &mut self.levels {
            let word = &mut level[(at / 64) as usize];
            let before = *word;
            *word |= 1 << (at % 64);
            if before != 0 {
                break;
            }
            at /= 64;
        }
        self.count += 1;
        true
    }

    /// Inserts all numbers of `from..to`, word by word.
    pub(super) fn insert_range(&mut self, from: u64, to: u64) {
        let (mut from, mut to) = (from, to.min(self.bound));
        for (height, level) in self.levels.iter_mut().enumerate() {
            if from >= to {
                return;
            }
            let (first, last) = (from / 64, (to - 1) / 64);
            for at in first..=last {
                let low = if at == first { u64::MAX << (from % 64) } else { u64::MAX };
                let high = if at == last { u64::MAX >> (63 - (to - 1) % 64) } else { u64::MAX };
                let word = &mut level[at as usize];
                if height == 0 {
                    self.count += u64::from((low & high & !*word).count_ones());
                }
                *word |= low & high;
            }
            (from, to) = (first, last + 1);
        }
    }

    /// True if it was a member.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        if !self.contains(number) {
            return false;
        }
        let mut at = number;
        for level in &mut self.levels {
            let word = &mut level[(at / 64) as usize];
            *word &= !(1 << (at % 64));
            if *word != 0 {
                break;
            }
            at /= 64;
        }
        self.count -= 1;
        true
    }

    /// The least member that is not below `from`.
    pub(super) fn next(&self, from: u64) -> Option<u64> {
        let mut at = from;
        for (level, words) in self.levels.iter().enumerate() {
            let word = words.get((at / 64) as usize)?;
            let rest = word & (u64::MAX << (at % 64));
            if rest != 0 {
                let mut found = at / 64 * 64 + u64::from(rest.trailing_zeros());
                for lower in self.levels[..level].iter().rev() {
                    let word = lower[found as usize];
                    found = found * 64 + u64::from(word.trailing_zeros());
                }
                return Some(found);
            }
            at = at / 64 + 1;
        }
        None
    }

    /// The members, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let first = self.next(0);
        std::iter::successors(first, |number| self.next(number + 1))
    }

    /// Removes every member, in time that follows their number.
    pub(super) fn clear(&mut self) {
        let mut at = 0;
        while let Some(number) = self.next(at) {
            self.remove(number);
            at = number + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Bits;
    use std::collections::BTreeSet;

    #[test]
    fn a_range_is_inserted_as_its_numbers_are() {
        for bound in [1_u64, 64, 65, 4096, 4097, 300_000] {
            let mut random = fastrand::Rng::with_seed(bound);
            for _ in 0..20 {
                let from = random.u64(..bound);
                let to = if random.bool() { random.u64(from..=bound) } else { bound + 7 };
                let (mut bits, mut model) = (Bits::new(bound), Bits::new(bound));
                for _ in 0..random.u64(..50) {
                    let number = random.u64(..bound);
                    assert_eq!(bits.insert(number), model.insert(number));
                }
                bits.insert_range(from, to);
                for number in from..to.min(bound) {
                    model.insert(number);
                }
                assert_eq!(bits.count(), model.count(), "{from}..{to} of {bound}");
                assert_eq!(bits.levels, model.levels, "{from}..{to} of {bound}");
            }
        }
    }

    #[test]
    fn it_is_a_set() {
        for bound in [1, 63, 64, 65, 4096, 4097, 300_000] {
            let (mut bits, mut model) = (Bits::new(bound), BTreeSet::new());
            let mut random = fastrand::Rng::with_seed(bound);
            for _ in 0..3000 {
                // Most of them close together.
                let spread = if random.bool() { bound } else { bound.min(200) };
                let number = random.u64(..spread);
                if random.u8(..3) == 0 {
                    assert_eq!(bits.remove(number), model.remove(&number));
                } else {
                    assert_eq!(bits.insert(number), model.insert(number));
                }
                let from = random.u64(..=bound);
                assert_eq!(bits.next(from), model.range(from..).next().copied());
                assert_eq!(bits.contains(from), model.contains(&from));
            }
            assert_eq!(bits.count(), model.len() as u64);
            assert!(bits.iter().eq(model.iter().copied()));
            bits.raise(bound * 70 + 5);
            assert!(bits.iter().eq(model.iter().copied()));
            bits.insert(bound * 70 + 4);
            assert_eq!(bits.next(bound), Some(bound * 70 + 4));
            bits.clear();
            assert_eq!((bits.count(), bits.next(0)), (0, None));
        }
    }
}
