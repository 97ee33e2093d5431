//! A bad environment gives one clear error, the process lives, and nothing on disk changes.
//! Here: full disks, read-only mounts, failing system calls, other processes.

mod refused;
mod together;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use daxmap::log::LogOptions;
use daxmap::{AnyRegion, Error, ErrorKind, Options, Region, Result};
use pmem_tests::failing::{with_failing, with_failing_bits};
use pmem_tests::scratch::{Directory, Filesystem};
use pmem_tests::snapshot::Snapshot;

const HERE: &str = env!("CARGO_TARGET_TMPDIR");
const MIB: u64 = 1 << 20;

/// The filesystems whose space runs out, with a size that each accepts.
const KINDS: [(&str, u64); 4] =
    [("ext4", 24 * MIB), ("xfs", 300 * MIB), ("btrfs", 128 * MIB), ("tmpfs", 16 * MIB)];

fn small(kind: &str, bytes: u64) -> Filesystem {
    let filesystem = match kind {
        "tmpfs" => Filesystem::tmpfs(HERE, bytes),
        _ => Filesystem::looped(HERE, kind, bytes),
    };
    fs::write(filesystem.path().join("bystander"), b"untouched").expect("a file can be written");
    filesystem
}

/// Free bytes, once what was removed is given back.
#[allow(unsafe_code)]
fn free(path: &Path) -> u64 {
    let c_path = CString::new(path.as_os_str().as_bytes()).expect("a path without NUL");
    let directory = File::open(path).expect("a directory can be opened");
    // SAFETY: the path is a C string, the descriptor open, and statvfs a plain structure that
    // the kernel fills.
    unsafe {
        libc::syncfs(std::os::fd::AsRawFd::as_raw_fd(&directory));
        let mut found: libc::statvfs = std::mem::zeroed();
        assert_eq!(libc::statvfs(c_path.as_ptr(), &raw mut found), 0, "statvfs");
        found.f_bfree * found.f_frsize
    }
}

fn errno_of(error: &Error) -> Option<i32> {
    error.raw_os_error()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, path: &Path, errno: i32) -> Error {
    let error = result.expect_err("this must be refused");
    let message = error.to_string();
    assert_eq!(errno_of(&error), Some(errno), "{message}");
    assert!(message.contains(&format!("os error {errno}")), "no errno in: {message}");
    assert!(message.starts_with(error.operation().as_str()), "no operation in: {message}");
    assert!(message.contains(&*path.to_string_lossy()), "no path in: {message}");
    error
}

/// A filesystem may keep a little of its own: an extent block, btrfs a chunk of metadata.
#[track_caller]
fn is_given_back(kind: &str, before: u64, now: u64) {
    let kept = if kind == "btrfs" { MIB } else { 16 << 10 };
    let lost = before.saturating_sub(now);
    assert!(lost <= kept, "{kind}: {lost} bytes did not come back");
}

#[test]
fn full_disk_at_creation() {
    for (kind, bytes) in KINDS {
        let disk = small(kind, bytes);
        let path = disk.path().join("new");
        let (before, free_before) = (Snapshot::of(disk.path()), free(disk.path()));
        for len in [bytes, 2 * bytes, 1 << 40] {
            let created = Options::new().len(len).create(&path);
            let error = created.expect_err("there is no room");
            // ext4 has an upper limit of its own.
            let errno = errno_of(&error).unwrap_or(0);
            assert!([libc::ENOSPC, libc::EFBIG].contains(&errno), "{kind}: {error}");
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{kind}: {error}");
            before.assert_unchanged(disk.path(), kind);
        }
        is_given_back(kind, free_before, free(disk.path()));
        let region = Options::new().len(MIB).create(&path).expect("a small region has room");
        region.write_persist(0, b"fits").expect("the region can be written");
    }
}

