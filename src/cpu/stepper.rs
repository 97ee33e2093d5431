//! Which write-backs, non-temporal stores and fences a piece of code executes: seen by running it
//! one instruction at a time.
//!
//! Counters count what the library believes to issue; this sees what the processor is given, in
//! order and with addresses, in any code, another library's too. For tests and benchmarks.
//!
//! # Safety
//!
//! The trap flag makes the processor raise SIGTRAP after each instruction of this thread. The
//! handler reads the instruction at the saved program counter, which is about to be executed and
//! thus mapped, and appends to a buffer of fixed size.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What an instruction does to memory past the caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Clwb,
    ClflushOpt,
    Clflush,
    /// Bytes that one store writes; 0 for a masked one, whose mask is not looked at.
    NonTemporal(u8),
    Fence,
}

/// One such instruction and the address it names; 0 for a fence and for indexed addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub kind: Kind,
    pub address: usize,
}

const MAX: usize = 4096;
const KINDS: [Kind; 9] = [
    Kind::Clwb,
    Kind::ClflushOpt,
    Kind::Clflush,
    Kind::Fence,
    Kind::NonTemporal(0),
    Kind::NonTemporal(8),
    Kind::NonTemporal(16),
    Kind::NonTemporal(32),
    Kind::NonTemporal(64),
];

/// Address, and index into `KINDS` in the top byte: user addresses have 56 bits at most.
static STEPS: [AtomicU64; MAX] = [const { AtomicU64::new(0) }; MAX];
static COUNT: AtomicUsize = AtomicUsize::new(0);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs `code` step by step on this thread.
pub fn trace(code: impl FnOnce()) -> Vec<Step> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    COUNT.store(0, Ordering::SeqCst);
    // SAFETY: a sigaction of zeros is valid; the handler has the signature that SA_SIGINFO asks
    // for. The trap flag is set and cleared in pairs; PUSHF and POPF use the stack below what the
    // compiler has in use, which it allows for since `nostack` is not given.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = on_trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        let mut before = MaybeUninit::uninit();
        assert_eq!(libc::sigaction(libc::SIGTRAP, &raw const action, before.as_mut_ptr()), 0);
        std::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq");
        code();
        std::arch::asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq");
        libc::sigaction(libc::SIGTRAP, before.as_ptr(), std::ptr::null_mut());
    }
    let count = COUNT.load(Ordering::SeqCst);
    assert!(count <= MAX, "more steps than there is room for");
    let unpack = |step: &AtomicU64| {
        let packed = step.load(Ordering::SeqCst);
        Step { kind: KINDS[(packed >> 56) as usize], address: (packed << 8 >> 8) as usize }
    };
    STEPS[..count].iter().map(unpack).collect()
}

extern "C" fn on_trap(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel's ucontext; its general registers are 64-bit words (see `x86_64.rs`). The
    // instruction at RIP is mapped, and reading a byte more only follows a byte that asks for it.
    let found = unsafe {
        let context = context.cast::<libc::ucontext_t>();
        let registers = (&raw const (*context).uc_mcontext).cast::<u64>();
        let rip = *registers.add(libc::REG_RIP as usize);
        decode(rip as *const u8, |number| *registers.add(GENERAL[number]))
    };
    if let Some(Step { kind, address }) = found {
        let at = COUNT.fetch_add(1, Ordering::SeqCst);
        if let (Some(step), Some(kind)) = (STEPS.get(at), KINDS.iter().position(|k| *k == kind)) {
            step.store((kind as u64) << 56 | address as u64, Ordering::SeqCst);
        }
    }
}

