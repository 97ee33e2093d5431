//! What a filesystem, a kernel or a sandbox may lack: the next best way is taken, with what it is
//! worth; and where there is none, the error says what is missing.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use daxmap::publish::{Commit, replace};
use daxmap::{Durability, ErrorKind, Options, Region};
use pmem_tests::failing::with_failing;
use pmem_tests::passthrough::{Habits, RIVAL};
use pmem_tests::scratch::{Directory, Filesystem};
use pmem_tests::versions;

use crate::limits::{CHILD, in_a_child};
use crate::{HERE, LEN, draft, names, version};

fn habits(change: impl FnOnce(&mut Habits)) -> Filesystem {
    let mut habits = Habits::default();
    change(&mut habits);
    Filesystem::fuse_with(HERE, habits)
}

/// Creates, opens, grows, publishes in every way but `keep`, and leaves `file` with version 2.
pub(crate) fn all_works_in(directory: &Path) {
    let options = Options::new().len(LEN as u64);
    let path = directory.join("region");
    let region = options.create(&path).unwrap();
    region.write_persist(9, b"here").unwrap();
    region.grow(2 * LEN as u64).unwrap();
    region.write(2 * LEN as u64 - 4, b"last").unwrap();
    region.write(5000, &vec![7; 40_000]).unwrap();
    region.store_u64(8000, 0x0123_4567_89ab_cdef).unwrap();
    region.drain().unwrap();
    let mut found = [0; 4];
    region.read(2 * LEN as u64 - 4, &mut found).unwrap();
    assert_eq!(&found, b"last");
    region.close().unwrap();
    drop(region);
    assert_eq!(options.create(&path).unwrap_err().raw_os_error(), Some(libc::EEXIST));
    for read_only in [true, false] {
        let region = Options::new().read_only(read_only).open(&path).unwrap();
        assert_eq!(region.load_u64(8000).unwrap(), 0x0123_4567_89ab_cdef);
        region.read(9, &mut found).unwrap();
        assert_eq!(&found, b"here");
    }
    drop(options.open_or_create(&path).unwrap());
    let file = directory.join("file");
    draft(&file, 1).commit(Commit::CreateOnly).unwrap();
    let error = draft(&file, 9).commit(Commit::CreateOnly).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{error}");
    draft(&file, 2).commit(Commit::Replace).unwrap();
    draft(&directory.join("new"), 3).commit(Commit::Replace).unwrap();
    assert_eq!((version(&file), version(&directory.join("new"))), (Some(2), Some(3)));
    assert_eq!(names(directory), ["file", "new", "region"]);
}