#[test]
fn full_disk_at_growth() {
    for (kind, bytes) in KINDS {
        let disk = small(kind, bytes);
        let path = disk.path().join("region");
        let region = Options::new().len(MIB).create(&path).expect("a small region has room");
        region.fill_flush(0, MIB, 0x5A).and_then(|()| region.drain()).expect("written");
        let (before, free_before) = (Snapshot::of(disk.path()), free(disk.path()));
        let error = refused(region.grow(bytes + MIB), &path, libc::ENOSPC);
        assert_eq!(error.range(), Some(MIB..bytes + MIB), "{error}");
        assert!(!error.is_durability_unknown(), "{kind}: {error}");
        assert_eq!(region.len(), MIB);
        before.assert_unchanged(disk.path(), kind);
        is_given_back(kind, free_before, free(disk.path()));
        region.write_persist(MIB - 4, b"goes").expect("the region goes on");
        region.grow(2 * MIB).expect("a smaller growth has room");
        region.write_persist(MIB, b"on").expect("the new bytes can be written");
    }
}

/// A region may be the first part of a longer file, whose rest no growth touches, and no failed one.
#[test]
fn full_disk_at_growth_of_the_first_part_of_a_file() {
    for (kind, bytes) in KINDS {
        let disk = small(kind, bytes);
        let path = disk.path().join("region");
        fs::write(&path, vec![0x5A; 100_000]).expect("a file can be written");
        let region = Options::new().view(10_000).open(&path).expect("a file can be opened");
        assert_eq!(region.len(), 10_000);
        let before = Snapshot::of(disk.path());
        let error = region.grow(bytes + MIB).expect_err("the file has more than the region");
        assert!(matches!(error.kind(), ErrorKind::FileLonger { file: 100_000, region: 10_000 }));
        before.assert_unchanged(disk.path(), kind);
        assert_eq!(region.grow_to_file().expect("there is room in memory"), 100_000);
        refused(region.grow(bytes + MIB), &path, libc::ENOSPC);
        before.assert_unchanged(disk.path(), kind);
    }
}

/// Every system call of creation fails in turn.
#[test]
fn failing_calls_at_creation() {
    let calls = [
        (libc::SYS_fallocate, libc::ENOSPC, "fallocate"),
        (libc::SYS_fallocate, libc::EIO, "fallocate"),
        (libc::SYS_pwrite64, libc::ENOSPC, "pwrite"),
        (libc::SYS_pwrite64, libc::EIO, "pwrite"),
        (libc::SYS_fsync, libc::EIO, "fsync"),
        (libc::SYS_mmap, libc::ENOMEM, "mmap"),
        (libc::SYS_linkat, libc::EIO, "linkat"),
        (libc::SYS_flock, libc::ENOLCK, "flock"),
    ];
    let memory = Filesystem::tmpfs(HERE, 16 * MIB);
    let disk = Directory::new(HERE);
    for directory in [memory.path(), disk.path()] {
        let path = directory.join("new");
        let before = Snapshot::of(directory);
        let create = || Options::new().len(100_000).create(&path);
        for (number, errno, call) in calls {
            if call == "linkat" {
                // Whether a file can be linked is asked again then: an error is no answer.
                std::thread::sleep(Duration::from_millis(1100));
            }
            let error = refused(with_failing(number, errno, create), &path, errno);
            assert!(error.to_string().contains(call), "{call} is not named in: {error}");
            before.assert_unchanged(directory, call);
            // The same on a filesystem without unnamed files.
            if call != "linkat" {
                let created = without_unnamed_files(|| with_failing(number, errno, create));
                let error = refused(created, &path, errno);
                assert!(error.to_string().contains(call), "{call} is not named in: {error}");
                before.assert_unchanged(directory, call);
            }
        }
        let created =
            without_unnamed_files(|| with_failing(libc::SYS_renameat2, libc::EIO, create));
        refused(created, &path, libc::EIO);
        before.assert_unchanged(directory, "renameat2");
    }
    let path = memory.path().join("new");
    let before = Snapshot::of(memory.path());
    let create = || Options::new().len(100_000).create(&path);
    refused(with_failing(libc::SYS_madvise, libc::EFAULT, create), &path, libc::EFAULT);
    before.assert_unchanged(memory.path(), "madvise");
}

fn without_unnamed_files<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    // The bit that O_TMPFILE has and O_DIRECTORY has not.
    let bit = (libc::O_TMPFILE & !libc::O_DIRECTORY).unsigned_abs();
    with_failing_bits(libc::SYS_openat, 2, bit, libc::EOPNOTSUPP, work)
}

/// Creates a region by this name on a filesystem that lacks something.
type Without<'a> = &'a (dyn Fn(&str) -> Result<AnyRegion> + Sync);

