//! What the state promises without a crash; `pmem-tests/tests/state.rs` has the crashes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::thread;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::*;
use crate::format::header::{Header, Kind};
use crate::region::Options;

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Root {
    generation: u64,
    tree: [u64; 7],
}

fn root(generation: u64) -> Root {
    Root { generation, tree: [generation ^ 0x55; 7] }
}

fn memory() -> AnyRegion {
    Options::new().len(region_bytes(64)).in_memory().unwrap()
}

fn bytes(region: &impl Region) -> Vec<u8> {
    let mut bytes = vec![0; region.len() as usize];
    region.read(0, &mut bytes).unwrap();
    bytes
}

fn options() -> StateOptions<Root> {
    StateOptions::new()
}

fn flip(region: &impl Region, at: u64) {
    let mut byte = [0];
    region.read(at, &mut byte).unwrap();
    region.write(at, &[byte[0] ^ 4]).unwrap();
}

#[test]
fn what_is_stored_is_loaded_and_found() {
    let region = memory();
    let state = options().format(&region, &root(1)).unwrap();
    assert_eq!((state.load(), state.sequence()), (root(1), 1));
    state.store(&root(2)).unwrap();
    assert_eq!(state.update(|r| std::mem::replace(r, root(3))).unwrap(), root(2));
    assert_eq!(state.with(|r| r.generation), 3);
    assert_eq!(state.sequence(), 3);
    state.abandon();

    let state = options().open_region(&region).unwrap();
    assert_eq!(state.load(), root(3));
    let found = state.recovery();
    assert!(!found.clean && !found.slot_invalid && found.healed, "{found:?}");
    state.update(|r| r.generation = 4).unwrap();
    drop(state);
    let state = options().open_region(&region).unwrap();
    assert_eq!(state.load(), Root { generation: 4, ..root(3) });
    assert!(state.recovery().clean && !state.recovery().healed);
    state.store(&root(5)).unwrap();
    state.close().unwrap();
    assert!(matches!(region.drain().unwrap_err().kind(), ErrorKind::Closed));
}

#[test]
fn a_panic_in_an_update_changes_nothing() {
    let region = memory();
    let state = options().format(&region, &root(1)).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        state.update(|r| {
            r.generation = 9;
            panic!("in the middle");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!((state.load(), state.sequence()), (root(1), 1));
    assert_eq!(state.update(|r| *r).unwrap(), root(1));
    drop(state);
    assert_eq!(options().open_region(&region).unwrap().load(), root(1));
}

#[test]
fn other_layouts_are_refused_or_upgraded() {
    let region = memory();
    options().version(3).format(&region, &root(1)).unwrap();
    let before = bytes(&region);
    let refused = |options: StateOptions<Root>| {
        let error = options.open_region(&region).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::OtherLayout { found: 3, .. }), "{error}");
        assert_eq!(bytes(&region), before);
    };
    refused(options().version(2));
    refused(options().version(2).upgrade(|_, _| Some(root(7))));
    refused(options().version(4));
    refused(options().version(4).upgrade(|_, _| None));
    let error = StateOptions::<u64>::new().version(3).open_region(&region).unwrap_err();
    let text = "open: the value has layout version 3 and 64 bytes, where version 3 and 8 bytes \
                are expected";
    assert_eq!(error.to_string(), text);

    // In memory only, where nothing may be changed.
    let upgrade = |version: u32, bytes: &[u8]| {
        let old = Root::read_from_bytes(bytes).ok()?;
        Some([u64::from(version), old.generation])
    };
    let newer = || StateOptions::<[u64; 2]>::new().version(4).upgrade(upgrade);
    let state = newer().read_only(true).open_region(&region).unwrap();
    assert_eq!((state.load(), state.sequence()), ([3, 1], 1));
    drop(state);
    assert_eq!(bytes(&region), before);

    let state = newer().open_region(&region).unwrap();
    assert_eq!((state.load(), state.sequence()), ([3, 1], 2));
    assert_eq!(state.recovery().upgraded_from, Some(3));
    state.abandon();
    let state = StateOptions::<[u64; 2]>::new().version(4).open_region(&region).unwrap();
    assert_eq!(state.load(), [3, 1]);
    assert!(state.recovery().clean && state.recovery().upgraded_from.is_none());
}

