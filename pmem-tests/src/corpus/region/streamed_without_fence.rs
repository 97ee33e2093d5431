//! Data goes past the cache and is announced by a plain store: the two are not ordered, not even
//! where caches are persistent. (A published library lost this fence for five releases.)

use super::support::{bytes, ensure, explore, ok};
use super::{Bug, Mode, Region};

const FLAG: u64 = 0;
const DATA: u64 = 1024;

pub(super) const BUG: Bug = Bug {
    name: "streamed_without_fence",
    class: "non-temporal store published without a fence",
    story: "a block is written by write_flush and its flag is stored before the drain",
    modes: &[Mode::Adr, Mode::Eadr, Mode::TornWords, Mode::PageCache],
    words: "write_flush",
    explore: |form, mode| {
        explore(
            mode,
            move |region, _| {
                region.write_flush(DATA, &[9; 24])?;
                if !form.is_buggy() {
                    region.drain()?;
                }
                region.store_u64(FLAG, 1)?;
                region.persist(FLAG, 8)
            },
            |region, _| {
                let (flag, data) = (ok(region.load_u64(FLAG))?, bytes::<24>(region, DATA)?);
                ensure(flag == 0 || data == [9; 24], || format!("flagged, but the data is {data:?}"))
            },
        )
    },
};
