//! What the simulator's model costs in memory: under 64 bytes for each pending store.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use daxmap::Region;
use daxmap_sim::{Mode, SimRegion};

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

/// The tests share the count.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Counting;

// SAFETY: the system's allocator does the work; this only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes for each pending store while `stores` of them are pending, at rest.
fn per_store(name: &str, stores: u32, store: impl Fn(&SimRegion, u64)) -> f64 {
    let region = SimRegion::new(Mode::Adr, 64 << 20, 64 << 20);
    let before = ALLOCATED.load(Ordering::Relaxed);
    for index in 0..stores {
        store(&region, u64::from(index));
    }
    let taken = ALLOCATED.load(Ordering::Relaxed) - before;
    let each = f64::from(u32::try_from(taken).unwrap()) / f64::from(stores);
    println!("{name}: {stores} pending stores, {each:.1} bytes each");
    each
}

#[test]
fn a_pending_store_costs_less_than_64_bytes() {
    const MAX: f64 = 64.0;
    let _alone = ONE_AT_A_TIME.lock();
    for stores in [1000, 100_000, 777_777] {
        let word = |region: &SimRegion, index: u64| region.store_u64(index * 64, 1).unwrap();
        assert!(per_store("a line each", stores, word) < MAX);
        let one_line = |region: &SimRegion, index: u64| {
            region.store_u64(index % 8 * 8, index).unwrap();
        };
        assert!(per_store("all in one line", stores, one_line) < MAX);
        // The dearest: every store flushed by itself, in a line of its own.
        let flushed = |region: &SimRegion, index: u64| {
            region.store_u64(index * 64, 1).unwrap();
            region.flush(index * 64, 8).unwrap();
        };
        assert!(per_store("a line each, flushed", stores, flushed) < MAX);
        let streamed = |region: &SimRegion, index: u64| {
            region.write_flush(index * 64, &[1; 8]).unwrap();
        };
        assert!(per_store("past the cache", stores, streamed) < MAX);
    }
}

#[test]
fn what_is_durable_costs_nothing_more() {
    let _alone = ONE_AT_A_TIME.lock();
    let region = SimRegion::new(Mode::Adr, 1 << 20, 1 << 20);
    let round = |value: u64| {
        for line in 0..1000 {
            region.store_u64(line * 64, value).unwrap();
            region.flush(line * 64, 8).unwrap();
        }
        region.drain().unwrap();
        ALLOCATED.load(Ordering::Relaxed)
    };
    let first = round(1);
    // Room for what the test runner does meanwhile; the stores of 48 rounds take a megabyte.
    (2..50).for_each(|value| assert!(round(value) < first + (64 << 10)));
}
