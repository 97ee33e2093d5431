//! Filesystems of a test's own: made in image files, mounted through loop devices in a mount
//! namespace of the test's thread, so that nothing of them outlives the test, panic or not.
//!
//! # Safety
//!
//! The danger here is system calls without a safe form: one changes the calling thread's view of the
//! mounts and nothing else, one makes a descriptor, and one looks at a mapping that is made for it.
#![allow(unsafe_code)]
#![allow(dead_code)] // each test program uses its part

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Loop devices are few and shared by the whole machine.
static LOOPS: Mutex<()> = Mutex::new(());

/// A directory on the disk that holds the build, removed in the end.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("scratch-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a test in a mount namespace of its own, with a scratch directory.
pub fn with_mounts(test: impl FnOnce(&Path) + Send) {
    pmem_tests::unprivileged::need_root();
    let _turn = LOOPS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let scratch = Scratch::new();
    let result = std::thread::scope(|scope| {
        let body = || {
            // SAFETY: unshare takes no pointer. CLONE_NEWNS gives this thread its own mounts, root
            // and working directory, and nothing that other threads rely on is taken from them.
            let answer = unsafe { libc::unshare(libc::CLONE_NEWNS) };
            assert_eq!(
                answer,
                0,
                "this test mounts filesystems: run it as root (CAP_SYS_ADMIN); {}",
                std::io::Error::last_os_error()
            );
            run("mount", &["--make-rprivate", "/"]);
            test(scratch.path());
        };
        scope.spawn(body).join()
    });
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a program and fails the test with its words if it fails.
pub fn run(program: &str, args: &[&str]) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program)
        .args(args)
        .env("PATH", path)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed (see ci/packages): {error}"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes a filesystem in an image and mounts it on a directory of that name.
pub fn mounted(at: &Path, name: &str, mkfs: &[&str], options: &str) -> PathBuf {
    let image = image(at, name, mkfs);
    let point = at.join(name);
    std::fs::create_dir(&point).unwrap();
    let kind = mkfs[0].trim_start_matches("mkfs.");
    let mut all = format!("loop{}", pmem_tests::scratch::kept(kind));
    if !options.is_empty() {
        all = format!("{all},{options}");
    }
    let [image, mount_point] = [&image, &point].map(|path| path.to_str().unwrap());
    run("mount", &["-t", kind, "-o", &all, image, mount_point]);
    point
}

/// An image of 320 MiB, the least that mkfs.xfs takes, with a filesystem in it. All of it is
/// allocated.
pub fn image(at: &Path, name: &str, mkfs: &[&str]) -> PathBuf {
    let image = at.join(format!("{name}.image"));
    File::create(&image).unwrap().set_len(320 << 20).unwrap();
    let mut args = mkfs[1..].to_vec();
    args.push(image.to_str().unwrap());
    run(mkfs[0], &args);
    pmem_tests::scratch::allocate(&image);
    image
}

/// `F_SETSIG` (include/uapi/asm-generic/fcntl.h), which the crate libc lacks.
const F_SETSIG: i32 = 10;

/// Takes a lease for writing on a file that nobody else has open; a break would be told by a signal
/// that is ignored.
pub fn take_lease(file: &File) {
    // SAFETY: fcntl with numbers.
    let answer = unsafe {
        libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG);
        libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK)
    };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
}

/// Whether that lease is still there, and nobody has asked for it to be given up.
pub fn has_lease(file: &File) -> bool {
    // SAFETY: fcntl with numbers.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLEASE) == libc::F_WRLCK }
}

/// How many pages of the file are in the page cache.
pub fn cached_pages(file: &File) -> usize {
    let len = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let mut pages = vec![0_u8; len.div_ceil(4096)];
    // SAFETY: a mapping that the kernel places, asked for and removed here, and a buffer of one byte
    // for each of its pages, which are at least 4096 bytes.
    unsafe {
        let fd = file.as_raw_fd();
        let at = libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        assert_eq!(libc::mincore(at, len, pages.as_mut_ptr()), 0);
        libc::munmap(at, len);
    }
    pages.iter().filter(|page| **page & 1 == 1).count()
}

/// An anonymous file in memory.
pub fn memfd() -> OwnedFd {
    // SAFETY: the name is a terminated string that outlives the call.
    let fd = unsafe { libc::memfd_create(c"probe".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the call just made this descriptor, and nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
