//! The log on regions in memory.

mod copies;
mod cuts;
mod deferred;
mod edges;
mod faulty;
mod followers;
mod found;
mod hooked;
mod lazy;
mod lost;
mod lower;
mod older;
mod opened;
mod panics;
mod readers;
mod room;
mod staged;
mod unsynced;

use super::layout::Layout;
use super::*;
use crate::sim::{Mode, SimRegion};
use crate::{ErrorKind, Options};

use hooked::Hooked;

const SEGMENT: u64 = 12288;

fn options() -> LogOptions {
    LogOptions::new().segment_bytes(SEGMENT).seed(7)
}

fn region(segments: u64) -> SimRegion {
    let len = layout::SEGMENTS + segments * SEGMENT;
    SimRegion::new(Mode::Adr, len, 2 * len)
}

fn payload(number: u64) -> Vec<u8> {
    (0..=number % 90).map(|index| (number * 7 + index) as u8).collect()
}

fn all<R: Region>(log: &Log<R>) -> Vec<(u64, Vec<u8>)> {
    let reader = log.reader(Lsn::ZERO).unwrap();
    reader.map(|record| record.map(|(lsn, payload)| (lsn.get(), payload)).unwrap()).collect()
}

fn backwards<R: Region>(log: &Log<R>, from: u64) -> Vec<(u64, Vec<u8>)> {
    let reader = log.reverse_reader(Lsn::new(from)).unwrap();
    reader.map(|record| record.map(|(lsn, payload)| (lsn.get(), payload)).unwrap()).collect()
}

fn expected(lsns: Range<u64>) -> Vec<(u64, Vec<u8>)> {
    lsns.map(|lsn| (lsn, payload(lsn))).collect()
}

#[test]
fn records_are_read_as_they_were_appended_in_every_way() {
    let region = region(6);
    let log = options().format(region.clone()).unwrap();
    assert_eq!(log.last(), Lsn::ZERO);
    for lsn in 1..=40 {
        assert_eq!(log.append(&payload(lsn)).unwrap(), Lsn::new(lsn));
    }
    let many = log.append_many((41..=80).map(payload)).unwrap();
    assert_eq!(many, Lsn::new(41)..Lsn::new(81));
    let mut writer = log.writer();
    writer.stage(&payload(81)).unwrap();
    let place = writer.reserve(payload(82).len()).unwrap();
    place.copy_from_slice(&payload(82));
    assert_eq!(writer.staged(), 2);
    assert_eq!(writer.commit().unwrap(), Lsn::new(81)..Lsn::new(83));
    assert!(writer.commit().unwrap().is_empty());
    let large = vec![9; 3000];
    assert_eq!(writer.append(&large).unwrap(), Lsn::new(83));
    assert_eq!(writer.append(b"").unwrap(), Lsn::new(84));
    drop(writer);
    let mut everything = expected(1..83);
    everything.extend([(83, large), (84, Vec::new())]);
    assert_eq!(all(&log), everything);
    let mut reversed = everything.clone();
    reversed.reverse();
    assert_eq!(backwards(&log, u64::MAX), reversed);
    assert_eq!(backwards(&log, 60), reversed[24..]);
    assert_eq!(log.read(Lsn::new(50)).unwrap(), payload(50));
    let from: Vec<_> = log.reader(Lsn::new(55)).unwrap().map(Result::unwrap).collect();
    assert_eq!((from.len(), from[0].0), (30, Lsn::new(55)));
    log.close().unwrap();
    let log = options().open_region(region).unwrap();
    assert_eq!(all(&log), everything);
    let recovery = log.recovery();
    assert!(recovery.was_closed && recovery.damaged.is_empty() && recovery.healed.is_empty());
    assert_eq!((recovery.records, recovery.missing), (84, 0));
    assert_eq!(log.append(b"next").unwrap(), Lsn::new(85));
}

#[test]
fn segments_are_recycled_when_their_records_are_released() {
    let region = region(3);
    let mut log = options().format(region.clone()).unwrap();
    let mut released = 0;
    for lsn in 1..=600 {
        loop {
            match log.append(&payload(lsn)) {
                Ok(got) => break assert_eq!(got, Lsn::new(lsn)),
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Full { .. }), "{error}");
                    assert_eq!(all(&log), expected(released + 1..lsn));
                    released += 20;
                    log.release_up_to(Lsn::new(released)).unwrap();
                }
            }
        }
        if lsn % 97 == 0 {
            assert_eq!(all(&log), expected(released + 1..lsn + 1));
            drop(log);
            log = options().open_region(region.clone()).unwrap();
            assert_eq!(log.released(), Lsn::new(released));
            assert_eq!(all(&log), expected(released + 1..lsn + 1));
        }
    }
    assert!(released > 100);
    let error = log.reader(Lsn::new(3)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Released { first } if *first == released + 1));
}

