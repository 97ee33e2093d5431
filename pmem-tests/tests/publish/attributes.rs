//! What a replaced file hands on: mode, owner, extended attributes, access control lists.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use daxmap::Options;
use daxmap::publish::{Attribute, Commit, replace};
use pmem_tests::scratch::Filesystem;
use rustix::fs::XattrFlags;

use crate::{HERE, LEN, draft, on_each, version};

#[test]
fn a_replaced_file_hands_its_attributes_on() {
    on_each(|name, directory| {
        let path = directory.join("file");
        draft(&path, 1).commit(Commit::Replace).unwrap();
        let list = access_list(&[
            (0x01, 6, !0),
            (0x02, 4, 1234),
            (0x04, 4, !0),
            (0x10, 6, !0),
            (0x20, 0, !0),
        ]);
        // Longer than the short buffer, and within an ext4 block of 1 KiB with the others.
        let none = XattrFlags::empty();
        rustix::fs::setxattr(&path, c"user.colour", b"blue", none).unwrap();
        rustix::fs::setxattr(&path, c"user.long", &[7; 500], none).unwrap();
        rustix::fs::setxattr(&path, c"trusted.mark", b"root's", none).unwrap();
        rustix::fs::setxattr(&path, c"system.posix_acl_access", &list, none).unwrap();
        std::os::unix::fs::chown(&path, Some(1234), Some(4321)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o2764)).unwrap();
        let before = fs::metadata(&path).unwrap();
        let wanted = attributes(&path);
        assert!(wanted.len() >= 4, "{name}: {wanted:?}");
        for how in [Commit::Replace, Commit::keep("kept")] {
            draft(&path, 2).commit(how).unwrap();
            let after = fs::metadata(&path).unwrap();
            assert_eq!(version(&path), Some(2));
            assert_eq!(
                (after.mode(), after.uid(), after.gid()),
                (before.mode(), 1234, 4321),
                "{name}"
            );
            assert_eq!(attributes(&path), wanted, "{name}");
        }
    });
}

#[test]
fn an_owner_or_a_group_alone_is_handed_on() {
    on_each(|name, directory| {
        for (uid, gid) in [(1234, 0), (0, 4321)] {
            let path = directory.join(format!("{uid}-{gid}"));
            draft(&path, 1).commit(Commit::Replace).unwrap();
            std::os::unix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
            draft(&path, 2).commit(Commit::Replace).unwrap();
            let after = fs::metadata(&path).unwrap();
            assert_eq!((after.uid(), after.gid(), version(&path)), (uid, gid, Some(2)), "{name}");
        }
    });
}

#[test]
fn the_directorys_default_list_is_not_put_on_a_replaced_file() {
    on_each(|name, directory| {
        let path = directory.join("file");
        draft(&path, 1).commit(Commit::Replace).unwrap();
        let list = access_list(&[
            (0x01, 7, !0),
            (0x02, 7, 1234),
            (0x04, 5, !0),
            (0x10, 7, !0),
            (0x20, 5, !0),
        ]);
        let none = XattrFlags::empty();
        rustix::fs::setxattr(directory, c"system.posix_acl_default", &list, none).unwrap();
        let before = (fs::metadata(&path).unwrap().mode(), attributes(&path));
        draft(&path, 2).commit(Commit::Replace).unwrap();
        assert_eq!((fs::metadata(&path).unwrap().mode(), attributes(&path)), before, "{name}");
        // A new file gets it.
        let other = directory.join("other");
        draft(&other, 1).commit(Commit::Replace).unwrap();
        assert!(attributes(&other).iter().any(|(name, _)| name == "system.posix_acl_access"));
    });
}

/// Replaces the file in every way, and checks each time what it is and what was kept of it.
fn replaced_in_every_way(path: &Path, check: impl Fn(&Path)) {
    for how in [Commit::Replace, Commit::keep("kept")] {
        let draft = draft(path, 2);
        assert_eq!(draft.not_kept(), [], "{how:?}");
        draft.commit(how).unwrap();
        assert_eq!(version(path), Some(2), "{how:?}");
        check(path);
    }
    check(&path.with_file_name("kept"));
    replace(path, "text").unwrap();
    assert_eq!(fs::read(path).unwrap(), b"text");
    check(path);
}

/// Of xfs, which has projects whether quotas are on or off.
#[test]
fn the_project_of_a_replaced_file_is_handed_on() {
    let disk = Filesystem::looped(HERE, "xfs", 320 << 20);
    let path = disk.path().join("file");
    draft(&path, 1).commit(Commit::Replace).unwrap();
    assert_eq!(listed(&path).0, 0);
    chattr(&["-p", "77"], &path);
    replaced_in_every_way(&path, |path| assert_eq!(listed(path).0, 77));

    // Where the directory imposes its own, no file of another can be given a name.
    let folder = disk.path().join("folder");
    fs::create_dir(&folder).unwrap();
    chattr(&["-p", "5", "+P"], &folder);
    let path = folder.join("file");
    draft(&path, 1).commit(Commit::Replace).unwrap();
    replaced_in_every_way(&path, |path| assert_eq!(listed(path).0, 5));
    chattr(&["-p", "77"], &path);
    let strict = Options::new().len(LEN as u64).strict_attributes(true);
    assert_eq!(strict.draft(&path).unwrap_err().raw_os_error(), Some(libc::EXDEV));
    let draft = draft(&path, 3);
    let lost: Vec<_> = draft.not_kept().iter().map(|lost| (&lost.attribute, lost.errno)).collect();
    assert_eq!(lost, [(&Attribute::Project, libc::EXDEV)]);
    draft.commit(Commit::Replace).unwrap();
    assert_eq!((version(&path), listed(&path).0), (Some(3), 5));
}

#[test]
fn the_flag_against_copy_on_write_is_handed_on() {
    let disk = Filesystem::looped(HERE, "btrfs", 128 << 20);
    let folder = disk.path().join("folder");
    fs::create_dir(&folder).unwrap();
    // New files of this one have the flag.
    chattr(&["+C"], &folder);
    for (directory, flag) in [(disk.path(), "+C"), (&folder, "-C")] {
        let path = directory.join("file");
        // Only an empty file takes it.
        fs::File::create(&path).unwrap();
        chattr(&[flag], &path);
        replaced_in_every_way(&path, |path| {
            assert_eq!(listed(path).1.contains('C'), flag == "+C", "{flag}");
        });
    }
}

fn chattr(words: &[&str], path: &Path) {
    let changed = Command::new("chattr").args(words).arg(path).status().unwrap();
    assert!(changed.success(), "chattr {words:?} {}", path.display());
}

/// Project and flags, as lsattr(1) prints them.
fn listed(path: &Path) -> (u32, String) {
    let printed = Command::new("lsattr").arg("-pd").arg(path).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    let mut words = printed.split_whitespace();
    let project = words.next().and_then(|word| word.parse().ok());
    project.zip(words.next().map(str::to_owned)).unwrap_or_else(|| panic!("lsattr: {printed}"))
}

/// An access control list as its extended attribute has it: tags, permissions, ids
/// (include/uapi/linux/posix_acl_xattr.h).
pub fn access_list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Extended attributes, sorted by name.
fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut list = vec![0; 4096];
    let len = rustix::fs::listxattr(path, &mut list).unwrap();
    let mut found: Vec<_> = list[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let name = String::from_utf8(name.to_vec()).unwrap();
            let mut value = vec![0; 4096];
            let len = rustix::fs::getxattr(path, name.as_str(), &mut value).unwrap();
            value.truncate(len);
            (name, value)
        })
        .collect();
    found.sort();
    found
}
