//! A block is written anew while its old owner may still come back.

use super::support::{FORGETFUL, bytes, ensure, explore, ok, persist_word};
use super::{Bug, Region};

/// Where each file's one block is; 0 if it has none.
const OLD_FILE: u64 = 0;
const NEW_FILE: u64 = 512;
const BLOCK: u64 = 1024;

pub(super) const BUG: Bug = Bug {
    name: "freed_block_reused",
    class: "reuse of a freed block before its free is durable",
    story: "a file is removed and its block given to another before the removal is durable",
    modes: FORGETFUL,
    words: "has the other's data",
    explore: |form, mode| {
        explore(
            mode,
            move |region, _| {
                region.write(BLOCK, &[1; 64])?;
                region.persist(BLOCK, 64)?;
                persist_word(region, OLD_FILE, BLOCK)?;
                region.store_u64(OLD_FILE, 0)?;
                region.flush(OLD_FILE, 8)?;
                if !form.is_buggy() {
                    region.drain()?;
                }
                region.write(BLOCK, &[2; 64])?;
                region.persist(BLOCK, 64)?;
                persist_word(region, NEW_FILE, BLOCK)
            },
            |region, _| {
                for (file, owner) in [(OLD_FILE, 1), (NEW_FILE, 2)] {
                    if ok(region.load_u64(file))? == BLOCK {
                        let data = bytes::<64>(region, BLOCK)?;
                        let own = data.iter().all(|&byte| byte == owner);
                        ensure(own, || format!("file {owner} has the other's data"))?;
                    }
                }
                Ok(())
            },
        )
    },
};
