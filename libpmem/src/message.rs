//! What `pmem_errormsg` returns: the last error of each thread.

use std::cell::UnsafeCell;
use std::ffi::c_char;
use std::fmt::{self, Write};
use std::io;

use crate::environment::set_errno;

/// Bytes of a message, with its final zero; a longer one is cut off.
const SIZE: usize = 512;

thread_local! {
    /// Nothing to drop and nothing to start: no function of the loader is called for it.
    static MESSAGE: UnsafeCell<[u8; SIZE]> = const { UnsafeCell::new([0; SIZE]) };
}

/// The text of this thread's last error; empty before the first. Valid for the thread's life; the
/// next error changes it.
pub(crate) fn last() -> *const c_char {
    MESSAGE.with(|message| message.get().cast::<c_char>().cast_const())
}

/// Writes this thread's message.
pub(crate) fn set(text: fmt::Arguments<'_>) {
    struct Buffer(usize);
    impl Write for Buffer {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            MESSAGE.with(|message| {
                // SAFETY: this thread's own; no other reference to it lives, since nothing that
                // formats a text calls back here.
                let message = unsafe { &mut *message.get() };
                let text = &text.as_bytes()[..text.len().min(SIZE - 1 - self.0)];
                message[self.0..self.0 + text.len()].copy_from_slice(text);
                self.0 += text.len();
                message[self.0] = 0;
            });
            Ok(())
        }
    }
    // It has no errors of its own.
    let _ = Buffer(0).write_fmt(text);
}

/// Refuses: the message, and `errno`.
pub(crate) fn refuse(errno: i32, text: fmt::Arguments<'_>) {
    set(text);
    set_errno(errno);
}

/// A call of the system failed with this `errno`.
pub(crate) fn failed(errno: i32, what: fmt::Arguments<'_>) {
    set(format_args!("{what}: {}", io::Error::from_raw_os_error(errno)));
    set_errno(errno);
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn text() -> &'static CStr {
        // SAFETY: `last` points to a text that ends with a zero, for the life of this thread.
        unsafe { CStr::from_ptr(last()) }
    }

    #[test]
    fn a_message_replaces_the_one_before_and_fits() {
        set(format_args!("one: {}", 1));
        assert_eq!(text(), c"one: 1");
        set(format_args!("2"));
        assert_eq!(text(), c"2");
        set(format_args!("{}{}", "x".repeat(SIZE), "y"));
        assert_eq!(text().count_bytes(), SIZE - 1);
        std::thread::spawn(|| assert_eq!(text(), c"")).join().unwrap();
    }
}
