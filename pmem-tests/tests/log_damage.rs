//! What happens to a log whose bytes are not what was written: damaged, copied, forged.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use daxmap::log::{Log, LogOptions, Lsn};
use daxmap::{AnyRegion, ErrorKind, Granularity, Options, Region, Result};
use daxmap_sim::{Mode, SimRegion, SplitMix64};
use pmem_tests::killed::Killed;
use pmem_tests::log_model::{self as model, Model, Op, SEGMENT, SEGMENTS_AT, Subject, region_len};
use pmem_tests::pass_on;
use pmem_tests::unreadable::Unreadable;
use twox_hash::XxHash3_64;

const SEGMENTS: u64 = 3;

fn bytes(region: &impl Region) -> Vec<u8> {
    let mut bytes = vec![0; region.len() as usize];
    region.read(0, &mut bytes).unwrap();
    bytes
}

fn region_of(bytes: &[u8]) -> AnyRegion {
    let region = Options::new().len(bytes.len() as u64).in_memory().unwrap();
    region.write(0, bytes).unwrap();
    region
}

fn simulated(len: u64) -> SimRegion {
    SimRegion::new(Mode::Adr, len, len)
}

/// A log with records in two segments, one of them in its second life, and some released.
fn example(closed: bool) -> (Vec<u8>, Vec<(u64, Vec<u8>)>) {
    let region = simulated(region_len(SEGMENTS));
    let before = [Op::Append(3900), Op::Append(3900), Op::Append(3900), Op::Release(1)];
    let model = model::prepare(&region, &before).unwrap();
    let mut subject = Subject::open(&region, model).unwrap();
    for op in [
        Op::Append(60),
        Op::Many(3, 30),
        Op::Append(3500),
        Op::Append(10),
        Op::Append(90),
        Op::Release(4),
    ] {
        subject.apply(op).unwrap();
    }
    let records = subject.model.records.clone();
    let log = subject.log.take().unwrap();
    if closed {
        log.close().unwrap();
    } else {
        log.abandon();
    }
    (bytes(&region), records)
}

/// Flips every bit that is not zero padding and opens the log. What a flip may do is `allowed`,
/// which is given the records, and whether recovery says that it dropped something.
fn flip_all(closed: bool, allowed: impl Fn(u64, &[(u64, Vec<u8>)], bool) -> bool) {
    let (original, records) = example(closed);
    let region = region_of(&original);
    let (mut detected, mut healed, mut tail) = (0, 0, 0);
    for at in 0..original.len() {
        // Of a line that was never written, one bit stands for all.
        let line = at / 64 * 64;
        let blank = original[line..line + 64].iter().all(|&byte| byte == 0);
        for bit in 0..if blank { u32::from(at == line) } else { 8 } {
            let place = at as u64;
            region.write(place, &[original[at] ^ 1 << bit]).unwrap();
            let open = |write: bool| model::options().read_only(!write).open_region(&region);
            match open(false) {
                Err(error) => {
                    let told = matches!(
                        error.kind(),
                        ErrorKind::Damaged(_) | ErrorKind::DamagedRecords { .. }
                    );
                    assert!(told, "bit {bit} of {at}: {error}");
                    let range = error.range().expect("where it is");
                    assert!(range.start <= place && place < range.end, "{at}: {range:?}");
                    detected += 1;
                    let salvaged = model::options().read_only(true).accept_damage(true);
                    let log = salvaged.open_region(&region).unwrap();
                    let found = model::forwards(&log).unwrap();
                    assert!(found.iter().all(|record| records.contains(record)), "{at}");
                    assert!(found.len() < records.len());
                    assert!(
                        !log.recovery().damaged.is_empty()
                            || !log.recovery().lost_segments.is_empty()
                    );
                }
                Ok(log) => {
                    let found = model::forwards(&log).unwrap();
                    assert_eq!(model::backwards(&log).unwrap(), found);
                    if found == records {
                        healed += u32::from(!log.recovery().healed.is_empty());
                    } else {
                        let dropped = !log.recovery().dropped.is_empty();
                        assert!(allowed(place, &found, dropped), "bit {bit} of {at}: {found:?}");
                        tail += 1;
                    }
                    drop(log);
                    // What one copy lost, the other gives back.
                    drop(open(true).unwrap());
                    let log = open(false).unwrap();
                    assert_eq!(model::forwards(&log).unwrap(), found);
                    assert!(log.recovery().healed.is_empty());
                    drop(log);
                }
            }
            region.write(0, &original).unwrap();
        }
    }
    println!(
        "evidence: every bit of a log of {} bytes flipped, closed: {closed} \
         | {detected} detected, {healed} healed from a second copy, {tail} as a torn end",
        original.len()
    );
    assert!(detected > 1000 && healed > 1000);
}