/// FUSE servers that know the flags of a rename, refuse them, and ignore them. That of the first
/// keeps versions as well, but nobody can tell it from the last.
#[test]
fn without_hard_links() {
    for (refuses, ignores) in [(false, false), (true, false), (false, true)] {
        let disk = habits(|habits| {
            habits.no_links = true;
            (habits.no_rename_flags, habits.ignores_rename_flags) = (refuses, ignores);
        });
        all_works_in(disk.path());
        // Here nothing is left to keep a version by.
        let error = draft(&disk.path().join("file"), 4).commit(Commit::keep("kept")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        assert!(error.to_string().contains("Commit::Replace"), "{error}");
        assert_eq!(version(&disk.path().join("file")), Some(2));
        assert_eq!(names(disk.path()), ["file", "new", "region"]);
    }
}

/// cryfs and s3fs reported success for an exchange that had replaced one file by the other.
#[test]
fn a_server_that_ignores_the_flags_of_a_rename_loses_no_version() {
    let disk = habits(|habits| habits.ignores_rename_flags = true);
    all_works_in(disk.path());
    let (file, kept) = (disk.path().join("file"), disk.path().join("kept"));
    for next in 3..6 {
        draft(&file, next).commit(Commit::keep("kept")).unwrap();
        assert_eq!((version(&file), version(&kept)), (Some(next), Some(next - 1)));
    }
    assert_eq!(names(disk.path()), ["file", "kept", "new", "region"]);
}

/// The kernel finds the name free, and it is not when the server is told. With links, the server
/// refuses what would replace a file.
#[test]
fn a_server_that_ignores_the_flags_of_a_rename_replaces_no_file_that_was_made_meanwhile() {
    for ignores in [false, true] {
        let disk =
            habits(|habits| (habits.ignores_rename_flags, habits.has_rival) = (ignores, true));
        let file = disk.path().join("file");
        let created = Options::new().len(LEN as u64).create(&file).map(drop);
        let published = draft(&disk.path().join("new"), 1).commit(Commit::CreateOnly).map(drop);
        for refused in [created, published] {
            let error = refused.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{error}");
        }
        // Whoever may replace meets the file, and replaces it knowingly.
        assert_eq!(names(disk.path()), ["file", "new"]);
        for name in ["file", "new"] {
            assert_eq!(fs::read(disk.path().join(name)).unwrap(), RIVAL);
        }
    }
}

/// Of a file that is replaced, a second name stays until the directory is synced. Whether the server
/// would exchange the two names is not tried.
#[test]
fn what_is_replaced_has_a_name_until_the_directory_is_synced() {
    let disk = habits(|habits| habits.ignores_rename_flags = true);
    let file = disk.path().join("file");
    draft(&file, 1).commit(Commit::Replace).unwrap();
    let (old, inode) = (File::open(&file).unwrap(), fs::metadata(&file).unwrap().ino());
    let second = draft(&file, 2);
    with_failing(libc::SYS_fsync, libc::EIO, || {
        let error = second.commit(Commit::Replace).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::PublishedNotDurable(_)), "{error:?}");
    });
    assert_eq!(version(&file), Some(2));
    assert_eq!((old.metadata().unwrap().ino(), old.metadata().unwrap().nlink()), (inode, 1));
    let left = names(disk.path());
    assert!(
        matches!(&left[..], [one, two] if one.starts_with(".daxmap") && two == "file"),
        "{left:?}"
    );
    draft(&file, 3).commit(Commit::Replace).unwrap();
    assert_eq!(names(disk.path()).len(), 2);
}

#[test]
fn without_rename_flags_the_old_version_is_kept_by_a_link() {
    let disk = habits(|habits| habits.no_rename_flags = true);
    all_works_in(disk.path());
    let (file, kept) = (disk.path().join("file"), disk.path().join("kept"));
    for next in 3..6 {
        draft(&file, next).commit(Commit::keep("kept")).unwrap();
        assert_eq!((version(&file), version(&kept)), (Some(next), Some(next - 1)));
    }
    // The other name is a link to the file itself already.
    fs::remove_file(&kept).unwrap();
    fs::hard_link(&file, &kept).unwrap();
    draft(&file, 7).commit(Commit::keep("kept")).unwrap();
    assert_eq!((version(&file), version(&kept)), (Some(7), Some(5)));
    assert_eq!(names(disk.path()), ["file", "kept", "new", "region"]);
}

#[test]
fn without_shared_mappings() {
    let disk = habits(|habits| habits.no_shared_mappings = true);
    all_works_in(disk.path());
    let region = Options::new().open(disk.path().join("region")).unwrap();
    // SAFETY: nothing is lent.
    #[allow(unsafe_code)]
    let view = unsafe { region.slice(0, 8) }.map(<[u8]>::len);
    assert!(matches!(view.unwrap_err().kind(), ErrorKind::Unsupported(_)));
    let pointers = Options::new().writable_mapping(true).open(disk.path().join("file"));
    assert!(matches!(pointers.unwrap_err().kind(), ErrorKind::Unsupported(_)));
}

#[test]
fn without_a_sync_of_directories() {
    let disk = habits(|habits| habits.no_directory_sync = true);
    all_works_in(disk.path());
    let opened = Options::new().open(disk.path().join("file")).unwrap();
    let created = Options::new().len(LEN as u64).create(disk.path().join("created")).unwrap();
    let published = draft(&disk.path().join("published"), 1).commit(Commit::Replace).unwrap();
    for region in [opened, created, published] {
        assert_eq!(region.durability(), Durability::Unverified);
        let said = format!("{:?}", region.report().reasons);
        assert!(said.contains("no fsync of a directory"), "{said}");
    }
}

