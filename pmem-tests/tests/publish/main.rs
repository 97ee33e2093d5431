//! Publishing a whole file: what every filesystem of this machine must do. Needs root for the
//! mounts.

mod attributes;
mod fallbacks;
mod hostile;
mod limits;
mod real;
mod space;
mod together;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use daxmap::publish::{Commit, clean_leftovers};
use daxmap::{ErrorKind, Growth, Options, Region};
use pmem_tests::scratch::{self, Directory, Filesystem};
use pmem_tests::unprivileged::as_nobody;
use pmem_tests::versions;

/// A directory of the build for temporary files.
const HERE: &str = env!("CARGO_TARGET_TMPDIR");
const LEN: usize = 100_000;
const A_DRAFTS_NAME: &str = ".daxmap-draft-0123456789abcdef";

enum Disk {
    Build(Directory),
    Mounted(Filesystem),
}

impl Disk {
    fn path(&self) -> &Path {
        match self {
            Self::Build(directory) => directory.path(),
            Self::Mounted(filesystem) => filesystem.path(),
        }
    }
}

/// Runs a check in a directory of each filesystem.
fn on_each(check: impl Fn(&str, &Path)) {
    let disks = [
        ("build directory", Disk::Build(Directory::new(HERE))),
        ("ext4", Disk::Mounted(Filesystem::looped(HERE, "ext4", 64 << 20))),
        (
            "ext4 data=journal",
            Disk::Mounted(Filesystem::looped_with(HERE, "ext4", 64 << 20, "data=journal")),
        ),
        (
            "ext4 nodelalloc",
            Disk::Mounted(Filesystem::looped_with(HERE, "ext4", 64 << 20, "nodelalloc")),
        ),
        ("xfs", Disk::Mounted(Filesystem::looped(HERE, "xfs", 320 << 20))),
        ("btrfs", Disk::Mounted(Filesystem::looped(HERE, "btrfs", 128 << 20))),
        ("tmpfs", Disk::Mounted(Filesystem::tmpfs(HERE, 32 << 20))),
        ("overlay", Disk::Mounted(Filesystem::overlay("/dev/shm"))),
        ("FUSE", Disk::Mounted(Filesystem::fuse(HERE))),
    ];
    // Where the kernel has it; conformance says by name where it has not.
    let f2fs = scratch::kernel_has("f2fs")
        .then(|| ("f2fs", Disk::Mounted(Filesystem::looped(HERE, "f2fs", 128 << 20))));
    for (name, disk) in disks.iter().chain(&f2fs) {
        println!("on {name}");
        check(name, disk.path());
    }
}

fn draft(path: &Path, version: u64) -> daxmap::publish::Draft {
    let draft = Options::new().len(LEN as u64).draft(path).unwrap();
    draft.write(0, &versions::content(version, LEN)).unwrap();
    draft
}

fn version(path: &Path) -> Option<u64> {
    versions::version_of(&fs::read(path).unwrap())
}

/// Names in the directory, sorted, without the filesystem's own.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lost+found")
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn create_only_creates_and_never_clobbers() {
    on_each(|_, directory| {
        let path = directory.join("file");
        draft(&path, 1).commit(Commit::CreateOnly).unwrap();
        assert_eq!(version(&path), Some(1));
        let error = draft(&path, 2).commit(Commit::CreateOnly).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{error}");
        assert_eq!(error.path(), Some(path.as_path()));
        assert!(!error.is_durability_unknown());
        assert_eq!(version(&path), Some(1));
        assert_eq!(names(directory), ["file"]);
    });
}

