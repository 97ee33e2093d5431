//! Copies that the kernel makes for us, such that aligned 8-byte words stay whole but for an
//! interrupt.
//!
//! A kernel copies from where it is told on, in pieces as large as they come: words in the middle
//! of a copy from or to an odd offset lie across its pieces, and another thread or process sees
//! them torn. So a read is made from the word boundary before it into a buffer of the same
//! alignment, and a write is cut at its first and last word boundary into segments of one call,
//! from a copy of the same alignment if need be: a copy between different alignments is made of
//! pieces that suit either side.
//!
//! What this cannot help: an interrupt may stop the kernel's copy within a word, and who looks
//! meanwhile sees it torn (measured: once in a minute or so of racing threads). A region keeps its
//! own readers and writers apart where it matters; another process, or another region of the same
//! file, can see it.
//!
//! # Safety
//!
//! process_vm_readv(2) and process_vm_writev(2) are told addresses of this process; the kernel
//! checks every page of the shared side instead of faulting.
#![allow(unsafe_code)]

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use rustix::io::{self, Errno};

use super::calls;
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

/// Bytes that are copied at once to give them the alignment of where they go.
const REALIGNED: usize = 64 << 10;

/// Writes all of `data` to position `at`, by `call(segments, position)`, which writes the
/// segments one behind the other and returns how many bytes it wrote.
fn write_words<E>(
    at: usize,
    data: &[u8],
    mut call: impl FnMut([&[u8]; 3], usize) -> Result<usize, E>,
) -> Result<(), E> {
    let mut words: Vec<u64> = Vec::new();
    let mut done = 0;
    while done < data.len() {
        let (at, rest) = (at + done, &data[done..]);
        let within = at % WORD;
        let piece = if rest.as_ptr().addr() % WORD == within {
            rest
        } else {
            let len = rest.len().min(REALIGNED);
            words.resize((within + len).div_ceil(WORD).max(words.len()), 0);
            // SAFETY: the words are initialised, and so are the bytes they are made of.
            let bytes = unsafe {
                std::slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u8>(), words.len() * WORD)
            };
            bytes[within..within + len].copy_from_slice(&rest[..len]);
            &bytes[within..within + len]
        };
        let (head, tail) = cuts(at, piece.len());
        done += call([&piece[..head], &piece[head..tail], &piece[tail..]], at)?;
    }
    Ok(())
}

/// Whether the kernel makes such copies of memory that is there.
pub(super) fn check() -> Result<(), Errno> {
    let (from, mut to) = (0_u8, 0_u8);
    let local = libc::iovec { iov_base: (&raw mut to).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: (&raw const from).cast_mut().cast(), iov_len: 1 };
    // SAFETY: both sides are a byte of this frame.
    let got = unsafe {
        libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
    };
    if got == 1 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    }
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
    write_words(shared.addr(), data, |parts, at| {
        let remote = libc::iovec {
            iov_base: shared.with_addr(at).cast(),
            iov_len: parts.iter().map(|part| part.len()).sum(),
        };
        let local = parts.map(|part| libc::iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        });
        // SAFETY: the segments are only read from; the kernel checks the shared side.
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
        usize::try_from(wrote).ok().filter(|&wrote| wrote > 0).ok_or(Fault)
    })
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
    write_words(at as usize, data, |parts, at| {
        let wrote = match parts {
            [only, [], []] | [[], only, []] | [[], [], only] => calls::pwrite(fd, only, at as u64),
            parts => calls::pwritev(fd, &parts.map(IoSlice::new), at as u64),
        };
        match wrote {
            // A write of nothing that is no error would loop for ever.
            Ok(0) => Err(Errno::IO),
            Err(Errno::INTR) => Ok(0),
            result => result,
        }
    })
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

    /// Whole words come from word boundaries and go to word boundaries; every byte arrives.
    #[test]
    fn every_offset_length_and_source_is_written_in_aligned_words() {
        let source: Vec<u8> = (0..3 * REALIGNED).map(|i| (i * 7 + i / 256) as u8).collect();
        let lens = (0..40).chain([4096, 4099, REALIGNED - 1, REALIGNED + 9, 2 * REALIGNED + 50]);
        for len in lens {
            for at in 0..9 {
                for skipped in 0..9 {
                    let data = &source[skipped..skipped + len];
                    let mut found = vec![0; len];
                    // Now and then less is written than was asked for.
                    let mut short = 0;
                    write_words(at, data, |[head, words, tail], to| {
                        if !words.is_empty() {
                            assert_eq!((to + head.len()) % WORD, 0);
                            assert_eq!(words.as_ptr().addr() % WORD, 0);
                            assert_eq!(words.len() % WORD, 0);
                        }
                        short = (short + 5) % 11;
                        let all = [head, words, tail].concat();
                        let wrote = if short % 3 == 0 { all.len().min(short) } else { all.len() };
                        found[to - at..to - at + wrote].copy_from_slice(&all[..wrote]);
                        Ok::<_, ()>(wrote)
                    })
                    .unwrap();
                    assert!(found == data, "{len} bytes to {at} from {skipped}");
                }
            }
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
