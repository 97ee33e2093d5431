//! Which states are looked at, and how many.

use std::io::Result;

use super::super::{Image, Limits, Model, Profile, Shown, Tally};
use super::{EXT4, LEN, XFS, history, old_file, seen};

#[test]
fn too_many_states_are_sampled_and_the_seed_decides() {
    let model = Model::new(EXT4).unwrap();
    old_file(&model, "a").unwrap();
    let file = model.open("a").unwrap();
    model.write(&file, &vec![2; 512 * 40], 0).unwrap();
    let history = model.history();
    let explore = |seed| {
        let mut order = Vec::new();
        let limits = Limits { states_per_point: 500, seed };
        let tally = history.explore(limits, |crash| {
            order.push(seen(crash.image, "a"));
            Ok(())
        });
        (tally.unwrap(), order)
    };
    let (tally, order) = explore(1);
    assert_eq!((tally.points, tally.sampled), (2, 1));
    assert!(tally.distinct > 300 && tally.states >= 500, "{tally}");
    assert_eq!(explore(1), (tally, order.clone()));
    assert_ne!(explore(2).1, order);
    // Nothing, and everything, are among them.
    assert!(order.contains(&Some((1024, 1, 1))) && order.contains(&Some((512 * 40, 2, 2))));
}

/// What the whole file shows: the first byte of each sector.
fn sectors(image: &Image) -> Vec<u8> {
    let Shown::File(file) = image.shows("a") else { panic!("{image:?}") };
    file.bytes().chunks(512).map(|sector| sector[0]).collect()
}

#[test]
fn a_sample_has_each_change_alone_and_each_missing_and_its_size() {
    const COUNT: usize = 40;
    let model = Model::new(EXT4).unwrap();
    let file = model.create("a").unwrap();
    model.write(&file, &vec![1; 512 * COUNT], 0).unwrap();
    model.settle();
    model.write(&file, &vec![2; 512 * COUNT], 0).unwrap();
    let mut found = Vec::new();
    let limits = Limits { states_per_point: 200, seed: 1 };
    let tally = model.history().explore(limits, |crash| {
        found.push(sectors(crash.image));
        Ok(())
    });
    // Of the point before the write there is one.
    let expected = Tally { points: 2, states: 201, distinct: found.len(), sampled: 1 };
    assert_eq!(tally.unwrap(), expected);
    for place in 0..COUNT {
        for (here, others) in [(1, 2), (2, 1)] {
            let mut wanted = vec![others; COUNT];
            wanted[place] = here;
            assert!(found.contains(&wanted), "{here} at {place} alone");
        }
    }
}

#[test]
fn a_sample_keeps_the_order() {
    let model = Model::new(Profile::Strict).unwrap();
    let file = model.create("a").unwrap();
    model.write(&file, &vec![1; 512 * 40], 0).unwrap();
    model.settle();
    model.write(&file, &vec![2; 512 * 40], 0).unwrap();
    let mut found = Vec::new();
    let limits = Limits { states_per_point: 30, seed: 1 };
    let tally = model.history().explore(limits, |crash| {
        found.push(sectors(crash.image));
        Ok(())
    });
    assert_eq!(tally.unwrap().sampled, 1);
    for state in &found {
        assert!(state.is_sorted_by(|one, next| one >= next), "not a beginning: {state:?}");
    }
    assert!(found.len() > 10, "{found:?}");
}

/// How many states there are at the end, and how many of them differ.
fn count(profile: Profile, program: impl Fn(&Model) -> Result<()>) -> (usize, usize) {
    let history = history(profile, program);
    let end = history.calls().count();
    let tally = history.explore_from(end, Limits::default(), |_| Ok(())).unwrap();
    (tally.states, tally.distinct)
}

#[test]
fn what_makes_no_difference_is_not_told_apart() {
    // A sector that is written over.
    let twice = |model: &Model| {
        old_file(model, "a")?;
        let file = model.open("a")?;
        model.write(&file, &[2; 512], 0)?;
        model.write(&file, &[3; 512], 0)
    };
    assert_eq!(count(EXT4, twice), (3, 3));
    // A write up to the end, and space up to the end: no new length.
    let up_to_the_end = |model: &Model| {
        old_file(model, "a")?;
        model.write(&model.open("a")?, &[2; 512], LEN as u64 - 512)
    };
    assert_eq!(count(EXT4, up_to_the_end), (2, 2));
    let space = |model: &Model| {
        let file = model.create("a")?;
        model.truncate(&file, LEN as u64)?;
        model.settle();
        model.allocate(&file, 0, LEN as u64)
    };
    assert_eq!(count(XFS, space), (2, 2));
}

#[test]
fn tallies_add_up() {
    let mut tally = Tally { points: 2, states: 3, distinct: 5, sampled: 7 };
    tally += Tally { points: 11, states: 13, distinct: 17, sampled: 19 };
    assert_eq!(tally, Tally { points: 13, states: 16, distinct: 22, sampled: 26 });
    let text = "13 crash points, 16 crash states, 22 distinct, 26 points sampled";
    assert_eq!(tally.to_string(), text);
}
