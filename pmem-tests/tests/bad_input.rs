//! Bad input gives one clear error, the process lives, and nothing on disk changes. Here: paths,
//! kinds of files, lengths, levels, permissions. Space, mounts and other processes are in
//! `bad_environment.rs`.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use daxmap::{AnyRegion, Durability, Emulation, Error, ErrorKind, Options, Region, Result};
use pmem_tests::scratch::{Directory, Filesystem};
use pmem_tests::snapshot::Snapshot;
use pmem_tests::unprivileged::as_nobody;

const HERE: &str = env!("CARGO_TARGET_TMPDIR");

fn options() -> Options {
    Options::new().len(8192)
}

/// A directory with a bystander in it, which must stay as it is.
fn directory() -> Directory {
    let directory = Directory::new(HERE);
    fs::write(directory.path().join("bystander"), b"untouched").expect("a file can be written");
    directory
}

/// Runs `call`, which must be refused without a change under `directory`, and without a wait.
fn errno_of(error: &Error) -> Option<i32> {
    error.raw_os_error()
}

#[track_caller]
fn refused(
    directory: &Path,
    path: &Path,
    call: impl FnOnce(&Path) -> Result<AnyRegion> + Send + 'static,
) -> Error {
    let before = Snapshot::of(directory);
    let (sender, answer) = mpsc::channel();
    let owned = path.to_owned();
    thread::spawn(move || {
        let _ = sender.send(call(&owned));
    });
    let answer = answer.recv_timeout(Duration::from_secs(20));
    let answer = answer.unwrap_or_else(|how| panic!("{}: no answer: {how}", path.display()));
    let error = answer.expect_err("this must be refused");
    before.assert_unchanged(directory, &error.to_string());
    let message = error.to_string();
    assert!(message.contains(error.operation().as_str()), "no operation in: {message}");
    assert_eq!(error.path(), Some(path), "{message}");
    assert!(message.contains(&*path.to_string_lossy()), "no path in: {message}");
    error
}

#[track_caller]
fn is_errno(error: &Error, operation: &str, errno: i32) {
    let message = error.to_string();
    assert_eq!(errno_of(error), Some(errno), "{message}");
    assert!(message.contains(&format!("os error {errno}")), "no errno in: {message}");
    assert!(message.starts_with(operation), "{operation} is not what was done: {message}");
}

#[track_caller]
fn is_wrong_type(error: &Error, named: &str) {
    // Not of the message: the path may have the word too.
    let ErrorKind::WrongFileType(what) = error.kind() else { panic!("{error}") };
    assert!(what.contains(named), "{named} is not named in: {error}");
}

#[test]
fn missing_path() {
    let directory = directory();
    let missing = directory.path().join("missing");
    let error = refused(directory.path(), &missing, |path| Options::new().open(path));
    is_errno(&error, "open", libc::ENOENT);
    let error = refused(directory.path(), &missing, |path| options().read_only(true).open(path));
    is_errno(&error, "open", libc::ENOENT);
    let below = missing.join("file");
    let error = refused(directory.path(), &below, |path| options().create(path));
    is_errno(&error, "create", libc::ENOENT);
    // Opening comes first, and there is no directory that the file could be made in.
    let error = refused(directory.path(), &below, |path| options().open_or_create(path));
    is_errno(&error, "open", libc::ENOENT);
    let error = refused(directory.path(), Path::new(""), |path| options().open(path));
    is_errno(&error, "open", libc::ENOENT);
    let error = refused(directory.path(), Path::new(""), |path| options().create(path));
    assert!(error.raw_os_error().is_some(), "{error}");
}

#[test]
fn directory_where_a_file_is_expected() {
    let directory = directory();
    let inner = directory.path().join("inner");
    fs::create_dir(&inner).expect("a directory can be made");
    for read_only in [false, true] {
        let open = move |path: &Path| Options::new().read_only(read_only).open(path);
        is_wrong_type(&refused(directory.path(), &inner, open), "directory");
    }
    let error = refused(directory.path(), &inner, |path| options().open_or_create(path));
    is_wrong_type(&error, "directory");
    let error = refused(directory.path(), &inner, |path| options().create(path));
    is_errno(&error, "create", libc::EEXIST);
    for dots in ["inner/.", "inner/..", "."] {
        let dots = directory.path().join(dots);
        let error = refused(directory.path(), &dots, |path| options().create(path));
        assert!(error.raw_os_error().is_some(), "{error}");
    }
    let error = refused(directory.path(), Path::new("/"), |path| options().create(path));
    assert!(error.raw_os_error().is_some(), "{error}");
    let through = directory.path().join("bystander/file");
    let error = refused(directory.path(), &through, |path| options().create(path));
    is_errno(&error, "create", libc::ENOTDIR);
    let error = refused(directory.path(), &through, |path| options().open(path));
    is_errno(&error, "open", libc::ENOTDIR);
}

