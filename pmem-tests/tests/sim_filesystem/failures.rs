//! Each call of each operation fails in turn: an error, and nothing has changed; or no error, and
//! everything that was promised.

use daxmap::ErrorKind;
use daxmap_sim::filesystem::{Image, Profile, Tally, Tamper};

use crate::operations::{ALL, DRAIN, FILE, KEPT, OPEN, Operation, Outcome, is_leftover, sees};
use crate::{explore_failed, run};

fn names(image: &Image) -> Vec<String> {
    image.names().map(|name| name.to_string_lossy().into_owned()).collect()
}

/// An error has changed no name, and left nothing.
fn nothing_changed(outcome: &Outcome, whole: &Outcome, error: &daxmap::Error) {
    let shown = |image: &Image| (sees(image, FILE), sees(image, KEPT));
    if let ErrorKind::PublishedNotDurable(_) = error.kind() {
        assert!(error.is_durability_unknown());
        assert_eq!(shown(&outcome.after), shown(&whole.after));
    } else {
        assert_eq!(shown(&outcome.after), shown(&outcome.before));
        assert_eq!(names(&outcome.after), names(&outcome.before));
    }
}

fn fail_each_call(operation: &Operation, profile: Profile, errno: i32) -> (usize, Tally) {
    let whole = run(operation, profile, &[]);
    assert!(whole.result.is_ok());
    let calls: Vec<String> = whole.history.calls().map(str::to_owned).collect();
    let (mut failed, mut tally) = (0, Tally::default());
    for (number, call) in calls.iter().enumerate() {
        // Those of whoever left the file unsynced.
        let opens = operation.name == OPEN.name;
        if opens && number < 2 {
            continue;
        }
        let of = format!(
            "{} on {}, errno {errno} from call {number}, {call}",
            operation.name,
            profile.as_str()
        );
        println!("{of}");
        let outcome = run(operation, profile, &[Tamper::Fail(number, errno)]);
        let writes_in_place = opens || operation.name == DRAIN.name;
        match &outcome.result {
            // What is written in place is not undone.
            Err(error) if !writes_in_place => nothing_changed(&outcome, &whole, error),
            Err(error) => assert!(
                error.is_durability_unknown() || call.contains("fsync"),
                "{of}: {error}, as if nothing had happened"
            ),
            Ok(_) => {
                let again = errno == libc::ENOSPC && call.contains("fallocate");
                let kept = errno == libc::EINTR || call.contains("unlinkat") || again;
                assert!(kept, "{of}: no error");
                let left = names(&outcome.after).iter().filter(|name| is_leftover(name)).count();
                assert_eq!(left, usize::from(call.contains("unlinkat")), "{of}");
            }
        }
        failed += usize::from(outcome.result.is_err());
        tally += explore_failed(operation, profile, &outcome)
            .unwrap_or_else(|violation| panic!("{of}: {violation}"));
    }
    (failed, tally)
}

#[test]
fn a_failed_call_is_an_error_that_changed_nothing() {
    for profile in Profile::ALL {
        let (mut failed, mut sum) = (0, Tally::default());
        for operation in &ALL {
            for errno in [libc::EIO, libc::ENOSPC, libc::EINTR] {
                let (errors, tally) = fail_each_call(operation, profile, errno);
                failed += errors;
                sum += tally;
            }
        }
        println!("filesystem model, {}: {failed} failed calls, {sum}", profile.as_str());
    }
}

/// Space that turns up once the filesystem is synced is enough; space that does not is an error,
/// and what an allocation took before it failed is given back before the file is closed.
#[test]
fn an_allocation_is_tried_again_once_the_filesystem_is_synced() {
    let allocates = |operation: &&Operation| {
        let whole = run(operation, Profile::Ext4, &[]);
        whole.history.calls().any(|call| call.contains("fallocate"))
    };
    let mut seen = 0;
    for operation in ALL.iter().filter(allocates) {
        let whole = run(operation, Profile::Ext4, &[]);
        let first = whole.history.calls().position(|call| call.contains("fallocate")).unwrap();
        let once = Tamper::Fail(first, libc::ENOSPC);
        let outcome = run(operation, Profile::Ext4, &[once]);
        assert!(outcome.result.is_ok(), "{}: {:?}", operation.name, outcome.result);
        let calls: Vec<&str> = outcome.history.calls().skip(first).take(4).collect();
        let [failed, given_back, synced, again] = calls[..] else { panic!("{calls:?}") };
        assert!(failed.contains("fallocate") && again.contains("fallocate"), "{calls:?}");
        assert!(given_back.contains("ftruncate") && synced == "syncfs", "{calls:?}");
        // The second attempt is three calls later.
        let outcome = run(operation, Profile::Ext4, &[once, Tamper::Fail(first + 3, libc::ENOSPC)]);
        let error = outcome.result.as_ref().expect_err("there is no space");
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{}: {error}", operation.name);
        nothing_changed(&outcome, &whole, error);
        let last = outcome.history.calls().filter(|call| !call.contains("unlinkat")).last();
        assert!(last.is_some_and(|call| call.contains("ftruncate")), "{last:?}");
        seen += 1;
    }
    assert!(seen >= 8, "{seen} operations allocate");
}
