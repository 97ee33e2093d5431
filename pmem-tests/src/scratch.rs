//! Directories and small filesystems that are gone when the test is over, however it ends.
//!
//! Filesystems are mounted in a mount namespace of the test's thread: others do not see them, and
//! the kernel takes them down with the last thread that does, also when the program is killed.
//!
//! # Safety
//!
//! Two system calls without a safe form change the calling thread's view of the mounts, and
//! nothing else.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use crate::passthrough::{self, Habits};
use crate::unprivileged::need_root;

/// A directory of its own, removed with everything in it on drop.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// A new directory under `parent`.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    #[must_use]
    pub fn new(parent: impl AsRef<Path>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("daxmap-test-{}-{number}", std::process::id());
        let path = parent.as_ref().join(name);
        fs::create_dir_all(&path)
            .unwrap_or_else(|error| panic!("cannot create {}: {error}", path.display()));
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A filesystem of its own, unmounted and removed on drop. Needs root.
#[derive(Debug)]
pub struct Filesystem {
    mounted: PathBuf,
    /// Of a FUSE filesystem.
    server: Option<JoinHandle<io::Result<()>>>,
    /// Removed after the unmount: fields drop after `drop`, in order.
    _directory: Directory,
}

impl Filesystem {
    /// A filesystem of this type in an image of `bytes` under `parent`, through a loop device.
    /// Every block of the image is allocated, and stays so: over a sparse one nothing is `Fsync`.
    ///
    /// # Panics
    ///
    /// If it cannot be made or mounted: not root, or no mkfs program for it.
    #[must_use]
    pub fn looped(parent: impl AsRef<Path>, kind: &str, bytes: u64) -> Self {
        Self::looped_with(parent, kind, bytes, "")
    }

    /// As [`looped`](Self::looped), with mount options.
    ///
    /// # Panics
    ///
    /// As there, and if the filesystem does not take the options.
    #[must_use]
    pub fn looped_with(parent: impl AsRef<Path>, kind: &str, bytes: u64, options: &str) -> Self {
        need_root();
        let directory = Directory::new(parent);
        let image = directory.path().join("image");
        File::create(&image)
            .and_then(|file| file.set_len(bytes))
            .unwrap_or_else(|error| panic!("cannot create {}: {error}", image.display()));
        let quiet: &[&str] = if kind.starts_with("ext") { &["-q", "-F"] } else { &["-q"] };
        let mkfs = quiet.iter().map(OsStr::new).chain([image.as_os_str()]);
        succeed(&format!("mkfs.{kind}"), mkfs);
        allocate(&image);
        let mut all = format!("loop{}", kept(kind));
        if !options.is_empty() {
            all = format!("{all},{options}");
        }
        Self::mount(directory, kind, image.as_os_str(), &all)
    }

    /// A FUSE filesystem of this process ([`passthrough`]), over a directory under `parent`.
    ///
    /// # Panics
    ///
    /// If it cannot be mounted: not root, or no `/dev/fuse`.
    #[must_use]
    pub fn fuse(parent: impl AsRef<Path>) -> Self {
        Self::fuse_with(parent, Habits::default())
    }

    /// As [`fuse`](Self::fuse), with the habits of another filesystem.
    ///
    /// # Panics
    ///
    /// As there.
    #[must_use]
    pub fn fuse_with(parent: impl AsRef<Path>, habits: Habits) -> Self {
        need_root();
        let directory = Directory::new(parent);
        own_namespace();
        let behind = directory.path().join("behind");
        let mounted = directory.path().join("mounted");
        for path in [&behind, &mounted] {
            fs::create_dir(path).expect("a directory can be made in a new directory");
        }
        let server = passthrough::mount_with(&behind, &mounted, habits)
            .unwrap_or_else(|error| panic!("no FUSE mount (these tests need root): {error}"));
        Self { mounted, server: Some(server), _directory: directory }
    }

    /// An exfat of `bytes`, by exfat-fuse: a FUSE filesystem without hard links, rename flags, unnamed
    /// files, extended attributes, owners and modes, whose inode numbers are drawn as files are opened.
    ///
    /// # Panics
    ///
    /// If it cannot be made or mounted: not root, or no exfat-fuse and exfatprogs.
    #[must_use]
    pub fn exfat(parent: impl AsRef<Path>, bytes: u64) -> Self {
        need_root();
        own_namespace();
        let directory = Directory::new(parent);
        let (image, mounted) = (directory.path().join("image"), directory.path().join("mounted"));
        fs::create_dir(&mounted).expect("a directory can be made in a new directory");
        File::create(&image)
            .and_then(|file| file.set_len(bytes))
            .unwrap_or_else(|error| panic!("cannot create {}: {error}", image.display()));
        succeed("mkfs.exfat", [image.as_os_str()].into_iter());
        let output = Command::new("losetup").args(["-f", "--show"]).arg(&image).output();
        let output = output.expect("losetup is needed for this test");
        let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(output.status.success(), "losetup: {}", String::from_utf8_lossy(&output.stderr));
        succeed("mount.exfat-fuse", [OsStr::new(&device), mounted.as_os_str()].into_iter());
        // In use: it goes when the server closes it.
        succeed("losetup", [OsStr::new("-d"), OsStr::new(&device)].into_iter());
        Self { mounted, server: None, _directory: directory }
    }

    /// The filesystem of this type that lies in `image` from the byte `offset` on, through a loop
    /// device, mounted under `parent`. The image stays when it is unmounted. An error says what
    /// mount did: the image may be what a crash left.
    ///
    /// # Errors
    ///
    /// What mount said, and the end of the kernel's log.
    ///
    /// # Panics
    ///
    /// If there is no mount namespace to be had: not root.
    pub fn image(
        parent: impl AsRef<Path>,
        kind: &str,
        image: &Path,
        offset: u64,
    ) -> Result<Self, String> {
        own_namespace();
        let directory = Directory::new(parent);
        let mounted = directory.path().join("mounted");
        fs::create_dir(&mounted).expect("a directory can be made in a new directory");
        // Copies of one filesystem have one UUID.
        let copies = if kind == "xfs" { ",nouuid" } else { "" };
        let output = Command::new("mount")
            .args(["-t", kind, "-o", &format!("loop,offset={offset}{copies}")])
            .args([image, &mounted])
            .output()
            .map_err(|error| format!("mount: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{said}the kernel's last words:\n{}", kernel_words()));
        }
        Ok(Self { mounted, server: None, _directory: directory })
    }

    /// A tmpfs of `bytes`.
    ///
    /// # Panics
    ///
    /// If it cannot be mounted: not root.
    #[must_use]
    pub fn tmpfs(parent: impl AsRef<Path>, bytes: u64) -> Self {
        need_root();
        let directory = Directory::new(parent);
        Self::mount(directory, "tmpfs", OsStr::new("none"), &format!("size={bytes}"))
    }

    /// An overlay whose three layers lie under `parent`, which is not an overlay itself.
    ///
    /// # Panics
    ///
    /// If it cannot be mounted: not root.
    #[must_use]
    pub fn overlay(parent: impl AsRef<Path>) -> Self {
        need_root();
        let directory = Directory::new(parent);
        let layer = |name: &str| {
            let path = directory.path().join(name);
            fs::create_dir(&path).expect("a directory can be made in a new directory");
            path
        };
        let (lower, upper, work) = (layer("lower"), layer("upper"), layer("work"));
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        Self::mount(directory, "overlay", OsStr::new("none"), &options)
    }

    fn mount(directory: Directory, kind: &str, source: &OsStr, options: &str) -> Self {
        own_namespace();
        let mounted = directory.path().join("mounted");
        fs::create_dir(&mounted).expect("a directory can be made in a new directory");
        let words = ["-t", kind, "-o", options].map(OsStr::new);
        succeed("mount", words.into_iter().chain([source, mounted.as_os_str()]));
        Self { mounted, server: None, _directory: directory }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mounted
    }

    /// Mounts it read-only, or writable again.
    ///
    /// # Panics
    ///
    /// If it cannot be: files are open for writing.
    pub fn remount(&self, read_only: bool) {
        let options = if read_only { "remount,ro" } else { "remount,rw" };
        succeed(
            "mount",
            ["-o", options].map(OsStr::new).into_iter().chain([self.path().as_os_str()]),
        );
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        // A region that a failed test leaked keeps it busy: detach it, the kernel takes it down
        // with the process.
        let unmounted = Command::new("umount").arg(&self.mounted).status();
        if unmounted.is_ok_and(|status| status.success()) {
            let _ = self.server.take().map(JoinHandle::join);
        } else {
            let _ = Command::new("umount").args(["-f", "-l"]).arg(&self.mounted).status();
        }
    }
}

