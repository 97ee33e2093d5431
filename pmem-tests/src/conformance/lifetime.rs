//! From creation to the end: what is there, under which name, and for whom.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::thread;

use daxmap::{ErrorKind, Region};

use super::Verdict;
use super::subject::Access;
use super::support::{
    Bench, METHODS, Method, PAGE, Refusal, WORD_METHODS, contents, pattern, refused, same,
};

pub(super) fn ready(bench: &Bench<'_>) -> Verdict {
    for len in [1, 7, 64, 1000, PAGE - 1, PAGE, PAGE + 1, (2 << 20) + 17] {
        let region = bench.create(len);
        let len = len.next_multiple_of(bench.facts().len_unit);
        assert_eq!(region.len(), len);
        assert!(!region.is_empty());
        same(&contents(&*region), &vec![0; len as usize], "a new region");
        if let Some(stored) = bench.stored() {
            same(&stored, &vec![0; len as usize], "its file");
        }
        region.write_persist(len - 1, &[1]).expect("the last byte can be written");
        region.close().expect("a region can be closed");
    }
    Verdict::Passed
}

pub(super) fn level_matches_report(bench: &Bench<'_>) -> Verdict {
    let facts = bench.facts();
    let check = |region: &dyn Region, how: &str| {
        assert_eq!(region.backend(), facts.backend, "{how}: backend");
        assert_eq!(region.durability(), facts.durability, "{how}: durability");
        assert_eq!(region.granularity(), facts.granularity, "{how}: granularity");
        assert_eq!(region.is_emulated(), facts.emulated, "{how}: emulated");
    };
    let region = bench.create(PAGE);
    check(&*region, "created");
    region.close().expect("a region can be closed");
    check(&*region, "closed: the accessors go on");
    assert_eq!(region.len(), PAGE.next_multiple_of(facts.len_unit), "closed: the length");
    drop(region);
    check(&*bench.open(Access::ReadOnly), "opened for reading");
    check(&*bench.open(Access::ReadWrite), "opened");
    if let Some((report, region)) = bench.report() {
        check(&*region, "reported");
        assert_eq!(report.backend, region.backend(), "the report's backend");
        if region.is_emulated() {
            assert_eq!(region.durability(), daxmap::Durability::ProcessOnly, "emulated");
        } else {
            assert_eq!(report.durability, region.durability(), "the report's durability");
            assert_eq!(report.granularity, region.granularity(), "the report's granularity");
        }
    }
    Verdict::Passed
}

/// A caller that is generic over the trait.
fn through_generic<R: Region>(region: R, mark: u8) {
    let before = region.len();
    region.write(8, &[mark; 3]).expect("a write inside works");
    region.flush(8, 3).expect("a flush inside works");
    region.drain().expect("a drain works");
    let mut found = [0; 3];
    region.read(8, &mut found).expect("a read inside works");
    assert_eq!(found, [mark; 3]);
    region.store_u64(16, mark.into()).expect("a word can be stored");
    assert_eq!(region.load_u64(16).expect("a word can be loaded"), u64::from(mark));
    let exchanged = region.compare_exchange_u64(16, mark.into(), 0).expect("no error");
    assert_eq!(exchanged, Ok(mark.into()));
    region.write_flush(8, &[mark]).expect("a write inside works");
    region.write_persist(9, &[mark]).expect("a write inside works");
    region.fill_flush(10, 1, mark).expect("a fill inside works");
    region.persist(8, 3).expect("a persist inside works");
    region.grow(before).expect("growth to no more works");
    // SAFETY: nobody else uses the region while the view lives.
    assert_eq!(unsafe { region.slice(8, 3) }.expect("a view"), [mark; 3]);
    // SAFETY: the view is not used.
    let _ = unsafe { region.slice_mut(8, 3) };
    assert!(!region.is_empty());
    let _ = (region.durability(), region.granularity(), region.backend(), region.is_emulated());
    refused("past the end", region.read(before, &mut [0]), Refusal::OutOfBounds);
}

