//! A device for looking at images: no server, no log, no faults, and its requests cost little.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, MemfdFlags, SeekFrom, fallocate, ftruncate, memfd_create, seek};
use rustix::io::{Errno, pwrite};

use super::disk::{folder_for, name_device, remove_folder};
use super::filesystem::Disk;
use super::image::Image;
use super::loop_device::LoopDevice;

/// A loop device over a file in memory, which takes one image after another.
///
/// Needs root and `/dev/loop-control`. As with [`FaultyDisk`](super::FaultyDisk), everything is
/// gone when it is dropped or the process is killed, and what is mounted is seen by the thread
/// that made it, and by those that this thread starts.
#[derive(Debug)]
pub struct MemoryDisk {
    /// Dropped first.
    device: Option<LoopDevice>,
    file: OwnedFd,
    size: u64,
    folder: PathBuf,
    /// Not `Send`: another thread does not see what is mounted.
    _thread: PhantomData<*const ()>,
}

impl MemoryDisk {
    /// A device of `size` zero bytes, a multiple of 4096.
    ///
    /// # Errors
    ///
    /// Without root, or where the kernel has no loop devices.
    pub fn new(size: u64) -> io::Result<Self> {
        let folder = folder_for(size)?;
        let file = memfd_create("daxmap-blockdev", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, size)?;
        let mut disk = Self { device: None, file, size, folder, _thread: PhantomData };
        let device = LoopDevice::attach_cached(disk.file.as_fd())?;
        name_device(&disk.folder, &device)?;
        disk.device = Some(device);
        Ok(disk)
    }

    /// Replaces the contents of the medium. Nothing may have the device open: the kernel would go
    /// on with what it cached.
    ///
    /// # Errors
    ///
    /// When memory is short.
    ///
    /// # Panics
    ///
    /// If the image has another size than the device.
    pub fn fill(&self, image: &Image) -> io::Result<()> {
        assert_eq!(image.len(), self.size, "image and device have one size");
        let mut end = 0;
        for (at, bytes) in image.held() {
            self.clear(end, at)?;
            let mut done = 0;
            while done < bytes.len() {
                done += pwrite(&self.file, &bytes[done..], at + done as u64)?;
            }
            end = at + bytes.len() as u64;
        }
        self.clear(end, self.size)
    }

    /// Takes away what there is in a range.
    fn clear(&self, mut from: u64, to: u64) -> io::Result<()> {
        while from < to {
            let data = match seek(&self.file, SeekFrom::Data(from)) {
                Err(Errno::NXIO) => return Ok(()),
                found => found?,
            };
            if data >= to {
                return Ok(());
            }
            let hole = seek(&self.file, SeekFrom::Hole(data))?.min(to);
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&self.file, flags, data, hole - data)?;
            from = hole;
        }
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn device(&self) -> &Path {
        self.device.as_ref().expect("attached by new").path()
    }

    fn mount_point(&self) -> PathBuf {
        self.folder.join("mnt")
    }
}

impl Drop for MemoryDisk {
    fn drop(&mut self) {
        self.device = None;
        remove_folder(&self.folder);
    }
}
