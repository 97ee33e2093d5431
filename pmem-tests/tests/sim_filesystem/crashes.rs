//! Nothing that a crash can leave breaks a promise.

use daxmap::sim::filesystem::{Profile, Tally};

use crate::operations::ALL;
use crate::{explore, run};

#[test]
fn every_operation_keeps_its_promise_on_every_profile() {
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
    }
}
