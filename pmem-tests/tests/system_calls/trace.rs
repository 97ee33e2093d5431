//! Notes the system calls of a program between its two breakpoints.
//!
//! # Safety
//!
//! ptrace(2) of a child that this thread started and nobody else waits for; the structures it
//! fills are plain numbers.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One system call.
#[derive(Debug)]
pub struct Call {
    /// Its name, for those that matter; the others are called `other`.
    pub name: &'static str,
    /// What its first argument stands for, if that is an open file.
    pub path: Option<PathBuf>,
}

impl Call {
    /// True if the call changes a file, a name, or what is durable.
    pub fn changes_files(&self) -> bool {
        self.name != "other"
    }
}

fn name(number: libc::c_long) -> &'static str {
    match number {
        libc::SYS_fallocate => "fallocate",
        libc::SYS_write => "write",
        libc::SYS_pwrite64 => "pwrite64",
        libc::SYS_pwritev => "pwritev",
        libc::SYS_pwritev2 => "pwritev2",
        libc::SYS_ftruncate => "ftruncate",
        libc::SYS_fsync => "fsync",
        libc::SYS_fdatasync => "fdatasync",
        libc::SYS_sync_file_range => "sync_file_range",
        libc::SYS_syncfs => "syncfs",
        libc::SYS_msync => "msync",
        libc::SYS_linkat => "linkat",
        libc::SYS_unlinkat => "unlinkat",
        libc::SYS_renameat2 => "renameat2",
        _ => "other",
    }
}

/// A stop at a system call, with `PTRACE_O_TRACESYSGOOD`.
const AT_CALL: libc::c_int = libc::SIGTRAP | 0x80;

/// Lets the program go on, and returns the signal that stops it next.
fn resume(pid: libc::pid_t, request: libc::c_uint) -> libc::c_int {
    let mut status = 0;
    // SAFETY: the child is stopped; no address or data; `status` is written.
    let waited = unsafe {
        let went = libc::ptrace(request, pid, 0_usize, 0_usize);
        assert_eq!(went, 0, "ptrace: {}", std::io::Error::last_os_error());
        libc::waitpid(pid, &raw mut status, 0)
    };
    assert_eq!(waited, pid, "waitpid");
    assert!(libc::WIFSTOPPED(status), "the program ended before its breakpoint: {status:#x}");
    libc::WSTOPSIG(status)
}

/// Starts the program, and notes the system calls between its breakpoints.
pub fn calls(program: &Path, arguments: &[&str]) -> Vec<Call> {
    let mut command = Command::new(program);
    command.args(arguments);
    let trace_me = || {
        // SAFETY: no address or data.
        let traced = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0_usize, 0_usize) };
        if traced == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: ptrace is async-signal-safe as a bare system call.
    unsafe { command.pre_exec(trace_me) };
    let mut child = command.spawn().expect("the program starts, traced");
    let pid = child.id().cast_signed();
    let mut status = 0;
    // SAFETY: our child, which stops when it has been loaded; the option is a number.
    unsafe {
        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid, "waitpid");
        let set = libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0_usize, libc::PTRACE_O_TRACESYSGOOD);
        assert_eq!(set, 0, "ptrace: {}", std::io::Error::last_os_error());
    }
    assert_eq!(resume(pid, libc::PTRACE_CONT), libc::SIGTRAP, "the first breakpoint");
    let mut calls = Vec::new();
    let mut entering = true;
    loop {
        match resume(pid, libc::PTRACE_SYSCALL) {
            AT_CALL => {
                if entering {
                    calls.push(call(pid));
                }
                entering = !entering;
            }
            libc::SIGTRAP => break,
            signal => panic!("the program was stopped by signal {signal}"),
        }
    }
    // It runs to its end, so that what it opened is closed.
    // SAFETY: the child is stopped; no address or data.
    unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, 0_usize, 0_usize) };
    assert!(child.wait().expect("the child ends").success(), "{arguments:?}: the case failed");
    calls
}

fn call(pid: libc::pid_t) -> Call {
    // SAFETY: a structure of numbers, filled by the kernel.
    let registers = unsafe {
        let mut registers: libc::user_regs_struct = std::mem::zeroed();
        let got = libc::ptrace(libc::PTRACE_GETREGS, pid, 0_usize, &raw mut registers);
        assert_eq!(got, 0, "ptrace: {}", std::io::Error::last_os_error());
        registers
    };
    let path = std::fs::read_link(format!("/proc/{pid}/fd/{}", registers.rdi)).ok();
    Call { name: name(registers.orig_rax.cast_signed()), path }
}
