//! SIGUSR1 as a flag.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn ask(_: libc::c_int) {
    ASKED.store(true, Ordering::Relaxed);
}

/// From now on SIGUSR1 raises the flag instead of ending the program.
pub fn on_usr1() -> io::Result<&'static AtomicBool> {
    let handler = ask as extern "C" fn(libc::c_int);
    // SAFETY: the handler stores to an atomic and does nothing else (signal-safety(7)).
    let before = unsafe { libc::signal(libc::SIGUSR1, handler as *const () as libc::sighandler_t) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(&ASKED) }
}

/// Whether it was raised since the last time.
pub fn take(flag: &AtomicBool) -> bool {
    flag.swap(false, Ordering::Relaxed)
}
