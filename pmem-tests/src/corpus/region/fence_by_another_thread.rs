//! One thread stores and flushes, another drains for it: a fence waits for the write-backs of its
//! own core.

use daxmap_sim::Body;

use super::support::{FORGETFUL, ensure, ok};
use super::{Bug, Explorer, Region};

/// Says in memory, for the other thread, that the record is flushed.
const FLUSHED: u64 = 2048;

pub(super) const BUG: Bug = Bug {
    name: "fence_by_another_thread",
    class: "fence by another thread",
    story: "a worker flushes its record, and a committer drains and acknowledges it",
    modes: FORGETFUL,
    words: "covers only its own flushes",
    explore: |form, mode| {
        let worker: Body = Box::new(move |region, _| {
            region.store_u64(0, 7)?;
            region.flush(0, 8)?;
            if !form.is_buggy() {
                region.drain()?;
            }
            region.store_u64(FLUSHED, 1)
        });
        let committer: Body = Box::new(|region, notes| {
            while region.load_u64(FLUSHED)? == 0 {}
            region.drain()?;
            notes.ack(7);
            Ok(())
        });
        Explorer::new(mode, 4096)
            .schedules(2000)
            .run_threads(&[worker, committer], |region, history| {
                let (found, acked) = (ok(region.load_u64(0))?, history.last_acked().unwrap_or(0));
                ensure(found >= acked, || format!("{acked} was acknowledged, {found} is there"))
            })
            .into()
    },
};
