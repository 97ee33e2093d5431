//! What is lost: which numbers it had, that these are given to nobody else, and what is left of a file
//! that was cut.

use super::*;

/// Flips a bit.
fn damage(region: &SimRegion, at: u64) {
    let mut byte = [0];
    region.read(at, &mut byte).unwrap();
    region.write_persist(at, &[byte[0] ^ 4]).unwrap();
}

fn bytes(region: &SimRegion) -> Vec<u8> {
    let mut bytes = vec![0; region.len() as usize];
    region.read(0, &mut bytes).unwrap();
    bytes
}

fn accepting(read_only: bool) -> LogOptions {
    options().accept_damage(true).read_only(read_only)
}

/// The segments are those of an earlier moment, and the root says what was durable since.
#[test]
fn numbers_of_lost_records_are_not_given_again() {
    let region = region(3);
    let log = options().format(region.clone()).unwrap();
    let mut before = Vec::new();
    for lsn in 1..=20 {
        assert_eq!(log.append(&payload(lsn)).unwrap(), Lsn::new(lsn));
        if lsn == 10 {
            before = bytes(&region);
        }
    }
    log.release_up_to(Lsn::new(5)).unwrap();
    log.abandon();
    region.write(layout::SEGMENTS, &before[layout::SEGMENTS as usize..]).unwrap();
    for read_only in [true, false] {
        let log = accepting(read_only).open_region(region.clone()).unwrap();
        let damaged = &log.recovery().damaged;
        assert_eq!(damaged.len(), 1);
        assert_eq!(damaged[0].lsns, Lsn::new(11)..=Lsn::new(20));
        assert_eq!((log.last(), all(&log)), (Lsn::new(20), expected(6..11)));
        log.abandon();
    }
    let log = options().open_region(region.clone()).unwrap();
    assert_eq!(log.append(&payload(21)).unwrap(), Lsn::new(21));
    let mut follower = LogReader::in_region(region, Lsn::new(21)).unwrap();
    assert_eq!(follower.next_record().unwrap().unwrap().payload, payload(21));
}

/// Damage up to the end of a full segment, the newest or not: its header knows how many records it had.
#[test]
fn a_full_segment_knows_how_many_records_it_had() {
    full_segment(64);
    full_segment(70);
}

fn full_segment(last: u64) {
    let region = region(3);
    let log = options().format(region.clone()).unwrap();
    for lsn in 1..=last {
        assert_eq!(log.append(&[7; 20]).unwrap(), Lsn::new(lsn));
    }
    log.core.recall().unwrap();
    log.abandon();
    let line = |number: u64| layout::SEGMENTS + layout::BLOCKS + (number - 1) * 64;
    (61..=64).for_each(|number| damage(&region, line(number) + 3));
    for (round, read_only) in [true, false, false].into_iter().enumerate() {
        let log = accepting(read_only).open_region(region.clone()).unwrap();
        let damaged = &log.recovery().damaged;
        assert_eq!(damaged.len(), 1, "{round}");
        assert_eq!(damaged[0].bytes, line(61)..line(65), "{round}");
        assert_eq!(damaged[0].lsns, Lsn::new(61)..=Lsn::new(64), "{round}");
        assert_eq!(log.last(), Lsn::new(last), "{round}");
        log.abandon();
    }
    // They can be read again: there is no other record of their number.
    (61..=64).for_each(|number| damage(&region, line(number) + 3));
    let log = options().open_region(region).unwrap();
    assert_eq!(log.append(b"next").unwrap(), Lsn::new(last + 1));
    let lsns: Vec<u64> = all(&log).iter().map(|(lsn, _)| *lsn).collect();
    assert_eq!(lsns, (1..last + 2).collect::<Vec<_>>());
}

