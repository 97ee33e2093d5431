//! Which process is this: the one that opened a region, or a forked child of it?
//!
//! A number of the process is no answer: the first process of a container is number 1, and so is a
//! child that it forks into a container of its own (pid_namespaces(7)). So each process has a mark:
//! one more than the mark of the process that forked it, or an ancestor's.
//!
//! # Safety
//!
//! A child must be told from its parent at every drain, without a system call: by a page of memory
//! that the kernel clears in the child (madvise(2), `MADV_WIPEONFORK`, Linux 4.14). This module maps
//! it once, never unmaps it, and accesses it as an atomic only. Where the kernel does not clear
//! pages, fork(3) runs a function in the child that clears the word (pthread_atfork(3)).
#![allow(unsafe_code)]

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, ProtFlags};

/// Marks given out so far, by this process and those that it was forked from: the memory of a
/// forked child begins as a copy of its parent's.
static MARKS: AtomicU64 = AtomicU64::new(0);

/// The word where the kernel clears none.
static CLEARED_BY_FORK: AtomicU64 = AtomicU64::new(0);

/// The mark of this process, above 0. No forked child has that of its parent, or of another
/// ancestor. (Of a brother it may: neither has anything of the other's.)
#[inline]
pub(crate) fn mark() -> u64 {
    static WORD: OnceLock<&'static AtomicU64> = OnceLock::new();
    let word = WORD.get_or_init(|| wiped_on_fork().unwrap_or_else(|_| cleared_by_fork()));
    match word.load(Ordering::Relaxed) {
        0 => first_look(word),
        own => own,
    }
}

/// The first look of this process, or the first since it was forked.
#[cold]
fn first_look(word: &AtomicU64) -> u64 {
    let own = MARKS.fetch_add(1, Ordering::Relaxed) + 1;
    // Another thread may look for the first time, too: one of the two marks is the process's.
    match word.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => own,
        Err(others) => others,
    }
}

/// A word that is 0 at first, and again in every forked child.
fn wiped_on_fork() -> Result<&'static AtomicU64, Errno> {
    let len = rustix::param::page_size();
    // SAFETY: a new private anonymous mapping at an address of the kernel's choice, and advice on
    // that mapping alone.
    unsafe {
        let page = mm::mmap_anonymous(
            ptr::null_mut(),
            len,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )?;
        if let Err(errno) = mm::madvise(page, len, Advice::LinuxWipeOnFork) {
            let _ = mm::munmap(page, len);
            return Err(errno);
        }
        // Page-aligned, zero, mapped until the process ends, and accessed as this atomic only.
        Ok(AtomicU64::from_ptr(page.cast()))
    }
}

/// The same by a function that fork(3) runs in the child. A child that was made by a system call
/// of the program's own is not told from its parent.
fn cleared_by_fork() -> &'static AtomicU64 {
    extern "C" fn clear() {
        CLEARED_BY_FORK.store(0, Ordering::Relaxed);
    }
    // SAFETY: the function is async-signal-safe, as what runs in a forked child must be: one store
    // to an atomic.
    let _ = unsafe { libc::pthread_atfork(None, None, Some(clear)) };
    &CLEARED_BY_FORK
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `look` in a forked child, and returns whether it said yes.
    fn in_child(look: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child calls nothing that is not async-signal-safe.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let yes = look();
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(yes)) };
        }
        let mut status = 0;
        // SAFETY: waits for the child just made.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert!(libc::WIFEXITED(status), "{status:#x}");
        libc::WEXITSTATUS(status) == 1
    }

    #[test]
    fn no_child_has_the_mark_of_an_ancestor() {
        let own = mark();
        assert!(own > 0 && mark() == own);
        assert!(in_child(|| mark() != own && mark() == mark()), "a child");
        // A grandchild whose parent never looked, and one whose parent did.
        assert!(in_child(|| in_child(|| mark() != own)), "a grandchild");
        let of_two = || {
            let parents = mark();
            in_child(|| mark() != own && mark() != parents)
        };
        assert!(in_child(of_two), "a grandchild of a process with a mark");
        assert_eq!(mark(), own, "the parent stays the parent");
        assert!(wiped_on_fork().is_ok(), "this kernel clears pages of children");
    }

    #[test]
    fn a_child_that_is_process_1_as_its_parent_was_has_another_mark() {
        // SAFETY: takes no pointer; the child that calls it has one thread.
        let unshare = |what| unsafe { libc::unshare(what) == 0 };
        // For root, and for everybody else.
        let contain =
            || unshare(libc::CLONE_NEWPID) || unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID);
        let first = || {
            let own = mark();
            std::process::id() == 1
                && contain()
                && in_child(|| std::process::id() == 1 && mark() != own)
        };
        assert!(in_child(|| contain() && in_child(first)));
    }

    #[test]
    fn where_no_page_is_cleared_fork_clears_the_word() {
        let word = cleared_by_fork();
        let own = first_look(word);
        assert_eq!(word.load(Ordering::Relaxed), own);
        assert!(in_child(|| word.load(Ordering::Relaxed) == 0 && first_look(word) != own));
        assert_eq!(word.load(Ordering::Relaxed), own);
    }
}
