//! Recovery reads records as long as their checksums fit, past the end that the log names.

use super::support::{bytes, ensure, explore, ok, persist_word};
use super::{Bug, Mode, Region};
use crate::record_log::{RECORD, is_record, record};

/// How many records the log has.
const TAIL: u64 = 0;
const RECORDS: u64 = 512;

pub(super) const BUG: Bug = Bug {
    name: "read_past_end",
    class: "reading past the valid end",
    story: "a transaction's records are rolled back by setting the tail; recovery brings them back",
    modes: &[Mode::Adr, Mode::Eadr, Mode::TornWords, Mode::PageCache],
    words: "rolled back",
    explore: |form, mode| {
        explore(
            mode,
            |region, notes| {
                for number in 1..=3 {
                    region.write(RECORDS + (number - 1) * RECORD, &record(number))?;
                    region.persist(RECORDS + (number - 1) * RECORD, RECORD)?;
                    persist_word(region, TAIL, number)?;
                }
                // Records 2 and 3 are taken back.
                persist_word(region, TAIL, 1)?;
                notes.ack(1);
                Ok(())
            },
            move |region, history| {
                let tail = ok(region.load_u64(TAIL))?;
                let mut count = 0;
                while form.is_buggy() || count < tail {
                    let bytes = bytes::<64>(region, RECORDS + count * RECORD)?;
                    if !is_record(&bytes, count + 1) {
                        break;
                    }
                    count += 1;
                }
                let wanted = history.acked().is_empty() || count == 1;
                ensure(wanted, || format!("{count} records, although 2 and 3 were rolled back"))
            },
        )
    },
};
