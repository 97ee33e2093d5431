//! Aligned words are whole and ordered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use daxmap::Region;

use super::Verdict;
use super::subject::Access;
use super::support::{Bench, PAGE, contents, pattern, same};

/// How long threads race; long enough that a torn word shows where words can be torn.
const RACE: Duration = Duration::from_millis(120);
/// The same where a word is torn only when a kernel's copy is caught between two of its pieces.
const LONG_RACE: Duration = Duration::from_millis(400);

/// Runs `work` in a thread until `check` has raced it for so long. Both must have had turns.
fn race(duration: Duration, work: impl Fn(u64) + Sync, mut check: impl FnMut()) {
    let (stop, turns) = (AtomicBool::new(false), std::sync::atomic::AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                work(turn);
                turn += 1;
                turns.store(turn, Ordering::Relaxed);
            }
        });
        // Stops the other thread also when `check` panics.
        let _stop = StopOnDrop(&stop);
        let start = Instant::now();
        while start.elapsed() < duration || turns.load(Ordering::Relaxed) < 100 {
            check();
        }
    });
}

/// Raises the flag when the scope is left, in whatever way.
pub(super) struct StopOnDrop<'a>(pub(super) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(super) fn exchange(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(2 * PAGE);
    let mut model = pattern(region.len(), 11);
    region.write(0, &model).expect("the region can be written");
    for offset in [0, 8, 64, PAGE - 8, PAGE] {
        let word = region.load_u64(offset).expect("a word can be loaded");
        let exchange = |current, new| {
            region.compare_exchange_u64(offset, current, new).expect("a word can be exchanged")
        };
        assert_eq!(exchange(!word, 1), Err(word), "not what was expected: nothing changes");
        assert_eq!(exchange(word ^ 1 << 63, 1), Err(word), "one bit off is not equal");
        same(&contents(&*region), &model, "after exchanges that must fail");
        assert_eq!(exchange(word, 0x1122_3344_5566_7788), Ok(word));
        assert_eq!(exchange(word, 1), Err(0x1122_3344_5566_7788));
        assert_eq!(exchange(0x1122_3344_5566_7788, !0), Ok(0x1122_3344_5566_7788));
        model[offset as usize..][..8].fill(0xFF);
        same(&contents(&*region), &model, "after exchanges");
    }
    Verdict::Passed
}

pub(super) fn exchange_counts(bench: &Bench<'_>) -> Verdict {
    const THREADS: usize = 4;
    let region = bench.create(PAGE);
    let increment = || {
        let mut found = region.load_u64(64).expect("a word can be loaded");
        loop {
            match region.compare_exchange_u64(64, found, found + 1).expect("no error") {
                Ok(_) => return,
                Err(other) => found = other,
            }
        }
    };
    let together = std::sync::Barrier::new(THREADS);
    let increments: u64 = thread::scope(|scope| {
        let count = || {
            together.wait();
            let (start, mut done) = (Instant::now(), 0);
            while start.elapsed() < RACE || done < 500 {
                increment();
                done += 1;
            }
            done
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(count)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).sum()
    });
    assert_eq!(region.load_u64(64).expect("a word can be loaded"), increments);
    assert_eq!(region.load_u64(56).expect("a word can be loaded"), 0, "the word before");
    assert_eq!(region.load_u64(72).expect("a word can be loaded"), 0, "the word after");
    Verdict::Passed
}

/// A word whose bytes are all equal shows any mixture.
#[track_caller]
fn assert_whole(word: u64, what: &str) {
    let bytes = word.to_ne_bytes();
    assert!(bytes.iter().all(|&byte| byte == bytes[0]), "{what}: torn word {word:#018x}");
}

fn equal_bytes(turn: u64) -> u64 {
    u64::from_ne_bytes([(turn % 251) as u8; 8])
}

pub(super) fn stored_words_whole(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(2 * PAGE);
    race(
        RACE,
        |turn| {
            region.store_u64(PAGE - 8, equal_bytes(turn)).expect("a word can be stored");
            region
                .compare_exchange_u64(PAGE, equal_bytes(turn), equal_bytes(turn + 1))
                .expect("a word can be exchanged")
                .expect("one thread exchanges");
        },
        || {
            let word = region.load_u64(PAGE - 8).expect("a word can be loaded");
            assert_whole(word, "load against store");
            assert_whole(region.load_u64(PAGE).expect("loaded"), "load against exchange");
            if bench.stores_into_mapping() && !bench.copies_itself() {
                return;
            }
            let mut both = [0; 16];
            region.read(PAGE - 8, &mut both).expect("words can be read");
            for word in both.chunks_exact(8) {
                let word = u64::from_ne_bytes(word.try_into().expect("eight bytes"));
                assert_whole(word, "read against store");
            }
        },
    );
    Verdict::Passed
}

