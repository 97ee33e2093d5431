//! Who gets a segment, and when the log is full: whoever has used it, a log of which everything is
//! released has room for the largest commit.

use std::sync::Barrier;

use super::*;

fn in_mode(mode: Mode, segments: u64) -> SimRegion {
    let len = layout::SEGMENTS + segments * SEGMENT;
    SimRegion::new(mode, len, 2 * len)
}

fn is_full<T>(result: &Result<T>) -> bool {
    matches!(result, Err(error) if matches!(error.kind(), ErrorKind::Full { .. }))
}

/// Releases everything and fills a segment, by the log and by a writer of its own.
fn has_room<R: Region>(log: &Log<R>) {
    for own in [false, true] {
        log.release_up_to(log.last()).unwrap();
        let space = log.space();
        assert!(space.free_bytes >= log.commit_bytes_max(), "{space:?}");
        let largest = vec![1; log.commit_bytes_max() as usize];
        if own { log.writer().append(&largest) } else { log.append(&largest) }.unwrap();
    }
    log.release_up_to(log.last()).unwrap();
}

#[test]
fn writers_that_have_filled_a_segment_each_go_on_when_it_is_released() {
    for mode in [Mode::Adr, Mode::PageCache] {
        let log = options().format(in_mode(mode, 2)).unwrap();
        let mut writers = [log.writer(), log.writer()];
        for round in 0..10 {
            for writer in &mut writers {
                while !is_full(&writer.append(&[7; 1000])) {}
            }
            assert!(round > 0 || log.last().get() >= 6);
            log.release_up_to(log.last()).unwrap();
            for writer in &mut writers {
                writer.append(&[8; 1000]).unwrap();
            }
        }
        drop(writers);
        has_room(&log);
    }
}

#[test]
fn a_writer_for_each_record_never_uses_the_log_up() {
    for mode in [Mode::Adr, Mode::PageCache] {
        let region = in_mode(mode, 3);
        let mut log = options().format(region.clone()).unwrap();
        for lsn in 1..=1500 {
            assert_eq!(log.writer().append(&[1; 100]).unwrap(), Lsn::new(lsn), "{mode:?}");
            log.release_up_to(Lsn::new(lsn)).unwrap();
            if lsn % 400 == 0 {
                log.close().unwrap();
                log = options().open_region(region.clone()).unwrap();
            }
        }
        has_room(&log);
    }
}

/// One record kept in each segment, and no writer: none is full, and none free, until that is released.
#[test]
fn segments_that_are_not_full_are_recycled_too() {
    let log = options().format(in_mode(Mode::Adr, 3)).unwrap();
    let most = log.commit_bytes_max() as usize;
    {
        let mut writers = [log.writer(), log.writer(), log.writer()];
        for writer in &mut writers {
            writer.append(&[1; 100]).unwrap();
        }
    }
    let refused = log.append(&vec![2; most]);
    assert!(is_full(&refused), "{refused:?}");
    assert_eq!(log.space().free_segments, 0);
    log.release_up_to(Lsn::new(2)).unwrap();
    assert_eq!(log.space().free_segments, 2);
    assert_eq!(log.append(&vec![2; most]).unwrap(), Lsn::new(4));
    assert_eq!(log.read(Lsn::new(3)).unwrap(), [1; 100], "it was not recycled");
    has_room(&log);
}

/// Sixteen calls at once leave sixteen segments with the log's own writers: whoever comes then gets one.
#[test]
fn segments_of_a_burst_are_called_back() {
    fn nested(log: &Log<SimRegion>, depth: u32) {
        let inner = (0..1).map(|_| {
            if depth > 0 {
                nested(log, depth - 1);
            }
            [depth as u8; 8]
        });
        log.append_many(inner).unwrap();
    }
    let log = options().format(in_mode(Mode::Adr, 16)).unwrap();
    nested(&log, 15);
    let barrier = Barrier::new(16);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                barrier.wait();
                log.append(&[3; 1000]).unwrap();
            });
        }
    });
    log.release_up_to(log.last()).unwrap();
    let mut writers: Vec<_> = (0..16).map(|_| log.writer()).collect();
    for writer in &mut writers {
        writer.append(b"one each").unwrap();
    }
    drop(writers);
    has_room(&log);
}

/// More threads than segments: they wait for each other.
#[test]
fn calls_share_the_segments_there_are() {
    let len = layout::SEGMENTS + 2 * (64 << 10);
    let region = Options::new().len(len).emulate(crate::Emulation::Adr).in_memory().unwrap();
    let log = LogOptions::new().segment_bytes(64 << 10).seed(7).format(&region).unwrap();
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let (log, barrier) = (&log, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for _ in 0..50 {
                    log.append(&[thread; 20]).unwrap();
                    log.append_many([[thread; 20]; 2]).unwrap();
                }
            });
        }
    });
    assert_eq!(log.last(), Lsn::new(8 * 50 * 3));
    assert_eq!(all(&log).len(), 8 * 50 * 3);
    has_room(&log);
}

