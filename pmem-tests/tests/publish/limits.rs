//! Limits of the process (setrlimit(2)): an error of whatever meets them, never a signal.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use daxmap::publish::{Commit, replace};
use daxmap::{AnyRegion, ErrorKind, Growth, Options, Region, Result};
use pmem_tests::scratch::Directory;

use crate::{HERE, names};

pub(crate) const CHILD: &str = "DAXMAP_PUBLISH_CHILD";

/// Runs one of the tests below in a process of its own, in a directory.
pub(crate) fn in_a_child(test: &str, directory: &Path) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(CHILD, directory)
        // No memory of the C library's own in reserve: what is not left is not there.
        .env("MALLOC_ARENA_MAX", "1")
        .env("MALLOC_MMAP_THRESHOLD_", "65536")
        .env("MALLOC_TRIM_THRESHOLD_", "65536")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{:?} {said} {errors}",
        child.status
    );
}

/// Not a test of its own: with the variable set it is the process of the next one.
#[test]
#[allow(unsafe_code)]
fn process_with_small_files() {
    const LIMIT: u64 = 1 << 20;
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let path = |name: &str| Path::new(&directory).join(name);
    let options = Options::new();
    drop(options.clone().len(4 * LIMIT).create(path("large")).unwrap());
    let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
    // SAFETY: reads a structure; the limit is this process's own.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
    let region = options.clone().len(LIMIT).create(path("fits")).unwrap();
    region.write_persist(LIMIT - 4, b"last").unwrap();
    let refused = [
        region.grow(LIMIT + 1),
        options.clone().len(LIMIT + 1).create(path("new")).map(drop),
        options.clone().len(LIMIT + 1).draft(path("new")).map(drop),
        options.open(path("large")).map(drop),
        replace(path("new"), vec![1; LIMIT as usize + 1]).map(drop),
    ];
    for result in refused {
        let error = result.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG), "{error}");
        assert!(error.to_string().contains("ulimit -f"), "{error}");
    }
    region.write_persist(0, b"goes on").unwrap();
    assert_eq!(region.len(), LIMIT);
    options.read_only(true).open(path("large")).unwrap();
    assert_eq!(names(Path::new(&directory)), ["fits", "large"]);
}

/// `ulimit -f`: an error, where the kernel would end the process with SIGXFSZ.
#[test]
fn a_limit_on_file_sizes_is_an_error() {
    let directory = Directory::new(HERE);
    in_a_child("limits::process_with_small_files", directory.path());
}

