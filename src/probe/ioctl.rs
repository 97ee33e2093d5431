//! Questions that only an ioctl answers: the DAX flag of an inode, the extents of a file, the UUID of
//! a btrfs, the file behind a loop device, what an NVMe controller is, and the targets of a
//! device-mapper device. All read only; only the last two need privilege.
//!
//! # Safety
//!
//! The danger here is the kernel writing past a buffer. Each structure is laid out as in the
//! kernel's header named beside it, with its size checked against the size the request number
//! carries.
#![allow(unsafe_code)]

use std::fmt::Write;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::extents::{EXTENTS_MAX, Extent};
use crate::fiemap;

/// `FS_IOC_FSGETXATTR` (include/uapi/linux/fs.h): `_IOR('X', 31, struct fsxattr)`.
const FS_IOC_FSGETXATTR: libc::Ioctl = 0x801c_581f_u32 as libc::Ioctl;
/// `FS_XFLAG_DAX` (include/uapi/linux/fs.h).
const FS_XFLAG_DAX: u32 = 0x8000;
/// `BTRFS_IOC_FS_INFO` (include/uapi/linux/btrfs.h): `_IOR(0x94, 31, ...)` with 1024 bytes.
const BTRFS_IOC_FS_INFO: libc::Ioctl = 0x8400_941f_u32 as libc::Ioctl;

/// `FS_XFLAG_REALTIME` of a file, and `FS_XFLAG_RTINHERIT` of a directory.
const FS_XFLAG_REALTIME: u32 = 0x1 | 0x100;
/// `FS_IOC_GETFLAGS` (include/uapi/linux/fs.h): `_IOR('f', 1, long)`, of which an `int` is written.
const FS_IOC_GETFLAGS: libc::Ioctl =
    (0x8000_6601_u32 | (size_of::<libc::c_long>() as u32) << 16) as libc::Ioctl;
/// `FS_JOURNAL_DATA_FL`.
pub(super) const DATA_JOURNAL: u32 = 0x4000;
/// `EXT4_INLINE_DATA_FL` (fs/ext4/ext4.h), which it shows to everybody.
pub(super) const INLINE_DATA: u32 = 0x1000_0000;
/// `LOOP_GET_STATUS64` (include/uapi/linux/loop.h).
const LOOP_GET_STATUS64: libc::Ioctl = 0x4c05;

/// `NVME_IOCTL_ADMIN_CMD` (include/uapi/linux/nvme_ioctl.h): `_IOWR('N', 0x41, struct nvme_admin_cmd)`.
const NVME_IOCTL_ADMIN_CMD: libc::Ioctl = 0xc048_4e41_u32 as libc::Ioctl;
/// Identify, and in its first argument, Identify Controller (NVM Express Base Specification).
const NVME_IDENTIFY: u8 = 0x06;
const NVME_IDENTIFY_CONTROLLER: u32 = 0x01;
/// What Identify answers with.
pub(super) const NVME_IDENTIFY_BYTES: usize = 4096;

/// `DM_TABLE_STATUS` (include/uapi/linux/dm-ioctl.h): `_IOWR(0xfd, 12, struct dm_ioctl)`.
const DM_TABLE_STATUS: libc::Ioctl = 0xc138_fd0c_u32 as libc::Ioctl;
/// Every kernel since 2.6 has version 4 of the interface, and takes any minor version up to its own.
const DM_VERSION: [u32; 3] = [4, 0, 0];
/// `DM_BUFFER_FULL_FLAG`: the answer did not fit.
const DM_BUFFER_FULL: u32 = 1 << 8;
/// `DM_NOFLUSH_FLAG`: without it, the status of a thin pool commits its metadata first.
const DM_NOFLUSH: u32 = 1 << 11;
/// A table of so many bytes is not asked for again with more room.
const DM_BYTES_MAX: usize = 4 << 20;

/// `struct dm_ioctl`.
#[repr(C)]
struct DmIoctl {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_number: u32,
    padding: u32,
    device: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    rest: [u8; 7],
}
const _: () = assert!(size_of::<DmIoctl>() == (DM_TABLE_STATUS >> 16 & 0x3fff) as usize);

