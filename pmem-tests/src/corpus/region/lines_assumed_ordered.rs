//! Two lines flushed in order, one drain: write-backs are not ordered among each other.

use super::support::{FORGETFUL, ensure, explore, ok};
use super::{Bug, Region};

const DATA: u64 = 0;
const FLAG: u64 = 1024;

pub(super) const BUG: Bug = Bug {
    name: "lines_assumed_ordered",
    class: "two lines assumed ordered",
    story: "data is flushed, then the flag is stored and flushed, with one drain for both",
    modes: FORGETFUL,
    words: "not drained before the crash",
    explore: |form, mode| {
        explore(
            mode,
            move |region, _| {
                region.store_u64(DATA, 5)?;
                region.flush(DATA, 8)?;
                if !form.is_buggy() {
                    region.drain()?;
                }
                region.store_u64(FLAG, 1)?;
                region.flush(FLAG, 8)?;
                region.drain()
            },
            |region, _| {
                let (flag, data) = (ok(region.load_u64(FLAG))?, ok(region.load_u64(DATA))?);
                ensure(flag == 0 || data == 5, || format!("flagged, but the data is {data}"))
            },
        )
    },
};
