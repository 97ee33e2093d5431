//! Growth: the base stays, the bytes stay, and a refusal leaves everything as it was.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use daxmap::{Backend, ErrorKind, Region};

use super::Verdict;
use super::subject::Access;
use super::support::{Bench, METHODS, PAGE, Refusal, contents, pattern, refused, same};
use super::words::StopOnDrop;
use crate::failing::with_failing;

const NO_GROWTH: Verdict = Verdict::NotApplicable("a device has the length it has");

/// The address of the first byte.
fn base(region: &dyn Region) -> *const u8 {
    // SAFETY: the view is not read.
    unsafe { region.slice(0, 1) }.expect("a region has a first byte").as_ptr()
}

/// The file must be as long as the region.
fn check_file(bench: &Bench<'_>, model: &[u8]) {
    if let Some(stored) = bench.stored() {
        same(&stored, model, "the file");
    }
}

pub(super) fn grows(bench: &Bench<'_>) -> Verdict {
    if !bench.grows() {
        return NO_GROWTH;
    }
    let max = 5 << 20;
    let region = bench.create_growable(1000, max);
    let mut model = pattern(1000, 31);
    region.write_persist(0, &model).expect("the region can be written");
    let start = base(&*region);
    // SAFETY: nobody changes these bytes from here on.
    let view = unsafe { region.slice(0, 1000) }.expect("a view");
    for new_len in [1001, PAGE, PAGE + 1, 3 * PAGE, 3 * PAGE + 5, 2 << 20, (4 << 20) + 3, max] {
        let old_len = model.len();
        region.grow(new_len).unwrap_or_else(|error| panic!("grow to {new_len}: {error}"));
        model.resize(new_len as usize, 0);
        assert_eq!(region.len(), new_len);
        assert_eq!(base(&*region), start, "the base has moved");
        same(&contents(&*region), &model, "old bytes, then zeros");
        check_file(bench, &model);
        // The new bytes can be used, up to the last one.
        let tail = pattern(new_len - old_len as u64, new_len);
        region.write_persist(old_len as u64, &tail).expect("new bytes can be written");
        model[old_len..].copy_from_slice(&tail);
        refused("past the new end", region.write(new_len, b"x"), Refusal::OutOfBounds);
        same(view, &model[..1000], "a view from before");
    }
    drop(region);
    let region = bench.open(Access::ReadOnly);
    assert_eq!(region.len(), max, "the length is the file's");
    same(&contents(&*region), &model, "after reopening");
    Verdict::Passed
}

/// Another region makes the file longer, and this one is not told, or is.
pub(super) fn never_zeroes(bench: &Bench<'_>) -> Verdict {
    if !bench.grows() {
        return NO_GROWTH;
    }
    let region = bench.create_growable(2 * PAGE, 16 * PAGE);
    let mut model = pattern(2 * PAGE, 35);
    region.write_persist(0, &model).expect("the region can be written");
    let other = bench.open(Access::Unlocked);
    other.grow(4 * PAGE).expect("the file can grow");
    model.extend(pattern(2 * PAGE, 36));
    other.write_persist(2 * PAGE, &model[2 * PAGE as usize..]).expect("new bytes can be written");
    if let Err(error) = region.grow(3 * PAGE) {
        assert!(matches!(error.kind(), ErrorKind::FileLonger { .. }), "{error}");
        assert_eq!(region.len(), 2 * PAGE);
    }
    assert_eq!(region.grow_to_file().expect("the file's length"), 4 * PAGE);
    same(&contents(&*region), &model, "what another region has added");
    region.grow(6 * PAGE).expect("the file can grow");
    model.resize(6 * PAGE as usize, 0);
    same(&contents(&*region), &model, "and zeros behind");
    assert_eq!(region.grow_to_file().expect("the file's length"), 6 * PAGE);
    check_file(bench, &model);
    Verdict::Passed
}

