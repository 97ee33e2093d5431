//! What stands beside a region: another file with its number, a copy in its place, a longer file, a
//! forked child, a kernel that refuses. Nothing of it turns into wrong data.
//!
//! Needs root, for the mounts.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use daxmap::log::{LogOptions, Lsn};
use daxmap::{Backend, Durability, Emulation, Error, ErrorKind, Growth, Lock, Options, Region};
use pmem_tests::failing::with_failing;
use pmem_tests::scratch::{Directory, Filesystem};

const HERE: &str = env!("CARGO_TARGET_TMPDIR");

fn read(region: &impl Region, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    region.read(offset, &mut bytes).expect("it can be read");
    bytes
}

/// Runs `work` in a forked child, which ends without any destructor but those in `work`.
fn in_child(work: impl FnOnce() -> bool) {
    // SAFETY: the child runs `work` and ends. glibc keeps its allocator usable in a child (fork(3)).
    let child = unsafe { libc::fork() };
    if child == 0 {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!matches!(done, Ok(true)))) };
    }
    let mut status = 0;
    // SAFETY: waits for the child just made.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
}

fn is_unsupported(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported(_))
}

/// Ways to have a file on each backend.
fn on_each_backend(test: impl Fn(&Options, &Path)) {
    let here = Directory::new(HERE);
    test(&Options::new(), &here.path().join("page-cache"));
    let tmpfs = Filesystem::tmpfs(HERE, 64 << 20);
    test(&Options::new(), &tmpfs.path().join("volatile"));
    test(&Options::new().emulate(Emulation::Adr), &tmpfs.path().join("adr"));
    test(&Options::new().emulate(Emulation::Eadr), &tmpfs.path().join("eadr"));
}

/// Two branches of one union, each with a file of the same number.
#[test]
fn two_files_of_one_number_are_two_files() {
    let (one, other) = (Filesystem::tmpfs(HERE, 8 << 20), Filesystem::tmpfs(HERE, 8 << 20));
    let point = Directory::new(HERE);
    let make = |branch: &Filesystem, name: &str| {
        let path = branch.path().join(name);
        fs::write(&path, vec![0; 1 << 16]).unwrap();
        fs::metadata(path).unwrap().ino()
    };
    // tmpfs counts its files.
    for filler in 0..10 {
        make(&one, &format!("filler {filler}"));
    }
    let number = make(&one, "one");
    let mut tries = 0..100;
    while make(&other, "other") != number {
        fs::remove_file(other.path().join("other")).unwrap();
        tries.next().expect("a file of the same number");
    }
    let branches = format!("{}:{}", one.path().display(), other.path().display());
    let mounted = std::process::Command::new("mergerfs")
        .args(["-o", "use_ino,inodecalc=passthrough,cache.files=full", &branches])
        .arg(point.path())
        .status();
    assert!(mounted.expect("mergerfs runs").success());
    let _unmount = Unmount(point.path());
    let paths = ["one", "other"].map(|name| point.path().join(name));
    let numbers = paths.clone().map(|path| {
        let found = fs::metadata(path).unwrap();
        (found.dev(), found.ino())
    });
    assert_eq!(numbers[0], numbers[1], "the case needs two files of one number");
    let regions = paths.clone().map(|path| Options::new().lock(false).open(path).unwrap());
    regions[0].write(0, b"for one").unwrap();
    assert_eq!(read(&regions[1], 0, 7), [0; 7]);
    regions[1].drain().unwrap();
    regions[0].drain().unwrap();
    assert_eq!(&fs::read(&paths[0]).unwrap()[..7], b"for one");
    assert_eq!(fs::read(&paths[1]).unwrap()[..7], [0; 7]);
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0).status();
    }
}

/// An overlay over a file of its lower layer.
fn overlay_over(bytes: &[u8], test: impl FnOnce(&Path)) {
    let below = Filesystem::looped(HERE, "ext4", 64 << 20);
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| {
        let path = below.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    });
    fs::write(lower.join("file"), bytes).unwrap();
    let point = Directory::new(HERE);
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let mounted = std::process::Command::new("mount")
        .args(["-t", "overlay", "none", "-o", &layers])
        .arg(point.path())
        .status();
    assert!(mounted.expect("mount runs").success());
    let _unmount = Unmount(point.path());
    test(&point.path().join("file"));
}

