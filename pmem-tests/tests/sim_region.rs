//! The simulated region keeps the contract of the trait.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use daxmap::probe::Report;
use daxmap::{Backend, Durability, ErrorKind, Granularity, Region, Result};
use daxmap_sim::{Faults, Mode, SimRegion};
use pmem_tests::conformance::{self, Access, Facts, Subject, Verdict};

/// Regions of one mode, kept by name. Opening one again gives the same region.
struct SimSubject {
    mode: Mode,
    regions: Mutex<HashMap<String, SimRegion>>,
}

impl Subject for SimSubject {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn facts(&self) -> Facts {
        let (backend, durability, granularity) = match self.mode {
            Mode::PageCache => (Backend::PageCache, Durability::Fsync, Granularity::Page),
            Mode::Eadr => (Backend::FsDax, Durability::PowerFail, Granularity::Byte),
            _ => (Backend::FsDax, Durability::PowerFail, Granularity::CacheLine),
        };
        Facts {
            backend,
            durability,
            granularity,
            emulated: true,
            len_unit: 1,
            guarded: true,
            writable_views: false,
        }
    }

    fn create(&self, file: &str, len: u64, max_len: u64) -> Result<Box<dyn Region>> {
        let region = SimRegion::new(self.mode, len, max_len);
        self.regions.lock().unwrap().insert(file.to_owned(), region.clone());
        Ok(Box::new(region))
    }

    fn open(&self, file: &str, _: Access) -> Result<Box<dyn Region>> {
        Ok(Box::new(self.regions.lock().unwrap()[file].clone()))
    }

    fn report(&self, _: &str) -> Option<(Report, Box<dyn Region>)> {
        None
    }

    fn cut(&self, _: &str, _: u64) -> bool {
        false
    }

    fn stored(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn remove(&self, file: &str) {
        self.regions.lock().unwrap().remove(file);
    }
}

/// Checks that ask for what a simulated region has not, and what that is.
const NOT_ASKED: &[(&str, &str)] = &[
    ("accepted_ranges", "a view of its bytes"),
    ("every_way_to_call", "a view of its bytes"),
    ("views", "a view of its bytes"),
    ("close", "a view of its bytes"),
    ("grows", "a view of its bytes"),
    ("growth_under_load", "a view of its bytes"),
    ("too_large", "a view of its bytes"),
    ("failed_growth", "a view of its bytes, and system calls that fail"),
    ("failed_sync", "system calls that fail"),
    ("failed_sync_in_growth", "system calls that fail"),
    ("failed_deep_flush", "system calls that fail"),
    ("no_drain_without_sync", "system calls that fail"),
    ("drain_of_shortened_file", "a file that can be cut"),
    ("first_stores", "pages that are faulted in"),
    ("shrinks", "a file that can be cut"),
    ("sync_all_waits", "system calls that fail"),
    ("reopen", "a file that outlives its regions"),
    ("one_writer", "a lock"),
    ("read_only", "access rights"),
    ("flush_counts", "the library's counters of instructions"),
    ("write_flush_counts", "the library's counters of instructions"),
    ("deep_flush_counts", "the library's counters of instructions"),
];

#[test]
fn the_contract_of_the_trait_holds_in_every_mode() {
    for (name, why) in NOT_ASKED {
        assert!(conformance::CHECKS.iter().any(|check| check.name == *name), "{name}: {why}");
    }
    for mode in Mode::ALL {
        let subject = SimSubject { mode, regions: Mutex::default() };
        let asked = |check: &str| NOT_ASKED.iter().all(|(name, _)| *name != check);
        let mut passed = 0;
        for outcome in conformance::run_some(&subject, asked) {
            println!("{mode:?} {outcome}");
            assert!(!matches!(outcome.verdict, Verdict::Failed(_)), "{mode:?} {outcome}");
            passed += usize::from(outcome.verdict == Verdict::Passed);
        }
        assert!(passed >= 18, "only {passed} checks applied in {mode:?}");
    }
}

#[test]
fn growth_adds_zeros_and_keeps_to_its_bound() {
    for mode in Mode::ALL {
        let region = SimRegion::new(mode, 100, 1000);
        region.write(90, &[1; 10]).unwrap();
        region.grow(700).unwrap();
        region.write_persist(600, &[2; 100]).unwrap();
        let mut bytes = [9; 700];
        region.read(0, &mut bytes).unwrap();
        assert!(bytes[..90].iter().chain(&bytes[100..600]).all(|&byte| byte == 0));
        assert!(bytes[90..100] == [1; 10] && bytes[600..] == [2; 100]);
        let error = region.grow(1001).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TooLarge { max: 1000 }), "{error}");
        assert_eq!(region.len(), 700);
        region.grow(1000).unwrap();
        region.grow(1).unwrap();
        assert_eq!(region.len(), 1000);
    }
}

