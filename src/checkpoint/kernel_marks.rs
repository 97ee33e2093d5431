//! Which pages were stored into, as the kernel saw it: userfaultfd(2) in its asynchronous
//! write-protect mode, and the ioctl `PAGEMAP_SCAN` (Linux 6.7).
//!
//! The first store to a protected page is a fault that the kernel settles by itself, without
//! waking anybody: it lifts the protection and remembers. A scan names the pages whose protection
//! is lifted and protects them again, each in one step (Documentation/admin-guide/mm/pagemap.rst).
//! Pages that were never touched are protected as well. No privilege is needed: faults of the
//! process's own code and of its system calls are settled in the kernel alike.
//!
//! A child of fork(2) has the memory and not the marks; it cannot save.
//!
//! # Safety
//!
//! The danger here is the kernel writing past a buffer. Each structure is laid out as in the
//! kernel's header named beside it, with its size checked against the size the request number
//! carries. Protection changes no byte of the memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use super::changes::Changes;
use super::comparison::Comparison;
use super::memory::Memory;
use crate::format::PAGE;

/// `UFFD_USER_MODE_ONLY`, `UFFD_API`, features and modes (include/uapi/linux/userfaultfd.h).
const UFFD_USER_MODE_ONLY: libc::c_int = 1;
const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;
/// `_IOWR(0xAA, 0x3F, struct uffdio_api)`.
const UFFDIO_API: libc::Ioctl = 0xc018_aa3f_u32 as libc::Ioctl;
/// `_IOWR(0xAA, 0x00, struct uffdio_register)`.
const UFFDIO_REGISTER: libc::Ioctl = 0xc020_aa00_u32 as libc::Ioctl;
/// `_IOWR('f', 16, struct pm_scan_arg)` (include/uapi/linux/fs.h), its flags and categories.
const PAGEMAP_SCAN: libc::Ioctl = 0xc060_6610_u32 as libc::Ioctl;
const PM_SCAN_WP_MATCHING: u64 = 1 << 0;
const PM_SCAN_CHECK_WPASYNC: u64 = 1 << 1;
const PAGE_IS_WRITTEN: u64 = 1 << 1;

/// `struct uffdio_api`.
#[repr(C)]
#[derive(Default)]
#[allow(clippy::struct_field_names)] // the kernel's name
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}
const _: () = assert!(size_of::<Api>() == (UFFDIO_API >> 16 & 0x3fff) as usize);

/// `struct uffdio_register`.
#[repr(C)]
#[derive(Default)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}
const _: () = assert!(size_of::<Register>() == (UFFDIO_REGISTER >> 16 & 0x3fff) as usize);

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}
const _: () = assert!(size_of::<Scan>() == (PAGEMAP_SCAN >> 16 & 0x3fff) as usize);

/// Runs of pages that one system call tells of.
const RUNS: usize = 512;

/// The marks of a memory.
#[derive(Debug)]
pub(super) struct KernelMarks {
    /// The protection lasts as long as this is open.
    fault_fd: OwnedFd,
    pagemap: File,
    /// `/proc/self/status`, which has how much memory is pinned.
    status: File,
    /// While memory is pinned.
    pinned: Option<Comparison>,
    runs: Vec<PageRegion>,
}