/// As on hfs, where files have an fsync, and directories none (fs/hfs/dir.c): the level falls when the
/// file has its name, and a level that is required is an error then.
#[test]
fn a_directory_without_a_sync_lowers_the_level_of_what_gets_a_name_in_it() {
    let disk = Filesystem::looped(HERE, "ext4", 64 << 20);
    let (path, new) = (disk.path().join("file"), disk.path().join("new"));
    let region = draft(&path, 1).commit(Commit::Replace).unwrap();
    assert_eq!(region.durability(), Durability::Fsync);
    drop(region);
    let demanding = Options::new().len(LEN as u64).require(Durability::Fsync);
    // Of what a commit calls here, only the sync of the directory is an fsync (publish_calls.rs).
    with_failing(libc::SYS_fsync, libc::EINVAL, || {
        for (path, how) in
            [(&new, Commit::CreateOnly), (&path, Commit::Replace), (&path, Commit::keep("kept"))]
        {
            let region = draft(path, 2).commit(how).unwrap();
            assert_eq!(region.durability(), Durability::Unverified, "{how:?}");
            assert_eq!(region.report().durability, Durability::Unverified, "{how:?}");
            let said = format!("{:?}", region.report().reasons);
            assert!(said.contains("no fsync of a directory"), "{said}");
        }
        assert_eq!(replace(&path, "text").unwrap(), Durability::Unverified);
        let draft = demanding.draft(&path).unwrap();
        draft.write(0, &versions::content(3, LEN)).unwrap();
        let late = draft.commit(Commit::Replace).unwrap_err();
        assert_eq!(version(&path), Some(3));
        let whole = demanding.replace(&path, versions::content(4, LEN)).unwrap_err();
        assert_eq!(version(&path), Some(4));
        for error in [late, whole] {
            let kind = error.kind();
            assert!(matches!(kind, ErrorKind::PublishedNotDurable(libc::EINVAL)), "{error}");
            assert!(error.to_string().contains("cannot sync a directory"), "{error}");
        }
        assert_eq!(names(disk.path()), ["file", "kept", "new"]);
    });
}

/// A file that is mounted on its name, in a directory that has no fsync: its own filesystem counts.
#[test]
fn a_file_mounted_on_its_name_has_the_level_of_its_own_filesystem() {
    let beside = habits(|habits| habits.no_directory_sync = true);
    let own = Filesystem::looped(HERE, "ext4", 64 << 20);
    let (point, file) = (beside.path().join("point"), own.path().join("file"));
    draft(&file, 1).commit(Commit::Replace).unwrap();
    let alone = Options::new().open(&file).unwrap().durability();
    fs::write(&point, b"").unwrap();
    let mount = |arguments: &[&Path]| {
        let mounted = Command::new("mount").arg("--bind").args(arguments).status().unwrap();
        assert!(mounted.success());
    };
    mount(&[&file, &point]);
    let opened = Options::new().open(&point).map(|region| region.durability());
    // A program that another test is just starting may have a descriptor of it.
    let unmounted = Command::new("umount").arg("-l").arg(&point).status().unwrap();
    assert!(unmounted.success());
    assert_eq!(opened.unwrap(), alone);
}

#[test]
fn a_filesystem_that_says_it_has_no_space_is_asked_for_it() {
    let disk = habits(|habits| habits.no_free_space = true);
    // From this length on, free space is asked for first.
    let region = Options::new().len(65 << 20).create(disk.path().join("region")).unwrap();
    region.write_persist((65 << 20) - 4, b"last").unwrap();
}

