//! Filesystems on the device: made once, mounted in milliseconds.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::image::Image;

/// The filesystems that the fault tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filesystem {
    /// ext4, 4 KiB blocks, data=ordered.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs, with the two copies of metadata that it makes by default.
    Btrfs,
}

impl fmt::Display for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Filesystem {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    /// The kernel's name of it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Size of a small device that its mkfs takes, in bytes.
    #[must_use]
    pub const fn size(self) -> u64 {
        match self {
            Self::Ext4 => 32 << 20,
            // mkfs.xfs wants 300 MB, mkfs.btrfs 109 MB.
            Self::Xfs => 320 << 20,
            Self::Btrfs => 128 << 20,
        }
    }

    /// Parts of the device, first byte and end, that the filesystem needs to be written whole: its
    /// superblocks. Torn
    /// between two sectors, its checksum is wrong, and it is read before any journal is: ext4
    /// then refuses to mount with EBADMSG (`ext4_load_super`, fs/ext4/super.c), btrfs with EINVAL
    /// (`open_ctree`, fs/btrfs/disk-io.c). That is between them and the device, and nothing
    /// that syncs can change. XFS has a superblock of one sector.
    #[must_use]
    pub const fn written_whole(self) -> &'static [(u64, u64)] {
        match self {
            Self::Ext4 => &[(1024, 2048)],
            Self::Xfs => &[],
            Self::Btrfs => &[(0x1_0000, 0x1_1000), (0x400_0000, 0x400_1000)],
        }
    }

    fn mkfs(self, file: &Path) -> Command {
        let mut command = match self {
            Self::Ext4 => {
                let mut command = Command::new("mkfs.ext4");
                // Nothing left for a kernel thread to do later, at times of its own.
                command.args(["-q", "-F", "-b", "4096", "-J", "size=4"]);
                command.args(["-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"]);
                command
            }
            Self::Xfs => {
                let mut command = Command::new("mkfs.xfs");
                command.args(["-q", "-f", "-K"]);
                command
            }
            Self::Btrfs => {
                let mut command = Command::new("mkfs.btrfs");
                command.args(["-q", "-f", "-K"]);
                command
            }
        };
        command.arg(file);
        // Where Debian keeps them, whether or not the caller's PATH says so.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        command
    }

    /// A device of [`size`](Self::size) bytes with this filesystem, empty. In one process the
    /// same call gives the same image, and only the first one makes it. btrfs cannot have two devices of one UUID mounted at a time: devices that
    /// are used at the same time take templates of different numbers.
    ///
    /// # Errors
    ///
    /// What mkfs said.
    pub fn template(self, number: u32) -> io::Result<Image> {
        static MADE: Mutex<Option<HashMap<(Filesystem, u32), Image>>> = Mutex::new(None);
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        let made = made.get_or_insert_default();
        if let Some(image) = made.get(&(self, number)) {
            return Ok(image.clone());
        }
        let image = self.make()?;
        made.insert((self, number), image.clone());
        Ok(image)
    }

    /// Asks the filesystem's own checker, which changes nothing, whether what is on the device is
    /// consistent. The inner error is what it found.
    ///
    /// # Errors
    ///
    /// If the checker cannot be run.
    pub fn check(self, device: &Path) -> io::Result<Result<(), String>> {
        let (program, arguments) = match self {
            Self::Ext4 => ("e2fsck", &["-f", "-n"][..]),
            Self::Xfs => ("xfs_repair", &["-n"][..]),
            Self::Btrfs => ("btrfs", &["check", "--readonly"][..]),
        };
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new(program)
            .args(arguments)
            .arg(device)
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .output()
            .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
        if output.status.success() {
            return Ok(Ok(()));
        }
        let said = [output.stdout, output.stderr].concat();
        Ok(Err(format!("{program}: {}: {}", output.status, String::from_utf8_lossy(&said))))
    }

    fn make(self) -> io::Result<Image> {
        let file = tempfile::NamedTempFile::new()?;
        file.as_file().set_len(self.size())?;
        let mut command = self.mkfs(file.path());
        let output = command.output().map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", command.get_program().display()))
        })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(io::Error::other(format!("{}: {said}", command.get_program().display())));
        }
        read_image(file.as_file(), self.size())
    }

    /// What mount(2) is told for this filesystem beside the caller's options.
    const fn options(self) -> &'static str {
        match self {
            // A UUID is unique per template, not per device.
            Self::Xfs => "nouuid",
            Self::Ext4 | Self::Btrfs => "",
        }
    }
}

