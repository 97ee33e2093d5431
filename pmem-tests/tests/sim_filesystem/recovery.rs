//! What a crash left is opened and cleaned up, and crashes again while it is.

use daxmap::publish::clean_leftovers;
use daxmap::sim::filesystem::{Image, Limits, Model, Profile, Shown, Tally, Verdict};
use daxmap::{Options, Region};

use crate::operations::{ALL, FILE, KEPT, is_leftover, sees};
use crate::run;

fn leftovers(image: &Image) -> (usize, usize) {
    let names = image.names().filter(|name| is_leftover(&name.to_string_lossy()));
    let (broken, whole): (Vec<_>, Vec<_>) =
        names.partition(|name| matches!(image.shows(name), Shown::Broken));
    (whole.len(), broken.len())
}

/// Cleans up and opens what a crash left, and crashes at every call of that.
fn recover(profile: Profile, image: &Image) -> Result<Tally, String> {
    let model = Model::after_crash(profile, image).expect("memory files can be made");
    let inside = model.enter();
    let (whole, broken) = leftovers(image);
    let cleaned = clean_leftovers(model.path()).map_err(|error| error.to_string())?;
    // A name without a file is for the filesystem's own check.
    if (cleaned.removed, cleaned.in_use, cleaned.denied) != (whole, 0, broken) {
        return Err(format!("{cleaned:?}, of {whole} leftovers and {broken} broken names"));
    }
    if leftovers(&model.image()) != (0, broken) {
        return Err("a leftover was counted, and is still there".into());
    }
    if let Shown::File(file) = image.shows(FILE)
        && !file.is_empty()
    {
        let region = Options::new()
            .open(model.path().join(FILE))
            .map_err(|error| format!("cannot be opened: {error}"))?;
        let mut bytes = vec![0; file.len() as usize];
        region.read(0, &mut bytes).map_err(|error| error.to_string())?;
        if bytes != file.bytes() {
            return Err("opened, it reads as something else".into());
        }
    }
    let history = model.history();
    drop(inside);
    let shown = |image: &Image| (sees(image, FILE), sees(image, KEPT));
    let same = |found: &Image| -> Verdict {
        let (before, now) = (shown(image), shown(found));
        if before == now { Ok(()) } else { Err(format!("{now:?}, and before {before:?}")) }
    };
    history
        .explore(Limits::default(), |again| same(again.image))
        .map_err(|violation| format!("crashed again while recovering: {violation}"))
}

#[test]
fn what_a_crash_leaves_can_be_opened_and_cleaned_up_and_crash_again() {
    for profile in Profile::ALL {
        let mut again = Tally::default();
        let mut recovered = 0;
        for operation in &ALL {
            let history = run(operation, profile, &[]).history;
            let explored = history.explore(Limits::default(), |crash| {
                recovered += 1;
                again += recover(profile, crash.image)?;
                Ok(())
            });
            if let Err(violation) = explored {
                panic!("{} on {}: {violation}", operation.name, profile.as_str());
            }
        }
        assert!(recovered > 0 && again.states > recovered);
        println!(
            "filesystem model, {}: {recovered} states recovered, crashed again at {again}",
            profile.as_str()
        );
    }
}
