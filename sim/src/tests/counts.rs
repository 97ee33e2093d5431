//! What an exploration counts, and what it says.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::filesystem::{Limits, Model, Profile, Shown};
use crate::{Explorer, Mode, Report};
use daxmap::Region;

/// Two lines that are stored and not flushed, and what recovery calls what it finds.
fn explored(name: impl Fn([u8; 2]) -> Vec<u8> + Send + Sync + 'static) -> Report {
    Explorer::new(Mode::Adr, 128).run(
        |region, _| {
            region.write(0, &[1])?;
            region.write(64, &[1])
        },
        move |region, history| {
            let mut found = [0; 2];
            for (line, byte) in found.iter_mut().enumerate() {
                let mut one = [0];
                region.read(64 * line as u64, &mut one).map_err(|error| error.to_string())?;
                *byte = one[0];
            }
            history.recovered(&name(found));
            Ok(())
        },
    )
}

#[test]
fn states_are_told_apart_by_every_byte() {
    assert_eq!(explored(|found| found.to_vec()).states, 4);
    assert_eq!(explored(|found| vec![found[0] + found[1]]).states, 3);
    // Differences at the front, beyond the first word, and in the length.
    let long = |found: [u8; 2]| [&found[..1], &[7; 20], &found[1..]].concat();
    assert_eq!(explored(long).states, 4);
    assert_eq!(explored(|found| vec![5; usize::from(found[0] * 2 + found[1])]).states, 4);
    assert_eq!(explored(|_| vec![1]).states, 1);
}

#[test]
fn reports_are_added_field_by_field() {
    let mut sum = Report::default();
    let one = explored(|found| found.to_vec());
    assert!(one.is_exhaustive() && one.images > one.crash_points && one.runs == 1);
    for times in 1..=3 {
        sum.add(&one);
        let counts = |report: &Report| {
            [report.crash_points, report.exhausted, report.images, report.states, report.runs]
        };
        assert_eq!(counts(&sum), counts(&one).map(|count| count * times));
    }
    let threads = Report { schedules: 5, ..Report::default() };
    sum.add(&threads);
    sum.add(&threads);
    assert_eq!((sum.schedules, sum.out_of_budget), (10, false));
    sum.add(&Report { out_of_budget: true, ..Report::default() });
    sum.add(&threads);
    assert!(sum.out_of_budget && !sum.is_exhaustive());
    let words = sum.to_string();
    assert!(words.contains("15 interleavings; the budget ended it"), "{words}");
    assert!(!Report::default().is_exhaustive(), "nothing was tried");
}

/// Where there are too many states, few changes and nearly all are met, each alone and each
/// missing, and other ones with another seed.
#[test]
fn samples_are_of_every_size_and_hang_on_the_seed() {
    const FILES: usize = 24;
    let sampled = |seed| {
        let model = Model::new(Profile::NothingUntilFsync).unwrap();
        for file in 0..FILES {
            model.create(&format!("file-{file}")).unwrap();
        }
        model.settle();
        for file in 0..FILES {
            model.unlink(&format!("file-{file}")).unwrap();
        }
        let history = model.history();
        let there = Arc::new(Mutex::new(BTreeSet::new()));
        let limits = Limits { seed, states_per_point: 400 };
        let end = history.calls().count();
        let tally = history
            .explore_from(end, limits, |crash| {
                let is_there =
                    |file: usize| crash.image.shows(format!("file-{file}")) != Shown::Nothing;
                let found: Vec<bool> = (0..FILES).map(is_there).collect();
                there.lock().unwrap().insert(found);
                Ok(())
            })
            .unwrap();
        assert_eq!((tally.points, tally.sampled), (1, 1));
        Arc::into_inner(there).unwrap().into_inner().unwrap()
    };
    let (one, other) = (sampled(1), sampled(2));
    assert_eq!(one, sampled(1));
    assert_ne!(one, other);
    let sizes: BTreeSet<usize> =
        one.iter().map(|found| found.iter().filter(|there| **there).count()).collect();
    assert!(sizes.len() > FILES / 2, "{sizes:?}");
    for wanted in [0, 1, FILES - 1, FILES] {
        assert!(sizes.contains(&wanted), "{wanted} of {FILES}");
    }
    for file in 0..FILES {
        let alone = |there: bool| {
            one.iter()
                .any(|found| (0..FILES).all(|other| (found[other] == there) == (other == file)))
        };
        assert!(alone(true) && alone(false), "{file}");
    }
}