pub(super) fn every_way_to_call(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(PAGE);
    through_generic(&*region, 1);
    through_generic(&region, 2);
    through_generic::<&dyn Region>(&region, 3);
    let shared: Arc<dyn Region> = Arc::from(region);
    through_generic(Arc::clone(&shared), 4);
    through_generic(&shared, 5);
    through_generic(Box::new(Arc::clone(&shared)), 6);
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let region = Arc::clone(&shared);
            thread::spawn(move || {
                region.read(8, &mut [0; 8]).expect("a read inside works");
                region.drain().expect("a drain works");
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
    through_generic(shared, 7);
    Verdict::Passed
}

pub(super) fn reopen(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(3 * PAGE + 9);
    let model = pattern(region.len(), 41);
    region.write_persist(0, &model[..5000]).expect("written");
    region.write_flush(5000, &model[5000..6000]).expect("written");
    region.write(6000, &model[6000..]).expect("written");
    region.flush(6000, region.len() - 6000).expect("flushed");
    region.close().expect("a region can be closed");
    drop(region);
    for access in [Access::ReadWrite, Access::ReadOnly, Access::Unlocked] {
        let region = bench.open(access);
        assert_eq!(region.len(), model.len() as u64, "{access:?}");
        same(&contents(&*region), &model, "after close");
    }
    let region = bench.open(Access::ReadWrite);
    region.fill_flush(0, 100, 3).expect("a reopened region can be written");
    region.drain().expect("and drained");
    drop(region);
    let mut model = model;
    model[..100].fill(3);
    same(&contents(&*bench.open(Access::ReadOnly)), &model, "after drop");
    Verdict::Passed
}

/// Every level survives the end of the region within the running kernel.
pub(super) fn reopen_without_drain(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(2 * PAGE);
    let model = pattern(region.len(), 42);
    region.write(0, &model).expect("the region can be written");
    drop(region);
    same(&contents(&*bench.open(Access::ReadWrite)), &model, "after drop");
    Verdict::Passed
}

pub(super) fn read_only(bench: &Bench<'_>) -> Verdict {
    let region = bench.create_growable(2 * PAGE + 10, 16 * PAGE);
    let len = region.len();
    let model = pattern(len, 43);
    region.write_persist(0, &model).expect("the region can be written");
    drop(region);
    let region = bench.open(Access::ReadOnly);
    let refuse = |method: &Method, offset, count| {
        let result = (method.call)(&*region, offset, count);
        let error = refused(method.name, result, Refusal::ReadOnly);
        assert!(!error.is_durability_unknown(), "{}: {error}", method.name);
    };
    for method in METHODS.iter().chain(WORD_METHODS) {
        for (offset, count) in [(0, 8), (0, 0), (PAGE, PAGE), (64, 8)] {
            if method.mutates {
                refuse(method, offset, count);
            } else {
                (method.call)(&*region, offset, count)
                    .unwrap_or_else(|error| panic!("{}: {error}", method.name));
            }
        }
    }
    refused("grow", region.grow(len + PAGE), Refusal::ReadOnly);
    refused("grow to no more", region.grow(1), Refusal::ReadOnly);
    region.drain().expect("there is nothing to drain");
    same(&contents(&*region), &model, "the region after refused calls");
    region.close().expect("a reader can be closed");
    refused("read after close", region.read(0, &mut [0]), Refusal::Closed);
    if let Some(stored) = bench.stored() {
        same(&stored, &model, "the file after refused calls");
    }
    same(&contents(&*bench.open(Access::ReadWrite)), &model, "after reopening");
    Verdict::Passed
}

pub(super) fn close(bench: &Bench<'_>) -> Verdict {
    let region = bench.create_growable(2 * PAGE, 16 * PAGE);
    let model = pattern(region.len(), 44);
    region.write_flush(0, &model).expect("the region can be written");
    // SAFETY: nobody changes the bytes from here on.
    let view = unsafe { region.slice(0, region.len()) }.expect("a view");
    region.close().expect("a region can be closed");
    for method in METHODS.iter().chain(WORD_METHODS) {
        let result = (method.call)(&*region, 64, 8);
        let error = refused(method.name, result, Refusal::Closed);
        assert!(!error.is_durability_unknown(), "{}: {error}", method.name);
    }
    refused("drain", region.drain(), Refusal::Closed);
    refused("grow", region.grow(region.len() + PAGE), Refusal::Closed);
    refused("close", region.close(), Refusal::Closed);
    same(view, &model, "a view from before close");
    drop(region);
    same(&contents(&*bench.open(Access::ReadWrite)), &model, "after close");
    Verdict::Passed
}

pub(super) fn one_writer(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(PAGE);
    let memory_without_lock = bench.try_open(Access::ReadWrite).is_ok();
    if memory_without_lock {
        // A region without a name has nobody to be locked against until it is opened anew.
        drop(region);
        let region = bench.open(Access::ReadWrite);
        check_one_writer(bench, &*region);
        return Verdict::Passed;
    }
    check_one_writer(bench, &*region);
    drop(region);
    drop(bench.open(Access::ReadWrite));
    Verdict::Passed
}

fn check_one_writer(bench: &Bench<'_>, region: &dyn Region) {
    region.write_persist(0, b"first").expect("the first writer writes");
    let Err(error) = bench.try_open(Access::ReadWrite) else {
        panic!("a second writer was let in")
    };
    assert!(matches!(error.kind(), ErrorKind::Locked), "{error}");
    let reader = bench.open(Access::ReadOnly);
    let other = bench.open(Access::Unlocked);
    other.write(5, b" second").expect("who asks for no lock gets none");
    let mut found = [0; 12];
    reader.read(0, &mut found).expect("a reader reads");
    assert_eq!(&found, b"first second");
    region.write_persist(0, b"third").expect("the first writer goes on");
}
