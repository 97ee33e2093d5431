//! The log on regions in memory.

use super::*;
use crate::sim::{Mode, SimRegion};
use crate::{ErrorKind, Options};

const SEGMENT: u64 = 8192;

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
    assert!(matches!(found, ErrorKind::NewerFormat { found: 2, newest: 1 }));
    let short = SimRegion::new(Mode::Adr, 20000, 20000);
    assert!(matches!(kind(options().format(short)), ErrorKind::TooShort { .. }));
}

/// All else is sound.
#[test]
fn a_header_with_an_impossible_segment_size_is_damage() {
    use crate::format::header::{Found, Header, Kind};
    for size in [0, 1, 4096, 2 * 4096 - 1, 2 * 4096 + 8, (1 << 31) + 4096, 1 << 62, u64::MAX] {
        let region = region(2);
        drop(options().format(region.clone()).unwrap());
        let Found::Header { mut header, .. } = Header::find(&region, Kind::Log, VERSION).unwrap()
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
    let undrained = Undrained(region.clone());
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

/// A region whose process is killed before it drains.
struct Undrained(SimRegion);

impl Region for Undrained {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn durability(&self) -> crate::Durability {
        self.0.durability()
    }
    fn granularity(&self) -> crate::Granularity {
        self.0.granularity()
    }
    fn backend(&self) -> crate::Backend {
        self.0.backend()
    }
    fn is_emulated(&self) -> bool {
        true
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read(offset, buf)
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.0.write(offset, data)
    }
    fn write_flush(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.0.write_flush(offset, data)
    }
    fn fill_flush(&self, offset: u64, len: u64, byte: u8) -> Result<()> {
        self.0.fill_flush(offset, len, byte)
    }
    fn flush(&self, offset: u64, len: u64) -> Result<()> {
        self.0.flush(offset, len)
    }
    fn drain(&self) -> Result<()> {
        Ok(())
    }
    fn deep_flush(&self, offset: u64, len: u64) -> Result<()> {
        self.0.flush(offset, len)
    }
    fn load_u64(&self, offset: u64) -> Result<u64> {
        self.0.load_u64(offset)
    }
    fn store_u64(&self, offset: u64, value: u64) -> Result<()> {
        self.0.store_u64(offset, value)
    }
    fn compare_exchange_u64(
        &self,
        offset: u64,
        current: u64,
        new: u64,
    ) -> Result<std::result::Result<u64, u64>> {
        self.0.compare_exchange_u64(offset, current, new)
    }
    #[allow(unsafe_code)]
    unsafe fn slice(&self, _: u64, _: u64) -> Result<&[u8]> {
        Ok(&[])
    }
    #[allow(unsafe_code, clippy::mut_from_ref)]
    unsafe fn slice_mut(&self, _: u64, _: u64) -> Result<&mut [u8]> {
        Ok(&mut [])
    }
    fn grow(&self, new_len: u64) -> Result<()> {
        self.0.grow(new_len)
    }
    fn close(&self) -> Result<()> {
        self.0.close()
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
    let released = log.space();
    assert_eq!((released.free_segments, released.used_bytes), (3, 4096));
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
