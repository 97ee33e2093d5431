//! The version of the interface, and the last error.

use std::ffi::{c_char, c_uint};

use crate::message;

/// PMEM_MAJOR_VERSION and PMEM_MINOR_VERSION of libpmem.h.
const VERSION: (c_uint, c_uint) = (1, 1);

/// NULL if a program that was compiled for this version can run, else why it cannot. libpmem(7).
#[unsafe(no_mangle)]
pub extern "C" fn pmem_check_version(major: c_uint, minor: c_uint) -> *const c_char {
    if major == VERSION.0 && minor <= VERSION.1 {
        return std::ptr::null();
    }
    let (has_major, has_minor) = VERSION;
    message::set(format_args!(
        "the program asks for libpmem {major}.{minor}; this one is {has_major}.{has_minor}"
    ));
    message::last()
}

/// The text of this thread's last error; never NULL. libpmem(7).
#[unsafe(no_mangle)]
pub extern "C" fn pmem_errormsg() -> *const c_char {
    message::last()
}