/// Sizes on both sides of every change of method; all multiples of a word.
const SIZES: [u64; 8] = [8, 16, 56, 64, 200, 520, 1024, 4160];

/// Bytes that every odd write covers; the words at its edges it covers in part.
const ODD: std::ops::Range<u64> = 4 * PAGE + 8..5 * PAGE + 800;

/// Every other turn with words that the range covers whole, every other at an odd offset and from
/// an odd address.
fn write_words(region: &dyn Region, turn: u64) {
    if turn % 2 == 1 {
        let (before, after) = (1 + turn / 2 % 7, 1 + turn / 14 % 7);
        let len = before + ODD.end - ODD.start + after;
        let data = vec![(turn % 251) as u8; len as usize + 1];
        region.write(ODD.start - before, &data[1..]).expect("a write inside works");
        return;
    }
    let turn = turn / 2;
    let size = SIZES[turn as usize % SIZES.len()];
    let offset = 4096 - 64 + (turn / 8 % 16) * 8;
    let data = vec![(turn % 251) as u8; size as usize];
    match turn % 3 {
        0 => region.write(offset, &data),
        1 => region.write_flush(offset, &data),
        _ => region.fill_flush(offset, size, data[0]),
    }
    .expect("a write inside works");
}

/// Reads at odd offsets and lengths; aligned words that lie whole in the range must be whole.
fn check_words(region: &dyn Region, turn: u64) {
    const SIZES: [usize; 6] = [8, 23, 64, 301, 1031, 4500];
    let mut buffer = vec![0; SIZES[turn as usize % SIZES.len()]];
    let start = if turn.is_multiple_of(2) { PAGE - 64 } else { ODD.start + 64 };
    let offset = start - turn % 9;
    if turn % 2 == 1 {
        buffer.truncate((ODD.end - offset) as usize);
    }
    region.read(offset, &mut buffer).expect("a read inside works");
    let head = (8 - offset % 8) % 8;
    for word in buffer[head as usize..].chunks_exact(8) {
        let word = u64::from_ne_bytes(word.try_into().expect("eight bytes"));
        assert_whole(word, "read against write");
    }
}

pub(super) fn written_words_whole(bench: &Bench<'_>) -> Verdict {
    // The page-cache backend keeps its own readers and writers apart.
    if bench.stores_into_mapping() && !bench.copies_itself() {
        return Verdict::NotApplicable("the kernel copies, and may be interrupted within a word");
    }
    let region = bench.create(6 * PAGE);
    let mut turn = 0;
    race(
        LONG_RACE,
        |turn| write_words(&*region, turn),
        || {
            turn += 1;
            check_words(&*region, turn);
            assert_whole(region.load_u64(4096).expect("loaded"), "load against write");
        },
    );
    Verdict::Passed
}

pub(super) fn words_whole_across_regions(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(6 * PAGE);
    let reader = bench.open(Access::ReadOnly);
    let mut turn = 0;
    race(
        LONG_RACE,
        |turn| {
            region.store_u64(0, equal_bytes(turn)).expect("a word can be stored");
            if bench.copies_itself() {
                write_words(&*region, turn);
            }
        },
        || {
            turn += 1;
            if bench.copies_itself() {
                check_words(&*reader, turn);
            }
            assert_whole(reader.load_u64(0).expect("loaded"), "load against store");
        },
    );
    Verdict::Passed
}

/// Data first, then the word that announces it: whoever acquires the word sees the data.
pub(super) fn publishes(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(2 * PAGE);
    race(
        RACE,
        |turn| {
            region.write(PAGE + 8 * (turn % 128), &turn.to_ne_bytes()).expect("written");
            region.store_u64(64, turn).expect("a word can be stored");
        },
        || {
            let announced = region.load_u64(64).expect("a word can be loaded");
            let mut found = [0; 8];
            region.read(PAGE + 8 * (announced % 128), &mut found).expect("read");
            let found = u64::from_ne_bytes(found);
            // A later lap may have overwritten it already.
            let lap = found >= announced && (found - announced).is_multiple_of(128);
            assert!(lap, "announced {announced}, found {found}");
        },
    );
    Verdict::Passed
}
