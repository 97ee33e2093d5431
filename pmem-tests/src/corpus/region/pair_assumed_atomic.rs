//! Two words of one line, updated one after the other: the line keeps their order, not their
//! company.

use super::support::{ensure, explore, ok};
use super::{Bug, Mode, Region};

/// Which of two pairs is the current one: 0 or 1.
const CURRENT: u64 = 0;
/// Two pairs, a line each.
const PAIRS: [u64; 2] = [1024, 1088];

pub(super) const BUG: Bug = Bug {
    name: "pair_assumed_atomic",
    class: "two words of a line assumed atomic",
    story: "debit and credit lie in one line and are updated in place",
    modes: &[Mode::Adr, Mode::Eadr, Mode::TornWords, Mode::PageCache],
    words: "sum",
    explore: |form, mode| {
        explore(
            mode,
            move |region, _| {
                for turn in 1..=3 {
                    let current = region.load_u64(CURRENT)?;
                    let target = if form.is_buggy() { current } else { 1 - current };
                    let pair = PAIRS[target as usize];
                    region.store_u64(pair, turn)?;
                    region.store_u64(pair + 8, turn.wrapping_neg())?;
                    region.persist(pair, 16)?;
                    region.store_u64(CURRENT, target)?;
                    region.persist(CURRENT, 8)?;
                }
                Ok(())
            },
            |region, _| {
                let pair = PAIRS[ok(region.load_u64(CURRENT))? as usize & 1];
                let (debit, credit) = (ok(region.load_u64(pair))?, ok(region.load_u64(pair + 8))?);
                let sum = debit.wrapping_add(credit);
                ensure(sum == 0, || format!("debit {debit} and credit do not sum up to 0"))
            },
        )
    },
};
