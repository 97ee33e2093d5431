//! fdatasync fails; the program calls it again, and it succeeds: the kernel has marked the pages
//! clean and forgotten them.

use daxmap_sim::Faults;

use super::support::{ensure, ok};
use super::{Bug, Explorer, Mode, Region};

pub(super) const BUG: Bug = Bug {
    name: "retry_after_failed_sync",
    class: "retry after a failed sync",
    story: "behind bare fdatasync, a failed sync is called again until it succeeds",
    modes: &[Mode::Adr, Mode::TornWords, Mode::PageCache],
    words: "failed, and no later one covers it",
    explore: |form, mode| {
        let mut faults = Faults::default();
        faults.forgets_errors = true;
        Explorer::new(mode, 4096)
            .faults(faults)
            .fail_drains(true)
            .run(
                move |region, notes| {
                    for value in 1..=2 {
                        region.store_u64(0, value)?;
                        region.flush(0, 8)?;
                        let mut drained = region.drain();
                        if form.is_buggy() && drained.is_err() {
                            drained = region.drain();
                        }
                        drained?;
                        notes.ack(value);
                    }
                    Ok(())
                },
                |region, history| {
                    let (found, acked) = (ok(region.load_u64(0))?, history.last_acked().unwrap_or(0));
                    ensure(found >= acked, || format!("{acked} was acknowledged, {found} is there"))
                },
            )
            .into()
    },
};