#[test]
fn every_bit_of_a_closed_log_is_detected_or_harmless() {
    flip_all(true, |_, _, _| false);
}

/// Of the last commit before a crash, damage looks like a crash: it is dropped, and this is told.
#[test]
fn every_bit_of_a_crashed_log_is_detected_or_the_torn_end() {
    let (_, records) = example(false);
    flip_all(false, |_, found, dropped| dropped && *found == records[..records.len() - 1]);
}

/// The header of a block, from its description in FORMAT.md.
fn forge(salt: u64, at: u64, lsn: u64, durable: u32, body: &[u8]) -> Vec<u8> {
    let key = |place: u64| salt.wrapping_add(place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let check = |place, bytes: &[u8]| XxHash3_64::oneshot_with_seed(key(place), bytes);
    let mut block = vec![0; 8];
    block.extend(check(at + 40, body).to_le_bytes());
    block.extend(lsn.to_le_bytes());
    block.extend((body.len() as u32).to_le_bytes());
    block.extend(1_u32.to_le_bytes());
    block.extend(durable.to_le_bytes());
    block.extend((body.len() as u32).to_le_bytes());
    let header = check(at, &block[8..]);
    block[..8].copy_from_slice(&header.to_le_bytes());
    block.extend(body);
    block
}

/// The salt of a segment's present life, from FORMAT.md.
fn salt_of(region: &impl Region, segment: u64) -> u64 {
    let mut word = [0; 8];
    region.read(SEGMENTS_AT + segment * SEGMENT + 16, &mut word).unwrap();
    u64::from_le_bytes(word)
}

#[test]
fn a_block_made_from_the_description_is_a_block() {
    let region = simulated(region_len(2));
    let log = model::options().format(region.clone()).unwrap();
    log.append(b"one").unwrap();
    log.abandon();
    let at = SEGMENTS_AT + 8192 + 64;
    region.write(at, &forge(salt_of(&region, 0), at, 2, 8192 + 64, b"two")).unwrap();
    let log = model::options().open_region(region).unwrap();
    assert_eq!(model::forwards(&log).unwrap(), [(1, b"one".to_vec()), (2, b"two".to_vec())]);
}

/// Whoever chose the payloads of an earlier life knew the place, the Lsn and every salt but the
/// next: their images lie where the next commit would, and no crash turns them into records.
#[test]
fn payloads_that_look_like_blocks_never_become_records() {
    for known in [0, 1, 2] {
        let region = simulated(region_len(2));
        let log = model::options().format(region.clone()).unwrap();
        log.append(b"begins the life").unwrap();
        let salt = [0, salt_of(&region, 0), salt_of(&region, 1)][known];
        // A payload whose every line is the block that could come there.
        let mut payload = vec![0; 3800];
        let from = SEGMENTS_AT + 8192 + 64 + 40;
        for lsn in [4, 5, 6] {
            for line in 2..50 {
                let at = SEGMENTS_AT + 8192 + line * 64;
                let forged = forge(salt, at, lsn + line % 3, (8192 + line * 64) as u32, b"FORGED");
                let place = (at - from) as usize;
                payload[place..place + forged.len()].copy_from_slice(&forged);
            }
        }
        log.append(&payload).unwrap();
        log.append(&vec![1; 3900]).unwrap();
        log.release_up_to(Lsn::new(3)).unwrap();
        for end in 0..3_u64 {
            let lsn = log.append(format!("new {end}").as_bytes());
            if lsn.is_err() {
                log.release_up_to(log.last()).unwrap();
            }
        }
        let last = log.last();
        log.abandon();
        for seed in 0..50 {
            let log = model::options().open_region(region.crash(seed)).unwrap();
            let records = model::forwards(&log).unwrap();
            assert!(records.iter().all(|(_, payload)| payload != b"FORGED"), "{records:?}");
            assert_eq!(log.last(), last);
        }
    }
}

/// Pieces of a file at different moments: a record is what it was, or there is an error.
#[test]
fn a_copy_made_while_in_use_is_never_wrong() {
    let mut random = SplitMix64::new(5);
    let (mut refused, mut opened) = (0, 0);
    for _ in 0..150 {
        let region = simulated(region_len(4));
        model::prepare(&region, &[]).unwrap();
        let mut subject = Subject::open(&region, Model::new()).unwrap();
        let mut ever: Vec<Vec<u8>> = Vec::new();
        let mut copy = vec![0; region.len() as usize];
        let pages = region.len() / 4096;
        for page in 0..pages {
            for _ in 0..random.below(4) {
                let op = match random.below(8) {
                    0..=4 => Op::Append(random.below(900) as usize),
                    5 => Op::Many(3, 40),
                    6 => Op::Release(2),
                    _ => Op::Truncate(1),
                };
                subject.apply(op).unwrap();
                ever.extend(subject.model.records.iter().map(|(_, payload)| payload.clone()));
            }
            let at = (page * 4096) as usize;
            region.read(at as u64, &mut copy[at..at + 4096]).unwrap();
        }
        let copy = region_of(&copy);
        match model::options().open_region(&copy) {
            Ok(log) => {
                opened += 1;
                let records = model::forwards(&log).unwrap();
                assert!(records.iter().all(|(_, payload)| ever.contains(payload)));
            }
            Err(error) => {
                refused += 1;
                assert!(
                    matches!(
                        error.kind(),
                        ErrorKind::Damaged(_) | ErrorKind::DamagedRecords { .. }
                    ),
                    "{error}"
                );
            }
        }
    }
    println!("copies made while in use: {opened} opened, {refused} refused");
    assert!(opened > 0);
}

/// Anything at all in the place of a log is an error, and never a panic.
#[test]
fn noise_is_refused() {
    let (original, _) = example(false);
    let mut random = SplitMix64::new(8);
    for round in 0..400 {
        let mut bytes = original.clone();
        for _ in 0..=random.below(40) {
            let at = random.below(bytes.len() as u64) as usize;
            let to = (at + random.below(300) as usize).min(bytes.len());
            bytes[at..to].iter_mut().for_each(|byte| *byte = random.below(256) as u8);
        }
        let region = region_of(&bytes);
        for accept in [false, true] {
            let options: LogOptions = model::options().accept_damage(accept);
            if let Ok(log) = options.open_region(&region) {
                let read = model::forwards(&log);
                assert!(read.is_ok(), "round {round}: {read:?}");
            }
        }
    }
}

#[test]
fn damage_is_passed_over_where_that_is_asked_for_and_the_log_goes_on() {
    let (mut bytes, records) = example(true);
    // In the body of the first block of the second segment in use.
    let at = (SEGMENTS_AT + 8192 + 50) as usize;
    bytes[at] ^= 1;
    let region = region_of(&bytes);
    let error = model::options().open_region(&region).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DamagedRecords { .. }), "{error}");
    let log: Log<_> = model::options().accept_damage(true).open_region(&region).unwrap();
    let left = model::forwards(&log).unwrap();
    assert!(left.len() < records.len() && left.iter().all(|record| records.contains(record)));
    let damaged = &log.recovery().damaged[0];
    assert!(damaged.bytes.contains(&(at as u64)));
    for (lsn, payload) in &records {
        let read = log.read(Lsn::new(*lsn));
        if left.contains(&(*lsn, payload.clone())) {
            assert_eq!(&read.unwrap(), payload);
        } else {
            let error = read.expect_err("the next one is not this one");
            assert!(matches!(error.kind(), ErrorKind::NoRecord { .. }), "{error}");
        }
    }
    let lsn = log.append(b"goes on").unwrap();
    assert_eq!(lsn.get(), records.last().unwrap().0 + 1);
    drop(log);
    let log = model::options().accept_damage(true).open_region(&region).unwrap();
    assert_eq!(model::forwards(&log).unwrap().len(), left.len() + 1);
    log.release_up_to(lsn).unwrap();
    drop(log);
    assert!(model::options().open_region(&region).is_ok(), "what is released is not damaged");
}

