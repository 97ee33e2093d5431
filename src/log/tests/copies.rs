//! Copies of logs in use, and segments that were lost and are made new.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::AnyRegion;

fn log_in(directory: &Path, len: u64) -> Log<AnyRegion> {
    let region = Options::new().len(layout::SEGMENTS + len);
    LogOptions::new().segment_bytes(SEGMENT).region(region).create(directory.join("log")).unwrap()
}

fn sound(path: &Path) -> Log<AnyRegion> {
    let log = LogOptions::new().open(path).unwrap();
    let found = log.recovery();
    assert!(found.was_closed && found.dropped.is_empty() && found.healed.is_empty(), "{found:?}");
    log
}

#[test]
fn a_copy_has_the_records_and_their_lsns() {
    let directory = tempfile::tempdir().unwrap();
    let (path, again) = (directory.path().join("copy"), directory.path().join("again"));
    let mut log = log_in(directory.path(), 8 * SEGMENT);
    assert!(log.copy_to(&path).unwrap().is_empty());
    assert!(all(&sound(&path)).is_empty());
    let error = log.copy_to(&path).unwrap_err();
    assert_eq!((error.errno(), error.path()), (Some(rustix::io::Errno::EXIST), Some(&*path)));
    std::fs::remove_file(&path).unwrap();
    for lsn in 1..=100 {
        assert_eq!(log.append(&payload(lsn)).unwrap(), Lsn::new(lsn));
    }
    log.append(&vec![9; log.commit_bytes_max() as usize]).unwrap();
    log.truncate_after(Lsn::new(90)).unwrap();
    log.release_up_to(Lsn::new(20)).unwrap();
    assert_eq!(log.copy_to(&path).unwrap(), Lsn::new(21)..Lsn::new(91));
    // Nobody writes into it: its own is whole.
    let copy = sound(&path);
    assert_eq!((copy.released(), all(&copy)), (Lsn::new(20), expected(21..91)));
    assert_eq!(copy.append(&payload(91)).unwrap(), Lsn::new(91));
    // Of a log that was opened for reading, too.
    let reader = LogOptions::new().read_only(true).open(&path).unwrap();
    assert_eq!(reader.copy_to(&again).unwrap(), Lsn::new(21)..Lsn::new(92));
    assert_eq!(all(&sound(&again)), expected(21..92));
    assert_eq!(all(&log), expected(21..91), "it is as it was");
}

/// Lsns that no record has: in the middle, at the end, and all of them.
#[test]
fn a_copy_of_a_log_with_gaps_is_sound() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copy");
    for lost in [4..7, 8..11, 1..4, 1..11] {
        let region = region(3);
        let log = options().format(region.clone()).unwrap();
        for lsn in 1..=10 {
            assert_eq!(log.append(&[lsn as u8; 20]).unwrap(), Lsn::new(lsn));
        }
        log.close().unwrap();
        for lsn in lost.clone() {
            let at = layout::SEGMENTS + layout::BLOCKS + (lsn - 1) * 64;
            region.write(at, &[0xee; 64]).unwrap();
        }
        let log = options().accept_damage(true).open_region(region).unwrap();
        assert_eq!(log.recovery().records, 10 - (lost.end - lost.start));
        log.copy_to(&path).unwrap();
        let copy = sound(&path);
        assert_eq!((all(&copy), copy.last()), (all(&log), Lsn::new(10)), "{lost:?}");
        assert_eq!(copy.append(b"next").unwrap(), Lsn::new(11));
        copy.close().unwrap();
        assert_eq!(sound(&path).recovery().records, log.recovery().records + 1);
        std::fs::remove_file(&path).unwrap();
    }
}

/// Stops a thread, also if an assertion fails.
struct Stop<'a>(&'a AtomicBool);
impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// While records are appended and released.
#[test]
fn a_copy_of_a_log_in_use_is_a_log() {
    let directory = tempfile::tempdir().unwrap();
    let log = log_in(directory.path(), 8 * SEGMENT);
    for lsn in 1..=50 {
        log.append(&payload(lsn)).unwrap();
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut lsn = 50;
            while !stop.load(Ordering::Relaxed) {
                lsn += 1;
                if log.append(&payload(lsn)).is_err() {
                    log.release_up_to(Lsn::new(lsn - 30)).unwrap();
                    log.append(&payload(lsn)).unwrap();
                }
            }
        });
        let stopped = Stop(&stop);
        for number in 0..10 {
            let path = directory.path().join(number.to_string());
            let last = log.last().get();
            let copied = log.copy_to(&path).unwrap();
            let found = all(&sound(&path));
            assert!(copied.end.get() > last, "{copied:?}, {last}");
            assert_eq!(found, expected(copied.start.get()..copied.end.get()), "{number}");
        }
        drop(stopped);
    });
}

#[test]
fn a_lost_segment_is_used_again_when_it_is_made_new() {
    let region = region(3);
    let log = options().format(region.clone()).unwrap();
    for lsn in 1..=100 {
        log.append(&payload(lsn)).unwrap();
    }
    let kept = log.space();
    log.close().unwrap();
    for copy in [0, 4096] {
        region.write_persist(layout::SEGMENTS + SEGMENT + copy, &[0xee; 64]).unwrap();
    }
    assert!(options().open_region(region.clone()).is_err());
    let mut log = options().accept_damage(true).open_region(region.clone()).unwrap();
    assert_eq!((log.space().lost_segments, kept.lost_segments), (1, 0));
    let (left, last) = (all(&log), log.last());
    assert_eq!(log.renew_lost_segments().unwrap(), 1);
    assert_eq!((log.space().lost_segments, log.renew_lost_segments().unwrap()), (0, 0));
    log.abandon();
    // It is no damage any more, and there is room.
    let log = options().open_region(region).unwrap();
    assert_eq!((all(&log), log.last()), (left, last));
    log.release_up_to(last).unwrap();
    for _ in 0..3 {
        log.append(&vec![1; log.commit_bytes_max() as usize]).unwrap();
    }
    assert_eq!(log.space().free_segments, 0);
}
