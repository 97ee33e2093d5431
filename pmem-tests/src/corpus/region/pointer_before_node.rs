//! A node is linked into a list before its own bytes are durable.

use super::support::{FORGETFUL, bytes, ensure, explore, ok, persist_word, word};
use super::{Bug, Region};

const HEAD: u64 = 0;
const NODE: u64 = 512;

pub(super) const BUG: Bug = Bug {
    name: "pointer_before_node",
    class: "pointer before what it points to",
    story: "the list's head points to a new node whose value and next pointer are not flushed",
    modes: FORGETFUL,
    words: "list",
    explore: |form, mode| {
        explore(
            mode,
            move |region, notes| {
                for value in 1..=3 {
                    let node = NODE * value;
                    let next = region.load_u64(HEAD)?;
                    region.write(node, &[value, next].map(u64::to_le_bytes).concat())?;
                    if !form.is_buggy() {
                        region.persist(node, 16)?;
                    }
                    persist_word(region, HEAD, node)?;
                    if form.is_buggy() {
                        region.persist(node, 16)?;
                    }
                    notes.ack(value);
                }
                Ok(())
            },
            |region, history| {
                let mut at = ok(region.load_u64(HEAD))?;
                let first = at / NODE;
                let acked = history.last_acked().unwrap_or(0);
                ensure(first >= acked, || format!("the list lost value {acked}"))?;
                for value in (1..=first).rev() {
                    let node = bytes::<16>(region, at)?;
                    let found = word(&node, 0);
                    ensure(found == value, || format!("the list has {found} for {value}"))?;
                    at = word(&node, 8);
                }
                ensure(at == 0, || format!("the list ends in {at:#x}"))
            },
        )
    },
};
