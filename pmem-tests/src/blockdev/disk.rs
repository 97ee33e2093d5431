//! The device as tests use it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use fuser::{Config, Session, SessionACL};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::filesystem::Disk;
use super::image::Image;
use super::log::Log;
use super::loop_device::LoopDevice;
use super::medium::{Counts, Fault, Medium};
use super::reaper;
use super::server::{FILE, Server, Shared, lock};
use crate::unprivileged::NEEDS_ROOT;

/// Bytes of data that a log holds; a write beyond is refused with ENOSPC, and the log is lost.
const LOGGED_BYTES_MAX: usize = 256 << 20;

/// A block device whose medium is in memory, whose every request is logged, and which fails
/// when it is told to.
///
/// Needs root, `/dev/fuse` and `/dev/loop-control`. Everything it sets up is gone when it is
/// dropped, and a second after the process was killed at the latest.
///
/// Its filesystems are mounted in a namespace of the thread that made it: that thread sees them,
/// and the threads and programs that it starts from then on.
#[derive(Debug)]
pub struct FaultyDisk {
    /// Dropped first: nobody may ask the server any more when it goes.
    device: Option<LoopDevice>,
    medium: Shared,
    folder: PathBuf,
    server: Option<JoinHandle<io::Result<()>>>,
    /// Not `Send`: another thread does not see what is mounted.
    _thread: PhantomData<*const ()>,
}

/// The length of a device's log, as a time: what happened before a request was served happened
/// at or before its position. For the threads of a workload, which cannot share the device itself.
#[derive(Clone, Debug)]
pub struct LogClock(Shared);

impl LogClock {
    /// How many entries the log has now.
    #[must_use]
    pub fn now(&self) -> usize {
        lock(&self.0).entries()
    }
}

impl std::fmt::Debug for Medium {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Medium").field("size", &self.size()).finish_non_exhaustive()
    }
}

impl FaultyDisk {
    /// A device of `size` zero bytes, a multiple of 4096.
    ///
    /// # Errors
    ///
    /// Without root, or where the kernel has no FUSE or no loop devices.
    pub fn new(size: u64) -> io::Result<Self> {
        let folder = folder_for(size)?;
        let medium = Arc::new(Mutex::new(Medium::new(Image::new(size), LOGGED_BYTES_MAX)));
        let mut disk = Self { device: None, medium, folder, server: None, _thread: PhantomData };
        disk.serve().map_err(|error| explain("mounting FUSE", &error))?;
        let open = OpenOptions::new().read(true).write(true).open(disk.fuse().join(FILE));
        let file = open.map_err(|error| explain("opening the medium", &error))?;
        let device = LoopDevice::attach(file.as_fd())
            .map_err(|error| explain("attaching a loop device", &error))?;
        name_device(&disk.folder, &device)?;
        disk.device = Some(device);
        // Without what attaching it asked.
        disk.fill(Image::new(size));
        Ok(disk)
    }

    fn fuse(&self) -> PathBuf {
        self.folder.join("fuse")
    }

    /// Mounts the server's file, and answers for it from another thread.
    fn serve(&mut self) -> io::Result<()> {
        let channel = OwnedFd::from(File::options().read(true).write(true).open("/dev/fuse")?);
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", channel.as_raw_fd());
        let options = std::ffi::CString::new(options).expect("no zero byte in it");
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("daxmap-blockdev", self.fuse(), "fuse", flags, options.as_c_str())?;
        let server = Server::new(Arc::clone(&self.medium));
        let session = Session::from_fd(server, channel, SessionACL::Owner, Config::default())?;
        self.server = Some(session.spawn()?.guard);
        Ok(())
    }

    /// `/dev/loopN`.
    ///
    /// # Panics
    ///
    /// Never: a disk without a device is not handed out.
    #[must_use]
    pub fn device(&self) -> &Path {
        self.device.as_ref().expect("attached by new").path()
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        lock(&self.medium).size()
    }

