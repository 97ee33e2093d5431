//! Which crashes of a log are tried: its stretches between two flushes, and what is kept of each.
//!
//! # What a flush covers
//!
//! A flush makes durable what stands before it in the log (see [`Log`] for the one case in which
//! the log says too much). Of the changes after it, a crash keeps any subset, the last of them
//! perhaps in part; the crash comes at the latest just before the next flush is answered. So a
//! stretch of a log runs from one flush to the next, and each of its crashes is held to
//! everything that was acknowledged before that next flush came: a caller who was told "durable"
//! while writes were still open did not depend on them, or was told too early.
//!
//! A write with FUA is, on a device without FUA, a write and a flush of its own (block/blk-flush.c).
//! That flush also covers whatever else was open, which FUA would not. A stretch of one write
//! shows no difference; where there are more, the log gives the device's promise, not FUA's.

use std::fmt;

use super::image::Image;
use super::log::{Entry, Keep, Log, Outcome, Request, SECTOR};
use crate::random::{Random, mix};

/// How many crashes of a stretch are tried.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Writes of a stretch that are tried alone, missing, and as the last of a prefix. Of a longer
    /// stretch as many are chosen.
    pub singled_out: usize,
    /// Further crashes in which every write is kept, lost or torn by chance.
    pub samples: usize,
    /// First bytes and ends of parts of the device inside which no write is torn, see [`Filesystem::written_whole`].
    ///
    /// [`Filesystem::written_whole`]: super::Filesystem::written_whole
    pub whole: &'static [(u64, u64)],
}

/// A stretch of a log from one flush to the next.
pub struct Stretch<'log> {
    log: &'log Log,
    /// The medium with everything that a flush had made durable when the stretch began.
    pub durable: Image,
    /// Positions of the changes that no flush covers yet.
    pub open: Vec<usize>,
    /// Position of the flush that ends it; the length of the log for the last one. Everything
    /// that was acknowledged when the log had at most this many entries must be there.
    pub end: usize,
}

/// One crash: what it keeps of each open change of a stretch, in the order of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// In which family of crashes it is.
    pub family: &'static str,
    /// What is kept.
    pub keep: Vec<Keep>,
}

impl Log {
    /// The stretches that end at `from` or later, in order.
    ///
    /// # Panics
    ///
    /// If a request failed: what is acknowledged after that is another question.
    pub fn stretches(&self, from: usize) -> impl Iterator<Item = Stretch<'_>> {
        assert!(
            self.entries.iter().all(|entry| entry.outcome == Outcome::Done),
            "stretches are those of a device without faults"
        );
        let mut durable = self.base.clone();
        let mut at = 0;
        let mut over = false;
        std::iter::from_fn(move || {
            while !over {
                let rest = &self.entries[at..];
                let end =
                    rest.iter().position(Entry::is_flush).map_or(self.entries.len(), |n| at + n);
                let before = durable.clone();
                let open: Vec<usize> =
                    (at..end).filter(|&at| self.entries[at].is_change()).collect();
                for &at in &open {
                    self.entries[at].apply(&mut durable);
                }
                at = end + 1;
                // After the last flush comes one more, however empty: what was acknowledged
                // since then is asked for there.
                over = at > self.entries.len();
                if end >= from {
                    return Some(Stretch { log: self, durable: before, open, end });
                }
            }
            None
        })
    }
}

