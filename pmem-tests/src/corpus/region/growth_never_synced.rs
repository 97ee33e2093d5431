//! A file is lengthened by ftruncate(2) and written, and nobody syncs its length before what is
//! written counts as durable. The program is the same in both forms: the region differs.

use daxmap_sim::Faults;

use super::support::{ensure, ok, persist_word};
use super::{Bug, Explorer, Form, Mode, Region};

pub(super) const BUG: Bug = Bug {
    name: "growth_never_synced",
    class: "growth acknowledged before the size is durable",
    story: "the region's growth returns before the new length is durable; the length is acknowledged",
    modes: &[Mode::Adr, Mode::Eadr, Mode::TornWords, Mode::PageCache],
    words: "grow",
    explore: |form, mode| {
        let mut faults = Faults::default();
        faults.lazy_growth = form == Form::Buggy;
        Explorer::new(mode, 1024)
            .max_len(4096)
            .faults(faults)
            .run(
                |region, notes| {
                    for len in [2048, 4096] {
                        region.grow(len)?;
                        notes.ack(len);
                        persist_word(region, len - 8, len)?;
                    }
                    Ok(())
                },
                |region, history| {
                    let (len, acked) = (region.len(), history.last_acked().unwrap_or(0));
                    ensure(len >= acked, || format!("{acked} bytes were acknowledged, {len} are there"))?;
                    let last = ok(region.load_u64(len - 8))?;
                    ensure(last == 0 || last == len, || format!("the last word is {last}"))
                },
            )
            .into()
    },
};
