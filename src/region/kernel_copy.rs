//! Copies that the kernel makes for us, such that aligned 8-byte words stay whole.
//!
//! A kernel copies from where it is told on, in pieces as large as they come: words in the middle
//! of a copy from or to an odd offset lie across its pieces, and another thread or process sees
//! them torn. So a read is made from the word boundary before it into a buffer of the same
//! alignment, and a write is cut at its first and last word boundary into segments of one call.
//!
//! # Safety
//!
//! process_vm_readv(2) and process_vm_writev(2) are told addresses of this process; the kernel
//! checks every page of the shared side instead of faulting.
#![allow(unsafe_code)]

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use rustix::io::{self, Errno};

use crate::cpu::Fault;

const WORD: usize = 8;
/// Bytes that one call reads, at most: pages end on multiples of it, or are multiples of it.
const PIECE: usize = 4096;

#[repr(align(4096))]
struct Buffer([u8; PIECE]);

/// Reads `buf.len()` bytes from position `at`, by `call(buffer, position)`, which reads
/// `buffer.len()` bytes from a position and returns how many it got.
fn read_words(
    at: usize,
    buf: &mut [u8],
    mut call: impl FnMut(&mut [u8], usize) -> Option<usize>,
) -> Result<(), Fault> {
    let mut buffer = Buffer([0; PIECE]);
    let mut done = 0;
    while done < buf.len() {
        let from = (at + done) % PIECE;
        let to = (from + buf.len() - done).min(PIECE);
        let (start, end) = (from / WORD * WORD, to.next_multiple_of(WORD));
        let got = call(&mut buffer.0[start..end], at + done - (from - start)).ok_or(Fault)?;
        // The end of a file may cut a word off.
        let got = to.min(start + got);
        if got <= from {
            return Err(Fault);
        }
        buf[done..done + got - from].copy_from_slice(&buffer.0[from..got]);
        done += got - from;
    }
    Ok(())
}

/// Where a write of `len` bytes to `at` is cut: after its first partial word, and before its last.
fn cuts(at: usize, len: usize) -> (usize, usize) {
    let head = (at.next_multiple_of(WORD) - at).min(len);
    (head, head + (len - head) / WORD * WORD)
}

/// Reads memory of this process that may be gone.
pub(super) fn read_memory(shared: *const u8, buf: &mut [u8]) -> Result<(), Fault> {
    read_words(shared.addr(), buf, |buffer, at| {
        let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let remote =
            libc::iovec { iov_base: shared.with_addr(at).cast_mut().cast(), iov_len: buffer.len() };
        // SAFETY: the buffer is writable for its length; the kernel checks the shared side.
        let got = unsafe {
            libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
        };
        usize::try_from(got).ok()
    })
}

/// Writes memory of this process that may be gone.
pub(super) fn write_memory(shared: *mut u8, data: &[u8]) -> Result<(), Fault> {
    let mut done = 0;
    while done < data.len() {
        let (shared, data) = (shared.wrapping_add(done), &data[done..]);
        let (head, tail) = cuts(shared.addr(), data.len());
        let local = [&data[..head], &data[head..tail], &data[tail..]].map(|part| libc::iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        });
        let remote = libc::iovec { iov_base: shared.cast(), iov_len: data.len() };
        // SAFETY: the segments are parts of `data`, only read from; the kernel checks the shared
        // side.
        let wrote = unsafe {
            libc::process_vm_writev(
                libc::getpid(),
                local.as_ptr(),
                local.len() as libc::c_ulong,
                &raw const remote,
                1,
                0,
            )
        };
        match usize::try_from(wrote) {
            Ok(wrote) if wrote > 0 => done += wrote,
            _ => return Err(Fault),
        }
    }
    Ok(())
}

/// Reads from a file that may have become shorter.
pub(super) fn read_file(fd: BorrowedFd<'_>, at: u64, buf: &mut [u8]) -> Result<(), Fault> {
    read_words(at as usize, buf, |buffer, at| {
        loop {
            match io::pread(fd, &mut *buffer, at as u64) {
                Err(Errno::INTR) => {}
                result => return result.ok(),
            }
        }
    })
}

/// Writes all of `data` to a file.
pub(super) fn write_file(fd: BorrowedFd<'_>, at: u64, data: &[u8]) -> Result<(), Errno> {
    let mut done = 0;
    while done < data.len() {
        let (at, data) = (at + done as u64, &data[done..]);
        let (head, tail) = cuts(at as usize, data.len());
        let wrote = if head == 0 || head == data.len() {
            io::pwrite(fd, data, at)
        } else {
            let parts = [&data[..head], &data[head..tail], &data[tail..]].map(IoSlice::new);
            io::pwritev(fd, &parts, at)
        };
        match wrote {
            // A write of nothing that is no error would loop for ever.
            Ok(0) => return Err(Errno::IO),
            Ok(wrote) => done += wrote,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offset_and_length_reads_the_bytes_asked_for_from_word_boundaries() {
        let source: Vec<u8> = (0..3 * PIECE).map(|i| (i * 7 + i / 256) as u8).collect();
        for at in (0..20).chain(PIECE - 20..PIECE + 20) {
            for len in (0..40).chain(PIECE - 10..PIECE + 10) {
                let mut buf = vec![0; len];
                read_words(at, &mut buf, |buffer, from| {
                    assert_eq!(from % WORD, 0);
                    assert_eq!(buffer.as_ptr().addr() % PIECE, from % PIECE);
                    buffer.copy_from_slice(&source[from..from + buffer.len()]);
                    Some(buffer.len())
                })
                .unwrap();
                assert_eq!(buf, source[at..at + len], "{len} at {at}");
            }
        }
    }

    #[test]
    fn a_source_that_ends_within_the_range_is_a_fault_and_past_it_is_none() {
        for end in 0..64 {
            let mut buf = [0; 20];
            let read = read_words(13, &mut buf, |buffer, from| {
                Some(buffer.len().min(usize::saturating_sub(end, from)))
            });
            assert_eq!(read.is_ok(), end >= 33, "{end}");
        }
    }

    #[test]
    fn cuts_are_word_boundaries() {
        for at in 0..16 {
            for len in 0..40 {
                let (head, tail) = cuts(at, len);
                assert!(head <= tail && tail <= len && head < WORD && len - tail < WORD);
                assert!(head == len || (at + head) % WORD == 0);
                assert_eq!((tail - head) % WORD, 0);
            }
        }
    }
}