/// Where `target_count` and `flags` are in it, and `next` and `target_type` in each
/// `struct dm_target_spec`, which has so many bytes.
const DM_TARGET_COUNT: usize = std::mem::offset_of!(DmIoctl, target_count);
const DM_FLAGS: usize = std::mem::offset_of!(DmIoctl, flags);
const DM_SPEC_NEXT: usize = 20;
const DM_SPEC_TYPE: usize = 24;
const DM_SPEC_BYTES: usize = 40;

/// `struct nvme_admin_cmd`, which is `struct nvme_passthru_cmd`.
#[repr(C)]
#[derive(Default)]
struct NvmeAdminCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    words_2_and_3: [u32; 2],
    metadata: u64,
    address: u64,
    metadata_len: u32,
    data_len: u32,
    words_10_to_15: [u32; 6],
    timeout_ms: u32,
    result: u32,
}
const _: () =
    assert!(size_of::<NvmeAdminCommand>() == (NVME_IOCTL_ADMIN_CMD >> 16 & 0x3fff) as usize);

/// `struct loop_info64`: device and inode of the file first.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rest: [u64; 27],
}
// 5 numbers of 8 bytes, 4 of 4 bytes, names of 64, 64 and 32 bytes, and 2 numbers of 8 bytes.
const _: () = assert!(size_of::<LoopInfo>() == 5 * 8 + 4 * 4 + 64 + 64 + 32 + 2 * 8);

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct FsXattr {
    xflags: u32,
    rest: [u32; 6],
}
const _: () = assert!(size_of::<FsXattr>() == (FS_IOC_FSGETXATTR >> 16 & 0x3fff) as usize);

/// `struct btrfs_ioctl_fs_info_args`.
#[repr(C)]
struct BtrfsFsInfo {
    max_id: u64,
    num_devices: u64,
    fsid: [u8; 16],
    rest: [u64; 124],
}
const _: () = assert!(size_of::<BtrfsFsInfo>() == (BTRFS_IOC_FS_INFO >> 16 & 0x3fff) as usize);

/// `FS_XFLAG_DAX` of a file or directory; `None` where the filesystem has no such flags.
///
/// # References
///
/// `ioctl_xfs_fsgetxattr(2)`; Documentation/filesystems/dax.rst.
pub(super) fn dax_flag(fd: BorrowedFd<'_>) -> Option<bool> {
    Some(xflags(fd)? & FS_XFLAG_DAX != 0)
}

/// Whether a file is on the real-time device of an xfs, or those made in a directory are.
pub(super) fn is_realtime(fd: BorrowedFd<'_>) -> Option<bool> {
    Some(xflags(fd)? & FS_XFLAG_REALTIME != 0)
}

fn xflags(fd: BorrowedFd<'_>) -> Option<u32> {
    let mut attributes = FsXattr::default();
    // SAFETY: the request writes one `struct fsxattr`, whose size the assertion above compares.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut attributes) };
    (answer == 0).then_some(attributes.xflags)
}

/// Whether an inode has one of these flags.
///
/// # References
///
/// `ioctl_iflags(2)`.
pub(super) fn has_flag(fd: BorrowedFd<'_>, flag: u32) -> Option<bool> {
    let mut flags: [u32; 2] = [0; 2];
    // SAFETY: the request writes an `int`; there is room for the `long` of its declaration.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), FS_IOC_GETFLAGS, &raw mut flags) };
    (answer == 0).then_some(flags[0] & flag != 0)
}

