//! Pages that vanish while the region is open: an error for who touches them, nothing worse.

use daxmap::Region;

use super::Verdict;
use super::subject::Access;
use super::support::{Bench, PAGE, Refusal, pattern, refused, same};

const LEN: u64 = 16 * PAGE;
/// What is left of the file.
const LEFT: u64 = 4 * PAGE;
const NO_CUT: Verdict = Verdict::NotApplicable("a device cannot be truncated");

/// Reads that touch a page past the cut.
fn reads_fail(region: &dyn Region, left: u64) {
    for (offset, len) in [(left, 1), (left, PAGE), (LEN - 1, 1), (left + 5, 2 * PAGE + 7)] {
        let what = format!("read({offset}, {len}) past {left}");
        let result = region.read(offset, &mut vec![0; len as usize]);
        let error = refused(&what, result, Refusal::Gone);
        assert_eq!(error.range(), Some(offset..offset + len), "{what}: {error}");
        assert!(!error.is_durability_unknown(), "{what}: {error}");
    }
    if left > 0 {
        let across = region.read(left - 100, &mut [0; 200]);
        refused("read across the cut", across, Refusal::Gone);
    }
    refused("load", region.load_u64(left), Refusal::Gone);
    refused("load of the last word", region.load_u64(LEN - 8), Refusal::Gone);
}

/// Stores that touch a page past the cut, where they go into the mapping.
fn stores_fail(region: &dyn Region, left: u64) {
    for (offset, len) in [(left, 1), (left, 64), (left + 3, 1500), (LEN - 1, 1), (left, LEN - left)]
    {
        let data = vec![7; len as usize];
        let what = format!("({offset}, {len}) past {left}");
        refused(&format!("write{what}"), region.write(offset, &data), Refusal::Gone);
        refused(&format!("write_flush{what}"), region.write_flush(offset, &data), Refusal::Gone);
        refused(&format!("fill_flush{what}"), region.fill_flush(offset, len, 7), Refusal::Gone);
    }
    refused("store", region.store_u64(left, 7), Refusal::Gone);
    for current in [0, 7] {
        let exchanged = region.compare_exchange_u64(left + 8, current, 7);
        refused("exchange", exchanged, Refusal::Gone);
    }
    if left > 0 {
        let across = region.write(left - 100, &[9; 200]);
        refused("write across the cut", across, Refusal::Gone);
    }
}

pub(super) fn truncated(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(LEN);
    let mut model = pattern(region.len(), 51);
    region.write_persist(0, &model).expect("the region can be written");
    let reader = bench.open(Access::ReadOnly);
    if !bench.cut(LEFT) {
        return NO_CUT;
    }
    reads_fail(&*region, LEFT);
    reads_fail(&*reader, LEFT);
    if bench.stores_into_mapping() {
        stores_fail(&*region, LEFT);
        // A failed store is not a failed flush: what is left goes on.
        model[LEFT as usize - 100..LEFT as usize].fill(9);
        region.write_persist(10, b"goes on").expect("pages that are left can be written");
        model[10..17].copy_from_slice(b"goes on");
        region.store_u64(64, 5).expect("words that are left can be stored");
        model[64..72].copy_from_slice(&5_u64.to_ne_bytes());
        same(&bench.stored().expect("a file"), &model[..LEFT as usize], "the file");
    } else {
        let exchanged = region.compare_exchange_u64(LEFT, 0, 7);
        refused("exchange", exchanged, Refusal::Gone);
        assert_eq!(bench.stored().expect("a file").len() as u64, LEFT, "refused calls wrote");
    }
    let mut found = vec![0; LEFT as usize];
    for region in [&*region, &*reader] {
        region.read(0, &mut found).expect("pages that are left can be read");
        same(&found, &model[..LEFT as usize], "pages that are left");
        region.load_u64(LEFT - 8).expect("words that are left can be loaded");
    }
    // A page that comes back is a page again.
    assert!(bench.cut(LEN));
    let mut byte = [9];
    reader.read(LEFT, &mut byte).expect("a page that came back can be read");
    assert_eq!(byte, [0]);
    Verdict::Passed
}

pub(super) fn truncated_to_nothing(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(LEN);
    region.fill_flush(0, LEN, 1).expect("the region can be filled");
    let reader = bench.open(Access::ReadOnly);
    if !bench.cut(0) {
        return NO_CUT;
    }
    reads_fail(&*region, 0);
    reads_fail(&*reader, 0);
    if bench.stores_into_mapping() {
        stores_fail(&*region, 0);
        assert_eq!(bench.stored().expect("a file").len(), 0, "a refused store made a page");
    } else {
        // Whether a write past the end is done or refused, the process lives on, and the
        // drain after it does not say that all is well.
        let _ = region.write(0, b"lost");
        assert!(region.persist(0, 4).is_err(), "a drain of a file that is gone succeeded");
    }
    let _ = region.close();
    Verdict::Passed
}

pub(super) fn grow_when_truncated(bench: &Bench<'_>) -> Verdict {
    if !bench.grows() {
        return Verdict::NotApplicable("a device has the length it has");
    }
    let region = bench.create_growable(LEN, 64 * PAGE);
    let model = pattern(LEN, 52);
    region.write_persist(0, &model).expect("the region can be written");
    if !bench.cut(LEFT) {
        return NO_CUT;
    }
    // Done or refused: either way the bytes that are left are left.
    let grown = region.grow(2 * LEN);
    let mut found = vec![0; LEFT as usize];
    region.read(0, &mut found).expect("pages that are left can be read");
    same(&found, &model[..LEFT as usize], "pages that are left");
    if grown.is_ok() {
        assert_eq!(region.len(), 2 * LEN);
        region.read(LEN, &mut [0; 100]).expect("new bytes can be read");
    } else {
        assert_eq!(region.len(), LEN, "a refused growth changed the length");
    }
    Verdict::Passed
}