#[test]
fn the_region_is_the_drafts_own_after_every_commit() {
    on_each(|_, directory| {
        let (path, kept) = (directory.join("file"), directory.join("kept"));
        let ways = [Commit::Replace, Commit::Replace, Commit::keep("kept"), Commit::keep("kept")];
        for (number, how) in (1..).zip(ways) {
            let draft = draft(&path, number);
            // SAFETY: nobody changes the bytes; only the address is looked at.
            #[allow(unsafe_code)]
            let base = unsafe { draft.slice(0, 1).unwrap() }.as_ptr();
            let level = draft.durability();
            let region = draft.commit(how).unwrap();
            // SAFETY: as above.
            #[allow(unsafe_code)]
            let base_after = unsafe { region.slice(0, 1).unwrap() }.as_ptr();
            assert_eq!(base_after, base);
            assert_eq!(region.durability(), level);
            assert_eq!(version(&path), Some(number));
            // Open under the final name: what it writes is in the file, it grows, it is locked.
            region.write_persist(0, b"changed").unwrap();
            assert!(fs::read(&path).unwrap().starts_with(b"changed"));
            region.grow(LEN as u64 + 5).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), LEN as u64 + 5);
            let error = Options::new().open(&path).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Locked), "{error}");
            region.write_persist(0, &versions::content(number, LEN + 5)).unwrap();
            region.close().unwrap();
            drop(region);
            assert_eq!(version(&path), Some(number));
            if let Commit::Exchange(_) = how {
                assert_eq!(version(&kept), Some(number - 1));
            }
        }
        assert_eq!(names(directory), ["file", "kept"]);
    });
}

#[test]
fn without_the_lock_option_the_published_file_is_free() {
    let directory = Directory::new(HERE);
    let path = directory.path().join("file");
    let draft = Options::new().len(LEN as u64).lock(false).draft(&path).unwrap();
    let _region = draft.commit(Commit::Replace).unwrap();
    Options::new().open(&path).unwrap();
}

#[test]
fn an_exchange_that_cannot_be_changes_nothing() {
    on_each(|_, directory| {
        let path = directory.join("file");
        let refused = |how: Commit<'_>| draft(&path, 9).commit(how).unwrap_err();
        assert_eq!(refused(Commit::keep("kept")).raw_os_error(), Some(libc::ENOENT));
        draft(&path, 1).commit(Commit::Replace).unwrap();
        fs::create_dir(directory.join("folder")).unwrap();
        assert!(matches!(refused(Commit::keep("folder")).kind(), ErrorKind::WrongFileType(_)));
        for name in ["file", "", ".", "..", "folder/kept", "kept/"] {
            let error = refused(Commit::keep(name));
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{name:?}: {error}");
        }
        assert_eq!(version(&path), Some(1));
        assert_eq!(names(directory), ["file", "folder"]);
    });
}

#[test]
fn what_was_not_written_is_zero_and_no_hole() {
    on_each(|name, directory| {
        let path = directory.join("file");
        let len = 3 << 20;
        let draft = Options::new().len(len).draft(&path).unwrap();
        draft.write_flush(1 << 20, b"here").unwrap();
        drop(draft.commit(Commit::Replace).unwrap());
        let content = fs::read(&path).unwrap();
        assert_eq!(content.len() as u64, len);
        assert!(content.iter().enumerate().all(|(at, byte)| {
            let here = at.checked_sub(1 << 20).and_then(|at| b"here".get(at));
            *byte == *here.unwrap_or(&0)
        }));
        // Out of the cache, an unwritten extent counts as a hole.
        let file = fs::File::open(&path).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        if name != "tmpfs" {
            let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap();
            assert_eq!(hole, len, "{name}");
        }
    });
}

