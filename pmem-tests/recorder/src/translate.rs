//! From a virtual address to a physical one, through the guest's own page tables.
//!
//! Long mode only, with four or five levels (SDM vol. 3, 4.5). Permissions are not looked at.

use std::sync::atomic::Ordering;

use crate::files::Words;

const PRESENT: u64 = 1;
const HUGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const CR0_PAGING: u64 = 1 << 31;
const CR4_FIVE_LEVELS: u64 = 1 << 12;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;

/// The registers that say where the tables are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paging {
    pub(crate) cr0: u64,
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
    pub(crate) efer: u64,
}

impl Paging {
    /// True once the kernel is up: firmware and the decompressor run in other modes.
    pub(crate) fn is_long_mode(self) -> bool {
        self.cr0 & CR0_PAGING != 0 && self.efer & EFER_LONG_MODE_ACTIVE != 0
    }

    /// The physical address; `None` where nothing is mapped. `memory` is the machine's memory from
    /// physical address 0 on.
    pub(crate) fn translate(self, memory: &Words, address: u64) -> Option<u64> {
        let levels = if self.cr4 & CR4_FIVE_LEVELS == 0 { 4 } else { 5 };
        let mut table = self.cr3 & ADDRESS;
        for level in (0..levels).rev() {
            let shift = 12 + 9 * level;
            let index = (address >> shift) & 511;
            let entry = memory.word(table + 8 * index)?.load(Ordering::Relaxed);
            if entry & PRESENT == 0 {
                return None;
            }
            if level == 0 || (level <= 2 && entry & HUGE != 0) {
                let within = (1 << shift) - 1;
                return Some((entry & ADDRESS & !within) | (address & within));
            }
            table = entry & ADDRESS;
        }
        None
    }
}