/// A region of either granularity, of which a write fails halfway when it is told to.
struct Halfway {
    region: SimRegion,
    granularity: Granularity,
    fails: AtomicBool,
}

impl Halfway {
    fn fail(&self, offset: u64, data: &[u8]) -> Result<()> {
        if !self.fails.swap(false, Relaxed) {
            return Ok(());
        }
        self.region.write_flush(offset, &data[..data.len() / 2])?;
        // Any error will do.
        self.region.load_u64(u64::MAX).map(drop)
    }
}

impl Region for Halfway {
    pass_on!(region: sync_all len durability backend is_emulated read write fill_flush flush drain deep_flush
        load_u64 store_u64 compare_exchange_u64 grow close slices);

    fn granularity(&self) -> Granularity {
        self.granularity
    }

    fn write_flush(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.fail(offset, data)?;
        self.region.write_flush(offset, data)
    }
}

#[test]
fn after_a_commit_that_failed_halfway_no_lsn_is_left_out() {
    for (granularity, len) in [
        (Granularity::CacheLine, 100),
        (Granularity::CacheLine, 3000),
        (Granularity::Page, 100),
        (Granularity::Page, 3000),
    ] {
        let region = SimRegion::new(Mode::Adr, 1 << 20, 1 << 20);
        let region = Halfway { region, granularity, fails: AtomicBool::new(false) };
        let log = LogOptions::new().segment_bytes(64 << 10).seed(7).format(&region).unwrap();
        let (mut one, mut other) = (log.writer(), log.writer());
        let payload = vec![5; len];
        assert_eq!(one.append(&payload).unwrap(), Lsn::new(1));
        region.fails.store(true, Relaxed);
        assert!(!one.append(&payload).unwrap_err().is_failed());
        assert!(one.append(&payload).unwrap_err().is_failed());
        // Elsewhere it has a segment of its own.
        if granularity == Granularity::Page {
            let refused = other.append(&payload).unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::Damaged(_)), "{refused}");
        }
        drop((one, other));
        log.abandon();
        let log = LogOptions::new().open_region(&region).unwrap();
        let found = log.reader(Lsn::ZERO).unwrap().map(|record| record.unwrap().0.get());
        assert_eq!(found.collect::<Vec<_>>(), [1], "{granularity:?}, {len} bytes");
        assert_eq!(log.append(&payload).unwrap(), Lsn::new(2));
    }
}