/// Leaves the process so many bytes of address space besides what it has.
#[allow(unsafe_code)]
fn leave_address_space(bytes: u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let kibibytes: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
    let limit = libc::rlimit { rlim_cur: (kibibytes << 10) + bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: reads a structure; the limit is this process's own.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
}

static REFUSED: AtomicU64 = AtomicU64::new(0);

/// `ENOMEM`, or all is well.
fn told<T>(what: &str, space: u64, result: Result<T>) -> Option<T> {
    match result {
        Ok(done) => Some(done),
        Err(error) => {
            let memory = error.raw_os_error() == Some(libc::ENOMEM)
                // Of a region that has its address space already: there is no more to be had.
                || matches!(error.kind(), ErrorKind::TooLarge { .. });
            assert!(memory, "{what} with {space} bytes: {error}");
            REFUSED.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// Not a test of its own: with the variable set it is the process of the next one.
#[test]
fn process_with_little_address_space() {
    const LARGE: u64 = 64 << 20;
    /// With a mapping of it, not even a buffer of a megabyte is left of two.
    const MIDDLE: u64 = 3 << 19;
    const SMALL: u64 = 64 << 10;
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let path = |name: &str| Path::new(&directory).join(name);
    let options = Options::new();
    let len = |bytes| options.clone().len(bytes);
    drop(len(LARGE).create(path("large")).unwrap());
    drop(len(SMALL).create(path("small")).unwrap());
    let bytes = vec![7; 4 << 20];
    let all = |space| {
        let use_it = |region: &AnyRegion| {
            region.write(0, &bytes[..9000]).unwrap();
            region.fill_flush(1, region.len().min(MIDDLE) - 2, 3).unwrap();
            region.drain().unwrap();
            let before = region.len();
            for to in [before + 1, before + SMALL, before + LARGE] {
                if told("grow", space, region.grow(to)).is_none() {
                    assert!(region.len() < to);
                }
            }
            let _ = region.shrink(before);
        };
        for growth in [Growth::Zeroed, Growth::Allocated] {
            for (name, file) in [("small", path("small")), ("large", path("large"))] {
                let options = options.clone().growth(growth);
                if let Some(region) = told(name, space, options.open(&file)) {
                    use_it(&region);
                }
                if let Some(region) = told(name, space, options.clone().read_only(true).open(&file))
                {
                    let mut found = [0; 64];
                    region.read(0, &mut found).unwrap();
                }
                if let Some(view) = told(name, space, options.clone().view(4096).open(&file)) {
                    told("grow_to_file", space, view.grow_to_file());
                }
            }
        }
        for bytes in [SMALL, MIDDLE, LARGE] {
            if let Some(region) = told("create", space, len(bytes).create(path("new"))) {
                use_it(&region);
                drop(region);
                std::fs::remove_file(path("new")).unwrap();
            }
            assert!(!path("new").exists(), "an error leaves no file");
            if let Some(draft) = told("draft", space, len(bytes).draft(path("draft"))) {
                // Half of it is never written: the commit does.
                draft.write(0, b"text").unwrap();
                told("commit", space, draft.commit(Commit::Replace));
            }
            if let Some(region) = told("in memory", space, len(bytes).in_memory()) {
                region.write_persist(0, b"text").unwrap();
            }
        }
        told("replace", space, replace(path("whole"), &bytes));
        told("probe", space, daxmap::probe::probe(path("small")));
        let log = daxmap::log::LogOptions::new().region(Options::new().len(1 << 20));
        told("log", space, log.open_or_create(path("log")).and_then(daxmap::log::Log::close));
    };
    for space in [LARGE / 2, 8 << 20, 2 << 20, 640 << 10] {
        leave_address_space(space);
        all(space);
        assert!(REFUSED.swap(0, Ordering::Relaxed) > 0, "{space} bytes are enough for everything");
    }
}

/// `ulimit -v`: an error, where an allocation that fails would end the process.
#[test]
fn a_limit_on_address_space_is_an_error() {
    let directory = Directory::new(HERE);
    in_a_child("limits::process_with_little_address_space", directory.path());
}

/// Not a test of its own: with the variable set it is the process of the next one.
#[test]
#[allow(unsafe_code)]
fn process_whose_draft_cannot_be_mapped() {
    const LARGE: u64 = 64 << 20;
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let path = Path::new(&directory).join("file");
    let draft = Options::new().len(LARGE).draft(&path).unwrap();
    leave_address_space(8 << 20);
    draft.write(LARGE - 9000, &[7; 9000]).unwrap();
    let mut found = [9; 2];
    let mut check = |region: &AnyRegion| {
        region.read(LARGE - 9001, &mut found).unwrap();
        assert_eq!(found, [0, 7]);
        assert_eq!(region.load_u64(LARGE - 8).unwrap(), 0x0707_0707_0707_0707);
        // SAFETY: nobody writes meanwhile.
        let view = unsafe { region.slice(LARGE - 1, 1) }.map(|view| view[0]);
        (view, region.grow(LARGE + 1))
    };
    let refused = |(view, grown): (Result<u8>, Result<()>)| {
        for error in [view.unwrap_err(), grown.unwrap_err()] {
            assert_eq!(error.raw_os_error(), Some(libc::ENOMEM), "{error}");
            assert!(error.to_string().contains("mmap"), "{error}");
        }
    };
    refused(check(&draft));
    let region = draft.commit(Commit::Replace).unwrap();
    refused(check(&region));
    region.write_persist(0, b"text").unwrap();
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: reads a structure; the limit is this process's own.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    let (view, grown) = check(&region);
    assert_eq!(view.unwrap(), 7);
    grown.unwrap();
    assert_eq!(&std::fs::read(&path).unwrap()[..4], b"text");
}

/// What is read is what was written, and what needs a mapping is an error.
#[test]
fn a_draft_that_cannot_be_mapped_shows_what_was_written() {
    let directory = Directory::new(HERE);
    in_a_child("limits::process_whose_draft_cannot_be_mapped", directory.path());
}
