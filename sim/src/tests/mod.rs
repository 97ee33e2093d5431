//! The model against a second one that is slow and obviously right: it keeps the whole history,
//! and asks of every store anew whether it is durable.

mod counts;
mod search;
mod threads;

use std::collections::BTreeSet;

use super::image::Policy;
use super::thread::become_thread;
use super::{Mode, SimRegion, SplitMix64};
use daxmap::Region;

const WORDS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Store { word: usize, streamed: bool },
    Flush { word: usize },
    Drain,
}

/// The words of two lines, or of two sectors: two each.
fn offset(mode: Mode, word: usize) -> u64 {
    let line = mode.line();
    [0, line - 8, line, 2 * line - 8][word]
}

fn line_of(word: usize) -> usize {
    word / 2
}

/// What the `n`th event stores; never zero.
fn value(n: usize) -> u64 {
    n as u64 + 1
}

type History = Vec<(usize, Event)>;

fn is_durable(mode: Mode, history: &History, n: usize) -> bool {
    let (thread, Event::Store { word, streamed }) = history[n] else { return false };
    let drained_after =
        |at: usize, thread: usize| history[at + 1..].contains(&(thread, Event::Drain));
    if streamed && mode != Mode::PageCache {
        return drained_after(n, thread);
    }
    mode == Mode::Eadr
        || history.iter().enumerate().skip(n).any(|(at, (flusher, event))| {
            let flushes = match *event {
                Event::Flush { word: flushed } => line_of(flushed) == line_of(word),
                Event::Store { word: written, streamed } => {
                    streamed && mode == Mode::PageCache && line_of(written) == line_of(word)
                }
                Event::Drain => false,
            };
            flushes && drained_after(at, *flusher)
        })
}

/// Every image that the definition allows, by trying every subset of the stores.
fn allowed(mode: Mode, history: &History) -> BTreeSet<[u64; WORDS]> {
    let stores: Vec<usize> =
        (0..history.len()).filter(|&n| matches!(history[n].1, Event::Store { .. })).collect();
    let ordered = |n: usize| match history[n].1 {
        Event::Store { word, streamed } => {
            let cached = !streamed || mode == Mode::PageCache;
            (cached && mode != Mode::TornWords).then(|| line_of(word))
        }
        _ => None,
    };
    let mut images = BTreeSet::new();
    'subsets: for subset in 0..1_u32 << stores.len() {
        let has = |index: usize| subset & 1 << index != 0;
        let mut image = [0; WORDS];
        for (index, &n) in stores.iter().enumerate() {
            let skipped = |earlier: usize| {
                ordered(stores[earlier]).is_some() && ordered(stores[earlier]) == ordered(n)
            };
            if !has(index) && is_durable(mode, history, n) {
                continue 'subsets;
            }
            if has(index) && (0..index).any(|earlier| !has(earlier) && skipped(earlier)) {
                continue 'subsets;
            }
            if let (true, Event::Store { word, .. }) = (has(index), history[n].1) {
                image[word] = value(n);
            }
        }
        images.insert(image);
    }
    images
}

fn apply(region: &SimRegion, mode: Mode, history: &History) {
    for (n, &(thread, event)) in history.iter().enumerate() {
        let _simulated = become_thread(thread);
        match event {
            Event::Store { word, streamed: false } => {
                region.store_u64(offset(mode, word), value(n).to_le()).unwrap();
            }
            Event::Store { word, streamed: true } => {
                region.write_flush(offset(mode, word), &value(n).to_le_bytes()).unwrap();
            }
            Event::Flush { word } => region.flush(offset(mode, word), 8).unwrap(),
            Event::Drain => region.drain().unwrap(),
        }
    }
}

/// Every image that the simulator comes up with.
fn enumerated(region: &SimRegion, mode: Mode) -> BTreeSet<[u64; WORDS]> {
    let mut images = BTreeSet::new();
    let image = region.child();
    image.begin(region.len(), Policy::Search);
    loop {
        let words = [0, 1, 2, 3].map(|word| {
            let mut bytes = [0; 8];
            image.read(offset(mode, word), &mut bytes).unwrap();
            u64::from_le_bytes(bytes)
        });
        images.insert(words);
        if !image.advance() {
            return images;
        }
    }
}

#[test]
fn random_histories_leave_what_the_definition_allows_and_nothing_else() {
    let mut random = SplitMix64::new(11);
    for mode in Mode::ALL {
        let mut largest = 0;
        for _ in 0..4000 {
            let history: History = (0..=random.below(9))
                .map(|_| {
                    let word = random.below(WORDS as u64) as usize;
                    let event = match random.below(8) {
                        0..=2 => Event::Store { word, streamed: false },
                        3 | 4 => Event::Store { word, streamed: true },
                        5 | 6 => Event::Flush { word },
                        _ => Event::Drain,
                    };
                    (random.below(2) as usize, event)
                })
                .collect();
            let region = SimRegion::new(mode, 2 * mode.line(), 2 * mode.line());
            apply(&region, mode, &history);
            let images = enumerated(&region, mode);
            assert_eq!(images, allowed(mode, &history), "{mode:?}: {history:?}");
            largest = largest.max(images.len());
        }
        assert!(largest >= 16, "{mode:?}: the histories left too little open");
    }
}
