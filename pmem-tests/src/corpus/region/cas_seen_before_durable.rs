//! A thread acts on a value that another has stored and not yet made durable.

use daxmap_sim::Body;

use super::support::{FORGETFUL, ensure, ok};
use super::{Bug, Explorer, Region};

pub(super) const BUG: Bug = Bug {
    name: "cas_seen_before_durable",
    class: "a value acted on before it is durable",
    story: "one thread exchanges a word; another sees it and acknowledges what it saw",
    modes: FORGETFUL,
    words: "was seen and acknowledged",
    explore: |form, mode| {
        let writer: Body = Box::new(|region, _| {
            let _ = region.compare_exchange_u64(0, 0, 1)?;
            region.persist(0, 8)
        });
        let reader: Body = Box::new(move |region, notes| {
            let seen = region.load_u64(0)?;
            if !form.is_buggy() {
                // Who sees it makes it durable: the line is the same for every thread.
                region.persist(0, 8)?;
            }
            notes.ack(seen);
            Ok(())
        });
        Explorer::new(mode, 4096)
            .run_threads(&[writer, reader], |region, history| {
                let (found, acked) = (ok(region.load_u64(0))?, history.last_acked().unwrap_or(0));
                ensure(found >= acked, || format!("{acked} was seen and acknowledged, not {found}"))
            })
            .into()
    },
};