impl Stretch<'_> {
    /// True of the stretch that no flush ends.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.end >= self.log.entries.len()
    }

    /// An open change, torn somewhere; a discard and a single sector never are.
    fn tear(&self, open: usize, limits: Limits, random: &mut Random) -> Option<Keep> {
        let Request::Write { offset, data } = &self.log.entries[self.open[open]].request else {
            return None;
        };
        let places: Vec<usize> = (1..data.len().div_ceil(SECTOR))
            .filter(|sectors| {
                let at = offset + (sectors * SECTOR) as u64;
                !limits.whole.iter().any(|&(from, to)| from < at && at < to)
            })
            .collect();
        (!places.is_empty())
            .then(|| Keep::Sectors(places[random.below(places.len() as u64) as usize]))
    }

    /// The medium that a crash leaves.
    ///
    /// # Panics
    ///
    /// If the crash is not of this stretch.
    #[must_use]
    pub fn image(&self, crash: &Crash) -> Image {
        assert_eq!(crash.keep.len(), self.open.len(), "a crash is of one stretch");
        let mut image = self.durable.clone();
        for (&at, &keep) in self.open.iter().zip(&crash.keep) {
            self.log.entries[at].apply_part(&mut image, keep);
        }
        image
    }

    /// The crashes to try: nothing kept, everything, each change alone, each missing, each
    /// prefix, prefixes and single writes whose last sectors are lost, and samples. No two are
    /// alike. That everything is kept is left out where a flush ends the stretch: the next one
    /// has that image as its first, and asks more of it.
    #[must_use]
    pub fn crashes(&self, limits: Limits, seed: u64) -> Vec<Crash> {
        let mut random = Random::new(mix(seed ^ self.end as u64));
        let mut crashes = Crashes { all: Vec::new(), leave_out: !self.is_last() };
        let count = self.open.len();
        crashes.add("none", vec![Keep::Nothing; count]);
        for one in singled_out(count, limits.singled_out, &mut random) {
            let torn = self.tear(one, limits, &mut random);
            let with = |others: Keep, own: Keep| {
                let mut keep = vec![others; count];
                keep[one] = own;
                keep
            };
            let prefix = |own: Keep| {
                let mut keep = with(Keep::Whole, own);
                keep[one + 1..].fill(Keep::Nothing);
                keep
            };
            crashes.add("alone", with(Keep::Nothing, Keep::Whole));
            crashes.add("missing", with(Keep::Whole, Keep::Nothing));
            crashes.add("prefix", prefix(Keep::Whole));
            if let Some(torn) = torn {
                crashes.add("torn alone", with(Keep::Nothing, torn));
                crashes.add("torn prefix", prefix(torn));
            }
        }
        crashes.add("all", vec![Keep::Whole; count]);
        for _ in 0..if count > 1 { limits.samples } else { 0 } {
            let sample = (0..count).map(|one| match random.below(4) {
                0 => Keep::Nothing,
                1 => self.tear(one, limits, &mut random).unwrap_or(Keep::Whole),
                _ => Keep::Whole,
            });
            crashes.add("sample", sample.collect());
        }
        crashes.all
    }

    /// A crash in words, for whoever looks into a failure.
    #[must_use]
    pub fn describe(&self, crash: &Crash) -> String {
        use fmt::Write as _;
        let mut words = format!("\"{}\" before log position {}", crash.family, self.end);
        for (at, keep) in self.open.iter().zip(&crash.keep) {
            let _ = write!(words, "\n    {at}: {:?}: {keep:?}", self.log.entries[*at].request);
        }
        words
    }
}

struct Crashes {
    all: Vec<Crash>,
    /// Leave the crash out that keeps everything.
    leave_out: bool,
}

impl Crashes {
    fn add(&mut self, family: &'static str, keep: Vec<Keep>) {
        // Without any change, nothing kept and everything kept is the same.
        let everything = !keep.is_empty() && keep.iter().all(|&keep| keep == Keep::Whole);
        let known = self.all.iter().any(|crash| crash.keep == keep);
        if known || everything && self.leave_out {
            return;
        }
        self.all.push(Crash { family, keep });
    }
}