#[test]
fn what_is_truncated_is_gone_and_its_lsns_are_used_again() {
    let region = region(6);
    let mut log = options().format(region.clone()).unwrap();
    for lsn in 1..=100 {
        log.append(&payload(lsn)).unwrap();
    }
    log.append_many((101..=110).map(payload)).unwrap();
    log.truncate_after(Lsn::new(105)).unwrap();
    assert_eq!((log.last(), all(&log)), (Lsn::new(105), expected(1..106)));
    log.truncate_after(Lsn::new(70)).unwrap();
    assert_eq!(all(&log), expected(1..71));
    assert!(matches!(log.read(Lsn::new(71)).unwrap_err().kind(), ErrorKind::NoRecord { lsn: 71 }));
    assert_eq!(log.append(b"another").unwrap(), Lsn::new(71));
    drop(log);
    let mut log = options().open_region(region.clone()).unwrap();
    assert_eq!(log.read(Lsn::new(71)).unwrap(), b"another");
    assert_eq!(log.recovery().records, 71);
    log.release_up_to(Lsn::new(10)).unwrap();
    let error = log.truncate_after(Lsn::new(9)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Released { first: 11 }), "{error}");
    log.truncate_after(Lsn::new(10)).unwrap();
    assert_eq!((all(&log).len(), log.append(b"x").unwrap()), (0, Lsn::new(11)));
}

#[test]
fn a_record_must_fit_in_a_segment() {
    let log = options().format(region(4)).unwrap();
    let most = log.commit_bytes_max() as usize;
    assert_eq!(most, 4096 - 40);
    for len in [most + 1, 1 << 20] {
        let error = log.append(&vec![1; len]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TooLarge { max } if *max == most as u64));
    }
    let error = log.append_many([vec![1; most / 2], vec![1; most / 2]]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }));
    assert_eq!(log.append(&vec![1; most]).unwrap(), Lsn::FIRST);
    assert_eq!(log.append(b"on").unwrap(), Lsn::new(2));
    assert_eq!(all(&log)[0].1, vec![1; most]);
}

#[test]
fn a_full_log_loses_nothing_and_grows() {
    let region = region(2);
    let mut log = options().format(region.clone()).unwrap();
    let mut count = 0;
    while log.append(&[5; 1000]).is_ok() {
        count += 1;
    }
    assert_eq!(count, 2 * 3);
    let mut writer = log.writer();
    writer.stage(&[6; 1000]).unwrap();
    assert!(matches!(writer.commit().unwrap_err().kind(), ErrorKind::Full { .. }));
    assert_eq!(writer.staged(), 1, "to be committed when there is room");
    drop(writer);
    log.grow(layout::SEGMENTS + 3 * SEGMENT).unwrap();
    assert_eq!(log.append(&[6; 1000]).unwrap(), Lsn::new(7));
    drop(log);
    let log = options().open_region(region).unwrap();
    assert_eq!(all(&log).len(), 7);
}

/// Two writers in turn: each has a segment, and the order is that of the commits.
#[test]
fn lsns_of_several_writers_are_read_in_order_and_so_are_later_ones() {
    let region = region(6);
    let log = options().format(region.clone()).unwrap();
    let mut tail = log.reader(Lsn::FIRST).unwrap();
    let mut follower = LogReader::in_region(region.clone(), Lsn::ZERO).unwrap();
    assert!(tail.next_record().unwrap().is_none() && follower.next_record().unwrap().is_none());
    {
        let mut writers = [log.writer(), log.writer(), log.writer()];
        for lsn in 1..=90 {
            let writer = &mut writers[(lsn * lsn % 3) as usize];
            assert_eq!(writer.append(&payload(lsn)).unwrap(), Lsn::new(lsn));
            let record = tail.next_record().unwrap().expect("it is durable");
            assert_eq!((record.lsn.get(), record.payload), (lsn, &payload(lsn)[..]));
            assert!(tail.next_record().unwrap().is_none());
            let record = follower.next_record().unwrap().expect("it is there");
            assert_eq!((record.lsn.get(), record.payload), (lsn, &payload(lsn)[..]));
            assert!(follower.next_record().unwrap().is_none());
        }
    }
    let mut reversed = expected(1..91);
    assert_eq!(all(&log), reversed);
    reversed.reverse();
    assert_eq!(backwards(&log, 90), reversed);
}

