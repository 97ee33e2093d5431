//! Which crashes are looked at and which images of each, no more and no fewer, and what is said of
//! one that fails.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::trace::{Kind, Step};
use crate::{Explorer, Faults, History, Mode, SimRegion};
use daxmap::Region;

type Verdict = Result<(), String>;

fn word(region: &SimRegion, offset: u64) -> u64 {
    region.load_u64(offset).unwrap()
}

#[test]
fn a_crash_comes_where_it_can_leave_something_new() {
    let explore = |workload: fn(&SimRegion) -> daxmap::Result<()>| {
        let check = |region: &SimRegion, _: &History| -> Verdict {
            word(region, 0);
            Ok(())
        };
        let report = Explorer::new(Mode::Adr, 128).run(move |region, _| workload(region), check);
        let report = report.expect_clean();
        assert!(report.is_exhaustive());
        (report.crash_points, report.images)
    };
    // At the start and after the store; flushes leave nothing new.
    assert_eq!(explore(|region| region.store_u64(0, 1)), (2, 1 + 2));
    let flushed = |region: &SimRegion| {
        region.store_u64(0, 1)?;
        region.flush(0, 8)?;
        region.flush(0, 8)
    };
    assert_eq!(explore(flushed), (2, 1 + 2));
    // After a drain nothing is open.
    let drained = |region: &SimRegion| {
        region.store_u64(0, 1)?;
        region.persist(0, 8)
    };
    assert_eq!(explore(drained), (3, 1 + 2 + 1));
    // Bytes that are there already leave nothing open, whatever becomes of those beside them.
    let beside = |region: &SimRegion| {
        region.write_persist(0, &[1, 2])?;
        region.settle();
        region.write(0, &[9])?;
        region.write(1, &[2])
    };
    assert_eq!(images_at_the_end(beside), 2);
}

/// How many images there are of a crash at the end of the workload.
fn images_at_the_end(workload: fn(&SimRegion) -> daxmap::Result<()>) -> u64 {
    let at_the_end = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&at_the_end);
    let report = Explorer::new(Mode::Adr, 128).run(
        move |region, notes| {
            workload(region)?;
            notes.ack(1);
            Ok(())
        },
        move |region, history| {
            word(region, 0);
            count.fetch_add(u64::from(history.last_acked().is_some()), Ordering::Relaxed);
            Ok(())
        },
    );
    let _ = report.expect_clean();
    at_the_end.load(Ordering::Relaxed)
}

#[test]
fn nothing_is_checked_after_a_failure() {
    let progress = Arc::new(AtomicU64::new(0));
    let last = Arc::new(AtomicU64::new(0));
    let (now, seen) = (Arc::clone(&progress), Arc::clone(&last));
    let report = Explorer::new(Mode::Adr, 64).run(
        move |region, _| {
            for step in 1..=5 {
                progress.store(step, Ordering::Relaxed);
                region.store_u64(0, step)?;
            }
            Ok(())
        },
        move |region, _| {
            seen.fetch_max(now.load(Ordering::Relaxed), Ordering::Relaxed);
            if word(region, 0) == 2 { Err("two".to_owned()) } else { Ok(()) }
        },
    );
    assert_eq!(report.expect_failure().message, "two");
    assert_eq!(last.load(Ordering::Relaxed), 2);
}

