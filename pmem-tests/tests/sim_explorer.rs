//! What the explorer promises: which crashes, which images, in which order, and how it tells.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use daxmap::sim::{Body, Explorer, Faults, History, Mode, Notes, Report, SimRegion};
use daxmap::{Region, Result};

type Workload = fn(&SimRegion, &Notes) -> Result<()>;
type Verdict = std::result::Result<(), String>;

/// A word in a line of its own.
fn at(line: u64) -> u64 {
    line * 64
}

fn store_lines(region: &SimRegion, lines: u64) -> Result<()> {
    (0..lines).try_for_each(|line| region.store_u64(at(line), line + 1))
}

/// The lines that an image kept, as bits.
fn kept(region: &SimRegion, lines: u64) -> u64 {
    (0..lines).map(|line| u64::from(region.load_u64(at(line)).unwrap() != 0) << line).sum()
}

/// Explores and returns every distinct image with the report.
fn images(explorer: &Explorer, lines: u64, read: u64) -> (Report, BTreeSet<u64>) {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let into = Arc::clone(&seen);
    let report = explorer.run(
        move |region, _| store_lines(region, lines),
        move |region, history| {
            let kept = kept(region, read);
            history.recovered(&kept);
            into.lock().unwrap().insert(kept);
            Ok(())
        },
    );
    let seen = seen.lock().unwrap().clone();
    (report, seen)
}

#[test]
fn every_image_is_tried_once_at_each_crash() {
    let (report, seen) = images(&Explorer::new(Mode::Adr, 1024), 5, 5);
    assert_eq!(seen.len(), 32);
    // At the start one image, after the nth store 2^n.
    assert_eq!((report.images, report.crash_points), (1 + 2 + 4 + 8 + 16 + 32, 6));
    assert_eq!(report.states, 32);
    assert!(report.is_exhaustive());
}

#[test]
fn a_crash_comes_after_every_kind_of_store() {
    let kinds: [fn(&SimRegion, u64) -> Result<()>; 6] = [
        |region, at| region.store_u64(at, 1),
        |region, at| region.write(at, &1_u64.to_ne_bytes()),
        |region, at| region.write_flush(at, &1_u64.to_ne_bytes()),
        |region, at| region.fill_flush(at, 8, 1),
        |region, at| region.compare_exchange_u64(at, 0, 1).map(drop),
        |region, at| region.fill_flush(at, 8, 2).and_then(|()| region.flush(at, 8)),
    ];
    for store in kinds {
        let report = Explorer::new(Mode::Adr, 1024).run(
            move |region, _| (0..3).try_for_each(|line| store(region, at(line))),
            |region, _| {
                kept(region, 3);
                Ok(())
            },
        );
        assert_eq!((report.images, report.crash_points), (1 + 2 + 4 + 8, 4));
    }
}

#[test]
fn lines_that_recovery_does_not_read_are_not_enumerated() {
    let (report, seen) = images(&Explorer::new(Mode::Adr, 8192), 100, 2);
    assert_eq!(seen.len(), 4);
    assert_eq!(report.images, 1 + 2 + 99 * 4);
    assert!(report.is_exhaustive());
    // Only where the first line says so is the second one looked at.
    let report = Explorer::new(Mode::Adr, 1024).run(
        |region, _| store_lines(region, 2),
        |region, _| {
            if region.load_u64(at(0)).unwrap() != 0 {
                region.load_u64(at(1)).unwrap();
            }
            Ok(())
        },
    );
    assert_eq!(report.images, 1 + 2 + 3);
}

#[test]
fn a_store_that_changes_nothing_is_no_choice() {
    let report = Explorer::new(Mode::Adr, 1024).run(
        |region, _| region.write(0, &[0; 256]),
        |region, _| region.read(0, &mut [0; 256]).map_err(|error| error.to_string()),
    );
    assert_eq!((report.images, report.crash_points), (2, 2));
    // A zero over something else is one, and so is the way back to it.
    let report = Explorer::new(Mode::Adr, 1024).run(
        |region, _| [1, 0].into_iter().try_for_each(|value| region.store_u64(0, value)),
        |region, _| region.load_u64(0).map(|_| ()).map_err(|error| error.to_string()),
    );
    assert_eq!(report.images, 1 + 2 + 3);
}