#[test]
fn trailing_slash() {
    let directory = directory();
    // As open(2) has it: a name with a slash after it is a directory's.
    for name in ["new/", "new//", "new/.", "new/./"] {
        let path = PathBuf::from(format!("{}/{name}", directory.path().display()));
        let error = refused(directory.path(), &path, |path| options().create(path));
        assert!(error.raw_os_error().is_some(), "{error}");
        let error = refused(directory.path(), &path, |path| options().open_or_create(path));
        assert!(error.raw_os_error().is_some(), "{error}");
    }
    let path = PathBuf::from(format!("{}/bystander/", directory.path().display()));
    let error = refused(directory.path(), &path, |path| Options::new().open(path));
    is_errno(&error, "open", libc::ENOTDIR);
    let error = refused(directory.path(), &path, |path| options().create(path));
    assert!(error.raw_os_error().is_some(), "{error}");
}

#[test]
fn fifo_socket_and_devices() {
    let directory = directory();
    let named = |name: &str| directory.path().join(name);
    let mknod = |name: &str, rest: &[&str]| {
        let made = Command::new("mknod").arg(named(name)).args(rest).status();
        assert!(made.is_ok_and(|status| status.success()), "mknod {name} (this test needs root)");
    };
    mknod("fifo", &["p"]);
    mknod("block", &["b", "7", "0"]);
    mknod("null", &["c", "1", "3"]);
    mknod("zero", &["c", "1", "5"]);
    mknod("tty", &["c", "5", "0"]);
    mknod("nothing", &["c", "240", "77"]);
    let _socket = UnixListener::bind(named("socket")).expect("a socket can be made");
    let kinds = [("fifo", "FIFO"), ("block", "block device"), ("socket", "socket")];
    let devices = [("null", "device"), ("zero", "device")];
    for (name, kind) in kinds.into_iter().chain(devices) {
        for read_only in [false, true] {
            let open = move |path: &Path| Options::new().read_only(read_only).open(path);
            is_wrong_type(&refused(directory.path(), &named(name), open), kind);
            let require = move |path: &Path| options().require(Durability::PowerFail).open(path);
            is_wrong_type(&refused(directory.path(), &named(name), require), kind);
        }
    }
    for name in ["tty", "nothing"] {
        // No terminal, no driver: an errno will do.
        refused(directory.path(), &named(name), |path| Options::new().open(path));
    }
    for name in ["fifo", "socket", "block", "null"] {
        let error = refused(directory.path(), &named(name), |path| options().create(path));
        is_errno(&error, "create", libc::EEXIST);
        let emulated = || options().emulate(Emulation::Adr);
        refused(directory.path(), &named(name), move |path| emulated().open_or_create(path));
    }
}

#[test]
fn existing_name_at_create() {
    let directory = directory();
    let named = |name: &str| directory.path().join(name);
    symlink("bystander", named("link")).expect("a link can be made");
    fs::hard_link(named("bystander"), named("second name")).expect("a link can be made");
    symlink("loop", named("loop")).expect("a link can be made");
    for name in ["bystander", "link", "second name"] {
        let error = refused(directory.path(), &named(name), |path| options().create(path));
        is_errno(&error, "create", libc::EEXIST);
        let with_mode = |path: &Path| options().mode(0o777).lock(false).create(path);
        is_errno(&refused(directory.path(), &named(name), with_mode), "create", libc::EEXIST);
    }
    let error = refused(directory.path(), &named("loop"), |path| options().open(path));
    is_errno(&error, "open", libc::ELOOP);
    let error = refused(directory.path(), &named("loop"), |path| options().create(path));
    is_errno(&error, "create", libc::ELOOP);
}

