//! Stores past the page table: into a buffer of the set that is registered with io_uring. The kernel
//! marks none of them.
#![allow(unsafe_code, clippy::cast_ptr_alignment)] // the kernel aligns its words

use std::fs::File;
use std::io::{Error, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use daxmap::checkpoint::{Options, Strategy, WorkingSet};
use daxmap::{AnyRegion, Emulation};

const PAGE: u64 = 4096;
const PAGES: u64 = 64;

/// `struct io_uring_params` (include/uapi/linux/io_uring.h) as 32-bit words: `sq_off` begins with word
/// 10, `cq_off` with word 20.
type Params = [u32; 30];
const SQ_TAIL: usize = 11;
const SQ_MASK: usize = 12;
const SQ_ARRAY: usize = 16;
const CQ_HEAD: usize = 20;
const CQ_MASK: usize = 22;
const CQ_CQES: usize = 25;
const OFF_SQES: libc::off_t = 0x1000_0000;
const OP_READ_FIXED: u8 = 4;
const REGISTER_BUFFERS: u32 = 0;
const UNREGISTER_BUFFERS: u32 = 1;
const RING_BYTES: usize = 4096;

/// A ring for one request at a time.
struct Ring {
    fd: OwnedFd,
    params: Params,
    queues: *mut u8,
    entries: *mut u8,
}

impl Ring {
    fn new() -> Self {
        let mut params: Params = [0; 30];
        // SAFETY: the structure has the kernel's size, 120 bytes.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, params.as_mut_ptr()) };
        assert!(fd >= 0, "this test needs io_uring: {}", Error::last_os_error());
        // SAFETY: new, and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        let map = |offset| {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a new mapping where the kernel likes.
            let at = unsafe {
                libc::mmap(
                    ptr::null_mut(),
                    RING_BYTES,
                    access,
                    libc::MAP_SHARED,
                    fd.as_raw_fd(),
                    offset,
                )
            };
            assert_ne!(at, libc::MAP_FAILED, "{}", Error::last_os_error());
            at.cast::<u8>()
        };
        let (queues, entries) = (map(0), map(OFF_SQES));
        Self { fd, params, queues, entries }
    }

    fn register(&self, what: u32, buffer: &[libc::iovec]) {
        let (fd, len) = (self.fd.as_raw_fd(), buffer.len());
        let vectors = if len == 0 { ptr::null() } else { buffer.as_ptr() };
        // SAFETY: the kernel reads `len` vectors.
        let done = unsafe { libc::syscall(libc::SYS_io_uring_register, fd, what, vectors, len) };
        assert_eq!(done, 0, "{}", Error::last_os_error());
    }

    fn word(&self, place: usize) -> &AtomicU32 {
        // SAFETY: the kernel says where in the mapping its words are, aligned.
        unsafe { &*self.queues.add(self.params[place] as usize).cast::<AtomicU32>() }
    }

    /// Reads from the start of a file into the buffer that is registered.
    fn read_fixed(&self, from: &File, into: *mut u8, len: u32) {
        let mut entry = [0_u8; 64];
        entry[0] = OP_READ_FIXED;
        entry[4..8].copy_from_slice(&from.as_raw_fd().to_le_bytes());
        entry[16..24].copy_from_slice(&(into as u64).to_le_bytes());
        entry[24..28].copy_from_slice(&len.to_le_bytes());
        let tail = self.word(SQ_TAIL).load(Ordering::Acquire);
        let slot = tail & self.word(SQ_MASK).load(Ordering::Relaxed);
        // SAFETY: both places are in the mappings: the ring has four slots.
        unsafe {
            self.entries.add(64 * slot as usize).copy_from_nonoverlapping(entry.as_ptr(), 64);
            let array = self.queues.add(self.params[SQ_ARRAY] as usize).cast::<u32>();
            array.add(slot as usize).write(slot);
        }
        self.word(SQ_TAIL).store(tail + 1, Ordering::Release);
        let fd = self.fd.as_raw_fd();
        let none = ptr::null::<u8>();
        // SAFETY: one request, whose buffer is registered; it waits for the end of it.
        let done = unsafe { libc::syscall(libc::SYS_io_uring_enter, fd, 1, 1, 1, none, 0) };
        assert_eq!(done, 1, "{}", Error::last_os_error());
        let head = self.word(CQ_HEAD).load(Ordering::Acquire);
        let slot = head & self.word(CQ_MASK).load(Ordering::Relaxed);
        // SAFETY: a completion of 16 bytes: user data, then the result.
        let result = unsafe {
            self.queues
                .add(self.params[CQ_CQES] as usize + 16 * slot as usize + 8)
                .cast::<i32>()
                .read()
        };
        self.word(CQ_HEAD).store(head + 1, Ordering::Release);
        assert_eq!(result, len.cast_signed());
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for at in [self.queues, self.entries] {
            // SAFETY: a mapping of `new`.
            unsafe { libc::munmap(at.cast(), RING_BYTES) };
        }
    }
}

fn full_of(byte: u8) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[byte; 2 * PAGE as usize]).unwrap();
    file
}

/// What is in the file.
fn saved(set: &WorkingSet<AnyRegion>, options: &Options) -> Vec<u8> {
    let reader = WorkingSet::open(set.region(), &options.clone().read_only(true)).unwrap();
    reader.bytes().to_vec()
}

#[test]
fn what_is_read_into_a_registered_buffer_is_saved() {
    for registered_before in [true, false] {
        let options = Options::new(PAGES * PAGE).strategy(Strategy::Shadow);
        let region =
            daxmap::Options::new().len(4 << 20).emulate(Emulation::Adr).in_memory().unwrap();
        let mut set = WorkingSet::format(region, &options).unwrap();
        set.slice_mut(0, PAGES * PAGE).unwrap().fill(1);
        let base = set.pointer().unwrap().as_ptr();
        let ring = Ring::new();
        // SAFETY: within the set.
        let buffer = unsafe { base.add(4 * PAGE as usize) };
        let vector = libc::iovec { iov_base: buffer.cast(), iov_len: 4 * PAGE as usize };
        if registered_before {
            ring.register(REGISTER_BUFFERS, &[vector]);
        }
        set.checkpoint().unwrap();
        if !registered_before {
            ring.register(REGISTER_BUFFERS, &[vector]);
        }
        for byte in 2..6 {
            ring.read_fixed(&full_of(byte), buffer, 2 * PAGE as u32);
            assert_eq!(set.bytes()[5 * PAGE as usize], byte);
            set.checkpoint().unwrap();
            assert!(saved(&set, &options) == set.bytes(), "{registered_before}, {byte}");
        }
        // The last one is before the pin goes.
        ring.read_fixed(&full_of(9), buffer, 2 * PAGE as u32);
        ring.register(UNREGISTER_BUFFERS, &[]);
        set.checkpoint().unwrap();
        assert!(saved(&set, &options) == set.bytes(), "{registered_before}, unregistered");
        assert_eq!(set.checkpoint().unwrap().bytes, 0);
        // SAFETY: within the set, of which no slice is alive.
        unsafe { base.write(7) };
        assert_eq!(set.checkpoint().unwrap().bytes, PAGE);
        assert!(saved(&set, &options) == set.bytes());
    }
}
