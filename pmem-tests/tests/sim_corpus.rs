//! Every seeded bug is found, in words, and its fix is found clean.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use daxmap_sim::Mode;
use pmem_tests::corpus::region::{BUGS, Bug, Form};

/// What a bug may take to be found.
const FOUND_WITHIN: Duration = Duration::from_secs(60);

/// Panics unless the bug is found in its modes, in a minute and in words.
fn find(bug: &Bug) {
    for (index, &mode) in bug.modes.iter().enumerate() {
        let began = Instant::now();
        let finding = (bug.explore)(Form::Buggy, mode);
        let took = began.elapsed();
        let Some(failure) = finding.failure else {
            panic!("{} was not found in {mode:?}, in {} images", bug.name, finding.images);
        };
        assert!(took < FOUND_WITHIN, "{}: {took:?}", bug.name);
        assert!(failure.contains("seed 1"), "{}: no seed in\n{failure}", bug.name);
        if index == 0 {
            println!("{}: {took:?}, {} images\n{failure}", bug.name, finding.images);
            assert!(failure.contains(bug.words), "{}: not in words:\n{failure}", bug.name);
        }
    }
}

#[test]
fn every_bug_is_found_within_a_minute_and_every_fix_is_clean() {
    let (mut found, mut images, mut crash_points) = (0, 0, 0);
    for bug in BUGS {
        assert!(!bug.modes.is_empty() && !bug.story.is_empty());
        find(bug);
        found += 1;
        for mode in Mode::ALL {
            let finding = (bug.explore)(Form::Fixed, mode);
            if let Some(failure) = finding.failure {
                panic!("the fix of {} in {mode:?}: {failure}", bug.name);
            }
            // A fix that is clean because nothing happened would prove nothing.
            assert!(finding.images >= 2 && finding.crash_points >= 2, "{}: {finding:?}", bug.name);
            (images, crash_points) = (images + finding.images, crash_points + finding.crash_points);
        }
    }
    println!(
        "\nevidence: seeded bugs of regions found by the explorer, and their fixes found clean \
         | {found} bugs; fixes: {images} images at {crash_points} crash points, 0 failures \
         | that bugs of other classes would be found"
    );
}

#[test]
fn the_corpus_has_the_classes_of_the_literature() {
    let classes: BTreeSet<&str> = BUGS.iter().map(|bug| bug.class).collect();
    for class in [
        "missing flush",
        "missing fence",
        "flush of the wrong range at an unaligned edge",
        "commit word before data",
        "commit word torn across lines",
        "two lines assumed ordered",
        "stale bytes accepted as a new record",
        "checksum without length",
        "length without checksum",
        "recovery not idempotent",
        "double replay",
        "fence by another thread",
        "flag flushed by eviction before its data",
        "size durable before data",
        "reuse of a freed block before its free is durable",
        "reading past the valid end",
        "retry after a failed sync",
        "poison not sticky",
    ] {
        assert!(classes.contains(class), "no bug of the class {class:?}");
    }
    assert!(BUGS.len() >= 20);
    let names: BTreeSet<&str> = BUGS.iter().map(|bug| bug.name).collect();
    assert_eq!(names.len(), BUGS.len(), "two bugs of one name");
}
