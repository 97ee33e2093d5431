//! Directories that others write to, lock, or fill with links and files of their own.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use daxmap::publish::{Attribute, Commit};
use daxmap::{Error, ErrorKind, Options, Region};
use pmem_tests::failing::with_failing;
use pmem_tests::passthrough::Habits;
use pmem_tests::scratch::{Directory, Filesystem};
use pmem_tests::unprivileged::as_nobody;
use rustix::fs::{FlockOperation, flock};

use crate::{HERE, LEN, draft, names, version};

const NOBODY: u32 = 65534;

/// Runs a check with openat2(2), and where it is missing or forbidden.
fn with_each_resolution(check: impl Fn() + Sync) {
    check();
    for errno in [libc::ENOSYS, libc::EPERM] {
        with_failing(libc::SYS_openat2, errno, &check);
    }
}

fn everybody_may_write(directory: &Path, mode: u32) {
    fs::set_permissions(directory, fs::Permissions::from_mode(mode)).unwrap();
}

fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

#[test]
fn a_link_that_another_user_planted_is_not_followed() {
    let directory = Directory::new("/dev/shm");
    let (shared, victim) = (directory.path().join("shared"), directory.path().join("victim"));
    fs::create_dir(&shared).unwrap();
    everybody_may_write(&shared, 0o1777);
    fs::write(&victim, b"root's").unwrap();
    let planted = shared.join("state");
    as_nobody(|| symlink(&victim, &planted).unwrap());
    let missing = shared.join("missing");
    as_nobody(|| symlink(directory.path().join("made"), &missing).unwrap());
    // A link of root's own that leads to the planted one.
    let indirect = directory.path().join("indirect");
    symlink("shared/state", &indirect).unwrap();
    let options = Options::new().len(100);
    with_each_resolution(|| {
        for path in [&planted, &missing, &indirect] {
            assert_eq!(errno(options.draft(path)), Some(libc::EACCES));
            assert_eq!(errno(options.open(path)), Some(libc::EACCES));
            assert_eq!(errno(options.create(path)), Some(libc::EACCES));
            assert_eq!(errno(options.open_or_create(path)), Some(libc::EACCES));
        }
    });
    assert_eq!(fs::read(&victim).unwrap(), b"root's");
    assert_eq!(names(directory.path()), ["indirect", "shared", "victim"]);
}

#[test]
fn links_that_the_kernel_follows_are_followed() {
    let directory = Directory::new("/dev/shm");
    everybody_may_write(directory.path(), 0o1777);
    let path = |name: &str| directory.path().join(name);
    for folder in ["a", "a/b", "c"] {
        fs::create_dir(path(folder)).unwrap();
    }
    symlink("../a/b", path("c/up")).unwrap();
    symlink(path("c/up"), path("c/absolute")).unwrap();
    symlink("c/../c/./absolute/target", path("own")).unwrap();
    with_each_resolution(|| {
        draft(&path("own"), 7).commit(Commit::Replace).unwrap();
        assert_eq!(version(&path("a/b/target")), Some(7));
        fs::remove_file(path("a/b/target")).unwrap();
        assert!(fs::symlink_metadata(path("own")).unwrap().is_symlink());
    });
    // Another user's, in a directory that is not sticky; and that of the directory's owner.
    everybody_may_write(directory.path(), 0o777);
    as_nobody(|| symlink("a/theirs", path("theirs")).unwrap());
    everybody_may_write(&path("c"), 0o1777);
    symlink("../a/roots", path("c/roots")).unwrap();
    everybody_may_write(&path("a"), 0o777);
    with_each_resolution(|| {
        draft(&path("theirs"), 1).commit(Commit::Replace).unwrap();
        assert_eq!(version(&path("a/theirs")), Some(1));
        as_nobody(|| draft(&path("c/roots"), 2).commit(Commit::Replace).unwrap());
        assert_eq!(version(&path("a/roots")), Some(2));
        fs::remove_file(path("a/roots")).unwrap();
    });
    // What only looks like a path.
    let open = File::create(path("open")).unwrap();
    let magic = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
    assert_eq!(errno(Options::new().len(9).draft(&magic)), Some(libc::ELOOP));
    open.set_len(5000).unwrap();
    assert_eq!(Options::new().open(&magic).unwrap().len(), 5000);
}

