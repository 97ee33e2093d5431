//! Ctrl-C and its relatives: noticed between two batches, so that the files are removed first.
//!
//! # Safety
//!
//! The danger here is a signal handler that does more than a handler may (signal-safety(7)). It
//! stores one number into an atomic.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};

/// The signal that came; 0 if none.
static CAUGHT: AtomicI32 = AtomicI32::new(0);

/// Signals that end a program at a user's or an administrator's wish.
const ENDING: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

extern "C" fn note(signal: libc::c_int) {
    CAUGHT.store(signal, Ordering::Relaxed);
}

/// From now on [`check`] reports these signals. One that is ignored (nohup) stays ignored; a second
/// one ends the process at once, should a system call hang.
pub fn catch() {
    for signal in ENDING {
        // SAFETY: all zero bytes are a valid sigaction: default disposition, empty mask, no flags.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: `action` is valid for writing; a null new action only asks.
        let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
        if asked != 0 || action.sa_sigaction == libc::SIG_IGN {
            continue;
        }
        action.sa_sigaction = note as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART | libc::SA_RESETHAND;
        // SAFETY: `action` is initialised, and `note` has the signature that a handler without
        // SA_SIGINFO has and calls nothing that is not async-signal-safe. A failure (there is none
        // for these signals) leaves the default, which ends the process.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}

/// An error of kind `Interrupted` if a signal came.
pub fn check() -> io::Result<()> {
    match CAUGHT.load(Ordering::Relaxed) {
        0 => Ok(()),
        _ => Err(io::Error::from(io::ErrorKind::Interrupted)),
    }
}

/// Ends the process by the signal that came, for the shell to see; returns if there was none.
pub fn finish() {
    let signal = CAUGHT.load(Ordering::Relaxed);
    if signal != 0 {
        // SAFETY: raise has no preconditions. SA_RESETHAND has put the default action back, which
        // ends the process.
        unsafe { libc::raise(signal) };
    }
}
