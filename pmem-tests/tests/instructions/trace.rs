//! Steps through a program between its two breakpoints and notes every instruction.
//!
//! # Safety
//!
//! ptrace(2) of a child that this thread started and nobody else waits for; the structures it
//! fills are plain numbers.
#![allow(unsafe_code)]

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use iced_x86::{Decoder, DecoderOptions, Instruction, InstructionInfoFactory, OpAccess, Register};

/// One executed instruction.
pub struct Step {
    pub instruction: Instruction,
    /// Memory it writes: address and bytes.
    pub writes: Vec<(u64, usize)>,
    /// Memory it names, also where it does not write: the line of a write-back.
    pub touches: Vec<u64>,
}

/// What a run of the program showed.
pub struct Trace {
    /// The region's addresses.
    pub region: std::ops::Range<u64>,
    pub steps: Vec<Step>,
}

const BREAKPOINT: u8 = 0xCC;

fn wait(pid: libc::pid_t) -> libc::c_int {
    let mut status = 0;
    // SAFETY: our child; `status` is written.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid, "waitpid");
    status
}

fn stopped_by_trap(pid: libc::pid_t, request: libc::c_uint) {
    // SAFETY: the child is stopped; no address or data.
    let went = unsafe { libc::ptrace(request, pid, 0_usize, 0_usize) };
    assert_eq!(went, 0, "ptrace: {}", std::io::Error::last_os_error());
    let status = wait(pid);
    let trapped = libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTRAP;
    assert!(trapped, "the program did not reach its breakpoint: status {status:#x}");
}

fn registers(pid: libc::pid_t) -> libc::user_regs_struct {
    // SAFETY: a structure of numbers, filled by the kernel.
    unsafe {
        let mut registers: libc::user_regs_struct = std::mem::zeroed();
        let got = libc::ptrace(libc::PTRACE_GETREGS, pid, 0_usize, &raw mut registers);
        assert_eq!(got, 0, "ptrace: {}", std::io::Error::last_os_error());
        registers
    }
}

fn code(pid: libc::pid_t, at: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 16 };
    let remote = libc::iovec { iov_base: at as *mut libc::c_void, iov_len: 16 };
    // SAFETY: the buffer has 16 bytes; the kernel checks the child's side. A shorter answer
    // leaves zeros.
    unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    bytes
}

fn value(registers: &libc::user_regs_struct, register: Register) -> Option<u64> {
    Some(match register.full_register() {
        Register::RAX => registers.rax,
        Register::RBX => registers.rbx,
        Register::RCX => registers.rcx,
        Register::RDX => registers.rdx,
        Register::RSI => registers.rsi,
        Register::RDI => registers.rdi,
        Register::RBP => registers.rbp,
        Register::RSP => registers.rsp,
        Register::R8 => registers.r8,
        Register::R9 => registers.r9,
        Register::R10 => registers.r10,
        Register::R11 => registers.r11,
        Register::R12 => registers.r12,
        Register::R13 => registers.r13,
        Register::R14 => registers.r14,
        Register::R15 => registers.r15,
        Register::FS => registers.fs_base,
        Register::GS => registers.gs_base,
        Register::CS | Register::DS | Register::ES | Register::SS => 0,
        _ => return None,
    })
}

/// Starts the program, and steps through what lies between its breakpoints.
pub fn trace(program: &Path, arguments: &[&str]) -> Trace {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::piped());
    let trace_me = || {
        // SAFETY: no address or data.
        let traced = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0_usize, 0_usize) };
        if traced == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: ptrace is async-signal-safe as a bare system call.
    unsafe { command.pre_exec(trace_me) };
    let mut child = command.spawn().expect("the program starts, traced");
    let pid = child.id().cast_signed();
    // It stops when it has been loaded.
    let status = wait(pid);
    assert!(libc::WIFSTOPPED(status), "the program did not start: status {status:#x}");
    stopped_by_trap(pid, libc::PTRACE_CONT);

    let mut line = String::new();
    let output = child.stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut line).expect("the program says where its region is");
    let numbers: Vec<u64> = line.split_whitespace().map(|n| n.parse().expect("a number")).collect();
    let region = numbers[0]..numbers[0] + numbers[1];

    let steps = steps(pid);
    child.kill().expect("a child can be killed");
    child.wait().expect("the child ends");
    Trace { region, steps }
}

fn steps(pid: libc::pid_t) -> Vec<Step> {
    let mut factory = InstructionInfoFactory::new();
    let mut steps = Vec::new();
    loop {
        let registers = registers(pid);
        let code = code(pid, registers.rip);
        if code[0] == BREAKPOINT {
            return steps;
        }
        let mut decoder = Decoder::with_ip(64, &code, registers.rip, DecoderOptions::NONE);
        let instruction = decoder.decode();
        assert!(!instruction.is_invalid(), "unknown instruction: {code:02x?}");
        let (mut writes, mut touches) = (Vec::new(), Vec::new());
        for memory in factory.info(&instruction).used_memory() {
            let at = memory.virtual_address(0, |register, _, _| value(&registers, register));
            let Some(at) = at else { continue };
            touches.push(at);
            if matches!(
                memory.access(),
                OpAccess::Write
                    | OpAccess::CondWrite
                    | OpAccess::ReadWrite
                    | OpAccess::ReadCondWrite
            ) {
                writes.push((at, memory.memory_size().size()));
            }
        }
        steps.push(Step { instruction, writes, touches });
        assert!(steps.len() < 1_000_000, "the program does not come to its second breakpoint");
        stopped_by_trap(pid, libc::PTRACE_SINGLESTEP);
    }
}
