//! Truncations: what is void stays void, what follows in the same segment counts, and what it costs.

use super::hooked::{At, What};
use super::*;
use crate::sim::SplitMix64;

fn bytes(region: &SimRegion) -> Vec<u8> {
    let mut bytes = vec![0; region.len() as usize];
    region.read(0, &mut bytes).unwrap();
    bytes
}

fn region_of(bytes: &[u8]) -> SimRegion {
    let region = SimRegion::new(Mode::Adr, bytes.len() as u64, bytes.len() as u64);
    region.write(0, bytes).unwrap();
    region
}

type Records = Vec<(u64, Vec<u8>)>;

fn followed(region: &SimRegion) -> Records {
    let follower = LogReader::in_region(region.clone(), Lsn::ZERO).unwrap();
    follower.map(|record| record.map(|(lsn, payload)| (lsn.get(), payload)).unwrap()).collect()
}

/// What a log must be, in every way of reading it.
fn assert_is(log: &Log<SimRegion>, records: &Records, what: &str) {
    assert_eq!(&all(log), records, "{what}");
    let reversed: Records = records.iter().rev().cloned().collect();
    assert_eq!(backwards(log, u64::MAX), reversed, "{what}, backwards");
    assert_eq!(&followed(log.region()), records, "{what}, followed");
    let read = options().read_only(true).open_region(log.region().clone()).unwrap();
    assert_eq!(&all(&read), records, "{what}, opened for reading");
    assert_eq!(read.recovery().records, records.len() as u64, "{what}");
    assert_eq!(read.recovery().missing, 0, "{what}");
}

/// Truncations to lower and to higher Lsns in turn, by several writers, in segments that go on.
#[test]
fn what_is_void_stays_void_and_what_follows_counts() {
    let (mut cut_segments, mut opened) = (0, 0);
    for seed in 0..24 {
        let mut random = SplitMix64::new(seed);
        let region = region(8);
        let mut log = options().format(region.clone()).unwrap();
        let mut records = Records::new();
        let mut next = 1;
        for turn in 0..40_u64 {
            {
                let mut writers = [log.writer(), log.writer()];
                for _ in 0..random.below(5) {
                    let payload = vec![turn as u8; random.below(120) as usize];
                    let count = 1 + random.below(3);
                    let writer = &mut writers[random.below(2) as usize];
                    for _ in 0..count {
                        writer.stage(&payload).unwrap();
                    }
                    let Ok(lsns) = writer.commit() else { break };
                    assert_eq!(lsns.start, Lsn::new(next));
                    records.extend((0..count).map(|index| (next + index, payload.clone())));
                    next += count;
                }
            }
            let what = format!("seed {seed}, turn {turn}");
            match random.below(6) {
                0..=3 => {
                    let kept = (next - 1).saturating_sub(random.below(6)).max(log.released().get());
                    log.truncate_after(Lsn::new(kept)).unwrap();
                    records.retain(|(lsn, _)| *lsn <= kept);
                    next = kept + 1;
                    cut_segments += 1;
                }
                4 => {
                    let kept = (next - 1).saturating_sub(random.below(12));
                    log.release_up_to(Lsn::new(kept).max(log.released())).unwrap();
                    let released = log.released().get();
                    records.retain(|(lsn, _)| *lsn > released);
                }
                _ => {
                    if random.below(2) == 0 {
                        log.close().unwrap();
                    } else {
                        log.abandon();
                    }
                    log = options().open_region(region.clone()).unwrap();
                    opened += 1;
                }
            }
            assert_is(&log, &records, &what);
        }
    }
    assert!(cut_segments > 500 && opened > 100, "{cut_segments} {opened}");
}

/// Of a segment in which everything is void, the space is used again; of one that is cut, the rest.
#[test]
fn truncations_of_one_record_at_a_time_do_not_fill_a_log() {
    let region = region(3);
    let mut log = options().format(region.clone()).unwrap();
    for lsn in 1..=21 {
        log.append(&payload(lsn)).unwrap();
    }
    for round in 0..400_u32 {
        let lsn = log.append(&[round as u8; 30]).unwrap_or_else(|error| panic!("{round}: {error}"));
        assert_eq!(lsn, Lsn::new(22));
        log.truncate_after(Lsn::new(21)).unwrap();
    }
    assert_eq!(log.space().free_segments, 2);
    assert_is(&log, &expected(1..22), "in the end");
    log.release_up_to(Lsn::new(21)).unwrap();
    assert_eq!(log.append(&vec![1; log.commit_bytes_max() as usize]).unwrap(), Lsn::new(22));
}