#[test]
fn too_many_images_are_covered_by_chosen_and_sampled_ones() {
    const LINES: u64 = 40;
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let into = Arc::clone(&seen);
    let report = Explorer::new(Mode::Adr, 4096).images(100).samples(64).run(
        |region, notes| {
            store_lines(region, LINES)?;
            notes.ack(1);
            Ok(())
        },
        move |region, history| {
            // Of the last crash only: those before it leave prefixes anyway.
            if !history.acked().is_empty() {
                into.lock().unwrap().insert(kept(region, LINES));
            }
            Ok(())
        },
    );
    let seen = seen.lock().unwrap().clone();
    assert!(!report.is_exhaustive() && report.failure.is_none());
    let all = (1 << LINES) - 1;
    let mut expected = vec![0, all];
    expected.extend((0..LINES).flat_map(|line| [1 << line, all & !(1 << line)]));
    expected.extend((1..LINES).map(|line| (1 << line) - 1));
    for image in expected {
        assert!(seen.contains(&image), "{image:#x} was not tried");
    }
    // And others: half of the lines, about, and not the same ones.
    let sampled = seen.iter().filter(|image| (10..30).contains(&image.count_ones())).count();
    assert!(sampled >= 60, "{sampled}");
}

#[test]
fn equal_settings_give_equal_reports() {
    let explore = |seed| {
        let explorer = Explorer::new(Mode::Adr, 4096).images(50).samples(40).seed(seed);
        let (report, seen) = images(&explorer, 40, 40);
        (format!("{report:?}"), seen)
    };
    assert_eq!(explore(7), explore(7));
    assert_ne!(explore(7).1, explore(8).1);
    let fail = |seed| {
        let explorer = Explorer::new(Mode::Adr, 4096).images(10).samples(200).seed(seed);
        let report = explorer.run(
            |region, _| store_lines(region, 30),
            |region, _| {
                let kept = kept(region, 30).count_ones();
                if (8..=12).contains(&kept) { Err(format!("{kept} lines")) } else { Ok(()) }
            },
        );
        report.expect_failure().to_string()
    };
    assert_eq!(fail(3), fail(3));
    assert!(fail(3).contains("seed 3"));
}

#[test]
fn the_budget_ends_an_exploration_and_is_told() {
    let (report, _) = images(&Explorer::new(Mode::Adr, 1024).budget(20), 8, 8);
    assert_eq!(report.images, 20);
    assert!(report.out_of_budget && !report.is_exhaustive() && report.failure.is_none());
}

/// Recovery counts itself, in two words: a crash between them is seen by the next recovery.
fn counting_recovery(region: &SimRegion, _: &History) -> Verdict {
    let (one, other) = (region.load_u64(at(0)).unwrap(), region.load_u64(at(1)).unwrap());
    if one != other {
        return Err(format!("recovery was interrupted between {one} and {other}"));
    }
    if one < 3 {
        for line in [0, 1] {
            region.store_u64(at(line), one + 1).unwrap();
            region.persist(at(line), 8).unwrap();
        }
    }
    Ok(())
}

#[test]
fn crashes_of_recovery_are_explored_and_their_depth_is_kept() {
    let explore =
        |depth| Explorer::new(Mode::Adr, 1024).depth(depth).run(|_, _| Ok(()), counting_recovery);
    assert!(explore(1).failure.is_none());
    let failure = explore(2).expect_failure();
    assert_eq!(failure.crashes.len(), 2);
    assert!(failure.to_string().contains("crash during recovery after operation"), "{failure}");
    // A bug that takes three crashes is found at depth three only.
    let third = |region: &SimRegion, _: &History| -> Verdict {
        let count = region.load_u64(0).unwrap();
        if count == 2 {
            return Err("the third recovery fails".to_owned());
        }
        region.store_u64(0, count + 1).unwrap();
        region.persist(0, 8).unwrap();
        Ok(())
    };
    let explore = |depth| Explorer::new(Mode::Adr, 1024).depth(depth).run(|_, _| Ok(()), third);
    assert!(explore(2).failure.is_none());
    assert_eq!(explore(3).expect_failure().crashes.len(), 3);
}