#[test]
fn a_log_that_was_cut_is_damaged_and_whole_again_when_it_is_long_again() {
    let (bytes, records) = example(true);
    for len in [bytes.len() - 1, bytes.len() - SEGMENT as usize] {
        let cut = region_of(&bytes[..len]);
        let error = LogOptions::new().open_region(&cut).map(drop).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Damaged(_)), "{len} bytes: {error}");
        assert_eq!(self::bytes(&cut), bytes[..len], "bad input changes nothing");
        let whole = region_of(&[&self::bytes(&cut), &bytes[len..]].concat());
        let log = LogOptions::new().open_region(&whole).unwrap();
        let found = log.reader(Lsn::ZERO).unwrap().map(|record| record.unwrap());
        assert_eq!(found.map(|(lsn, payload)| (lsn.get(), payload)).collect::<Vec<_>>(), records);
    }
}

#[test]
fn the_last_block_of_a_full_segment_is_missed() {
    // As many bytes as a segment of the smallest size has room for, beside the block's header.
    let payload = [7; 12288 - 8192 - 40];
    for (mode, closed) in [(Mode::Adr, true), (Mode::Adr, false), (Mode::PageCache, true)] {
        let region = simulated(SEGMENTS_AT + 4 * 12288);
        let region = if mode == Mode::Adr {
            region
        } else {
            SimRegion::new(mode, region.len(), region.len())
        };
        let log = LogOptions::new().segment_bytes(12288).seed(7).format(region.clone()).unwrap();
        assert_eq!(log.append(&[1]).unwrap(), Lsn::new(1));
        let mut writer = log.writer();
        // The second one of these fills a segment to its end, whosever it is.
        for lsn in 2..4 {
            assert_eq!(writer.append(&payload).unwrap(), Lsn::new(lsn));
        }
        drop(writer);
        if closed {
            log.close().unwrap();
        } else {
            log.abandon();
        }
        // And after any power cut.
        let images = (0..20).map(|seed| region.crash(seed)).chain([region.clone()]);
        for whole in images.map(|region| bytes(&region)) {
            let mut noticed = 0;
            for segment in 0..4 {
                let mut damaged = whole.clone();
                let at = SEGMENTS_AT as usize + segment * 12288 + 8192 + 1000;
                if damaged[at] != 7 {
                    continue;
                }
                damaged[at] ^= 1;
                let opened = LogOptions::new().open_region(region_of(&damaged)).map(drop);
                let what = format!("{mode:?}, closed {closed}, segment {segment}: {opened:?}");
                let noted =
                    opened.is_err_and(|e| matches!(e.kind(), ErrorKind::DamagedRecords { .. }));
                assert!(noted, "{what}");
                noticed += 1;
            }
            assert_eq!(noticed, 2, "{mode:?}");
        }
    }
}