#[test]
fn too_many_writers_are_not_a_full_log() {
    let mut log = options().format(in_mode(Mode::Adr, 2)).unwrap();
    let too_many = |result: Result<Lsn>| {
        let error = result.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::TooManyWriters { segments: 2 }), "{error}");
    };
    {
        let mut writers = [log.writer(), log.writer()];
        for writer in &mut writers {
            writer.append(b"x").unwrap();
        }
        too_many(log.append(b"y"));
        log.release_up_to(log.last()).unwrap();
        let mut third = log.writer();
        too_many(third.append(b"y"));
        let [one, other] = writers;
        drop(one);
        assert_eq!(third.append(b"y").unwrap(), Lsn::new(3));
        // Where they share one, there may be any number.
        drop((third, other));
    }
    has_room(&log);
    // A writer that was forgotten has its segment no longer than until the log is one caller's.
    for writer in [log.writer(), log.writer()] {
        let mut writer = writer;
        writer.append(b"z").unwrap();
        std::mem::forget(writer);
    }
    too_many(log.append(b"y"));
    log.truncate_after(Lsn::new(log.last().get() - 1)).unwrap();
    has_room(&log);
    let shared = options().format(in_mode(Mode::PageCache, 2)).unwrap();
    let mut writers: Vec<_> = (0..9).map(|_| shared.writer()).collect();
    for writer in &mut writers {
        writer.append(b"x").unwrap();
    }
}

/// The only segment that can be used is the one that all share: releasing helps.
#[test]
fn a_shared_log_beside_a_lost_segment_is_full_and_has_room_after_a_release() {
    let region = in_mode(Mode::PageCache, 2);
    let log = options().format(region.clone()).unwrap();
    log.append(b"in the segment that is lost").unwrap();
    log.close().unwrap();
    for copy in [0, 4096] {
        region.write(layout::SEGMENTS + copy, &[0xa5; 64]).unwrap();
    }
    region.flush(layout::SEGMENTS, 8192).unwrap();
    region.drain().unwrap();
    let log = options().accept_damage(true).open_region(region).unwrap();
    assert_eq!(log.recovery().lost_segments.len(), 1);
    let mut writer = log.writer();
    for own in [true, false] {
        let mut append = || if own { writer.append(&[1; 900]) } else { log.append(&[1; 900]) };
        let error = (0..20).find_map(|_| append().err()).expect("it becomes full");
        assert!(matches!(error.kind(), ErrorKind::Full { .. }), "{error}");
        log.release_up_to(log.last()).unwrap();
        append().unwrap();
    }
    log.release_up_to(log.last()).unwrap();
    log.append(&vec![1; log.commit_bytes_max() as usize]).unwrap();
}

/// A writer for which there is no room leaves the rest of its segment to whoever needs less.
#[test]
fn the_rest_of_a_segment_is_for_whoever_needs_less() {
    let log = options().format(in_mode(Mode::Adr, 2)).unwrap();
    let half = log.commit_bytes_max() as usize / 2;
    let mut writers = [log.writer(), log.writer()];
    for writer in &mut writers {
        writer.append(&vec![1; half]).unwrap();
    }
    let [one, other] = &mut writers;
    assert!(is_full(&one.append(&vec![2; half + 100])));
    let mut third = log.writer();
    assert_eq!(third.append(&[3; 100]).unwrap(), Lsn::new(3));
    let refused = one.append(&[4; 100]);
    assert!(matches!(refused.unwrap_err().kind(), ErrorKind::TooManyWriters { .. }));
    assert_eq!(other.append(&[4; 100]).unwrap(), Lsn::new(4));
    drop(third);
    assert_eq!(one.append(&[4; 100]).unwrap(), Lsn::new(5));
}

#[test]
fn a_log_that_has_grown_is_opened_with_the_options_it_was_made_with() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wal");
    let options = |bytes: u64| LogOptions::new().region(Options::new().len(bytes));
    let mut log = options(1 << 20).open_or_create(&path).unwrap();
    log.append(b"precious").unwrap();
    log.grow(2 << 20).unwrap();
    let segments = log.space().segments;
    log.close().unwrap();
    for bytes in [0, 1, 1 << 20, 2 << 20, 4 << 20, u64::MAX - 1, u64::MAX] {
        for read_only in [true, false] {
            let log = options(bytes).read_only(read_only).open(&path).unwrap();
            assert_eq!((log.recovery().records, log.space().segments), (1, segments), "{bytes}");
        }
        let log = options(bytes).open_or_create(&path).unwrap();
        assert_eq!(all(&log), [(1, b"precious".to_vec())]);
    }
}
