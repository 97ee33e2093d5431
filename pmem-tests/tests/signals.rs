//! The SIGBUS handler minds its own business: a signal that no access raised neither ends the
//! guard nor the process where it did not before. Keeps away: a guard that is gone after the
//! first memory error elsewhere, and nobody knows.
//!
//! A binary of its own: signal handlers are the whole process's. What a disposition is asked about
//! has a process of its own.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize};

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

/// What the handler of a case saw.
static CALLS: AtomicU32 = AtomicU32::new(0);
static CODE: AtomicI32 = AtomicI32::new(i32::MIN);
static BUS_BLOCKED: AtomicI32 = AtomicI32::new(-1);
static USER_BLOCKED: AtomicI32 = AtomicI32::new(-1);

/// Whether this thread blocks a signal.
fn blocks(signal: libc::c_int) -> libc::c_int {
    // SAFETY: the call fills the set, and changes nothing without a new one.
    unsafe {
        let mut now: libc::sigset_t = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut now);
        libc::sigismember(&raw const now, signal)
    }
}

fn note(signal: libc::c_int) {
    assert_eq!(signal, libc::SIGBUS);
    CALLS.fetch_add(1, SeqCst);
    BUS_BLOCKED.store(blocks(libc::SIGBUS), SeqCst);
    USER_BLOCKED.store(blocks(libc::SIGUSR1), SeqCst);
}

extern "C" fn plain(signal: libc::c_int) {
    note(signal);
}

extern "C" fn with_info(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    note(signal);
    assert!(!context.is_null());
    // SAFETY: the kernel's, passed on.
    CODE.store(unsafe { (*info).si_code }, SeqCst);
}

/// As the standard library's: leaves the rest to the default action, for the access that is repeated.
extern "C" fn gives_up(signal: libc::c_int) {
    note(signal);
    set(libc::SIG_DFL, 0, false);
}

/// Makes the access good: there are zeros where nothing was.
extern "C" fn mends(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    note(signal);
    // SAFETY: the page of the access is a mapping's of the test, and is replaced by another one.
    unsafe {
        let page = (*info).si_addr() as usize & !4095;
        let (access, how) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        libc::mmap(page as *mut libc::c_void, 4096, access, how | libc::MAP_FIXED, -1, 0);
    }
}

/// The handler of the library, and how often it was passed a signal by the next one.
static GUARD: AtomicUsize = AtomicUsize::new(0);
static PASSED_ON: AtomicU32 = AtomicU32::new(0);

/// Passes everything on to the handler that it replaced, as it should.
extern "C" fn passes_on(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    PASSED_ON.fetch_add(1, SeqCst);
    // SAFETY: the address is that of a handler with these arguments.
    let guard: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
        unsafe { std::mem::transmute(GUARD.load(SeqCst)) };
    guard(signal, info, context);
}

/// What SIGBUS does from here on.
fn set(handler: libc::sighandler_t, flags: libc::c_int, block_user: bool) {
    // SAFETY: an initialised action with a handler of the right kind for its flags.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        if block_user {
            libc::sigaddset(&raw mut action.sa_mask, libc::SIGUSR1);
        }
        assert_eq!(libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()), 0);
    }
}

/// An access that no routine of the library makes, to a page that is gone.
fn fault_elsewhere() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    // SAFETY: the access behind the file's end raises the signal that is asked for.
    unsafe {
        let (access, shared) = (libc::PROT_READ, libc::MAP_SHARED);
        let map = libc::mmap(std::ptr::null_mut(), 4096, access, shared, file.as_raw_fd(), 0);
        assert_ne!(map, libc::MAP_FAILED);
        file.set_len(0).unwrap();
        map.cast::<u8>().read_volatile();
    }
}

/// How a case ends.
#[derive(Debug, PartialEq)]
enum Ends {
    Well,
    BySigbus,
}

struct Case {
    name: &'static str,
    before: fn(),
    then: fn(),
    ends: Ends,
}

fn calls() -> u32 {
    CALLS.load(SeqCst)
}

