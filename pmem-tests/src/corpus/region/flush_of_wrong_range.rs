//! Line arithmetic that rounds the start down and forgets to lengthen the range by as much.
//! Published flush loops missed a line for 44 % and for 93 % of unaligned ranges.

use super::support::{MEMORY, bytes, ensure, explore};
use super::{Bug, Region};

const RECORD: [u8; 64] = [0x5A; 64];

pub(super) const BUG: Bug = Bug {
    name: "flush_of_wrong_range",
    class: "flush of the wrong range at an unaligned edge",
    story: "64 bytes at offset 40 touch two lines; the flush covers the first",
    modes: MEMORY,
    words: "never flushed",
    explore: |form, mode| {
        explore(
            mode,
            move |region, notes| {
                let (at, len) = (40, RECORD.len() as u64);
                region.write(at, &RECORD)?;
                let start = at / 64 * 64;
                let end = if form.is_buggy() { start + len } else { at + len };
                region.persist(start, end - start)?;
                notes.ack(1);
                Ok(())
            },
            |region, history| {
                let found = bytes::<64>(region, 40)?;
                let whole = history.acked().is_empty() || found == RECORD;
                ensure(whole, || "an acknowledged record is not whole".to_owned())
            },
        )
    },
};
