//! Every seeded bug is found, in words, and its fix is found clean.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use daxmap::sim::Mode;
use pmem_tests::corpus::region::{BUGS, Form};

/// What a bug may take to be found.
const FOUND_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn every_bug_is_found_within_a_minute() {
    for bug in BUGS {
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
}

#[test]
fn every_fix_is_clean_in_every_mode() {
    for bug in BUGS {
        for mode in Mode::ALL {
            let finding = (bug.explore)(Form::Fixed, mode);
            if let Some(failure) = finding.failure {
                panic!("the fix of {} in {mode:?}: {failure}", bug.name);
            }
            // A fix that is clean because nothing happened would prove nothing.
            assert!(finding.images >= 2 && finding.crash_points >= 2, "{}: {finding:?}", bug.name);
        }
    }
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