/// Register numbers as instructions have them (SDM vol. 2, table 2-2) to ucontext indices.
const GENERAL: [usize; 16] = [
    libc::REG_RAX as usize,
    libc::REG_RCX as usize,
    libc::REG_RDX as usize,
    libc::REG_RBX as usize,
    libc::REG_RSP as usize,
    libc::REG_RBP as usize,
    libc::REG_RSI as usize,
    libc::REG_RDI as usize,
    libc::REG_R8 as usize,
    libc::REG_R9 as usize,
    libc::REG_R10 as usize,
    libc::REG_R11 as usize,
    libc::REG_R12 as usize,
    libc::REG_R13 as usize,
    libc::REG_R14 as usize,
    libc::REG_R15 as usize,
];

/// SDM vol. 2: 2.1 to 2.3 (prefixes, REX, VEX), 2.7 (EVEX), and the instructions themselves.
///
/// # Safety
///
/// An instruction starts at `code`.
unsafe fn decode(mut code: *const u8, register: impl Fn(usize) -> u64) -> Option<Step> {
    let mut next = || {
        // SAFETY: the bytes before this one say that it belongs to the instruction.
        unsafe {
            let byte = *code;
            code = code.add(1);
            byte
        }
    };
    let (mut operand_size, mut rex, mut width) = (false, 0_u8, 16_u8);
    let mut byte = next();
    while byte == 0x66 || byte == 0xf2 || byte == 0xf3 || byte & 0xf0 == 0x40 {
        operand_size |= byte == 0x66;
        rex = if byte & 0xf0 == 0x40 { byte } else { 0 };
        byte = next();
    }
    let mut base_high = usize::from(rex & 1) << 3;
    let mut displacement_unit = 1_i64;
    let opcode = match byte {
        0x0f => next(),
        // VEX, two and three bytes; EVEX: map 0F only.
        0xc5 => {
            width = 16 << (next() >> 2 & 1);
            next()
        }
        0xc4 | 0x62 => {
            let first = next();
            if first & 7 != 1 {
                return None;
            }
            base_high = usize::from(!first >> 5 & 1) << 3;
            let second = next();
            width = 16 << (second >> 2 & 1);
            if byte == 0x62 {
                width = 16 << (next() >> 5 & 3);
                displacement_unit = i64::from(width);
            }
            next()
        }
        _ => return None,
    };
    let vector = byte != 0x0f;
    if opcode == 0x38 && !vector {
        // MOVDIR64B names its destination by the register operand.
        let movdir64b = next() == 0xf8 && operand_size;
        let destination = usize::from(next() >> 3 & 7) | usize::from(rex >> 2 & 1) << 3;
        let address = register(destination) as usize;
        return movdir64b.then_some(Step { kind: Kind::NonTemporal(64), address });
    }
    if !matches!(opcode, 0xae | 0xc3 | 0xe7 | 0x2b | 0xf7) {
        return None;
    }
    let modrm = next();
    let (form, operation, base) = (modrm >> 6, modrm >> 3 & 7, usize::from(modrm & 7));
    let kind = match (opcode, operand_size || vector, form, operation) {
        (0xae, false, 3, 7) => return Some(Step { kind: Kind::Fence, address: 0 }),
        (0xf7, true, 3, _) => {
            return Some(Step { kind: Kind::NonTemporal(0), address: register(7) as usize });
        }
        (0xae, true, 0..=2, 6) if !vector => Kind::Clwb,
        (0xae, true, 0..=2, 7) if !vector => Kind::ClflushOpt,
        (0xae, false, 0..=2, 7) => Kind::Clflush,
        (0xc3, false, 0..=2, _) => Kind::NonTemporal(if rex & 8 == 0 { 4 } else { 8 }),
        (0xe7, true, 0..=2, _) | (0x2b, _, 0..=2, _) => Kind::NonTemporal(width),
        _ => return None,
    };
    if base == 4 || (base == 5 && form == 0) {
        return Some(Step { kind, address: 0 });
    }
    let displacement = match form {
        0 => 0,
        1 => i64::from(i8::from_ne_bytes([next()])) * displacement_unit,
        _ => i64::from(i32::from_le_bytes([next(), next(), next(), next()])),
    };
    let address = register(base | base_high).wrapping_add_signed(displacement) as usize;
    Some(Step { kind, address })
}