/// One record less each time: the segments are those that the records had.
#[test]
fn a_log_that_is_truncated_to_nothing_step_by_step_takes_no_more_segments() {
    let region = region(6);
    let mut log = options().format(region.clone()).unwrap();
    for lsn in 1..=60 {
        log.append(&payload(lsn)).unwrap();
    }
    let used = |log: &Log<SimRegion>| log.space().segments - log.space().free_segments;
    let most = used(&log);
    for kept in (0..60).rev() {
        log.truncate_after(Lsn::new(kept)).unwrap();
        assert!(used(&log) <= most, "{kept}");
        assert_is(&log, &expected(1..kept + 1), "truncated");
        assert_eq!(log.append(&payload(kept + 1)).unwrap(), Lsn::new(kept + 1));
        assert_is(&log, &expected(1..kept + 2), "appended");
        log.truncate_after(Lsn::new(kept)).unwrap();
    }
    assert_eq!(log.space().free_segments, 6);
}

/// A page of a segment's headers is what it was before, in the same life: nothing that was truncated comes
/// back, and nothing else is gone without a word.
#[test]
fn an_older_copy_of_a_header_brings_no_truncated_record_back() {
    let region = region(3);
    let mut log = options().format(region.clone()).unwrap();
    let mut states: Vec<(Vec<u8>, Records)> = Vec::new();
    let mut records = Records::new();
    let steps: [(u64, u64); 9] =
        [(0, 8), (5, 0), (5, 4), (7, 0), (7, 1), (6, 0), (6, 3), (9, 0), (8, 2)];
    for (turn, (kept, more)) in steps.into_iter().enumerate() {
        log.truncate_after(Lsn::new(kept)).unwrap();
        records.retain(|(lsn, _)| *lsn <= kept);
        for _ in 0..more {
            let lsn = log.append(&[turn as u8; 40]).unwrap().get();
            records.push((lsn, vec![turn as u8; 40]));
        }
        states.push((bytes(&region), records.clone()));
    }
    log.abandon();
    let mut older = 0;
    for (now, (whole, records)) in states.iter().enumerate() {
        for (before, _) in &states[..now] {
            for copy in [0, 4096] {
                let at = (layout::SEGMENTS + copy) as usize;
                let mut image = whole.clone();
                image[at..at + 4096].copy_from_slice(&before[at..at + 4096]);
                older += u32::from(image != *whole);
                let region = region_of(&image);
                assert_eq!(&followed(&region), records, "{now}, {copy}");
                let log = options().open_region(region.clone()).unwrap();
                assert_is(&log, records, &format!("state {now}, copy {copy}"));
                log.abandon();
                let log = options().open_region(region).unwrap();
                assert_is(&log, records, &format!("state {now}, copy {copy}, again"));
            }
        }
    }
    assert!(older > 20, "{older}");
}

/// A full segment that is cut, and a truncation further on: then the root does not know of the first one
/// any more, and both copies of the header do.
#[test]
fn a_truncation_is_in_both_copies_before_the_root_has_another_one() {
    let region = region(4);
    let mut log = options().format(region.clone()).unwrap();
    for lsn in 1..=66 {
        assert_eq!(log.append(&[7; 20]).unwrap(), Lsn::new(lsn));
    }
    log.truncate_after(Lsn::new(60)).unwrap();
    log.append_many([[8; 20]; 3]).unwrap();
    log.truncate_after(Lsn::new(62)).unwrap();
    let mut records: Records = (1..=60).map(|lsn| (lsn, vec![7; 20])).collect();
    records.extend((61..=62).map(|lsn| (lsn, vec![8; 20])));
    for closed in [false, true] {
        if closed {
            options().open_region(region.clone()).unwrap().close().unwrap();
        }
        let whole = bytes(&region);
        for copy in [0, 4096] {
            let mut image = whole.clone();
            image[(layout::SEGMENTS + copy) as usize + 9] ^= 1;
            let log = options().open_region(region_of(&image)).unwrap();
            assert_is(&log, &records, &format!("closed {closed}, copy {copy}"));
            log.abandon();
        }
    }
    log.abandon();
}