#[test]
fn what_the_first_recovery_did_not_look_at_stays_open_for_the_second() {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let into = Arc::clone(&seen);
    let report = Explorer::new(Mode::Adr, 1024).run(
        |region, _| {
            region.store_u64(at(1), 7)?;
            region.store_u64(at(1), 8)
        },
        move |region, _| {
            let again = region.load_u64(at(0)).unwrap() == 1;
            if !again {
                region.store_u64(at(0), 1).unwrap();
                region.persist(at(0), 8).unwrap();
            }
            into.lock().unwrap().insert((again, region.load_u64(at(1)).unwrap()));
            Ok(())
        },
    );
    assert!(report.expect_clean().is_exhaustive());
    let all: BTreeSet<_> = [0, 7, 8].into_iter().flat_map(|v| [(false, v), (true, v)]).collect();
    assert_eq!(*seen.lock().unwrap(), all);
}

#[test]
fn what_no_recovery_looked_at_stays_as_the_first_crash_left_it_open() {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let into = Arc::clone(&seen);
    let report = Explorer::new(Mode::Adr, 1024).run(
        |region, _| region.store_u64(at(1), 7).and_then(|()| region.store_u64(at(1), 8)),
        move |region, _| {
            if region.load_u64(at(0)).unwrap() == 1 {
                into.lock().unwrap().insert(region.load_u64(at(1)).unwrap());
                return Ok(());
            }
            region.store_u64(at(0), 1).unwrap();
            region.persist(at(0), 8).unwrap();
            Ok(())
        },
    );
    assert!(report.expect_clean().is_exhaustive());
    assert_eq!(*seen.lock().unwrap(), BTreeSet::from([0, 7, 8]));
}

#[test]
fn every_image_has_its_recovery_crashed_not_only_the_first() {
    // Only the image that kept the last store makes recovery do something worth crashing.
    for wanted in [1, 2, 3] {
        let report = Explorer::new(Mode::Adr, 1024).run(
            |region, _| [1, 2, 3].into_iter().try_for_each(|value| region.store_u64(at(0), value)),
            move |region, _| {
                if region.load_u64(at(0)).unwrap() != wanted {
                    return Ok(());
                }
                let (one, other) =
                    (region.load_u64(at(1)).unwrap(), region.load_u64(at(2)).unwrap());
                if one != other {
                    return Err("a crash between two stores of recovery".to_owned());
                }
                for line in [1, 2] {
                    region.store_u64(at(line), 1).unwrap();
                    region.persist(at(line), 8).unwrap();
                }
                Ok(())
            },
        );
        assert_eq!(report.expect_failure().crashes.len(), 2, "{wanted}");
    }
}

#[test]
fn a_recovery_that_saw_a_line_is_followed_by_one_that_sees_the_same() {
    // What a crash left is there for good: the next crash does not change it.
    let report = Explorer::new(Mode::Adr, 1024).run(
        |region, _| store_lines(region, 3),
        |region, _| {
            let kept = kept(region, 3) + 1;
            let noted = region.load_u64(at(8)).unwrap();
            if noted != 0 && noted != kept {
                return Err(format!("images {noted} and {kept} in one crash"));
            }
            region.store_u64(at(8), kept).unwrap();
            region.persist(at(8), 8).unwrap();
            Ok(())
        },
    );
    let _ = report.expect_clean();
}

#[test]
fn what_recovery_stores_does_not_leak_into_the_next_image() {
    let report = Explorer::new(Mode::Adr, 1024).run(
        |region, _| store_lines(region, 4),
        |region, _| {
            // Over a line that was open, one that was not, and one never written.
            for line in [1, 2, 9] {
                if region.load_u64(at(line) + 8).unwrap() != 0 {
                    return Err("another recovery was here, and was not crashed".to_owned());
                }
            }
            let kept = kept(region, 4);
            for line in [1, 2, 9] {
                region.store_u64(at(line) + 8, kept + 1).unwrap();
            }
            Ok(())
        },
    );
    // Crashes inside recovery do leave such words: only the first depth must not.
    assert_eq!(report.failure.map(|failure| failure.crashes.len()), Some(2));
    let report = Explorer::new(Mode::Adr, 1024).depth(1).run(
        |region, _| store_lines(region, 4),
        |region, _| {
            for line in [1, 2, 9] {
                if region.load_u64(at(line) + 8).unwrap() != 0 {
                    return Err("another recovery was here".to_owned());
                }
            }
            for line in [1, 2, 9] {
                region.store_u64(at(line) + 8, 1).unwrap();
                region.persist(at(line) + 8, 8).unwrap();
            }
            region.grow(2048).unwrap_err();
            region.close().unwrap();
            Ok(())
        },
    );
    let _ = report.expect_clean();
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Set(u64),
    Careless(u64),
    Flush,
}