/// A link means the file that it points to, also where that file is to be made.
#[test]
fn dangling_symlink() {
    let directory = directory();
    let named = |name: &str| directory.path().join(name);
    for (link, target) in [("one", "first"), ("two", "second"), ("lost", "missing/file")] {
        symlink(target, named(link)).expect("a link can be made");
    }
    let error = refused(directory.path(), &named("one"), |path| options().open(path));
    is_errno(&error, "open", libc::ENOENT);
    let error = refused(directory.path(), &named("lost"), |path| options().create(path));
    is_errno(&error, "create", libc::ENOENT);
    let error = refused(directory.path(), &named("lost"), |path| options().open_or_create(path));
    is_errno(&error, "open", libc::ENOENT);
    drop(options().create(named("one")).expect("the file that the link points to is made"));
    drop(options().open_or_create(named("two")).expect("the same"));
    for (link, target) in [("one", "first"), ("two", "second")] {
        assert_eq!(fs::read_link(named(link)).expect("still a link"), Path::new(target));
        let made = fs::symlink_metadata(named(target)).expect("a file");
        assert!(made.is_file() && made.len() == 8192, "{made:?}");
        let error = refused(directory.path(), &named(link), |path| options().create(path));
        is_errno(&error, "create", libc::EEXIST);
    }
}

#[test]
fn names_that_are_too_long_or_no_names() {
    let directory = directory();
    let long = directory.path().join("n".repeat(256));
    let error = refused(directory.path(), &long, |path| options().create(path));
    is_errno(&error, "create", libc::ENAMETOOLONG);
    let error = refused(directory.path(), &long, |path| options().open(path));
    is_errno(&error, "open", libc::ENAMETOOLONG);
    let deep = directory.path().join("d/".repeat(2500)).join("file");
    let error = refused(directory.path(), &deep, |path| options().create(path));
    is_errno(&error, "create", libc::ENAMETOOLONG);
    let nul = directory.path().join("nul\0byte");
    let error = refused(directory.path(), &nul, |path| options().create(path));
    is_errno(&error, "create", libc::EINVAL);
    let error = refused(directory.path(), &nul, |path| options().open(path));
    is_errno(&error, "open", libc::EINVAL);
    // The longest name there is makes a file.
    drop(options().create(directory.path().join("n".repeat(255))).expect("255 bytes are a name"));
}

#[test]
fn lengths() {
    let directory = directory();
    let (new, old) = (directory.path().join("new"), directory.path().join("bystander"));
    for call in [(|path| Options::new().create(path)) as fn(&Path) -> Result<AnyRegion>, |path| {
        Options::new().open_or_create(path)
    }] {
        let error = refused(directory.path(), &new, call);
        assert!(matches!(error.kind(), ErrorKind::Empty), "{error}");
    }
    for len in [u64::MAX, u64::MAX - 4095, i64::MAX as u64 + 1, i64::MAX as u64, 1 << 62] {
        let error = refused(directory.path(), &new, move |path| options().len(len).create(path));
        assert!(matches!(error.kind(), ErrorKind::TooLarge { .. }), "{len}: {error}");
        assert!(error.to_string().contains(&format!("[0, {len})")), "no range in: {error}");
        let grows = move |path: &Path| options().max_len(len).create(path);
        let error = refused(directory.path(), &new, grows);
        assert!(
            error.raw_os_error().is_some() || matches!(error.kind(), ErrorKind::TooLarge { .. })
        );
        let opens = move |path: &Path| options().len(len).open(path);
        let error = refused(directory.path(), &old, opens);
        let told =
            matches!(error.kind(), ErrorKind::TooLarge { .. } | ErrorKind::TooShort { len: 9, .. });
        assert!(told, "{error}");
    }
    let above_max = |path: &Path| options().max_len(8191).create(path);
    let error = refused(directory.path(), &new, above_max);
    assert!(matches!(error.kind(), ErrorKind::TooLarge { max: 8191 }), "{error}");
    // The file is shorter than asked.
    for read_only in [false, true] {
        let longer = move |path: &Path| Options::new().len(10).read_only(read_only).open(path);
        let error = refused(directory.path(), &old, longer);
        assert!(matches!(error.kind(), ErrorKind::TooShort { len: 9, asked: 10 }), "{error}");
        let message = error.to_string();
        assert!(message.contains(" 9 bytes") && message.contains("10"), "{message}");
    }
    File::create(directory.path().join("empty")).expect("a file can be made");
    let empty = directory.path().join("empty");
    drop(Options::new().open(&empty).expect("a region of no bytes"));
    let log = daxmap::log::Log::open(&empty).map(drop).unwrap_err();
    let state = daxmap::state::StateOptions::<u64>::new().open(&empty).map(drop).unwrap_err();
    for error in [log, state] {
        assert!(matches!(error.kind(), ErrorKind::Empty), "a structure is never empty: {error}");
    }
    assert_eq!(fs::metadata(&empty).expect("it is there").len(), 0);
    let create = |path: &Path| options().read_only(true).create(path);
    let error = refused(directory.path(), &new, create);
    assert!(matches!(error.kind(), ErrorKind::ReadOnly), "{error}");
}