/// The region was opened, and then the log became longer.
#[test]
fn a_log_that_grew_before_it_was_read_is_not_damaged() {
    let region = region(2);
    let mut log = options().format(region.clone()).unwrap();
    assert_eq!(log.append(&payload(1)).unwrap(), Lsn::new(1));
    let short = std::cell::Cell::new(Some(Hooked::fixed(region.clone())));
    log.grow(layout::SEGMENTS + 3 * SEGMENT).unwrap();
    let given = || Ok(short.take().unwrap_or_else(|| Hooked::fixed(region.clone())));
    let reader = options().read_only(true).open_beside(given).unwrap();
    assert_eq!(all(&reader), expected(1..2));
    // Where the region cannot be had again, nobody knows that it is damage.
    let short = Hooked::fixed(region.clone());
    log.grow(layout::SEGMENTS + 4 * SEGMENT).unwrap();
    let error = options().read_only(true).open_region(short).unwrap_err();
    let (len, asked) = (layout::SEGMENTS + 3 * SEGMENT, layout::SEGMENTS + 4 * SEGMENT);
    let told = matches!(error.kind(), ErrorKind::TooShort { len: a, asked: b } if (*a, *b) == (len, asked));
    assert!(told, "{error}");
}

/// A file of which only the first bytes are left.
#[test]
fn what_is_left_of_a_file_that_was_cut_can_be_read() {
    let region = region(3);
    let log = options().format(region.clone()).unwrap();
    let per_segment = (SEGMENT - layout::BLOCKS) / 64;
    for lsn in 1..=2 * per_segment {
        assert_eq!(log.append(&[lsn as u8; 20]).unwrap(), Lsn::new(lsn));
    }
    log.close().unwrap();
    let whole = bytes(&region);
    let blocks = layout::SEGMENTS + SEGMENT + layout::BLOCKS;
    for (len, left) in [
        (region.len() - 1, 2 * per_segment),
        (layout::SEGMENTS + 2 * SEGMENT, 2 * per_segment),
        (layout::SEGMENTS + 2 * SEGMENT - 1, 2 * per_segment - 1),
        (blocks + 10 * 64, per_segment + 10),
        (blocks + 64 - 1, per_segment),
        (blocks, per_segment),
        (blocks - 1, per_segment),
        (layout::SEGMENTS + SEGMENT, per_segment),
        (layout::SEGMENTS, 0),
    ] {
        let cut = SimRegion::new(Mode::Adr, len, len);
        cut.write(0, &whole[..len as usize]).unwrap();
        let error = options().read_only(true).open_region(cut.clone()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TooShort { .. }), "{len}: {error}");
        let given = || Ok(cut.clone());
        let error = options().read_only(true).open_beside(given).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Damaged(_)), "{len}: {error}");
        let error = accepting(false).open_region(cut.clone()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Damaged(_)), "{len}: {error}");
        for log in [accepting(true).open_region(cut.clone()), accepting(true).open_beside(given)] {
            let log = log.unwrap();
            let lsns: Vec<u64> = all(&log).iter().map(|(lsn, _)| *lsn).collect();
            assert_eq!(lsns, (1..=left).collect::<Vec<_>>(), "{len}");
            assert_eq!(backwards(&log, u64::MAX).len() as u64, left, "{len}");
            let lost = &log.recovery().lost_segments;
            let from = len.max(layout::SEGMENTS) / 64 * 64;
            assert!(lost.first().is_some_and(|lost| lost.start <= from), "{len}: {lost:?}");
            assert_eq!(lost.last().map(|lost| lost.end), Some(region.len()), "{len}: {lost:?}");
        }
    }
}

/// A slot of the root that is blank or older than the other one is made whole, and that is said.
#[test]
fn a_root_that_is_there_once_is_named() {
    use crate::format::header::HEADER_AREA;
    let region = region(3);
    let log = options().format(region.clone()).unwrap();
    let older = bytes(&region);
    log.append(&payload(1)).unwrap();
    log.close().unwrap();
    let root = HEADER_AREA..layout::SEGMENTS;
    for slot in [HEADER_AREA, HEADER_AREA + 4096] {
        for was in [vec![0; 4096], older[slot as usize..slot as usize + 4096].to_vec()] {
            region.write(slot, &was).unwrap();
            for healed in [vec![root.clone()], Vec::new()] {
                let log = options().open_region(region.clone()).unwrap();
                assert_eq!((log.recovery().healed.clone(), all(&log)), (healed, expected(1..2)));
                log.close().unwrap();
            }
        }
    }
}
