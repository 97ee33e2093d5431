//! `pmem_map_file`: opens or creates, sizes, maps, registers. pmem_is_pmem(3).
//!
//! The order of the checks, and of the calls that set `errno`, is that of PMDK 1.12.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::BorrowedFd;
use std::path::Path;

use daxmap::Durability;
use libc::mode_t;

use crate::device::{Device, File, Unsuited};
use crate::environment::{errno, keeping_errno, set_errno};
use crate::mapping::pmem_is_pmem;
use crate::message::{failed, refuse};
use crate::place;
use crate::registry::{Kind, Range, registry};
use crate::selected::selected;

/// Create the file, or give the one that is there this length.
const CREATE: c_int = 1 << 0;
/// Fail if it is there.
const EXCL: c_int = 1 << 1;
/// Without allocation.
const SPARSE: c_int = 1 << 2;
/// A file without a name, in the directory at the path.
const TMPFILE: c_int = 1 << 3;

/// What was refused is in `errno` and in the message.
struct Refused;

type Result<T> = std::result::Result<T, Refused>;

fn invalid(text: std::fmt::Arguments<'_>) -> Refused {
    refuse(libc::EINVAL, text);
    Refused
}

fn call_failed(what: std::fmt::Arguments<'_>) -> Refused {
    failed(errno(), what);
    Refused
}

/// Maps a file, and creates it if asked to; NULL and `errno` if it cannot. Then neither
/// `*mapped_lenp` nor `*is_pmemp` changes. `errno` after a success is `EOPNOTSUPP` where the
/// filesystem refused MAP_SYNC. pmem_is_pmem(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmem_map_file(
    path: *const c_char,
    len: usize,
    flags: c_int,
    mode: mode_t,
    mapped_lenp: *mut usize,
    is_pmemp: *mut c_int,
) -> *mut c_void {
    // SAFETY: the caller's path.
    let Ok((base, len)) = (unsafe { map_file(path, len, flags, mode) }) else {
        return std::ptr::null_mut();
    };
    // SAFETY: each points to a variable of the caller's, or is NULL.
    unsafe {
        if !mapped_lenp.is_null() {
            *mapped_lenp = len;
        }
        if !is_pmemp.is_null() {
            *is_pmemp = pmem_is_pmem(base, len);
        }
    }
    base
}

/// # Safety
///
/// `path` is NULL or a C string.
unsafe fn map_file(
    path: *const c_char,
    mut len: usize,
    mut flags: c_int,
    mode: mode_t,
) -> Result<(*mut c_void, usize)> {
    let before = errno();
    if path.is_null() {
        return Err(invalid(format_args!("the path is NULL")));
    }
    // SAFETY: a C string.
    let (file, name) = unsafe { (File::at(path), CStr::from_ptr(path)) };
    let name = name.to_string_lossy();
    let file = file.map_err(|unsuited| match unsuited {
        Unsuited::Call(call, errno) => {
            failed(errno, format_args!("{call} of {name}"));
            Refused
        }
        Unsuited::Kind => invalid(format_args!("{name}: neither a file nor device DAX")),
    })?;
    if flags & !(CREATE | EXCL | SPARSE | TMPFILE) != 0 {
        return Err(invalid(format_args!("flags {flags:#x}: not all are known")));
    }
    let device = if let File::Device(device) = file { Some(device) } else { None };
    if let Some(device) = device {
        device_len(device, len, flags)?;
        (len, flags) = (0, 0);
    }
    check(len, flags)?;
    // SAFETY: a C string.
    let fd = unsafe { Fd::open(path, flags, mode, &name)? };
    // SAFETY: as above; the path is that of a file this call created.
    let remove = || unsafe {
        if flags & (CREATE | EXCL | TMPFILE) == CREATE | EXCL {
            libc::unlink(path);
        }
    };
    let mapped = fd
        .set_or_get_len(len, flags, device, &name)
        .and_then(|len| Ok((map(&fd, len, device, &name)?, len)));
    if mapped.is_err() {
        keeping_errno(remove);
    } else if device.is_some() {
        // What was asked of sysfs and of MAP_SYNC is not the caller's.
        set_errno(before);
    }
    mapped
}

/// A device is mapped whole.
fn device_len(device: Device, len: usize, flags: c_int) -> Result<()> {
    if flags & !(CREATE | SPARSE) != 0 {
        return Err(invalid(format_args!("flags {flags:#x}: not for device DAX")));
    }
    match device.len() {
        None => Err(invalid(format_args!("the length of the device cannot be read"))),
        Some(all) if len != 0 && len != all => {
            Err(invalid(format_args!("length {len}: a device of {all} bytes is mapped whole")))
        }
        Some(_) => Ok(()),
    }
}

/// Flags and length that go together.
fn check(len: usize, flags: c_int) -> Result<()> {
    let create = flags & CREATE != 0;
    if create && isize::try_from(len).is_err() {
        return Err(invalid(format_args!("length {len}: no file is so long")));
    }
    if len != 0 && !create {
        return Err(invalid(format_args!("length {len} without PMEM_FILE_CREATE: give 0")));
    }
    if len == 0 && create {
        return Err(invalid(format_args!(
            "length 0 with PMEM_FILE_CREATE: give the file's length"
        )));
    }
    if flags & TMPFILE != 0 && !create {
        return Err(invalid(format_args!("PMEM_FILE_TMPFILE without PMEM_FILE_CREATE")));
    }
    Ok(())
}

