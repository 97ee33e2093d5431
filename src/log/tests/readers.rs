//! Readers of an open log: what they keep, and what they look at.

use super::*;

/// A reader at the end of the log has a place in each segment that is written to, and none in those
/// that were.
#[test]
fn a_reader_keeps_no_place_in_a_life_that_has_ended() {
    let region = region(6);
    let log = options().format(region).unwrap();
    let mut writers = [log.writer(), log.writer()];
    let mut reader = log.reader(Lsn::ZERO).unwrap();
    for turn in 0..2_000 {
        let lsn = writers[turn % 2].append(&[3; 1900]).unwrap();
        assert_eq!(reader.next_record().unwrap().unwrap().lsn, lsn);
        log.release_up_to(lsn).unwrap();
    }
    assert!(reader.cursors() <= 4, "{}", reader.cursors());
}

/// A search in the middle looks at the lives that overlap there, and at no other.
#[test]
fn a_reader_takes_up_the_segments_it_needs() {
    let region = region(60);
    let log = options().format(region).unwrap();
    for _ in 0..100 {
        log.append(&[3; 1900]).unwrap();
    }
    let mut reader = log.reader(Lsn::new(50)).unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().lsn, Lsn::new(50));
    assert_eq!(reader.cursors(), 1);
    let rest = reader.by_ref().map(|record| record.unwrap().0.get());
    assert!(rest.eq(51..=100));
    assert!(reader.cursors() <= 2, "{}", reader.cursors());
}