/// The extents of a file in file order, as far as they have a place on the device; `None` if the
/// filesystem cannot say, or the file is in too many pieces. Does not write anything back first.
///
/// # References
///
/// Documentation/filesystems/fiemap.rst.
pub(super) fn extents(fd: BorrowedFd<'_>) -> Option<Vec<Extent>> {
    let mut out = Vec::new();
    let told = fiemap::extents(fd, 0..u64::MAX, |extent| {
        if extent.flags & fiemap::NO_PLACE == 0 {
            let (logical, physical, len) = (extent.logical, extent.physical, extent.length);
            out.push(Extent { logical, physical, len });
        }
        if out.len() > EXTENTS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    (told.is_ok() && out.len() <= EXTENTS_MAX).then_some(out)
}

/// The UUID of the btrfs that a file or directory lies on, as /sys/fs/btrfs spells it.
pub(super) fn btrfs_uuid(fd: BorrowedFd<'_>) -> Option<String> {
    let mut info = BtrfsFsInfo { max_id: 0, num_devices: 0, fsid: [0; 16], rest: [0; 124] };
    // SAFETY: the request writes one `struct btrfs_ioctl_fs_info_args`, whose size the assertion
    // above compares.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), BTRFS_IOC_FS_INFO, &raw mut info) };
    if answer != 0 {
        return None;
    }
    let mut uuid = String::with_capacity(36);
    for (i, byte) in info.fsid.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            uuid.push('-');
        }
        let _ = write!(uuid, "{byte:02x}");
    }
    Some(uuid)
}

/// Device and inode of the file behind an open loop device.
///
/// # References
///
/// loop(4).
pub(super) fn loop_file(fd: BorrowedFd<'_>) -> Option<((u32, u32), u64)> {
    let mut info = LoopInfo { device: 0, inode: 0, rest: [0; 27] };
    // SAFETY: the request writes one `struct loop_info64`, whose size the assertion above compares.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
    // The number is encoded as `new_encode_dev` does it (include/linux/kdev_t.h): twelve bits of
    // major, twenty of minor.
    let number = info.device;
    let major = (number >> 8 & 0xfff) as u32;
    let minor = (number & 0xff | number >> 12 & 0xf_ff00) as u32;
    (answer == 0).then_some(((major, minor), info.inode))
}

/// Identify Controller, of the controller of an open NVMe device; `None` if it is no such device, the
/// command fails, or this process may not send it (`CAP_SYS_ADMIN`, which older kernels ask for).
///
/// # References
///
/// drivers/nvme/host/ioctl.c `nvme_user_cmd`, `nvme_cmd_allowed`.
pub(super) fn nvme_identify(fd: BorrowedFd<'_>) -> Option<[u8; NVME_IDENTIFY_BYTES]> {
    let mut page = [0_u8; NVME_IDENTIFY_BYTES];
    let mut command = NvmeAdminCommand {
        opcode: NVME_IDENTIFY,
        // The kernel writes through it.
        address: (&raw mut page).expose_provenance() as u64,
        data_len: NVME_IDENTIFY_BYTES as u32,
        words_10_to_15: [NVME_IDENTIFY_CONTROLLER, 0, 0, 0, 0, 0],
        ..NvmeAdminCommand::default()
    };
    // SAFETY: the request reads and writes one `struct nvme_admin_cmd`, whose size the assertion above
    // compares, and writes at most `data_len` bytes to `address`, where `page` is.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), NVME_IOCTL_ADMIN_CMD, &raw mut command) };
    (answer == 0).then_some(page)
}

