//! Reading what is not durable yet, and what is kept with a release.

use std::sync::Arc;

use super::hooked::{At, What};
use super::*;
use crate::sim::{Explorer, SplitMix64};

fn pages(segments: u64) -> SimRegion {
    let len = layout::SEGMENTS + segments * SEGMENT;
    SimRegion::new(Mode::PageCache, len, 2 * len)
}

fn unsynced<R: Region>(log: &Log<R>, from: Lsn) -> Vec<(u64, Vec<u8>)> {
    let records = log.reader_unsynced(from).unwrap();
    records.map(|record| record.map(|(lsn, payload)| (lsn.get(), payload)).unwrap()).collect()
}

/// One reader that goes on, and new ones from each place, over several segments, releases and reopenings.
#[test]
fn what_is_submitted_can_be_read_at_once() {
    for seed in 0..6 {
        let mut random = SplitMix64::new(seed);
        let region = pages(5);
        let mut log = options().format(region.clone()).unwrap();
        let (mut payloads, mut released) = (Vec::new(), 0);
        for _ in 0..3 {
            let mut tails = log.reader_unsynced(Lsn::new(released + 1)).unwrap();
            let mut tailed = released;
            for _ in 0..60 {
                let next = payloads.len() as u64 + 1;
                let len = if random.below(3) == 0 { 1200 } else { random.below(90) };
                let records = vec![vec![next as u8; len as usize]; 1 + random.below(2) as usize];
                let is_full = |error: Error| matches!(error.kind(), ErrorKind::Full { .. });
                match random.below(8) {
                    0..=5 => match log.submit(&records).map(|ticket| ticket.lsns()) {
                        Ok(lsns) => {
                            assert_eq!(lsns.start.get(), next);
                            payloads.extend(records);
                        }
                        Err(error) => assert!(is_full(error)),
                    },
                    6 => match log.append_many(&records) {
                        Ok(_) => payloads.extend(records),
                        Err(error) => assert!(is_full(error)),
                    },
                    _ => {
                        released = log.drive().unwrap().get();
                        log.release_up_to(Lsn::new(released)).unwrap();
                        if tailed < released {
                            tails = log.reader_unsynced(Lsn::new(released + 1)).unwrap();
                            tailed = released;
                        }
                    }
                }
                let written = payloads.len() as u64;
                assert!(log.durable_up_to().get() <= written);
                let expected: Vec<_> = (released + 1..=written)
                    .map(|lsn| (lsn, payloads[lsn as usize - 1].clone()))
                    .collect();
                while let Some(record) = tails.next_record().unwrap() {
                    tailed += 1;
                    assert_eq!(record.lsn, Lsn::new(tailed));
                    assert_eq!(record.payload, payloads[tailed as usize - 1]);
                }
                assert_eq!(tailed, written);
                assert_eq!(unsynced(&log, Lsn::ZERO), expected);
                let skipped = random.below(expected.len() as u64 + 1) as usize;
                let from = Lsn::new(released + 1 + skipped as u64);
                assert_eq!(unsynced(&log, from), expected[skipped..]);
                // The others read what is durable.
                let durable = log.durable_up_to().get().saturating_sub(released) as usize;
                assert_eq!(all(&log), expected[..durable]);
            }
            log.close().unwrap();
            log = options().open_region(region.clone()).unwrap();
        }
    }
}

/// A commit that has not returned, in its sync: it is written.
#[test]
fn a_commit_under_way_can_be_read_and_one_that_is_not_written_cannot() {
    let log = options().format(Hooked::new(pages(4))).unwrap();
    log.append(&payload(1)).unwrap();
    for (at, lsn) in [(At::Write, 2), (At::Drain, 3)] {
        log.core.region.plan(at, What::Stops);
        std::thread::scope(|scope| {
            let appends = scope.spawn(|| log.append(&payload(lsn)));
            log.core.region.meet_twice(|| {
                let below = if at == At::Drain { lsn + 1 } else { lsn };
                assert_eq!(unsynced(&log, Lsn::ZERO), expected(1..below));
                assert_eq!(all(&log), expected(1..lsn));
            });
            assert_eq!(appends.join().unwrap().unwrap(), Lsn::new(lsn));
        });
        assert_eq!(unsynced(&log, Lsn::ZERO), expected(1..lsn + 1));
    }
}

/// What is truncated is not read again, and its Lsns are given to others.
#[test]
fn what_is_truncated_cannot_be_read() {
    let mut log = options().format(pages(4)).unwrap();
    (1..=4).for_each(|number| drop(log.submit([payload(number)]).unwrap()));
    log.truncate_after(Lsn::new(2)).unwrap();
    assert_eq!(unsynced(&log, Lsn::ZERO), expected(1..3));
    drop(log.submit([payload(3)]).unwrap());
    assert_eq!(unsynced(&log, Lsn::ZERO), expected(1..4));
    // On memory it is the same as what is durable.
    let mut log = options().format(region(4)).unwrap();
    (1..=4).for_each(|number| drop(log.submit([payload(number)]).unwrap()));
    log.truncate_after(Lsn::new(2)).unwrap();
    assert_eq!(unsynced(&log, Lsn::ZERO), expected(1..3));
}

