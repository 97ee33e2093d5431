//! Recovery adds what the log says to the state, then clears the log. A crash between the two
//! adds it once more.

use super::support::{Verdict, ensure, explore, ok, persist_word};
use super::{Bug, Form, Mode, Region, SimRegion};

const BALANCE: u64 = 0;
/// The amount to add (buggy) or the balance to set (fixed); 0 if there is nothing to redo.
const REDO: u64 = 1024;

fn recover(form: Form, region: &SimRegion) -> Verdict {
    let redo = ok(region.load_u64(REDO))?;
    if redo != 0 {
        let balance = match form {
            Form::Buggy => ok(region.load_u64(BALANCE))? + redo,
            Form::Fixed => redo,
        };
        ok(persist_word(region, BALANCE, balance))?;
        ok(persist_word(region, REDO, 0))?;
    }
    Ok(())
}

pub(super) const BUG: Bug = Bug {
    name: "recovery_not_idempotent",
    class: "recovery not idempotent",
    story: "recovery adds the logged amount; it is crashed before it clears the log, and adds again",
    modes: &[Mode::Adr, Mode::Eadr, Mode::TornWords, Mode::PageCache],
    words: "crash during recovery",
    explore: |form, mode| {
        explore(
            mode,
            move |region, notes| {
                notes.begin(100);
                persist_word(region, REDO, 100)?;
                notes.ack(100);
                Ok(())
            },
            move |region, history| {
                recover(form, region)?;
                let balance = ok(region.load_u64(BALANCE))?;
                let due = history.last_acked().unwrap_or(0);
                ensure(balance == due || balance == 100, || {
                    format!("the balance is {balance} after one deposit of 100")
                })
            },
        )
    },
};
