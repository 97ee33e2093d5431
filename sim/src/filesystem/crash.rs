//! What a crash can leave: every set of pending changes that the profile's order allows.

use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::history::History;
use super::image::Image;

/// How far to go.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// States looked at per crash point, at most. Where there are more, this many are sampled:
    /// none, all, each change alone and each missing, then at random.
    pub states_per_point: usize,
    /// Of the samples.
    pub seed: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { states_per_point: 1 << 16, seed: 1 }
    }
}

/// One state that a crash can leave.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Crash<'a> {
    /// The call before which it crashed, counted from 0; the number of calls for a crash after the
    /// last.
    pub point: usize,
    /// The last mark that the program had set by then.
    pub mark: u32,
    /// What is on the medium, the filesystem's own recovery done.
    pub image: &'a Image,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Crash points: before every call that changes or syncs something, and after the last.
    pub points: usize,
    /// States in all.
    pub states: usize,
    /// States that differ in what is on the medium or in the mark.
    pub distinct: usize,
    /// Crash points with too many states to look at all.
    pub sampled: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.points += other.points;
        self.states += other.states;
        self.distinct += other.distinct;
        self.sampled += other.sampled;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { points, states, distinct, sampled } = self;
        write!(
            f,
            "{points} crash points, {states} crash states, {distinct} distinct, {sampled} points sampled"
        )
    }
}

/// A state that a check refused.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Violation {
    /// What the check said, the crash point, and what the medium lacked.
    pub text: String,
    /// The state.
    pub image: Image,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Violation {}

/// What a check says of a state: what is wrong with it, if anything is.
pub type Verdict = Result<(), String>;

impl History {
    /// Shows `check` each distinct state that a crash at any point can leave.
    ///
    /// # Errors
    ///
    /// The first state that the check refuses.
    pub fn explore(
        &self,
        limits: Limits,
        check: impl FnMut(Crash<'_>) -> Verdict,
    ) -> Result<Tally, Box<Violation>> {
        self.explore_from(0, limits, check)
    }

    /// [`explore`](Self::explore), from a crash point on, counted as in [`Crash::point`].
    ///
    /// # Errors
    ///
    /// As [`explore`](Self::explore).
    pub fn explore_from(
        &self,
        first: usize,
        limits: Limits,
        mut check: impl FnMut(Crash<'_>) -> Verdict,
    ) -> Result<Tally, Box<Violation>> {
        let mut tally = Tally::default();
        let mut seen = HashSet::new();
        for point in first..=self.calls.len() {
            tally.points += 1;
            let mark = self.calls.get(point).map_or(self.mark, |call| call.mark);
            let at = Point::new(self, point);
            let mut visit = |kept: &[bool]| {
                tally.states += 1;
                let image = at.image(kept);
                let mut hasher = DefaultHasher::new();
                (mark, &image).hash(&mut hasher);
                if !seen.insert(hasher.finish()) {
                    return Ok(());
                }
                tally.distinct += 1;
                check(Crash { point, mark, image: &image }).map_err(|said| {
                    Box::new(Violation { text: at.explain(kept, &said), image: image.clone() })
                })
            };
            if at.count(limits.states_per_point) <= limits.states_per_point {
                at.each(&mut vec![false; at.optional.len()], 0, &mut visit)?;
            } else {
                tally.sampled += 1;
                at.sample(limits, &mut visit)?;
            }
        }
        Ok(tally)
    }
}

/// The changes at one crash point.
struct Point<'a> {
    history: &'a History,
    before_call: usize,
    /// Changes that the medium may have or not, in order.
    optional: Vec<usize>,
    /// For each, the ones before it, as places in `optional`, that it waits for.
    waits_for: Vec<Vec<usize>>,
}

impl<'a> Point<'a> {
    fn new(history: &'a History, point: usize) -> Self {
        let changes = &history.changes;
        let optional: Vec<usize> = (0..changes.len())
            .filter(|&at| {
                changes[at].is_made_before(point) && !changes[at].is_durable_before(point)
            })
            .collect();
        let places: BTreeMap<usize, usize> =
            optional.iter().enumerate().map(|(place, &at)| (at, place)).collect();
        let waits_for = optional
            .iter()
            .map(|&at| {
                let waited = changes[at].after.iter();
                let waited = waited.filter(|&&other| !changes[other].is_lost_before(point));
                waited.filter_map(|other| places.get(other).copied()).collect()
            })
            .collect();
        Self { history, before_call: point, optional, waits_for }
    }

