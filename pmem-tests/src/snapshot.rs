//! What a directory holds, for showing that nothing in it has changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Everything under a directory: names, kinds, lengths, permission bits, owners, contents.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, Entry>);

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    links: u64,
    len: u64,
    inode: u64,
    /// Of a regular file; the target of a link.
    contents: Vec<u8>,
}

impl Snapshot {
    /// Looks at the directory and everything in it; links are not followed, devices and FIFOs
    /// not opened.
    ///
    /// # Panics
    ///
    /// If something cannot be read.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        let mut entries = BTreeMap::new();
        add(directory, &mut entries);
        Self(entries)
    }

    /// Panics unless the directory still holds what it held.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[track_caller]
    pub fn assert_unchanged(&self, directory: &Path, what: &str) {
        let now = Self::of(directory);
        let names = |snapshot: &Self| snapshot.0.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&now), names(self), "{what}: the names have changed");
        for (path, before) in &self.0 {
            let now = &now.0[path];
            let same_contents = now.contents == before.contents;
            assert!(same_contents, "{what}: {} has other contents", path.display());
            assert_eq!(now, before, "{what}: {} has changed", path.display());
        }
    }
}

fn add(path: &Path, entries: &mut BTreeMap<PathBuf, Entry>) {
    let failed = |error| panic!("cannot look at {}: {error}", path.display());
    let found = fs::symlink_metadata(path).unwrap_or_else(failed);
    let kind = found.file_type();
    let contents = if kind.is_file() {
        fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    } else if kind.is_symlink() {
        fs::read_link(path).expect("a link can be read").into_os_string().into_encoded_bytes()
    } else {
        Vec::new()
    };
    if kind.is_dir() {
        for entry in fs::read_dir(path).expect("a directory can be listed") {
            add(&entry.expect("a directory can be listed").path(), entries);
        }
    }
    let device = kind.is_block_device() || kind.is_char_device();
    entries.insert(
        path.to_owned(),
        Entry {
            mode: found.mode(),
            owner: (found.uid(), found.gid()),
            links: found.nlink(),
            // Lengths of directories are the filesystem's affair.
            len: if kind.is_dir() || device { 0 } else { found.len() },
            inode: found.ino(),
            contents,
        },
    );
}