thread_local! {
    /// How many checks of the thread are in progress, one inside the other.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

#[test]
fn recovery_is_not_crashed_while_a_failure_is_put_into_words() {
    let failed = Arc::new(AtomicBool::new(false));
    let inside = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let counts = Arc::clone(&inside);
    let check = move |region: &SimRegion, _: &History| -> Verdict {
        let depth = DEPTH.replace(DEPTH.get() + 1);
        if depth > 0 {
            let after = usize::from(failed.load(Ordering::Relaxed));
            counts[after].fetch_add(1, Ordering::Relaxed);
        } else {
            region.store_u64(64, 1).unwrap();
        }
        let lost = word(region, 0) == 0 && word(region, 128) == 1;
        DEPTH.set(depth);
        if depth == 0 && lost {
            failed.store(true, Ordering::Relaxed);
            return Err("lost".to_owned());
        }
        Ok(())
    };
    let report = Explorer::new(Mode::Adr, 192).run(
        |region, _| {
            region.store_u64(0, 1)?;
            region.store_u64(128, 1)
        },
        check,
    );
    assert_eq!(report.expect_failure().message, "lost");
    let [before, after] = [0, 1].map(|when| inside[when].load(Ordering::Relaxed));
    assert!(before > 0 && after == 0, "{before} {after}");
}

#[test]
fn each_image_of_a_crash_of_recovery_is_tried_once() {
    let tried = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&tried);
    let report = Explorer::new(Mode::Adr, 192).run(
        |region, _| {
            region.store_u64(0, 1)?;
            region.store_u64(64, 1)
        },
        move |region, _| {
            if DEPTH.get() > 0 {
                count.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            DEPTH.set(1);
            word(region, 0);
            region.store_u64(128, 1).unwrap();
            word(region, 64);
            region.store_u64(128, 2).unwrap();
            DEPTH.set(0);
            Ok(())
        },
    );
    assert!(report.expect_clean().is_exhaustive());
    // Of the crashes at the start (nothing open), after the first store (its line), and after the
    // second (both): each lets recovery run 1, 2 and 4 times. Its first store follows the first
    // line and its second store both, so that it is crashed anew there when what came before
    // differs: 1 + 2 + 2 times after the first, 1 + 2 + 4 after the second. None looks at anything.
    assert_eq!(tried.load(Ordering::Relaxed), (1 + 2 + 2) + (1 + 2 + 4));
}

#[test]
fn what_recovery_stored_in_one_image_is_not_there_in_another() {
    let report = Explorer::new(Mode::Adr, 128).run(
        |region, _| region.store_u64(0, 1),
        |region, _| {
            let (found, note) = (word(region, 0), word(region, 64));
            if note == 0 {
                region.store_u64(64, found + 10).unwrap();
                Ok(())
            } else if note == found + 10 {
                Ok(())
            } else {
                Err(format!("{note} of a recovery that found {found}"))
            }
        },
    );
    assert!(report.expect_clean().is_exhaustive());
}

#[test]
fn a_line_that_the_first_crash_left_open_is_told_of_the_first_crash() {
    let report = Explorer::new(Mode::Adr, 192).run(
        |region, notes| {
            region.store_u64(0, 1)?;
            region.store_u64(64, 1)?;
            notes.ack(1);
            Ok(())
        },
        |region, history| {
            if word(region, 128) == 0 {
                region.store_u64(128, 1).unwrap();
                region.persist(128, 8).unwrap();
                Ok(())
            } else if history.last_acked().is_some() && word(region, 64) == 0 {
                Err("the second recovery misses the second line".to_owned())
            } else {
                Ok(())
            }
        },
    );
    let failure = report.expect_failure();
    let lost = failure.crashes.iter().map(|crash| crash.lost.concat().contains("line at 0x40"));
    assert_eq!(lost.collect::<Vec<_>>(), [true, false], "{failure}");
}

#[test]
fn a_growth_is_told_with_both_lengths() {
    let report = Explorer::new(Mode::Adr, 64).max_len(256).run(
        |region, _| region.grow(256),
        |region, _| if region.len() == 256 { Err("long".to_owned()) } else { Ok(()) },
    );
    let failure = report.expect_failure();
    assert_eq!(failure.crashes[0].operations, ["  1. grow from 0x40 to 0x100"]);
}

#[test]
fn the_drain_that_fails_is_one_of_the_workload() {
    let explorer = Explorer::new(Mode::Adr, 64)
        .faults(Faults { failing_drain: Some(1), ..Faults::default() })
        .setup(|region| region.write_persist(0, &[1]));
    let failed = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&failed);
    let report = explorer.run(
        move |region, _| {
            count.fetch_add(u64::from(region.write_persist(0, &[2]).is_err()), Ordering::Relaxed);
            Ok(())
        },
        |_, _| Ok(()),
    );
    let _ = report.expect_clean();
    assert_eq!(failed.load(Ordering::Relaxed), 1);
}

/// What a crash at the end may leave of two words in two lines, once a drain has failed.
fn after_a_failed_drain(workload: fn(&SimRegion) -> daxmap::Result<()>) -> BTreeSet<(u64, u64)> {
    let faults = Faults { failing_drain: Some(1), forgets_errors: true, ..Faults::default() };
    let region = SimRegion::with_faults(Mode::Adr, 128, 128, faults);
    workload(&region).unwrap();
    let crashed = |seed| {
        let image = region.crash(seed);
        (word(&image, 0), word(&image, 64))
    };
    (0..200).map(crashed).collect()
}

#[test]
fn what_a_failed_drain_lost_no_later_one_covers() {
    let all = BTreeSet::from([(0, 0), (0, 1), (1, 0), (1, 1)]);
    // Two lines, and each of them.
    let stored = after_a_failed_drain(|region| {
        region.store_u64(0, 1)?;
        region.store_u64(64, 1)?;
        region.persist(0, 128).unwrap_err();
        region.persist(0, 128)
    });
    assert_eq!(stored, all);
    // Past the cache.
    let streamed = after_a_failed_drain(|region| {
        region.write_flush(0, &1_u64.to_ne_bytes())?;
        region.write_flush(64, &1_u64.to_ne_bytes())?;
        region.drain().unwrap_err();
        region.persist(0, 128)
    });
    assert_eq!(streamed, all);
    // Stored again, it is dirty again.
    let again = after_a_failed_drain(|region| {
        region.store_u64(0, 1)?;
        region.store_u64(64, 1)?;
        region.persist(0, 128).unwrap_err();
        region.store_u64(64, 1)?;
        region.persist(0, 128)
    });
    assert_eq!(again, BTreeSet::from([(0, 1), (1, 1)]));
}

#[test]
fn a_crash_leaves_either_length_of_a_growth_whatever_seeds_are_asked_for() {
    let faults = Faults { lazy_growth: true, ..Faults::default() };
    let region = SimRegion::with_faults(Mode::PageCache, 512, 1024, faults);
    region.grow(1024).unwrap();
    for seeds in [0..8, 100..108] {
        let lengths: BTreeSet<u64> = seeds.map(|seed| region.crash(seed).len()).collect();
        assert_eq!(lengths, BTreeSet::from([512, 1024]));
    }
}

#[test]
fn a_step_touches_the_lines_of_its_range() {
    let step = |offset, len| Step { thread: 0, kind: Kind::Flush, failed: false, offset, len };
    for (offset, len, lines) in [
        (64, 64, &[1][..]),
        (64, 65, &[1, 2]),
        (63, 2, &[0, 1]),
        (127, 1, &[1]),
        (70, 0, &[]),
        (130, 300, &[2, 3, 4, 5, 6]),
    ] {
        let touched: Vec<u32> =
            (0..10).filter(|&line| step(offset, len).touches(line, 6)).collect();
        assert_eq!(touched, lines, "{len} at {offset}");
    }
}