/// What each kind of disposition makes of a signal that is none of the library's.
const CASES: [Case; 14] = [
    Case {
        name: "the default action, for a signal that was sent",
        before: || set(libc::SIG_DFL, 0, false),
        then: || raise_sigbus(BUS_MCEERR_AO),
        ends: Ends::BySigbus,
    },
    Case {
        name: "the default action, for an access",
        before: || set(libc::SIG_DFL, 0, false),
        then: fault_elsewhere,
        ends: Ends::BySigbus,
    },
    Case {
        name: "ignored, if it was sent",
        before: || set(libc::SIG_IGN, 0, false),
        then: || raise_sigbus(BUS_MCEERR_AO),
        ends: Ends::Well,
    },
    Case {
        name: "not ignored, for an access",
        before: || set(libc::SIG_IGN, 0, false),
        then: fault_elsewhere,
        ends: Ends::BySigbus,
    },
    Case {
        name: "a handler with the signal's number, and the signals blocked that it asks for",
        before: || set(plain as *const () as usize, 0, true),
        then: || {
            raise_sigbus(BUS_MCEERR_AO);
            raise_sigbus(BUS_MCEERR_AO);
            assert_eq!(calls(), 2);
            assert_eq!((BUS_BLOCKED.load(SeqCst), USER_BLOCKED.load(SeqCst)), (1, 1));
            assert_eq!((blocks(libc::SIGBUS), blocks(libc::SIGUSR1)), (0, 0), "afterwards");
            assert_eq!(CODE.load(SeqCst), i32::MIN);
        },
        ends: Ends::Well,
    },
    Case {
        name: "a handler with what the kernel says of the signal",
        before: || set(with_info as *const () as usize, libc::SA_SIGINFO, false),
        then: || {
            raise_sigbus(BUS_MCEERR_AO);
            assert_eq!((calls(), CODE.load(SeqCst)), (1, BUS_MCEERR_AO));
            assert_eq!((BUS_BLOCKED.load(SeqCst), USER_BLOCKED.load(SeqCst)), (1, 0));
            raise_sigbus(libc::SI_QUEUE);
            assert_eq!((calls(), CODE.load(SeqCst)), (2, libc::SI_QUEUE));
        },
        ends: Ends::Well,
    },
    Case {
        name: "a handler that makes the access good, each time",
        before: || set(mends as *const () as usize, libc::SA_SIGINFO, false),
        then: || {
            for count in 1..=3 {
                fault_elsewhere();
                assert_eq!(calls(), count);
                gone();
            }
        },
        ends: Ends::Well,
    },
    Case {
        name: "a handler that may be interrupted by the same signal",
        before: || set(plain as *const () as usize, libc::SA_NODEFER, false),
        then: || {
            raise_sigbus(BUS_MCEERR_AO);
            assert_eq!((calls(), BUS_BLOCKED.load(SeqCst)), (1, 0));
            assert_eq!(blocks(libc::SIGBUS), 0, "afterwards");
        },
        ends: Ends::Well,
    },
    Case {
        name: "a handler for once",
        before: || set(plain as *const () as usize, libc::SA_RESETHAND, false),
        then: || {
            raise_sigbus(BUS_MCEERR_AO);
            assert_eq!(calls(), 1);
            raise_sigbus(BUS_MCEERR_AO);
        },
        ends: Ends::BySigbus,
    },
    Case {
        name: "a handler that is there after the first time",
        before: || set(plain as *const () as usize, 0, false),
        then: || {
            (0..3).for_each(|_| raise_sigbus(BUS_MCEERR_AO));
            assert_eq!(calls(), 3);
        },
        ends: Ends::Well,
    },
    Case {
        name: "a handler that gives up, for a signal that was sent: the guard stays",
        before: || set(gives_up as *const () as usize, 0, false),
        then: || {
            raise_sigbus(BUS_MCEERR_AO);
            assert_eq!(calls(), 1);
            gone();
        },
        ends: Ends::Well,
    },
    Case {
        name: "a handler that gives up, for an access",
        before: || set(gives_up as *const () as usize, 0, false),
        then: fault_elsewhere,
        ends: Ends::BySigbus,
    },
    Case {
        name: "a library puts back what it had found: the next region is guarded again",
        before: || set(plain as *const () as usize, 0, false),
        then: || {
            set(plain as *const () as usize, 0, false);
            gone();
            raise_sigbus(BUS_MCEERR_AO);
            assert_eq!(calls(), 1, "once, however often the guard was installed");
            set(libc::SIG_DFL, 0, false);
            gone();
            assert!(daxmap::cpu::guard_faults());
        },
        ends: Ends::Well,
    },
    Case {
        name: "a handler over the guard that passes on to it, with a guard over that",
        before: || set(plain as *const () as usize, 0, false),
        then: || {
            GUARD.store(handler(), SeqCst);
            set(passes_on as *const () as usize, libc::SA_SIGINFO, false);
            gone();
            for round in 1..4 {
                raise_sigbus(BUS_MCEERR_AO);
                assert_eq!((PASSED_ON.load(SeqCst), calls()), (round, round), "each once");
            }
        },
        ends: Ends::Well,
    },
];

