//! libpmem, loaded at run time where it is installed.
//!
//! # Safety
//!
//! The functions have the signatures of `libpmem.h` (pmem_flush(3), pmem_memmove_persist(3)) and
//! accept any address: none of them asks what lies behind it.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_void};

type MemcpyPersist = unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void;
type MemsetPersist = unsafe extern "C" fn(*mut c_void, c_int, usize) -> *mut c_void;
type Persist = unsafe extern "C" fn(*const c_void, usize);

/// The functions that are compared.
#[derive(Clone, Copy)]
pub struct Libpmem {
    pub memcpy_persist: MemcpyPersist,
    pub memmove_persist: MemcpyPersist,
    pub memset_persist: MemsetPersist,
    pub persist: Persist,
}

impl Libpmem {
    /// Loads `libpmem.so.1`, or says why not.
    pub fn load() -> Result<Self, String> {
        // SAFETY: loading runs the library's constructor, which reads the environment and CPUID.
        let handle = unsafe { libc::dlopen(c"libpmem.so.1".as_ptr(), libc::RTLD_NOW) };
        if handle.is_null() {
            return Err(last_error());
        }
        let find = |name: &str| {
            let name = CString::new(name).expect("no zero byte in a name");
            // SAFETY: an open handle, never closed.
            let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
            if address.is_null() { Err(last_error()) } else { Ok(address) }
        };
        // SAFETY: the symbols are functions of these signatures.
        Ok(unsafe {
            Self {
                memcpy_persist: std::mem::transmute::<*mut c_void, MemcpyPersist>(find(
                    "pmem_memcpy_persist",
                )?),
                memmove_persist: std::mem::transmute::<*mut c_void, MemcpyPersist>(find(
                    "pmem_memmove_persist",
                )?),
                memset_persist: std::mem::transmute::<*mut c_void, MemsetPersist>(find(
                    "pmem_memset_persist",
                )?),
                persist: std::mem::transmute::<*mut c_void, Persist>(find("pmem_persist")?),
            }
        })
    }
}

fn last_error() -> String {
    // SAFETY: dlerror returns null or a string that lives until the next call on this thread.
    let message = unsafe { libc::dlerror() };
    if message.is_null() {
        return "dlopen failed without a reason".into();
    }
    // SAFETY: not null.
    unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned()
}
