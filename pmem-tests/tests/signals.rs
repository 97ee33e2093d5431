//! The SIGBUS handler minds its own business: a signal that no access raised neither ends the
//! guard nor the process where it did not before. Keeps away: a guard that is gone after the
//! first memory error elsewhere, and nobody knows.
//!
//! A binary of its own, with one test: signal handlers are the whole process's.
#![allow(unsafe_code)]

use daxmap::{ErrorKind, Options, Region};

/// "Action optional": a memory error that was found, not met (sigaction(2)).
const BUS_MCEERR_AO: libc::c_int = 5;

/// Sends this thread a SIGBUS with the given code, as the kernel would.
fn raise_sigbus(code: libc::c_int) {
    // SAFETY: a siginfo of zeros is valid; the call reads it and signals this thread.
    let result = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        info.si_signo = libc::SIGBUS;
        info.si_code = code;
        libc::syscall(
            libc::SYS_rt_tgsigqueueinfo,
            libc::getpid(),
            libc::gettid(),
            libc::SIGBUS,
            &raw const info,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_signal_that_no_access_raised_leaves_the_guard_in_place() {
    let directory = pmem_tests::scratch::Directory::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.path().join("cut");
    let region = Options::new().len(1 << 16).create(&path).expect("a region");
    std::fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    let gone = || {
        let error = region.read(8192, &mut [0; 64]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Gone), "{error}");
    };
    gone();
    for _ in 0..3 {
        // To the standard library's handler, which leaves it to the default action.
        raise_sigbus(BUS_MCEERR_AO);
        gone();
    }
    region.read(0, &mut [0; 64]).expect("the page that is left");
}
