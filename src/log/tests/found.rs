//! What opening finds, says and mends.

use super::*;

/// Flips a bit.
fn damage(region: &SimRegion, at: u64) {
    let mut byte = [0];
    region.read(at, &mut byte).unwrap();
    region.write_persist(at, &[byte[0] ^ 4]).unwrap();
}

/// Where a segment begins.
fn segment(number: u64) -> u64 {
    layout::SEGMENTS + number * SEGMENT
}

/// A single range.
fn one(range: Range<u64>) -> Vec<Range<u64>> {
    std::iter::once(range).collect()
}

/// A log of ten records, not closed, and where its blocks are.
fn killed(segments: u64) -> SimRegion {
    let region = region(segments);
    let log = options().format(region.clone()).unwrap();
    for lsn in 1..=10 {
        log.append(&payload(lsn)).unwrap();
    }
    log.abandon();
    region
}

#[test]
fn one_damaged_copy_is_named_and_whole_the_next_time() {
    let (header, root) = (0..8192, 8192..layout::SEGMENTS);
    let used = segment(0)..segment(0) + layout::BLOCKS;
    for (at, healed) in [
        (9, header.clone()),
        (4096 + 9, header),
        (8192 + 9, root.clone()),
        (8192 + 4096 + 9, root),
        (segment(0) + 9, used.clone()),
        (segment(0) + 4096 + 9, used),
    ] {
        let region = killed(3);
        let found = |read_only: bool| {
            let log = options().read_only(read_only).open_region(region.clone()).unwrap();
            let (found, records) = (log.recovery().clone(), all(&log));
            log.abandon();
            assert_eq!(records, expected(1..11), "{at}");
            assert_eq!((found.records, found.lsns), (10, Some(Lsn::new(1)..=Lsn::new(10))));
            assert!(!found.was_closed && found.lost_segments.is_empty());
            assert!(found.damaged.is_empty() && found.dropped.is_empty(), "{at}");
            found.healed
        };
        assert!(found(true).is_empty(), "{at}");
        damage(&region, at);
        assert_eq!(found(true), std::slice::from_ref(&healed), "{at}");
        assert_eq!(found(false), [healed], "{at}");
        assert!(found(true).is_empty(), "{at}");
    }
}

#[test]
fn a_segment_without_a_header_is_lost_only_if_damage_is_accepted() {
    let region = killed(3);
    for copy in [0, 4096] {
        damage(&region, segment(0) + copy + 9);
    }
    for read_only in [true, false] {
        let error = options().read_only(read_only).open_region(region.clone()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Damaged(_)), "{error}");
        assert_eq!(error.range(), Some(segment(0)..segment(0) + layout::BLOCKS), "{error}");
    }
    let log = options().accept_damage(true).open_region(region).unwrap();
    assert_eq!(log.recovery().lost_segments, one(segment(0)..segment(1)));
    assert_eq!((log.recovery().records, log.space().free_segments), (0, 2));
    assert!(all(&log).is_empty());
}

/// Where a block of one short record begins in its segment.
fn line(number: u64) -> u64 {
    layout::BLOCKS + (number - 1) * 64
}

#[test]
fn damage_is_named_by_its_bytes_and_its_lsns() {
    let region = region(3);
    let log = options().format(region.clone()).unwrap();
    for lsn in 1..=10 {
        assert_eq!(log.append(&[7; 20]).unwrap(), Lsn::new(lsn));
    }
    log.abandon();
    damage(&region, segment(0) + line(4) + 50);
    damage(&region, segment(0) + line(5) + 3);
    let bytes = segment(0) + line(4)..segment(0) + line(6);
    let error = options().open_region(region.clone()).unwrap_err();
    let lsns = |kind: &ErrorKind| matches!(kind, ErrorKind::DamagedRecords { first: 4, last: 5 });
    assert!(lsns(error.kind()), "{error}");
    assert_eq!(error.range(), Some(bytes.clone()), "{error}");
    let log = options().accept_damage(true).open_region(region.clone()).unwrap();
    let lsns = Lsn::new(4)..=Lsn::new(5);
    assert_eq!(log.recovery().damaged, [DamagedRecords { bytes, lsns }]);
    assert_eq!((log.recovery().records, log.recovery().missing), (8, 2));
    // Nothing is written behind damage in its segment: the next life is another segment's.
    assert_eq!(log.append(b"next").unwrap(), Lsn::new(11));
    assert_eq!((log.read(Lsn::new(11)).unwrap(), log.space().free_segments), (b"next".into(), 1));
}

