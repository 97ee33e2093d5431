//! A drain without a flush: it waits for nothing.

use super::support::{FORGETFUL, ensure, explore, ok};
use super::{Bug, Form, Region};

pub(super) const BUG: Bug = Bug {
    name: "missing_flush",
    class: "missing flush",
    story: "a value is stored and drained, but never flushed",
    modes: FORGETFUL,
    words: "never flushed",
    explore: |form, mode| {
        explore(
            mode,
            move |region, notes| {
                for value in 1..=3 {
                    notes.begin(value);
                    region.store_u64(64, value)?;
                    if form == Form::Fixed {
                        region.flush(64, 8)?;
                    }
                    region.drain()?;
                    notes.ack(value);
                }
                Ok(())
            },
            |region, history| {
                let (found, acked) = (ok(region.load_u64(64))?, history.last_acked().unwrap_or(0));
                ensure(found >= acked, || format!("{acked} was acknowledged, {found} is there"))
            },
        )
    },
};
