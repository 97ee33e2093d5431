//! A loop device over an open file.
//!
//! # Safety
//!
//! The loop driver's ioctls (loop(4)) take an integer, or a pointer to one struct that they only
//! read. What could go wrong is a struct of another layout than the kernel's: a constant
//! assertion pins its size, and the fields stand as in `linux/loop.h`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LO_FLAGS_DIRECT_IO: u32 = 16;

#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    names_and_key: [[u8; 32]; 5],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo64>() == 232 && size_of::<LoopConfig>() == 304);

/// How often another free device is tried when somebody else was faster.
const RACES_MAX: u32 = 64;

/// An attached loop device, detached when dropped, or with its last user if that comes later.
///
/// It is not kept open: the kernel forgets what it cached of a block device when the last user
/// closes it, and a filesystem that is mounted again must see the medium, not the cache.
#[derive(Debug)]
pub(super) struct LoopDevice {
    path: PathBuf,
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

impl LoopDevice {
    /// Attaches a free device to `file`, with direct I/O.
    pub(super) fn attach(file: BorrowedFd<'_>) -> io::Result<Self> {
        let attached = Self::attach_cached(file)?;
        attached.check_direct()?;
        Ok(attached)
    }

    /// Attaches a free device to `file`, with direct I/O if the file can do it.
    pub(super) fn attach_cached(file: BorrowedFd<'_>) -> io::Result<Self> {
        let control = open(Path::new("/dev/loop-control"))?;
        for _ in 0..RACES_MAX {
            // SAFETY: the request takes no argument, and the descriptor is open.
            #[allow(unsafe_code)]
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = open(&path)?;
            let config = LoopConfig {
                fd: file.as_raw_fd().cast_unsigned(),
                block_size: 512,
                info: LoopInfo64 {
                    device: 0,
                    inode: 0,
                    rdevice: 0,
                    offset: 0,
                    sizelimit: 0,
                    number: 0,
                    encrypt_type: 0,
                    encrypt_key_size: 0,
                    flags: LO_FLAGS_DIRECT_IO,
                    names_and_key: [[0; 32]; 5],
                    init: [0; 2],
                },
                reserved: [0; 8],
            };
            // SAFETY: the request reads one `loop_config`, whose layout `LoopConfig` has, and
            // which outlives the call.
            #[allow(unsafe_code)]
            let configured =
                unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
            if configured == 0 {
                return Ok(Self { path });
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EBUSY) {
                return Err(error);
            }
        }
        Err(io::Error::other("every free loop device was taken by somebody else"))
    }

    /// The kernel clears the flag silently where it cannot do direct I/O. Through its page
    /// cache writes would arrive late, merged and reordered.
    fn check_direct(&self) -> io::Result<()> {
        let name = self.path.file_name().unwrap_or_default();
        let attribute = Path::new("/sys/block").join(name).join("loop/dio");
        if std::fs::read_to_string(attribute)?.trim() == "1" {
            return Ok(());
        }
        Err(io::Error::other("the kernel refuses direct I/O for this loop device"))
    }

    /// `/dev/loopN`.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let Ok(device) = open(&self.path) else { return };
        // SAFETY: the request takes no argument, and the descriptor is open.
        #[allow(unsafe_code)]
        let _ = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD) };
    }
}
