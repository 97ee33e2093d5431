//! A disk whose power can be cut: a filesystem in an image, and copies of the image as it is at a
//! moment, mounted as after a crash.
//!
//! Mounts are in a namespace of the test's thread ([`scratch`](crate::scratch)).
//!
//! What the filesystem still held in memory is not in the copy, and is lost, as in a power cut.
//! What it gave to the device is there, flushed or not: this shows that nothing was kept back, not
//! that the device was asked to flush.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scratch::{Directory, own_namespace};
use crate::unprivileged::need_root;

/// Copies tried, if the filesystem writes meanwhile.
const COPIES_MAX: u32 = 10;

/// What to make, and how to mount it such that nothing reaches the device unasked for.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// What the test calls it.
    pub name: &'static str,
    /// Type for mkfs and mount.
    pub filesystem: &'static str,
    /// Options for mkfs.
    pub mkfs: &'static [&'static str],
    /// Mount options.
    pub mount: &'static str,
    /// Mount options of a copy while the original is mounted.
    pub mount_copy: &'static str,
    /// Size of the image, in bytes.
    pub bytes: u64,
}

/// ext4 with a journal, ext4 without, xfs, btrfs, and ext4 with the block maps of ext3, which can allocate
/// only by writing.
pub const KINDS: [Kind; 5] = [
    Kind {
        name: "ext4",
        filesystem: "ext4",
        mkfs: &["-q", "-F"],
        mount: "loop,commit=300",
        mount_copy: "loop",
        bytes: 64 << 20,
    },
    Kind {
        name: "ext4 without a journal",
        filesystem: "ext4",
        mkfs: &["-q", "-F", "-O", "^has_journal"],
        mount: "loop",
        mount_copy: "loop",
        bytes: 64 << 20,
    },
    Kind {
        name: "xfs",
        filesystem: "xfs",
        mkfs: &["-q"],
        mount: "loop",
        mount_copy: "loop,nouuid",
        bytes: 320 << 20,
    },
    Kind {
        name: "btrfs",
        filesystem: "btrfs",
        mkfs: &["-q"],
        mount: "loop,commit=300",
        mount_copy: "loop",
        bytes: 128 << 20,
    },
    Kind {
        name: "ext3",
        filesystem: "ext3",
        mkfs: &["-q", "-F"],
        mount: "loop,commit=300",
        mount_copy: "loop",
        bytes: 64 << 20,
    },
];

/// The disk. Needs root.
#[derive(Debug)]
pub struct Disk {
    kind: Kind,
    image: PathBuf,
    mount: Mount,
    directory: Directory,
}

impl Disk {
    /// Makes and mounts it. The image lies in memory.
    ///
    /// # Panics
    ///
    /// If it cannot be: not root, or no mkfs program.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        need_root();
        own_namespace();
        let directory = Directory::new("/dev/shm");
        let image = directory.path().join("image");
        File::create(&image)
            .and_then(|file| file.set_len(kind.bytes))
            .unwrap_or_else(|error| panic!("cannot create {}: {error}", image.display()));
        succeed(Command::new(format!("mkfs.{}", kind.filesystem)).args(kind.mkfs).arg(&image));
        let mount = Mount::new(kind.filesystem, kind.mount, &image, directory.path().join("disk"));
        Self { kind, image, mount, directory }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount.0
    }

    /// Everything so far is on the device.
    ///
    /// # Panics
    ///
    /// If the sync fails.
    pub fn settle(&self) {
        succeed(Command::new("sync").arg("-f").arg(self.path()));
    }

    /// What is there after the power is cut now, once the filesystem has recovered.
    ///
    /// # Panics
    ///
    /// If it cannot be mounted any more.
    #[must_use]
    pub fn cut(&self) -> AfterCut {
        let image = self.directory.path().join("cut");
        // A moment, not a while: once the copy is compared and equal, nothing was written between
        // its end and the comparison's beginning.
        let mut same = false;
        for _ in 0..COPIES_MAX {
            succeed(Command::new("cp").arg("--sparse=always").arg(&self.image).arg(&image));
            let compared = Command::new("cmp").arg("-s").arg(&self.image).arg(&image).status();
            same = compared.expect("cmp is needed for this test").success();
            if same {
                break;
            }
        }
        assert!(same, "the filesystem writes all the time");
        let point = self.directory.path().join("after");
        AfterCut(Mount::new(self.kind.filesystem, self.kind.mount_copy, &image, point))
    }
}

/// A disk after a power cut, for looking at.
#[derive(Debug)]
pub struct AfterCut(Mount);

impl AfterCut {
    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.0
    }
}

/// A mount point, unmounted on drop.
#[derive(Debug)]
struct Mount(PathBuf);

impl Mount {
    fn new(filesystem: &str, options: &str, image: &Path, point: PathBuf) -> Self {
        fs::create_dir_all(&point).expect("a directory can be made in a new directory");
        succeed(
            Command::new("mount").args(["-t", filesystem, "-o", options]).arg(image).arg(&point),
        );
        Self(point)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
}

#[track_caller]
fn succeed(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} is needed for this test: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed (these tests need root): {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
