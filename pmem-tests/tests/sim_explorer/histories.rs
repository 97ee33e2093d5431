//! Which histories meet a crash: around every note, flush and drain, and with drains that fail.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use daxmap::{Region, Result};
use daxmap_sim::{Explorer, Faults, Mode, Notes, SimRegion};

type Workload = fn(&SimRegion, &Notes) -> Result<()>;

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
                    assert!(region.store_u64(0, 1).unwrap_err().is_failed());
                    assert!(region.flush(0, 8).unwrap_err().is_failed());
                    assert!(region.drain().unwrap_err().is_failed());
                    assert!(region.grow(1 << 20).unwrap_err().is_failed());
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

/// After a failed sync the kernel has the pages marked clean: to flush the same bytes again does
/// not help, to write them again does.
#[test]
fn flushing_again_after_a_failed_drain_covers_nothing_and_writing_again_does() {
    for (again, clean) in [(false, false), (true, true)] {
        for mode in [Mode::Adr, Mode::PageCache] {
            let mut faults = Faults::default();
            faults.forgets_errors = true;
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