/// A descriptor, closed without changing `errno`.
struct Fd(c_int);

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: this descriptor is open, and nobody else's.
        keeping_errno(|| unsafe { libc::close(self.0) });
    }
}

impl Fd {
    /// # Safety
    ///
    /// `path` is a C string.
    unsafe fn open(path: *const c_char, flags: c_int, mode: mode_t, name: &str) -> Result<Self> {
        let mut how = libc::O_RDWR | libc::O_CLOEXEC;
        if flags & EXCL != 0 {
            how |= libc::O_EXCL;
        }
        // SAFETY: a C string.
        let fd = unsafe {
            if flags & TMPFILE != 0 {
                let fd = libc::open(path, how | libc::O_TMPFILE, 0o600);
                if fd < 0 && errno() == libc::EOPNOTSUPP { unnamed(name) } else { fd }
            } else {
                if flags & CREATE != 0 {
                    how |= libc::O_CREAT;
                }
                libc::open(path, how, mode)
            }
        };
        if fd < 0 { Err(call_failed(format_args!("open of {name}"))) } else { Ok(Self(fd)) }
    }

    /// Makes the file as long as asked, or finds how long it is.
    fn set_or_get_len(
        &self,
        len: usize,
        flags: c_int,
        device: Option<Device>,
        name: &str,
    ) -> Result<usize> {
        if let Some(device) = device {
            let len = device.len();
            return len.ok_or_else(|| invalid(format_args!("{name}: its length is gone")));
        }
        if flags & CREATE == 0 {
            let mut found = std::mem::MaybeUninit::<libc::stat>::uninit();
            // SAFETY: an open descriptor, and room for the answer.
            return if unsafe { libc::fstat(self.0, found.as_mut_ptr()) } == 0 {
                // SAFETY: fstat(2) succeeded.
                let len = unsafe { found.assume_init() }.st_size;
                usize::try_from(len).map_err(|_| invalid(format_args!("{name}: negative length")))
            } else {
                Err(call_failed(format_args!("stat of {name}")))
            };
        }
        let long = libc::off_t::try_from(len)
            .map_err(|_| invalid(format_args!("length {len}: no file is so long")))?;
        // SAFETY: an open descriptor.
        if unsafe { libc::ftruncate(self.0, long) } != 0 {
            return Err(call_failed(format_args!("ftruncate of {name} to {len} bytes")));
        }
        if flags & SPARSE == 0 {
            // SAFETY: as above.
            let errno = unsafe { libc::posix_fallocate(self.0, 0, long) };
            // 0 too: the caller finds no older error after a success.
            set_errno(errno);
            if errno != 0 {
                return Err(call_failed(format_args!("allocation of {len} bytes for {name}")));
            }
        }
        Ok(len)
    }
}

/// A file in a directory of a filesystem without O_TMPFILE, and its name removed; or -1.
fn unnamed(directory: &str) -> c_int {
    let mut template = format!("{directory}/pmem.XXXXXX\0").into_bytes();
    // SAFETY: a C string that mkstemp(3) may write into, and then names the file.
    unsafe {
        let fd = libc::mkostemp(template.as_mut_ptr().cast(), libc::O_CLOEXEC);
        if fd >= 0 {
            libc::unlink(template.as_ptr().cast());
        }
        fd
    }
}

/// Maps the file and registers the mapping.
fn map(fd: &Fd, len: usize, device: Option<Device>, name: &str) -> Result<*mut c_void> {
    let selected = selected();
    let place = place::find(len, selected.hint).map_err(|errno| {
        failed(errno, format_args!("no place for a mapping of {len} bytes"));
        Refused
    })?;
    // From the mapping to its registration, no other thread unmaps or registers.
    let mut registry = registry();
    registry.reserve().map_err(|_| Refused)?;
    let mmap = |flags| {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: without MAP_FIXED the address is a wish: no other mapping is replaced.
        unsafe { libc::mmap(place, len, protection, flags, fd.0, 0) }
    };
    // Only with VALIDATE is an answer to MAP_SYNC an answer.
    let mut base = mmap(libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC);
    let synced = base != libc::MAP_FAILED;
    if !synced && matches!(errno(), libc::EINVAL | libc::EOPNOTSUPP) {
        base = mmap(libc::MAP_SHARED);
    }
    if base == libc::MAP_FAILED {
        return Err(call_failed(format_args!("mmap of {len} bytes of {name}")));
    }
    let kind = match device {
        Some(device) => Kind::Device(keeping_errno(|| device.region())),
        None if synced => Kind::Sync,
        None => Kind::Ordinary,
    };
    let pmem = kind != Kind::Ordinary
        && (!selected.strict || keeping_errno(|| survives_power_loss(fd, name)));
    // To the last byte of the file, not of its page: what follows is lost.
    let (start, end) = (base.addr(), base.addr() + len);
    let range = Range { start, end, kind, pmem, failed: None };
    if registry.add(range).is_err() {
        // SAFETY: the mapping made above, which nobody else knows.
        keeping_errno(|| unsafe { libc::munmap(base, len) });
        return Err(Refused);
    }
    Ok(base)
}

/// Whether the probe finds that what is flushed survives a power loss here.
fn survives_power_loss(fd: &Fd, name: &str) -> bool {
    // SAFETY: open while `fd` lives.
    let file = unsafe { BorrowedFd::borrow_raw(fd.0) };
    daxmap::probe::probe_file(file, Path::new(name))
        .is_ok_and(|report| report.durability == Durability::PowerFail)
}
