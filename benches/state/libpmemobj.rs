//! libpmemobj, loaded at run time where it is installed, with a pool in memory.
//!
//! # Safety
//!
//! The functions have the signatures of `libpmemobj.h` (pmemobj_create(3), pmemobj_root(3),
//! pmemobj_tx_begin(3), pmemobj_tx_add_range_direct(3)). An object's address is that of its pool
//! plus its offset (`pmemobj_direct_inline`).
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

#[repr(C)]
#[derive(Clone, Copy)]
struct Oid {
    pool: u64,
    offset: u64,
}

type Create = unsafe extern "C" fn(*const c_char, *const c_char, usize, u32) -> *mut c_void;
type Root = unsafe extern "C" fn(*mut c_void, usize) -> Oid;
type Close = unsafe extern "C" fn(*mut c_void);
type Begin = unsafe extern "C" fn(*mut c_void, *mut c_void, ...) -> c_int;
type AddRange = unsafe extern "C" fn(*const c_void, usize) -> c_int;
type Commit = unsafe extern "C" fn();
type End = unsafe extern "C" fn() -> c_int;

/// A pool with a root object, and what a transaction on it takes.
pub struct Pool {
    handle: *mut c_void,
    root: *mut u8,
    path: PathBuf,
    begin: Begin,
    add_range: AddRange,
    commit: Commit,
    end: End,
    close: Close,
}

impl Pool {
    /// A pool on tmpfs, flushed as persistent memory is, or why there is none. The program has no
    /// other thread yet.
    pub fn create(path: &Path, root_bytes: usize) -> Result<Self, String> {
        // SAFETY: the caller's promise; loading runs constructors, which read this variable: the
        // memory is to be taken for persistent, as libpmem(7) says it is for tests.
        let handle = unsafe {
            std::env::set_var("PMEM_IS_PMEM_FORCE", "1");
            libc::dlopen(c"libpmemobj.so.1".as_ptr(), libc::RTLD_NOW)
        };
        if handle.is_null() {
            return Err(last_error());
        }
        let find = |name: &CStr| {
            // SAFETY: an open handle, never closed.
            let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
            if address.is_null() { Err(last_error()) } else { Ok(address) }
        };
        // SAFETY: the symbols are functions of these signatures.
        let (create, get_root, begin, add_range, commit, end, close) = unsafe {
            (
                std::mem::transmute::<*mut c_void, Create>(find(c"pmemobj_create")?),
                std::mem::transmute::<*mut c_void, Root>(find(c"pmemobj_root")?),
                std::mem::transmute::<*mut c_void, Begin>(find(c"pmemobj_tx_begin")?),
                std::mem::transmute::<*mut c_void, AddRange>(find(c"pmemobj_tx_add_range_direct")?),
                std::mem::transmute::<*mut c_void, Commit>(find(c"pmemobj_tx_commit")?),
                std::mem::transmute::<*mut c_void, End>(find(c"pmemobj_tx_end")?),
                std::mem::transmute::<*mut c_void, Close>(find(c"pmemobj_close")?),
            )
        };
        let _ = std::fs::remove_file(path);
        let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|e| e.to_string())?;
        // SAFETY: strings that end; a size of 64 MiB; permission bits.
        let pool = unsafe { create(name.as_ptr(), c"state".as_ptr(), 64 << 20, 0o600) };
        if pool.is_null() {
            return Err(format!("pmemobj_create of {}: {}", path.display(), errno()));
        }
        // SAFETY: an open pool.
        let oid = unsafe { get_root(pool, root_bytes) };
        if oid.offset == 0 {
            return Err(format!("pmemobj_root: {}", errno()));
        }
        let root = pool.cast::<u8>().wrapping_add(oid.offset as usize);
        Ok(Self { handle: pool, root, path: path.to_owned(), begin, add_range, commit, end, close })
    }

    /// Changes the root object in a transaction: all of it is added to the undo log, as it is all
    /// replaced.
    pub fn update(&self, value: &[u8]) {
        // SAFETY: the root object has at least so many bytes, and nobody else has the pool. A
        // transaction without a jump buffer, and without parameters, which a zero ends.
        unsafe {
            assert_eq!((self.begin)(self.handle, std::ptr::null_mut(), 0 as c_int), 0);
            assert_eq!((self.add_range)(self.root.cast(), value.len()), 0);
            libc::memcpy(self.root.cast(), value.as_ptr().cast(), value.len());
            (self.commit)();
            assert_eq!((self.end)(), 0);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: open, and not used afterwards.
        unsafe { (self.close)(self.handle) };
        let _ = std::fs::remove_file(&self.path);
    }
}

fn errno() -> std::io::Error {
    std::io::Error::last_os_error()
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
