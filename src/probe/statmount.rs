//! One mount, asked of the kernel: what its line in the mount table says, without the table.
//!
//! The kernel writes the whole of `/proc/self/mountinfo` anew for every reader, some milliseconds
//! where thousands of containers are mounted. statmount(2) answers for one mount (Linux 6.8), and says
//! from Linux 6.15 on which of its fields it knows. An older kernel leaves out a field that it does not
//! know and one that is empty alike, so that a missing option would pass for one that is not set:
//! there the table is read.
//!
//! # Safety
//!
//! The danger here is the kernel writing past a buffer. The buffer is as long as the call says, and
//! everything in it is read by checked offsets (`struct statmount`, include/uapi/linux/mount.h).
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;

use super::mountinfo::split_options;
use super::report::Mount;

/// `SYS_statmount`, the same on every architecture; the libc crate does not have it everywhere.
const SYS_STATMOUNT: libc::c_long = 457;
/// `STATX_MNT_ID_UNIQUE` (Linux 6.8): the number that statmount(2) takes.
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

const SB_BASIC: u64 = 0x1;
const MNT_BASIC: u64 = 0x2;
const MNT_ROOT: u64 = 0x8;
const MNT_POINT: u64 = 0x10;
const FS_TYPE: u64 = 0x20;
const MNT_OPTS: u64 = 0x80;
const FS_SUBTYPE: u64 = 0x100;
const SB_SOURCE: u64 = 0x200;
const OPT_SEC_ARRAY: u64 = 0x800;
const SUPPORTED_MASK: u64 = 0x1000;

/// Fields that no mount is without, but for an empty source.
const ALWAYS: u64 = SB_BASIC | MNT_BASIC | MNT_ROOT | MNT_POINT | FS_TYPE | SUPPORTED_MASK;
const ASKED: u64 = ALWAYS | MNT_OPTS | FS_SUBTYPE | SB_SOURCE | OPT_SEC_ARRAY;

/// Where the strings begin: the size of the structure without them.
const STRINGS: usize = 512;
/// An overlay of many layers has some kilobytes of options; one of more than this is read in the
/// table.
const BYTES: [usize; 2] = [4 << 10, 256 << 10];

/// The mount that an open file is in. `None` where the kernel does not tell all of it: it is older,
/// this process may not ask, or cannot reach the mount from its root.
///
/// # References
///
/// statmount(2), statx(2).
pub(super) fn of_file(fd: BorrowedFd<'_>) -> Option<Mount> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let wanted = StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE);
    let found = rustix::fs::statx(fd, "", flags, wanted).ok()?;
    if found.stx_mask & STATX_MNT_ID_UNIQUE == 0 {
        return None;
    }
    BYTES.into_iter().find_map(|len| {
        let mut answer = vec![0; len];
        match ask(found.stx_mnt_id, &mut answer) {
            Ok(()) => Some(parse(&answer)),
            Err(Errno::OVERFLOW) => None,
            Err(_) => Some(None),
        }
    })?
}

/// `struct mnt_id_req` in its first version.
#[repr(C)]
struct Request {
    size: u32,
    spare: u32,
    mount: u64,
    fields: u64,
}

fn ask(mount: u64, answer: &mut [u8]) -> Result<(), Errno> {
    let request = Request { size: size_of::<Request>() as u32, spare: 0, mount, fields: ASKED };
    let (at, len) = (answer.as_mut_ptr(), answer.len());
    // SAFETY: the kernel reads `size` bytes of the request, and writes at most `len` bytes to `at`;
    // both are alive, and the second is not read meanwhile.
    let result = unsafe { libc::syscall(SYS_STATMOUNT, &raw const request, at, len, 0_u32) };
    if result == 0 {
        return Ok(());
    }
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    Err(Errno::from_raw_os_error(errno))
}