/// Filesystems lack this or that; the file comes into being all the same, whole and alone.
#[test]
fn what_a_filesystem_may_lack() {
    let memory = Filesystem::tmpfs(HERE, 16 * MIB);
    let disk = Directory::new(HERE);
    for directory in [memory.path(), disk.path()] {
        let create = |name: &str| Options::new().len(100_000).create(directory.join(name));
        let ways: [(&str, Without<'_>); 5] = [
            ("everything", &create),
            ("O_TMPFILE", &|name| without_unnamed_files(|| create(name))),
            ("fallocate", &|name| {
                with_failing(libc::SYS_fallocate, libc::EOPNOTSUPP, || create(name))
            }),
            ("RENAME_NOREPLACE", &|name| {
                without_unnamed_files(|| {
                    with_failing(libc::SYS_renameat2, libc::EINVAL, || create(name))
                })
            }),
            ("MADV_POPULATE_WRITE", &|name| {
                with_failing(libc::SYS_madvise, libc::EINVAL, || create(name))
            }),
        ];
        for (lacks, create) in ways {
            let region = create(lacks).unwrap_or_else(|error| panic!("{lacks}: {error}"));
            assert_eq!(fs::read(directory.join(lacks)).expect("a file"), vec![0; 100_000]);
            region.write_persist(99_000, b"works").expect("the region can be written");
            refused(create(lacks), &directory.join(lacks), libc::EEXIST);
            drop(region);
            let region = Options::new().open(directory.join(lacks)).expect("a file");
            let mut found = [0; 5];
            region.read(99_000, &mut found).expect("the region can be read");
            assert_eq!(&found, b"works");
            drop(region);
            fs::remove_file(directory.join(lacks)).expect("a file can be removed");
            let left: Vec<_> = fs::read_dir(directory).expect("a directory").collect();
            assert!(left.is_empty(), "{lacks}: {left:?} is left");
        }
        // The longest name there is, where the draft needs a name too.
        let longest = "n".repeat(255);
        let created = without_unnamed_files(|| create(&longest));
        drop(created.expect("255 bytes are a name"));
        fs::remove_file(directory.join(&longest)).expect("a file can be removed");
    }
}

#[test]
fn read_only_filesystem() {
    let disk = small("ext4", 24 * MIB);
    let (old, new) = (disk.path().join("old"), disk.path().join("new"));
    let region = Options::new().len(8192).create(&old).expect("a region can be made");
    region.write_persist(0, b"readable").expect("the region can be written");
    drop(region);
    disk.remount(true);
    let before = Snapshot::of(disk.path());
    refused(Options::new().open(&old), &old, libc::EROFS);
    refused(Options::new().len(8192).create(&new), &new, libc::EROFS);
    refused(Options::new().len(8192).open_or_create(&new), &new, libc::EROFS);
    refused(Options::new().len(8192).create(&old), &old, libc::EEXIST);
    let region = Options::new().read_only(true).open(&old).expect("a reader is welcome");
    let mut found = [0; 8];
    region.read(0, &mut found).expect("the region can be read");
    assert_eq!(&found, b"readable");
    let error = region.write(0, b"x").expect_err("read-only");
    assert!(matches!(error.kind(), ErrorKind::ReadOnly), "{error}");
    drop(region);
    before.assert_unchanged(disk.path(), "a read-only filesystem");
}

#[test]
fn truncated_by_another_process() {
    let memory = Filesystem::tmpfs(HERE, 16 * MIB);
    let disk = Directory::new(HERE);
    for directory in [memory.path(), disk.path()] {
        let path = directory.join("region");
        let region = Options::new().len(65_536).create(&path).expect("a region can be made");
        region.fill_flush(0, 65_536, 1).and_then(|()| region.drain()).expect("written");
        let cut = Command::new("truncate").args(["-s", "4096"]).arg(&path).status();
        assert!(cut.is_ok_and(|status| status.success()), "truncate is needed for this test");
        let error = region.read(30_000, &mut [0; 100]).expect_err("the page is gone");
        assert!(matches!(error.kind(), ErrorKind::Gone), "{error}");
        let message = error.to_string();
        let told = message.starts_with("read ") && message.contains("[30000, 30100)");
        assert!(told && message.contains(&*path.to_string_lossy()), "{message}");
        assert_eq!(fs::metadata(&path).expect("a file").len(), 4096);
        // A write longer than what is gathered must not fill the hole with itself.
        let error = region.write(20_000, &vec![7; 20_000]).expect_err("the pages are gone");
        assert!(matches!(error.kind(), ErrorKind::Gone), "{error}");
        assert_eq!(fs::metadata(&path).expect("a file").len(), 4096);
        assert_eq!(region.load_u64(0).expect("the first page is left"), u64::MAX / 255);
    }
}

/// A growth must not fill the hole of a cut, where data was, with zeros.
#[test]
fn growth_of_a_cut_file() {
    let memory = Filesystem::tmpfs(HERE, 16 * MIB);
    let disk = Directory::new(HERE);
    for directory in [memory.path(), disk.path()] {
        let path = directory.join("region");
        let region = Options::new().len(65_536).create(&path).expect("a region can be made");
        File::options().write(true).open(&path).and_then(|file| file.set_len(4096)).expect("cut");
        let error = region.grow(131_072).expect_err("the file was cut");
        assert!(matches!(error.kind(), ErrorKind::Gone), "{error}");
        assert_eq!(fs::metadata(&path).expect("a file").len(), 4096);
        assert!(region.write(0, b"x").expect_err("it is final").is_failed());
    }
}

/// Whoever holds the lock may remove the file. Who has opened it meanwhile, and gets the lock when it
/// is given up, must not go on with a file that has no name.
#[test]
fn an_open_that_waits_at_the_lock_gets_the_file_that_has_the_name() {
    const LASTS: Duration = Duration::from_secs(2);
    let memory = Filesystem::tmpfs(HERE, 16 * MIB);
    let path = memory.path().join("region");
    let options = Options::new().len(4096);
    let began = std::time::Instant::now();
    let opened = std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0_u64.. {
                if began.elapsed() > LASTS {
                    break;
                }
                if let Ok(region) = options.open_or_create(&path) {
                    // Not each time, so that there is a file to open.
                    if turn.is_multiple_of(2) {
                        fs::remove_file(&path).expect("only who has the lock removes the file");
                    }
                    drop(region);
                }
            }
        });
        let mut opened = 0;
        while began.elapsed() < LASTS {
            if let Ok(region) = Options::new().open(&path) {
                let names = rustix::fs::fstat(&region).expect("fstat").st_nlink;
                assert_eq!(names, 1, "a region of a file without a name, after {opened}");
                opened += 1;
            }
        }
        opened
    });
    assert!(opened > 0, "no open met the file");
}