/// Gives every byte of a file a block: mkfs programs punch holes into an image that they empty.
///
/// # Panics
///
/// If there is no room.
pub fn allocate(image: &Path) {
    let file = File::options().write(true).open(image);
    file.and_then(|file| {
        let len = file.metadata()?.len();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len)?;
        file.sync_all()
    })
    .unwrap_or_else(|error| panic!("cannot allocate {}: {error}", image.display()));
}

/// The mount option that keeps a filesystem from giving blocks of its image back, where it does so
/// without being asked.
#[must_use]
pub fn kept(kind: &str) -> &'static str {
    if matches!(kind, "btrfs" | "f2fs") { ",nodiscard" } else { "" }
}

/// Whether the kernel has this filesystem, or a module of it.
#[must_use]
pub fn kernel_has(filesystem: &str) -> bool {
    let listed = || {
        let list = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        list.lines().any(|line| line.split('\t').next_back() == Some(filesystem))
    };
    let path = std::env::var("PATH").unwrap_or_default();
    listed()
        || Command::new("modprobe")
            .args(["-q", filesystem])
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .status()
            .is_ok_and(|status| status.success())
            && listed()
}

/// The end of the kernel's log, which says why it did not mount something.
fn kernel_words() -> String {
    const LINES: usize = 30;
    let output = Command::new("dmesg").output().map(|output| output.stdout).unwrap_or_default();
    let output = String::from_utf8_lossy(&output);
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Gives the calling thread a mount namespace of its own, once. Threads and programs that it
/// starts are in it too.
pub(crate) fn own_namespace() {
    thread_local! {
        static OWN: Cell<bool> = const { Cell::new(false) };
    }
    if OWN.replace(true) {
        return;
    }
    // SAFETY: numbers, null pointers and a constant string; nothing of this program's memory.
    let separate = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) == 0
    };
    let error = std::io::Error::last_os_error();
    assert!(separate, "no mount namespace (these tests need root): {error}");
}

/// Runs a program that must succeed.
#[track_caller]
fn succeed<'a>(program: &str, arguments: impl Iterator<Item = &'a OsStr>) {
    let arguments: Vec<&OsStr> = arguments.collect();
    let output = Command::new(program)
        .args(&arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?} failed (these tests need root): {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
