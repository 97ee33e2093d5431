//! What the kernel makes durable: msync, and the deep drain.

use std::ffi::{c_int, c_void};

use crate::device;
use crate::environment::{errno, keeping_errno};
use crate::flushes::{pmem_deep_flush, pmem_drain};
use crate::message;
use crate::registry::{Kind, registry};

const PAGE: usize = 4096;

/// msync(2) of the pages of a range: -1 and `errno` if it fails. Of a mapping that `pmem_map_file`
/// made, a failure to write is final until it is unmapped: the kernel reports each loss once and
/// then calls the pages clean. pmem_flush(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmem_msync(addr: *const c_void, len: usize) -> c_int {
    let start = addr.addr() & !(PAGE - 1);
    let len = len.wrapping_add(addr.addr() - start);
    let end = start.saturating_add(len);
    if let Some(errno) = keeping_errno(|| registry().failure(start, end)) {
        message::failed(errno, format_args!("msync of a mapping that lost data before"));
        return -1;
    }
    // SAFETY: msync(2) changes no memory; what is not mapped is an error.
    let result = unsafe { libc::msync(addr.with_addr(start).cast_mut(), len, libc::MS_SYNC) };
    if result != 0 {
        let errno = errno();
        // These say that the range was wrong, not that data was lost.
        if !matches!(errno, libc::ENOMEM | libc::EINVAL) {
            registry().fail(start, end, errno);
        }
        message::failed(errno, format_args!("msync of {len} bytes at {start:#x}"));
    }
    result
}

/// Makes what was flushed durable in the medium itself: by msync, or of device DAX by the region's
/// `deep_flush` in sysfs. -1 and `errno` if it fails. pmem_flush(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmem_deep_drain(addr: *const c_void, len: usize) -> c_int {
    let (mut at, mut left) = (addr.addr(), len);
    while left > 0 {
        let device = registry().overlapping(at, at.saturating_add(left)).find_map(|range| {
            match range.kind {
                Kind::Device(region) => Some((range.start, range.end, region)),
                _ => None,
            }
        });
        let Some((start, end, region)) = device else {
            // SAFETY: msync changes no memory.
            return unsafe { pmem_msync(addr.with_addr(at), left) };
        };
        if start > at {
            let before = start - at;
            // SAFETY: as above.
            if unsafe { pmem_msync(addr.with_addr(at), before) } != 0 {
                return -1;
            }
            (at, left) = (start, left - before);
        }
        pmem_drain();
        if let Some(region) = region {
            keeping_errno(|| device::deep_flush(region));
        }
        let done = left.min(end - at);
        (at, left) = (at + done, left - done);
    }
    0
}

/// Writes a range back and makes it durable in the medium itself. pmem_flush(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmem_deep_persist(addr: *const c_void, len: usize) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        pmem_deep_flush(addr, len);
        pmem_deep_drain(addr, len)
    }
}
