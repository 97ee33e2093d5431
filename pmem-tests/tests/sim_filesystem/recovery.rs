//! What a crash left is opened and cleaned up, and crashes again while it is.

use daxmap::publish::clean_leftovers;
use daxmap::{ErrorKind, Options, Region};
use daxmap_sim::filesystem::{Image, Limits, Model, Profile, Shown, Tally, Tamper, Verdict};

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

/// A publisher whose last sync fails leaves the old version under a temporary name, where nothing
/// orders a name and a link count. Whoever cleans up must not take its last name before the new
/// version's is durable.
#[test]
fn cleaning_up_after_a_failed_publish_does_not_break_the_name() {
    let profile = Profile::NothingUntilFsync;
    let mut cleaned = 0;
    for operation in &ALL {
        let calls: Vec<String> =
            run(operation, profile, &[]).history.calls().map(str::to_owned).collect();
        for (number, _) in calls.iter().enumerate().filter(|(_, call)| call.contains("fsync")) {
            let model = Model::new(profile).expect("memory files can be made");
            let inside = model.enter();
            let region = (operation.before)(&model);
            model.settle();
            (operation.unsynced)(&model);
            model.tamper(Tamper::Fail(number, libc::EIO));
            let result = (operation.run)(&model, region);
            let Err(error) = result else { continue };
            if !matches!(error.kind(), ErrorKind::PublishedNotDurable(_)) {
                continue;
            }
            cleaned += clean_leftovers(model.path()).expect("it can be cleaned up").removed;
            let history = model.history();
            drop(inside);
            let explored =
                history.explore(Limits::default(), |crash| match crash.image.shows(FILE) {
                    Shown::Broken => Err("the name leads to a deleted file".into()),
                    _ => Ok(()),
                });
            if let Err(violation) = explored {
                panic!("{}, call {number} fails: {violation}", operation.name);
            }
        }
    }
    assert!(cleaned > 0, "nothing was left to clean up");
}
