//! Releases that wait for somebody else's sync.

use super::*;
use crate::sim::{Explorer, SplitMix64};

/// More than a third of a segment.
fn long(lsn: u64) -> Vec<u8> {
    vec![lsn as u8; 1400]
}

fn longs(lsns: Range<u64>) -> Vec<(u64, Vec<u8>)> {
    lsns.map(|lsn| (lsn, long(lsn))).collect()
}

#[test]
fn what_is_released_lazily_cannot_be_read_and_is_there_again_after_a_crash() {
    let region = region(4);
    let mut log = options().format(region.clone()).unwrap();
    (1..=2).for_each(|lsn| assert_eq!(log.append(&long(lsn)).unwrap(), Lsn::new(lsn)));
    log.release_lazily(Lsn::FIRST).unwrap();
    log.release_lazily(Lsn::ZERO).unwrap();
    let refused = log.release_lazily(Lsn::new(3)).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::NoRecord { lsn: 3 }));
    let read = log.read(Lsn::FIRST).unwrap_err();
    assert!(matches!(read.kind(), ErrorKind::Released { first: 2 }));
    assert_eq!((log.released(), all(&log)), (Lsn::FIRST, longs(2..3)));
    let crashed = |seed| {
        let log = options().open_region(region.crash(seed)).unwrap();
        (log.released().get(), all(&log))
    };
    assert_eq!(crashed(1), (0, longs(1..3)));
    // The same again, and durable; then with a truncation, then with a close.
    log.release_up_to(Lsn::FIRST).unwrap();
    assert_eq!(crashed(2), (1, longs(2..3)));
    (3..=5).for_each(|lsn| assert_eq!(log.append(&long(lsn)).unwrap(), Lsn::new(lsn)));
    log.release_lazily(Lsn::new(2)).unwrap();
    log.truncate_after(Lsn::new(4)).unwrap();
    assert_eq!(crashed(3), (2, longs(3..5)));
    log.release_lazily(Lsn::new(3)).unwrap();
    log.close().unwrap();
    assert_eq!(crashed(4), (3, longs(4..5)));
}

/// A release of less makes it durable, too.
#[test]
fn any_release_carries_what_was_released_lazily() {
    let region = region(4);
    let log = options().format(region.clone()).unwrap();
    (1..=3).for_each(|lsn| assert_eq!(log.append(&long(lsn)).unwrap(), Lsn::new(lsn)));
    log.release_up_to(Lsn::FIRST).unwrap();
    log.release_lazily(Lsn::new(2)).unwrap();
    log.release_up_to(Lsn::FIRST).unwrap();
    log.abandon();
    let log = options().open_region(region.crash(1)).unwrap();
    assert_eq!((log.released(), all(&log)), (Lsn::new(2), longs(3..4)));
}

/// Many lazy releases in a log of few segments never make it full, and each crash leaves what is not
/// released, all of it.
#[test]
fn lazy_releases_make_room_and_a_crash_leaves_no_gap() {
    for mode in Mode::ALL {
        for seed in 0..3 {
            let mut random = SplitMix64::new(seed);
            let len = layout::SEGMENTS + 3 * SEGMENT;
            let mut region = SimRegion::new(mode, len, len);
            let mut log = options().format(region.clone()).unwrap();
            let (mut last, mut lowest) = (0, 0);
            for _ in 0..60 {
                last += 1;
                assert_eq!(log.append(&long(last)).unwrap(), Lsn::new(last));
                match random.below(6) {
                    0..=3 => log.release_lazily(Lsn::new(last - random.below(2))).unwrap(),
                    4 => {
                        lowest = last;
                        log.release_up_to(Lsn::new(last)).unwrap();
                    }
                    _ => {
                        let most = log.released().get();
                        log.abandon();
                        region = region.crash(random.below(1 << 40));
                        log = options().open_region(region.clone()).unwrap();
                        let released = log.released().get();
                        assert!((lowest..=most).contains(&released), "{lowest} {released} {most}");
                        assert_eq!(all(&log), longs(released + 1..last + 1));
                        log.release_up_to(Lsn::new(last)).unwrap();
                        lowest = last;
                    }
                }
                let released = log.released().get();
                assert_eq!(all(&log), longs(released + 1..last + 1));
            }
            log.abandon();
        }
    }
}

/// Every crash, also of the segment that is begun in the place of what was released.
#[test]
fn no_segment_is_used_again_before_its_release_is_durable() {
    const LEN: u64 = layout::SEGMENTS + 2 * SEGMENT;
    for mode in Mode::ALL {
        let report = Explorer::new(mode, LEN)
            .images(60)
            .samples(12)
            .depth(1)
            .setup(|region| options().format(region.clone()).map(Log::abandon))
            .run(
                |region, notes| {
                    let log = options().open_region(region.clone())?;
                    for lsn in 1..=7 {
                        log.append(&long(lsn))?;
                        notes.ack(lsn);
                        log.release_lazily(Lsn::new(lsn - 1))?;
                    }
                    log.abandon();
                    Ok(())
                },
                |region, history| {
                    let log = options().open_region(region.clone());
                    let log = log.map_err(|error| error.to_string())?;
                    let acked = history.acked().last().map_or(0, |lsn| *lsn);
                    let (released, last) = (log.released().get(), log.last().get());
                    let right = released < acked.max(1)
                        && last >= acked
                        && all(&log) == longs(released + 1..last + 1);
                    right.then_some(()).ok_or_else(|| format!("{acked}: {released} {last}"))
                },
            );
        assert!(report.expect_clean().crash_points > 10, "{mode:?}");
    }
}
