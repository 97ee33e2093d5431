//! Which images of a crash are tried, and that all of them are.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use daxmap::{Region, Result};
use daxmap_sim::{Explorer, Mode, Report, SimRegion};

use crate::{at, kept, store_lines};

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
