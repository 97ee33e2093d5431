//! The filesystems that others only imitate: exfat by FUSE, and a squashfs with a file mounted into it.

use std::fs;
use std::path::Path;
use std::process::Command;

use daxmap::publish::{Commit, replace};
use daxmap::{Durability, Options, Region};
use pmem_tests::scratch::{Directory, Filesystem};

use crate::fallbacks::all_works_in;
use crate::{HERE, LEN, draft, names, version};

/// No hard links, no rename flags, no unnamed files, no allocation, no attributes.
#[test]
fn exfat() {
    let disk = Filesystem::exfat(HERE, 64 << 20);
    all_works_in(disk.path());
    let file = disk.path().join("file");
    draft(&file, 4).commit(Commit::Replace).unwrap();
    assert_eq!(version(&file), Some(4));
    assert_eq!(replace(&file, "text").unwrap(), Durability::Unverified);
    let error = draft(&file, 5).commit(Commit::keep("kept")).unwrap_err();
    assert!(error.to_string().contains("Commit::Replace"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"text");
    let left = names(disk.path());
    assert!(left.iter().all(|name| !name.starts_with(".daxmap")), "{left:?}");
    let strict = Options::new().len(LEN as u64).require(Durability::Fsync);
    assert!(strict.create(disk.path().join("required")).is_err());
    assert_eq!(names(disk.path()), left);
}

fn run(program: &str, arguments: &[&Path]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// As in a snap or a firmware image: the directory has no fsync and is read-only, and the file mounted
/// into it lies on a disk.
#[test]
fn a_file_mounted_into_a_squashfs() {
    let own = Filesystem::looped(HERE, "ext4", 64 << 20);
    let directory = Directory::new(HERE);
    let (root, image) = (directory.path().join("root"), directory.path().join("image"));
    fs::create_dir(&root).unwrap();
    for name in ["point", "inside"] {
        fs::write(root.join(name), vec![5; 8192]).unwrap();
    }
    run("mksquashfs", &[&root, &image, Path::new("-noappend"), Path::new("-quiet")]);
    let beside = Filesystem::image(HERE, "squashfs", &image, 0).unwrap();
    let (point, file) = (beside.path().join("point"), own.path().join("file"));
    draft(&file, 1).commit(Commit::Replace).unwrap();
    run("mount", &[Path::new("--bind"), &file, &point]);

    let check = || {
        let demanding = Options::new().require(Durability::Fsync);
        let region = demanding.open(&point).unwrap();
        region.write_persist(8, b"through the image").unwrap();
        region.grow(LEN as u64 + 4096).unwrap();
        drop(region);
        assert_eq!(&fs::read(&file).unwrap()[8..25], b"through the image");
        // It cannot be replaced there, and says so before anything is written.
        for error in [
            demanding.clone().len(9).draft(&point).unwrap_err(),
            demanding.clone().len(9).create(beside.path().join("new")).unwrap_err(),
        ] {
            assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
        }
        // What is of the image itself can be read, and not written.
        let inside = beside.path().join("inside");
        let read = Options::new().read_only(true).open(&inside).unwrap();
        let mut found = [0; 4];
        read.read(8188, &mut found).unwrap();
        assert_eq!(found, [5; 4]);
        assert_eq!(Options::new().open(&inside).unwrap_err().raw_os_error(), Some(libc::EROFS));
    };
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
    // A program that another test is just starting may have a descriptor of it.
    run("umount", &[Path::new("-l"), &point]);
    if let Err(panic) = checked {
        std::panic::resume_unwind(panic);
    }
}
