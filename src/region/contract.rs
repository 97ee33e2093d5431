//! The trait and what it promises.

use std::io::IoSlice;
use std::sync::Arc;

use super::bounds;
use crate::durability::{Backend, Durability, Granularity};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::probe::Shutdowns;

/// A durable region of a file.
///
/// Offsets and lengths are in bytes, offsets from the start of the region. All methods take
/// `&self`: a region may be used by many threads at once.
///
/// # The contract
///
/// 1. **Durable after drain.** After [`drain`](Self::drain) returns `Ok`, every byte that the
///    calling thread wrote and flushed before it survives what [`durability`](Self::durability)
///    names. Nothing else is promised to survive. What was not flushed may survive or not, in
///    any order, whole or torn; only an aligned 8-byte store is never torn.
/// 2. **The level is reported, not assumed.** It comes from what lies behind this very region.
/// 3. **Errors about durability are final.** After a failed `fdatasync` the kernel marks the
///    pages clean, and the next call returns success while the medium holds the old data
///    (fsync(2), NOTES). So the first failure poisons the region: every later write, flush and
///    drain returns [`ErrorKind::Failed`](crate::ErrorKind::Failed), in every thread and in
///    every other region of the file in this process. Reads go on. The way on is to drop the
///    regions, reopen, and recover from the medium. A write that the kernel refuses, of any size,
///    is such a failure too: readers may have seen it.
/// 4. **Ready when returned.** Space is allocated, written with zeros and synced, and the file
///    and its directory entry are durable. A full disk is an error at create or grow. Where a write
///    takes new space, it is also one of `write` or `drain`, whatever its size, and final there: on
///    btrfs, and in an existing file that is sparse or shares extents.
/// 5. **Safe methods stay safe.** They copy in and out. A page that is gone (file truncated by
///    another process, memory poisoned) is [`ErrorKind::Gone`](crate::ErrorKind::Gone). On the page
///    cache, `drain` notices a file that was cut before its last page, and one that was cut within that
///    page where it covers a write there; until then the bytes past such a cut read as zero. Two
///    threads or processes that access the same bytes at once get interleaved 8-byte pieces. (Of
///    another process's write through the page cache, smaller pieces may be seen: the kernel
///    copies it as it likes.)
///
///    Regions of one file in this process know each other where the kernel keeps inode numbers
///    unique: ext2 to ext4, xfs, btrfs, f2fs, tmpfs, device DAX. On others (overlay, FUSE, network,
///    exfat, vfat) each stands alone, as if the others were in other processes.
/// 6. **Growth keeps the base.** [`grow`](Self::grow) and [`shrink`](Self::shrink) never move the
///    region in memory, and when they fail the region is as it was.
/// 7. **Close reports.** [`close`](Self::close) returns the error that `Drop` could not.
///
/// A `drain` covers the flushes of the calling thread: a store fence orders only the write-backs
/// that its own core issued (SDM vol. 2, SFENCE; Arm ARM, DSB). A thread that wants another's
/// data durable calls [`sync_all`](Self::sync_all). An async task that awaits between a write and its
/// `drain` may go on in another thread: do not await there, or call `sync_all`.
///
/// After fork(2), a region is its parent's, be the child in a process namespace of its own or not.
/// The child's changes of the length are refused, and on the page cache its `drain`, `sync_all` and
/// `close` too: it has the same open file, and would be told of an error in its parent's place. It
/// opens the file anew. A child that drops a region changes nothing.
///
/// Every method but `read`, `load_u64`, `slice` and the accessors returns `ErrorKind::Failed`
/// after the first durability error, `ErrorKind::Closed` after `close`; every method with a range returns
/// `ErrorKind::OutOfBounds`, and changes nothing, if the range does not lie in `0..len()`. A
/// range of zero bytes inside `0..=len()` is a no-op.
///
/// # Implementing it
///
/// A type outside this library may be a region, a wrapper that counts calls say. Later versions may add
/// methods that have a default, in a minor release. A method without a default is added, and a promise
/// made stronger, in a major release only. A wrapper passes every method on, those with a default too:
/// what it does not pass on gets the default, which is correct and may be slower.
pub trait Region: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// True of a region of 0 bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a drained write survives.
    fn durability(&self) -> Durability;

    /// The unit a flush works in.
    fn granularity(&self) -> Granularity;

    /// How the region keeps its promise.
    fn backend(&self) -> Backend;

    /// True if the region imitates another kind of memory on DRAM. Its durability is then
    /// `ProcessOnly` (that of a simulated region is the level it models, against simulated
    /// crashes), and its times are not those of persistent memory.
    fn is_emulated(&self) -> bool;

    /// The memory that holds the region, and how often it lost power without saving its buffers, as
    /// found when the region was opened. `None` if there is no such count or it cannot be read: on a
    /// disk, in memory, and in a region that does not say.
    fn shutdowns(&self) -> Option<Shutdowns> {
        None
    }

    /// Copies bytes out of the region.
    ///
    /// # Errors
    ///
    /// `Gone` if a page of the range is gone; `buf` is then partly overwritten.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Stores bytes into the region: visible on return to every region of the file in this
    /// process, and not yet durable. Other processes see them at once where the backend is a
    /// shared mapping, and after `drain` at the latest on the page cache, which gathers small
    /// writes.
    ///
    /// # Errors
    ///
    /// `ReadOnly`; `Gone`, after which the range holds old and new bytes; `Os` from `pwrite`.
    fn write(&self, offset: u64, data: &[u8]) -> Result<()>;

    /// Stores parts one behind the other, the first at `offset`: as [`write`](Self::write) of all of
    /// them joined, without joining them. Other threads may see some parts and not yet others.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write). If the parts together do not fit, nothing is stored.
    fn write_vectored(&self, offset: u64, parts: &[IoSlice<'_>]) -> Result<()> {
        bounds::check(Operation::Write, offset, joined(parts), self.len())?;
        write_each(self, offset, parts)
    }

    /// [`write`](Self::write) and [`flush`](Self::flush) in one, by whatever is fastest for this
    /// size. Durable after the next [`drain`](Self::drain).
    fn write_flush(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.write(offset, data)?;
        self.flush(offset, data.len() as u64)
    }

    /// [`write_flush`](Self::write_flush) of bytes that no other thread looks for before this one
    /// has drained: until then another thread may find old and new bytes, in any order with what is
    /// stored later. Past the caches on persistent memory, and nothing waits: what the processor does
    /// before the drain, a check value say, costs no time of its own.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    fn write_stream(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.write_flush(offset, data)
    }

    /// Replaces an aligned page such that a crash leaves the old one or the new one, by what the
    /// filesystem and the device offer for it (`RWF_ATOMIC`, pwritev2(2)). Flushed: durable after the
    /// next [`drain`](Self::drain), and never torn before it. `page` has 4096, 8192, 16384, 32768 or
    /// 65536 bytes, and `offset` is a multiple of its length. Only a crash finds it whole: a thread that
    /// reads meanwhile may find old and new bytes.
    ///
    /// Where it is not offered, [`pages`](crate::pages) does the same by a record in the file.
    ///
    /// # Errors
    ///
    /// `PageSize`, `Unaligned` and `OutOfBounds`; `Unsupported` where filesystem, device or kernel do not
    /// offer it for a page of this size: on persistent memory and in memory, before Linux 6.11, on a
    /// filesystem other than ext4 and xfs, without /proc, while a region of the file lends its memory for
    /// storing, while another process stores into the page, and on a full xfs, which writes a page to new
    /// blocks first. Nothing is written then. `Os` from `pwritev2`, which poisons the region.
    fn write_atomic(&self, offset: u64, page: &[u8]) -> Result<()> {
        bounds::not_whole(offset, page.len() as u64, self.len())
    }

    /// Says that a range will be read soon: a hint, which has its first 256 KiB at most fetched from
    /// memory into the caches where the region is a mapping. It faults no page in, nothing waits for
    /// it, and nothing fails.
    fn prefetch(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }

    /// Sets `len` bytes to `byte` and flushes them. Durable after the next
    /// [`drain`](Self::drain).
    fn fill_flush(&self, offset: u64, len: u64, byte: u8) -> Result<()>;

    /// Starts writing back the stores of a range. Orders nothing, waits for nothing.
    ///
    /// # Errors
    ///
    /// `Gone` if a page of the range is gone. This poisons the region: what was stored there
    /// cannot become durable.
    fn flush(&self, offset: u64, len: u64) -> Result<()>;

    /// Waits until everything the calling thread flushed is durable.
    ///
    /// # Errors
    ///
    /// `Os` from `fdatasync`. This poisons the region.
    fn drain(&self) -> Result<()>;

    /// True if [`drain`](Self::drain) and [`sync_all`](Self::sync_all) may wait for a device, and so
    /// are not to be called on a thread of an async runtime. False if they take no longer than a fence
    /// and an interrupt.
    fn drain_blocks(&self) -> bool {
        self.granularity() == Granularity::Page
    }

    /// Waits until everything is durable that was written and flushed through the region, by
    /// whatever thread of this process: by [`write_flush`](Self::write_flush),
    /// [`write_stream`](Self::write_stream), [`fill_flush`](Self::fill_flush) or
    /// [`flush`](Self::flush), before this call in happens-before order. For a thread that commits
    /// what others wrote. Stores through a pointer are covered once their range is flushed.
    ///
    /// Costs what [`drain`](Self::drain) costs, and on persistent memory an interrupt of every core
    /// that runs the process, some microseconds (membarrier(2)). Other calls do not get dearer for
    /// it on x86-64. On AArch64, and where the kernel refuses membarrier when the region is opened,
    /// each flush has a fence of its own.
    ///
    /// # Errors
    ///
    /// As [`drain`](Self::drain); `Os` from membarrier(2) if it is refused now and was not at open,
    /// by a seccomp filter say. That fails nothing: each thread can still drain what it flushed.
    fn sync_all(&self) -> Result<()>;

    /// Sends to the file what the region has kept back of small writes, so that other processes
    /// read it. Not durable. Where nothing is kept back, it does nothing.
    ///
    /// # Errors
    ///
    /// `Os` from `pwrite`, which poisons the region; `Unsupported` in a forked child, whose parent
    /// sends them.
    fn send(&self) -> Result<()> {
        Ok(())
    }

    /// [`flush`](Self::flush), then [`drain`](Self::drain).
    fn persist(&self, offset: u64, len: u64) -> Result<()> {
        self.flush(offset, len)?;
        self.drain()
    }

    /// [`write_flush`](Self::write_flush), then [`drain`](Self::drain): durable on return.
    // Out of the way of a backend that needs neither call.
    #[inline(never)]
    fn write_persist(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.write_flush(offset, data)?;
        self.drain()
    }

    /// [`persist`](Self::persist), and also out of the platform's buffers into the medium
    /// itself: through the flush hints of the NVDIMM (`msync` on a DAX mapping reaches
    /// `nvdimm_flush` in drivers/nvdimm/region_devs.c). Protects against a failure of ADR
    /// itself; not needed for what [`durability`](Self::durability) names. Write-protects the
    /// pages it cleans, so the next store to each faults: not for steady state.
    fn deep_flush(&self, offset: u64, len: u64) -> Result<()>;

    /// Loads the aligned 8-byte word at `offset`, in the machine's byte order, never torn.
    /// Acquires what the [`store_u64`](Self::store_u64) that wrote it released.
    ///
    /// # Errors
    ///
    /// `Unaligned` if `offset` is not a multiple of 8; `Gone`.
    fn load_u64(&self, offset: u64) -> Result<u64>;

    /// Stores the aligned 8-byte word at `offset`, in the machine's byte order, never torn, by
    /// one store. Releases. Not flushed.
    ///
    /// # Errors
    ///
    /// As [`load_u64`](Self::load_u64), and `ReadOnly`.
    fn store_u64(&self, offset: u64, value: u64) -> Result<()>;

    /// Replaces the aligned 8-byte word at `offset` by `new` if it is `current`. Returns `Ok` of
    /// the old value if it did, `Err` of the value found if not. Not flushed: another thread may
    /// see the new value before it is durable.
    ///
    /// # Errors
    ///
    /// As [`store_u64`](Self::store_u64).
    fn compare_exchange_u64(
        &self,
        offset: u64,
        current: u64,
        new: u64,
    ) -> Result<std::result::Result<u64, u64>>;

    /// The bytes of a range, without a copy.
    ///
    /// # Safety
    ///
    /// For as long as the slice lives, nobody changes these bytes: no thread of this process
    /// through this or another region, no other process. The file keeps its length and its
    /// memory stays readable: past a truncation, an access raises SIGBUS.
    ///
    /// # Errors
    ///
    /// `Unsupported` where the region has no mapping.
    #[allow(unsafe_code)]
    unsafe fn slice(&self, offset: u64, len: u64) -> Result<&[u8]>;

    /// The bytes of a range, for storing in place. Stores are visible to readers at once and
    /// durable after [`flush`](Self::flush) of their range and [`drain`](Self::drain).
    ///
    /// # Safety
    ///
    /// As [`slice`](Self::slice), and nobody reads these bytes either.
    ///
    /// # Errors
    ///
    /// `ReadOnly`; `Unsupported` on the page-cache backend, where a store through a mapping
    /// would dirty a whole large folio, but with
    /// [`Options::writable_mapping`](crate::Options::writable_mapping).
    #[allow(unsafe_code, clippy::mut_from_ref)]
    unsafe fn slice_mut(&self, offset: u64, len: u64) -> Result<&mut [u8]>;

    /// Makes the region `new_len` bytes long. New bytes are zero, allocated, durable; the base
    /// does not move. Other threads may go on using the region meanwhile. A `new_len` not above
    /// the present length changes nothing. Growth never changes a byte that the file already has:
    /// not what lies past a [view](crate::Options::view), not what another process has added.
    ///
    /// # Errors
    ///
    /// `FileLonger` if the file has bytes past the region, other than those that a region of the
    /// same file in this process added; `TooLarge` past the address space reserved at open
    /// ([`Options::max_len`](crate::Options::max_len)); `Os(ENOSPC)` and the like; `Unsupported` in
    /// a forked child. The region is then as it was, and so is the file. A failed sync, and a file
    /// that was cut, poison the region.
    fn grow(&self, new_len: u64) -> Result<()>;

    /// Makes the region as long as its file, where the file has become longer by other means, or
    /// the region is a [view](crate::Options::view) of its first part. Returns the length, in bytes.
    /// The bytes stay as they are, and the length of the file is durable on return. A file that is
    /// not longer changes nothing.
    ///
    /// # Errors
    ///
    /// `TooLarge` past the address space reserved at open; `Os`; `Unsupported` in a forked child.
    /// The region is then as it was. A failed sync poisons the region.
    fn grow_to_file(&self) -> Result<u64> {
        Ok(self.len())
    }

    /// Makes the region and its file `new_len` bytes long, 0 among them, and that durable. The base
    /// does not move. From then on, access past the new length is `OutOfBounds`, and a slice that
    /// reaches past it breaks its own safety rule. A crash during the call leaves the old length or
    /// the new one. What was cut off reads as zero once the region has grown again, after a crash too.
    /// A `new_len` not below the present length changes nothing.
    ///
    /// # Errors
    ///
    /// `FileLonger` if the file has bytes past the region; `Unsupported` for a device, in a forked
    /// child, and while another region of the file in this process is longer than `new_len`; `Os` from
    /// `ftruncate`. The region and the file are then as they were. A failed sync, and a file that was
    /// cut by others, poison the region.
    fn shrink(&self, new_len: u64) -> Result<()> {
        let _ = new_len;
        let why = "this region cannot shrink";
        Err(Error::new(Operation::Shrink, ErrorKind::Unsupported(why)))
    }

    /// Drains and closes: reports what `Drop` could not. Every later call but the accessors
    /// returns `Closed`; the memory stays mapped until the region is dropped. Like `drain`, it
    /// covers the calling thread's flushes.
    fn close(&self) -> Result<()>;
}