#[test]
fn a_reader_follows_the_copy_that_a_writer_makes_of_an_overlays_file() {
    overlay_over(&vec![1; 1 << 16], |path| {
        let reader = Options::new().read_only(true).open(path).unwrap();
        // SAFETY: nobody changes these bytes while the view lives.
        assert_eq!(unsafe { reader.slice(0, 8) }.unwrap(), [1; 8]);
        let writer = Options::new().open(path).unwrap();
        for round in 2..10 {
            writer.write(0, &[round; 100]).unwrap();
            assert_eq!(read(&reader, 0, 100), [round; 100], "at once");
            assert_eq!(reader.load_u64(0).unwrap(), u64::from_ne_bytes([round; 8]));
            writer.drain().unwrap();
            assert_eq!(read(&reader, 0, 100), [round; 100], "after a drain");
        }
        // SAFETY: as above.
        let view = unsafe { reader.slice(0, 8) };
        assert!(is_unsupported(&view.unwrap_err()), "a view would be of the old file");
    });
}

#[test]
fn a_follower_sees_the_records_of_a_writer_that_copies_an_overlays_log() {
    let made = Directory::new(HERE);
    let options = LogOptions::new().region(Options::new().len(1 << 20));
    options.create(made.path().join("log")).unwrap().close().unwrap();
    overlay_over(&fs::read(made.path().join("log")).unwrap(), |path| {
        let mut follower = daxmap::log::LogReader::open(path, Lsn::ZERO).unwrap();
        let log = options.open(path).unwrap();
        for record in 0..20_u8 {
            log.append(&[record; 50]).unwrap();
            let next = follower.next_record().unwrap().expect("an acknowledged record");
            assert_eq!(next.payload, [record; 50]);
        }
    });
}

#[test]
fn what_lies_behind_a_region_is_never_zeroed() {
    on_each_backend(|options, path| {
        let region = options.clone().len(16 << 10).create(path).unwrap();
        region.write_persist(9000, b"kept").unwrap();
        region.close().unwrap();
        drop(region);
        // As long as the file, whatever length a creation would have had.
        let region = options.clone().len(8192).open_or_create(path).unwrap();
        assert_eq!(region.len(), 16 << 10);
        region.grow(16 << 10).unwrap();
        assert_eq!(read(&region, 9000, 4), b"kept");
        drop(region);
        let longer = options.clone().len(32 << 10).open_or_create(path).unwrap_err();
        assert!(matches!(longer.kind(), ErrorKind::TooShort { .. }), "{longer}");

        let view = options.clone().view(8192).open(path).unwrap();
        assert_eq!(view.len(), 8192);
        for len in [8193, 16 << 10, 64 << 10] {
            let error = view.grow(len).unwrap_err();
            let ErrorKind::FileLonger { file, region } = *error.kind() else { panic!("{error}") };
            assert_eq!((file, region), (16 << 10, 8192));
        }
        assert_eq!(view.len(), 8192);
        assert_eq!(view.grow_to_file().unwrap(), 16 << 10);
        assert_eq!(read(&view, 9000, 4), b"kept");
        view.grow(64 << 10).unwrap();
        assert_eq!(view.grow_to_file().unwrap(), 64 << 10);
        view.write_persist(60 << 10, b"grown").unwrap();
        let stored = fs::read(path).unwrap();
        assert_eq!((&stored[9000..9004], stored.len()), (&b"kept"[..], 64 << 10));
    });
}

/// A region may have no bytes: made so, shrunk to that, opened so.
#[test]
fn a_region_of_no_bytes_is_one() {
    on_each_backend(|options, path| {
        let check = |region: &daxmap::AnyRegion| {
            assert!(region.is_empty() && region.len() == 0);
            region.write(0, b"").unwrap();
            region.persist(0, 0).unwrap();
            region.sync_all().unwrap();
            // SAFETY: no bytes.
            assert!(unsafe { region.slice(0, 0) }.unwrap().is_empty());
            let past = region.write(0, b"x").unwrap_err();
            assert!(matches!(past.kind(), ErrorKind::OutOfBounds { len: 0 }), "{past}");
            assert!(region.load_u64(0).is_err());
        };
        let region = options.clone().len(0).create(path).unwrap();
        check(&region);
        region.grow(10_000).unwrap();
        region.write_persist(9_000, b"here").unwrap();
        region.shrink(0).unwrap();
        check(&region);
        assert_eq!(fs::metadata(path).unwrap().len(), 0);
        region.close().unwrap();
        drop(region);
        let reader = options.clone().read_only(true).open(path).unwrap();
        assert!(reader.is_empty() && reader.read(0, &mut [0]).is_err());
        let region = options.open(path).unwrap();
        check(&region);
        region.grow(10_000).unwrap();
        assert_eq!(read(&region, 9_000, 4), [0; 4], "what was cut off does not come back");
        region.write_persist(0, b"again").unwrap();
    });
}