#[test]
fn an_upgrade_needs_the_room_that_was_given() {
    let large = || StateOptions::<[u8; 5000]>::new().version(2).upgrade(|_, _| Some([7; 5000]));
    let region = Options::new().len(1 << 20).in_memory().unwrap();
    options().format(&region, &root(1)).unwrap();
    let error = large().open_region(&region).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooLarge { max: 4072 }), "{error}");
    assert_eq!(options().open_region(&region).unwrap().load(), root(1));
    options().capacity(5000).format(&region, &root(1)).unwrap();
    assert_eq!(large().open_region(&region).unwrap().load(), [7; 5000]);
    // All of it.
    options().format(&region, &root(1)).unwrap();
    let filling = StateOptions::<[u8; 4072]>::new().version(2).upgrade(|_, _| Some([7; 4072]));
    assert_eq!(filling.open_region(&region).unwrap().load(), [7; 4072]);
}

#[test]
fn a_seed_repeats_the_salt() {
    let formatted = |options: StateOptions<Root>| {
        let region = memory();
        options.format(&region, &root(1)).unwrap();
        bytes(&region)
    };
    assert_eq!(formatted(options().seed(5)), formatted(options().seed(5)));
    assert_ne!(formatted(options().seed(5)), formatted(options().seed(6)));
    assert_ne!(formatted(options()), formatted(options()));
}

#[test]
fn one_damaged_copy_of_anything_is_healed() {
    for at in [0, 17, 63, 4096, 4096 + 63, 8192, 8192 + 87, 12288, 12288 + 87] {
        let region = memory();
        options().format(&region, &root(1)).unwrap();
        let whole = without_mark(&region);
        flip(&region, at);
        let damaged = bytes(&region);
        let state = options().read_only(true).open_region(&region).unwrap();
        assert_eq!(state.load(), root(1));
        assert_eq!(state.recovery().header_invalid, at < 8192);
        assert_eq!(state.recovery().slot_invalid, at >= 8192);
        assert!(!state.recovery().clean && !state.recovery().healed);
        drop(state);
        assert_eq!(bytes(&region), damaged, "read only");
        let state = options().open_region(&region).unwrap();
        assert!(state.recovery().healed);
        drop(state);
        assert_eq!(without_mark(&region), whole);
        assert!(options().open_region(&region).unwrap().recovery().clean, "{at}");
    }
}

/// All bytes but those of the opening mark, which counts openings.
fn without_mark(region: &impl Region) -> Vec<u8> {
    let mut bytes = bytes(region);
    for at in [64, 4096 + 64] {
        bytes[at..at + 64].fill(0);
    }
    bytes
}

#[test]
fn two_damaged_copies_are_an_error() {
    for at in [[0, 4096], [8192, 12288]] {
        let region = memory();
        options().format(&region, &root(1)).unwrap();
        for copy in at {
            flip(&region, copy + 20);
        }
        let before = bytes(&region);
        let error = options().open_region(&region).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Damaged(_)), "{error}");
        let whole_area = if at[0] == 0 { 0..8192 } else { 8192..16384 };
        assert_eq!(error.range(), Some(whole_area));
        let error = options().open_or_format(&region, &root(2)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Damaged(_)), "{error}");
        assert_eq!(bytes(&region), before);
    }
}

#[test]
fn reading_stores_nothing_and_follows_a_writer() {
    let region = memory();
    let writer = options().format(&region, &root(1)).unwrap();
    let reader = options().read_only(true).open_region(&region).unwrap();
    assert!(!reader.refresh().unwrap());
    writer.store(&root(2)).unwrap();
    writer.store(&root(3)).unwrap();
    assert_eq!(reader.load(), root(1));
    assert!(reader.refresh().unwrap());
    assert_eq!((reader.load(), reader.sequence()), (root(3), 3));
    let error = reader.store(&root(4)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ReadOnly));
    assert!(matches!(reader.update(|_| ()).unwrap_err().kind(), ErrorKind::ReadOnly));
    assert!(!writer.refresh().unwrap());
    drop(reader);
    assert_eq!(writer.load(), root(3));
}

