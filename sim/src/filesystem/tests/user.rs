//! What the user of a model sees of it: the calls, without a crash.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fcntl_getfl};
use rustix::io::{Errno, FdFlags, fcntl_getfd, pread};

use super::super::{History, Limits, Model, Profile, Shown, SyncCall, Tamper, Which};
use super::{EXT4, NOTHING};
use daxmap::model::Calls;
use daxmap::{Options, Region};

fn bytes(file: &OwnedFd, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xEE; len];
    let got = pread(file, &mut bytes, 0).unwrap();
    bytes.truncate(got);
    bytes
}

#[test]
fn descriptors_are_what_was_asked_for() {
    let model = Model::new(EXT4).unwrap();
    model.create("a").unwrap();
    let file = model.open("a").unwrap();
    assert_eq!(fcntl_getfl(&file).unwrap() & OFlags::ACCMODE, OFlags::RDWR);
    assert_eq!(fcntl_getfd(&file).unwrap(), FdFlags::CLOEXEC);
}

#[test]
fn after_a_crash_files_are_as_the_image_has_them() {
    let model = Model::new(EXT4).unwrap();
    let file = model.create("a").unwrap();
    model.change_mode(&file, 0o640).unwrap();
    let content: Vec<u8> = (1..=15_u8).flat_map(|byte| [byte; 100]).collect();
    model.write(&file, &content, 0).unwrap();
    model.link(&file, "b").unwrap();
    let again = Model::after_crash(EXT4, &model.image()).unwrap();
    let file = again.open("a").unwrap();
    assert_eq!(bytes(&file, 2000), content);
    assert_eq!(again.fstat(file.as_fd()).unwrap().st_nlink, 2);
    // One of the two names goes, the other leads to a file that has one.
    again.unlink("a").unwrap();
    let image = again.image();
    assert!(matches!(image.shows("b"), Shown::File(file) if file.bytes() == content), "{image:?}");
    again.unlink("b").unwrap();
    assert!(again.image().is_empty());
}

#[test]
fn what_no_sync_has_covered() {
    let model = Model::new(EXT4).unwrap();
    let file = model.create("a").unwrap();
    let unwritten = |len| {
        let parts = model.unwritten(file.as_fd(), len).unwrap();
        parts.iter().map(|part| (part.start, part.end)).collect::<Vec<_>>()
    };
    assert_eq!(unwritten(1500), [(0, 1500)]);
    model.write(&file, &[1; 512], 512).unwrap();
    assert_eq!(unwritten(1500), [(0, 1500)]);
    model.sync(&file).unwrap();
    assert_eq!(unwritten(1500), [(0, 512), (1024, 1500)]);
    // Cut off, and there again: a hole.
    for synced_before in [false, true] {
        model.write(&file, &[1; 1024], 0).unwrap();
        if synced_before {
            model.sync(&file).unwrap();
        }
        model.truncate(&file, 512).unwrap();
        model.truncate(&file, 1024).unwrap();
        model.sync(&file).unwrap();
        assert_eq!(unwritten(1024), [(512, 1024)], "{synced_before}");
    }
}

/// What the history says of the medium that has nothing.
fn pending(history: &History) -> String {
    let end = history.calls().count();
    let refused = history.explore_from(end, Limits::default(), |_| Err("no".into()));
    refused.unwrap_err().to_string()
}

#[test]
fn space_is_given_to_the_sectors_of_the_range() {
    let model = Model::new(EXT4).unwrap();
    let file = model.create("a").unwrap();
    model.settle();
    model.allocate(&file, 1024, 600).unwrap();
    let text = pending(&model.history());
    assert!(text.contains("space for sectors 2..4 of file 0 with size 1624 of file 0"), "{text}");
}

#[test]
fn one_sync_is_left_out() {
    let model = Model::new(NOTHING).unwrap();
    let file = model.create("a").unwrap();
    model.tamper(Tamper::LeaveOut(SyncCall::File, Which::Only(1)));
    for _ in 0..3 {
        model.sync(&file).unwrap();
    }
    let calls: Vec<String> = model.history().calls().map(str::to_owned).collect();
    let made = "fsync of file 0";
    assert_eq!(calls[1..], [made, "fsync of file 0 (not made)", made]);
}

#[test]
fn a_late_sync_is_made_after_so_many_names() {
    for names in 1..4 {
        let model = Model::new(NOTHING).unwrap();
        let file = model.create("a").unwrap();
        model.tamper(Tamper::Late(SyncCall::Directory, Which::Only(0), names));
        model.sync_directory().unwrap();
        for name in ["b", "c", "d", "e"] {
            model.link(&file, name).unwrap();
        }
        let calls: Vec<String> = model.history().calls().map(str::to_owned).collect();
        let late = calls.iter().position(|call| call == "Directory, late");
        assert_eq!(late, Some(2 + names), "{calls:?}");
        assert_eq!(calls[1], "fsync of the directory (not made)");
    }
}

#[test]
fn links_are_read_and_names_linked_on_the_side_they_are_on() {
    let model = Model::new(Profile::Xfs).unwrap();
    let file = model.create("a").unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let directory = Calls::open(&*model, model.path(), flags, Mode::empty()).unwrap();
    assert_eq!(model.room(file.as_fd()), Ok(u64::MAX), "a model is never full");
    let [a, b] = ["a", "b"].map(OsStr::new);
    assert!(model.statat(directory.as_fd(), a).is_ok());
    assert_eq!(model.statat(directory.as_fd(), b).unwrap_err(), Errno::NOENT);

    let outside = tempfile::tempdir().unwrap();
    let real_directory = OwnedFd::from(File::open(outside.path()).unwrap());
    let itself =
        model.open_no_magic(real_directory.as_fd(), std::path::Path::new("."), flags).unwrap();
    assert!(model.statat(itself.as_fd(), a).is_err());
    let real = OwnedFd::from(File::create(outside.path().join("a")).unwrap());
    assert!(model.room(real.as_fd()).unwrap() < u64::MAX);

    model.link_open(file.as_fd(), directory.as_fd(), b).unwrap();
    model.link_open(real.as_fd(), real_directory.as_fd(), b).unwrap();
    assert!(outside.path().join("b").exists());
    for (file, directory) in [(&file, &real_directory), (&real, &directory)] {
        let across = model.link_open(file.as_fd(), directory.as_fd(), OsStr::new("c"));
        assert_eq!(across, Err(Errno::XDEV));
    }
}

#[test]
fn a_thread_in_a_model_still_finds_other_files() {
    let model = Model::new(EXT4).unwrap();
    let _inside = model.enter();
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().join("region");
    let region = Options::new().len(4096).create(&path).unwrap();
    region.write_persist(0, b"outside").unwrap();
    drop(region);
    assert!(std::fs::read(&path).unwrap().starts_with(b"outside"));
    assert!(model.image().is_empty());
}
