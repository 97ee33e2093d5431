//! Root's rights: work done without them, and tests that cannot do without.
#![allow(unsafe_code)]

/// The user `nobody`.
const NOBODY: libc::c_long = 65534;

/// What a test says that cannot run as this user: `ci/test` counts these words.
pub const NEEDS_ROOT: &str = "could not run: needs root";

/// Fails a test that cannot run as this user, before it begins.
///
/// # Panics
///
/// If this process is not root's.
#[track_caller]
pub fn need_root() {
    assert!(rustix::process::geteuid().is_root(), "{NEEDS_ROOT}");
}

/// Runs `work` in a thread that has given up root for good. The C library would change the whole
/// process; the system calls themselves change the calling thread (setresuid(2), "C
/// library/kernel differences"), and with it file access.
///
/// # Panics
///
/// If this process is not root's, or `work` panics.
pub fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    need_root();
    std::thread::scope(|scope| {
        let run = || {
            // SAFETY: these calls take numbers and a null list only.
            let given_up = unsafe {
                libc::syscall(libc::SYS_setgroups, 0_usize, std::ptr::null::<libc::gid_t>()) == 0
                    && libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) == 0
                    && libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) == 0
            };
            assert!(given_up, "only root can become nobody: {}", std::io::Error::last_os_error());
            work()
        };
        match scope.spawn(run).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