    /// Replaces the contents of the medium; empties the log, forgets the fault, restores the
    /// power. Nothing may have the device open: the kernel would go on with what it cached.
    ///
    /// # Panics
    ///
    /// If the image has another size than the device.
    pub fn fill(&self, image: Image) {
        let mut medium = lock(&self.medium);
        assert_eq!(image.len(), medium.size(), "image and device have one size");
        medium.fill(image);
    }

    /// Plans a fault, instead of the one planned before, and counts requests from here.
    pub fn plan(&self, fault: Fault) {
        lock(&self.medium).plan(Some(fault));
    }

    /// Plans no fault, and counts requests from here.
    pub fn plan_nothing(&self) {
        lock(&self.medium).plan(None);
    }

    /// Whether the planned fault has happened.
    #[must_use]
    pub fn fired(&self) -> bool {
        lock(&self.medium).fired()
    }

    /// Requests since the last planning.
    #[must_use]
    pub fn counts(&self) -> Counts {
        lock(&self.medium).counts()
    }

    /// From now on every request is refused with EIO, reads too, and nothing is logged.
    pub fn cut_power(&self) {
        lock(&self.medium).power(false);
    }

    /// Requests are served again, from the medium as it is.
    pub fn restore_power(&self) {
        lock(&self.medium).power(true);
    }

    /// What the medium holds now: every write that was answered with success, durable or not.
    #[must_use]
    pub fn contents(&self) -> Image {
        lock(&self.medium).contents()
    }

    /// How many entries the log has: a position for [`Log::crash_image`].
    #[must_use]
    pub fn log_len(&self) -> usize {
        lock(&self.medium).entries()
    }

    /// Tells every thread how long the log is.
    #[must_use]
    pub fn log_clock(&self) -> LogClock {
        LogClock(Arc::clone(&self.medium))
    }

    /// Every request since the device was made or filled.
    ///
    /// # Panics
    ///
    /// If there was more than a log holds (256 MiB of data, a million requests).
    #[must_use]
    pub fn log(&self) -> Log {
        lock(&self.medium).log().expect("the log is too long: fill the device more often")
    }

    /// The medium after a power cut at log position `count`, with nothing that no flush had made
    /// durable. [`Log::crash_image`] chooses more finely.
    #[must_use]
    pub fn image_at(&self, count: usize) -> Image {
        self.log().crash_image(count, |_, _| super::log::Keep::Nothing)
    }
}

impl Disk for FaultyDisk {
    fn device(&self) -> &Path {
        self.device()
    }

    fn mount_point(&self) -> PathBuf {
        self.folder.join("mnt")
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        self.device = None;
        // Aborts the connection, so that whoever still waits for the server gets an error.
        let _ = unmount(self.fuse(), UnmountFlags::FORCE | UnmountFlags::DETACH);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
        remove_folder(&self.folder);
    }
}

/// Removes what [`folder_for`] made, once nothing is mounted there.
pub(super) fn remove_folder(folder: &Path) {
    let _ = fs::remove_file(folder.join("device"));
    for mount_point in ["fuse", "mnt"] {
        let _ = fs::remove_dir(folder.join(mount_point));
    }
    let _ = fs::remove_dir(folder);
}

fn explain(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Tells the reaper which device is whose.
pub(super) fn name_device(folder: &Path, device: &LoopDevice) -> io::Result<()> {
    std::os::unix::fs::symlink(device.path(), folder.join("device"))
}

/// A folder for one device of that size, in this thread's folder, with its two mount points.
pub(super) fn folder_for(size: u64) -> io::Result<PathBuf> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    if !rustix::process::geteuid().is_root() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, NEEDS_ROOT));
    }
    if size == 0 || !size.is_multiple_of(4096) {
        let what = "the size of a device is a multiple of 4096 bytes";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = reaper::thread_folder()?.join(number.to_string());
    for mount_point in ["fuse", "mnt"] {
        fs::create_dir_all(folder.join(mount_point))?;
    }
    Ok(folder)
}
