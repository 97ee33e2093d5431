//! Losses that only the log's own count can show: records that were durable, of which nothing is left
//! that could be damaged.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use daxmap::log::{LogOptions, Lsn};
use daxmap::{ErrorKind, Options};
use pmem_tests::log_model::{SEGMENT, SEGMENTS_AT, region_len};

/// A log of ten records, three to a segment but for the last; `before` is what the file held when
/// `then` of them were there.
fn ten_records(path: &Path, then: u64) -> Vec<u8> {
    let region = Options::new().len(region_len(6));
    let log =
        LogOptions::new().region(region).segment_bytes(SEGMENT).create(path).expect("created");
    let mut before = std::fs::read(path).expect("read");
    for number in 1..=10 {
        log.append(&[number; 1200]).expect("room");
        if u64::from(number) == then {
            before = std::fs::read(path).expect("read");
        }
    }
    log.close().expect("closed");
    before
}

/// Puts what a segment held before in its place.
fn lose(path: &Path, before: &[u8], segment: u64) {
    let at = SEGMENTS_AT + segment * SEGMENT;
    let file = OpenOptions::new().write(true).open(path).expect("opened");
    file.write_all_at(&before[at as usize..(at + SEGMENT) as usize], at).expect("written");
}

#[test]
fn a_segment_that_is_an_older_one_is_damage() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    // Never used; used, and then written further; the last one.
    for (then, segment, lost) in [(0, 1, (4, 6)), (5, 1, (6, 6)), (0, 3, (10, 10))] {
        let path = directory.path().join(format!("log-{then}-{segment}"));
        let before = ten_records(&path, then);
        lose(&path, &before, segment);
        for read_only in [true, false] {
            let error = LogOptions::new().read_only(read_only).open(&path).expect_err("a loss");
            let said = matches!(error.kind(), ErrorKind::DamagedRecords { first, last }
                if (*first, *last) == lost);
            assert!(said, "{then}, {segment}: {error}");
        }
        // The rest can be had, and an opening for writing gives the others up.
        for (read_only, expected) in [(true, 1), (false, 1), (true, 0)] {
            let options = LogOptions::new().accept_damage(true).read_only(read_only);
            let log = options.open(&path).expect("accepted");
            assert_eq!(log.recovery().damaged.len(), expected, "{then}, {segment}");
            let found: Vec<_> = log
                .reader(Lsn::ZERO)
                .expect("a reader")
                .map(|r| r.expect("there").0.get())
                .collect();
            let kept = (1..=10).filter(|lsn| !(lost.0..=lost.1).contains(lsn));
            assert_eq!(found, kept.collect::<Vec<u64>>());
        }
        drop(LogOptions::new().open(&path).expect("what is lost was given up"));
    }
}

/// Parts of a copy are of different moments: here the first segment is of an earlier one than the root.
#[test]
fn a_copy_of_several_moments_is_recognised() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let (path, copy) = (directory.path().join("log"), directory.path().join("copy"));
    let region = Options::new().len(region_len(6));
    let log =
        LogOptions::new().region(region).segment_bytes(SEGMENT).create(&path).expect("created");
    log.append(&[1; 1200]).expect("room");
    let first = std::fs::read(&path).expect("read");
    for number in 2..=8 {
        log.append(&[number; 1200]).expect("room");
    }
    // The root is written: what it says is durable is all of these.
    log.release_up_to(Lsn::FIRST).expect("released");
    std::fs::copy(&path, &copy).expect("copied");
    let whole = LogOptions::new().read_only(true).open(&copy).expect("a copy at one moment");
    assert_eq!(whole.recovery().records, 7);
    drop(whole);
    lose(&copy, &first, 0);
    let error = LogOptions::new().read_only(true).open(&copy).expect_err("of two moments");
    assert!(matches!(error.kind(), ErrorKind::DamagedRecords { first: 2, last: 3 }), "{error}");
}