/// Line by line, and without going deeper with each: half a megabyte of stack must do.
#[test]
fn damage_as_long_as_a_segment_is_passed_over() {
    let region = Options::new().len(32 << 20).in_memory().unwrap();
    let log = LogOptions::new().segment_bytes(8 << 20).seed(7).format(&region).unwrap();
    for _ in 0..100 {
        log.append(&vec![5; 64 << 10]).unwrap();
    }
    log.close().unwrap();
    let from = layout::SEGMENTS + layout::BLOCKS + (70 << 10);
    region.fill_flush(from, 6 << 20, 0).unwrap();
    let read = move || {
        let log = LogOptions::new().read_only(true).accept_damage(true).open_region(&region);
        let log = log.unwrap();
        assert_eq!(log.recovery().damaged.len(), 1);
        let forwards: Vec<u64> = all(&log).iter().map(|(lsn, _)| *lsn).collect();
        assert_eq!(forwards, [1, 98, 99, 100]);
        assert_eq!(backwards(&log, u64::MAX).len(), forwards.len());
    };
    std::thread::Builder::new().stack_size(512 << 10).spawn(read).unwrap().join().unwrap();
}

#[test]
fn space_is_counted_by_segments() {
    let room = SEGMENT - layout::BLOCKS;
    let log = options().format(region(4)).unwrap();
    let empty = Space { segment_bytes: SEGMENT, segments: 4, free_segments: 4, ..Space::default() };
    assert_eq!(log.space(), Space { free_bytes: 4 * room, ..empty });
    log.append(&[1; 24]).unwrap();
    log.append(&[1; 25]).unwrap();
    let one = Space { free_segments: 3, used_bytes: 192, free_bytes: 4 * room - 192, ..empty };
    assert_eq!(log.space(), one);
    // Does not fit behind them.
    log.append(&[1; 4000]).unwrap();
    let two = Space { free_segments: 2, used_bytes: 192 + 4096, free_bytes: 2 * room, ..empty };
    assert_eq!(log.space(), two);
    log.release_up_to(Lsn::new(3)).unwrap();
    // The one in use too: no call is writing there, and who needs it gets it.
    let released = log.space();
    assert_eq!((released.free_segments, released.used_bytes), (4, 0));
}

#[test]
fn of_two_that_create_the_file_the_later_finds_it() {
    let directory = tempfile::tempdir().unwrap();
    let region = Options::new().len(layout::SEGMENTS + 4 * SEGMENT);
    for round in 0..100 {
        let path = directory.path().join(format!("wal-{round}"));
        let both = std::sync::Barrier::new(2);
        let attempt = || {
            both.wait();
            options().region(region.clone()).open_or_create(&path).err()
        };
        let errors = std::thread::scope(|scope| {
            let other = scope.spawn(attempt);
            [attempt(), other.join().unwrap()]
        });
        for error in errors.iter().flatten() {
            // The other one may still have it.
            assert!(matches!(error.kind(), ErrorKind::Locked), "{error}");
        }
    }
}

#[test]
fn what_a_full_log_says_is_free_is() {
    let log = options().format(region(2)).unwrap();
    // Each segment has room for 4096 bytes. The writers are gone, and what they left can be taken.
    log.writer().append(&[5; 1000]).unwrap();
    log.writer().append(&[5; 3050]).unwrap();
    let error = log.writer().append(&[5; 3050]).unwrap_err();
    let ErrorKind::Full { needed, free } = *error.kind() else { panic!("{error}") };
    assert_eq!((needed, free), (3136, 4096 - 1088));
    let error = log.writer().append(&vec![6; free as usize - 40 + 1]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Full { .. }), "{error}");
    log.writer().append(&vec![6; free as usize - 40]).unwrap();
    let error = log.writer().append(&[5; 3050]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Full { free: 960, .. }), "{error}");
}