fn read_image(file: &File, size: u64) -> io::Result<Image> {
    let mut image = Image::new(size);
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < size {
        let part = (size - at).min(buf.len() as u64) as usize;
        file.read_exact_at(&mut buf[..part], at)?;
        // In small parts: an image does not keep what is zero.
        for (index, piece) in buf[..part].chunks(4096).enumerate() {
            image.write(at + (index * 4096) as u64, piece);
        }
        at += part as u64;
    }
    Ok(image)
}

/// What a filesystem can be mounted from.
pub trait Disk: fmt::Debug {
    /// `/dev/loopN`.
    fn device(&self) -> &Path;

    /// The folder that filesystems of this device are mounted on.
    fn mount_point(&self) -> PathBuf;
}

/// A filesystem of a [`Disk`], mounted.
#[derive(Debug)]
pub struct Mounted<'disk> {
    path: PathBuf,
    attached: bool,
    disk: &'disk dyn Disk,
}

/// How long an unmount is tried again when something still holds the filesystem, in ms.
const BUSY_MS_MAX: u64 = 2_000;

impl<'disk> Mounted<'disk> {
    /// Mounts what is on the device, with the filesystem's default options.
    ///
    /// # Errors
    ///
    /// What mount(2) says.
    pub fn new(disk: &'disk dyn Disk, filesystem: Filesystem) -> io::Result<Self> {
        Self::with_options(disk, filesystem, "")
    }

    /// Mounts with options, written as for mount(8) but only those of the filesystem itself.
    ///
    /// # Errors
    ///
    /// What mount(2) says.
    pub fn with_options(
        disk: &'disk dyn Disk,
        filesystem: Filesystem,
        options: &str,
    ) -> io::Result<Self> {
        let path = disk.mount_point();
        let separator =
            if options.is_empty() || filesystem.options().is_empty() { "" } else { "," };
        let options = format!("{options}{separator}{}", filesystem.options());
        let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
        let flags = MountFlags::empty();
        mount(disk.device(), &path, filesystem.as_str(), flags, options.as_c_str())?;
        Ok(Self { path, attached: true, disk })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts.
    ///
    /// # Errors
    ///
    /// EBUSY if a file of it stays open, or somebody else has the device open.
    pub fn unmount(mut self) -> io::Result<()> {
        self.attached = false;
        let result = patiently(|| unmount(&self.path, UnmountFlags::empty()));
        if result.is_err() {
            let _ = unmount(&self.path, UnmountFlags::DETACH);
        }
        result?;
        // A filesystem that somebody else keeps alive would be mounted again as it was, without
        // a look at the medium. O_EXCL on a block device: nobody has claimed it (open(2)).
        let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
        patiently(|| open(self.disk.device(), flags, Mode::empty()).map(drop))
            .map_err(|errno| io::Error::other(format!("the filesystem is still in use: {errno}")))
    }
}

fn patiently(mut call: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    let mut waited_ms = 0;
    loop {
        match call() {
            Err(Errno::BUSY) if waited_ms < BUSY_MS_MAX => {
                std::thread::sleep(Duration::from_millis(1));
                waited_ms += 1;
            }
            result => return result,
        }
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if self.attached && unmount(&self.path, UnmountFlags::empty()).is_err() {
            let _ = unmount(&self.path, UnmountFlags::DETACH);
        }
    }
}
