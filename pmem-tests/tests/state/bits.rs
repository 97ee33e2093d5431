//! Every bit of a file flipped in turn.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use daxmap::state::{State, inspect, region_bytes};
use daxmap::{AnyRegion, ErrorKind, Options, Region};
use pmem_tests::scratch::Directory;

use crate::model::{Value, options, value};

/// The file is read again and again: in memory.
const MEMORY: &str = "/dev/shm";
const WORDS: usize = 8;
type Root = Value<WORDS>;

type Found = Result<(Root, bool), ErrorKind>;

/// What is found, or the error.
fn found(region: &AnyRegion) -> Found {
    let open = || options::<WORDS>(1).read_only(true).open_region(region);
    let state = catch_unwind(AssertUnwindSafe(open)).expect("no panic");
    state.map(|s| (s.load(), s.recovery().clean)).map_err(|error| error.kind().clone())
}

/// Flips every bit of a state in turn: `expect` says what may be found then.
fn flip_all(region: &AnyRegion, expect: impl Fn(u64, Found)) {
    let mut whole = vec![0; region.len() as usize];
    region.read(0, &mut whole).unwrap();
    for (at, &byte) in whole.iter().enumerate() {
        for bit in 0..8 {
            region.write(at as u64, &[byte ^ 1 << bit]).unwrap();
            expect(at as u64, found(region));
            assert!(catch_unwind(AssertUnwindSafe(|| inspect(region))).is_ok());
        }
        region.write(at as u64, &[byte]).unwrap();
    }
}

/// The bytes that mean something; the rest of their pages is padding.
fn is_meant(at: u64) -> bool {
    match at {
        // The header, and the opening mark: 24 bytes and 32.
        0..8192 => at % 4096 < 64 + 24 + 32,
        _ => at % 4096 < 24 + 8 * WORDS as u64,
    }
}

#[test]
fn of_a_closed_state_each_is_noticed_and_costs_nothing() {
    let directory = Directory::new(MEMORY);
    let path = directory.path().join("root");
    let state = State::create(&path, &value::<WORDS>(1, 1)).unwrap();
    state.store(&value(2, 1)).unwrap();
    state.close().unwrap();
    flip_all(&Options::new().open(&path).unwrap(), |at, found| {
        let (root, clean) = found.unwrap_or_else(|error| panic!("byte {at}: {error}"));
        assert_eq!(root, value(2, 1), "byte {at}");
        assert_eq!(clean, !is_meant(at), "byte {at}");
    });
}

/// The last store has one copy: damaged, it is as if the store had not been, and the report says
/// that there was something.
#[test]
fn of_a_crashed_state_each_is_noticed() {
    let directory = Directory::new(MEMORY);
    let path = directory.path().join("root");
    let state = State::create(&path, &value::<WORDS>(1, 1)).unwrap();
    for generation in 2..=5 {
        state.store(&value(generation, 1)).unwrap();
    }
    let crashed = fs::read(&path).unwrap();
    drop(state);
    fs::write(&path, &crashed).unwrap();
    let region = Options::new().open(&path).unwrap();
    assert_eq!(found(&region).unwrap(), (value(5, 1), false));
    let newest = inspect(&region).unwrap();
    let newest = newest.slot_offsets[newest.newest().unwrap()];
    flip_all(&region, |at, found| {
        let (root, _) = found.unwrap_or_else(|error| panic!("byte {at}: {error}"));
        let last = (newest..newest + 4096).contains(&at) && is_meant(at);
        assert_eq!(root, value(if last { 4 } else { 5 }, 1), "byte {at}");
    });
    region.write(newest + 30, &[0x5a]).unwrap();
    let state = options::<WORDS>(1).open_region(&region).unwrap();
    assert_eq!(state.load(), value(4, 1));
    assert!(state.recovery().slot_invalid && !state.recovery().clean);
}

/// Two damaged copies of one thing are an error, whichever bits they are. Of the opening mark, which
/// no value needs, they are told.
#[test]
fn two_in_both_copies_are_an_error() {
    let region = Options::new().len(region_bytes(64)).in_memory().unwrap();
    drop(options::<WORDS>(1).format(&region, &value::<WORDS>(1, 1)).unwrap());
    let flip = |at, bits: u8| {
        let mut byte = [0];
        region.read(at, &mut byte).unwrap();
        region.write(at, &[byte[0] ^ bits]).unwrap();
    };
    for (second, copy) in [(4096, 0), (12288, 8192)] {
        flip(second + 33, 0x10);
        let is_mark = |at: u64| at < 8192 && at % 4096 >= 64;
        for at in (copy..copy + 4096).filter(|&at| is_meant(at) && !is_mark(at)) {
            for bit in 0..8 {
                flip(at, 1 << bit);
                let error = found(&region).unwrap_err();
                assert!(matches!(error, ErrorKind::Damaged(_)), "byte {at}: {error}");
                flip(at, 1 << bit);
            }
        }
        flip(second + 33, 0x10);
    }
    assert!(found(&region).unwrap().1);
    for at in [64, 4096 + 64] {
        flip(at + 33, 0x10);
    }
    assert_eq!(found(&region).unwrap(), (value(1, 1), false));
}