/// The last block of a log that was not closed, on every line of a segment that it may lie on.
#[test]
fn a_commit_that_was_cut_is_dropped_and_named() {
    for last in 2..=(SEGMENT - layout::BLOCKS) / 64 {
        for within in [3, 50] {
            let region = region(2);
            let log = options().format(region.clone()).unwrap();
            for _ in 1..=last {
                log.append(&[7; 20]).unwrap();
            }
            log.abandon();
            let at = segment(0) + line(last);
            damage(&region, at + within);
            let log = options().open_region(region.clone()).unwrap();
            assert_eq!(log.recovery().dropped, one(at..at + 64), "{last}");
            assert_eq!((log.recovery().records, log.recovery().missing), (last - 1, 0));
            assert_eq!(log.append(&[8; 20]).unwrap(), Lsn::new(last));
            log.abandon();
            // Over it; and what was dropped before is not there any more.
            let log = options().open_region(region).unwrap();
            assert!(log.recovery().dropped.is_empty(), "{last}: {:?}", log.recovery());
            assert_eq!(log.read(Lsn::new(last)).unwrap(), [8; 20]);
        }
    }
}

/// A commit of several lines whose first or whose last line a crash has cut.
#[test]
fn a_long_commit_that_was_cut_is_dropped_whole() {
    for within in [3, 200] {
        let region = region(2);
        let log = options().format(region.clone()).unwrap();
        log.append(&[7; 20]).unwrap();
        log.append(&[7; 220]).unwrap();
        log.abandon();
        let at = segment(0) + line(2);
        damage(&region, at + within);
        let log = options().open_region(region).unwrap();
        // With its header, all of it; without, the line where it begins.
        let len = if within == 3 { 64 } else { 320 };
        assert_eq!(log.recovery().dropped, one(at..at + len));
        assert_eq!(log.recovery().records, 1);
    }
}

/// Every Lsn has one record, however often the log is killed: a truncation that recovery has
/// finished is not done again, and a number that was given stays given.
#[test]
fn a_truncation_is_finished_once() {
    let region = region(4);
    let mut log = options().format(region.clone()).unwrap();
    for lsn in 1..=20 {
        log.append(&payload(lsn)).unwrap();
    }
    log.truncate_after(Lsn::new(12)).unwrap();
    log.abandon();
    for round in 0..5 {
        let log = options().open_region(region.clone()).unwrap();
        assert!(!log.recovery().finished_truncation && log.recovery().dropped.len() <= 1);
        assert_eq!(all(&log), expected(1..13 + round));
        assert_eq!(log.append(&payload(13 + round)).unwrap(), Lsn::new(13 + round));
        log.abandon();
    }
}

/// Two writers, each in a segment of its own, and a commit of the one that a crash cut below one of
/// the other: nobody waits for its number.
#[test]
fn a_number_that_no_record_has_is_passed_over() {
    let region = region(4);
    let log = options().format(region.clone()).unwrap();
    let (mut one, mut other) = (log.writer(), log.writer());
    for lsn in 1..=10 {
        let writer = if lsn % 2 == 1 { &mut one } else { &mut other };
        assert_eq!(writer.append(&payload(lsn)).unwrap(), Lsn::new(lsn));
    }
    drop((one, other));
    log.abandon();
    let mut follower = LogReader::in_region(region.clone(), Lsn::ZERO).unwrap();
    let until = |follower: &mut LogReader<SimRegion>| -> Vec<u64> {
        follower.map(|record| record.unwrap().0.get()).collect()
    };
    // The last block of the first writer's segment: the ninth record.
    let ninth: u64 =
        (1..9).step_by(2).map(|lsn| (payload(lsn).len() as u64 + 40).next_multiple_of(64)).sum();
    damage(&region, segment(0) + layout::BLOCKS + ninth + 3);
    assert_eq!(until(&mut follower), (1..9).collect::<Vec<_>>());
    let log = options().open_region(region.clone()).unwrap();
    let found = log.recovery().clone();
    assert_eq!((found.records, found.missing), (9, 1));
    assert_eq!(found.dropped.len(), 1);
    let lsns: Vec<u64> = all(&log).iter().map(|(lsn, _)| *lsn).collect();
    assert_eq!(lsns, [1, 2, 3, 4, 5, 6, 7, 8, 10]);
    assert_eq!(until(&mut follower), [10]);
    let mut another = LogReader::in_region(region.clone(), Lsn::ZERO).unwrap();
    assert_eq!(until(&mut another), lsns);
    assert_eq!(log.append(&payload(11)).unwrap(), Lsn::new(11));
    assert_eq!((until(&mut follower), until(&mut another)), (vec![11], vec![11]));
}