/// The types of the targets of a device-mapper device, in the order of its table; `None` if it is no such
/// device, or this process may not ask (`CAP_SYS_ADMIN`). Asks for the status and not for the table
/// itself, which may hold keys.
///
/// # References
///
/// drivers/md/dm-ioctl.c `table_status`, `retrieve_status`.
pub(super) fn device_mapper_targets((major, minor): (u32, u32)) -> Option<Vec<String>> {
    let control = std::fs::File::open("/dev/mapper/control").ok()?;
    // As `huge_encode_dev` does it (include/linux/kdev_t.h).
    let device = u64::from(minor & 0xff | major << 8) | u64::from(minor & !0xff) << 12;
    let mut len = 16 << 10;
    while len <= DM_BYTES_MAX {
        let request = DmIoctl {
            version: DM_VERSION,
            data_size: len as u32,
            data_start: size_of::<DmIoctl>() as u32,
            target_count: 0,
            open_count: 0,
            flags: DM_NOFLUSH,
            event_number: 0,
            padding: 0,
            device,
            name: [0; 128],
            uuid: [0; 129],
            rest: [0; 7],
        };
        let mut buffer = vec![0_u64; len / 8];
        // SAFETY: `buffer` is aligned for a `DmIoctl` and longer than one. The request reads one, with
        // a size that an assertion above compares, and writes at most `data_size` bytes to where it
        // read it, which is what the buffer has.
        let answer = unsafe {
            buffer.as_mut_ptr().cast::<DmIoctl>().write(request);
            libc::ioctl(control.as_raw_fd(), DM_TABLE_STATUS, buffer.as_mut_ptr())
        };
        if answer != 0 {
            return None;
        }
        let bytes: Vec<u8> = buffer.iter().flat_map(|word| word.to_ne_bytes()).collect();
        if u32_at(&bytes, DM_FLAGS)? & DM_BUFFER_FULL == 0 {
            return target_types(&bytes);
        }
        len *= 4;
    }
    None
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// The types in an answer. `next` of each target counts from the first.
fn target_types(bytes: &[u8]) -> Option<Vec<String>> {
    let targets = bytes.get(size_of::<DmIoctl>()..)?;
    let mut at = 0;
    (0..u32_at(bytes, DM_TARGET_COUNT)?)
        .map(|_| {
            let spec = targets.get(at..)?.get(..DM_SPEC_BYTES)?;
            at = u32_at(spec, DM_SPEC_NEXT)? as usize;
            let name = spec.get(DM_SPEC_TYPE..)?.split(|byte| *byte == 0).next()?;
            Some(String::from_utf8_lossy(name).into_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// An answer with these targets, each followed by this much status.
    fn answer(targets: &[(&str, usize)]) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<DmIoctl>()];
        bytes[DM_TARGET_COUNT..][..4].copy_from_slice(&(targets.len() as u32).to_ne_bytes());
        let mut next = 0;
        for (name, status) in targets {
            next += DM_SPEC_BYTES + status;
            let mut spec = vec![0; DM_SPEC_BYTES + status];
            spec[DM_SPEC_NEXT..][..4].copy_from_slice(&(next as u32).to_ne_bytes());
            spec[DM_SPEC_TYPE..][..name.len()].copy_from_slice(name.as_bytes());
            bytes.extend(spec);
        }
        bytes
    }

    /// Where the files of the build are, which is ext4, xfs or btrfs.
    #[test]
    fn the_flags_of_an_inode() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        assert_eq!(dax_flag(file.as_fd()), Some(false));
        assert_eq!(is_realtime(file.as_fd()), Some(false));
        assert_eq!(has_flag(file.as_fd(), DATA_JOURNAL | INLINE_DATA), Some(false));
        let other = std::fs::File::open("/proc/self/stat").unwrap();
        assert_eq!(dax_flag(other.as_fd()), None);
        assert_eq!(has_flag(other.as_fd(), DATA_JOURNAL), None);
    }

    #[test]
    fn the_targets_of_a_table_are_read_in_order() {
        let table = [("linear", 8), ("sixteen-letters-", 0), ("flakey", 24)];
        let expected: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
        assert_eq!(target_types(&answer(&table)).unwrap(), expected);
        assert_eq!(target_types(&answer(&[])).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn an_answer_that_ends_early_is_none() {
        let whole = answer(&[("linear", 8), ("crypt", 0)]);
        for len in 0..whole.len() {
            assert_eq!(target_types(&whole[..len]), None, "{len}");
        }
        let mut astray = whole;
        astray[size_of::<DmIoctl>() + DM_SPEC_NEXT..][..4].copy_from_slice(&[0xff; 4]);
        assert_eq!(target_types(&astray), None);
    }

    #[test]
    fn a_device_that_is_not_of_device_mapper_has_no_targets() {
        assert_eq!(device_mapper_targets((0, 0)), None);
        assert_eq!(device_mapper_targets((0xfff, 0xf_ffff)), None);
    }
}
