//! Opens what may be a log and reads all of it, every way: never a panic, and never a record that
//! was not appended with that Lsn.
#![no_main]

use daxmap::log::{Log, LogOptions, LogReader, Lsn};
use daxmap_sim::SimRegion;
use daxmap::ErrorKind;
use daxmap_fuzz::log::{LOGS, whole};
use daxmap_fuzz::{bytes, is_one_byte, region, scatter};
use libfuzzer_sys::fuzz_target;

type Records = Vec<(u64, Vec<u8>)>;

fuzz_target!(|input: &[u8]| {
    let Some((&first, rest)) = input.split_first() else { return };
    match (first % 2, rest.split_first()) {
        (1, Some((&number, changes))) => {
            let mut whole = whole(number % LOGS).expect("in memory");
            scatter(&mut whole.bytes, changes);
            let found = open(&whole.bytes, Some(&whole.records));
            if let Some(found) = found.filter(|_| whole.closed && is_one_byte(changes)) {
                assert!(found == whole.records, "damage went unnoticed");
            }
        }
        _ => drop(open(rest, None)),
    }
});

/// `written`: what was in the log before it was changed. Returns the records of a log that opens
/// without damage.
fn open(content: &[u8], written: Option<&Records>) -> Option<Records> {
    let region = region(content);
    let before = bytes(&region);
    let strict = LogOptions::new().read_only(true).open_region(region.clone());
    let found = strict.ok().map(|log| {
        assert!(log.recovery().damaged.is_empty() && log.recovery().lost_segments.is_empty());
        read(&log, written)
    });
    let lenient = LogOptions::new().read_only(true).accept_damage(true).open_region(region.clone());
    if let Ok(log) = &lenient {
        let salvaged = read(log, written);
        assert!(found.as_ref().is_none_or(|found| *found == salvaged), "reads differ");
    }
    if let Ok(reader) = LogReader::in_region(region.clone(), Lsn::ZERO) {
        let followed: Records =
            reader.map_while(Result::ok).map(|(lsn, payload)| (lsn.get(), payload)).collect();
        check(&followed, written);
    }
    assert!(bytes(&region) == before, "reading changed something");
    drop(lenient);
    go_on(&region, found.as_ref(), written);
    found
}

/// Reads a log in both directions.
fn read(log: &Log<SimRegion>, written: Option<&Records>) -> Records {
    let reader = log.reader(Lsn::ZERO).expect("there is an oldest");
    let found: Records = reader
        .map(|record| record.expect("opening has read it"))
        .map(|(lsn, payload)| (lsn.get(), payload))
        .collect();
    let reader = log.reverse_reader(Lsn::new(u64::MAX)).expect("opening has read it");
    let mut backwards: Records = reader
        .map(|record| record.expect("opening has read it"))
        .map(|(lsn, payload)| (lsn.get(), payload))
        .collect();
    backwards.reverse();
    assert!(found == backwards, "the directions differ");
    assert_eq!(log.recovery().records, found.len() as u64);
    check(&found, written);
    found
}

fn check(found: &Records, written: Option<&Records>) {
    assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "not in order");
    if let Some(written) = written {
        for record in found {
            assert!(written.contains(record), "{} was never written so", record.0);
        }
    }
}

/// Opens the log for writing, and appends to it.
fn go_on(region: &SimRegion, found: Option<&Records>, written: Option<&Records>) {
    let before = bytes(region);
    let options = LogOptions::new().accept_damage(true).seed(3);
    let log = match options.open_region(region.clone()) {
        Ok(log) => log,
        Err(_) => {
            assert!(found.is_none(), "what can be read can be gone on with");
            assert!(bytes(region) == before, "a failed open changed something");
            return;
        }
    };
    let mut kept = read(&log, written);
    assert!(found.is_none_or(|found| *found == kept), "opening for writing lost something");
    match log.append(b"another") {
        Ok(lsn) => kept.push((lsn.get(), b"another".to_vec())),
        Err(error) => assert!(matches!(error.kind(), ErrorKind::Full { .. }), "{error}"),
    }
    drop(log);
    let log = options.open_region(region.clone()).expect("it was opened before");
    assert!(read(&log, None) == kept, "what was there is there");
}
