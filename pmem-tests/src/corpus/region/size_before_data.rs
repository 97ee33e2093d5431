//! The length of the file says how many records there are: it is durable before they are.

use super::support::ensure;
use super::{Bug, Explorer, Mode, Region};
use crate::record_log::{RECORD, is_record, record};

pub(super) const BUG: Bug = Bug {
    name: "size_before_data",
    class: "size durable before data",
    story: "a file grows by a record and is then written; recovery takes every record in the length",
    modes: &[Mode::Adr, Mode::Eadr, Mode::TornWords, Mode::PageCache],
    words: "grow",
    explore: |form, mode| {
        Explorer::new(mode, RECORD)
            .max_len(4 * RECORD)
            .run(
                |region, notes| {
                    for number in 1..=3 {
                        region.grow(number * RECORD + RECORD)?;
                        region.write(number * RECORD, &record(number))?;
                        region.persist(number * RECORD, RECORD)?;
                        notes.ack(number);
                    }
                    Ok(())
                },
                move |region, history| {
                    let records = region.len() / RECORD - 1;
                    let mut found = 0;
                    for number in 1..=records {
                        let mut bytes = [0; 64];
                        let read = region.read(number * RECORD, &mut bytes);
                        read.map_err(|error| error.to_string())?;
                        let valid = is_record(&bytes, number);
                        ensure(valid || !form.is_buggy(), || format!("record {number} is none"))?;
                        if !valid {
                            break;
                        }
                        found = number;
                    }
                    let acked = history.last_acked().unwrap_or(0);
                    ensure(found >= acked, || format!("{acked} records acknowledged, {found} there"))
                },
            )
            .into()
    },
};
