//! A program that decides once for the whole machine that caches are persistent, and maps a
//! region of which that is not true.

use daxmap::Granularity;

use super::support::{FORGETFUL, ensure, explore, ok};
use super::{Bug, Region};

pub(super) const BUG: Bug = Bug {
    name: "eadr_assumed",
    class: "eADR assumed where there is ADR",
    story: "write-backs are left out because the machine has eADR; this region has not",
    modes: FORGETFUL,
    words: "never flushed",
    explore: |form, mode| {
        explore(
            mode,
            move |region, notes| {
                let persistent_caches =
                    form.is_buggy() || region.granularity() == Granularity::Byte;
                for value in 1..=2 {
                    region.store_u64(128, value)?;
                    if !persistent_caches {
                        region.flush(128, 8)?;
                    }
                    region.drain()?;
                    notes.ack(value);
                }
                Ok(())
            },
            |region, history| {
                let (found, acked) = (ok(region.load_u64(128))?, history.last_acked().unwrap_or(0));
                ensure(found >= acked, || format!("{acked} was acknowledged, {found} is there"))
            },
        )
    },
};
