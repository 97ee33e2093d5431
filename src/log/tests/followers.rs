//! Readers in another process, and what they are told of what was taken away.

use super::*;

#[test]
fn a_follower_is_told_what_was_released() {
    let region = region(3);
    let log = options().format(region.clone()).unwrap();
    let mut follower = LogReader::in_region(region.clone(), Lsn::ZERO).unwrap();
    log.append(&payload(1)).unwrap();
    assert_eq!(follower.next_record().unwrap().unwrap().lsn, Lsn::new(1));
    // So much that the space of the first records is used again.
    let mut last = 1;
    for _ in 0..400 {
        last += 1;
        if log.append(&payload(last)).is_err() {
            log.release_up_to(Lsn::new(last - 1)).unwrap();
            assert_eq!(log.append(&payload(last)).unwrap(), Lsn::new(last));
        }
    }
    let kept = log.released().get() + 1;
    assert!(kept > 300);
    let error = follower.next_record().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Released { first } if *first == kept), "{error}");
    // The oldest that is kept, and no older one.
    let from = |lsn| LogReader::in_region(region.clone(), Lsn::new(lsn));
    for lsn in [1, kept - 1] {
        let error = from(lsn).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Released { first } if *first == kept), "{error}");
    }
    for lsn in [0, kept] {
        let mut follower = from(lsn).unwrap();
        let found: Vec<_> = follower.by_ref().map(|record| record.unwrap().0.get()).collect();
        assert_eq!(found, (kept..=last).collect::<Vec<_>>());
        log.append(&payload(last + 1)).unwrap();
        last += 1;
        assert_eq!(follower.next_record().unwrap().unwrap().lsn, Lsn::new(last));
    }
}

#[test]
fn a_follower_is_told_that_what_it_gave_was_truncated() {
    let region = region(4);
    let mut log = options().format(region.clone()).unwrap();
    for lsn in 1..=10 {
        log.append(&payload(lsn)).unwrap();
    }
    let follower_after = |count: usize| {
        let mut follower = LogReader::in_region(region.clone(), Lsn::ZERO).unwrap();
        assert_eq!(follower.by_ref().take(count).flatten().count(), count);
        follower
    };
    let mut followers = [0, 4, 5, 6, 10].map(follower_after);
    log.truncate_after(Lsn::new(5)).unwrap();
    for _ in 6..=8 {
        log.append(b"another").unwrap();
    }
    let [none, before, at, after, all_of_it] = &mut followers;
    for (follower, given) in [(none, 0), (before, 4), (at, 5)] {
        let rest: Vec<_> =
            follower.map(Result::unwrap).map(|(lsn, record)| (lsn.get(), record)).collect();
        let mut right = expected(given + 1..6);
        right.extend((6..=8).map(|lsn| (lsn, b"another".to_vec())));
        assert_eq!(rest, right, "after {given}");
    }
    for (follower, given) in [(after, 6), (all_of_it, 10)] {
        let error = follower.next_record().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NoRecord { lsn } if *lsn == given), "{error}");
    }
}

/// The second truncation, or an opening, is above what the follower has given; the first is not.
#[test]
fn a_follower_is_told_of_a_truncation_that_another_one_or_an_opening_followed() {
    for (reopened, again) in [(false, true), (true, false), (true, true), (false, false)] {
        let region = region(6);
        let mut log = options().format(region.clone()).unwrap();
        for lsn in 1..=10 {
            log.append(&payload(lsn)).unwrap();
        }
        let follower_after = |from: u64, count: usize| {
            let mut follower = LogReader::in_region(region.clone(), Lsn::new(from)).unwrap();
            assert_eq!(follower.by_ref().take(count).flatten().count(), count);
            follower
        };
        let (mut behind, mut at, mut after) =
            (follower_after(0, 3), follower_after(0, 5), follower_after(0, 8));
        let (mut nothing, mut knows) = (follower_after(0, 0), follower_after(9, 0));
        log.truncate_after(Lsn::new(5)).unwrap();
        for _ in 6..=12 {
            log.append(b"another").unwrap();
        }
        if again {
            log.truncate_after(Lsn::new(10)).unwrap();
        }
        if reopened {
            drop(log);
            log = options().open_region(region.clone()).unwrap();
        }
        let last = log.append(b"the last").unwrap().get();
        for (follower, given) in [(&mut nothing, 0), (&mut behind, 3), (&mut at, 5)] {
            let rest = follower.map(Result::unwrap).map(|(lsn, record)| (lsn.get(), record));
            let mut right = expected(given + 1..6);
            right.extend((6..last).map(|lsn| (lsn, b"another".to_vec())));
            right.push((last, b"the last".to_vec()));
            assert_eq!(rest.collect::<Vec<_>>(), right, "after {given}: {reopened}, {again}");
        }
        for (follower, given) in [(&mut after, 8), (&mut knows, 8)] {
            // And it stays so.
            for _ in 0..2 {
                let error = follower.next_record().map(drop).unwrap_err();
                let told = matches!(error.kind(), ErrorKind::NoRecord { lsn } if *lsn == given);
                assert!(told, "after {given}: {reopened}, {again}: {error}");
            }
        }
    }
}
