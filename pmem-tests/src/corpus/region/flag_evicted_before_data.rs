//! The flushes are in the right order, but the flag was stored before the first of them: its
//! line may leave the cache at any time, asked or not.

use super::support::{FORGETFUL, ensure, explore, ok};
use super::{Bug, Region};

const DATA: u64 = 0;
const FLAG: u64 = 1024;

pub(super) const BUG: Bug = Bug {
    name: "flag_evicted_before_data",
    class: "flag flushed by eviction before its data",
    story: "data and flag are stored, then data is persisted, then the flag; the flag is evicted",
    modes: FORGETFUL,
    words: "kept: ",
    explore: |form, mode| {
        explore(
            mode,
            move |region, _| {
                region.store_u64(DATA, 5)?;
                if form.is_buggy() {
                    region.store_u64(FLAG, 1)?;
                }
                region.persist(DATA, 8)?;
                region.store_u64(FLAG, 1)?;
                region.persist(FLAG, 8)
            },
            |region, _| {
                let (flag, data) = (ok(region.load_u64(FLAG))?, ok(region.load_u64(DATA))?);
                ensure(flag == 0 || data == 5, || format!("flagged, but the data is {data}"))
            },
        )
    },
};