/// A region that was cut reports it.
fn gone() {
    let directory = pmem_tests::scratch::Directory::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.path().join("cut");
    let region = Options::new().len(1 << 16).create(&path).expect("a region");
    std::fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    let error = region.read(8192, &mut [0; 64]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Gone), "{error}");
}

const VARIABLE: &str = "DAXMAP_SIGBUS_CASE";

/// Not a test of its own: with the variable set it is the process of a case.
#[test]
fn process_of_a_case() {
    let Ok(name) = std::env::var(VARIABLE) else { return };
    let case = CASES.iter().find(|case| case.name == name).expect("a case");
    (case.before)();
    gone();
    (case.then)();
}

#[test]
fn what_is_none_of_the_librarys_goes_where_it_went_before() {
    for case in &CASES {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process_of_a_case"])
            .env(VARIABLE, case.name)
            .output()
            .expect("the test program runs");
        let ends = match (status.status.success(), status.status.signal()) {
            (true, _) => Ends::Well,
            (_, Some(libc::SIGBUS)) => Ends::BySigbus,
            _ => panic!("{}: {}", case.name, String::from_utf8_lossy(&status.stdout)),
        };
        assert_eq!(ends, case.ends, "{}", case.name);
    }
}

/// The address of the handler of SIGBUS.
fn handler() -> libc::sighandler_t {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: sigaction(2) only reads the disposition here, into memory for it.
    let now = unsafe {
        assert_eq!(libc::sigaction(libc::SIGBUS, std::ptr::null(), now.as_mut_ptr()), 0);
        now.assume_init()
    };
    now.sa_sigaction
}

/// Not a test of its own: the process of the next one.
#[test]
fn process_without_the_guard() {
    if std::env::var_os("DAXMAP_WITHOUT_GUARD").is_none() {
        return;
    }
    let before = handler();
    let directory = pmem_tests::scratch::Directory::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.path().join("region");
    let options = Options::new().len(1 << 16).lock(false).fault_guard(false);
    let region = options.create(&path).expect("a region");
    let reader = options.clone().read_only(true).open(&path).expect("a region to read");
    let memory = options.in_memory().expect("a region in memory");
    for region in [&region, &reader, &memory] {
        region.read(100, &mut [0; 64]).expect("it can be read");
        assert_eq!(handler(), before);
    }
    options.clone().fault_guard(true).in_memory().expect("a region in memory");
    assert_ne!(handler(), before, "the guard can be seen");
}

#[test]
fn a_program_that_declines_the_guard_keeps_its_handler() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process_without_the_guard", "--nocapture"])
        .env("DAXMAP_WITHOUT_GUARD", "yes")
        .output()
        .expect("the test program runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let ran = output.status.success() && said.contains("1 passed");
    assert!(ran, "{said}{}", String::from_utf8_lossy(&output.stderr));
}