#[test]
fn after_close_everything_is_refused() {
    let region = SimRegion::new(Mode::Adr, 128, 256);
    region.store_u64(0, 3).unwrap();
    region.flush(0, 8).unwrap();
    region.close().unwrap();
    // Closing drains.
    assert_eq!(region.crash(0).load_u64(0).unwrap(), 3);
    assert_eq!(region.crash(5).load_u64(0).unwrap(), 3);
    let refused = [
        region.write(0, &[1]),
        region.read(0, &mut [0]),
        region.write_flush(0, &[1]),
        region.fill_flush(0, 1, 1),
        region.flush(0, 1),
        region.drain(),
        region.store_u64(0, 1),
        region.load_u64(0).map(drop),
        region.compare_exchange_u64(0, 3, 4).map(drop),
        region.deep_flush(0, 1),
        region.grow(200),
        region.close(),
    ];
    for result in refused {
        assert!(matches!(result.unwrap_err().kind(), ErrorKind::Closed));
    }
    assert_eq!(region.len(), 128);
}

#[test]
fn an_error_stays_the_cause_after_close() {
    let mut faults = Faults::default();
    faults.failing_drain = Some(1);
    let region = SimRegion::with_faults(Mode::PageCache, 512, 512, faults);
    let error = region.write_persist(0, &[1]).unwrap_err();
    assert!(error.is_durability_unknown() && !error.is_failed());
    for _ in 0..2 {
        assert!(region.close().unwrap_err().is_failed());
    }
    assert!(matches!(region.read(0, &mut [0]).unwrap_err().kind(), ErrorKind::Closed));
    // What the failed drain should have covered is lost or not, whatever comes after.
    let found: BTreeSet<u8> = (0..50).map(|seed| first_byte(&region.crash(seed))).collect();
    assert_eq!(found, BTreeSet::from([0, 1]));
}

fn first_byte(region: &SimRegion) -> u8 {
    let mut byte = [9];
    region.read(0, &mut byte).unwrap();
    byte[0]
}

#[test]
fn a_region_that_forgets_errors_goes_on_and_does_not_get_the_bytes_back() {
    let mut faults = Faults::default();
    faults.failing_drain = Some(1);
    faults.forgets_errors = true;
    let region = SimRegion::with_faults(Mode::PageCache, 1024, 1024, faults);
    assert!(region.write_persist(0, &[1]).is_err());
    region.drain().unwrap();
    region.write_persist(512, &[1]).unwrap();
    let found: BTreeSet<u8> = (0..50).map(|seed| first_byte(&region.crash(seed))).collect();
    assert_eq!(found, BTreeSet::from([0, 1]));
    // Flushed anew, it is one more write.
    region.write_persist(1, &[1]).unwrap();
    assert!((0..50).all(|seed| first_byte(&region.crash(seed)) == 1));
}

#[test]
fn a_crash_is_picked_by_its_seed_and_is_a_region_of_its_own() {
    let region = SimRegion::new(Mode::Adr, 4096, 4096);
    for line in 0..64 {
        region.store_u64(line * 64, line + 1).unwrap();
    }
    let image = |seed| -> Vec<u64> {
        let image = region.crash(seed);
        (0..64).map(|line| image.load_u64(line * 64).unwrap()).collect()
    };
    assert_eq!(image(3), image(3));
    assert_ne!(image(3), image(4));
    let image = region.crash(3);
    image.store_u64(0, 77).unwrap();
    assert_eq!(region.load_u64(0).unwrap(), 1);
    region.settle();
    assert!((0..64).all(|line| region.crash(9).load_u64(line * 64).unwrap() == line + 1));
}
