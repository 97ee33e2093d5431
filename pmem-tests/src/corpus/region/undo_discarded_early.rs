//! The undo record is cleared while the update is still in the cache.

use super::support::{FORGETFUL, Verdict, ensure, explore, ok, persist_word};
use super::{Bug, Form, Region, SimRegion};

/// Two words that must stay equal, in sectors of their own.
const PAIR: [u64; 2] = [1024, 2048];
/// The old value plus one; 0 if no update is under way.
const UNDO: u64 = 0;

fn recover(region: &SimRegion) -> Verdict {
    if let Some(old) = ok(region.load_u64(UNDO))?.checked_sub(1) {
        for word in PAIR {
            ok(persist_word(region, word, old))?;
        }
        ok(persist_word(region, UNDO, 0))?;
    }
    let [one, other] = PAIR.map(|word| ok(region.load_u64(word)));
    let (one, other) = (one?, other?);
    ensure(one == other, || format!("half an update: {one} and {other}"))
}

pub(super) const BUG: Bug = Bug {
    name: "undo_discarded_early",
    class: "undo record discarded before the update is durable",
    story: "a transaction commits by clearing its undo record, and flushes the update after that",
    modes: FORGETFUL,
    words: "half an update",
    explore: |form, mode| {
        explore(
            mode,
            move |region, _| {
                for value in 1..=2 {
                    persist_word(region, UNDO, value)?;
                    for word in PAIR {
                        region.store_u64(word, value)?;
                    }
                    if form == Form::Buggy {
                        persist_word(region, UNDO, 0)?;
                    }
                    for word in PAIR {
                        region.flush(word, 8)?;
                    }
                    region.drain()?;
                    persist_word(region, UNDO, 0)?;
                }
                Ok(())
            },
            |region, _| recover(region),
        )
    },
};