/// All of it was written; then it became shorter, and longer again.
#[test]
fn a_draft_that_changed_its_length_has_no_hole() {
    on_each(|name, directory| {
        let path = directory.join("file");
        let options = Options::new().len(LEN as u64).growth(Growth::Allocated);
        let draft = options.draft(&path).unwrap();
        draft.write(0, &versions::content(1, LEN)).unwrap();
        draft.shrink(LEN as u64 / 4).unwrap();
        draft.grow(LEN as u64).unwrap();
        drop(draft.commit(Commit::Replace).unwrap());
        let file = fs::File::open(&path).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        // The overlay is in memory, and FUSE does not say what was never written.
        if !matches!(name, "tmpfs" | "overlay" | "FUSE") {
            let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap();
            assert_eq!(hole, LEN as u64, "{name}");
        }
        let quarter = &versions::content(1, LEN)[..LEN / 4];
        let content = fs::read(&path).unwrap();
        assert!(content[..LEN / 4] == *quarter && content[LEN / 4..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn a_file_of_no_bytes_is_published() {
    on_each(|name, directory| {
        let path = directory.join("file");
        draft(&path, 1).commit(Commit::Replace).unwrap();
        let empty = Options::new().len(0).draft(&path).unwrap();
        let region = empty.commit(Commit::keep("kept")).unwrap();
        assert_eq!((region.len(), fs::metadata(&path).unwrap().len()), (0, 0), "{name}");
        assert_eq!(version(&directory.join("kept")), Some(1));
        region.grow(LEN as u64).unwrap();
        region.write_persist(0, &versions::content(2, LEN)).unwrap();
        assert_eq!(version(&path), Some(2), "{name}");
    });
}

#[test]
fn a_dropped_draft_leaves_nothing() {
    on_each(|_, directory| {
        drop(draft(&directory.join("file"), 1));
        assert_eq!(names(directory), [""; 0]);
    });
}

#[test]
fn a_link_stays_and_what_it_points_to_is_replaced() {
    on_each(|_, directory| {
        let folder = directory.join("folder");
        fs::create_dir(&folder).unwrap();
        let (target, link) = (folder.join("target"), directory.join("link"));
        symlink("folder/target", &link).unwrap();
        symlink("link", directory.join("link to link")).unwrap();
        // Dangling at first: it means the file that is to be.
        draft(&link, 0).commit(Commit::CreateOnly).unwrap();
        assert_eq!(version(&target), Some(0));
        for version_written in [1, 2] {
            draft(&directory.join("link to link"), version_written)
                .commit(Commit::Replace)
                .unwrap();
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            assert_eq!(version(&target), Some(version_written));
        }
        let error = draft(&link, 3).commit(Commit::CreateOnly).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
        symlink("loop", directory.join("loop")).unwrap();
        let error = Options::new().len(1).draft(directory.join("loop")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "{error}");
        assert_eq!(names(&folder), ["target"]);
    });
}

#[test]
fn another_hard_link_keeps_the_old_version() {
    on_each(|_, directory| {
        let (path, other) = (directory.join("file"), directory.join("other"));
        draft(&path, 1).commit(Commit::Replace).unwrap();
        fs::hard_link(&path, &other).unwrap();
        draft(&path, 2).commit(Commit::Replace).unwrap();
        assert_eq!((version(&path), version(&other)), (Some(2), Some(1)));
        assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);
    });
}

#[test]
fn what_is_no_regular_file_is_not_replaced() {
    on_each(|_, directory| {
        let folder = directory.join("folder");
        fs::create_dir(&folder).unwrap();
        let fifo = directory.join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        for path in [&folder, &fifo] {
            let error = Options::new().len(1).draft(path).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::WrongFileType(_)), "{error}");
        }
        // It became one after the draft was begun.
        let path = directory.join("late");
        let late = draft(&path, 1);
        fs::create_dir(&path).unwrap();
        let error = late.commit(Commit::Replace).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WrongFileType(_)), "{error}");
        assert_eq!(names(directory), ["fifo", "folder", "late"]);
    });
}

#[test]
fn errors_change_nothing() {
    on_each(|name, directory| {
        let refused =
            |path: PathBuf| Options::new().len(1 << 20).draft(path).unwrap_err().raw_os_error();
        assert_eq!(refused(directory.join("missing/file")), Some(libc::ENOENT));
        assert_eq!(refused(directory.join("x".repeat(256))), Some(libc::ENAMETOOLONG));
        let error = Options::new().draft(directory.join("x")).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Empty), "{error}");
        if !["build directory", "overlay", "FUSE"].contains(&name) {
            let error = Options::new().len(1 << 40).draft(directory.join("x")).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{name}: {error}");
        }
        // The longest name there is leaves room for a temporary one.
        let longest = directory.join("x".repeat(255));
        for number in [1, 2] {
            draft(&longest, number).commit(Commit::Replace).unwrap();
        }
        assert_eq!(version(&longest), Some(2));
        assert_eq!(names(directory).len(), 1);
        // The directory is gone when the draft is to get its name.
        let folder = directory.join("folder");
        fs::create_dir(&folder).unwrap();
        let orphan = draft(&folder.join("file"), 1);
        for left in names(&folder) {
            fs::remove_file(folder.join(left)).unwrap();
        }
        fs::remove_dir(&folder).unwrap();
        let error = orphan.commit(Commit::Replace).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{name}: {error}");
    });
}