impl KernelMarks {
    /// Protects the whole memory. Fails where the kernel cannot do it, or may not.
    pub(super) fn start(memory: &Memory) -> Result<Self, Errno> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | UFFD_USER_MODE_ONLY;
        // SAFETY: takes a number, returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        if fd < 0 {
            return Err(last_error());
        }
        // SAFETY: new, and nobody else's.
        let fault_fd = unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) };
        let mut api = Api { api: UFFD_API, features: UFFD_FEATURE_WP_ASYNC, ..Api::default() };
        // SAFETY: the structure is the kernel's, checked above, and lives across the call.
        ask(unsafe { libc::ioctl(fault_fd.as_raw_fd(), UFFDIO_API, &raw mut api) })?;
        let (start, end) = span(memory);
        let mode = UFFDIO_REGISTER_MODE_WP;
        let mut register = Register { start, len: end - start, mode, ..Register::default() };
        // SAFETY: as above; the range is the memory's own mapping.
        ask(unsafe { libc::ioctl(fault_fd.as_raw_fd(), UFFDIO_REGISTER, &raw mut register) })?;
        let failed = |error: std::io::Error| {
            error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
        };
        let pagemap = File::open("/proc/self/pagemap").map_err(failed)?;
        let status = File::open("/proc/self/status").map_err(failed)?;
        let runs = vec![PageRegion::default(); RUNS];
        let mut marks = Self { fault_fd, pagemap, status, pinned: None, runs };
        marks.scan(memory, |_, _| {})?;
        marks.pinned = is_pinned(&marks.status).then(|| Comparison::of(memory));
        Ok(marks)
    }

    /// Marks the pages that were stored into since the last time.
    ///
    /// Who has pinned a page stores into it past the page table, and leaves no mark: while the process
    /// has pinned memory, and once after, all pages are compared as well.
    pub(super) fn collect(&mut self, memory: &Memory, changes: &mut Changes) -> Result<(), Errno> {
        let pages = memory.bytes().len() as u64 / PAGE;
        self.scan(memory, |start, end| {
            (start / PAGE..end.div_ceil(PAGE).min(pages)).for_each(|page| changes.mark_page(page));
        })?;
        if let Some(before) = &mut self.pinned {
            before.collect(memory, changes);
        }
        // After the scan: a page that is pinned later is marked by that.
        match (is_pinned(&self.status), &self.pinned) {
            (true, None) => self.pinned = Some(Comparison::of(memory)),
            (false, Some(_)) => self.pinned = None,
            (true, Some(_)) | (false, None) => {}
        }
        Ok(())
    }

    /// Gives the descriptors up without closing them: whoever closed one may have given its number to
    /// another file.
    pub(super) fn disown(self) {
        let Self { fault_fd, pagemap, status, .. } = self;
        for fd in [fault_fd, pagemap.into(), status.into()] {
            let _ = fd.into_raw_fd();
        }
    }

    /// Names every run of pages stored into, as offsets in the memory, and protects it again.
    fn scan(&mut self, memory: &Memory, mut run: impl FnMut(u64, u64)) -> Result<(), Errno> {
        let (base, end) = span(memory);
        let mut start = base;
        while start < end {
            let mut scan = Scan {
                size: size_of::<Scan>() as u64,
                flags: PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
                start,
                end,
                vec: self.runs.as_mut_ptr() as u64,
                vec_len: self.runs.len() as u64,
                category_mask: PAGE_IS_WRITTEN,
                return_mask: PAGE_IS_WRITTEN,
                ..Scan::default()
            };
            // SAFETY: the structure is the kernel's, checked above; `vec` has room for `vec_len`
            // runs and is not touched by anybody else during the call.
            let found =
                ask(unsafe { libc::ioctl(self.pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut scan) })?;
            for found in &self.runs[..(found.unsigned_abs() as usize).min(RUNS)] {
                run(found.start - base, found.end - base);
            }
            if scan.walk_end <= start {
                return Err(Errno::IO);
            }
            start = scan.walk_end;
        }
        Ok(())
    }
}

/// Whether the process has memory pinned, as proc(5) has it (`VmPin`): buffers that are registered
/// with io_uring (io_uring/rsrc.c, `io_account_mem`) or for RDMA (drivers/infiniband/core/umem.c). If
/// it cannot be read, it may.
fn is_pinned(status: &File) -> bool {
    let mut text = [0; 4096];
    let Ok(len) = status.read_at(&mut text, 0) else { return true };
    let mut lines = text[..len].split(|byte| *byte == b'\n');
    let pinned = lines.find_map(|line| line.strip_prefix(b"VmPin:"));
    pinned.is_none_or(|amount| amount.iter().any(|byte| matches!(byte, b'1'..=b'9')))
}

/// First byte and end of the pages of the memory.
fn span(memory: &Memory) -> (u64, u64) {
    let start = memory.base().as_ptr() as u64;
    let bytes = memory.bytes().len().next_multiple_of(rustix::param::page_size());
    (start, start + bytes as u64)
}

fn ask(returned: libc::c_int) -> Result<libc::c_int, Errno> {
    if returned < 0 { Err(last_error()) } else { Ok(returned) }
}

fn last_error() -> Errno {
    let error = std::io::Error::last_os_error();
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