/// How many bytes the parts have together.
pub(super) fn joined(parts: &[IoSlice<'_>]) -> u64 {
    parts.iter().fold(0, |all, part| all.saturating_add(part.len() as u64))
}

/// Writes parts whose range was checked.
pub(super) fn write_each<R: Region + ?Sized>(
    region: &R,
    offset: u64,
    parts: &[IoSlice<'_>],
) -> Result<()> {
    let mut at = offset;
    for part in parts {
        region.write(at, part)?;
        at += part.len() as u64;
    }
    Ok(())
}

/// Every method of the trait, passed on through the macro `$to`, which is given `self.method(…)`.
macro_rules! delegate {
    ($self:ident, $to:ident) => {
        delegate! { $self, $to;
            fn len() -> u64;
            fn durability() -> Durability;
            fn granularity() -> Granularity;
            fn backend() -> Backend;
            fn is_emulated() -> bool;
            fn read(offset: u64, buf: &mut [u8]) -> Result<()>;
            fn write(offset: u64, data: &[u8]) -> Result<()>;
            fn write_vectored(offset: u64, parts: &[std::io::IoSlice<'_>]) -> Result<()>;
            fn write_flush(offset: u64, data: &[u8]) -> Result<()>;
            fn write_stream(offset: u64, data: &[u8]) -> Result<()>;
            fn write_atomic(offset: u64, page: &[u8]) -> Result<()>;
            fn prefetch(offset: u64, len: u64) -> ();
            fn fill_flush(offset: u64, len: u64, byte: u8) -> Result<()>;
            fn flush(offset: u64, len: u64) -> Result<()>;
            fn drain() -> Result<()>;
            fn drain_blocks() -> bool;
            fn sync_all() -> Result<()>;
            fn send() -> Result<()>;
            fn persist(offset: u64, len: u64) -> Result<()>;
            fn write_persist(offset: u64, data: &[u8]) -> Result<()>;
            fn deep_flush(offset: u64, len: u64) -> Result<()>;
            fn load_u64(offset: u64) -> Result<u64>;
            fn store_u64(offset: u64, value: u64) -> Result<()>;
            fn compare_exchange_u64(offset: u64, current: u64, new: u64)
                -> Result<std::result::Result<u64, u64>>;
            fn grow(new_len: u64) -> Result<()>;
            fn grow_to_file() -> Result<u64>;
            fn shrink(new_len: u64) -> Result<()>;
            fn close() -> Result<()>;
        }

        #[inline]
        #[allow(unsafe_code)]
        unsafe fn slice(&$self, offset: u64, len: u64) -> Result<&[u8]> {
            // SAFETY: passed on.
            unsafe { $to!($self.slice(offset, len)) }
        }

        #[inline]
        #[allow(unsafe_code)]
        unsafe fn slice_mut(&$self, offset: u64, len: u64) -> Result<&mut [u8]> {
            // SAFETY: passed on.
            unsafe { $to!($self.slice_mut(offset, len)) }
        }
    };
    ($self:ident, $to:ident; $(fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty;)*) => {
        $(
            #[inline]
            fn $name(&$self, $($arg: $ty),*) -> $ret {
                $to!($self.$name($($arg),*))
            }
        )*
    };
}
pub(super) use delegate;

macro_rules! behind {
    ($self:ident.$($call:tt)*) => { (**$self).$($call)* };
}

impl<R: Region + ?Sized> Region for &R {
    delegate!(self, behind);

    fn shutdowns(&self) -> Option<Shutdowns> {
        (**self).shutdowns()
    }
}

impl<R: Region + ?Sized> Region for Box<R> {
    delegate!(self, behind);

    fn shutdowns(&self) -> Option<Shutdowns> {
        (**self).shutdowns()
    }
}

impl<R: Region + ?Sized> Region for Arc<R> {
    delegate!(self, behind);

    fn shutdowns(&self) -> Option<Shutdowns> {
        (**self).shutdowns()
    }
}
