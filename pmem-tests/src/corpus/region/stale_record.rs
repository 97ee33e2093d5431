//! A log that starts over at the front: behind its last record lie those of the lap before, with
//! checksums that fit.

use super::support::{FORGETFUL, bytes, ensure, explore, ok, persist_word, sum, word};
use super::{Bug, Form, Region, Result, SimRegion};

/// Which lap this is.
const LAP: u64 = 0;
const RECORDS: u64 = 1024;
const RECORD: u64 = 512;

/// The record: its value, and a checksum of value and, in the fixed form, lap and place.
fn record(form: Form, lap: u64, place: u64, value: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    let place = if form.is_buggy() { [0, 0] } else { [lap, place] };
    let sum = sum(&[value, place[0], place[1]].map(u64::to_le_bytes).concat());
    bytes[8..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn append(region: &SimRegion, place: u64, record: [u8; 16]) -> Result<()> {
    region.write(RECORDS + place * RECORD, &record)?;
    region.persist(RECORDS + place * RECORD, 16)
}

pub(super) const BUG: Bug = Bug {
    name: "stale_record",
    class: "stale bytes accepted as a new record",
    story: "in the second lap of a log, records of the first are read on behind the new ones",
    modes: FORGETFUL,
    words: "of another lap",
    explore: |form, mode| {
        explore(
            mode,
            move |region, _| {
                for lap in 1..=2 {
                    persist_word(region, LAP, lap)?;
                    for place in 0..3 {
                        append(region, place, record(form, lap, place, lap * 100 + place))?;
                    }
                }
                Ok(())
            },
            move |region, _| {
                let lap = ok(region.load_u64(LAP))?;
                for place in 0..3 {
                    let found = bytes::<16>(region, RECORDS + place * RECORD)?;
                    let value = word(&found, 0);
                    if found != record(form, lap, place, value) {
                        break;
                    }
                    let from = value / 100;
                    ensure(from == lap, || format!("lap {lap} has a record of another lap, {from}"))?;
                }
                Ok(())
            },
        )
    },
};