fn apply(region: &SimRegion, notes: &Notes, ops: &[Op]) -> Result<()> {
    for op in ops {
        match *op {
            Op::Set(line) => {
                region.store_u64(at(line), 1)?;
                region.persist(at(line), 8)?;
                notes.ack(line);
            }
            Op::Careless(line) => {
                region.store_u64(at(line), 1)?;
                region.drain()?;
                notes.ack(line);
            }
            Op::Flush => region.flush(0, region.len())?,
        }
    }
    Ok(())
}

fn all_acked(region: &SimRegion, history: &History) -> Verdict {
    match history.acked().iter().find(|&&line| region.load_u64(at(line)).unwrap() != 1) {
        Some(line) => Err(format!("line {line} is lost")),
        None => Ok(()),
    }
}

#[test]
fn a_failure_shrinks_to_the_operations_that_it_takes() {
    let mut ops: Vec<Op> = (0..10).map(Op::Set).collect();
    ops.insert(6, Op::Careless(11));
    ops.insert(4, Op::Flush);
    let failure = Explorer::new(Mode::Adr, 1024).run_ops(&ops, apply, all_acked).expect_failure();
    assert_eq!(failure.operations, ["Careless(11)"]);
    let text = failure.to_string();
    assert!(text.contains("smallest workload found: Careless(11)"), "{text}");
    assert!(text.contains("lost: line at 0x2c0, written at op 1 (store_u64 0x2c0), never flushed"));
    ops.remove(7);
    assert!(Explorer::new(Mode::Adr, 1024).run_ops(&ops, apply, all_acked).failure.is_none());
}

#[test]
fn a_failing_image_is_told_with_as_little_lost_as_it_takes() {
    // Fails if line 3 is lost and line 5 is kept; the others do not matter.
    let failure = Explorer::new(Mode::Adr, 1024)
        .run(
            |region, _| store_lines(region, 8),
            |region, _| {
                let kept = kept(region, 8);
                if kept & 0b10_1000 == 0b10_0000 { Err("5 without 3".to_owned()) } else { Ok(()) }
            },
        )
        .expect_failure();
    let crash = &failure.crashes[0];
    assert_eq!(crash.lost.len(), 1, "{failure}");
    assert!(crash.lost[0].contains("line at 0xc0, written at op 4"), "{failure}");
    assert!(crash.kept.iter().any(|line| line.contains("line at 0x140")), "{failure}");
}

#[test]
fn errors_and_panics_are_findings() {
    let run = |workload: fn(&SimRegion, &Notes) -> Result<()>,
               check: fn(&SimRegion, &History) -> Verdict| {
        Explorer::new(Mode::Adr, 1024).run(workload, check).expect_failure().message
    };
    let past_end = run(|region, _| region.store_u64(4096, 1), |_, _| Ok(()));
    assert!(past_end.contains("the workload failed: store") && past_end.contains("past the end"));
    assert!(run(|_, _| panic!("of mine"), |_, _| Ok(())).contains("panicked: of mine"));
    assert!(run(|_, _| Ok(()), |_, _| panic!("in check")).contains("in check"));
    let setup = Explorer::new(Mode::Adr, 1024).setup(|region| region.store_u64(3, 1));
    let message = setup.run(|_, _| Ok(()), |_, _| Ok(())).expect_failure().message;
    assert!(message.contains("setup"), "{message}");
}

#[test]
fn what_the_setup_stored_is_durable_and_not_crashed() {
    let report = Explorer::new(Mode::Adr, 1024)
        .setup(|region| store_lines(region, 4))
        .run(
            |region, _| region.store_u64(at(0), 9),
            |region, _| {
                let kept = kept(region, 4);
                if kept == 15 { Ok(()) } else { Err(format!("{kept:#b}")) }
            },
        )
        .expect_clean();
    assert_eq!((report.crash_points, report.images), (2, 3));
}

#[test]
fn a_note_is_checked_against_what_could_be_seen_before_it() {
    // Crash before `begin`: nothing begun may be seen. Crash after `ack`: it must be.
    let counts = Arc::new([const { AtomicU64::new(0) }; 3]);
    let into = Arc::clone(&counts);
    let report = Explorer::new(Mode::Adr, 1024).run(
        |region, notes| {
            notes.begin(1);
            region.store_u64(0, 1)?;
            region.persist(0, 8)?;
            notes.ack(1);
            Ok(())
        },
        move |region, history| {
            let value = region.load_u64(0).unwrap();
            let phase = history.begun().len() + history.acked().len();
            into[phase].fetch_add(1, Ordering::Relaxed);
            match (history.last_begun(), history.last_acked(), value) {
                (None, None, 0) | (Some(1), None, 0 | 1) | (Some(1), Some(1), 1) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        },
    );
    let _ = report.expect_clean();
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) > 0), "{counts:?}");
}

