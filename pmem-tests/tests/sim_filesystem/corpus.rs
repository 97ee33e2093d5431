//! Known bugs are found, where they show and nowhere else, and their fixes are clean everywhere.

use std::collections::HashSet;

use daxmap_sim::filesystem::{Crash, Limits, Model, Profile, Tally, Verdict, Violation};
use pmem_tests::corpus::filesystem::{ALL, Bug};

fn explore(
    bug: &Bug,
    profile: Profile,
    program: fn(&Model) -> std::io::Result<()>,
    check: fn(Crash<'_>) -> Verdict,
) -> Result<Tally, Box<Violation>> {
    let model = Model::new(profile).expect("memory files can be made");
    (bug.before)(&model).expect("what is there before can be made");
    model.settle();
    bug.tampers.iter().for_each(|tamper| model.tamper(*tamper));
    program(&model).unwrap_or_else(|errno| panic!("{} does not run: {errno}", bug.name));
    model.history().explore(Limits::default(), check)
}

#[test]
fn every_bug_is_found_and_every_fix_is_clean() {
    let mut clean = Tally::default();
    for bug in &ALL {
        let mut found = Vec::new();
        for profile in Profile::ALL {
            if let Err(violation) = explore(bug, profile, bug.buggy, bug.check) {
                if found.is_empty() {
                    println!("{}: {violation}", bug.name);
                }
                found.push(profile);
            }
            match explore(bug, profile, bug.fixed, bug.check_fixed) {
                Ok(tally) => clean += tally,
                Err(violation) => panic!("{}, fixed: {violation}", bug.name),
            }
        }
        assert_eq!(found, bug.shows_on, "{}: found elsewhere than said", bug.name);
    }
    println!("filesystem model, corpus: {} bugs found, fixes clean: {clean}", ALL.len());
}

#[test]
fn the_corpus_has_no_bug_twice_and_says_where_each_was_met() {
    let names: HashSet<&str> = ALL.iter().map(|bug| bug.name).collect();
    assert_eq!(names.len(), ALL.len());
    assert!(ALL.iter().all(|bug| !bug.source.is_empty() && !bug.shows_on.is_empty()));
}
