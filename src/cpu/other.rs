//! An architecture without a known write-back to persistence: mappings cannot be made durable
//! by the CPU, so every file gets the page-cache backend.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence as atomic_fence};

use super::ways::Ways;
use super::{Cpu, Routine, WriteBack};

/// No routine has an error exit.
pub(super) const EXIT: usize = 0;
/// No access is guarded: regions read through system calls.
pub(super) const GUARDED: [Routine; 0] = [];

/// Copies with the aligned words of `$side` whole.
macro_rules! copy {
    ($name:ident, $to:ident, $from:ident, $side:ident, $word:expr, $byte:expr) => {
        unsafe extern "C" fn $name($to: *mut u8, $from: *const u8, len: usize) -> usize {
            let mut done = 0;
            while done < len {
                if ($side as usize + done).is_multiple_of(8) && len - done >= 8 {
                    // SAFETY: `done + 8 <= len`, and the region's side is aligned.
                    unsafe { $word($to.add(done), $from.add(done)) };
                    done += 8;
                } else {
                    // SAFETY: `done < len`.
                    unsafe { $byte($to.add(done), $from.add(done)) };
                    done += 1;
                }
            }
            0
        }
    };
}

copy!(
    store,
    to,
    from,
    to,
    |to: *mut u8, from: *const u8| AtomicU64::from_ptr(to.cast())
        .store(from.cast::<u64>().read_unaligned(), Ordering::Relaxed),
    |to: *mut u8, from: *const u8| AtomicU8::from_ptr(to).store(*from, Ordering::Relaxed)
);
copy!(
    load,
    to,
    from,
    from,
    |to: *mut u8, from: *const u8| to
        .cast::<u64>()
        .write_unaligned(AtomicU64::from_ptr(from.cast_mut().cast()).load(Ordering::Relaxed)),
    |to: *mut u8, from: *const u8| *to =
        AtomicU8::from_ptr(from.cast_mut()).load(Ordering::Relaxed)
);

unsafe extern "C" fn compare_exchange(to: *mut u8, from: *const u8, _len: usize) -> usize {
    let words = from.cast_mut().cast::<u64>();
    // SAFETY: the caller passes an aligned word, and two words of its own.
    unsafe {
        let word = AtomicU64::from_ptr(to.cast());
        let (Ok(found) | Err(found)) =
            word.compare_exchange(*words, *words.add(1), Ordering::AcqRel, Ordering::Acquire);
        *words = found;
    }
    0
}

/// No write-back is known.
pub(super) fn detect() -> WriteBack {
    WriteBack::None
}

/// Orders stores; makes nothing durable, and nothing here claims that it does.
#[inline]
pub(super) fn fence() {
    atomic_fence(Ordering::SeqCst);
}

/// No hint is known.
#[inline]
pub(super) fn prefetch(_address: *const u8) {}

/// Calls one of the routines of this file.
///
/// # Safety
///
/// Those of the routine.
#[inline]
pub(super) unsafe fn call(routine: Routine, to: *mut u8, from: *const u8, len: usize) -> usize {
    // SAFETY: the caller's.
    unsafe { routine(to, from, len) }
}

/// Nothing goes past the caches, so there is nothing to know.
pub(super) fn known() -> Option<Ways> {
    Some(Ways::CACHED)
}

/// Never called: nothing is measured where nothing goes past the caches.
///
/// # Safety
///
/// None needed.
pub(super) unsafe fn evict(_to: *mut u8, _len: usize) {}

/// The routines for this processor.
pub(super) fn select() -> Cpu {
    Cpu {
        store,
        load,
        compare_exchange,
        past: None,
        ways: Ways::CACHED,
        store_down: None,
        fill: None,
        store_write_back: None,
        write_back_lines: None,
        write_back: WriteBack::None,
        line_size: 64,
    }
}

/// The same: there is no other write-back to choose.
pub(super) fn select_with(_write_back: WriteBack) -> Cpu {
    select()
}

/// Never called: no handler is installed where no routine is guarded.
///
/// # Safety
///
/// None needed.
pub(super) unsafe fn instruction_pointer(context: *mut libc::c_void) -> *mut usize {
    context.cast()
}