#[test]
fn required_durability_not_available() {
    let disk = directory();
    let memory = Filesystem::tmpfs(HERE, 8 << 20);
    fs::write(memory.path().join("old"), [1; 8192]).expect("a file can be written");
    fs::write(disk.path().join("old"), [1; 8192]).expect("a file can be written");
    let levels = [
        (disk.path(), Durability::PowerFail, None),
        (memory.path(), Durability::PowerFail, None),
        (memory.path(), Durability::Fsync, None),
        (memory.path(), Durability::Unverified, None),
        (memory.path(), Durability::Unverified, Some(Emulation::Adr)),
        (memory.path(), Durability::PowerFail, Some(Emulation::Eadr)),
    ];
    for (directory, level, emulation) in levels {
        let mut wanted = options().require(level);
        if let Some(emulation) = emulation {
            wanted = wanted.emulate(emulation);
        }
        let (create, open, either) = (wanted.clone(), wanted.clone(), wanted);
        let (new, old) = (directory.join("new"), directory.join("old"));
        for error in [
            refused(directory, &new, move |path| create.create(path)),
            refused(directory, &new, move |path| either.open_or_create(path)),
            refused(directory, &old, move |path| open.open(path)),
        ] {
            let ErrorKind::Durability { required, available, reasons } = error.kind() else {
                panic!("{error}");
            };
            assert_eq!(*required, level, "{error}");
            assert!(*available < level, "{error}");
            assert!(!reasons.is_empty(), "no reasons: {error}");
            let message = error.to_string();
            for reason in reasons {
                assert!(message.contains(&reason.text), "a reason is missing in: {message}");
            }
            assert!(message.contains(level.as_str()), "{message}");
        }
    }
    let error = options().require(Durability::Fsync).in_memory().expect_err("memory is no disk");
    assert!(matches!(error.kind(), ErrorKind::Durability { .. }), "{error}");
}

