//! A commit thread makes durable what worker threads flushed, and fences its own core alone, whose
//! fence orders none of their write-backs.

use daxmap_sim::Body;

use super::support::{FORGETFUL, ensure, ok};
use super::{Bug, Explorer, Region};

/// Says in memory, for the commit thread, how many workers are done: a word for each.
const DONE: [u64; 2] = [2048, 2056];

pub(super) const BUG: Bug = Bug {
    name: "fence_of_the_caller",
    class: "fence by another thread",
    story: "a commit thread acknowledges what two workers flushed, after a drain instead of a sync_all",
    modes: FORGETFUL,
    words: "covers only its own flushes",
    explore: |form, mode| {
        // One writes through the cache, the other past it.
        let cached: Body = Box::new(|region, _| {
            region.store_u64(0, 7)?;
            region.flush(0, 8)?;
            region.store_u64(DONE[0], 1)
        });
        let streamed: Body = Box::new(|region, _| {
            region.write_stream(1024, &7_u64.to_ne_bytes())?;
            region.store_u64(DONE[1], 1)
        });
        let committer: Body = Box::new(move |region, notes| {
            for done in DONE {
                while region.load_u64(done)? == 0 {}
            }
            if form.is_buggy() { region.drain() } else { region.sync_all() }?;
            notes.ack(7);
            Ok(())
        });
        Explorer::new(mode, 4096)
            .schedules(500)
            .run_threads(&[cached, streamed, committer], |region, history| {
                let acked = history.last_acked().unwrap_or(0);
                for at in [0, 1024] {
                    let found = ok(region.load_u64(at))?;
                    ensure(found >= acked, || format!("{acked} was acknowledged, {found} is at {at}"))?;
                }
                Ok(())
            })
            .into()
    },
};
