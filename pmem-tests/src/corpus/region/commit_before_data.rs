//! The word that says "valid" is made durable before what it speaks of.

use super::support::{FORGETFUL, ensure, explore, ok, persist_word};
use super::{Bug, Mode, Region};

const FLAG: u64 = 0;
const DATA: u64 = 2048;

pub(super) const BUG: Bug = Bug {
    name: "commit_before_data",
    class: "commit word before data",
    story: "the commit word is persisted first, the data after it",
    modes: &[Mode::Adr, Mode::Eadr, Mode::TornWords, Mode::PageCache],
    words: "committed, but",
    explore: |form, mode| {
        assert!(FORGETFUL.iter().all(|mode| BUG.modes.contains(mode)));
        explore(
            mode,
            move |region, notes| {
                let words = if form.is_buggy() { [FLAG, DATA] } else { [DATA, FLAG] };
                for word in words {
                    persist_word(region, word, 7)?;
                }
                notes.ack(7);
                Ok(())
            },
            |region, history| {
                let (flag, data) = (ok(region.load_u64(FLAG))?, ok(region.load_u64(DATA))?);
                ensure(flag == 0 || data == 7, || format!("committed, but the data is {data}"))?;
                ensure(history.acked().is_empty() || flag == 7, || "not committed".to_owned())
            },
        )
    },
};