/// A reader that is asked for what was released while it read, and for the first that was not.
#[test]
fn a_reader_does_not_give_what_was_released_meanwhile() {
    for (read, released) in [(8, 8), (7, 8), (0, 1), (5, 9), (10, 10)] {
        let log = options().format(region(3)).unwrap();
        log.append_many((1..=5).map(payload)).unwrap();
        for lsn in 6..=10 {
            log.append(&payload(lsn)).unwrap();
        }
        let mut reader = log.reader(Lsn::FIRST).unwrap();
        for lsn in 1..=read {
            let record = reader.next_record().unwrap().unwrap();
            assert_eq!((record.lsn, record.payload), (Lsn::new(lsn), &payload(lsn)[..]));
        }
        log.release_up_to(Lsn::new(released)).unwrap();
        let next = reader.next_record().map(|record| record.map(|record| record.lsn.get()));
        if read < released {
            let kind = next.unwrap_err().kind().clone();
            assert!(matches!(kind, ErrorKind::Released { first } if first == released + 1));
        } else {
            assert_eq!(next.unwrap(), Some(read + 1).filter(|next| *next <= 10));
        }
        assert_eq!(log.append(b"more").unwrap(), Lsn::new(11));
    }
}

/// Segments without a record that is kept are free after an opening as well, unless what was in them
/// is damaged.
#[test]
fn what_was_released_is_free_after_an_opening() {
    for (released, free) in [(0, 2), (9, 2), (10, 3)] {
        let region = killed(3);
        let log = options().open_region(region.clone()).unwrap();
        log.release_up_to(Lsn::new(released)).unwrap();
        log.abandon();
        let log = options().open_region(region).unwrap();
        assert_eq!(log.space().free_segments, free, "{released}");
        assert_eq!(log.append(b"next").unwrap(), Lsn::new(11));
    }
    let region = region(3);
    let log = options().format(region.clone()).unwrap();
    for lsn in 1..=2 {
        assert_eq!(log.append(&[7; 20]).unwrap(), Lsn::new(lsn));
    }
    log.close().unwrap();
    for lsn in 1..=2 {
        damage(&region, segment(0) + line(lsn) + 3);
    }
    let log = options().accept_damage(true).open_region(region).unwrap();
    assert_eq!((log.recovery().records, log.recovery().damaged.len()), (0, 1));
    assert_eq!(log.space().free_segments, 2, "what is left of it may be wanted yet");
}

/// After a long commit of a writer, its short ones have none of it behind them.
#[test]
fn a_block_ends_with_zeros() {
    let region = region(12);
    let log = options().format(region.clone()).unwrap();
    let mut writer = log.writer();
    let mut bytes = vec![0; region.len() as usize];
    for len in (0..200).chain([250, 300, 470]) {
        // As long as one that is staged can be, and other than it by every byte.
        writer.stage(&[0xff; 500]).unwrap();
        writer.commit().unwrap();
        let (at, whole) = (log.space().used_bytes, (40 + len as u64).next_multiple_of(64));
        writer.stage(&vec![0xee; len]).unwrap();
        let lsn = writer.commit().unwrap().start;
        assert_eq!(log.space().used_bytes - at, whole);
        region.read(0, &mut bytes).unwrap();
        // Where it is: the only place with so many of its bytes and what is before them.
        let block = (layout::SEGMENTS..region.len()).step_by(64).find(|at| {
            let line = &bytes[*at as usize..][..64];
            line[16..24] == lsn.get().to_le_bytes() && line[24..28] == (len as u32).to_le_bytes()
        });
        let block = block.unwrap() as usize;
        let (payload, rest) = bytes[block + 40..block + whole as usize].split_at(len);
        assert!(payload.iter().all(|&byte| byte == 0xee), "{len}");
        assert!(rest.iter().all(|&byte| byte == 0), "{len}: {rest:x?}");
        log.release_up_to(lsn).unwrap();
    }
}