#[test]
fn locks_of_each_kind() {
    let here = Directory::new(HERE);
    let path = here.path().join("file");
    drop(Options::new().len(4096).lock(Lock::Shared).create(&path).unwrap());
    let is_locked = |result: daxmap::Result<daxmap::AnyRegion>| {
        result.is_err_and(|error| matches!(error.kind(), ErrorKind::Locked))
    };
    let open = |lock: Lock, read_only| Options::new().lock(lock).read_only(read_only).open(&path);
    let shared = open(Lock::Shared, false).unwrap();
    let reader = open(Lock::Shared, true).unwrap();
    assert!(is_locked(open(Lock::Exclusive, false)) && is_locked(open(Lock::Exclusive, true)));
    assert!(is_locked(Options::new().open(&path)), "exclusive is the default of a writer");
    drop(open(Lock::None, false).unwrap());
    drop(Options::new().read_only(true).open(&path).unwrap());
    drop((shared, reader));
    let exclusive = open(Lock::Exclusive, false).unwrap();
    assert!(is_locked(open(Lock::Shared, true)));
    let waits = Options::new().lock_timeout(std::time::Duration::from_secs(60));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| waits.open(&path).map(drop));
        std::thread::sleep(std::time::Duration::from_millis(20));
        drop(exclusive);
        waiting.join().unwrap().expect("it waits for the other");
    });
    // A lock that is asked for outlives the creation.
    let made = Options::new().len(4096).lock(Lock::Shared).create(here.path().join("new")).unwrap();
    let beside = |lock| Options::new().lock(lock).open(made.path());
    assert!(beside(Lock::Shared).is_ok() && is_locked(beside(Lock::Exclusive)));
}

#[test]
fn a_region_of_an_open_file() {
    use std::os::fd::AsRawFd;

    on_each_backend(|options, path| {
        drop(options.clone().len(1 << 16).create(path).unwrap());
        let open = |open: &mut fs::OpenOptions| open.open(path).unwrap();
        let file = open(File::options().read(true).write(true));
        let number = file.as_raw_fd();
        let region = options.from_file(file).unwrap();
        assert_eq!((region.as_raw_fd(), region.len()), (number, 1 << 16));
        assert_eq!(region.path(), path.canonicalize().unwrap());
        let locked = options.open(path).unwrap_err();
        assert!(matches!(locked.kind(), ErrorKind::Locked), "{locked}");
        region.write_persist(5, b"through the file").unwrap();
        region.grow(1 << 17).unwrap();
        drop(region);
        let reader = options.clone().read_only(true);
        let reader = reader.from_file(open(File::options().read(true))).unwrap();
        assert_eq!(read(&reader, 5, 16), b"through the file");
        let error = options.from_file(open(File::options().read(true))).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ReadOnly), "{error}");
        let error = options.from_file(open(File::options().read(true).append(true))).unwrap_err();
        assert!(is_unsupported(&error), "{error}");
        let error = options.from_file(open(File::options().write(true))).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
        let directory = File::open(path.parent().unwrap()).unwrap();
        let error = options.clone().read_only(true).from_file(directory).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WrongFileType(_)), "{error}");
    });
}

#[test]
fn parts_are_written_as_one_and_a_file_that_is_not_gathered_has_them_at_once() {
    use std::io::IoSlice;

    on_each_backend(|options, path| {
        let region = options.clone().len(1 << 16).gather(false).create(path).unwrap();
        let large = vec![3; 20_000];
        let parts = [&b"one"[..], b"", b"two", &large];
        region.write_vectored(10, &parts.map(IoSlice::new)).unwrap();
        assert_eq!(fs::read(path).unwrap()[10..20_016], parts.concat());
        let past = region.write_vectored((1 << 16) - 5, &parts.map(IoSlice::new)).unwrap_err();
        assert!(matches!(past.kind(), ErrorKind::OutOfBounds { .. }), "{past}");
        assert_eq!(past.path(), Some(path));
        assert_eq!(fs::read(path).unwrap()[(1 << 16) - 5..], [0; 5], "nothing of it");
        assert_eq!(region.drain_blocks(), region.backend() == Backend::PageCache);
    });
}