pub(super) fn shrinks(bench: &Bench<'_>) -> Verdict {
    if !bench.grows() {
        return NO_GROWTH;
    }
    let max = 64 * PAGE;
    let region = bench.create_growable(max, max);
    let mut model = pattern(max, 37);
    region.write_persist(0, &model).expect("the region can be written");
    if bench.stored().is_none() {
        return Verdict::NotApplicable("there is no file to cut");
    }
    let start = base(&*region);
    for new_len in [max, max + 1, 40 * PAGE + 9, 40 * PAGE, 3 * PAGE - 1, 5] {
        // Kept back, and partly cut off.
        let at = (new_len.min(region.len()) - 5).min(region.len() - 8);
        region.write(at, b"kept cut").expect("a write inside works");
        model[at as usize..][..8].copy_from_slice(b"kept cut");
        region.shrink(new_len).unwrap_or_else(|error| panic!("shrink to {new_len}: {error}"));
        model.truncate(new_len as usize);
        assert_eq!((region.len(), base(&*region)), (model.len() as u64, start));
        same(&contents(&*region), &model, "what is left");
        region.send().expect("what is left can be sent");
        check_file(bench, &model);
        for method in METHODS.iter().filter(|method| method.offered(&bench.facts())) {
            let past = (method.call)(&*region, region.len() - 1, 2);
            refused(method.name, past, Refusal::OutOfBounds);
        }
        // Old bytes do not come back.
        region.grow(max).expect("it grows again");
        model.resize(max as usize, 0);
        same(&contents(&*region), &model, "zeros where it was cut off");
        let tail = pattern(max - new_len.min(max), new_len);
        region.write_persist(max - tail.len() as u64, &tail).expect("and can be written");
        model[(max as usize - tail.len())..].copy_from_slice(&tail);
        check_file(bench, &model);
    }
    let other = bench.open(Access::Unlocked);
    match region.shrink(PAGE) {
        // Where the two know each other.
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Unsupported(_)), "{error}");
            same(&contents(&*region), &model, "a refusal changes nothing");
        }
        Ok(()) => model.truncate(PAGE as usize),
    }
    drop(other);
    region.shrink(PAGE).expect("nobody else has more");
    model.truncate(PAGE as usize);
    check_file(bench, &model);
    let failed = with_failing(libc::SYS_ftruncate, libc::EIO, || region.shrink(5));
    let error = refused("shrink", failed, Refusal::Os(libc::EIO));
    assert!(!error.is_durability_unknown(), "{error}");
    same(&contents(&*region), &model, "a refusal changes nothing");
    let failed = with_failing(libc::SYS_fsync, libc::EIO, || region.shrink(5));
    assert!(refused("shrink", failed, Refusal::Os(libc::EIO)).is_durability_unknown());
    refused("write", region.write(0, b"x"), Refusal::Failed);
    Verdict::Passed
}

pub(super) fn no_growth(bench: &Bench<'_>) -> Verdict {
    let region = bench.create_growable(5 * PAGE, 10 * PAGE);
    let model = pattern(region.len(), 32);
    region.write_persist(0, &model).expect("the region can be written");
    for new_len in [region.len(), region.len() - 1, PAGE, 1, 0] {
        region.grow(new_len).unwrap_or_else(|error| panic!("grow to {new_len}: {error}"));
        same(&contents(&*region), &model, "after growth to no more");
        check_file(bench, &model);
    }
    Verdict::Passed
}

pub(super) fn too_large(bench: &Bench<'_>) -> Verdict {
    let max = 16 * PAGE;
    let region = bench.create_growable(5 * PAGE, max);
    let model = pattern(region.len(), 33);
    region.write_persist(0, &model).expect("the region can be written");
    let start = base(&*region);
    for new_len in [u64::MAX, u64::MAX - 1, i64::MAX as u64, i64::MAX as u64 + 1, 1 << 40] {
        let what = format!("grow to {new_len}");
        refused(&what, region.grow(new_len), Refusal::TooLarge);
        assert_eq!(region.len(), model.len() as u64, "{what}");
        same(&contents(&*region), &model, &what);
        check_file(bench, &model);
    }
    if bench.grows() {
        refused("one past", region.grow(max + 1), Refusal::TooLarge);
        check_file(bench, &model);
        region.grow(max).expect("growth up to the reservation");
        refused("one more", region.grow(max + 1), Refusal::TooLarge);
    }
    assert_eq!(base(&*region), start, "the base has moved");
    region.write_persist(0, b"still works").expect("a refusal is not final");
    Verdict::Passed
}

