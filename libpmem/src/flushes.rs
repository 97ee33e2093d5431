//! Write-backs, fences, and what the platform does by itself.

use std::ffi::{c_int, c_void};

use crate::auto_flush;
use crate::selected::selected;

/// Starts to write the lines of a range back; nothing where the caches are in the persistence
/// domain. pmem_flush(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmem_flush(addr: *const c_void, len: usize) {
    if selected().flushes {
        // SAFETY: the caller's.
        unsafe { pmem_deep_flush(addr, len) };
    }
}

/// Writes the lines of a range back, on every platform. pmem_flush(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmem_deep_flush(addr: *const c_void, len: usize) {
    // SAFETY: the caller's. A fault is not seen here: no guard is installed, so it is the signal.
    let _ = unsafe { selected().chosen.flush(addr.cast(), len) };
}

/// Waits until what this thread flushed is durable. pmem_flush(3).
#[unsafe(no_mangle)]
pub extern "C" fn pmem_drain() {
    selected().chosen.fence();
}

/// Makes a range durable. pmem_flush(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmem_persist(addr: *const c_void, len: usize) {
    let selected = selected();
    if selected.flushes {
        // SAFETY: the caller's; a fault is the signal.
        let _ = unsafe { selected.chosen.flush(addr.cast(), len) };
    }
    selected.chosen.fence();
}

/// 1 if a power failure flushes the caches on every NVDIMM region, 0 if not, -1 if a region cannot
/// be read. Asks sysfs at each call. pmem_flush(3).
#[unsafe(no_mangle)]
pub extern "C" fn pmem_has_auto_flush() -> c_int {
    auto_flush::of_every_region()
}

/// 0: no processor drains without being asked to. pmem_flush(3).
#[unsafe(no_mangle)]
pub extern "C" fn pmem_has_hw_drain() -> c_int {
    0
}