/// The same where the first of two records ends with a line.
#[test]
fn a_record_that_begins_a_line_has_zeros_behind_it() {
    let region = region(4);
    let log = options().format(region.clone()).unwrap();
    let mut writer = log.writer();
    writer.stage(&[0xff; 200]).unwrap();
    writer.commit().unwrap();
    writer.stage(&[0xee; 24]).unwrap();
    writer.stage(&[0xee; 3]).unwrap();
    writer.commit().unwrap();
    let block = segment(0) + layout::BLOCKS + 256;
    let mut bytes = [0; 128];
    region.read(block, &mut bytes).unwrap();
    assert_eq!(bytes[40..64], [0xee; 24]);
    assert_eq!((&bytes[64..68], &bytes[68..71]), (&3_u32.to_le_bytes()[..], &[0xee; 3][..]));
    assert_eq!(bytes[71..], [0; 57]);
}

/// A segment that is used again while somebody reads it backwards.
#[test]
fn a_reader_backwards_is_told_what_was_released_meanwhile() {
    let log = options().format(region(2)).unwrap();
    for lsn in 1..=20 {
        assert_eq!(log.append(&[7; 300]).unwrap(), Lsn::new(lsn));
    }
    let mut reader = log.reverse_reader(Lsn::new(u64::MAX)).unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().lsn, Lsn::new(20));
    for lsn in 21..=60 {
        if log.append(&[8; 300]).is_err() {
            log.release_up_to(Lsn::new(lsn - 1)).unwrap();
            assert_eq!(log.append(&[8; 300]).unwrap(), Lsn::new(lsn));
        }
    }
    let first = log.released().get() + 1;
    assert!(first > 30);
    let error = loop {
        match reader.next_record() {
            Ok(Some(record)) => assert!(record.lsn < Lsn::new(20)),
            Ok(None) => panic!("it ends as if nothing were missing"),
            Err(error) => break error,
        }
    };
    let told = matches!(error.kind(), ErrorKind::Released { first: found } if *found == first);
    assert!(told, "{error}");
}

/// Formatting over a log is cut, and done again: whatever the crash has left is formatted or opened.
#[test]
fn a_format_that_a_crash_has_cut_is_not_damage() {
    use crate::sim::Explorer;
    const LEN: u64 = layout::SEGMENTS + 2 * SEGMENT;
    let log = || LogOptions::new().segment_bytes(SEGMENT);
    let region = killed(2);
    let mut image = vec![0; LEN as usize];
    region.read(0, &mut image).unwrap();
    let report = Explorer::new(Mode::Adr, LEN)
        .images(80)
        .samples(30)
        .depth(0)
        .setup(move |region| region.write(0, &image))
        .run(
            move |region, _| log().seed(8).format(region).map(Log::abandon),
            move |region, _| {
                let log = log().open_or_format(region).map_err(|error| error.to_string())?;
                let found = all(&log);
                let sound = found.is_empty() || found == expected(1..11);
                if sound { Ok(()) } else { Err(format!("{found:?}")) }
            },
        );
    assert!(report.expect_clean().crash_points > 5);
}

/// Records that were absent and are released now hide no later ones.
#[test]
fn what_was_absent_and_is_released_hides_nothing() {
    let region = region(3);
    let log = options().format(region.clone()).unwrap();
    log.append_many((1..=10).map(payload)).unwrap();
    for lsn in 11..=20 {
        assert_eq!(log.append(&[7; 20]).unwrap(), Lsn::new(lsn));
    }
    log.close().unwrap();
    let image = |region: &SimRegion| {
        let mut bytes = vec![0; region.len() as usize];
        region.read(0, &mut bytes).unwrap();
        bytes
    };
    let first: u64 = (1..=10).map(|lsn| 4 + payload(lsn).len() as u64).sum::<u64>() + 36;
    let at = segment(0) + layout::BLOCKS + first.next_multiple_of(64);
    for line in [3, 4, 5] {
        damage(&region, at + line * 64 + 3);
    }
    let log = options().accept_damage(true).open_region(region.clone()).unwrap();
    let absent = |log: &Log<SimRegion>| log.core.root.lock().unwrap().get().absent;
    assert_eq!((log.recovery().records, absent(&log)), (17, 3));
    for (released, left) in [(16, 3), (18, 2), (19, 1), (20, 0)] {
        log.release_up_to(Lsn::new(released)).unwrap();
        assert_eq!(absent(&log), left, "{released}");
    }
    let before = image(&region);
    log.append(&[7; 20]).unwrap();
    log.append(&[7; 20]).unwrap();
    log.close().unwrap();
    // All segments go back.
    region.write(layout::SEGMENTS, &before[layout::SEGMENTS as usize..]).unwrap();
    let error = options().open_region(region).unwrap_err();
    let lost = matches!(error.kind(), ErrorKind::DamagedRecords { first: 21, last: 22 });
    assert!(lost, "{error}");
}
