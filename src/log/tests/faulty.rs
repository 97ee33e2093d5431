//! A write that fails or panics, and what others make of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::time::Duration;

use super::hooked::{At, What};
use super::*;

/// A commit that failed is below a truncation: it was never acknowledged, and nobody misses it.
#[test]
fn a_truncation_above_a_commit_that_failed_does_not_call_it_durable() {
    let region = region(4);
    let mut log = options().format(Hooked::new(region.clone())).unwrap();
    {
        let (mut one, mut other) = (log.writer(), log.writer());
        for lsn in 1..=4 {
            let writer = if lsn < 4 { &mut one } else { &mut other };
            assert_eq!(writer.append(&payload(lsn)).unwrap(), Lsn::new(lsn));
        }
        log.core.region.plan(At::Write, What::Fails);
        assert!(one.append(b"never").is_err());
        for lsn in 6..=8 {
            assert_eq!(other.append(&payload(lsn)).unwrap(), Lsn::new(lsn));
        }
    }
    log.truncate_after(Lsn::new(7)).unwrap();
    log.abandon();
    let log = options().open_region(region).unwrap();
    let lsns: Vec<u64> = all(&log).iter().map(|(lsn, _)| *lsn).collect();
    assert_eq!(lsns, [1, 2, 3, 4, 6, 7]);
}

/// The segment of one of the log's own writers is called back, and the region panics.
#[test]
fn a_panic_while_segments_are_called_back_leaves_nobody_waiting() {
    let log = options().format(Hooked::new(region(2))).unwrap();
    let log: &'static _ = Box::leak(Box::new(log));
    // Full to the last line: their ends are noted when they are left.
    let most = vec![1; log.commit_bytes_max() as usize];
    log.append(&most).unwrap();
    log.append(&most).unwrap();
    let mut writer = log.writer();
    log.core.region.plan(At::Write, What::Panics);
    let panicked = catch_unwind(AssertUnwindSafe(|| writer.append(b"no room")));
    assert!(panicked.is_err(), "{panicked:?}");
    let (done, ended) = channel();
    std::thread::spawn(move || {
        done.send(log.append(b"no room").map_err(|error| error.kind().clone()))
    });
    let refused = ended.recv_timeout(Duration::from_secs(60)).expect("it waits for nobody");
    assert!(refused.is_err(), "{refused:?}");
}

/// The whole block of a commit that did not come to its end, by a writer of the log's own or by one that
/// was forgotten, and a truncation of it: the record that has its number then is the only one.
#[test]
fn a_truncated_record_of_a_commit_that_panicked_stays_away() {
    for forgotten in [false, true] {
        let region = region(4);
        let mut log = options().format(Hooked::new(region.clone())).unwrap();
        for lsn in 1..=8 {
            assert_eq!(log.append(&payload(lsn)).unwrap(), Lsn::new(lsn));
        }
        let panicked = if forgotten {
            log.core.recall_spares().unwrap();
            let mut writer = log.writer();
            log.core.region.plan(At::Drain, What::Panics);
            let panicked = catch_unwind(AssertUnwindSafe(|| writer.append(b"never")));
            std::mem::forget(writer);
            panicked
        } else {
            log.core.region.plan(At::Drain, What::Panics);
            catch_unwind(AssertUnwindSafe(|| log.append(b"never")))
        };
        assert!(panicked.is_err(), "{panicked:?}");
        log.truncate_after(Lsn::new(8)).unwrap();
        // Of a size that the segment of the others has no room for.
        let large = vec![7; log.commit_bytes_max() as usize];
        assert_eq!(log.append(&large).unwrap(), Lsn::new(9));
        log.abandon();
        let mut records = expected(1..9);
        records.push((9, large));
        assert_eq!(all(&options().open_region(region).unwrap()), records, "{forgotten}");
    }
}

/// The same where all writers share a segment, which is not used any more then; and this process reads on.
#[test]
fn a_truncated_record_of_a_shared_commit_that_panicked_stays_away() {
    let len = layout::SEGMENTS + 4 * SEGMENT;
    let region = SimRegion::new(Mode::PageCache, len, 2 * len);
    let mut log = options().format(Hooked::new(region.clone())).unwrap();
    for lsn in 1..=8 {
        assert_eq!(log.append(&payload(lsn)).unwrap(), Lsn::new(lsn));
    }
    log.core.region.plan(At::Drain, What::Panics);
    let panicked = catch_unwind(AssertUnwindSafe(|| log.append(b"never")));
    assert!(panicked.is_err(), "{panicked:?}");
    log.truncate_after(Lsn::new(8)).unwrap();
    let large = vec![7; log.commit_bytes_max() as usize];
    assert_eq!(log.append(&large).unwrap(), Lsn::new(9));
    let mut records = expected(1..9);
    records.push((9, large));
    assert_eq!(all(&log), records, "nobody is held back by what was truncated");
    log.abandon();
    assert_eq!(all(&options().open_region(region).unwrap()), records);
}

/// A second truncation takes nothing back of what the first one made void.
#[test]
fn a_record_that_two_truncations_took_stays_away() {
    let region = region(4);
    let mut log = options().format(Hooked::new(region.clone())).unwrap();
    for lsn in 1..=8 {
        assert_eq!(log.append(&payload(lsn)).unwrap(), Lsn::new(lsn));
    }
    log.core.region.plan(At::Drain, What::Panics);
    let panicked = catch_unwind(AssertUnwindSafe(|| log.append(b"never")));
    assert!(panicked.is_err(), "{panicked:?}");
    log.truncate_after(Lsn::new(8)).unwrap();
    log.truncate_after(Lsn::new(5)).unwrap();
    let large = vec![7; log.commit_bytes_max() as usize];
    assert_eq!(log.append(&large).unwrap(), Lsn::new(6));
    log.abandon();
    let mut records = expected(1..6);
    records.push((6, large));
    assert_eq!(all(&options().open_region(region).unwrap()), records);
}
