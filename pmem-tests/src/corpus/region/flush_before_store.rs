//! The flush stands before the store it is meant for.

use super::support::{FORGETFUL, ensure, explore, ok};
use super::{Bug, Region};

pub(super) const BUG: Bug = Bug {
    name: "flush_before_store",
    class: "flush before the store",
    story: "a counter is flushed and then incremented, instead of the other way round",
    modes: FORGETFUL,
    words: "after the flush at op",
    explore: |form, mode| {
        explore(
            mode,
            move |region, notes| {
                for value in 1..=3 {
                    if form.is_buggy() {
                        region.flush(0, 8)?;
                        region.store_u64(0, value)?;
                    } else {
                        region.store_u64(0, value)?;
                        region.flush(0, 8)?;
                    }
                    region.drain()?;
                    notes.ack(value);
                }
                Ok(())
            },
            |region, history| {
                let (found, acked) = (ok(region.load_u64(0))?, history.last_acked().unwrap_or(0));
                // Of the last store the flush before it did not know: look at a crash after it.
                ensure(found >= acked, || format!("{acked} was acknowledged, {found} is there"))
            },
        )
    },
};
