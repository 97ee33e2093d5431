//! A SIGBUS inside the copies of this library, and only there, becomes an error.
//!
//! A mapped page can vanish: another process truncates the file, or the memory is poisoned. The
//! access then raises SIGBUS (mmap(2); Documentation/mm/hwpoison.rst). The handler installed
//! here looks where it happened: inside a routine of the architecture's file it resumes at that
//! routine's error exit; anywhere else the handler that was there before decides.
//!
//! Handlers come and go: a library that saved what it found may put it back, and the one installed
//! here is gone. So whoever needs it asks for it anew, and what is found then is passed on to from
//! then on. It may itself pass on to the one installed here, which it had replaced: a signal that
//! comes round again goes to what was there before that.
//!
//! # Safety
//!
//! The handler is async-signal-safe: it reads constants, one atomic pointer and a thread-local
//! variable that needs no initialisation, and calls only sigaction(2), pthread_sigmask(3) and the
//! previous handlers.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};

use libc::{c_int, c_void, siginfo_t};

use super::arch;

/// What SIGBUS did before, and before that.
struct Previous {
    action: libc::sigaction,
    before: *const Self,
}

/// The newest of them; null until installed. Leaked: the handler may run at any time.
static PREVIOUS: AtomicPtr<Previous> = AtomicPtr::new(ptr::null_mut());

thread_local! {
    /// The signal that this thread passes on, by its context and its address, and how often it came
    /// round.
    static PASSING: Cell<((usize, usize), usize)> = const { Cell::new(((0, 0), 0)) };
}

/// Makes [`Fault`](super::Fault) an error in this process instead of a signal: installs the
/// handler, where it is not the one that is in place. Returns whether it is now; it cannot be on an
/// architecture whose copies have no error exit. Every opening of a region asks anew.
///
/// A thread that blocks SIGBUS is killed all the same: the kernel does not hold an access fault
/// back (signal(7)).
///
/// A program that installs a SIGBUS handler of its own after this must pass on what is not its
/// own to the handler it replaced.
pub fn guard_faults() -> bool {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    if arch::GUARDED.is_empty() {
        return false;
    }
    let _held = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    match sigaction(ptr::null()) {
        Some(present) => is_own(&present) || install(present),
        None => false,
    }
}

fn is_own(action: &libc::sigaction) -> bool {
    action.sa_sigaction == on_sigbus as *const () as usize
}

fn sigaction(new: *const libc::sigaction) -> Option<libc::sigaction> {
    let mut old = MaybeUninit::uninit();
    // SAFETY: `new` is null or points to an initialised sigaction, and the kernel fills `old`
    // when it returns 0.
    unsafe {
        if libc::sigaction(libc::SIGBUS, new, old.as_mut_ptr()) == 0 {
            Some(old.assume_init())
        } else {
            None
        }
    }
}

/// Puts an action before those known so far, unless it is the newest of them.
fn remember(action: libc::sigaction) {
    let before = PREVIOUS.load(Ordering::Acquire).cast_const();
    // SAFETY: null, or set by this function, never freed, never written again.
    let newest = unsafe { before.as_ref() };
    let same = |known: &Previous| {
        known.action.sa_sigaction == action.sa_sigaction && known.action.sa_flags == action.sa_flags
    };
    if !newest.is_some_and(same) {
        PREVIOUS.store(Box::into_raw(Box::new(Previous { action, before })), Ordering::Release);
    }
}

fn own_action() -> libc::sigaction {
    // SAFETY: a sigaction of zeros is a valid one (SIG_DFL, no flags, empty mask).
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = on_sigbus as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    action
}

fn install(present: libc::sigaction) -> bool {
    // Known before the handler can run for the first time.
    remember(present);
    let action = own_action();
    let Some(replaced) = sigaction(&raw const action) else { return false };
    if !is_own(&replaced) {
        // Other than before if another thread installed one between the two calls.
        remember(replaced);
    }
    true
}

/// The error exit of the routine that contains `ip`.
fn error_exit(ip: usize) -> Option<usize> {
    arch::GUARDED
        .iter()
        .map(|routine| *routine as usize)
        .find(|start| (*start..*start + arch::EXIT).contains(&ip))
        .map(|start| start + arch::EXIT)
}

extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo and ucontext to an SA_SIGINFO handler.
    let (raised_by_access, ip) = unsafe {
        (
            (*info).si_code > 0 && (*info).si_code != BUS_MCEERR_AO,
            arch::instruction_pointer(context),
        )
    };
    if raised_by_access {
        // SAFETY: `ip` points into the saved context, which is writable.
        if let Some(exit) = error_exit(unsafe { *ip }) {
            // SAFETY: as above. The routine touched no stack and no callee-saved register, so
            // resuming at its error exit returns to its caller with the value 1.
            unsafe { *ip = exit };
            return;
        }
    }
    pass_on(raised_by_access, signal, info, context);
}

