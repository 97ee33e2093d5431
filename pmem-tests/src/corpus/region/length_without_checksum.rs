//! A record counts as there as soon as its length does: nothing vouches for the payload.

use super::support::{FORGETFUL, bytes, ensure, explore, sum, word};
use super::{Bug, Region};

/// Length, checksum, and a payload that ends in another sector.
const RECORD: u64 = 448;
const PAYLOAD: [u8; 112] = [0xAB; 112];

pub(super) const BUG: Bug = Bug {
    name: "length_without_checksum",
    class: "length without checksum",
    story: "a record is valid if its length is set; the length arrives, part of the payload does not",
    modes: FORGETFUL,
    words: "is not what was written",
    explore: |form, mode| {
        explore(
            mode,
            |region, notes| {
                let mut record = (PAYLOAD.len() as u64).to_le_bytes().to_vec();
                record.extend(sum(&PAYLOAD).to_le_bytes());
                record.extend(PAYLOAD);
                region.write(RECORD, &record)?;
                region.persist(RECORD, record.len() as u64)?;
                notes.ack(1);
                Ok(())
            },
            move |region, history| {
                let found = bytes::<128>(region, RECORD)?;
                let payload = &found[16..];
                let mut valid = word(&found, 0) == PAYLOAD.len() as u64;
                if !form.is_buggy() {
                    valid &= word(&found, 8) == sum(payload);
                }
                ensure(!valid || payload == PAYLOAD, || {
                    "a record was accepted whose payload is not what was written".to_owned()
                })?;
                ensure(valid || history.acked().is_empty(), || "an acknowledged record is gone".to_owned())
            },
        )
    },
};
