//! Stores through a pointer: every page that was stored into is saved, and no other.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;

use daxmap::checkpoint::{Options, Strategy, Tracking, WorkingSet};
use daxmap::{AnyRegion, Emulation};
use daxmap_sim::SplitMix64;

const PAGE: u64 = 4096;
/// Enough for several transparent huge pages.
const PAGES: u64 = 4096;

fn set(compare: bool) -> (WorkingSet<AnyRegion>, Options) {
    let options = Options::new(PAGES * PAGE).strategy(Strategy::Shadow).compare(compare);
    let region = daxmap::Options::new().len(80 << 20).emulate(Emulation::Adr).in_memory().unwrap();
    (WorkingSet::format(region, &options).unwrap(), options)
}

/// A small set is moved where its pages can be protected, before anybody has a pointer.
#[test]
fn a_set_of_any_size_keeps_its_bytes_when_a_pointer_is_asked_for() {
    for (pages, compare) in [1, 2, 511, 512, 513].into_iter().flat_map(|n| [(n, false), (n, true)])
    {
        let options = Options::new(pages * PAGE).strategy(Strategy::Shadow).compare(compare);
        let region =
            daxmap::Options::new().len(8 << 20).emulate(Emulation::Adr).in_memory().unwrap();
        let mut set = WorkingSet::format(region, &options).unwrap();
        assert!(set.bytes().iter().all(|byte| *byte == 0), "{pages} pages");
        let before: Vec<u8> = (0..pages * PAGE).map(|at| (at % 251) as u8).collect();
        set.write(0, &before).unwrap();
        let base = set.pointer().unwrap();
        assert!(set.bytes() == before, "{pages} pages, compare {compare}");
        set.checkpoint().unwrap();
        let last = (pages * PAGE - 1) as usize;
        // SAFETY: the last byte of the set; no slice of it is alive.
        unsafe { base.as_ptr().add(last).write(255) };
        assert_eq!(set.pointer().unwrap(), base, "{pages} pages: it has moved");
        assert_eq!(set.checkpoint().unwrap().bytes, PAGE, "{pages} pages, compare {compare}");
        assert!(saved(&set, &options) == set.bytes(), "{pages} pages");
        assert_eq!(set.bytes()[last], 255);
        let expected =
            if compare || !kernel_can() { Tracking::Comparison } else { Tracking::WriteProtect };
        assert_eq!(set.tracking(), expected, "{pages} pages");
    }
}

/// What is in the file.
fn saved(set: &WorkingSet<AnyRegion>, options: &Options) -> Vec<u8> {
    let reader = WorkingSet::open(set.region(), &options.clone().read_only(true)).unwrap();
    reader.bytes().to_vec()
}

/// Linux 6.7 brought `PAGEMAP_SCAN`.
fn kernel_can() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(7))
}

#[test]
fn what_finds_the_changes_is_told() {
    let (mut set, _) = set(false);
    assert_eq!(set.tracking(), Tracking::Marked);
    set.pointer().unwrap();
    let expected = if kernel_can() { Tracking::WriteProtect } else { Tracking::Comparison };
    assert_eq!(set.tracking(), expected);
    let (mut set, _) = self::set(true);
    set.pointer().unwrap();
    assert_eq!(set.tracking(), Tracking::Comparison);
}

/// A sandbox may refuse the call that the kernel's marks begin with, and a kernel each one after it.
#[test]
fn where_the_kernel_refuses_pages_are_compared() {
    for (call, errno) in [(libc::SYS_userfaultfd, libc::EPERM), (libc::SYS_ioctl, libc::EINVAL)] {
        pmem_tests::failing::with_failing(call, errno, || {
            let (mut set, options) = set(false);
            let base = set.pointer().unwrap();
            assert_eq!(set.tracking(), Tracking::Comparison);
            // SAFETY: within the set, of which no slice is alive.
            unsafe { base.as_ptr().add((7 * PAGE) as usize).write(1) };
            assert_eq!(set.checkpoint().unwrap().bytes, PAGE);
            assert!(saved(&set, &options) == set.bytes());
        });
    }
}

/// A filter that is installed when the kernel's marks are in use.
#[test]
fn where_the_kernel_begins_to_refuse_all_is_saved_and_pages_are_compared_from_then_on() {
    let (mut set, options) = set(false);
    let base = set.pointer().unwrap();
    // SAFETY: within the set, of which no slice is alive.
    let store =
        |page: u64, value: u8| unsafe { base.as_ptr().add((page * PAGE) as usize).write(value) };
    store(7, 1);
    assert_eq!(set.checkpoint().unwrap().bytes, PAGE);
    let was = set.tracking();
    assert_eq!(was, if kernel_can() { Tracking::WriteProtect } else { Tracking::Comparison });
    store(9, 2);
    let bytes = pmem_tests::failing::with_failing(libc::SYS_ioctl, libc::ENOTTY, || {
        set.checkpoint().unwrap().bytes
    });
    // Which pages were stored into, nobody could say.
    assert_eq!(bytes, if kernel_can() { PAGES * PAGE } else { PAGE });
    assert_eq!(set.tracking(), Tracking::Comparison);
    assert!(saved(&set, &options) == set.bytes());
    store(11, 3);
    assert_eq!(set.checkpoint().unwrap().bytes, PAGE);
    assert!(saved(&set, &options) == set.bytes());
    set.restore(set.list()[0].sequence).unwrap();
}