/// What cannot be read is not what is damaged: nothing is given up for it, also where damage is
/// accepted.
#[test]
fn a_line_that_cannot_be_read_is_an_error_and_no_damage() {
    let (original, records) = example(false);
    let mut refused = 0;
    for at in (0..original.len() as u64).step_by(64) {
        let under = region_of(&original);
        let region = Unreadable { region: &under, bytes: at..at + 64 };
        for read_only in [true, false] {
            let options = LogOptions::new().read_only(read_only).accept_damage(true);
            match options.open_region(&region) {
                Ok(log) => {
                    let found = log.recovery();
                    assert!(found.lost_segments.is_empty() && found.damaged.is_empty(), "{at}");
                    assert_eq!(found.records, records.len() as u64);
                    log.abandon();
                }
                Err(error) => {
                    assert!(Unreadable::<&AnyRegion>::is_meant(&error), "{at}: {error}");
                    refused += u32::from(read_only);
                    // And nothing was changed for it.
                    assert!(bytes(&under) == original, "{at}");
                }
            }
        }
    }
    // At the least, the two copies of everything.
    assert!(refused > 2 + 2 + 2 * SEGMENTS as u32, "{refused}");
}

/// A commit whose drain failed is no record for readers, also when its writer is gone.
#[test]
fn what_was_not_made_durable_is_not_read() {
    for len in [5, 3000] {
        let memory = Options::new().len(region_len(SEGMENTS)).in_memory().unwrap();
        let region = Killed::before_drain(&memory, u32::MAX);
        let log = LogOptions::new().segment_bytes(SEGMENT).seed(3).format(&region).unwrap();
        let mut writer = log.writer();
        assert_eq!(writer.append(b"durable").unwrap(), Lsn::FIRST);
        region.kill_after(0);
        writer.append(&vec![7; len]).unwrap_err();
        drop(writer);
        let read = || -> Vec<u64> {
            log.reader(Lsn::ZERO).unwrap().map(|record| record.unwrap().0.get()).collect()
        };
        assert_eq!(read(), [1]);
        region.kill_after(u32::MAX);
        let _ = log.append(b"later");
        assert_eq!(read(), [1], "nothing is believed after that");
        log.abandon();
    }
}
