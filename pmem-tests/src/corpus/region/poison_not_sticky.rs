//! A commit fails and is reported; the next one succeeds, and with it the log claims to hold the
//! one that was lost. The program is the same in both forms: what differs is the region, whose
//! first error is final in the fixed one.

use daxmap_sim::Faults;

use super::support::{ensure, ok};
use super::{Bug, Explorer, Mode, Region};

const SLOT: u64 = 512;

pub(super) const BUG: Bug = Bug {
    name: "poison_not_sticky",
    class: "poison not sticky",
    story: "after a failed drain the region goes on as if nothing were lost",
    modes: &[Mode::Adr, Mode::TornWords, Mode::PageCache],
    words: "failed, and no later one covers it",
    explore: |form, mode| {
        let mut faults = Faults::default();
        faults.forgets_errors = form.is_buggy();
        Explorer::new(mode, 4096)
            .faults(faults)
            .fail_drains(true)
            .run(
                |region, notes| {
                    for value in 1..=3 {
                        region.store_u64(value * SLOT, value)?;
                        region.flush(value * SLOT, 8)?;
                        // A caller that counts the error and serves the next request.
                        if region.drain().is_ok() {
                            notes.ack(value);
                        }
                    }
                    Ok(())
                },
                |region, history| {
                    for value in 1..=history.last_acked().unwrap_or(0) {
                        let found = ok(region.load_u64(value * SLOT))?;
                        ensure(found == value, || format!("a log with a hole at {value}"))?;
                    }
                    Ok(())
                },
            )
            .into()
    },
};