pub(super) fn growth_under_load(bench: &Bench<'_>) -> Verdict {
    const THREADS: u64 = 3;
    const STRIPE: u64 = 700;
    if !bench.grows() {
        return NO_GROWTH;
    }
    let max = 1 << 20;
    let region = bench.create_growable(PAGE, max);
    let start = base(&*region);
    let (stop, turns) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for id in 0..THREADS {
            let (region, stop, turns) = (&region, &stop, &turns);
            scope.spawn(move || {
                let mut turn = 0;
                while !stop.load(Ordering::Relaxed) {
                    let data = pattern(STRIPE, turn * THREADS + id);
                    region.write_flush(id * STRIPE, &data).expect("old bytes can be written");
                    let mut found = vec![0; STRIPE as usize];
                    region.read(id * STRIPE, &mut found).expect("old bytes can be read");
                    same(&found, &data, "old bytes while the region grows");
                    // The newest byte is there as soon as the length says so.
                    let len = region.len();
                    let mut last = [0xEE];
                    region.read(len - 1, &mut last).expect("the last byte can be read");
                    turn += 1;
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _stop = StopOnDrop(&stop);
        for step in 1..=16 {
            let (from, to) = (region.len(), PAGE + step * 12_345);
            region.grow(to).expect("the region can grow");
            let mut new = vec![0xEE; (to - from) as usize];
            region.read(from, &mut new).expect("new bytes can be read");
            assert!(new.iter().all(|&byte| byte == 0), "new bytes are zero");
            region.write_flush(from, &pattern(to - from, step)).expect("new bytes can be written");
            let turns_before = turns.load(Ordering::Relaxed);
            while turns.load(Ordering::Relaxed) < turns_before + THREADS {
                thread::yield_now();
            }
        }
    });
    assert_eq!(base(&*region), start, "the base has moved");
    region.drain().expect("everything can be drained");
    check_file(bench, &contents(&*region));
    Verdict::Passed
}

pub(super) fn racing_growth(bench: &Bench<'_>) -> Verdict {
    if !bench.grows() {
        return NO_GROWTH;
    }
    let region = bench.create_growable(PAGE, 256 * PAGE);
    thread::scope(|scope| {
        for id in 0..4 {
            let region = &region;
            scope.spawn(move || {
                for step in 1..12 {
                    let want = PAGE + step * 4 * 3001 + id * 3001;
                    region.grow(want).expect("the region can grow");
                    let len = region.len();
                    assert!(len >= want, "asked for {want}, got {len}");
                    region.write(want - 1, &[1]).expect("what was asked for can be used");
                }
            });
        }
    });
    assert_eq!(region.len(), PAGE + 11 * 4 * 3001 + 3 * 3001);
    region.drain().expect("the region can be drained");
    check_file(bench, &contents(&*region));
    let set: u64 = contents(&*region).iter().map(|&byte| u64::from(byte)).sum();
    assert_eq!(set, 44, "no growth wiped what another thread wrote");
    Verdict::Passed
}

/// Every system call of growth fails in turn.
pub(super) fn failed_growth(bench: &Bench<'_>) -> Verdict {
    if !bench.grows() {
        return NO_GROWTH;
    }
    let mut calls = vec![
        (libc::SYS_fallocate, libc::ENOSPC, "fallocate"),
        (libc::SYS_pwrite64, libc::ENOSPC, "pwrite"),
        (libc::SYS_mmap, libc::ENOMEM, "mmap"),
    ];
    if bench.stores_into_mapping() {
        calls.push((libc::SYS_madvise, libc::EFAULT, "madvise"));
    }
    for (number, errno, call) in calls {
        let region = bench.create_growable(5000, 64 * PAGE);
        // There it would unmap old pages, and what is new is written at once.
        if number == libc::SYS_fallocate && region.backend() == Backend::FsDax {
            with_failing(number, errno, || region.grow(20 * PAGE)).expect("it is not called");
            continue;
        }
        let mut model = pattern(5000, 34);
        region.write(0, &model).expect("the region can be written");
        let start = base(&*region);
        let result = with_failing(number, errno, || region.grow(20 * PAGE));
        let error = refused(call, result, Refusal::Os(errno));
        let message = error.to_string();
        assert!(message.contains(call), "{call}: not named in: {message}");
        assert!(message.contains(&format!("os error {errno}")), "{call}: no errno in: {message}");
        assert!(!error.is_durability_unknown(), "{call}: {message}");
        assert_eq!(error.range(), Some(5000..20 * PAGE), "{call}: {message}");
        assert_eq!(region.len(), 5000, "{call}: the length");
        assert_eq!(base(&*region), start, "{call}: the base has moved");
        same(&contents(&*region), &model, call);
        check_file(bench, &model);
        refused(call, region.read(5000, &mut [0]), Refusal::OutOfBounds);
        // The region goes on, and may grow when the trouble is over.
        region.write_persist(0, &[1]).expect("the region can be written");
        model[0] = 1;
        region.grow(20 * PAGE).expect("the region can grow");
        model.resize(20 * PAGE as usize, 0);
        same(&contents(&*region), &model, call);
        check_file(bench, &model);
    }
    Verdict::Passed
}

/// Page faults of this thread so far.
fn faults() -> i64 {
    // SAFETY: a structure of numbers, filled by the kernel.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage), 0, "getrusage");
        usage.ru_minflt + usage.ru_majflt
    }
}

pub(super) fn first_stores(bench: &Bench<'_>) -> Verdict {
    /// Faults that are not the region's: the stack, a counter's page.
    const OTHERS: i64 = 3;
    if !bench.stores_into_mapping() {
        return Verdict::NotApplicable("stores are system calls here");
    }
    let pages = 256;
    let region = bench.create_growable(pages * PAGE, 2 * pages * PAGE);
    let store = |pages: std::ops::Range<u64>, what: &str| {
        let before = faults();
        pages.for_each(|page| region.store_u64(page * PAGE, 1).expect("a word can be stored"));
        let found = faults() - before;
        assert!(found <= OTHERS, "{what}: {found} page faults");
    };
    store(0..pages, "a new region");
    if bench.grows() {
        region.grow(2 * pages * PAGE).expect("the region can grow");
        store(pages..2 * pages, "new bytes");
        store(0..pages, "old bytes after growth");
    }
    Verdict::Passed
}