fn exactly_the_pages_stored_into(compare: bool) {
    let (mut set, options) = set(compare);
    let mut random = SplitMix64::new(3);
    // Some pages exist before the pointer does, in huge pages where the kernel likes.
    set.slice_mut(0, PAGES / 2 * PAGE).unwrap().fill(9);
    set.checkpoint().unwrap();
    let base = set.pointer().unwrap();
    assert_eq!(set.checkpoint().unwrap().bytes, 0);
    for round in 1..40_u8 {
        let mut pages = BTreeSet::new();
        for _ in 0..random.below(200) {
            let at = random.below(PAGES * PAGE);
            let value = round.wrapping_mul(37) ^ (at % 251) as u8 | 1;
            // SAFETY: within the set, and no slice of it is alive.
            unsafe {
                let place = base.as_ptr().add(at as usize);
                // A byte that had the value already is no change to a comparison.
                if place.read() != value {
                    place.write(value);
                    pages.insert(at / PAGE);
                }
            }
        }
        // Loads are no changes, of pages that were never touched before either.
        let mut seen = 0_u64;
        for _ in 0..50 {
            // SAFETY: within the set.
            seen +=
                u64::from(unsafe { base.as_ptr().add(random.below(PAGES * PAGE) as usize).read() });
        }
        assert!(seen < u64::MAX);
        // And what came by the other way.
        let at = random.below(PAGES * PAGE - 8);
        set.write(at, &[round; 8]).unwrap();
        pages.extend([at / PAGE, (at + 7) / PAGE]);
        let checkpoint = set.checkpoint().unwrap();
        assert_eq!(checkpoint.bytes, pages.len() as u64 * PAGE, "round {round}");
        assert!(saved(&set, &options) == set.bytes(), "round {round}: it was not all saved");
    }
    assert_eq!(set.checkpoint().unwrap().bytes, 0);
}

#[test]
fn the_kernel_names_exactly_the_pages_stored_into() {
    assert!(kernel_can(), "could not run: needs Linux 6.7");
    exactly_the_pages_stored_into(false);
}

#[test]
fn comparison_finds_exactly_the_pages_that_differ() {
    exactly_the_pages_stored_into(true);
}

#[test]
fn what_a_system_call_stores_is_found_too() {
    for compare in [false, true] {
        let (mut set, options) = set(compare);
        let base = set.pointer().unwrap();
        set.checkpoint().unwrap();
        // SAFETY: the range is in the set, no other slice of it is alive, and no method is called
        // while this one is.
        let into = unsafe { std::slice::from_raw_parts_mut(base.as_ptr().add(5000), 9000) };
        File::open("/dev/urandom").unwrap().read_exact(into).unwrap();
        assert_eq!(set.checkpoint().unwrap().bytes, 3 * PAGE);
        assert!(saved(&set, &options) == set.bytes());
    }
}

#[test]
fn without_privileges_too() {
    assert!(kernel_can(), "could not run: needs Linux 6.7");
    // SAFETY: the child gives up its privileges, uses the library in memory, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: takes numbers.
        let dropped = unsafe { libc::setgid(65534) == 0 && libc::setuid(65534) == 0 };
        // A process that was root may not look at its own pagemap, until it says so.
        // SAFETY: takes numbers.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
        let (mut set, options) = set(false);
        let base = set.pointer().unwrap();
        // SAFETY: within the set.
        unsafe { base.as_ptr().add(77).write(1) };
        let right = set.tracking() == Tracking::WriteProtect
            && set.checkpoint().unwrap().bytes == PAGE
            && saved(&set, &options) == set.bytes();
        // SAFETY: ends the child at once, without the test harness's exit.
        unsafe { libc::_exit(i32::from(!(dropped && right))) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "needs root to begin with, or the kernel refuses");
}

#[test]
fn a_restored_set_is_saved_whole_and_what_was_stored_before_is_undone() {
    for compare in [false, true] {
        let options = Options::new(PAGES * PAGE).keep(1).compare(compare);
        let region =
            daxmap::Options::new().len(120 << 20).emulate(Emulation::Adr).in_memory().unwrap();
        let mut set = WorkingSet::format(region, &options).unwrap();
        let base = set.pointer().unwrap();
        let store = |page: u64, value: u8| {
            // SAFETY: within the set, of which no slice is alive.
            unsafe { base.as_ptr().add((page * PAGE) as usize).write(value) };
        };
        store(1, 1);
        set.checkpoint().unwrap();
        store(2, 2);
        set.checkpoint().unwrap();
        store(3, 3);
        set.restore(1).unwrap();
        let found = [1, 2, 3].map(|page| set.bytes()[page * PAGE as usize]);
        assert_eq!(found, [1, 0, 0]);
        set.checkpoint().unwrap();
        assert!(saved(&set, &options) == set.bytes());
    }
}
