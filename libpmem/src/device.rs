//! Device DAX: which files are, how long they are, and which NVDIMM region they are of.

use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

use libc::{c_char, dev_t, stat};

use crate::environment::{errno, keeping_errno};

/// What a path leads to.
pub(crate) enum File {
    /// A regular file or a directory.
    Ordinary,
    /// Nothing, or nothing yet.
    Missing,
    Device(Device),
}

/// A character device of device DAX.
#[derive(Clone, Copy)]
pub(crate) struct Device(dev_t);

/// Why a file cannot be mapped.
pub(crate) enum Unsuited {
    /// A call failed, with this errno.
    Call(&'static str, i32),
    /// A FIFO, socket, block device, or a character device that is not DAX.
    Kind,
}

impl File {
    /// Looks without opening.
    ///
    /// # Safety
    ///
    /// `path` is a C string.
    pub(crate) unsafe fn at(path: *const c_char) -> Result<Self, Unsuited> {
        // SAFETY: a C string.
        if unsafe { libc::access(path, libc::F_OK) } != 0 {
            return match errno() {
                libc::ENOENT => Ok(Self::Missing),
                errno => Err(Unsuited::Call("access", errno)),
            };
        }
        let mut found = MaybeUninit::<stat>::uninit();
        // SAFETY: a C string, and room for the answer.
        if unsafe { libc::stat(path, found.as_mut_ptr()) } != 0 {
            return Err(Unsuited::Call("stat", errno()));
        }
        // SAFETY: stat(2) succeeded.
        let found = unsafe { found.assume_init() };
        match found.st_mode & libc::S_IFMT {
            libc::S_IFREG | libc::S_IFDIR => Ok(Self::Ordinary),
            libc::S_IFCHR => {
                let device = Device(found.st_rdev);
                // Both the class and the bus of device DAX are called so.
                let subsystem =
                    std::fs::canonicalize(device.in_sysfs("subsystem")).map_err(|error| {
                        Unsuited::Call("realpath", error.raw_os_error().unwrap_or(0))
                    })?;
                let is_dax = subsystem.file_name().is_some_and(|name| name == "dax");
                if is_dax { Ok(Self::Device(device)) } else { Err(Unsuited::Kind) }
            }
            _ => Err(Unsuited::Kind),
        }
    }
}

impl Device {
    fn in_sysfs(self, name: &str) -> PathBuf {
        let (major, minor) = (libc::major(self.0), libc::minor(self.0));
        format!("/sys/dev/char/{major}:{minor}/{name}").into()
    }

    /// Its length in bytes.
    pub(crate) fn len(self) -> Option<usize> {
        let size = keeping_errno(|| std::fs::read_to_string(self.in_sysfs("size")));
        size.ok()?.trim().parse().ok()
    }

    /// The number of its NVDIMM region, if it is of one.
    pub(crate) fn region(self) -> Option<u32> {
        region_of(&std::fs::canonicalize(self.in_sysfs("")).ok()?)
    }
}

fn region_of(device: &Path) -> Option<u32> {
    device
        .components()
        .find_map(|part| part.as_os_str().to_str()?.strip_prefix("region")?.parse().ok())
}

/// Asks the platform to empty its write buffers into the medium of a region. The file says `0`
/// where that is not needed; without the file, or without the right to write it, nothing is asked:
/// the caller has drained, which is what the platform's power-fail protection covers.
pub(crate) fn deep_flush(region: u32) {
    let path = format!("/sys/bus/nd/devices/region{region}/deep_flush");
    if std::fs::read(&path).is_ok_and(|needed| needed == b"1\n") {
        let _ = std::fs::write(&path, "1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_of_a_device_is_in_its_path() {
        let of = |path: &str| region_of(Path::new(path));
        let device = "/sys/devices/LNXSYSTM:00/ACPI0012:00/ndbus0/region12/dax12.0/dax12.0";
        assert_eq!(of(device), Some(12));
        assert_eq!(of("/sys/devices/platform/hmem.0/dax0.0"), None);
        assert_eq!(of("/sys/devices/regional/region/dax"), None);
    }
}
