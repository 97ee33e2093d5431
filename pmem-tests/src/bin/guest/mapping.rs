//! What the kernel says about one file: statx, and trial mappings by raw system calls.
//!
//! # Safety
//!
//! Calls `statx`, `mmap`, `madvise` and `munmap`. Mappings are never turned into references
//! or slices here, and every one that succeeds is removed by its own address and length.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::ptr::{self, NonNull};

use daxmap::Options;

/// Length of a trial mapping, bytes: one huge page, the largest unit any device asks for.
pub const TRIAL_LEN: usize = 2 << 20;

/// Opens a file for the trial; one that is not there is made with a block of zeros.
pub fn open(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(!path.exists())
        .truncate(false)
        .open(path)?;
    if file.metadata()?.is_file() && file.metadata()?.len() == 0 {
        file.write_all(&vec![0; TRIAL_LEN])?;
        file.sync_all()?;
    }
    Ok(file)
}

/// Prints one `key=value` a line.
pub fn print_probe(path: &Path) -> io::Result<()> {
    println!("path={}", path.display());
    let (file, protection) = match open(path) {
        Ok(file) => (file, libc::PROT_READ | libc::PROT_WRITE),
        Err(error) => {
            println!("open_for_writing={error}");
            (File::open(path)?, libc::PROT_READ)
        }
    };
    let metadata = file.metadata()?;
    let kind = match metadata.file_type() {
        t if t.is_char_device() => "char",
        t if t.is_block_device() => "block",
        t if t.is_dir() => "directory",
        _ => "file",
    };
    println!("kind={kind}");
    println!("st_size={}", metadata.len());
    println!("st_dev={}", device_number(metadata.dev()));
    println!("st_rdev={}", device_number(metadata.rdev()));
    println!("f_type={:#x}", filesystem_type(&file)?);

    let statx = statx(path)?;
    println!("statx_dev={}:{}", statx.stx_dev_major, statx.stx_dev_minor);
    println!("statx_attributes={:#x}", statx.stx_attributes);
    println!("statx_attributes_mask={:#x}", statx.stx_attributes_mask);
    let dax = u64::try_from(libc::STATX_ATTR_DAX).expect("a positive bit");
    println!("statx_dax={}", u8::from(statx.stx_attributes & dax != 0));
    println!("statx_dax_known={}", u8::from(statx.stx_attributes_mask & dax != 0));

    for (name, flags) in [
        ("shared_validate_sync", libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC),
        ("shared_sync", libc::MAP_SHARED | libc::MAP_SYNC),
        ("shared_validate", libc::MAP_SHARED_VALIDATE),
        ("shared", libc::MAP_SHARED),
    ] {
        match Trial::map(&file, protection, flags) {
            Ok(_) => println!("mmap_{name}=ok"),
            Err(error) => println!("mmap_{name}={}", errno_name(&error)),
        }
    }
    Ok(())
}

/// Prints what the library says of mappings that it has not made, once it has persisted a range of each.
pub fn print_adopted(path: &Path) -> io::Result<()> {
    println!("path={}", path.display());
    let file = open(path)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    for (name, flags) in
        [("sync", libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC), ("plain", libc::MAP_SHARED)]
    {
        let trial = match Trial::map(&file, protection, flags) {
            Ok(trial) => trial,
            Err(error) => {
                println!("adopted_{name}={}", errno_name(&error));
                continue;
            }
        };
        let start = NonNull::new(trial.address.cast()).expect("a mapping has an address");
        let memory = NonNull::slice_from_raw_parts(start, TRIAL_LEN);
        // SAFETY: the mapping is removed after what is made of it, and synced by nothing else.
        let adopted = unsafe { Options::new().adopt(&file, memory, 0) }?;
        // SAFETY: the first byte is mapped for writing.
        unsafe { trial.address.cast::<u8>().write(1) };
        let before = daxmap::cpu::counts();
        adopted.persist(0, 1)?;
        let spent = daxmap::cpu::counts().since(before);
        println!(
            "adopted_{name}={} {} {} {}",
            adopted.durability(),
            adopted.granularity(),
            spent.write_backs,
            spent.fences
        );
    }
    Ok(())
}

/// A mapping of the first [`TRIAL_LEN`] bytes, removed when dropped.
pub struct Trial {
    /// Where it begins; [`TRIAL_LEN`] bytes long.
    pub address: *mut libc::c_void,
}

impl Trial {
    /// Maps the file with the given `PROT_` and `MAP_` flags.
    pub fn map(file: &File, protection: i32, flags: i32) -> io::Result<Self> {
        // SAFETY: no address is asked for, so no existing mapping is replaced.
        let address = unsafe {
            libc::mmap(ptr::null_mut(), TRIAL_LEN, protection, flags, file.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { address })
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // SAFETY: `map` made this mapping with this length, and it is removed only here.
        unsafe { libc::munmap(self.address, TRIAL_LEN) };
    }
}

fn statx(path: &Path) -> io::Result<libc::statx> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut out = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `path` ends in NUL and `out` is large enough; both live through the call.
    let result = unsafe {
        libc::statx(libc::AT_FDCWD, path.as_ptr(), 0, libc::STATX_BASIC_STATS, out.as_mut_ptr())
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: statx succeeded, and every bit pattern (zeros to begin with) is a valid value.
    Ok(unsafe { out.assume_init() })
}

fn filesystem_type(file: &File) -> io::Result<i64> {
    let mut out = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the descriptor is open and `out` is large enough.
    if unsafe { libc::fstatfs(file.as_raw_fd(), out.as_mut_ptr()) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fstatfs succeeded, and every bit pattern is a valid value.
    Ok(unsafe { out.assume_init() }.f_type)
}

/// `major:minor`.
pub fn device_number(device: u64) -> String {
    format!("{}:{}", libc::major(device), libc::minor(device))
}

fn errno_name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "EOPNOTSUPP".into(),
        Some(libc::EINVAL) => "EINVAL".into(),
        Some(libc::ENODEV) => "ENODEV".into(),
        Some(libc::EACCES) => "EACCES".into(),
        Some(libc::EPERM) => "EPERM".into(),
        _ => error.to_string(),
    }
}
