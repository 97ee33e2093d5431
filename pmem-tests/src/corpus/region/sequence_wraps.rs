//! A slot that is used again carries a sequence number too short to tell its laps apart.

use super::support::{FORGETFUL, bytes, ensure, explore, ok, persist_word, sum, word};
use super::{Bug, Region};

/// How many messages were announced.
const ANNOUNCED: u64 = 0;
const SLOTS: u64 = 1024;
const SLOT: u64 = 512;
const MESSAGES: u64 = 6;

pub(super) const BUG: Bug = Bug {
    name: "sequence_wraps",
    class: "ABA of a recycled slot's sequence number",
    story: "two slots, a sequence number of one bit: two laps on, a stale slot looks new",
    modes: FORGETFUL,
    words: "in its place",
    explore: |form, mode| {
        let sequence = move |message: u64| {
            let lap = message / 2;
            if form.is_buggy() { lap % 2 } else { lap }
        };
        let slot = |message: u64| SLOTS + message % 2 * SLOT;
        explore(
            mode,
            move |region, _| {
                for message in 0..MESSAGES {
                    // Announced first: who reads it knows by the sequence number whether it came.
                    persist_word(region, ANNOUNCED, message + 1)?;
                    // The senders of the second lap give up.
                    if message / 2 == 1 {
                        continue;
                    }
                    let words = [sequence(message), message];
                    let mut bytes = words.map(u64::to_le_bytes).concat();
                    bytes.extend(sum(&bytes).to_le_bytes());
                    region.write(slot(message), &bytes)?;
                    region.persist(slot(message), 24)?;
                }
                Ok(())
            },
            move |region, _| {
                let Some(last) = ok(region.load_u64(ANNOUNCED))?.checked_sub(1) else { return Ok(()) };
                let found = bytes::<24>(region, slot(last))?;
                let whole = word(&found, 16) == sum(&found[..16]);
                if whole && word(&found, 0) == sequence(last) {
                    let message = word(&found, 8);
                    ensure(message == last, || format!("message {last} has {message} in its place"))?;
                }
                Ok(())
            },
        )
    },
};
