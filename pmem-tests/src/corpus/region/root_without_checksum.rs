//! Two root slots, the one with the higher sequence number wins, whatever else is in it.

use super::support::{FORGETFUL, bytes, ensure, explore, sum, word};
use super::{Bug, Region};

/// Sequence, checksum, and a tree's root that reaches into the next line and sector.
const SLOTS: [u64; 2] = [480, 1504];
const ROOT: usize = 48;

/// Of the sequence number too: the old root fits the old checksum, whichever number it is under.
fn checksum(version: u64, root: &[u8]) -> u64 {
    sum(&[&version.to_le_bytes(), root].concat())
}

pub(super) const BUG: Bug = Bug {
    name: "root_without_checksum",
    class: "newest root chosen without a checksum",
    story: "of two root slots the newer is taken although only its sequence number has arrived",
    modes: FORGETFUL,
    words: "is torn",
    explore: |form, mode| {
        explore(
            mode,
            |region, notes| {
                for version in 1..=3_u64 {
                    let root = [version as u8; ROOT];
                    let mut slot = version.to_le_bytes().to_vec();
                    slot.extend(checksum(version, &root).to_le_bytes());
                    slot.extend(root);
                    region.write(SLOTS[version as usize % 2], &slot)?;
                    region.persist(SLOTS[version as usize % 2], slot.len() as u64)?;
                    notes.ack(version);
                }
                Ok(())
            },
            move |region, history| {
                let mut newest = 0;
                for slot in SLOTS {
                    let found = bytes::<{ 16 + ROOT }>(region, slot)?;
                    let (version, root) = (word(&found, 0), &found[16..]);
                    let valid = form.is_buggy() || word(&found, 8) == checksum(version, root);
                    if valid && version > newest {
                        newest = version;
                        let whole = root.iter().all(|&byte| u64::from(byte) == version);
                        ensure(whole, || format!("root {version} is torn: {root:?}"))?;
                    }
                }
                let acked = history.last_acked().unwrap_or(0);
                ensure(newest >= acked, || format!("root {acked} is gone, {newest} is the newest"))
            },
        )
    },
};
