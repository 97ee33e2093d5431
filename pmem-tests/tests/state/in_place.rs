//! Changes in place: one that fails is taken back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use daxmap::state::{StateOptions, region_bytes};
use daxmap::{AnyRegion, ErrorKind, Options, Region, Result};
use pmem_tests::pass_on;

type Value = [u64; 3];

fn value(number: u64) -> Value {
    [number; 3]
}

/// A region whose drains and whose reads fail when they are told to.
struct Failing {
    region: AnyRegion,
    drains: AtomicBool,
    reads: AtomicBool,
}

impl Failing {
    fn new() -> Self {
        let len = region_bytes(size_of::<Value>() as u32);
        let region = Options::new().len(len).in_memory().unwrap();
        Self { region, drains: AtomicBool::new(false), reads: AtomicBool::new(false) }
    }

    fn fail(&self, fails: &AtomicBool) -> Result<()> {
        // Any error will do.
        if fails.load(Relaxed) { self.region.load_u64(u64::MAX).map(drop) } else { Ok(()) }
    }
}

impl Region for Failing {
    pass_on!(region: sync_all len durability granularity backend is_emulated write fill_flush flush deep_flush load_u64
        store_u64 compare_exchange_u64 grow close slices);

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.fail(&self.reads)?;
        self.region.read(offset, into)
    }

    fn drain(&self) -> Result<()> {
        self.fail(&self.drains)?;
        self.region.drain()
    }
}

fn options() -> StateOptions<Value> {
    StateOptions::new()
}

#[test]
fn a_change_in_place_that_fails_is_taken_back() {
    let region = Failing::new();
    let mut state = options().format(&region, &value(1)).unwrap();
    assert_eq!(state.update_mut(|r| std::mem::replace(r, value(2))).unwrap(), value(1));
    assert_eq!((state.load(), state.sequence()), (value(2), 2));

    let panicked = catch_unwind(AssertUnwindSafe(|| {
        state.update_mut(|r| {
            r[1] = 9;
            panic!("in the middle");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!((state.load(), state.sequence()), (value(2), 2));

    region.drains.store(true, Relaxed);
    state.update_mut(|r| *r = value(3)).unwrap_err();
    region.drains.store(false, Relaxed);
    assert_eq!((state.load(), state.sequence()), (value(2), 2));
    state.update(|r| *r = value(r[0] + 2)).unwrap();
    assert_eq!(state.load(), value(4));
    drop(state);
    assert_eq!(options().open_region(&region).unwrap().load(), value(4));
}

#[test]
fn a_change_in_place_that_cannot_be_taken_back_is_not_stored() {
    let region = Failing::new();
    let mut state = options().format(&region, &value(1)).unwrap();
    state.store(&value(2)).unwrap();
    region.reads.store(true, Relaxed);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        state.update_mut(|r| {
            r[1] = 9;
            panic!("in the middle");
        })
    }));
    region.reads.store(false, Relaxed);
    assert!(panicked.is_err());
    assert_eq!(state.load(), [2, 9, 2], "as it was left");
    for refused in
        [state.store(&value(3)), state.update(|_| ()), state.update_mut(|r| *r = value(3))]
    {
        assert!(matches!(refused.unwrap_err().kind(), ErrorKind::Damaged(_)));
    }
    drop(state);
    assert_eq!(options().open_region(&region).unwrap().load(), value(2));
}
