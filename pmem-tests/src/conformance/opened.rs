//! Ways to open a region, and what it is by its file.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use daxmap::{AnyRegion, Granularity, Lock, Options, Region};

use super::Verdict;
use super::support::{Bench, PAGE, Refusal, contents, pattern, refused, same};

const LEN: u64 = 3 * PAGE + 8;
const WITHOUT_OPTIONS: Verdict = Verdict::NotApplicable("the subject is opened without options");

/// The bench's file, made and closed, with these bytes.
fn made(bench: &Bench<'_>, seed: u64) -> Vec<u8> {
    let region = bench.create(LEN);
    let model = pattern(region.len(), seed);
    region.write_persist(0, &model).expect("the region can be written");
    region.close().expect("a region can be closed");
    model
}

/// Opens the bench's file with one more option.
fn with(
    bench: &Bench<'_>,
    change: impl Fn(Options) -> Options,
) -> Option<daxmap::Result<AnyRegion>> {
    bench.opened_with(&change)
}

pub(super) fn ungathered(bench: &Bench<'_>) -> Verdict {
    let mut model = made(bench, 71);
    let Some(region) = with(bench, |options| options.gather(false)) else { return WITHOUT_OPTIONS };
    let region = region.expect("it opens");
    for (round, offset) in [0, 100, 64, PAGE - 3, 2 * PAGE].into_iter().enumerate() {
        let data = pattern(100, round as u64);
        region.write(offset, &data).expect("a write inside works");
        model[offset as usize..][..100].copy_from_slice(&data);
        region.store_u64(PAGE + 8, round as u64).expect("a word can be stored");
        model[PAGE as usize + 8..][..8].copy_from_slice(&(round as u64).to_ne_bytes());
        match bench.stored() {
            Some(stored) => same(&stored, &model, "the file, before it is sent or drained"),
            None => return Verdict::NotApplicable("the device cannot be read with read(2)"),
        }
    }
    same(&contents(&region), &model, "the region");
    Verdict::Passed
}

pub(super) fn locks(bench: &Bench<'_>) -> Verdict {
    const PATIENCE: Duration = Duration::from_millis(60);
    let _ = made(bench, 72);
    let reader = |options: Options| options.read_only(true).lock(Lock::Shared);
    let Some(first) = with(bench, reader) else { return WITHOUT_OPTIONS };
    let first = first.expect("it opens for reading");
    let second = with(bench, reader).expect("as before").expect("readers share the lock");
    refused("a writer beside readers", writer(bench, Duration::ZERO), Refusal::Locked);
    let began = Instant::now();
    refused("a writer that waits", writer(bench, PATIENCE), Refusal::Locked);
    assert!(began.elapsed() >= PATIENCE, "it did not wait: {:?}", began.elapsed());
    drop(first);
    refused("a writer beside a reader", writer(bench, Duration::ZERO), Refusal::Locked);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| writer(bench, Duration::from_secs(60)));
        thread::sleep(PATIENCE);
        drop(second);
        let region = waiting.join().expect("no panic").expect("it got the lock");
        region.write_persist(0, b"alone").expect("a writer writes");
        let shared = with(bench, reader).expect("as before");
        refused("a reader that asks for the lock", shared, Refusal::Locked);
        let none = with(bench, |options| options.read_only(true)).expect("as before");
        none.expect("a reader that asks for no lock");
    });
    Verdict::Passed
}

fn writer(bench: &Bench<'_>, patience: Duration) -> daxmap::Result<AnyRegion> {
    with(bench, |options| options.lock(Lock::Exclusive).lock_timeout(patience)).expect("as before")
}

pub(super) fn from_a_file(bench: &Bench<'_>) -> Verdict {
    let mut model = made(bench, 73);
    let (Some(file), Some(opened)) = (bench.file(), with(bench, |options| options)) else {
        return WITHOUT_OPTIONS;
    };
    let opened = opened.expect("it opens");
    let (level, backend) = (opened.durability(), opened.backend());
    drop(opened);
    let Some(region) = bench.adopt(file) else { return WITHOUT_OPTIONS };
    let region = region.expect("an open file is adopted");
    assert_eq!((region.durability(), region.backend()), (level, backend));
    same(&contents(&region), &model, "the region of an open file");
    region.write_persist(5, b"adopted").expect("it can be written");
    model[5..12].copy_from_slice(b"adopted");
    let again = bench.file().expect("as before");
    let locked = bench.adopt(again).expect("as before");
    refused("the same file beside it", locked, Refusal::Locked);
    region.close().expect("it can be closed");
    drop(region);
    if let Some(stored) = bench.stored() {
        same(&stored, &model, "the file");
    }
    Verdict::Passed
}

pub(super) fn its_file(bench: &Bench<'_>) -> Verdict {
    let model = made(bench, 74);
    let Some(region) = with(bench, |options| options) else { return WITHOUT_OPTIONS };
    let region = region.expect("it opens");
    let by_path = rustix::fs::stat(region.path()).expect("the path leads to the file");
    let by_descriptor = rustix::fs::fstat(region.as_fd()).expect("the descriptor is open");
    assert_eq!((by_path.st_dev, by_path.st_ino), (by_descriptor.st_dev, by_descriptor.st_ino));
    if bench.stored().is_some() {
        assert_eq!(by_descriptor.st_size.cast_unsigned(), model.len() as u64);
    }
    Verdict::Passed
}

pub(super) fn drains_that_wait(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(LEN);
    assert_eq!(region.drain_blocks(), bench.facts().granularity == Granularity::Page);
    region.close().expect("a region can be closed");
    assert_eq!(region.drain_blocks(), bench.facts().granularity == Granularity::Page);
    Verdict::Passed
}
