//! The state and the position up to which the log is applied are two words: a crash between them
//! replays what is in the state already.

use super::support::{ensure, explore, ok, persist_word};
use super::{Bug, Form, Mode, Region, SimRegion};

/// The buggy form: the sum, and how many entries are in it, apart.
const SUM: u64 = 0;
const APPLIED: u64 = 1024;
/// The fixed form: both in one word.
const BOTH: u64 = 2048;
const ENTRIES: [u64; 3] = [1, 10, 100];

fn state(form: Form, region: &SimRegion) -> daxmap::Result<(u64, u64)> {
    if form.is_buggy() {
        return Ok((region.load_u64(SUM)?, region.load_u64(APPLIED)?));
    }
    let both = region.load_u64(BOTH)?;
    Ok((both >> 8, both & 0xFF))
}

fn apply(form: Form, region: &SimRegion) -> daxmap::Result<()> {
    let (mut sum, mut applied) = state(form, region)?;
    while let Some(entry) = ENTRIES.get(applied as usize) {
        (sum, applied) = (sum + entry, applied + 1);
        if form.is_buggy() {
            persist_word(region, SUM, sum)?;
            persist_word(region, APPLIED, applied)?;
        } else {
            persist_word(region, BOTH, sum << 8 | applied)?;
        }
    }
    Ok(())
}

pub(super) const BUG: Bug = Bug {
    name: "double_replay",
    class: "double replay",
    story: "an entry is applied, then the position of the log moved on; a crash between, and recovery \
            applies the entry again",
    modes: &[Mode::Adr, Mode::Eadr, Mode::TornWords, Mode::PageCache],
    words: "the entries sum up to",
    explore: |form, mode| {
        explore(
            mode,
            move |region, _| apply(form, region),
            move |region, _| {
                ok(apply(form, region))?;
                let (sum, _) = ok(state(form, region))?;
                ensure(sum == 111, || format!("the state is {sum}, the entries sum up to 111"))
            },
        )
    },
};
