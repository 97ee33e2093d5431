//! Readers of an open log: no record is passed over in silence, whatever is released beside them, and
//! what a record costs does not depend on how many segments there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use daxmap::log::{Log, LogOptions, Lsn};
use daxmap::{AnyRegion, Emulation, ErrorKind, Options};
use pmem_tests::watched::Watched;

const SEGMENT: u64 = 12288;

fn region(segments: u64) -> Watched<AnyRegion> {
    let options = Options::new().len(16384 + segments * SEGMENT).emulate(Emulation::Adr);
    Watched::new(options.in_memory().expect("memory"))
}

fn log(region: &Watched<AnyRegion>) -> Log<Watched<AnyRegion>> {
    LogOptions::new().segment_bytes(SEGMENT).format(region.clone()).expect("formatted")
}

/// Threads that append, release and read at once: 116 gaps in 20 s without an error were seen where a
/// reader looked for segments after it had asked what is released, and not again behind them.
#[test]
fn records_released_beside_a_reader_are_never_passed_over() {
    let region = Options::new().len(16384 + 8 * SEGMENT).emulate(Emulation::Eadr);
    let region = region.in_memory().expect("memory");
    let log = LogOptions::new().segment_bytes(SEGMENT).format(region).expect("formatted");
    let (log, stop) = (&log, &AtomicBool::new(false));
    let going = || !stop.load(Ordering::Relaxed);
    let until = Instant::now() + Duration::from_secs(2);
    let release = |keep: u64| {
        let last = log.last().get();
        if last > keep {
            log.release_up_to(Lsn::new(last - keep)).expect("released");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut writer, mut turn) = (log.writer(), 0_usize);
            while going() {
                turn += 1;
                if let Err(error) = writer.append(&vec![1; turn * 131 % 600]) {
                    assert!(matches!(error.kind(), ErrorKind::Full { .. }), "{error}");
                    release(0);
                }
            }
        });
        scope.spawn(move || (0..).map_while(|turn| going().then_some(turn % 20)).for_each(release));
        let reader = || {
            let (mut records, mut released) = (0, 0);
            while Instant::now() < until {
                let from = log.released().next();
                let Ok(mut reader) = log.reader(from) else {
                    released += 1;
                    continue;
                };
                let mut expected = from;
                for _ in 0..20 {
                    match reader.next_record() {
                        Ok(Some(record)) => {
                            assert_eq!(record.lsn, expected, "released {}", log.released());
                            expected = record.lsn.next();
                            records += 1;
                        }
                        Ok(None) => {}
                        Err(error) => {
                            let told = matches!(error.kind(), ErrorKind::Released { .. });
                            assert!(told, "{error}");
                            released += 1;
                            break;
                        }
                    }
                }
                let last = log.last();
                if last > Lsn::ZERO
                    && let Err(error) = log.read(last)
                {
                    assert!(matches!(error.kind(), ErrorKind::Released { .. }), "{last}: {error}");
                }
            }
            (records, released)
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        let results = readers.map(std::thread::ScopedJoinHandle::join);
        stop.store(true, Ordering::Relaxed);
        for result in results {
            let (records, released) = result.expect("nothing is passed over");
            assert!(records > 100 && released > 0, "{records} records, {released} releases");
        }
    });
}

/// The release, and so many appends that every segment is used again, come between two reads.
#[test]
fn a_release_between_any_two_reads_is_told() {
    let mut reads = 0;
    loop {
        let region = region(3);
        let log = Arc::new(log(&region));
        for _ in 0..6 {
            log.append(&[1; 1900]).expect("room");
        }
        let mut reader = log.reader(Lsn::FIRST).expect("nothing is released");
        let other = Arc::clone(&log);
        region.before_read(reads, move || {
            for _ in 0..8 {
                other.release_up_to(other.last()).expect("released");
                other.append(&[2; 1900]).expect("room");
            }
        });
        let mut expected = 1;
        let told = loop {
            match reader.next_record() {
                Ok(Some(record)) => {
                    assert_eq!((record.lsn.get(), record.payload[0]), (expected, 1), "{reads}");
                    expected += 1;
                }
                Ok(None) => break false,
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Released { first: 14 }), "{error}");
                    break true;
                }
            }
        };
        if region.forget() {
            assert!(!told && expected == 7);
            break;
        }
        reads += 1;
    }
    assert!(reads > 6);
}

/// The commits of this log, of 4 to a segment; the reads that the record in the middle costs.
fn reads_of_one(segments: u64) -> u64 {
    let region = region(segments + 1);
    let log = log(&region);
    for _ in 0..segments * 4 {
        log.append(&[7; 900]).expect("room");
    }
    let before = region.reads();
    assert_eq!(log.read(Lsn::new(segments * 2 + 2)).expect("there").len(), 900);
    region.reads() - before
}

#[test]
fn to_read_one_record_costs_the_same_among_2_and_among_160_segments() {
    let few = reads_of_one(2);
    assert!(few <= 8, "{few} reads");
    assert_eq!(reads_of_one(160), few);
}

#[test]
fn a_reader_at_the_end_costs_the_same_after_thousands_of_lives() {
    let region = region(4);
    let log = log(&region);
    let mut writer = log.writer();
    let mut reader = log.reader(Lsn::ZERO).expect("nothing is released");
    let mut costs = Vec::new();
    for _ in 0..20_000 {
        let lsn = writer.append(&[5; 1900]).expect("room");
        let before = region.reads();
        assert_eq!(reader.next_record().expect("kept").expect("there").lsn, lsn);
        costs.push(region.reads() - before);
        log.release_up_to(lsn).expect("released");
    }
    let most = |costs: &[u64]| costs.iter().copied().max();
    assert_eq!(most(&costs[..100]), most(&costs[19_900..]));
    assert!(most(&costs) <= Some(4), "{:?}", most(&costs));
}

/// The newest records, read backwards, cost no more where there are many segments before them.
#[test]
fn to_read_the_newest_backwards_costs_the_same_among_2_and_among_160_segments() {
    let reads = |segments: u64| {
        let region = region(segments + 1);
        let log = log(&region);
        for _ in 0..segments * 4 {
            log.append(&[7; 900]).expect("room");
        }
        let before = region.reads();
        let newest = log.reverse_reader(Lsn::new(u64::MAX)).expect("a reader").take(3);
        let newest: Vec<_> = newest.map(|record| record.expect("kept").0.get()).collect();
        let reads = region.reads() - before;
        let all = log.reverse_reader(Lsn::new(u64::MAX)).expect("a reader");
        assert!(all.map(|record| record.expect("kept").0.get()).eq((1..=segments * 4).rev()));
        (newest[0] == segments * 4, reads)
    };
    let few = reads(2);
    assert!(few.0 && few.1 <= 16, "{few:?}");
    assert_eq!(reads(160), few);
}