/// Reads `struct statmount`, of which every string is as the table unescapes it, but for the options.
fn parse(answer: &[u8]) -> Option<Mount> {
    let long = |at: usize| Some(u64::from_ne_bytes(answer.get(at..at + 8)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let (given, known) = (long(8)?, long(144)?);
    if given & ALWAYS != ALWAYS || known & ASKED != ASKED {
        return None;
    }
    // A string that is not given is empty.
    let string = |field: u64, at: usize| {
        let begin = STRINGS.checked_add(word(at)? as usize)?;
        let bytes = if given & field == 0 { &[][..] } else { answer.get(begin..)? };
        bytes.split(|&byte| byte == 0).next().or(Some(&[]))
    };
    let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();

    let mut filesystem = text(string(FS_TYPE, 36)?);
    let subtype = string(FS_SUBTYPE, 120)?;
    if !subtype.is_empty() {
        filesystem = format!("{filesystem}.{}", text(subtype));
    }
    let mut security = Vec::new();
    if given & OPT_SEC_ARRAY != 0 {
        let begin = STRINGS.checked_add(word(140)? as usize)?;
        let mut strings = answer.get(begin..)?.split(|&byte| byte == 0);
        for _ in 0..word(136)? {
            security.push(text(strings.next()?));
        }
    }
    // In the order of the table: fs/proc_namespace.c `show_mountinfo`.
    let mut options = Vec::new();
    let mut push = |option: String| {
        if !options.contains(&option) {
            options.push(option);
        }
    };
    of_the_mount(long(64)?).chain(of_the_filesystem(word(32)?)).for_each(&mut push);
    security.into_iter().chain(split_options(string(MNT_OPTS, 4)?)).for_each(&mut push);
    let (point, root) = (path(string(MNT_POINT, 108)?), path(string(MNT_ROOT, 104)?));
    let source = text(string(SB_SOURCE, 124)?);
    let device = (word(16)?, word(20)?);
    let id = u64::from(word(56)?);
    let whole = !point.as_os_str().is_empty() && !filesystem.is_empty();
    whole.then_some(Mount { id, point, root, filesystem, source, options, device })
}

/// `MOUNT_ATTR_*` as the table spells them (fs/proc_namespace.c `show_vfsmnt_opts`).
fn of_the_mount(attributes: u64) -> impl Iterator<Item = String> {
    const ATIME: u64 = 0x70;
    let has = move |bits: u64| attributes & bits == bits;
    [
        (if has(0x1) { "ro" } else { "rw" }, true),
        ("nosuid", has(0x2)),
        ("nodev", has(0x4)),
        ("noexec", has(0x8)),
        ("noatime", attributes & ATIME == 0x10),
        ("nodiratime", has(0x80)),
        ("relatime", attributes & ATIME == 0),
        ("nosymfollow", has(0x20_0000)),
        ("idmapped", has(0x10_0000)),
    ]
    .into_iter()
    .filter(|(_, set)| *set)
    .map(|(name, _)| name.to_owned())
}

/// `SB_*` as the table spells them (the same file, `show_sb_opts`).
fn of_the_filesystem(flags: u32) -> impl Iterator<Item = String> {
    let has = move |bits: u32| flags & bits == bits;
    [
        (if has(0x1) { "ro" } else { "rw" }, true),
        ("sync", has(0x10)),
        ("dirsync", has(0x80)),
        ("lazytime", has(1 << 25)),
    ]
    .into_iter()
    .filter(|(_, set)| *set)
    .map(|(name, _)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// An answer with these fields given, strings at the offsets that it says.
    fn answer(given: u64, known: u64) -> Vec<u8> {
        let mut out = vec![0; STRINGS];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(8, &given.to_ne_bytes());
        put(144, &known.to_ne_bytes());
        put(16, &8_u32.to_ne_bytes());
        put(20, &1_u32.to_ne_bytes());
        put(32, &(0x10_u32 | 1 << 25).to_ne_bytes());
        put(56, &77_u32.to_ne_bytes());
        put(64, &(0x1_u64 | 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x10_0000 | 0x20_0000).to_ne_bytes());
        put(136, &2_u32.to_ne_bytes());
        let mut strings = Vec::new();
        for (at, bytes) in [
            (4, &br"nobarrier,x=a\054b"[..]),
            (36, b"fuse"),
            (104, b"/a b"),
            (108, b"/point"),
            (120, b"sshfs"),
            (124, b"/dev/a"),
            (140, b"seclabel\0context=x,y"),
        ] {
            let offset = u32::try_from(strings.len()).unwrap();
            out[at..at + 4].copy_from_slice(&offset.to_ne_bytes());
            strings.extend_from_slice(bytes);
            strings.push(0);
        }
        [out, strings].concat()
    }

    #[test]
    fn every_field_has_its_place() {
        let mount = parse(&answer(ASKED, ASKED)).unwrap();
        assert_eq!((mount.id, mount.device), (77, (8, 1)));
        assert_eq!(mount.point, std::path::Path::new("/point"));
        assert_eq!(mount.root, std::path::Path::new("/a b"));
        assert_eq!((mount.filesystem.as_str(), mount.source.as_str()), ("fuse.sshfs", "/dev/a"));
        let options = "ro nosuid nodev noexec noatime nodiratime nosymfollow idmapped rw sync \
                       lazytime seclabel context=x,y nobarrier x=a,b";
        assert_eq!(mount.options.join(" "), options);
    }

    /// What a kernel does not say that it knows is not taken for empty.
    #[test]
    fn a_kernel_that_may_leave_something_out_is_not_believed() {
        for missing in [SB_BASIC, MNT_BASIC, MNT_ROOT, MNT_POINT, FS_TYPE, SUPPORTED_MASK] {
            assert_eq!(parse(&answer(ASKED & !missing, ASKED)), None, "given {missing:#x}");
        }
        for unknown in (0..13).map(|bit| 1 << bit).filter(|bit| ASKED & bit != 0) {
            assert_eq!(parse(&answer(ASKED, ASKED & !unknown)), None, "known {unknown:#x}");
        }
        let mount = parse(&answer(ALWAYS, ASKED)).unwrap();
        assert_eq!((mount.filesystem.as_str(), mount.source.as_str()), ("fuse", ""));
        assert_eq!(mount.options.last().map(String::as_str), Some("lazytime"));
    }

    #[test]
    fn a_mount_without_a_point_or_a_type_is_none() {
        let whole = answer(ASKED, ASKED);
        assert!(parse(&whole).is_some());
        for at in [36, 108] {
            // Where a string ends, an empty one begins.
            let begin = STRINGS + u32::from_ne_bytes(whole[at..][..4].try_into().unwrap()) as usize;
            let end = whole[begin..].iter().position(|&byte| byte == 0).unwrap() + begin - STRINGS;
            let mut without = answer(ASKED & !FS_SUBTYPE, ASKED);
            without[at..][..4].copy_from_slice(&u32::try_from(end).unwrap().to_ne_bytes());
            assert_eq!(parse(&without), None, "{at}");
        }
    }

    #[test]
    fn times_of_access() {
        let says = |attributes| of_the_mount(attributes).collect::<Vec<_>>().join(" ");
        assert_eq!(says(0), "rw relatime");
        assert_eq!(says(0x10), "rw noatime");
        assert_eq!(says(0x20), "rw");
        assert_eq!(of_the_filesystem(0x1 | 0x80).collect::<Vec<_>>(), ["ro", "dirsync"]);
    }

    #[test]
    fn offsets_past_the_end_are_survived() {
        let whole = answer(ASKED, ASKED);
        for len in 0..whole.len() {
            let _ = parse(&whole[..len]);
        }
        for at in [4, 36, 104, 108, 120, 124, 136, 140] {
            let mut wrong = whole.clone();
            wrong[at..at + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
            assert_eq!(parse(&wrong), None, "{at}");
        }
    }

    /// The kernel that runs says the same of a mount in both ways, if it says it in both.
    #[test]
    fn as_the_table_has_it() {
        let sources = super::super::Sources::system();
        let table = super::super::mountinfo::Mounts::of(&sources);
        let mut compared = 0;
        for mount in table.iter() {
            let Ok(fd) = super::super::open_path(&mount.point) else { continue };
            // Another mount may hide it.
            if let Some(found) = of_file(fd.as_fd()).filter(|found| found.id == mount.id) {
                assert_eq!(&found, mount);
                compared += 1;
            }
        }
        // A number that no mount has tells whether this process may ask; 6.15 can say all.
        let may_ask = ask(1 << 62, &mut [0; 1024]) == Err(Errno::NOENT);
        let release = sources.text("/proc/sys/kernel/osrelease").unwrap();
        let mut parts = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (parts.next().unwrap(), parts.next().unwrap());
        if may_ask && version >= (6, 15) {
            assert!(compared > 0, "{release}");
        }
    }
}