    fn image(&self, kept: &[bool]) -> Image {
        let mut image = self.history.base.clone();
        let mut optional = self.optional.iter().zip(kept).peekable();
        for (at, change) in self.history.changes.iter().enumerate() {
            if !change.is_made_before(self.before_call) {
                break;
            }
            let keeps = match optional.next_if(|(optional, _)| **optional == at) {
                Some((_, kept)) => *kept,
                None => true,
            };
            if keeps {
                change.effects.iter().for_each(|effect| image.apply(effect));
            }
        }
        image.recover();
        image
    }

    /// How many states there are, or something above `limit`.
    fn count(&self, limit: usize) -> usize {
        let mut count = 0;
        let mut counting = |_: &[bool]| {
            count += 1;
            if count > limit { Err(()) } else { Ok(()) }
        };
        let _ = self.each(&mut vec![false; self.optional.len()], 0, &mut counting);
        count
    }

    /// Every allowed set, the one with nothing first.
    fn each<E>(
        &self,
        kept: &mut Vec<bool>,
        from: usize,
        visit: &mut impl FnMut(&[bool]) -> Result<(), E>,
    ) -> Result<(), E> {
        if from == kept.len() {
            return visit(kept);
        }
        kept[from] = false;
        self.each(kept, from + 1, visit)?;
        if self.waits_for[from].iter().all(|&place| kept[place]) {
            kept[from] = true;
            self.each(kept, from + 1, visit)?;
            kept[from] = false;
        }
        Ok(())
    }

    /// Takes away what waits for something that is not there.
    fn close(&self, kept: &mut [bool]) {
        for place in 0..kept.len() {
            kept[place] &= self.waits_for[place].iter().all(|&waited| kept[waited]);
        }
    }

    /// Adds what a change waits for.
    fn with(&self, place: usize) -> Vec<bool> {
        let mut kept = vec![false; self.optional.len()];
        let mut wanted = vec![place];
        while let Some(place) = wanted.pop() {
            kept[place] = true;
            wanted.extend(self.waits_for[place].iter().filter(|&&waited| !kept[waited]));
        }
        kept
    }

    fn sample<E>(
        &self,
        limits: Limits,
        visit: &mut impl FnMut(&[bool]) -> Result<(), E>,
    ) -> Result<(), E> {
        let len = self.optional.len();
        visit(&vec![false; len])?;
        visit(&vec![true; len])?;
        for place in 0..len {
            visit(&self.with(place))?;
            let mut without = vec![true; len];
            without[place] = false;
            self.close(&mut without);
            visit(&without)?;
        }
        let mut random = Random(limits.seed ^ (self.before_call as u64) << 32);
        for _ in 2 + 2 * len..limits.states_per_point {
            // From few to nearly all, so that long chains are met as well.
            let of_eight = random.next() % 8;
            let mut kept: Vec<bool> = (0..len).map(|_| random.next() % 8 <= of_eight).collect();
            self.close(&mut kept);
            visit(&kept)?;
        }
        Ok(())
    }

    fn explain(&self, kept: &[bool], said: &str) -> String {
        let History { profile, calls, changes, .. } = self.history;
        let mut text = format!("{said}\n  on {}, crashed ", profile.as_str());
        // A string takes what is written to it.
        let _ = match calls.get(self.before_call) {
            Some(call) => write!(text, "before call {}, {}", self.before_call, call.text),
            None => write!(text, "after the last call"),
        };
        for (at, kept) in self.optional.iter().zip(kept) {
            let fate = if *kept { "reached the medium" } else { "did not" };
            let _ = write!(text, "\n    {fate}: {}", changes[*at]);
        }
        text
    }
}

/// `SplitMix64`: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
