//! What a mapping is, and its end. pmem_is_pmem(3).

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use daxmap::cpu::WriteBack;

use crate::environment::{errno, keeping_errno, number, value};
use crate::message;
use crate::registry::registry;

/// What `PMEM_IS_PMEM_FORCE` says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Force {
    Never,
    Always,
    No,
}

/// Read at the first question, as PMDK does: programs set it before they map.
fn force() -> Force {
    static FORCE: OnceLock<Force> = OnceLock::new();
    *FORCE.get_or_init(|| {
        // Nothing is written back there: flushing would be a promise that nobody keeps.
        if WriteBack::detect() == WriteBack::None {
            return Force::Never;
        }
        match value(c"PMEM_IS_PMEM_FORCE").map(number) {
            Some(0) => Force::Never,
            Some(1) => Force::Always,
            _ => Force::No,
        }
    })
}

/// 1 if the whole range is persistent memory that `pmem_map_file` mapped: `pmem_persist` makes it
/// durable. Else 0, for an empty range too. pmem_is_pmem(3).
#[unsafe(no_mangle)]
pub extern "C" fn pmem_is_pmem(addr: *const c_void, len: usize) -> c_int {
    let is_pmem = len > 0
        && match force() {
            Force::Never => false,
            Force::Always => true,
            Force::No => keeping_errno(|| registry().is_pmem(addr.addr(), len)),
        };
    c_int::from(is_pmem)
}

/// munmap(2) of a mapping, or of a part of it: -1 and `errno` if it fails, and then the range is
/// still known. pmem_is_pmem(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmem_unmap(addr: *mut c_void, len: usize) -> c_int {
    // Locked throughout: another thread could be given the addresses and lose its place here.
    let mut registry = registry();
    if registry.reserve().is_err() {
        return -1;
    }
    // SAFETY: the caller gives the range back.
    let result = unsafe { libc::munmap(addr, len) };
    if result == 0 {
        keeping_errno(|| registry.remove(addr.addr(), len));
    } else {
        message::failed(errno(), format_args!("munmap of {len} bytes at {addr:p}"));
    }
    result
}