#[test]
fn files_are_complete_and_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root");
    let state = State::create(&path, &root(1)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), region_bytes(64));
    assert!(matches!(State::<Root>::open(&path).unwrap_err().kind(), ErrorKind::Locked));
    // A reader needs no lock.
    assert_eq!(options().read_only(true).open(&path).unwrap().load(), root(1));
    drop(state);
    let error = State::create(&path, &root(2)).unwrap_err();
    assert_eq!(error.errno(), Some(rustix::io::Errno::EXIST));
    let state = State::open_or_create(&path, &root(2)).unwrap();
    assert_eq!(state.load(), root(1));
    state.close().unwrap();
    let other = directory.path().join("other");
    assert_eq!(State::open_or_create(&other, &root(2)).unwrap().load(), root(2));
    assert_eq!(State::<Root>::open(&other).unwrap().load(), root(2));
    let private = directory.path().join("private");
    let of_the_owner = options().region(Options::new().mode(0o400));
    drop(of_the_owner.create(&private, &root(1)).unwrap());
    assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o400);
    let error = options().read_only(true).create(&other, &root(1)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ReadOnly) && error.path() == Some(&*other));
}

#[test]
fn of_two_that_create_the_file_the_later_finds_it() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..200 {
        let path = directory.path().join(format!("root-{round}"));
        let both = Barrier::new(2);
        let attempt = || {
            both.wait();
            State::open_or_create(&path, &root(1)).err()
        };
        let errors = thread::scope(|scope| {
            let other = scope.spawn(attempt);
            [attempt(), other.join().unwrap()]
        });
        for error in errors.iter().flatten() {
            // The other one may still have it.
            assert!(matches!(error.kind(), ErrorKind::Locked), "{error}");
        }
        assert_eq!(State::<Root>::open(&path).unwrap().load(), root(1));
    }
}

#[test]
fn what_is_no_state_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let whole = {
        drop(State::create(&path, &root(1)).unwrap());
        fs::read(&path).unwrap()
    };
    let refused = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        let errors = [
            State::<Root>::open(&path).unwrap_err(),
            State::open_or_create(&path, &root(2)).unwrap_err(),
            options().read_only(true).open(&path).unwrap_err(),
        ];
        assert_eq!(fs::read(&path).unwrap(), content);
        let [error, ..] = errors;
        assert_eq!(error.path(), Some(&*path));
        error
    };
    for content in [vec![0; 16384], b"#!/bin/sh\n".repeat(2000), vec![1; 100], vec![0xff; 8192]] {
        let error = refused(&content);
        assert!(matches!(error.kind(), ErrorKind::WrongFormat("a daxmap state")), "{error}");
    }
    assert!(matches!(refused(b"").kind(), ErrorKind::Empty));
    for len in [8192, 8193, 12288, 16383] {
        let error = refused(&whole[..len]);
        let cut = ErrorKind::TooShort { len: len as u64, asked: 16384 };
        assert_eq!(format!("{:?}", error.kind()), format!("{cut:?}"));
    }

    // Another kind, and a newer version.
    let region = memory();
    let header = Header { kind: Kind::Log, version: 1, salt: 5, numbers: [4072, 0, 0, 0] };
    header.complete(&region).unwrap();
    let error = refused(&bytes(&region));
    assert!(error.to_string().ends_with("this is not a daxmap state"), "{error}");
    Header { kind: Kind::State, version: 3, ..header }.complete(&region).unwrap();
    let error = refused(&bytes(&region));
    assert!(matches!(error.kind(), ErrorKind::NewerFormat { found: 3, newest: 2 }), "{error}");
}

#[test]
fn formatting_leaves_nothing_of_what_was_there() {
    let region = memory();
    let state = options().format(&region, &root(1)).unwrap();
    (2..6).for_each(|generation| state.store(&root(generation)).unwrap());
    drop(state);
    let state = options().format(&region, &root(9)).unwrap();
    assert_eq!((state.load(), state.sequence()), (root(9), 1));
    drop(state);
    let state = options().open_or_format(&region, &root(10)).unwrap();
    assert_eq!(state.load(), root(9));
    drop(state);
    region.fill_flush(0, 8192, 0).unwrap();
    let error = options().open_region(&region).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WrongFormat(_)), "{error}");
    assert_eq!(options().open_or_format(&region, &root(10)).unwrap().load(), root(10));
    let short = Options::new().len(12288).in_memory().unwrap();
    let error = options().format(&short, &root(1)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooShort { len: 12288, asked: 16384 }), "{error}");
}

