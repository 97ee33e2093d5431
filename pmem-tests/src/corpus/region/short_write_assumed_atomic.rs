//! A 4-byte number written as bytes: only an aligned 8-byte store is never torn.

use super::support::{MEMORY, bytes, ensure, explore};
use super::{Bug, Mode, Region};

pub(super) const BUG: Bug = Bug {
    name: "short_write_assumed_atomic",
    class: "a short write assumed atomic",
    story: "a 4-byte counter goes from 0x01ff to 0x0200 by write; half of it arrives",
    modes: &[Mode::Adr, Mode::Eadr, Mode::TornWords],
    words: "was never stored",
    explore: |form, mode| {
        assert!(MEMORY.iter().all(|mode| BUG.modes.contains(mode)));
        explore(
            mode,
            move |region, _| {
                for value in [0x01FF_u32, 0x0200] {
                    if form.is_buggy() {
                        region.write(64, &value.to_le_bytes())?;
                    } else {
                        region.store_u64(64, u64::from(value).to_le())?;
                    }
                    region.persist(64, 8)?;
                }
                Ok(())
            },
            |region, _| {
                let value = u32::from_le_bytes(bytes::<4>(region, 64)?);
                ensure([0, 0x1FF, 0x200].contains(&value), || format!("{value:#x} was never stored"))
            },
        )
    },
};
