//! In-place update with an undo record that is not durable when the update may be.

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
    name: "undo_too_late",
    class: "undo record after the update",
    story: "the undo record and the first word updated are persisted by the same drain",
    modes: FORGETFUL,
    words: "half an update",
    explore: |form, mode| {
        explore(
            mode,
            move |region, _| {
                for value in 1..=2 {
                    region.store_u64(UNDO, value)?;
                    region.flush(UNDO, 8)?;
                    if form == Form::Fixed {
                        region.drain()?;
                    }
                    for word in PAIR {
                        persist_word(region, word, value)?;
                    }
                    persist_word(region, UNDO, 0)?;
                }
                Ok(())
            },
            |region, _| recover(region),
        )
    },
};