#[test]
fn damage_that_comes_while_the_log_is_open_is_met_from_both_sides() {
    let region = Options::new().len(1 << 20).in_memory().unwrap();
    let open = |accept: bool| LogOptions::new().accept_damage(accept).open_region(&region).unwrap();
    let log = LogOptions::new().segment_bytes(64 << 10).seed(7).format(&region).unwrap();
    for lsn in 1..=9_u8 {
        log.append(&vec![lsn; 100 * usize::from(lsn)]).unwrap();
    }
    drop(log);
    // A header, then bytes of a record: where the fifth block and where its body are.
    let fifth = layout::SEGMENTS + layout::BLOCKS + 192 + 256 + 384 + 448;
    for at in [fifth + 3, fifth + 100] {
        let (careful, accepting) = (open(false), open(true));
        let mut byte = [0];
        region.read(at, &mut byte).unwrap();
        region.write(at, &[byte[0] ^ 1]).unwrap();
        let mut read = Vec::new();
        let error = careful
            .reader(Lsn::ZERO)
            .unwrap()
            .find_map(|record| record.map(|(lsn, _)| read.push(lsn.get())).err());
        assert_eq!(read, [1, 2, 3, 4]);
        assert!(matches!(error.unwrap().kind(), ErrorKind::Damaged(_)));
        // Backwards, the blocks of a stretch are found before one of them is read.
        let mut read = Vec::new();
        let error = careful.reverse_reader(Lsn::new(9)).and_then(|mut reader| {
            let lsn = |record: Result<(Lsn, Vec<u8>)>| record.map(|(lsn, _)| read.push(lsn.get()));
            reader.try_for_each(lsn)
        });
        assert_eq!(read, if at == fifth + 3 { vec![] } else { vec![9, 8, 7, 6] });
        assert!(matches!(error.unwrap_err().kind(), ErrorKind::Damaged(_)));
        let lsns = |records: Vec<(u64, Vec<u8>)>| records.into_iter().map(|(lsn, _)| lsn);
        assert!(lsns(all(&accepting)).eq([1, 2, 3, 4, 6, 7, 8, 9]));
        assert!(lsns(backwards(&accepting, 9)).eq([9, 8, 7, 6, 4, 3, 2, 1]), "{at}");
        careful.abandon();
        accepting.abandon();
        region.write(at, &byte).unwrap();
    }
}

#[test]
fn segments_are_a_sixteenth_of_the_space_within_bounds() {
    const LARGE: u64 = 64 << 20;
    let chosen = |space: u64| Layout::choose(layout::SEGMENTS + space, None).unwrap().segment;
    assert_eq!(chosen(16 * (1 << 20)), 1 << 20);
    assert_eq!(chosen(16 * (1 << 20) + 16 * 4096 - 1), 1 << 20);
    assert_eq!(chosen(16 * (1 << 20) + 16 * 4096), (1 << 20) + 4096);
    // From four pages to 64 MiB.
    assert_eq!(chosen(2 * 16384), 16384);
    assert_eq!((chosen(16 * LARGE), chosen(100 * LARGE)), (LARGE, LARGE));
    let refused = |len, segment| Layout::choose(len, Some(segment)).unwrap_err().kind().clone();
    for segment in [0, 1, 4095, 8193] {
        assert!(matches!(refused(1 << 20, segment), ErrorKind::Unaligned { align: 4096 }));
    }
    let most = layout::SEGMENT_MAX;
    assert!(matches!(refused(1 << 40, most + 4096), ErrorKind::TooLarge { max } if max == most));
    assert_eq!(Layout::choose(1 << 40, Some(most)).unwrap().segment, most);
    // Two segments at least, of two pages at least.
    let least = layout::SEGMENTS + 2 * 12288;
    assert_eq!(Layout::choose(least, Some(4096)).unwrap().segment, 12288);
    assert!(
        matches!(refused(least - 1, 12288), ErrorKind::TooShort { asked, .. } if asked == least)
    );
}

#[test]
fn no_two_lives_of_segments_have_one_number() {
    let region = region(4);
    let mut log = options().format(region.clone()).unwrap();
    let mut segment_of = std::collections::BTreeMap::new();
    for lsn in 1..=300 {
        if log.append(&payload(lsn)).is_err() {
            log.release_up_to(Lsn::new(lsn - 1)).unwrap();
            assert_eq!(log.append(&payload(lsn)).unwrap(), Lsn::new(lsn));
        }
        if lsn % 70 == 0 {
            drop(log);
            log = options().open_region(region.clone()).unwrap();
        }
        let pool = log.core.table.pool();
        for (segment, life) in
            pool.lives.iter().enumerate().filter(|(_, life)| life.header.life > 0)
        {
            let known = segment_of.entry(life.header.life).or_insert((segment, life.header.salt));
            assert_eq!(*known, (segment, life.header.salt), "life {}", life.header.life);
        }
    }
    assert!(segment_of.len() > 6, "{segment_of:?}");
    assert!(segment_of.keys().copied().eq(1..=segment_of.len() as u64), "{segment_of:?}");
}