#[test]
fn every_history_meets_a_crash_notes_in_a_row_too() {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let into = Arc::clone(&seen);
    let report = Explorer::new(Mode::Adr, 1024).run(
        |_, notes| {
            notes.begin(1);
            notes.begin(2);
            notes.ack(1);
            notes.ack(2);
            Ok(())
        },
        move |_, history| {
            into.lock().unwrap().insert((history.begun().to_vec(), history.acked().to_vec()));
            Ok(())
        },
    );
    assert_eq!(report.expect_clean().crash_points, 5);
    let expected = [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2)];
    let marks = |count: usize| [1, 2][..count].to_vec();
    let expected = expected.map(|(begun, acked)| (marks(begun), marks(acked)));
    assert_eq!(*seen.lock().unwrap(), BTreeSet::from(expected));
}

#[test]
fn a_crash_comes_before_the_flush_and_the_drain_that_would_have_made_it_good() {
    // In each, the acknowledgement comes one call too early, and nothing comes after that call.
    let early: [(u32, Workload); 3] = [
        (1, |region, notes| {
            region.store_u64(0, 1)?;
            notes.ack(1);
            region.flush(0, 8)?;
            region.drain()
        }),
        (2, |region, notes| {
            region.store_u64(0, 1)?;
            region.flush(0, 8)?;
            notes.ack(1);
            region.drain()
        }),
        (2, |region, notes| {
            region.store_u64(0, 1)?;
            region.flush(0, 8)?;
            notes.ack(1);
            region.close()
        }),
    ];
    for (after_op, workload) in early {
        let report = Explorer::new(Mode::Adr, 1024).run(workload, |region, history| {
            let value = region.load_u64(0).unwrap();
            if value < history.acked().len() as u64 { Err("lost".to_owned()) } else { Ok(()) }
        });
        assert_eq!(report.expect_failure().crashes[0].after_op, after_op);
    }
}

#[test]
fn each_drain_is_made_to_fail_once() {
    let errors = Arc::new(AtomicU64::new(0));
    let into = Arc::clone(&errors);
    let report = Explorer::new(Mode::PageCache, 4096).fail_drains(true).run(
        move |region, notes| {
            for line in 1..=3 {
                region.store_u64(line * 512, line)?;
                let persisted = region.persist(line * 512, 8);
                if let Err(error) = &persisted {
                    assert!(error.is_durability_unknown());
                    into.fetch_add(1, Ordering::Relaxed);
                    // The first error is final.
                    assert!(region.store_u64(0, 1).unwrap_err().is_poisoned());
                    assert!(region.flush(0, 8).unwrap_err().is_poisoned());
                    assert!(region.drain().unwrap_err().is_poisoned());
                    assert!(region.grow(1 << 20).unwrap_err().is_poisoned());
                    region.load_u64(0).unwrap();
                }
                persisted?;
                notes.ack(line);
            }
            Ok(())
        },
        |region, history| {
            let lost = history.acked().iter().any(|&l| region.load_u64(l * 512).unwrap() != l);
            if lost { Err("acknowledged and lost".to_owned()) } else { Ok(()) }
        },
    );
    assert_eq!(report.expect_clean().runs, 4);
    assert_eq!(errors.load(Ordering::Relaxed), 3);
}

#[test]
fn a_drain_that_failed_is_crashed_right_after() {
    let report = Explorer::new(Mode::PageCache, 512).fail_drains(true).run(
        |region, notes| {
            region.store_u64(0, 1)?;
            let _ = region.persist(0, 8);
            notes.ack(1);
            Ok(())
        },
        |region, history| {
            let value = region.load_u64(0).unwrap();
            if value < history.acked().len() as u64 { Err("lost".to_owned()) } else { Ok(()) }
        },
    );
    let failure = report.expect_failure();
    assert_eq!(failure.failed_drain, Some(1));
    assert!(failure.to_string().contains("the drain at op 3 failed"), "{failure}");
}