/// A failed sync is final for every region of the file, whoever asked for it; and not for one that
/// is opened afterwards, to recover.
#[test]
fn a_failed_sync_is_final_for_all_regions_and_no_longer() {
    let disk = Directory::new(HERE);
    let path = disk.path().join("region");
    let options = Options::new().len(65_536).lock(false);
    let regions: Vec<AnyRegion> = std::iter::once(options.create(&path))
        .chain((0..2).map(|_| options.open(&path)))
        .collect::<Result<_>>()
        .expect("three regions of one file");
    regions[1].write(0, b"lost").expect("write");
    let failed = with_failing(libc::SYS_fdatasync, libc::EIO, || regions[1].drain());
    assert_eq!(errno_of(&failed.expect_err("the sync fails")), Some(libc::EIO));
    for region in &regions {
        let error = region.write(0, b"after").expect_err("it is final");
        assert!(error.is_failed(), "{error}");
        assert!(region.drain().expect_err("it is final").is_failed());
    }
    let recovered = options.open(&path).expect("whoever opens now recovers");
    recovered.write_persist(0, b"after").expect("a new life of the file");
    assert!(regions[0].drain().expect_err("the old one is over").is_failed());
}

/// The last sync of a log: who closes it is told that it failed.
#[test]
fn a_log_whose_closing_fails_is_not_closed() {
    let directory = Directory::new(HERE);
    let path = directory.path().join("wal");
    let log = LogOptions::new().region(Options::new().len(MIB)).create(&path).unwrap();
    let lsn = log.append(b"durable").unwrap();
    let error =
        with_failing(libc::SYS_fdatasync, libc::EIO, || log.close().expect_err("the sync fails"));
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    assert!(error.is_durability_unknown(), "{error}");
    let log = LogOptions::new().open(&path).unwrap();
    assert_eq!(log.read(lsn).unwrap(), b"durable");
    log.close().unwrap();
    let log = LogOptions::new().open(&path).unwrap();
    assert!(log.recovery().was_closed);
}