/// On a file, by another thread than the one that submits.
#[test]
fn a_thread_reads_on_a_file_what_another_one_submits() {
    const COUNT: u64 = 300;
    let directory = tempfile::tempdir().unwrap();
    let set = LogOptions::new().region(crate::Options::new().len(4 << 20)).segment_bytes(16384);
    let log = Arc::new(set.create(directory.path().join("log")).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=COUNT {
                let ticket = log.submit([payload(number)]).unwrap();
                assert_eq!(unsynced(&log, ticket.lsns().start)[0], (number, payload(number)));
                if number % 50 == 0 {
                    ticket.wait().unwrap();
                }
            }
        });
        let mut reader = log.reader_unsynced(Lsn::ZERO).unwrap();
        let mut next = 1;
        while next <= COUNT {
            if let Some(record) = reader.next_record().unwrap() {
                assert_eq!((record.lsn.get(), record.payload), (next, &payload(next)[..]));
                next += 1;
            }
        }
    });
}

/// Every crash: the note is that of the release that was found.
#[test]
fn a_note_is_kept_with_its_release() {
    const LEN: u64 = layout::SEGMENTS + 3 * SEGMENT;
    let note = |lsn: u64| [lsn as u8; 32];
    for mode in Mode::ALL {
        let report = Explorer::new(mode, LEN)
            .images(60)
            .samples(20)
            .depth(1)
            .setup(|region| options().format(region.clone()).map(Log::abandon))
            .run(
                move |region, notes| {
                    let mut log = options().open_region(region.clone())?;
                    for number in 1..=4 {
                        log.append(&payload(number))?;
                        if number % 2 == 0 {
                            log.release_with_note(Lsn::new(number - 1), note(number - 1))?;
                            notes.ack(number - 1);
                        } else {
                            // Leaves the note as it is.
                            log.truncate_after(Lsn::new(number - 1))?;
                            log.append(&payload(number))?;
                        }
                    }
                    log.close()
                },
                move |region, history| {
                    let log = options().open_region(region.clone());
                    let log = log.map_err(|error| error.to_string())?;
                    let (released, kept) = (log.released().get(), log.note());
                    let acked = history.acked().last().map_or(0, |lsn| *lsn);
                    let right = released >= acked && kept == note(released);
                    right.then_some(()).ok_or_else(|| format!("{acked}: {released}, {kept:?}"))
                },
            );
        assert!(report.expect_clean().crash_points > 10, "{mode:?}");
    }
}

#[test]
fn a_note_can_be_replaced_by_itself_and_is_copied() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copy");
    let region = region(4);
    let log = options().format(region.clone()).unwrap();
    assert_eq!(log.note(), [0; 32]);
    log.append_many([[1; 8]; 3]).unwrap();
    log.release_with_note(Lsn::new(2), [1; 32]).unwrap();
    log.release_with_note(Lsn::new(1), [2; 32]).unwrap();
    assert_eq!((log.released(), log.note()), (Lsn::new(2), [2; 32]));
    let refused = log.release_with_note(Lsn::new(4), [3; 32]).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::NoRecord { lsn: 4 }));
    log.release_up_to(Lsn::new(3)).unwrap();
    log.copy_to(&path).unwrap();
    log.abandon();
    let log = options().read_only(true).open_region(region).unwrap();
    assert_eq!((log.released(), log.note()), (Lsn::new(3), [2; 32]));
    let copy = Log::open(&path).unwrap();
    assert_eq!((copy.released(), copy.note()), (Lsn::new(3), [2; 32]));
}

/// A copy has the note of what it says was released, also where another process releases meanwhile.
#[test]
fn a_copy_has_the_note_of_its_release() {
    let directory = tempfile::tempdir().unwrap();
    let region = region(4);
    let log = options().format(region.clone()).unwrap();
    for lsn in 1..=3 {
        log.append(&payload(lsn)).unwrap();
    }
    log.release_with_note(Lsn::FIRST, [1; 32]).unwrap();
    let other = options().read_only(true).open_region(region.clone()).unwrap();
    assert_eq!(other.released_and_note(), (Lsn::FIRST, [1; 32]));
    for lsn in 4..=20 {
        log.append(&vec![1; 2000]).unwrap();
        log.release_with_note(Lsn::new(lsn), [lsn as u8; 32]).unwrap();
    }
    let path = directory.path().join("copy");
    let outcome = other.copy_to(&path);
    let copy = options().read_only(true).open(&path);
    if let (Ok(lsns), Ok(copy)) = (outcome, copy) {
        assert_eq!(
            (lsns.start, copy.released_and_note()),
            (Lsn::new(21), (Lsn::new(20), [20; 32]))
        );
    } else {
        panic!("it is copied");
    }
    assert_eq!(other.released_and_note(), (Lsn::new(20), [20; 32]));
    // In the process of the writer.
    let path = directory.path().join("another");
    log.copy_to(&path).unwrap();
    let copy = options().read_only(true).open(&path).unwrap();
    assert_eq!(copy.released_and_note(), (Lsn::new(20), [20; 32]));
}
