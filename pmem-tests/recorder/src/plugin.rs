//! What QEMU calls.
//!
//! ```text
//! -plugin libstore_recorder.so,ram=FILE,live=FILE,base=ADDRESS,directory=DIRECTORY
//! ```
//!
//! `ram` is the file behind the machine's memory, `live` the one behind its NVDIMM, which is at
//! the physical address `base`; `directory` holds `arrived`, `durable` and `control`.
//!
//! # Safety
//!
//! Entry points for C. A panic in one of them ends the emulator, which the tests notice.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use iced_x86::Instruction;

use crate::files::{Memory, Words};
use crate::instruction::{Kind, classify, operand_address};
use crate::qemu::{self, Block, Register};
use crate::translate::Paging;

#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
static qemu_plugin_version: c_int = qemu::VERSION;

/// In the order in which processors number them.
const GENERAL: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

const RAX: usize = 0;

struct Recorder {
    ram: Words,
    memory: Memory,
    general: Option<[Register; 16]>,
    paging: Option<[Register; 4]>,
}

static RECORDER: Mutex<Option<Recorder>> = Mutex::new(None);

fn with_recorder(act: impl FnOnce(&mut Recorder)) {
    let mut guard = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
    act(guard.as_mut().expect("installed before any processor runs"));
}

impl Recorder {
    fn open(options: &HashMap<String, String>) -> Result<Self, String> {
        let word = |name: &str| options.get(name).ok_or_else(|| format!("needs {name}="));
        let base = word("base")?.trim_start_matches("0x");
        let base = u64::from_str_radix(base, 16).map_err(|error| format!("base: {error}"))?;
        let (directory, live) = (Path::new(word("directory")?), Path::new(word("live")?));
        let failed = |error: std::io::Error| error.to_string();
        let memory = Memory::open(directory, live, base).map_err(failed)?;
        let ram = Words::open(Path::new(word("ram")?)).map_err(failed)?;
        Ok(Self { ram, memory, general: None, paging: None })
    }

    fn write_back(&mut self, instruction: &Instruction) {
        let (Some(general), Some(paging)) = (self.general, self.paging) else { return };
        let [cr0, cr3, cr4, efer] = paging.map(Register::read);
        let paging = Paging { cr0, cr3, cr4, efer };
        if !paging.is_long_mode() {
            return;
        }
        let address = operand_address(instruction, |number| Some(general[number].read()));
        match address.and_then(|address| paging.translate(&self.ram, address)) {
            Some(physical) => self.memory.write_back(physical),
            None => self.memory.unresolved(),
        }
    }
}

extern "C" fn on_processor(_: u64, vcpu: c_uint) {
    assert!(vcpu == 0, "the recorder knows one processor: one's fence is not another's");
    with_recorder(|recorder| {
        recorder.general = Some(Register::find(GENERAL).expect("a 64-bit x86"));
        let control = ["cr0", "cr3", "cr4", "efer"];
        recorder.paging = Some(Register::find(control).expect("QEMU describes them"));
    });
}

extern "C" fn on_write_back(_: c_uint, instruction: *mut c_void) {
    // SAFETY: `on_block` leaked this instruction and handed it over.
    let instruction = unsafe { &*instruction.cast::<Instruction>() };
    with_recorder(|recorder| recorder.write_back(instruction));
}

extern "C" fn on_non_temporal(_: c_uint, info: u32, address: u64, _: *mut c_void) {
    // SAFETY: the values that QEMU has just passed, inside the callback it passed them to.
    let (physical, bytes) = unsafe {
        let place = qemu::qemu_plugin_get_hwaddr(info, address);
        if place.is_null() || qemu::qemu_plugin_hwaddr_is_io(place) {
            return;
        }
        let bytes = 1 << qemu::qemu_plugin_mem_size_shift(info);
        (qemu::qemu_plugin_hwaddr_phys_addr(place), bytes)
    };
    with_recorder(|recorder| recorder.memory.non_temporal(physical, bytes));
}

extern "C" fn on_fence(_: c_uint, _: *mut c_void) {
    with_recorder(|recorder| recorder.memory.fence());
}

extern "C" fn on_acknowledge(_: c_uint, _: *mut c_void) {
    with_recorder(|recorder| {
        if let Some(general) = recorder.general {
            recorder.memory.acknowledge(general[RAX].read());
        }
    });
}

extern "C" fn on_block(_: u64, block: *mut Block) {
    // SAFETY: `block` is the one being translated, and the indices are below its count.
    // An instruction's description is leaked because QEMU keeps the pointer for as long as the
    // translation may run; there are a few hundred such instructions in a kernel.
    unsafe {
        for index in 0..qemu::qemu_plugin_tb_n_insns(block) {
            let insn = qemu::qemu_plugin_tb_get_insn(block, index);
            let (bytes, len) = qemu::bytes_of(insn);
            let Some((kind, decoded)) = classify(&bytes[..len], qemu::qemu_plugin_insn_vaddr(insn))
            else {
                continue;
            };
            let (none, registers) = (qemu::NO_REGISTERS, qemu::READ_REGISTERS);
            let nothing = std::ptr::null_mut();
            match kind {
                Kind::WriteBack => {
                    let data = Box::into_raw(Box::new(decoded)).cast();
                    qemu::qemu_plugin_register_vcpu_insn_exec_cb(
                        insn,
                        on_write_back,
                        registers,
                        data,
                    );
                }
                Kind::NonTemporal => {
                    let stores = qemu::STORES;
                    qemu::qemu_plugin_register_vcpu_mem_cb(
                        insn,
                        on_non_temporal,
                        none,
                        stores,
                        nothing,
                    );
                }
                Kind::Fence => {
                    qemu::qemu_plugin_register_vcpu_insn_exec_cb(insn, on_fence, none, nothing);
                }
                Kind::Acknowledge => qemu::qemu_plugin_register_vcpu_insn_exec_cb(
                    insn,
                    on_acknowledge,
                    registers,
                    nothing,
                ),
            }
        }
    }
}

/// QEMU's entry point.
///
/// # Safety
///
/// `words` has `count` strings, as QEMU passes them.
#[unsafe(no_mangle)]
unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    count: c_int,
    words: *const *const c_char,
) -> c_int {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: by the function's contract.
    let options: HashMap<String, String> = (0..count)
        .map(|i| unsafe { CStr::from_ptr(*words.add(i)) }.to_string_lossy().into_owned())
        .filter_map(|word| {
            word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        })
        .collect();
    match Recorder::open(&options) {
        Ok(recorder) => {
            *RECORDER.lock().unwrap_or_else(PoisonError::into_inner) = Some(recorder);
        }
        Err(reason) => {
            eprintln!("store-recorder: {reason}");
            return 1;
        }
    }
    // SAFETY: `id` is this plugin's, and the callbacks have the types that QEMU calls.
    unsafe {
        qemu::qemu_plugin_register_vcpu_init_cb(id, on_processor);
        qemu::qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    }
    0
}
