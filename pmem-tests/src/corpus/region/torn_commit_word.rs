//! A commit word that lies across two lines: its halves arrive separately.

use super::support::{MEMORY, bytes, ensure, explore, word};
use super::{Bug, Region};

/// Both halves differ between the two values.
const VALUES: [u64; 2] = [0x1111_1111_1111_1111, 0x2222_2222_2222_2222];

pub(super) const BUG: Bug = Bug {
    name: "torn_commit_word",
    class: "commit word torn across lines",
    story: "an 8-byte word at offset 60 is overwritten and its halves reach memory apart",
    modes: MEMORY,
    words: "is neither",
    explore: |form, mode| {
        let at = if form.is_buggy() { 60 } else { 64 };
        explore(
            mode,
            move |region, _| {
                for value in VALUES {
                    region.write(at, &value.to_le_bytes())?;
                    region.persist(at, 8)?;
                }
                Ok(())
            },
            move |region, _| {
                let found = word(&bytes::<8>(region, at)?, 0);
                let whole = found == 0 || VALUES.contains(&found);
                ensure(whole, || format!("{found:#x} is neither of the values stored"))
            },
        )
    },
};