#[test]
fn a_sandbox_that_does_not_know_a_call() {
    for (number, errno) in [
        (libc::SYS_statx, libc::ENOSYS),
        (libc::SYS_statx, libc::EPERM),
        (libc::SYS_renameat2, libc::ENOSYS),
        (libc::SYS_renameat2, libc::EPERM),
        (libc::SYS_openat2, libc::EPERM),
    ] {
        let directory = Directory::new(HERE);
        with_failing(number, errno, || all_works_in(directory.path()));
        if number == libc::SYS_renameat2 {
            with_failing(number, errno, || {
                draft(&directory.path().join("file"), 4).commit(Commit::keep("kept")).unwrap();
            });
            assert_eq!(version(&directory.path().join("kept")), Some(2));
        }
    }
}

/// The holder of a lease is told, gives it up a while later, and the opening has waited.
#[test]
#[allow(unsafe_code)]
fn a_lease_is_waited_for_by_an_opening_and_is_nothing_to_a_replacing() {
    const HELD: Duration = Duration::from_millis(400);
    let directory = Directory::new(HERE);
    let path = directory.path().join("file");
    draft(&path, 1).commit(Commit::Replace).unwrap();
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
    let lease = |file: &File, kind: libc::c_int| {
        // SAFETY: takes numbers only.
        let set = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    };
    let holder = File::options().read(true).write(true).open(&path).unwrap();
    lease(&holder, libc::F_WRLCK);
    // Nothing of the file's content is needed.
    let began = Instant::now();
    draft(&path, 2).commit(Commit::Replace).unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(version(&path), Some(2));
    drop(holder);
    let holder = File::options().read(true).write(true).open(&path).unwrap();
    lease(&holder, libc::F_WRLCK);
    for read_only in [true, false] {
        let region = std::thread::scope(|scope| {
            let began = Instant::now();
            let opens = scope.spawn(|| Options::new().read_only(read_only).open(&path));
            std::thread::sleep(HELD);
            lease(&holder, libc::F_UNLCK);
            let region = opens.join().unwrap();
            assert!(began.elapsed() >= HELD);
            region.unwrap()
        });
        assert_eq!(region.len(), LEN as u64);
        drop(region);
        if read_only {
            lease(&holder, libc::F_WRLCK);
        }
    }
}

#[test]
fn a_read_only_opening_takes_no_space() {
    let memory = Filesystem::tmpfs(HERE, 64 << 20);
    let path = memory.path().join("sparse");
    File::create(&path).unwrap().set_len(32 << 20).unwrap();
    let region = Options::new().read_only(true).open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().blocks(), 0);
    // Nor is it locked.
    drop(Options::new().open(&path).unwrap());
    drop(region);
}

#[test]
fn a_file_is_replaced_in_one_line() {
    crate::on_each(|name, directory| {
        let path = directory.join("config");
        for content in [&b"first"[..], b"", b"second, and longer"] {
            let level = replace(&path, content).unwrap();
            assert_eq!(fs::read(&path).unwrap(), content, "{name}");
            assert_eq!(
                level,
                Options::new().open(&path).map_or(level, |region| region.durability())
            );
        }
        assert_eq!(names(directory), ["config"]);
        let error = replace(directory.join("no/config"), b"x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        assert_eq!(error.path(), Some(directory.join("no/config").as_path()));
    });
    // It replaces what is in use, and hands on what that has.
    let directory = Directory::new(HERE);
    let path = directory.path().join("config");
    draft(&path, 1).commit(Commit::Replace).unwrap();
    let in_use = Options::new().open(&path).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    replace(&path, "text").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
    drop(in_use);
    let memory = Filesystem::tmpfs(HERE, 1 << 20);
    let demanding = Options::new().require(Durability::Fsync);
    let error = demanding.replace(memory.path().join("config"), b"x").unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Durability { .. }), "{error}");
    assert_eq!(names(memory.path()), [""; 0]);
}

/// Not a test of its own: with the variable set it is the process of the next one.
#[test]
fn process_that_cannot_link_open_files() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    with_failing(libc::SYS_linkat, libc::ENOENT, || all_works_in(Path::new(&directory)));
}

/// The unprivileged without /proc, before Linux 6.10: files under construction have names.
#[test]
fn open_files_that_cannot_be_linked_have_names() {
    let directory = Directory::new(HERE);
    in_a_child("fallbacks::process_that_cannot_link_open_files", directory.path());
}