#[test]
fn a_crash_in_a_growth_leaves_either_length_and_zeros() {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let into = Arc::clone(&seen);
    let grown = |region: &SimRegion, _: &Notes| {
        region.grow(1001)?;
        region.write(995, &[7; 6])?;
        region.grow(3000)
    };
    let faults = Faults { lazy_growth: true, ..Faults::default() };
    let check = move |region: &SimRegion, _: &History| {
        let len = region.len();
        into.lock().unwrap().insert(len);
        // Whoever grows finds zeros: what a crash cut off is gone for good.
        region.grow(4096).unwrap();
        let mut rest = vec![1; 4096 - len as usize];
        region.read(len, &mut rest).unwrap();
        if rest.iter().any(|&byte| byte != 0) {
            return Err(format!("bytes behind the end at {len}"));
        }
        Ok(())
    };
    let report =
        Explorer::new(Mode::Adr, 998).max_len(4096).depth(1).faults(faults).run(grown, check);
    let _ = report.expect_clean();
    assert_eq!(*seen.lock().unwrap(), BTreeSet::from([998, 1001, 3000]));
}

#[test]
fn after_a_growth_has_returned_only_the_new_length_is_left() {
    let report = Explorer::new(Mode::PageCache, 512).max_len(4096).run(
        |region, notes| {
            notes.begin(1024);
            region.grow(1024)?;
            notes.ack(1024);
            region.store_u64(1016, 5)
        },
        |region, history| {
            let len = region.len();
            let least = history.last_acked().unwrap_or(512);
            let most = history.last_begun().unwrap_or(512);
            if (least..=most).contains(&len) { Ok(()) } else { Err(format!("{len} bytes")) }
        },
    );
    let _ = report.expect_clean();
}

#[test]
fn a_drain_makes_a_late_growth_durable() {
    let faults = Faults { lazy_growth: true, ..Faults::default() };
    let report = Explorer::new(Mode::Adr, 512).max_len(4096).faults(faults).run(
        |region, notes| {
            region.grow(1024)?;
            region.drain()?;
            notes.ack(1024);
            region.store_u64(0, 1)
        },
        |region, history| {
            let (len, acked) = (region.len(), history.last_acked().unwrap_or(0));
            if len < acked { Err(format!("{len} bytes of {acked}")) } else { Ok(()) }
        },
    );
    let _ = report.expect_clean();
}

#[test]
fn what_a_crash_cut_off_does_not_come_back_when_recovery_grows() {
    for mode in Mode::ALL {
        cut_off_and_grown(mode);
    }
}

fn cut_off_and_grown(mode: Mode) {
    let seen = Arc::new(AtomicU64::new(0));
    let into = Arc::clone(&seen);
    let faults = Faults { lazy_growth: true, ..Faults::default() };
    let report = Explorer::new(mode, 1024).max_len(4096).faults(faults).run(
        |region, _| region.grow(2048).and_then(|()| region.store_u64(1504, 1)),
        move |region, _| match region.len() {
            1024 => region.grow(4096).map_err(|error| error.to_string()),
            // The recovery before found the short image, grew it, and was crashed.
            4096 => {
                into.fetch_add(1, Ordering::Relaxed);
                let word = region.load_u64(1504).unwrap();
                if word == 0 { Ok(()) } else { Err(format!("{word} came back")) }
            }
            _ => region.load_u64(1504).map(drop).map_err(|error| error.to_string()),
        },
    );
    let _ = report.expect_clean();
    assert!(seen.load(Ordering::Relaxed) > 0, "no recovery was crashed after its growth");
}

/// Two threads that add one, with a load and a store.
fn increments() -> Vec<Body> {
    let body = || -> Body {
        Box::new(|region, notes| {
            let value = region.load_u64(0)?;
            region.store_u64(0, value + 1)?;
            region.persist(0, 8)?;
            notes.ack(1);
            Ok(())
        })
    };
    vec![body(), body()]
}

fn both_counted(region: &SimRegion, history: &History) -> Verdict {
    let (value, done) = (region.load_u64(0).unwrap(), history.acked().len() as u64);
    if value < done { Err(format!("{done} increments, {value} counted")) } else { Ok(()) }
}

