//! Variables of the environment, read as C reads them.

use std::ffi::CStr;

/// The value of a variable; `None` if it is not set.
pub(crate) fn value(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: a C string; what getenv returns is one, and stays while nobody changes the variable,
    // which getenv(3) asks of every program.
    unsafe {
        let found = libc::getenv(name.as_ptr());
        (!found.is_null()).then(|| CStr::from_ptr(found))
    }
}

/// Whether the variable is exactly `1`.
pub(crate) fn is_one(name: &CStr) -> bool {
    value(name) == Some(c"1")
}

/// The number at the beginning of a value, as atoi(3) and atoll(3) read it: 0 if there is none.
pub(crate) fn number(value: &CStr) -> i64 {
    // SAFETY: a C string.
    unsafe { libc::strtoll(value.as_ptr(), std::ptr::null_mut(), 10) }
}

/// `PMEM_MMAP_HINT`: a hexadecimal address; `None` for what is no number.
pub(crate) fn address(value: &CStr) -> Option<usize> {
    let mut end = std::ptr::null_mut();
    set_errno(0);
    // SAFETY: a C string, and a place for where the number ends.
    let address = unsafe { libc::strtoull(value.as_ptr(), &raw mut end, 16) };
    (errno() == 0 && end.cast_const() != value.as_ptr()).then_some(address as usize)
}

/// This thread's `errno`.
pub(crate) fn errno() -> i32 {
    // SAFETY: the address of this thread's variable.
    unsafe { *libc::__errno_location() }
}

/// Sets this thread's `errno`.
pub(crate) fn set_errno(errno: i32) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno }
}

/// Does something that leaves `errno` as it was.
pub(crate) fn keeping_errno<T>(something: impl FnOnce() -> T) -> T {
    let before = errno();
    let result = something();
    set_errno(before);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        assert_eq!(number(c"12"), 12);
        assert_eq!(number(c" -3x"), -3);
        assert_eq!(number(c""), 0);
        assert_eq!(number(c"yes"), 0);
        assert_eq!(address(c"0x1000"), Some(0x1000));
        assert_eq!(address(c"abc, and more"), Some(0xabc));
        assert_eq!(address(c"none"), None);
        assert_eq!(address(c""), None);
        assert_eq!(address(c"fffffffffffffffff"), None);
    }
}
