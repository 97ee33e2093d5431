//! Nothing that a crash can leave breaks a promise.

use daxmap_sim::filesystem::{Feature, Profile, Tally, Tamper};

use crate::operations::{ALL, without_exchange};
use crate::{explore, explore_failed, run};

#[test]
fn every_operation_keeps_its_promise_on_every_profile() {
    let mut all = Tally::default();
    for profile in Profile::ALL {
        let mut sum = Tally::default();
        for operation in &ALL {
            let of = format!("{} on {}", operation.name, profile.as_str());
            let outcome = run(operation, profile, &[]);
            outcome.result.unwrap_or_else(|error| panic!("{of}: {error}"));
            let calls: Vec<&str> = outcome.history.calls().collect();
            println!("{of}: {calls:?}");
            let tally = explore(operation, &outcome.history)
                .unwrap_or_else(|violation| panic!("{of}: {violation}\n{calls:#?}"));
            assert_eq!(tally.sampled, 0, "{of}: looked at only in part");
            println!("{of}: {tally}");
            sum += tally;
        }
        println!("filesystem model, {}: {sum}", profile.as_str());
        all += sum;
    }
    println!(
        "\nevidence: create, open, grow, drain and publish on five modelled filesystems, every state \
         a crash can leave | {} states at {} crash points, {} of them distinct, 0 failures | that the \
         real filesystems keep to their models (random programs compare them)",
        all.states, all.points, all.distinct
    );
}

/// Without `O_TMPFILE` a file has a temporary name from the beginning; without the flags of
/// renameat2(2), it is linked to its final one, and the file that it replaces to a temporary one.
#[test]
fn where_the_filesystem_lacks_something_the_promise_is_the_same() {
    for profile in Profile::ALL {
        let mut sum = Tally::default();
        for operation in &ALL {
            let of = format!("{} on {}", operation.name, profile.as_str());
            let lacks = [Feature::UnnamedFiles, Feature::RenameFlags].map(Tamper::Lack);
            for tampers in [&lacks[..1], &lacks[1..], &lacks[..]] {
                let outcome = run(operation, profile, tampers);
                assert!(outcome.result.is_ok(), "{of}, {tampers:?}: {:?}", outcome.result.err());
                let exchanges = !tampers.contains(&lacks[1]);
                let operation = &if exchanges { *operation } else { without_exchange(operation) };
                sum += explore_failed(operation, profile, &outcome)
                    .unwrap_or_else(|violation| panic!("{of}, {tampers:?}: {violation}"));
            }
        }
        println!("filesystem model, {}, less of it: {sum}", profile.as_str());
    }
}