/// The root of a closed log knows of no truncation: either copy of a header does.
#[test]
fn a_close_after_a_truncation_leaves_it_in_both_copies() {
    let region = region(3);
    let mut log = options().format(region.clone()).unwrap();
    for lsn in 1..=5 {
        log.append(&payload(lsn)).unwrap();
    }
    log.truncate_after(Lsn::new(3)).unwrap();
    log.close().unwrap();
    let whole = bytes(&region);
    for copy in [0, 4096] {
        let mut image = whole.clone();
        image[(layout::SEGMENTS + copy) as usize + 9] ^= 1;
        let log = options().open_region(region_of(&image)).unwrap();
        assert_is(&log, &expected(1..4), &format!("copy {copy}"));
        log.abandon();
    }
}

/// Two truncations, of which the second discards nothing in one segment, done or interrupted between its two
/// syncs: the mark that follows there has the limit of the second one, which the next record is above.
#[test]
fn a_segment_that_loses_nothing_follows_the_last_truncation() {
    for interrupted in [false, true] {
        let region = region(3);
        let mut log = options().format(region.clone()).unwrap();
        {
            let (mut one, mut other) = (log.writer(), log.writer());
            one.append(&payload(1)).unwrap();
            other.append(&payload(2)).unwrap();
            other.append(&payload(3)).unwrap();
        }
        log.truncate_after(Lsn::new(2)).unwrap();
        let before = bytes(&region);
        log.truncate_after(Lsn::FIRST).unwrap();
        let mut image = bytes(&region);
        log.abandon();
        if interrupted {
            for segment in 0..3 {
                let second = (layout::SEGMENTS + segment * SEGMENT) as usize + 4096;
                image[second..second + 4096].copy_from_slice(&before[second..second + 4096]);
            }
        }
        let region = region_of(&image);
        let log = options().open_region(region.clone()).unwrap();
        assert_eq!(log.recovery().finished_truncation, interrupted);
        assert_eq!(log.append(&payload(2)).unwrap(), Lsn::new(2));
        log.abandon();
        let log = options().open_region(region).unwrap();
        assert_is(&log, &expected(1..3), &format!("interrupted {interrupted}"));
        log.abandon();
    }
}

/// A bit of any line of a segment with marks is another one: an error, or the last commit is not there.
#[test]
fn a_damaged_mark_brings_no_truncated_record_back() {
    let region = region(3);
    let mut log = options().format(region.clone()).unwrap();
    let mut records = Records::new();
    for (kept, more) in [(0, 8), (5, 3), (7, 2), (4, 3), (6, 1)] {
        log.truncate_after(Lsn::new(kept)).unwrap();
        records.retain(|(lsn, _)| *lsn <= kept);
        for _ in 0..more {
            let lsn = log.append(&[kept as u8; 40]).unwrap().get();
            records.push((lsn, vec![kept as u8; 40]));
        }
    }
    let used = log.space().used_bytes;
    log.abandon();
    let whole = bytes(&region);
    let (mut damaged, mut dropped) = (0, 0);
    let first = layout::SEGMENTS + layout::BLOCKS;
    for at in (first..first + used).step_by(8) {
        let mut image = whole.clone();
        image[at as usize] ^= 4;
        match options().read_only(true).open_region(region_of(&image)) {
            Err(error) => {
                damaged += 1;
                let named = matches!(error.kind(), ErrorKind::DamagedRecords { .. });
                assert!(named, "{at}: {error}");
                let accepting = options().accept_damage(true);
                let log = accepting.open_region(region_of(&image)).unwrap();
                // The others, and none that was truncated.
                for record in all(&log) {
                    assert!(records.contains(&record), "{at}: {record:?}");
                }
                assert_eq!(log.last(), Lsn::new(7), "{at}");
            }
            Ok(log) if all(&log) == records => {}
            Ok(log) => {
                dropped += 1;
                assert_eq!(all(&log), records[..records.len() - 1], "{at}");
            }
        }
    }
    assert!(damaged > 100 && dropped > 5, "{damaged} {dropped}");
}

/// A reader of another process that has the segment of a truncation open: what follows the mark is not
/// taken for what the truncation has voided.
#[test]
fn a_follower_passes_every_mark() {
    let region = region(4);
    let mut log = options().format(region.clone()).unwrap();
    let mut follower = LogReader::in_region(region.clone(), Lsn::ZERO).unwrap();
    let mut next = 1;
    for round in 0..20 {
        for _ in 0..2 {
            assert_eq!(log.append(&[round; 20]).unwrap(), Lsn::new(next));
            let record = follower.next_record().unwrap().expect("it is there");
            assert_eq!((record.lsn, record.payload), (Lsn::new(next), &[round; 20][..]));
            next += 1;
        }
        // Not given yet: the follower stays where it is.
        log.append(b"void").unwrap();
        log.truncate_after(Lsn::new(next - 1)).unwrap();
        if round % 3 == 0 {
            assert!(follower.next_record().unwrap().is_none());
        }
    }
}