/// A drain failed, and whoever had written was told. What was gathered must not reach the file by a
/// later view all the same, when the file is as long as before again.
#[test]
#[allow(unsafe_code)]
fn what_was_gathered_before_a_failure_is_forgotten() {
    let disk = Directory::new(HERE);
    let path = disk.path().join("region");
    let region = Options::new().len(65_536).create(&path).expect("a region can be made");
    region.write(0, b"lost").expect("gathered");
    let file = File::options().write(true).open(&path).expect("open");
    file.set_len(4096).expect("the file can be cut");
    let error = region.drain().expect_err("the file was cut");
    assert!(matches!(error.kind(), ErrorKind::Gone), "{error}");
    file.set_len(65_536).expect("the file can be made longer");
    // SAFETY: nobody changes the bytes.
    let view = unsafe { region.slice(0, 4) }.expect("reads go on");
    assert_eq!(view, [0; 4]);
    drop(region);
    assert_eq!(fs::read(&path).expect("read")[..4], [0; 4], "it turns up after an error");
}

/// Not a test of its own: with the variable set it is the other process of `two_writers`.
#[test]
fn other_process() {
    let Some(path) = std::env::var_os("DAXMAP_TEST_HOLD") else { return };
    let region = Options::new().open(path).expect("the other process opens the region");
    println!("holds it");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the parent closes the pipe");
    drop(region);
    // Nobody reads what the harness would print now.
    std::process::exit(0);
}