/// Memory failure noticed by a scrubber, not by the current instruction: never ours
/// (sigaction(2)).
const BUS_MCEERR_AO: c_int = 5;

/// The action that a signal goes to which came round `rounds` times: each time, one that was there
/// earlier. The earliest knew nothing of this handler, and passes nothing on to it.
fn earlier(rounds: usize) -> &'static libc::sigaction {
    let newest = PREVIOUS.load(Ordering::Acquire).cast_const();
    // SAFETY: set before the handler was installed, never freed, never written again.
    let mut previous = unsafe { &*newest };
    for _ in 0..rounds {
        // SAFETY: null, or as above.
        match unsafe { previous.before.as_ref() } {
            Some(before) => previous = before,
            None => break,
        }
    }
    &previous.action
}

/// Does what would have happened without this handler.
fn pass_on(by_access: bool, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo, of which any field may be looked at.
    let key = (context.addr(), unsafe { (*info).si_addr() }.addr());
    let outer = PASSING.get();
    let rounds = if outer.0 == key { outer.1 + 1 } else { 0 };
    PASSING.set((key, rounds));
    pass_to(earlier(rounds), by_access, signal, info, context);
    PASSING.set(outer);
}

fn pass_to(
    previous: &libc::sigaction,
    by_access: bool,
    signal: c_int,
    info: *mut siginfo_t,
    context: *mut c_void,
) {
    match previous.sa_sigaction {
        libc::SIG_IGN => {
            if by_access {
                // The kernel does not let an access fault be ignored (signal(7)).
                restore_default();
            }
        }
        // The access is repeated, or the signal raised again, and the default action taken.
        libc::SIG_DFL => {
            restore_default();
            if !by_access {
                // SAFETY: raise(3) is async-signal-safe.
                unsafe { libc::raise(signal) };
            }
        }
        handler => {
            let mut before = MaybeUninit::uninit();
            if previous.sa_flags & libc::SA_RESETHAND != 0 {
                restore_default();
            }
            // SAFETY: pthread_sigmask is async-signal-safe and both sets are valid. `handler`
            // is the address the program gave for this signal, with the arguments its flags ask
            // for (sigaction(2)).
            unsafe {
                libc::pthread_sigmask(
                    libc::SIG_BLOCK,
                    &raw const previous.sa_mask,
                    before.as_mut_ptr(),
                );
                if previous.sa_flags & libc::SA_NODEFER != 0
                    && libc::sigismember(&raw const previous.sa_mask, signal) == 0
                {
                    let mut own = MaybeUninit::uninit();
                    libc::sigemptyset(own.as_mut_ptr());
                    libc::sigaddset(own.as_mut_ptr(), signal);
                    libc::pthread_sigmask(libc::SIG_UNBLOCK, own.as_ptr(), ptr::null_mut());
                }
                if previous.sa_flags & libc::SA_SIGINFO != 0 {
                    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                        std::mem::transmute(handler);
                    handler(signal, info, context);
                } else {
                    let handler: extern "C" fn(c_int) = std::mem::transmute(handler);
                    handler(signal);
                }
                libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
            }
            // A handler that leaves the rest to the default action, for the access that will be
            // repeated, as the standard library's does: where no access is repeated, the guard
            // would be gone and nobody would know.
            let reset = sigaction(ptr::null()).is_some_and(|now| now.sa_sigaction == libc::SIG_DFL);
            if !by_access && reset && previous.sa_flags & libc::SA_RESETHAND == 0 {
                let own = own_action();
                let _ = sigaction(&raw const own);
            }
        }
    }
}

fn restore_default() {
    // SAFETY: a sigaction of zeros is SIG_DFL.
    let default: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    let _ = sigaction(&raw const default);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_of_a_routine_leads_to_its_own_error_exit() {
        for routine in arch::GUARDED {
            let start = routine as usize;
            let exit = start + arch::EXIT;
            for ip in start..exit {
                assert_eq!(error_exit(ip), Some(exit));
            }
            // A fault at or after the exit is not resumed: that could not end.
            assert_eq!(error_exit(exit), None);
        }
        assert_eq!(error_exit(error_exit as *const () as usize), None);
    }

    /// Runs the exits themselves, those too that no fault of another test reaches.
    #[cfg(target_arch = "aarch64")]
    #[test]
    fn every_error_exit_returns_one() {
        for routine in arch::GUARDED {
            let exit = routine as usize + arch::EXIT;
            // SAFETY: the two instructions there set the result and return; they touch neither
            // memory nor a callee-saved register, as a routine may.
            let result = unsafe {
                std::mem::transmute::<usize, crate::cpu::Routine>(exit)(
                    ptr::null_mut(),
                    ptr::null(),
                    0,
                )
            };
            assert_eq!(result, 1);
        }
    }
}
