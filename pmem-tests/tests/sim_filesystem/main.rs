//! Create, grow, open, drain and publish on the modelled filesystem: every state that a crash can
//! leave, at every call, on every profile. The code that runs is the library's own.

mod corpus;
mod crashes;
mod failures;
mod operations;
mod poison;
mod proof;
mod real;
mod recovery;

use daxmap_sim::filesystem::{History, Limits, Profile, Tally, Tamper};
use operations::Operation;

/// Runs an operation on a fresh filesystem, with the calls tampered with.
fn run(operation: &Operation, profile: Profile, tampers: &[Tamper]) -> operations::Outcome {
    operations::run(operation, profile, tampers)
}

/// As [`explore`]. After an error, names are taken back; without a journal a crash can then leave a
/// name of a deleted file, which the filesystem's own check removes.
fn explore_failed(
    operation: &Operation,
    profile: Profile,
    outcome: &operations::Outcome,
) -> Result<Tally, Box<daxmap_sim::filesystem::Violation>> {
    if outcome.result.is_ok() || profile != Profile::NothingUntilFsync {
        return explore(operation, &outcome.history);
    }
    outcome.history.explore(Limits::default(), |crash| {
        let (image, mut checked) = (crash.image.checked(), crash);
        checked.image = &image;
        (operation.check)(checked)
    })
}

/// Looks at every state that a crash can leave.
fn explore(
    operation: &Operation,
    history: &History,
) -> Result<Tally, Box<daxmap_sim::filesystem::Violation>> {
    history.explore(Limits::default(), |crash| (operation.check)(crash))
}