#[test]
fn an_inspection_sees_what_is_there() {
    let region = memory();
    let state = options().version(6).format(&region, &root(1)).unwrap();
    assert!(inspect(&region).unwrap().is_settled());
    state.store(&root(2)).unwrap();
    let seen = inspect(&region).unwrap();
    assert!(seen.is_sound() && !seen.is_settled());
    assert_eq!((seen.format, seen.capacity, seen.newest()), (2, 4072, Some(0)));
    assert_eq!(seen.slot_offsets, [8192, 12288]);
    let value = root(2).as_bytes().to_vec();
    assert_eq!(seen.slots[0], Slot::Valid { sequence: 2, version: 6, value });
    state.abandon();
    flip(&region, 8192 + 50);
    flip(&region, 4096);
    let seen = inspect(&region).unwrap();
    assert_eq!((seen.header_copies, seen.newest()), ([true, false], Some(1)));
    assert_eq!(seen.slots[0], Slot::Invalid);
    assert!(!seen.is_sound());
    flip(&region, 12288);
    assert_eq!(inspect(&region).unwrap().newest(), None);
}

#[test]
fn an_inspection_is_sound_only_if_all_of_it_is() {
    let region = memory();
    options().format(&region, &root(1)).unwrap();
    assert!(inspect(&region).unwrap().is_sound());
    for at in [0, 4096, 8192, 12288] {
        flip(&region, at);
        let seen = inspect(&region).unwrap();
        assert!(!seen.is_sound() && !seen.is_settled(), "{at}");
        flip(&region, at);
    }
    let short = Options::new().len(16384 - 64).in_memory().unwrap();
    short.write(0, &bytes(&region)[..16384 - 64]).unwrap();
    let error = inspect(&short).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooShort { asked: 16384, .. }), "{error}");
}

#[test]
fn values_of_any_size_and_alignment() {
    #[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C, align(64))]
    struct Lines([u8; 192]);

    fn round_trip<T: Plain + PartialEq + fmt::Debug>(first: &T, second: &T) {
        let len = region_bytes(size_of::<T>() as u32);
        let region = Options::new().len(len).in_memory().unwrap();
        let state = StateOptions::new().format(&region, first).unwrap();
        assert_eq!(&state.load(), first);
        state.update(|value| *value = copy_of(second)).unwrap();
        assert_eq!(&state.load(), second);
        drop(state);
        assert_eq!(&StateOptions::<T>::new().open_region(&region).unwrap().load(), second);
    }
    round_trip(&(), &());
    round_trip(&1_u8, &2);
    round_trip(&1_u128, &u128::MAX);
    round_trip(&Lines([1; 192]), &Lines([2; 192]));
    round_trip(&[1_u8; 39], &[2; 39]);
    round_trip(&[1_u8; 40], &[2; 40]);
    round_trip(&[1_u8; 41], &[2; 41]);
    round_trip(&[1_u8; 4072], &[2; 4072]);
    round_trip(&[1_u8; 4073], &[2; 4073]);
    round_trip(&[1_u64; 2000], &[2; 2000]);
}

/// `FORMAT.md` says what is where.
#[test]
fn the_bytes_are_those_of_the_format() {
    let region = memory();
    StateOptions::new().seed(3).format(&region, &7_u64).unwrap();
    let bytes = bytes(&region);
    let at = |from: usize, len: usize| &bytes[from..from + len];
    let number = |from: usize| u64::from_le_bytes(at(from, 8).try_into().unwrap());
    let check = |key: u64, place: u64, from: usize, len: usize| {
        let seed = key.wrapping_add(place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        twox_hash::XxHash3_64::oneshot_with_seed(seed, at(from, len))
    };
    let magic = u64::from_le_bytes(*b"daxmapST");
    for copy in [0, 4096] {
        assert_eq!(number(copy), magic);
        assert_eq!((number(copy + 8), number(copy + 24)), (2, 4072));
        assert!(number(copy + 16) != 0 && number(copy + 16) == number(16));
        assert_eq!([32, 40, 48].map(|place| number(copy + place)), [0; 3]);
        assert_eq!(number(copy + 56), check(magic, copy as u64, copy, 56));
        // Opened when it was made, closed by the drop: no count is known.
        let mark = copy + 64;
        assert_eq!(number(mark), check(number(16), mark as u64, mark + 8, 48));
        assert_eq!([8, 16].map(|place| number(mark + place)), [2, 32 | 1 << 32]);
        assert!(at(mark + 24, 4096 - 88).iter().all(|&byte| byte == 0));
    }
    for slot in [8192, 12288] {
        assert_eq!(number(slot), check(number(16), slot as u64, slot + 8, 24));
        assert_eq!([8, 16, 24].map(|place| number(slot + place)), [1, 8 | 1 << 32, 7]);
        assert!(at(slot + 32, 4096 - 32).iter().all(|&byte| byte == 0));
    }
}
