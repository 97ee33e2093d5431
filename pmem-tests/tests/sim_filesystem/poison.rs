//! A failed sync is final, the cache and the medium differ afterwards, and reopening shows the
//! medium.

use std::sync::Arc;

use daxmap::{ErrorKind, Options, Region};
use daxmap_sim::filesystem::{Model, Profile, SyncCall, Tamper, Which};
use pmem_tests::versions;

use crate::operations::{FILE, GROWN, LEN, NEW, OLD};

/// The file with its old version, durable, and the region open.
fn open(profile: Profile) -> (Arc<Model>, impl Region) {
    let model = Model::new(profile).expect("memory files can be made");
    let inside = model.enter();
    let path = model.path().join(FILE);
    let region = Options::new().len(LEN).lock(false).create(path).expect("a file can be made");
    region.write_persist(0, &versions::content(OLD, LEN as usize)).expect("it can be written");
    model.settle();
    drop(inside);
    (model, region)
}

fn version(region: &impl Region) -> Option<u64> {
    let mut bytes = vec![0; LEN as usize];
    region.read(0, &mut bytes).expect("reads go on");
    versions::version_of(&bytes)
}

#[test]
fn a_failed_drain_is_final_and_reopening_shows_the_medium() {
    for profile in Profile::ALL {
        let (model, region) = open(profile);
        let _inside = model.enter();
        let path = model.path().join(FILE);
        let sibling = Options::new().lock(false).open(&path).unwrap();
        region.write(0, &versions::content(NEW, LEN as usize)).unwrap();
        // The write goes out, then the sync fails.
        model.tamper(Tamper::Fail(model.history().calls().count() + 1, libc::EIO));
        let error = region.drain().expect_err("the sync fails");
        assert!(
            error.is_durability_unknown() && error.raw_os_error() == Some(libc::EIO),
            "{error}"
        );
        assert_eq!(version(&region), Some(NEW), "the cache has it");
        for (who, result) in [
            ("drain again", region.drain()),
            ("write", region.write(0, b"x")),
            ("another region's drain", sibling.drain()),
            ("close", sibling.close()),
        ] {
            let error = result.expect_err(who);
            assert!(error.is_failed(), "{who}: {error}");
        }
        // Without the latch, the retry would have been believed.
        let file = model.open(FILE).unwrap();
        model.sync_data(&file).unwrap();
        drop((region, sibling));
        let again = Options::new().open(&path).unwrap();
        assert_eq!(version(&again), Some(OLD), "{}: the medium has it not", profile.as_str());
        again.write_persist(0, &versions::content(NEW, LEN as usize)).unwrap();
    }
}

#[test]
fn a_failed_sync_of_a_growth_is_final() {
    for profile in Profile::ALL {
        let (model, region) = open(profile);
        let _inside = model.enter();
        let fsyncs = model.history().calls().count() + 2;
        model.tamper(Tamper::Fail(fsyncs, libc::EIO));
        let error = region.grow(GROWN).expect_err("the sync fails");
        assert!(error.is_durability_unknown(), "{error}");
        assert_eq!(region.len(), LEN);
        assert!(region.drain().expect_err("final").is_failed());
        assert_eq!(version(&region), Some(OLD));
        let calls = model.history();
        assert!(calls.calls().nth(fsyncs).is_some_and(|call| call.contains("fsync")), "{calls:?}");
    }
}

/// A failure that leaves durability known is not final.
#[test]
fn a_full_disk_at_growth_is_an_error_and_no_more() {
    for profile in Profile::ALL {
        let (model, region) = open(profile);
        let _inside = model.enter();
        let first = model.history().calls().count();
        // It is tried twice; in between, space is given back and the filesystem synced.
        for attempt in [first, first + 3] {
            model.tamper(Tamper::Fail(attempt, libc::ENOSPC));
        }
        let error = region.grow(GROWN).expect_err("no space");
        assert!(matches!(error.kind(), ErrorKind::Os(libc::ENOSPC)), "{error}");
        assert_eq!(region.len(), LEN);
        region.write_persist(0, &versions::content(NEW, LEN as usize)).unwrap();
        region.grow(GROWN).unwrap();
        assert_eq!(region.len(), GROWN);
    }
}

/// What the model itself does: a sync left out keeps a write from the medium for ever.
#[test]
fn the_model_keeps_nothing_that_nobody_synced() {
    let (model, region) = open(Profile::NothingUntilFsync);
    let _inside = model.enter();
    model.tamper(Tamper::LeaveOut(SyncCall::Data, Which::From(0)));
    region.write_persist(0, &versions::content(NEW, LEN as usize)).unwrap();
    let mut seen = Vec::new();
    model
        .history()
        .explore(daxmap_sim::filesystem::Limits::default(), |crash| {
            let daxmap_sim::filesystem::Shown::File(file) = crash.image.shows(FILE) else {
                return Err("no file".into());
            };
            seen.push(versions::version_of(&file.bytes()));
            Ok(())
        })
        .unwrap();
    assert_eq!(seen.iter().filter(|version| **version == Some(OLD)).count(), 1);
    assert_eq!(seen.iter().filter(|version| **version == Some(NEW)).count(), 1);
    // Four sectors in any subset.
    assert_eq!(seen.len(), 16);
}
