//! What an append costs, by the library's counters: one fence, and every line of the commit once.
#![cfg(feature = "counters")]

use daxmap::cpu::counts;
use daxmap::log::{LogOptions, Lsn};
use daxmap::{AnyRegion, Emulation, Options};

fn region(emulation: Emulation) -> AnyRegion {
    Options::new().len(8 << 20).emulate(emulation).in_memory().expect("memory")
}

/// Lines of a commit of one record: its header of 40 bytes and its payload.
fn lines(len: usize) -> u64 {
    (40 + len).div_ceil(64) as u64
}

#[test]
fn an_append_is_one_fence_and_each_line_once() {
    for emulation in [Emulation::Adr, Emulation::Eadr] {
        let log = LogOptions::new().segment_bytes(1 << 20).format(region(emulation)).unwrap();
        let mut writer = log.writer();
        // Begins the segment.
        writer.append(b"first").unwrap();
        for len in [0, 8, 24, 25, 64, 512, 1023, 1024, 2047, 2048, 2072, 2073, 4096, 5000, 70_000] {
            let payload = vec![7; len];
            let before = counts();
            let lsn = writer.append(&payload).unwrap();
            let cost = counts().since(before);
            assert_eq!(log.read(lsn).unwrap(), payload, "{len} bytes");
            assert_eq!(cost.fences, 1, "{emulation:?}, {len} bytes: {cost:?}");
            let written = cost.write_backs + cost.non_temporal_lines;
            if emulation == Emulation::Adr {
                assert_eq!(written, lines(len), "{len} bytes: {cost:?}");
            } else {
                assert_eq!(cost.write_backs, 0, "{len} bytes: {cost:?}");
            }
        }
    }
}

#[test]
fn a_commit_of_many_records_is_one_fence() {
    let log = LogOptions::new().segment_bytes(1 << 20).format(region(Emulation::Adr)).unwrap();
    let mut writer = log.writer();
    writer.append(b"first").unwrap();
    for _ in 0..64 {
        writer.stage(&[5; 64]).unwrap();
    }
    let before = counts();
    assert_eq!(writer.commit().unwrap(), Lsn::new(2)..Lsn::new(66));
    let cost = counts().since(before);
    assert_eq!(cost.fences, 1, "{cost:?}");
    let bytes = 40_u64 + 64 + 63 * (4 + 64);
    assert_eq!(cost.write_backs + cost.non_temporal_lines, bytes.div_ceil(64), "{cost:?}");
}

#[test]
fn a_segment_is_begun_with_one_fence_more_and_a_release_is_one() {
    let mut log = LogOptions::new().segment_bytes(12288).format(region(Emulation::Adr)).unwrap();
    let mut writer = log.writer();
    let mut append = || {
        let before = counts();
        writer.append(&[1; 3000]).unwrap();
        counts().since(before).fences
    };
    assert_eq!([append(), append(), append()], [2, 2, 2]);
    let before = counts();
    log.release_up_to(Lsn::new(2)).unwrap();
    assert_eq!((counts().since(before).fences, log.released()), (1, Lsn::new(2)));
    drop(writer);
    log.append_many([[2; 10]; 3]).unwrap();
    let before = counts();
    log.truncate_after(Lsn::new(4)).unwrap();
    assert_eq!((counts().since(before).fences, log.last()), (2, Lsn::new(4)));
}

/// However many there are, one fence where the next segment is begun.
#[test]
fn a_lazy_release_is_no_fence_and_a_submission_is_one() {
    let log = LogOptions::new().segment_bytes(12288).format(region(Emulation::Adr)).unwrap();
    let fences = |work: &dyn Fn()| {
        let before = counts();
        work();
        counts().since(before).fences
    };
    let append = || assert!(!log.append_many([[1; 1900]]).unwrap().is_empty());
    let release = |lsn| move |log: &daxmap::log::Log<_>| log.release_lazily(Lsn::new(lsn)).unwrap();
    assert_eq!([fences(&append), fences(&append)], [2, 1]);
    assert_eq!(fences(&|| (1..=2).for_each(|lsn| release(lsn)(&log))), 0);
    assert_eq!((fences(&append), log.released()), (3, Lsn::new(2)));
    assert_eq!(fences(&|| drop(log.submit([[2; 1900]]).unwrap())), 1);
    assert_eq!(fences(&append), 2);
}

/// Of records that fill segments to the last line, too, and where a truncation follows another one.
#[test]
fn a_truncation_is_two_fences_and_the_append_after_it_one() {
    for len in [10, 1984, 4056] {
        for writers in [1, 2] {
            let mut log =
                LogOptions::new().segment_bytes(12288).format(region(Emulation::Adr)).unwrap();
            for round in 0..40 {
                {
                    let mut writers: Vec<_> = (0..writers).map(|_| log.writer()).collect();
                    for number in 0..4 {
                        let turn = number % writers.len();
                        let writer = &mut writers[turn];
                        writer.append(&vec![1; len]).unwrap();
                    }
                }
                let kept = Lsn::new(log.last().get() - 1 - round % 3);
                let before = counts();
                log.truncate_after(kept).unwrap();
                assert_eq!(counts().since(before).fences, 2, "{len} bytes, round {round}");
                if len == 10 {
                    // There is room where the others were.
                    let before = counts();
                    log.append(&[2; 10]).unwrap();
                    assert_eq!(counts().since(before).fences, 1, "round {round}");
                }
            }
        }
    }
}