#[test]
fn interleavings_are_explored_up_to_the_bound() {
    let explore = |preemptions| {
        Explorer::new(Mode::Adr, 1024)
            .preemptions(preemptions)
            .run_threads(&increments(), both_counted)
    };
    // One after the other, either first.
    let none = explore(0).expect_clean();
    assert_eq!(none.schedules, 2);
    let failure = explore(1).expect_failure();
    assert!(!failure.schedule.is_empty());
    assert_eq!(failure.to_string(), explore(1).expect_failure().to_string());
    let text = failure.to_string();
    assert!(text.contains("thread 0: store_u64") && text.contains("thread 1: store_u64"), "{text}");
}

#[test]
fn every_interleaving_is_run_once() {
    // Two threads of two operations: 4 over 2 orders, each seen.
    let orders = Arc::new(Mutex::new(BTreeSet::new()));
    let order = Arc::new(Mutex::new(Vec::new()));
    let body = |thread: u64, order: Arc<Mutex<Vec<u64>>>| -> Body {
        Box::new(move |region, notes| {
            for _ in 0..2 {
                region.load_u64(0)?;
                order.lock().unwrap().push(thread);
            }
            notes.ack(thread);
            Ok(())
        })
    };
    let bodies = [body(0, Arc::clone(&order)), body(1, Arc::clone(&order))];
    let into = Arc::clone(&orders);
    let report =
        Explorer::new(Mode::Adr, 1024).preemptions(10).run_threads(&bodies, move |_, history| {
            if history.acked().len() == 2 {
                let done = std::mem::take(&mut *order.lock().unwrap());
                into.lock().unwrap().insert(done);
            }
            Ok(())
        });
    assert_eq!(report.expect_clean().schedules, 6);
    let expected =
        [[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 1, 0], [1, 1, 0, 0]];
    assert_eq!(*orders.lock().unwrap(), BTreeSet::from(expected.map(|order| order.to_vec())));
}

#[test]
fn random_interleavings_find_it_too_and_repeat_themselves() {
    let explore = |seed| {
        let explorer = Explorer::new(Mode::Adr, 1024).preemptions(0).random_schedules(200);
        explorer.seed(seed).run_threads(&increments(), both_counted).expect_failure().schedule
    };
    assert_eq!(explore(5), explore(5));
    let schedules: BTreeSet<_> = (0..20).map(explore).collect();
    assert!(schedules.len() > 1, "the seed makes no difference");
}

#[test]
fn a_thread_that_spins_lets_the_others_go_on() {
    let report = Explorer::new(Mode::Adr, 1024).preemptions(1).schedules(300).run_threads(
        &[
            Box::new(|region, _| region.store_u64(0, 1)),
            Box::new(|region, _| {
                while region.load_u64(0)? == 0 {}
                Ok(())
            }),
        ],
        |_, _| Ok(()),
    );
    let _ = report.expect_clean();
}

#[test]
fn threads_that_wait_outside_the_region_are_reported() {
    let gate = Arc::new(Mutex::new(()));
    let body = |gate: Arc<Mutex<()>>| -> Body {
        Box::new(move |region, _| {
            let _held = gate.lock().unwrap();
            region.store_u64(0, 1)?;
            region.store_u64(8, 1)
        })
    };
    let bodies = vec![body(Arc::clone(&gate)), body(gate)];
    let report = Explorer::new(Mode::Adr, 1024).run_threads(&bodies, |_, _| Ok(()));
    let message = report.expect_failure().message;
    assert!(message.contains("waits outside the region"), "{message}");
}

/// After a failed sync the kernel has the pages marked clean: to flush the same bytes again does
/// not help, to write them again does.
#[test]
fn flushing_again_after_a_failed_drain_covers_nothing_and_writing_again_does() {
    for (again, clean) in [(false, false), (true, true)] {
        for mode in [Mode::Adr, Mode::PageCache] {
            let faults = Faults { forgets_errors: true, ..Faults::default() };
            let report = Explorer::new(mode, 4096).faults(faults).fail_drains(true).run(
                move |region, notes| {
                    region.write(0, b"12345678")?;
                    if region.persist(0, 8).is_err() {
                        if again {
                            region.write(0, b"12345678")?;
                        }
                        region.persist(0, 8)?;
                    }
                    notes.ack(1);
                    Ok(())
                },
                |region, history| {
                    let mut found = [0; 8];
                    region.read(0, &mut found).map_err(|error| error.to_string())?;
                    if history.last_acked() == Some(1) && &found != b"12345678" {
                        return Err("acknowledged, and not there".to_owned());
                    }
                    Ok(())
                },
            );
            assert_eq!(report.failure.is_none(), clean, "{mode:?}, written again: {again}");
        }
    }
}