#[test]
fn allocated_growth_has_its_space_and_is_zero() {
    on_each_backend(|options, path| {
        let region = options.clone().len(4096).growth(Growth::Allocated).create(path).unwrap();
        region.grow(8 << 20).unwrap();
        assert!(fs::metadata(path).unwrap().blocks() * 512 >= 8 << 20);
        assert!(read(&region, 0, 8 << 20).iter().all(|&byte| byte == 0));
        region.write_persist(7 << 20, b"written").unwrap();
        assert_eq!(read(&region, 7 << 20, 7), b"written");
    });
    let disk = Filesystem::looped(HERE, "ext4", 32 << 20);
    let path = disk.path().join("file");
    let region = Options::new().len(4096).growth(Growth::Allocated).create(&path).unwrap();
    let error = region.grow(64 << 20).unwrap_err();
    assert_eq!((error.raw_os_error(), region.len()), (Some(libc::ENOSPC), 4096));
    assert_eq!(fs::metadata(&path).unwrap().len(), 4096);
}

#[test]
fn structures_open_whatever_length_their_file_has() {
    let here = Directory::new(HERE);
    let (log, longer, shorter) = (here.path().join("log"), 4 << 20, 1 << 16);
    let sized = |len| LogOptions::new().segment_bytes(64 << 10).region(Options::new().len(len));
    sized(1 << 20).create(&log).unwrap().append(b"a record").unwrap();
    for len in [longer, shorter, 1 << 20] {
        let log = sized(len).open_or_create(&log).unwrap();
        assert_eq!(log.region().len(), 1 << 20);
        log.close().unwrap();
    }
    let path = here.path().join("checkpoint");
    let options = || daxmap::checkpoint::Options::new(1 << 16);
    drop(options().open_or_create(&path).unwrap());
    for len in [longer, 1] {
        drop(options().region(Options::new().len(len)).open_or_create(&path).unwrap());
    }
}

#[test]
fn a_child_changes_neither_the_length_nor_what_it_drops() {
    on_each_backend(|options, path| {
        let region = options.clone().len(1 << 20).create(path).unwrap();
        region.write(100, b"the parent's").unwrap();
        in_child(|| {
            let refused = [region.grow(2 << 20), region.grow_to_file().map(drop)];
            refused.iter().all(|result| result.as_ref().is_err_and(is_unsupported))
        });
        assert_eq!(fs::metadata(path).unwrap().len(), 1 << 20);
        let owned = std::mem::ManuallyDrop::new(region);
        in_child(|| {
            // SAFETY: the parent has a copy of its own, and drops that.
            drop(unsafe { std::ptr::read(&raw const *owned) });
            true
        });
        let region = std::mem::ManuallyDrop::into_inner(owned);
        let second = options.open(path).unwrap_err();
        assert!(matches!(second.kind(), ErrorKind::Locked), "the lock is the parent's: {second}");
        region.grow(2 << 20).unwrap();
        region.persist(100, 12).unwrap();
        assert_eq!(&fs::read(path).unwrap()[100..112], b"the parent's");
    });
}

#[test]
fn a_child_that_drops_a_log_leaves_it_open() {
    on_each_backend(|options, path| {
        let options = LogOptions::new().region(options.clone().len(1 << 20));
        let log = options.create(path).unwrap();
        log.append(b"first").unwrap();
        let before = fs::read(path).unwrap();
        let owned = std::mem::ManuallyDrop::new(log);
        in_child(|| {
            // SAFETY: the parent has a copy of its own, and drops that.
            let log = unsafe { std::ptr::read(&raw const *owned) };
            let mut writer = log.writer();
            let _ = writer.stage(b"never");
            drop(writer);
            drop(log);
            true
        });
        in_child(|| {
            // SAFETY: as above.
            is_unsupported(&unsafe { std::ptr::read(&raw const *owned) }.close().unwrap_err())
        });
        assert!(fs::read(path).unwrap() == before, "{}", path.display());
        let log = std::mem::ManuallyDrop::into_inner(owned);
        assert_eq!(log.append(b"second").unwrap(), Lsn::new(2));
        log.close().unwrap();
    });
}

#[test]
fn hugetlbfs_is_refused_in_one_sentence_and_the_probe_says_the_same() {
    let point = Directory::new(HERE);
    let mounted = std::process::Command::new("mount")
        .args(["-t", "hugetlbfs", "none"])
        .arg(point.path())
        .status();
    assert!(mounted.expect("mount runs").success());
    let _unmount = Unmount(point.path());
    let path = point.path().join("file");
    File::create(&path).unwrap().set_len(2 << 20).unwrap();
    let maps = || fs::read_to_string("/proc/self/maps").unwrap().contains(&*path.to_string_lossy());
    for options in [
        Options::new(),
        Options::new().view(64 << 10),
        Options::new().read_only(true),
        Options::new().view(64 << 10).read_only(true),
    ] {
        let error = options.open(&path).unwrap_err();
        assert!(is_unsupported(&error) && error.to_string().contains("hugetlbfs"), "{error}");
        assert!(!maps(), "nothing of it is mapped");
    }
    let new = point.path().join("new");
    let error = Options::new().len(64 << 10).create(&new).unwrap_err();
    assert!(is_unsupported(&error) && !new.exists(), "{error}");
    let error = Options::new().len(64 << 10).draft(&new).map(drop).unwrap_err();
    assert!(is_unsupported(&error), "{error}");
    let report = daxmap::probe::probe(&path).unwrap();
    assert!(report.reasons.iter().any(|reason| reason.text.contains("huge pages")));
}