#[test]
fn a_dangling_link_means_the_file_that_it_points_to() {
    let directory = Directory::new(HERE);
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("elsewhere")).unwrap();
    symlink("elsewhere/file", path("link")).unwrap();
    let options = Options::new().len(LEN as u64);
    assert_eq!(errno(options.open(path("link"))), Some(libc::ENOENT));
    for or_open in [false, true] {
        let link = path("link");
        let region = if or_open { options.open_or_create(link) } else { options.create(link) };
        let region = region.unwrap();
        region.write_persist(0, b"here").unwrap();
        assert!(fs::read(path("elsewhere/file")).unwrap().starts_with(b"here"));
        drop(region);
        assert_eq!(errno(options.create(path("link"))), Some(libc::EEXIST));
        options.open(path("link")).unwrap();
        options.open_or_create(path("link")).unwrap();
        fs::remove_file(path("elsewhere/file")).unwrap();
    }
    draft(&path("link"), 1).commit(Commit::CreateOnly).unwrap();
    assert_eq!(version(&path("elsewhere/file")), Some(1));
    // To a directory that is not there: said before anything is written.
    symlink("nowhere/file", path("lost")).unwrap();
    assert_eq!(errno(options.open_or_create(path("lost"))), Some(libc::ENOENT));
    assert_eq!(names(&path("elsewhere")), ["file"]);
}

