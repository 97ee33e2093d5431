//! The part of QEMU's plugin interface that is used here, version 4 (QEMU 9.2 and later):
//! include/qemu/qemu-plugin.h of QEMU 10.0.
//!
//! # Safety
//!
//! Declarations of functions that the emulator defines, and thin wrappers around them.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

/// Version of the interface that this file declares.
pub(crate) const VERSION: c_int = 4;

/// Opaque: a block being translated.
#[repr(C)]
pub(crate) struct Block([u8; 0]);

/// Opaque: an instruction of it.
#[repr(C)]
pub(crate) struct Insn([u8; 0]);

/// Opaque: a register.
#[repr(C)]
pub(crate) struct RegisterHandle([u8; 0]);

/// Opaque: where an access went.
#[repr(C)]
pub(crate) struct HwAddr([u8; 0]);

/// GLib's GArray.
#[repr(C)]
struct Array {
    data: *mut c_void,
    len: c_uint,
}

/// GLib's GByteArray.
#[repr(C)]
struct ByteArray {
    data: *mut u8,
    len: c_uint,
}

#[repr(C)]
struct RegisterDescriptor {
    handle: *mut RegisterHandle,
    name: *const c_char,
    feature: *const c_char,
}

/// qemu_plugin_cb_flags.
pub(crate) const READ_REGISTERS: c_int = 1;
pub(crate) const NO_REGISTERS: c_int = 0;
/// qemu_plugin_mem_rw.
pub(crate) const STORES: c_int = 2;

pub(crate) type ExecCallback = extern "C" fn(vcpu: c_uint, data: *mut c_void);
pub(crate) type StoreCallback =
    extern "C" fn(vcpu: c_uint, info: u32, address: u64, data: *mut c_void);

unsafe extern "C" {
    pub(crate) fn qemu_plugin_register_vcpu_init_cb(id: u64, cb: extern "C" fn(u64, c_uint));
    pub(crate) fn qemu_plugin_register_vcpu_tb_trans_cb(
        id: u64,
        cb: extern "C" fn(u64, *mut Block),
    );
    pub(crate) fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    pub(crate) fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Insn;
    fn qemu_plugin_insn_data(insn: *const Insn, to: *mut c_void, len: usize) -> usize;
    pub(crate) fn qemu_plugin_insn_vaddr(insn: *const Insn) -> u64;
    pub(crate) fn qemu_plugin_register_vcpu_insn_exec_cb(
        insn: *mut Insn,
        cb: ExecCallback,
        flags: c_int,
        data: *mut c_void,
    );
    pub(crate) fn qemu_plugin_register_vcpu_mem_cb(
        insn: *mut Insn,
        cb: StoreCallback,
        flags: c_int,
        rw: c_int,
        data: *mut c_void,
    );
    pub(crate) fn qemu_plugin_mem_size_shift(info: u32) -> c_uint;
    pub(crate) fn qemu_plugin_get_hwaddr(info: u32, address: u64) -> *mut HwAddr;
    pub(crate) fn qemu_plugin_hwaddr_is_io(address: *const HwAddr) -> bool;
    pub(crate) fn qemu_plugin_hwaddr_phys_addr(address: *const HwAddr) -> u64;
    fn qemu_plugin_get_registers() -> *mut Array;
    fn qemu_plugin_read_register(handle: *mut RegisterHandle, to: *mut ByteArray) -> c_int;
    fn g_array_free(array: *mut Array, free_data: c_int) -> *mut c_void;
    fn g_byte_array_new() -> *mut ByteArray;
    fn g_byte_array_free(array: *mut ByteArray, free_data: c_int) -> *mut u8;
}

/// A register of the processor, found by its name in the debugger's description.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Register(*mut RegisterHandle);

// SAFETY: the handle is a number for QEMU, valid in every callback of the processor.
unsafe impl Send for Register {}

impl Register {
    /// The registers of these names; an error names one that there is not. Only in a callback of
    /// the processor's start.
    pub(crate) fn find<const N: usize>(names: [&str; N]) -> Result<[Self; N], String> {
        // SAFETY: called while a processor starts, as the interface demands; the array is ours
        // and its elements are descriptors with names that QEMU keeps.
        let all: Vec<(String, Self)> = unsafe {
            let array = qemu_plugin_get_registers();
            let first = (*array).data.cast::<RegisterDescriptor>();
            let all = (0..(*array).len as usize)
                .map(|i| {
                    let descriptor = &*first.add(i);
                    let name = CStr::from_ptr(descriptor.name).to_string_lossy().into_owned();
                    (name, Self(descriptor.handle))
                })
                .collect();
            g_array_free(array, 1);
            all
        };
        let mut found = [Self(std::ptr::null_mut()); N];
        for (slot, name) in found.iter_mut().zip(names) {
            let Some((_, register)) = all.iter().find(|(known, _)| known == name) else {
                let known: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
                return Err(format!("no register {name} among {}", known.join(" ")));
            };
            *slot = *register;
        }
        Ok(found)
    }

    /// Its value. Only in a callback that may read registers.
    pub(crate) fn read(self) -> u64 {
        // SAFETY: the handle is from `find`; the array is ours, and has `len` bytes afterwards.
        unsafe {
            let array = g_byte_array_new();
            let read = qemu_plugin_read_register(self.0, array);
            let mut value = [0; 8];
            let len = ((*array).len as usize).min(8);
            if read > 0 {
                std::ptr::copy_nonoverlapping((*array).data, value.as_mut_ptr(), len);
            }
            g_byte_array_free(array, 1);
            u64::from_le_bytes(value)
        }
    }
}

/// The bytes of an instruction, 15 at most.
pub(crate) fn bytes_of(insn: *const Insn) -> ([u8; 15], usize) {
    let mut bytes = [0; 15];
    // SAFETY: `insn` comes from the block being translated; at most 15 bytes are written.
    let len = unsafe { qemu_plugin_insn_data(insn, bytes.as_mut_ptr().cast(), bytes.len()) };
    (bytes, len.min(15))
}