/// All of `count`, or as many as are wanted, without repetition and in order.
fn singled_out(count: usize, wanted: usize, random: &mut Random) -> Vec<usize> {
    let mut all: Vec<usize> = (0..count).collect();
    while all.len() > wanted {
        all.remove(random.below(all.len() as u64) as usize);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { singled_out: 8, samples: 4, whole: &[(512, 1536)] };

    fn write(offset: u64, byte: u8, sectors: usize) -> Entry {
        let data = vec![byte; sectors * SECTOR].into();
        Entry { request: Request::Write { offset, data }, outcome: Outcome::Done }
    }

    fn flush() -> Entry {
        Entry { request: Request::Flush, outcome: Outcome::Done }
    }

    fn log(entries: Vec<Entry>) -> Log {
        Log { base: Image::new(1 << 16), entries }
    }

    #[test]
    fn stretches_run_from_flush_to_flush() {
        let log = log(vec![write(0, 1, 1), flush(), flush(), write(0, 2, 1), write(512, 3, 1)]);
        let found: Vec<_> = log
            .stretches(0)
            .map(|stretch| (stretch.open.clone(), stretch.end, stretch.is_last()))
            .collect();
        assert_eq!(
            found,
            [(vec![0], 1, false), (vec![], 2, false), (vec![3, 4], 5, true)],
            "first stretch, nothing between two flushes, and what no flush ends"
        );
        let ends: Vec<_> = log.stretches(2).map(|stretch| stretch.end).collect();
        assert_eq!(ends, [2, 5]);
        for stretch in log.stretches(0) {
            assert_eq!(stretch.durable, log.image_after(log.durable_before(stretch.end)));
        }
    }

    #[test]
    fn after_a_flush_at_the_end_there_is_one_more() {
        let log = log(vec![write(0, 1, 1), flush()]);
        assert_eq!(log.stretches(0).map(|stretch| stretch.end).collect::<Vec<_>>(), [1, 2]);
        let last = log.stretches(0).last().unwrap();
        assert!(last.is_last() && last.crashes(LIMITS, 1).len() == 1);
        assert_eq!(last.durable, log.image_after(2));
    }

    #[test]
    fn crashes_are_the_images_of_the_log() {
        let entries =
            vec![write(0, 9, 4), flush(), write(0, 1, 2), write(1024, 2, 1), write(1536, 3, 1)];
        let log = log(entries);
        let stretch = log.stretches(2).next().unwrap();
        let crashes = stretch.crashes(LIMITS, 1);
        for crash in &crashes {
            let mut keep = crash.keep.iter().copied();
            let expected = log.crash_image(5, |_, _| keep.next().unwrap());
            assert_eq!(stretch.image(crash), expected, "{crash:?}");
        }
        let has = |keep: [Keep; 3]| crashes.iter().any(|crash| crash.keep == keep);
        let (all, none) = (Keep::Whole, Keep::Nothing);
        for subset in 0..8 {
            let keep = [0, 1, 2].map(|bit| if subset >> bit & 1 == 1 { all } else { none });
            assert!(has(keep), "{keep:?}");
        }
        assert!(has([Keep::Sectors(1), none, none]));
        let torn_inside = |crash: &&Crash| crash.keep[0] == Keep::Sectors(2);
        let log = self::log(vec![write(0, 1, 4)]);
        let crashes = log.stretches(0).next().unwrap().crashes(LIMITS, 1);
        assert_eq!(
            crashes.iter().filter(torn_inside).count(),
            0,
            "no write is torn inside 512..1536"
        );
        for (at, crash) in crashes.iter().enumerate() {
            assert!(crashes[..at].iter().all(|other| other.keep != crash.keep), "{crash:?}");
        }
    }

    #[test]
    fn long_stretches_are_bounded_and_seeded() {
        let log = log((0..40).map(|at| write(at * 512, 1, 1)).collect());
        let stretch = log.stretches(0).next().unwrap();
        let keeps = |seed| -> Vec<_> {
            stretch.crashes(LIMITS, seed).into_iter().map(|crash| crash.keep).collect()
        };
        assert_eq!(keeps(1), keeps(1));
        assert_ne!(keeps(1), keeps(2));
        assert!(keeps(1).len() <= 2 + 5 * LIMITS.singled_out + LIMITS.samples);
    }

    #[test]
    fn everything_kept_is_left_to_the_next_stretch() {
        let log = log(vec![write(0, 1, 1), flush(), write(0, 2, 1)]);
        let families: Vec<Vec<_>> = log
            .stretches(0)
            .map(|stretch| stretch.crashes(LIMITS, 1).iter().map(|crash| crash.family).collect())
            .collect();
        assert_eq!(families, [vec!["none"], vec!["none", "alone"]]);
    }
}
