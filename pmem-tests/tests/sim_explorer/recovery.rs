//! Crashes of recovery itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use daxmap::Region;
use daxmap_sim::{Explorer, History, Mode, SimRegion};

use crate::{Verdict, at, kept, store_lines};

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