/// It has read the root of a truncation, and headers that did not know of it yet.
#[test]
fn a_follower_between_root_and_headers_misses_nothing() {
    let below = region(4);
    let region = Hooked::new(below.clone());
    let mut log = options().format(&region).unwrap();
    for lsn in 1..=10 {
        assert_eq!(log.append(&payload(lsn)).unwrap(), Lsn::new(lsn));
    }
    let mut follower = LogReader::in_region(below, Lsn::ZERO).unwrap();
    let mut given = |count: usize| -> Vec<u64> {
        follower.by_ref().take(count).map(|record| record.unwrap().0.get()).collect()
    };
    assert_eq!(given(8), (1..9).collect::<Vec<_>>());
    region.plan(At::Drain, What::Stops);
    std::thread::scope(|scope| {
        let cutting = scope.spawn(|| log.truncate_after(Lsn::new(8)));
        region.meet_twice(|| assert!(given(9).is_empty(), "void"));
        cutting.join().unwrap().unwrap();
    });
    for lsn in 9..=12 {
        assert_eq!(log.append(b"instead").unwrap(), Lsn::new(lsn));
    }
    assert_eq!(given(9), [9, 10, 11, 12]);
}

/// Truncations, and what follows them in the same segment, cut by every crash.
#[test]
fn every_crash_leaves_a_truncation_and_what_follows_whole() {
    use crate::sim::Explorer;
    const LEN: u64 = layout::SEGMENTS + 3 * SEGMENT;
    // Up to which record each step keeps those before, and how many it appends.
    const STEPS: [(u64, u64); 7] = [(4, 0), (3, 0), (3, 1), (2, 0), (2, 2), (3, 0), (3, 1)];
    let states: Vec<Records> = (0..=STEPS.len())
        .map(|done| {
            let mut records: Records = (1..=5).map(|lsn| (lsn, vec![0; 8])).collect();
            for (step, (kept, more)) in STEPS[..done].iter().enumerate() {
                records.retain(|(lsn, _)| lsn <= kept);
                records.extend((1..=*more).map(|one| (kept + one, vec![step as u8 + 1; 8])));
            }
            records
        })
        .collect();
    for mode in Mode::ALL {
        let states = states.clone();
        let report = Explorer::new(mode, LEN)
            .images(40)
            .samples(8)
            .depth(1)
            .setup(|region| {
                let log = options().format(region.clone())?;
                (0..5).try_for_each(|_| log.append(&[0; 8]).map(drop))?;
                log.abandon();
                Ok(())
            })
            .run(
                |region, notes| {
                    let mut log = options().open_region(region.clone())?;
                    for (step, (kept, more)) in STEPS.into_iter().enumerate() {
                        if more == 0 {
                            log.truncate_after(Lsn::new(kept))?;
                        }
                        for _ in 0..more {
                            log.append(&[step as u8 + 1; 8])?;
                        }
                        notes.ack(step as u64 + 1);
                    }
                    log.abandon();
                    Ok(())
                },
                move |region, history| {
                    let log = options().open_region(region.clone());
                    let log = log.map_err(|error| error.to_string())?;
                    let done = history.acked().last().map_or(0, |done| *done as usize);
                    let found = all(&log);
                    // The second of two records is a commit of its own.
                    let between =
                        |state: &Records| state.split_last().map(|(_, rest)| rest.to_vec());
                    let next = states.get(done + 1);
                    let right = found == states[done]
                        || next == Some(&found)
                        || next.and_then(between).as_ref() == Some(&found);
                    let followed = followed(region);
                    if !right || followed != found {
                        return Err(format!("after {done}: {found:?}, followed {followed:?}"));
                    }
                    // Nothing that is void comes before what is appended now.
                    let lsn = log.append(b"next").map_err(|error| error.to_string())?;
                    let next = [found, vec![(lsn.get(), b"next".to_vec())]].concat();
                    if all(&log) != next {
                        return Err(format!("after an append: {:?}", all(&log)));
                    }
                    // With everything released, the largest commit has room.
                    let most = vec![1; log.commit_bytes_max() as usize];
                    let room = log.release_up_to(log.last()).and_then(|()| log.append(&most));
                    room.map(drop).map_err(|error| error.to_string())
                },
            );
        assert!(report.expect_clean().crash_points > 15, "{mode:?}");
    }
}
