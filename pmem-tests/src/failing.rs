//! System calls that fail on demand, for one piece of work and one thread only.
//!
//! A seccomp filter answers the chosen call with an errno instead of running it (seccomp(2)).
//! Filters belong to a thread and cannot be taken off, so the work runs in a thread of its own,
//! which ends with it.
#![allow(unsafe_code)]

use std::io;

use libc::{c_int, c_long, c_ulong};

/// Runs `work` in a thread in which the system call `number` fails with `errno`.
///
/// # Panics
///
/// If the filter cannot be installed, or `work` panics.
pub fn with_failing<T: Send>(number: c_long, errno: c_int, work: impl FnOnce() -> T + Send) -> T {
    with_filter(&filter(number, errno), work)
}

/// As [`with_failing`], for calls whose argument `index` has all of these bits set.
///
/// # Panics
///
/// As [`with_failing`].
pub fn with_failing_bits<T: Send>(
    number: c_long,
    index: u32,
    bits: u32,
    errno: c_int,
    work: impl FnOnce() -> T + Send,
) -> T {
    with_filter(&filter_bits(number, index, bits, errno), work)
}

fn with_filter<T: Send>(filter: &[libc::sock_filter], work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let run = || {
            install(filter).expect("a seccomp filter can be installed");
            work()
        };
        match scope.spawn(run).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
/// Offset of `nr` in `struct seccomp_data`.
const NUMBER: u32 = 0;
/// Offset of `args` in `struct seccomp_data`; each has 8 bytes.
const ARGUMENTS: u32 = 16;

fn refuse(errno: c_int) -> libc::sock_filter {
    statement(RETURN, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs())
}

fn filter(number: c_long, errno: c_int) -> Vec<libc::sock_filter> {
    vec![
        statement(LOAD, NUMBER),
        jump(EQUAL, number.unsigned_abs() as u32, 0, 1),
        refuse(errno),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
    ]
}

fn filter_bits(number: c_long, index: u32, bits: u32, errno: c_int) -> Vec<libc::sock_filter> {
    vec![
        statement(LOAD, NUMBER),
        jump(EQUAL, number.unsigned_abs() as u32, 0, 4),
        // The low half: the machines this runs on are little-endian.
        statement(LOAD, ARGUMENTS + 8 * index),
        statement(AND, bits),
        jump(EQUAL, bits, 0, 1),
        refuse(errno),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
    ]
}

fn install(filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    let one: c_ulong = 1;
    let none: c_ulong = 0;
    // SAFETY: PR_SET_NO_NEW_PRIVS takes numbers only; PR_SET_SECCOMP reads the program, which is
    // valid for the call. Both concern the calling thread alone.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, one, none, none, none) != 0
            || libc::prctl(
                libc::PR_SET_SECCOMP,
                c_ulong::from(libc::SECCOMP_MODE_FILTER),
                &raw const program,
            ) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}
