//! What a replaced file hands on: mode, owner, extended attributes, access control lists.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use daxmap::publish::Commit;
use rustix::fs::XattrFlags;

use crate::{draft, on_each, version};

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
