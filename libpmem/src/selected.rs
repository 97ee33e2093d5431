//! What the copies and flushes use, selected once, when the library is loaded.

use std::ffi::CStr;
use std::sync::OnceLock;

use daxmap::cpu::{Cpu, WriteBack};

use crate::environment::{is_one, number, value};
use crate::{auto_flush, place, registry};

/// Without stores past the caches.
const NEVER: usize = usize::MAX;

/// The routines, by what the caller's flags ask for.
pub(crate) struct Selected {
    /// Where nothing is asked for: the way that is faster.
    pub(crate) chosen: Cpu,
    /// By way of the caches.
    pub(crate) cached: Cpu,
    /// Past the caches.
    pub(crate) past: Cpu,
    /// Whether anything is written back: not where the caches are in the persistence domain (eADR)
    /// or `PMEM_NO_FLUSH=1`.
    pub(crate) flushes: bool,
    /// What `PMEM_MMAP_HINT` says.
    pub(crate) hint: Option<usize>,
    /// `DAXMAP_PMEM_STRICT=1`.
    pub(crate) strict: bool,
}

static SELECTED: OnceLock<Selected> = OnceLock::new();

/// What the constructor selected. One load, unless a constructor of another library comes first.
#[inline]
pub(crate) fn selected() -> &'static Selected {
    SELECTED.get_or_init(select)
}

extern "C" fn construct() {
    selected();
    registry::survive_forks();
}

/// The loader calls it before any function of this library can be called.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

fn select() -> Selected {
    let write_back = write_back(WriteBack::detect(), is_one);
    let no_movnt = is_one(c"PMEM_NO_MOVNT");
    let mut chosen = Cpu::get().ways();
    let threshold = value(c"PMEM_MOVNT_THRESHOLD").map(number);
    // A negative one is ignored.
    if let Some(threshold) = threshold.and_then(|number| usize::try_from(number).ok()) {
        (chosen.persist, chosen.flush) = (threshold, threshold);
    }
    let (mut cached, mut past) = (chosen, chosen);
    (cached.persist, cached.flush, cached.cached_domain) = (NEVER, NEVER, NEVER);
    (past.persist, past.flush) = (1, 1);
    if no_movnt {
        (chosen, past) = (cached, cached);
    }
    let cpu = |ways| Cpu::with(write_back, ways);
    Selected {
        chosen: cpu(chosen),
        cached: cpu(cached),
        past: cpu(past),
        flushes: match value(c"PMEM_NO_FLUSH") {
            Some(value) if value == c"1" => false,
            Some(value) if value == c"0" => true,
            _ => auto_flush::of_every_region() != 1,
        },
        hint: place::hint(),
        strict: is_one(c"DAXMAP_PMEM_STRICT"),
    }
}

/// The best write-back that the environment does not forbid.
fn write_back(best: WriteBack, forbidden: impl Fn(&'static CStr) -> bool) -> WriteBack {
    let mut found = best;
    if found == WriteBack::Clwb && forbidden(c"PMEM_NO_CLWB") {
        found = WriteBack::ClflushOpt;
    }
    if found == WriteBack::ClflushOpt && forbidden(c"PMEM_NO_CLFLUSHOPT") {
        found = WriteBack::Clflush;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_back_that_is_forbidden_gives_way_to_the_one_before() {
        fn with(best: WriteBack, list: &[&CStr]) -> WriteBack {
            write_back(best, |name| list.contains(&name))
        }
        let (clwb, opt) = (c"PMEM_NO_CLWB", c"PMEM_NO_CLFLUSHOPT");
        assert_eq!(with(WriteBack::Clwb, &[]), WriteBack::Clwb);
        assert_eq!(with(WriteBack::Clwb, &[opt]), WriteBack::Clwb);
        assert_eq!(with(WriteBack::Clwb, &[clwb]), WriteBack::ClflushOpt);
        assert_eq!(with(WriteBack::Clwb, &[clwb, opt]), WriteBack::Clflush);
        assert_eq!(with(WriteBack::ClflushOpt, &[clwb, opt]), WriteBack::Clflush);
        assert_eq!(with(WriteBack::Clflush, &[clwb, opt]), WriteBack::Clflush);
        assert_eq!(with(WriteBack::DcCvap, &[clwb, opt]), WriteBack::DcCvap);
    }
}