/// Who needs `Fsync` is told nothing of DAX.
#[test]
fn a_refusal_names_only_what_lowers_the_level() {
    let server = Filesystem::fuse(HERE);
    let codes = |required| {
        let error = options().require(required).create(server.path().join("new"));
        let error = error.expect_err("a server's word is not enough");
        let ErrorKind::Durability { reasons, .. } = error.kind() else { panic!("{error}") };
        reasons.iter().map(|reason| reason.code.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(codes(Durability::Fsync), ["layer-unverified"]);
    assert_eq!(codes(Durability::PowerFail), ["layer-unverified", "filesystem-without-dax"]);
}

#[test]
fn required_durability_that_is_there() {
    let disk = directory();
    let memory = Filesystem::tmpfs(HERE, 8 << 20);
    let first = options().create(disk.path().join("first")).expect("no level is required");
    let there = first.durability();
    assert!(there > Durability::ProcessOnly, "could not run: the test directory is no disk");
    for (directory, level) in [
        (disk.path(), there),
        (disk.path(), Durability::ProcessOnly),
        (memory.path(), Durability::ProcessOnly),
    ] {
        let path = directory.join(format!("requires {level}"));
        let wanted = options().require(level);
        let created = wanted.create(&path).expect("what is required is there");
        assert!(created.durability() >= level);
        drop(created);
        assert!(wanted.open(&path).expect("it still is").durability() >= level);
    }
    let in_memory = options().require(Durability::ProcessOnly).in_memory().expect("memory");
    assert_eq!(in_memory.durability(), Durability::ProcessOnly);
}

#[test]
fn lengths_at_the_limit() {
    let directory = directory();
    let path = directory.path().join("at the limit");
    let region = options().max_len(8192).create(&path).expect("as long as it may become");
    assert_eq!(region.len(), 8192);
    drop(region);
    let region = Options::new().len(8192).max_len(8192).open(&path).expect("all of the file");
    assert_eq!(region.len(), 8192);
}

#[test]
fn emulation_on_a_disk() {
    let directory = directory();
    let new = directory.path().join("new");
    let create = |path: &Path| options().emulate(Emulation::Adr).create(path);
    let error = refused(directory.path(), &new, create);
    assert!(matches!(error.kind(), ErrorKind::Unsupported(_)), "{error}");
}

#[test]
fn no_permission() {
    // Under the system's directory for temporary files, which nobody can reach.
    let memory = Filesystem::tmpfs(std::env::temp_dir(), 8 << 20);
    let directory = memory.path();
    let allow = |path: &Path, bits| {
        fs::set_permissions(path, fs::Permissions::from_mode(bits)).expect("root may chmod");
    };
    let named = |name: &str| directory.join(name);
    for (name, bits) in [("secret", 0o600), ("public", 0o644)] {
        fs::write(named(name), [7; 8192]).expect("a file can be written");
        allow(&named(name), bits);
    }
    for (name, bits) in [("closed", 0o700), ("open", 0o777)] {
        fs::create_dir(named(name)).expect("a directory can be made");
        allow(&named(name), bits);
    }
    fs::write(named("closed/file"), [7; 8192]).expect("a file can be written");
    allow(directory, 0o755);
    allow(directory.parent().expect("it lies somewhere"), 0o755);

    let try_as_nobody = |name: &str, call: fn(&Path) -> Result<AnyRegion>| {
        let path = named(name);
        refused(directory, &path, move |path| as_nobody(|| call(path)))
    };
    for name in ["secret", "public", "closed/file"] {
        is_errno(&try_as_nobody(name, |path| Options::new().open(path)), "open", libc::EACCES);
        let either = try_as_nobody(name, |path| options().open_or_create(path));
        is_errno(&either, "open", libc::EACCES);
    }
    for name in ["secret", "closed/file"] {
        let reader = try_as_nobody(name, |path| Options::new().read_only(true).open(path));
        is_errno(&reader, "open", libc::EACCES);
    }
    for name in ["new", "closed/new"] {
        is_errno(&try_as_nobody(name, |path| options().create(path)), "create", libc::EACCES);
    }
    // What nobody may do, nobody can.
    as_nobody(|| {
        let reader = Options::new().read_only(true).open(named("public")).expect("readable by all");
        assert_eq!(reader.load_u64(0).expect("loaded"), u64::from_ne_bytes([7; 8]));
        let writer = options().create(named("open/new")).expect("writable by all");
        writer.write_persist(0, b"mine").expect("the region can be written");
        drop(writer);
        Options::new().open(named("open/new")).expect("the file is its owner's");
    });
}

#[test]
fn permission_bits_of_a_new_file() {
    let directory = directory();
    for (bits, expected) in [(None, 0o600), (Some(0o640), 0o640), (Some(0o400), 0o400)] {
        let path = directory.path().join(format!("{expected:o}"));
        let mut wanted = options();
        if let Some(bits) = bits {
            wanted = wanted.mode(bits);
        }
        drop(wanted.create(&path).expect("a region can be made"));
        let mode = fs::metadata(&path).expect("the file is there").permissions().mode();
        assert_eq!(mode & 0o7777, expected, "of a file made with {bits:?}");
    }
}

#[test]
fn ranges_and_words() {
    let directory = directory();
    let path = directory.path().join("region");
    let region = options().create(&path).expect("a region can be made");
    region.fill_flush(0, 8192, 3).expect("the region can be filled");
    let before = Snapshot::of(directory.path());
    let shown = |error: Error, parts: &[&str]| {
        let message = error.to_string();
        for part in parts {
            assert!(message.contains(part), "{part} is missing in: {message}");
        }
        assert!(message.contains(&*path.to_string_lossy()), "no path in: {message}");
    };
    shown(region.write(8190, b"123").expect_err("past the end"), &["write", "[8190, 8193)"]);
    shown(region.read(8193, &mut []).expect_err("past the end"), &["read", "[8193, 8193)", "8192"]);
    shown(region.flush(1, u64::MAX).expect_err("overflow"), &["flush", "[1, 1844"]);
    shown(region.store_u64(4, 1).expect_err("unaligned"), &["store", "[4, 12)", "multiple of 8"]);
    shown(region.load_u64(8192).expect_err("past the end"), &["load", "[8192, 8200)"]);
    let exchanged = region.compare_exchange_u64(1, 0, 1);
    shown(exchanged.expect_err("unaligned"), &["compare-exchange", "[1, 9)"]);
    let memory = Options::new().len(8192).max_len(16384).in_memory().expect("a region in memory");
    for region in [&region, &memory] {
        let long = region.grow(1 << 40).expect_err("too large");
        assert_eq!(long.range(), Some(8192..1 << 40), "{long}");
    }
    let grown = region.grow(u64::MAX);
    shown(grown.expect_err("too large"), &["grow", "[8192, 18446744073709551615)"]);
    before.assert_unchanged(directory.path(), "refused calls");
}
