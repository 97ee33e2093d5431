//! A flush without a drain: the write-back has been asked for, not awaited.

use super::support::{FORGETFUL, ensure, explore, ok};
use super::{Bug, Form, Region};

pub(super) const BUG: Bug = Bug {
    name: "missing_fence",
    class: "missing fence",
    story: "a value is stored, flushed, and acknowledged before a drain",
    modes: FORGETFUL,
    words: "not drained before the crash",
    explore: |form, mode| {
        explore(
            mode,
            move |region, notes| {
                for value in 1..=3 {
                    region.store_u64(64, value)?;
                    region.flush(64, 8)?;
                    if form == Form::Fixed {
                        region.drain()?;
                    }
                    notes.ack(value);
                }
                region.drain()
            },
            |region, history| {
                let (found, acked) = (ok(region.load_u64(64))?, history.last_acked().unwrap_or(0));
                ensure(found >= acked, || format!("{acked} was acknowledged, {found} is there"))
            },
        )
    },
};