#[test]
fn a_lock_of_the_directory_is_not_waited_for_for_ever() {
    let directory = Directory::new(HERE);
    let path = directory.path().join("file");
    draft(&path, 1).commit(Commit::Replace).unwrap();
    let held = File::open(directory.path()).unwrap();
    flock(&held, FlockOperation::LockShared).unwrap();
    let began = Instant::now();
    let error = draft(&path, 2).commit(Commit::keep("kept")).unwrap_err();
    assert!(began.elapsed() >= Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(error.raw_os_error(), Some(libc::EWOULDBLOCK), "{error}");
    assert!(error.to_string().contains("lock on the directory"), "{error}");
    assert_eq!((version(&path), names(directory.path())), (Some(1), vec!["file".to_owned()]));
    draft(&path, 2).commit(Commit::Replace).unwrap();
    let waited = std::thread::scope(|scope| {
        let waits = scope.spawn(|| draft(&path, 3).commit(Commit::keep("kept")).map(drop));
        std::thread::sleep(Duration::from_millis(300));
        flock(&held, FlockOperation::Unlock).unwrap();
        waits.join().unwrap()
    });
    waited.unwrap();
    assert_eq!((version(&path), version(&directory.path().join("kept"))), (Some(3), Some(2)));
}

#[test]
fn another_spelling_of_the_name_keeps_nothing_and_loses_nothing() {
    let habits = Habits { folds_case: true, ..Habits::default() };
    let disk = Filesystem::fuse_with(HERE, habits);
    let path = disk.path().join("file");
    draft(&path, 1).commit(Commit::Replace).unwrap();
    for links in 1..=2 {
        for kept in ["FILE", "File"] {
            let error = draft(&path, 2).commit(Commit::keep(kept)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
            assert!(error.to_string().contains("spelling"), "{error}");
        }
        assert_eq!(version(&path), Some(1), "with {links} links");
        if links == 1 {
            fs::hard_link(&path, disk.path().join("other")).unwrap();
        }
    }
    // A hard link is a name of its own.
    draft(&path, 2).commit(Commit::keep("other")).unwrap();
    assert_eq!((version(&path), version(&disk.path().join("other"))), (Some(2), Some(1)));
    assert_eq!(names(disk.path()), ["file", "other"]);
}

#[test]
fn what_replacing_does_not_need_does_not_stop_it() {
    let directory = Directory::new("/dev/shm");
    everybody_may_write(directory.path(), 0o777);
    let path = directory.path().join("key");
    let found = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    // Owner, group and bits of the file in place; what is not kept; bits of the new one.
    let group = || vec![Attribute::Group];
    let both = || vec![Attribute::Group, Attribute::Owner];
    let cases = [
        (NOBODY, 1, 0o640, group(), 0o600),
        (NOBODY, 1, 0o2774, group(), 0o744),
        (NOBODY, 1, 0o4755, group(), 0o4755),
        (0, 0, 0o644, both(), 0o644),
        (0, 0, 0o6755, both(), 0o755),
        // Not to be read, which it need not be.
        (0, 0, 0o660, both(), 0o600),
        (NOBODY, NOBODY, 0o200, vec![], 0o200),
        (NOBODY, NOBODY, 0o6711, vec![], 0o6711),
    ];
    for (uid, gid, mode, lost, kept) in cases {
        let _ = fs::remove_file(&path);
        fs::write(&path, b"old").unwrap();
        chown(&path, Some(uid), Some(gid)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let of = format!("{uid}:{gid} {mode:o}");
        as_nobody(|| {
            let strict = Options::new().len(LEN as u64).strict_attributes(true).draft(&path);
            assert_eq!(strict.is_ok(), lost.is_empty(), "{of}: {strict:?}");
            if let Err(error) = strict {
                assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{of}: {error}");
            }
            let draft = draft(&path, 2);
            let told: Vec<_> =
                draft.not_kept().iter().map(|lost| (lost.attribute.clone(), lost.errno)).collect();
            let expected: Vec<_> = lost.iter().map(|lost| (lost.clone(), libc::EPERM)).collect();
            assert_eq!(told, expected, "{of}");
            draft.commit(Commit::Replace).unwrap();
        });
        let owner = if lost.contains(&Attribute::Owner) { NOBODY } else { uid };
        let holder = if lost.contains(&Attribute::Group) { NOBODY } else { gid };
        assert_eq!(found(&path), (owner, holder, kept), "{of}");
        assert_eq!(version(&path), Some(2));
    }
    assert_eq!(names(directory.path()), ["key"]);
}

/// Without its group, a list must not give the new one what the old one had.
#[test]
fn a_list_is_narrowed_with_the_group() {
    let directory = Directory::new("/dev/shm");
    everybody_may_write(directory.path(), 0o777);
    let path = directory.path().join("key");
    fs::write(&path, b"old").unwrap();
    chown(&path, Some(NOBODY), Some(1)).unwrap();
    let list = crate::attributes::access_list(&[
        (0x01, 6, !0),
        (0x02, 4, 1234),
        (0x04, 6, !0),
        (0x10, 6, !0),
        (0x20, 0, !0),
    ]);
    let name = c"system.posix_acl_access";
    rustix::fs::setxattr(&path, name, &list, rustix::fs::XattrFlags::empty()).unwrap();
    as_nobody(|| draft(&path, 2).commit(Commit::Replace).unwrap());
    let mut found = vec![0; list.len()];
    assert_eq!(rustix::fs::getxattr(&path, name, &mut found), Ok(list.len()));
    let permissions: Vec<u8> = found[4..].chunks_exact(8).map(|entry| entry[2]).collect();
    assert_eq!(permissions, [6, 4, 0, 6, 0]);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660, "the mask stays");
}

#[test]
fn attributes_that_change_after_the_draft_are_handed_on() {
    crate::on_each(|name, directory| {
        let path = directory.join("file");
        draft(&path, 1).commit(Commit::Replace).unwrap();
        let late = draft(&path, 2);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        let none = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&path, c"user.late", b"yes", none).unwrap();
        late.commit(Commit::Replace).unwrap();
        let mut value = [0; 3];
        assert_eq!(rustix::fs::getxattr(&path, c"user.late", &mut value), Ok(3), "{name}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o604, "{name}");
        // And what does not change is not lost.
        let late = draft(&path, 3);
        late.commit(Commit::Replace).unwrap();
        assert_eq!(rustix::fs::getxattr(&path, c"user.late", &mut value), Ok(3), "{name}");
    });
}

#[test]
fn a_directory_that_may_not_be_read_is_published_to() {
    let directory = Directory::new(HERE);
    let folder = directory.path().join("folder");
    fs::create_dir(&folder).unwrap();
    everybody_may_write(&folder, 0o733);
    let path = folder.join("file");
    as_nobody(|| {
        draft(&path, 1).commit(Commit::Replace).unwrap();
        draft(&path, 2).commit(Commit::Replace).unwrap();
        let region = Options::new().len(100).create(folder.join("other")).unwrap();
        drop(region);
        Options::new().open(folder.join("other")).unwrap();
    });
    assert_eq!(version(&path), Some(2));
    assert_eq!(names(&folder), ["file", "other"]);
}

#[test]
fn a_name_that_can_only_be_a_directorys_is_none() {
    let directory = Directory::new(HERE);
    for end in ["", "/", "/.", "/.."] {
        let path = directory.path().join(format!("x{end}"));
        fs::create_dir_all(directory.path().join("x")).unwrap();
        let error = Options::new().open(&path).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WrongFileType(_)), "{end}: {error}");
        let error = Options::new().len(1).draft(&path).unwrap_err();
        let refused = matches!(error.kind(), ErrorKind::WrongFileType(_))
            || error.raw_os_error() == Some(libc::EISDIR);
        assert!(refused, "{end}: {error}");
    }
}
