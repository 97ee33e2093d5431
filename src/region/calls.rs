//! The system calls that the protocols of files are made of: create, open, grow, drain, publish,
//! clean up.
//!
//! All of them go through this list, and through nothing else. As users build the library, each is
//! the kernel's, inlined. With the feature `model`, a thread can enter a modelled filesystem
//! (`daxmap_sim::filesystem`); then the same protocol code, not a copy of it, runs against the
//! model, which answers for its own paths and descriptors and passes everything else on to the
//! kernel. A thread that has entered none pays for one look at a thread-local variable a call.
//!
//! Files of the model are descriptors of memory files (memfd_create(2)), so what is not in this
//! list (mmap, flock, extended attributes, close) works on them as on any file.

use std::ffi::{CStr, OsStr};
use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    self, AtFlags, CWD, Dir, FallocateFlags, Mode, OFlags, RenameFlags, ResolveFlags, Stat,
};
use rustix::io::{self, Errno, Result};

use super::atomic_writes;
use super::ground::{self, Seen};
use super::quirks::Quirks;
use super::reopen;
use super::unwritten;
use super::write_back;
use crate::probe::Report;

/// From one list: the kernel's calls, what a model has to answer, and the choice between them.
macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($($arg:ident: $type:ty),*) -> $answer:ty $kernel:block
    )*) => {
        /// The calls as the kernel answers them.
        pub mod kernel {
            use super::*;
            $($(#[$doc])* #[inline] pub fn $name($($arg: $type),*) -> $answer $kernel)*
        }

        $(
            $(#[$doc])*
            #[inline]
            pub(crate) fn $name($($arg: $type),*) -> $answer {
                #[cfg(feature = "model")]
                if let Some(model) = entered() {
                    return model.$name($($arg),*);
                }
                kernel::$name($($arg),*)
            }
        )*

        /// What a modelled filesystem answers; what is not its own, it passes on.
        #[cfg(feature = "model")]
        pub trait Calls {
            $(
                $(#[$doc])*
                fn $name(&self, $($arg: $type),*) -> $answer {
                    kernel::$name($($arg),*)
                }
            )*
        }
    };
}

calls! {
    /// open(2).
    fn open(path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        fs::open(path, flags, mode)
    }

    /// openat(2).
    fn openat(directory: BorrowedFd<'_>, name: &OsStr, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        fs::openat(directory, name, flags, mode)
    }

    /// openat2(2) of a path that leads through no magic link (`RESOLVE_NO_MAGICLINKS`).
    fn open_no_magic(directory: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        fs::openat2(directory, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
    }

    /// stat(2).
    fn stat(path: &Path) -> Result<Stat> {
        fs::stat(path)
    }

    /// fstatat(2) of the name itself, be it a symbolic link.
    fn statat(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Stat> {
        fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// fstat(2).
    fn fstat(file: BorrowedFd<'_>) -> Result<Stat> {
        fs::fstat(file)
    }

    /// getdents64(2): every name in the directory.
    fn each_name(directory: BorrowedFd<'_>, each: &mut dyn FnMut(&CStr)) -> Result<()> {
        for entry in Dir::read_from(directory)? {
            each(entry?.file_name());
        }
        Ok(())
    }

    /// What lies under a file, and what its filesystem does differently.
    fn look(file: BorrowedFd<'_>, path: &Path) -> crate::Result<(Report, Quirks)> {
        ground::look_closely(file, path)
    }

    /// `look`, where a look at another file of the same mount may serve.
    fn glance(file: BorrowedFd<'_>, path: &Path) -> crate::Result<(Report, Quirks, Option<Seen>)> {
        ground::glance(file, path)
    }

    /// fallocate(2), which makes the file longer where the range ends past its end.
    fn fallocate(file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<()> {
        fs::fallocate(file, FallocateFlags::empty(), offset, len)
    }

    /// fallocate(2), `FALLOC_FL_KEEP_SIZE`: the file stays as long as it is.
    fn fallocate_within(file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<()> {
        fs::fallocate(file, FallocateFlags::KEEP_SIZE, offset, len)
    }

    /// fallocate(2), `FALLOC_FL_UNSHARE_RANGE`: extents that other files share become the file's own.
    fn unshare(file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<()> {
        let flags = FallocateFlags::UNSHARE_RANGE | FallocateFlags::KEEP_SIZE;
        fs::fallocate(file, flags, offset, len)
    }

    /// fstatvfs(2): bytes that the file's filesystem has free. One that counts nothing (tmpfs
    /// without a limit, some FUSE servers), or says that no block is free, may have room for
    /// everything: a full one says so when it is asked for space, and nothing of it can be taken from
    /// others. Blocks that are reserved count, since who may take them is the kernel's to say.
    fn room(file: BorrowedFd<'_>) -> Result<u64> {
        let space = fs::fstatvfs(file)?;
        let counts = space.f_blocks != 0 && space.f_bfree != 0;
        Ok(if counts { space.f_bfree.saturating_mul(space.f_frsize) } else { u64::MAX })
    }

    /// syncfs(2).
    fn syncfs(file: BorrowedFd<'_>) -> Result<()> {
        fs::syncfs(file)
    }

    /// ftruncate(2).
    fn ftruncate(file: BorrowedFd<'_>, len: u64) -> Result<()> {
        fs::ftruncate(file, len)
    }

    /// pwrite(2).
    fn pwrite(file: BorrowedFd<'_>, data: &[u8], offset: u64) -> Result<usize> {
        io::pwrite(file, data, offset)
    }

    /// pwritev(2).
    fn pwritev(file: BorrowedFd<'_>, data: &[IoSlice<'_>], offset: u64) -> Result<usize> {
        io::pwritev(file, data, offset)
    }

    /// The file once more, for direct I/O (open(2), `O_DIRECT`), by way of /proc.
    fn open_direct(file: BorrowedFd<'_>) -> Result<OwnedFd> {
        atomic_writes::open_direct(file)
    }

    /// statx(2), `STATX_WRITE_ATOMIC`: the least and the most bytes that one write replaces whole. None:
    /// not offered.
    fn atomic_write_units(file: BorrowedFd<'_>) -> Result<Option<(u32, u32)>> {
        atomic_writes::units(file)
    }

    /// pwritev2(2), `RWF_ATOMIC`.
    fn pwrite_atomic(file: BorrowedFd<'_>, data: &[u8], offset: u64) -> Result<usize> {
        atomic_writes::pwrite(file, data, offset)
    }

    /// fchmod(2).
    fn fchmod(file: BorrowedFd<'_>, mode: Mode) -> Result<()> {
        fs::fchmod(file, mode)
    }

    /// FS_IOC_FIEMAP: parts of the first `len` bytes that were never written.
    fn unwritten(file: BorrowedFd<'_>, len: u64) -> Result<Vec<Range<u64>>> {
        unwritten::unwritten(file, len)
    }

    /// fdatasync(2).
    fn fdatasync(file: BorrowedFd<'_>) -> Result<()> {
        fs::fdatasync(file)
    }

    /// sync_file_range(2), `SYNC_FILE_RANGE_WRITE`: starts write-back, and waits for none of it.
    fn start_write_back(file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<()> {
        write_back::start(file, offset, len)
    }

    /// fsync(2), of a file.
    fn fsync(file: BorrowedFd<'_>) -> Result<()> {
        fs::fsync(file)
    }

    /// fsync(2), of a directory.
    fn fsync_directory(directory: BorrowedFd<'_>) -> Result<()> {
        fs::fsync(directory)
    }

    /// posix_fadvise(2), `POSIX_FADV_DONTNEED`, of the whole file: clean pages leave the cache.
    fn forget_cached(file: BorrowedFd<'_>) -> Result<()> {
        fs::fadvise(file, 0, None, fs::Advice::DontNeed)
    }

    /// cachestat(2): how many pages of the file are cached.
    fn cached_pages(file: BorrowedFd<'_>) -> Result<u64> {
        reopen::cached_pages(file)
    }

    /// posix_fadvise(2), `POSIX_FADV_RANDOM`: no read-ahead.
    fn read_at_random(file: BorrowedFd<'_>) -> Result<()> {
        fs::fadvise(file, 0, None, fs::Advice::Random)
    }

    /// linkat(2) of an open file that may have no name.
    fn link_open(file: BorrowedFd<'_>, directory: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        // linkat(2): AT_EMPTY_PATH works without /proc, and is refused, with ENOENT, to the
        // unprivileged before Linux 6.10; /proc/self/fd takes longer.
        match fs::linkat(file, OsStr::new(""), directory, name, AtFlags::EMPTY_PATH) {
            Err(Errno::NOENT | Errno::INVAL | Errno::PERM) => {
                let through_proc = format!("/proc/self/fd/{}", file.as_raw_fd());
                fs::linkat(CWD, through_proc.as_str(), directory, name, AtFlags::SYMLINK_FOLLOW)
            }
            result => result,
        }
    }

    /// Whether `link_open` works for this file. Makes no name: `.` is there already, and the kernel
    /// says so only once it has found the file (`do_linkat`, fs/namei.c). What says nothing of rights
    /// or calls, such as EIO, is no answer: whoever links meets it again.
    fn can_link_open(file: BorrowedFd<'_>, directory: BorrowedFd<'_>) -> bool {
        let refused = [
            Errno::NOENT,
            Errno::PERM,
            Errno::ACCESS,
            Errno::INVAL,
            Errno::NOSYS,
            Errno::OPNOTSUPP,
        ];
        !matches!(
            kernel::link_open(file, directory, OsStr::new(".")),
            Err(errno) if refused.contains(&errno)
        )
    }

    /// linkat(2), within a directory.
    fn linkat(directory: BorrowedFd<'_>, from: &OsStr, to: &OsStr) -> Result<()> {
        fs::linkat(directory, from, directory, to, AtFlags::empty())
    }

    /// renameat(2), within a directory.
    fn renameat(directory: BorrowedFd<'_>, from: &OsStr, to: &OsStr) -> Result<()> {
        fs::renameat(directory, from, directory, to)
    }

    /// renameat2(2), within a directory.
    fn renameat2(directory: BorrowedFd<'_>, from: &OsStr, to: &OsStr, flags: RenameFlags) -> Result<()> {
        fs::renameat_with(directory, from, directory, to, flags)
    }

    /// unlinkat(2) of a file.
    fn unlinkat(directory: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        fs::unlinkat(directory, name, AtFlags::empty())
    }
}

#[cfg(feature = "model")]
use entering::entered;
#[cfg(feature = "model")]
pub use entering::{Entered, enter};

/// The model that a thread has entered.
#[cfg(feature = "model")]
mod entering {
    use std::cell::RefCell;
    use std::marker::PhantomData;
    use std::rc::Rc;
    use std::sync::Arc;

    use super::Calls;

    thread_local! {
        static MODEL: RefCell<Option<Arc<dyn Calls>>> = const { RefCell::new(None) };
    }

    pub(super) fn entered() -> Option<Arc<dyn Calls>> {
        // Gone already where a region is dropped as its thread ends.
        MODEL.try_with(|model| model.borrow().clone()).ok().flatten()
    }

    /// Until it is dropped, on the thread that made it, calls go to the model.
    #[derive(Debug)]
    pub struct Entered {
        before: Restore,
        on_this_thread: PhantomData<Rc<()>>,
    }

    struct Restore(Option<Arc<dyn Calls>>);

    impl std::fmt::Debug for Restore {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(if self.0.is_some() { "another model" } else { "the kernel" })
        }
    }

    /// From now on, on this thread, the model is asked, until the guard is dropped. The model that was
    /// entered before is then back.
    pub fn enter(model: Arc<dyn Calls>) -> Entered {
        let before = MODEL.with(|entered| entered.replace(Some(model)));
        Entered { before: Restore(before), on_this_thread: PhantomData }
    }

    impl Drop for Entered {
        fn drop(&mut self) {
            let _ = MODEL.try_with(|entered| entered.replace(self.before.0.take()));
        }
    }
}
