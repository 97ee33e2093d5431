//! Numbers from the caller, at the edges of their range, in debug and in release builds.

use super::*;

const EDGES: [u64; 6] = [0, 1, 5, 6, u64::MAX - 1, u64::MAX];

/// Five records; what is done, then that they and the next Lsn are as they were.
fn unharmed(work: impl Fn(&mut Log<SimRegion>, u64)) {
    for edge in EDGES {
        let region = region(4);
        let mut log = options().format(region.clone()).unwrap();
        for lsn in 1..=5 {
            log.append(&payload(lsn)).unwrap();
        }
        work(&mut log, edge);
        let (kept, next) = (all(&log), log.last().next());
        assert_eq!(log.append(b"next").unwrap(), next, "{edge}");
        drop(log);
        let log = options().open_region(region).unwrap();
        assert_eq!(all(&log), [kept, vec![(next.get(), b"next".to_vec())]].concat(), "{edge}");
    }
}

#[test]
fn truncation_after_any_lsn() {
    unharmed(|log, lsn| {
        log.truncate_after(Lsn::new(lsn)).unwrap();
        assert_eq!(all(log), expected(1..lsn.min(5) + 1));
    });
    unharmed(|log, lsn| {
        log.release_up_to(Lsn::new(5)).unwrap();
        let truncated = log.truncate_after(Lsn::new(lsn));
        assert_eq!(truncated.is_err(), lsn < 5);
    });
}

#[test]
fn release_up_to_any_lsn() {
    unharmed(|log, lsn| {
        let released = log.release_up_to(Lsn::new(lsn));
        match released {
            Ok(()) => assert!(lsn <= 5),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::NoRecord { lsn: of } if *of == lsn));
                assert!(lsn > 5);
            }
        }
        let kept = if lsn > 5 { 1 } else { lsn + 1 };
        assert_eq!((log.released().get(), all(log)), (kept - 1, expected(kept..6)));
    });
}

#[test]
fn reading_from_any_lsn() {
    unharmed(|log, lsn| {
        let from = |first: u64| expected(first.clamp(1, 6)..6);
        let read: Vec<_> = log.reader(Lsn::new(lsn)).unwrap().map(Result::unwrap).collect();
        assert_eq!(read.len(), from(lsn).len(), "{lsn}");
        assert_eq!(backwards(log, lsn).len() as u64, lsn.min(5));
        let one = log.read(Lsn::new(lsn));
        assert_eq!(one.ok(), (1..=5).contains(&lsn).then(|| payload(lsn)));
        let mut reader = log.reader(Lsn::new(lsn)).unwrap();
        while reader.next_record().unwrap().is_some() {}
        assert!(reader.next_record().unwrap().is_none());
    });
}

#[test]
fn records_and_growth_of_any_length() {
    unharmed(|log, len| {
        let len = usize::try_from(len).unwrap();
        let mut writer = log.writer();
        writer.stage(b"before").unwrap();
        let reserved = writer.reserve(len).map(drop);
        assert_eq!(reserved.is_ok(), len <= 6);
        writer.discard();
        drop(writer);
        let (before, segments) = (log.region().len(), log.space().segments);
        let grown = log.grow(len as u64);
        assert_eq!(grown.is_ok(), len <= 6, "it does not shrink, and it is not that long");
        assert_eq!((log.region().len(), log.space().segments), (before, segments));
    });
}

#[test]
fn segments_of_any_size() {
    for bytes in [0, 1, u64::MAX - 1, u64::MAX, u64::MAX - 4095] {
        let error = LogOptions::new().segment_bytes(bytes).format(region(4)).unwrap_err();
        let refused =
            matches!(error.kind(), ErrorKind::Unaligned { .. } | ErrorKind::TooLarge { .. });
        assert!(refused, "{bytes}: {error}");
    }
}

/// As many empty records as fit, one more, and many more: of one writer and of the log, after a
/// record that leaves no room, one line, or all of it.
#[test]
fn records_of_no_bytes_take_room() {
    let room = options().format(region(4)).unwrap().commit_bytes_max() as usize;
    // Each but the first takes four bytes for its length, at a multiple of four.
    for (first, fit) in [(room, 0), (room - 3, 0), (room - 4, 1), (room - 5, 1), (0, room / 4)] {
        let region = region(4);
        let log = options().format(region.clone()).unwrap();
        for lsn in 1..=4 {
            log.append(&vec![lsn; room]).unwrap();
        }
        log.release_up_to(Lsn::FIRST).unwrap();
        let with = |count: usize| {
            std::iter::once(vec![9; first]).chain(std::iter::repeat_n(Vec::new(), count))
        };
        for more in [1, 2, 3000] {
            let mut writer = log.writer();
            with(fit).for_each(|payload| writer.stage(&payload).unwrap());
            let refused = writer.stage(b"").unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::TooLarge { max: 0 }), "{refused}");
            assert!(writer.reserve(0).is_err());
            assert_eq!(writer.staged() as usize, fit + 1);
            for error in [
                writer.append_many(with(fit + more)).unwrap_err(),
                log.append_many(with(fit + more)).unwrap_err(),
            ] {
                assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }), "{error}");
            }
        }
        let lsns = log.append_many(with(fit)).unwrap();
        assert_eq!(lsns, Lsn::new(5)..Lsn::new(6 + fit as u64));
        drop(log);
        let log = options().open_region(region).unwrap();
        let found: Vec<_> = all(&log).into_iter().map(|(_, payload)| payload).collect();
        let acknowledged = (2..=4).map(|lsn| vec![lsn; room]).chain(with(fit));
        assert!(found.into_iter().eq(acknowledged), "{first}");
    }
}

/// The same bound where the place is taken, whoever has counted before.
#[test]
fn no_place_is_larger_than_a_segment() {
    let log = options().format(region(4)).unwrap();
    for more in [1, 64, u64::MAX - SEGMENT] {
        let mut active = None;
        let refused = log.core.ensure(&mut active, log.core.layout.room() + more).unwrap_err();
        assert!(
            matches!(refused.kind(), ErrorKind::TooLarge { max } if *max == log.commit_bytes_max())
        );
        assert!(active.is_none());
    }
    let mut active = None;
    log.core.ensure(&mut active, log.core.layout.room()).unwrap();
    for need in [64, u64::MAX] {
        active.as_mut().unwrap().at = SEGMENT;
        assert!(log.core.ensure(&mut active, need).is_err() == (need > SEGMENT));
    }
}