fn other_process_with(path: &Path) -> Child {
    let program = std::env::current_exe().expect("a program knows its path");
    let mut child = Command::new(program)
        .args(["--exact", "other_process", "--nocapture"])
        .env("DAXMAP_TEST_HOLD", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program can be started again");
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    let holds = output.lines().map_while(std::result::Result::ok).any(|l| l.contains("holds it"));
    assert!(holds, "the other process did not open the region");
    child
}

#[test]
fn two_writers() {
    let directory = Directory::new(HERE);
    let path = directory.path().join("region");
    let region = Options::new().len(8192).create(&path).expect("a region can be made");
    region.write_persist(0, b"first").expect("the region can be written");
    let before = Snapshot::of(directory.path());
    let is_locked = || {
        for result in [Options::new().open(&path), Options::new().len(8192).open_or_create(&path)] {
            let error = result.expect_err("there is a writer");
            assert!(matches!(error.kind(), ErrorKind::Locked), "{error}");
            let message = error.to_string();
            assert!(message.starts_with("lock "), "{message}");
            assert!(message.contains(&*path.to_string_lossy()), "no path in: {message}");
        }
        before.assert_unchanged(directory.path(), "a refused writer");
    };
    is_locked();
    // A closed region is still open until it is dropped.
    drop(region);
    let mut child = other_process_with(&path);
    is_locked();
    child.stdin.take().expect("it is piped").write_all(b"\n").expect("the child reads");
    assert!(child.wait().expect("the child ends").success());
    drop(Options::new().open(&path).expect("the lock is free again"));
    // A writer that is killed gives the lock up.
    let mut child = other_process_with(&path);
    is_locked();
    child.kill().expect("a child can be killed");
    child.wait().expect("the child ends");
    drop(Options::new().open(&path).expect("the lock is free again"));
}

/// A child that is being started has a copy of every descriptor, and with it of the lock, until
/// it has executed its program.
#[test]
#[allow(unsafe_code)]
fn a_child_being_started_does_not_keep_the_lock() {
    let directory = Directory::new(HERE);
    let path = directory.path().join("region");
    let region = Options::new().len(8192).create(&path).expect("a region can be made");
    std::thread::scope(|scope| {
        let child = scope.spawn(|| {
            let mut command = Command::new("true");
            // SAFETY: usleep is a bare system call, which a forked child may make.
            unsafe {
                command.pre_exec(|| {
                    libc::usleep(600_000);
                    Ok(())
                });
            }
            command.status().expect("a child can be started")
        });
        std::thread::sleep(Duration::from_millis(200));
        drop(region);
        drop(Options::new().open(&path).expect("the region was dropped"));
        assert!(!child.is_finished(), "the child was too quick to show anything");
    });
}

/// A hole has no memory behind it: that there is none left is told at open, not by a signal at
/// the first store.
#[test]
fn holes_on_a_full_memory_filesystem() {
    let memory = small("tmpfs", 4 * MIB);
    let path = memory.path().join("sparse");
    File::create(&path).and_then(|file| file.set_len(16 * MIB)).expect("a hole takes no room");
    for guard in [true, false] {
        let opened = Options::new().fault_guard(guard).open(&path);
        refused(opened, &path, libc::EFAULT);
    }
    assert_eq!(fs::metadata(&path).expect("a file").len(), 16 * MIB);
    let region = Options::new().read_only(true).open(&path).expect("a reader needs no room");
    let mut bytes = vec![1; MIB as usize];
    region.read(0, &mut bytes).expect("a hole reads as zeros");
    assert!(bytes.iter().all(|&byte| byte == 0));
}

/// Of many who create the same file at once, one does, also where a draft is renamed into place.
#[test]
fn one_of_many_creates() {
    let directory = Directory::new(HERE);
    for round in 0..6 {
        let path = directory.path().join(format!("region{round}"));
        let create = || Options::new().len(1 << 16).create(&path).map(drop);
        let together = std::sync::Barrier::new(4);
        let created = std::thread::scope(|scope| {
            let racer = || {
                together.wait();
                if round % 2 == 0 { create() } else { without_unnamed_files(create) }
            };
            let racers: Vec<_> = (0..4).map(|_| scope.spawn(racer)).collect();
            racers
                .into_iter()
                .filter_map(|racer| match racer.join().expect("no racer panics") {
                    Ok(()) => Some(()),
                    Err(error) => {
                        assert_eq!(errno_of(&error), Some(libc::EEXIST), "{error}");
                        None
                    }
                })
                .count()
        });
        assert_eq!(created, 1, "round {round}");
        let names = fs::read_dir(directory.path()).expect("a directory").count();
        assert_eq!(names, round + 1, "drafts are left");
    }
}

/// A forked child has its parent's open file, which is told of a write-back error once: what the
/// child is told, the parent never hears of. And the sync that another thread of the parent was
/// leading has no leader in the child.
#[test]
#[allow(unsafe_code)] // fork
fn a_forked_child_neither_drains_nor_hangs() {
    const CHILDREN: u32 = 20;
    const PATIENCE_SECONDS: libc::c_uint = 10;
    let directory = Directory::new(env!("CARGO_TARGET_TMPDIR"));
    let region = Options::new()
        .len(1 << 20)
        .create(directory.path().join("region"))
        .expect("the region can be made");
    if region.backend() != daxmap::Backend::PageCache {
        println!("the build directory is no page-cache filesystem: nothing is shared there");
        return;
    }
    let gathered = Options::new()
        .len(1 << 20)
        .create(directory.path().join("gathered"))
        .expect("the region can be made");
    gathered.write(0, b"parent").expect("the parent writes");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut failed = None;
    std::thread::scope(|scope| {
        for id in 0..2 {
            let (region, stop) = (&region, &stop);
            scope.spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    region.write_persist(id * 4096, b"parent").expect("the parent goes on");
                }
            });
        }
        for _ in 0..CHILDREN {
            // SAFETY: the child calls nothing that another thread of the parent may have held a
            // lock of, but for memory, which the C library makes usable in a child (malloc(3)).
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: ends a child that hangs.
                unsafe { libc::alarm(PATIENCE_SECONDS) };
                let refused = |result: Result<()>| {
                    result.is_err_and(|error| matches!(error.kind(), ErrorKind::Unsupported(_)))
                };
                // A write elsewhere would send what the parent gathered.
                let all = refused(gathered.write(8192, b"child"))
                    && refused(region.drain())
                    && refused(region.grow(2 << 20))
                    && refused(region.close());
                // SAFETY: ends the child without its destructors.
                unsafe { libc::_exit(i32::from(!all)) };
            }
            let mut status = 0;
            // SAFETY: waits for the child just made.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            if !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != 0 {
                failed = Some(status);
                break;
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(failed, None, "a child drained, or hung: its status");
    region.close().expect("the parent's region is as it was");
}