#[test]
fn a_read_only_mount_is_an_error_at_the_draft() {
    let filesystem = Filesystem::looped(HERE, "ext4", 64 << 20);
    let path = filesystem.path().join("file");
    drop(draft(&path, 1).commit(Commit::Replace).unwrap());
    filesystem.remount(true);
    let error = Options::new().len(1).draft(&path).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
    assert_eq!(version(&path), Some(1));
}

#[test]
fn without_the_right_to_the_directory_nothing_changes() {
    let directory = Directory::new("/dev/shm");
    let path = directory.path().join("file");
    draft(&path, 1).commit(Commit::Replace).unwrap();
    let error = as_nobody(|| Options::new().len(1).draft(&path).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
    // May write the directory, but not give the file the owner that the old one had.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let strict = Options::new().len(LEN as u64).strict_attributes(true);
    let error = as_nobody(|| strict.draft(&path).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
    assert_eq!(version(&path), Some(1));
    assert_eq!(names(directory.path()), ["file"]);
    // Nor where the file in place came after the draft.
    fs::remove_file(&path).unwrap();
    let late = as_nobody(|| strict.draft(&path).unwrap());
    draft(&path, 3).commit(Commit::Replace).unwrap();
    let error = as_nobody(|| late.commit(Commit::Replace).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
    assert_eq!(version(&path), Some(3));
}

#[test]
fn leftovers_are_removed_and_nothing_else() {
    on_each(|_, directory| {
        fs::write(directory.join(A_DRAFTS_NAME), b"left").unwrap();
        fs::create_dir(directory.join(".daxmap-draft-0000000000000000")).unwrap();
        symlink(A_DRAFTS_NAME, directory.join(".daxmap-draft-0000000000000001")).unwrap();
        fs::write(directory.join(".daxmap-draft-mine"), b"mine").unwrap();
        fs::write(directory.join("file"), b"mine").unwrap();
        let live = draft(&directory.join("file"), 1);
        let locked = fs::File::create(directory.join(".daxmap-draft-0000000000000002")).unwrap();
        rustix::fs::flock(&locked, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let before = names(directory).len();
        let found = clean_leftovers(directory).unwrap();
        assert_eq!((found.removed, found.denied), (1, 0));
        assert!(found.in_use >= 1);
        assert_eq!(names(directory).len(), before - 1);
        // Closing is not enough: a child that another test is just starting has a duplicate.
        rustix::fs::flock(&locked, rustix::fs::FlockOperation::Unlock).unwrap();
        drop(locked);
        assert_eq!(clean_leftovers(directory).unwrap().removed, 1);
        // The draft was left alone.
        live.commit(Commit::Replace).unwrap();
        assert_eq!(version(&directory.join("file")), Some(1));
        assert_eq!(clean_leftovers(directory).unwrap(), daxmap::publish::Leftovers::default());
    });
    assert_eq!(clean_leftovers("/nonexistent").unwrap_err().raw_os_error(), Some(libc::ENOENT));
}

#[test]
fn names_that_are_no_text_are_published() {
    let directory = Directory::new(HERE);
    let path = directory.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    draft(&link, 1).commit(Commit::Replace).unwrap();
    draft(&path, 2).commit(Commit::keep(std::ffi::OsStr::from_bytes(b"\xfd"))).unwrap();
    assert_eq!(version(&path), Some(2));
}

/// A path without a folder is of the folder that the program is in.
#[test]
fn a_name_without_a_folder_is_of_the_current_one() {
    let directory = Directory::new(HERE);
    let work = || {
        // SAFETY: CLONE_FS takes no pointer; it gives this thread a current folder of its own.
        #[allow(unsafe_code)]
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.unwrap();
        std::env::set_current_dir(directory.path()).unwrap();
        draft(Path::new("published"), 1).commit(Commit::Replace).unwrap();
        draft(Path::new("published"), 2).commit(Commit::keep("kept")).unwrap();
        Options::new().len(10).create("created").unwrap();
        assert_eq!(clean_leftovers(".").unwrap(), daxmap::publish::Leftovers::default());
    };
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap();
    let mut found = names(directory.path());
    found.sort();
    assert_eq!(found, ["created", "kept", "published"]);
    assert_eq!(version(&directory.path().join("published")), Some(2));
}