/// A write that the disk has no room for is final, be it small or large.
#[test]
fn a_full_disk_says_the_same_for_every_size_of_write() {
    let disk = Filesystem::looped(HERE, "ext4", 32 << 20);
    let path = disk.path().join("sparse");
    File::create(&path).unwrap().set_len(16 << 20).unwrap();
    let fill = File::create(disk.path().join("fill")).unwrap();
    let mut at = 0;
    for piece in [1 << 20, 4096, 512] {
        while fill.write_at(&vec![1; piece], at).is_ok_and(|wrote| wrote == piece) {
            at += piece as u64;
        }
    }
    fill.sync_all().unwrap();
    for size in [8, 4096, 16 << 10, (16 << 10) + 1, 1 << 20] {
        let region = Options::new().open(&path).unwrap();
        let wrote = region.write(4 << 20, &vec![2; size]).and_then(|()| region.drain());
        assert_eq!(wrote.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        for after in [region.write(0, b"x"), region.drain(), region.flush(0, 1)] {
            assert!(after.unwrap_err().is_failed(), "{size} bytes");
        }
    }
}

#[test]
fn without_membarrier_each_writer_fences_and_a_late_refusal_is_an_error() {
    let tmpfs = Filesystem::tmpfs(HERE, 16 << 20);
    let options = Options::new().len(1 << 16).emulate(Emulation::Adr);
    let fences = |region: &dyn Region| {
        let before = daxmap::cpu::counts();
        region.write_flush(0, &[1; 64]).unwrap();
        region.write_stream(4096, &[1; 64]).unwrap();
        region.fill_flush(8192, 64, 1).unwrap();
        region.flush(0, 64).unwrap();
        daxmap::cpu::counts().since(before).fences
    };
    let region = options.create(tmpfs.path().join("with")).unwrap();
    assert_eq!(fences(&region), if cfg!(target_arch = "x86_64") { 0 } else { 4 });
    region.sync_all().unwrap();
    for errno in [libc::ENOSYS, libc::EPERM] {
        with_failing(libc::SYS_membarrier, errno, || {
            let path = tmpfs.path().join(format!("without-{errno}"));
            let without = options.create(path).unwrap();
            assert_eq!(fences(&without), 4, "each call has its own");
            without.sync_all().unwrap();
            if cfg!(target_arch = "x86_64") {
                let refused = region.sync_all().unwrap_err();
                assert_eq!(refused.raw_os_error(), Some(errno));
                assert!(!refused.is_failed() && region.drain().is_ok(), "{refused}");
            }
        });
    }
}

/// Pages that another process has mapped stay cached at an opening.
#[test]
fn who_cannot_know_what_the_medium_holds_says_so() {
    let disk = Filesystem::looped(HERE, "ext4", 32 << 20);
    let path = disk.path().join("file");
    let made = Options::new().len(1 << 20).create(&path).unwrap();
    assert!(made.shows_medium());
    let level = made.durability();
    drop(made);
    let file = File::open(&path).unwrap();
    // SAFETY: a mapping of a file that nobody cuts.
    let other = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    assert_eq!(other.iter().map(|&byte| u32::from(byte)).sum::<u32>(), 0);
    let unlocked = Options::new().lock(false).open(&path).unwrap();
    assert!(!unlocked.shows_medium());
    assert_eq!(unlocked.durability(), level.min(Durability::Unverified));
    assert!(unlocked.report().reasons.iter().any(|reason| reason.text.contains("stay cached")));
    drop(unlocked);
    let reader = Options::new().read_only(true).open(&path).unwrap();
    assert!(!reader.shows_medium());
    // The lock's holder has them written once more, and whoever comes beside it trusts it.
    let locked = Options::new().open(&path).unwrap();
    assert!(locked.shows_medium() && locked.durability() == level);
    assert!(Options::new().lock(false).open(&path).unwrap().durability() == level);
    drop((locked, reader, other));
    let reader = Options::new().read_only(true).open(&path).unwrap();
    assert_eq!(reader.backend(), Backend::PageCache);
}
