//! What is opened, for reading or for writing, and what is not.

use super::*;

#[test]
fn wrong_kinds_and_newer_versions_are_refused_and_left_alone() {
    let blank = region(2);
    let kind = |result: Result<Log<SimRegion>>| result.unwrap_err().kind().clone();
    assert!(matches!(kind(options().open_region(blank)), ErrorKind::WrongFormat(_)));
    let other = region(2);
    other.write(0, b"something else entirely").unwrap();
    other.write(5000, b"and more").unwrap();
    assert!(matches!(kind(options().open_region(other.clone())), ErrorKind::WrongFormat(_)));
    assert!(matches!(kind(options().open_or_format(other)), ErrorKind::WrongFormat(_)));
    let newer = region(2);
    let header = crate::format::header::Header {
        kind: crate::format::header::Kind::Log,
        version: VERSION + 1,
        salt: 1,
        numbers: [SEGMENT, 0, 0, 0],
    };
    header.complete(&newer).unwrap();
    let found = kind(options().open_region(newer));
    assert!(matches!(found, ErrorKind::NewerFormat { found: 3, newest: 2 }));
    let short = SimRegion::new(Mode::Adr, 20000, 20000);
    assert!(matches!(kind(options().format(short)), ErrorKind::TooShort { .. }));
}

/// All else is sound.
#[test]
fn a_header_with_an_impossible_segment_size_is_damage() {
    use crate::format::header::{Found, Header, Kind};
    for size in
        [0, 1, 4096, 2 * 4096, 3 * 4096 - 1, 3 * 4096 + 8, (1 << 31) + 4096, 1 << 62, u64::MAX]
    {
        let region = region(2);
        drop(options().format(region.clone()).unwrap());
        let Found::Header { mut header, .. } = Header::find(&region, Kind::Log, VERSIONS).unwrap()
        else {
            panic!("it was just written");
        };
        header.numbers[0] = size;
        header.complete(&region).unwrap();
        let error = options().open_region(region).unwrap_err();
        let impossible = |what: &str| what == "the header names an impossible segment size";
        let refused = matches!(error.kind(), ErrorKind::Damaged(what) if impossible(what));
        assert!(refused, "{size}: {error}");
    }
}

#[test]
fn an_abandoned_log_is_left_as_by_a_kill() {
    let bytes = |region: &SimRegion| {
        let mut bytes = vec![0; region.len() as usize];
        region.read(0, &mut bytes).unwrap();
        bytes
    };
    let region = region(4);
    let log = options().format(region.clone()).unwrap();
    log.append(&payload(1)).unwrap();
    let before = bytes(&region);
    log.abandon();
    assert!(bytes(&region) == before, "it was written to");
    let log = options().open_region(region.clone()).unwrap();
    assert_eq!(all(&log), expected(1..2));
    let before = bytes(&region);
    drop(log);
    assert!(bytes(&region) != before, "a drop closes it");
}

/// A process that was killed between writing and draining leaves a block that can be seen and may
/// not be durable: once recovery has accepted it, it must be.
#[test]
fn what_recovery_has_accepted_is_durable() {
    let region = region(4);
    drop(options().format(region.clone()).unwrap());
    region.settle();
    let undrained = Hooked::undrained(region.clone());
    let log = options().open_region(region.clone()).unwrap();
    region.settle();
    log.abandon();
    let log = options().open_region(&undrained).unwrap();
    log.append(&payload(1)).unwrap();
    log.abandon();
    let log = options().open_region(region.clone()).unwrap();
    assert_eq!(all(&log), expected(1..2));
    for seed in 0..200 {
        let log = options().open_region(region.crash(seed)).unwrap();
        assert_eq!(all(&log), expected(1..2), "seed {seed}");
    }
}

#[test]
fn a_read_only_log_changes_nothing() {
    let region = region(4);
    let log = options().format(region.clone()).unwrap();
    log.append(&payload(1)).unwrap();
    log.abandon();
    let snapshot = |region: &SimRegion| {
        let mut bytes = vec![0; region.len() as usize];
        region.read(0, &mut bytes).unwrap();
        bytes
    };
    let before = snapshot(&region);
    let log = options().read_only(true).open_region(region.clone()).unwrap();
    assert_eq!(all(&log), expected(1..2));
    assert!(matches!(log.append(b"x").unwrap_err().kind(), ErrorKind::ReadOnly));
    assert!(matches!(log.release_up_to(Lsn::FIRST).unwrap_err().kind(), ErrorKind::ReadOnly));
    drop(log);
    assert_eq!(snapshot(&region), before);
}

#[test]
fn a_log_in_a_file_is_whole_and_has_one_writer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wal");
    let options = LogOptions::new().region(Options::new().len(1 << 20)).segment_bytes(65536);
    assert!(options.open(&path).is_err());
    let log = options.open_or_create(&path).unwrap();
    log.append(b"one").unwrap();
    assert!(matches!(options.open(&path).unwrap_err().kind(), ErrorKind::Locked));
    assert!(options.create(&path).is_err());
    let mut follower = LogReader::open(&path, Lsn::ZERO).unwrap();
    assert_eq!(follower.next_record().unwrap().unwrap().payload, b"one");
    log.close().unwrap();
    let log = Log::open(&path).unwrap();
    assert_eq!(all(&log), [(1, b"one".to_vec())]);
    let blank = directory.path().join("blank");
    Options::new().len(1 << 20).create(&blank).unwrap();
    let error = options.open_or_create(&blank).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WrongFormat(_)), "{error}");
}
