//! How does a region change its length? The file first, then what is mapped of it, then the length.
//!
//! A growth costs what is new, however long the region is. Where `MAP_SYNC` maps the file, a sync of
//! the whole file would write-protect every dirty page (`dax_writeback_one`, fs/dax.c), and the next
//! store to each would fault. So only what is new is synced there, through its mapping: msync(2) is
//! `vfs_fsync_range` with `datasync` (mm/msync.c), which writes back the pages of its range, and
//! commits the new length and blocks whatever the range is (`ext4_sync_file`, fs/ext4/fsync.c;
//! `xfs_file_fsync`, fs/xfs/xfs_file.c). And what is new is written and not allocated first, which would
//! unmap the old pages: see [`storage::extend_mapped`].

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::calls;
use super::contract::Region;
use super::options::Growth;
use super::siblings::{Membership, lock};
use super::storage;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;

/// A region of a file, as far as its length goes.
pub(super) struct End<'a> {
    pub(super) path: &'a Path,
    pub(super) fd: BorrowedFd<'a>,
    pub(super) file: &'a Membership,
    pub(super) len: &'a AtomicU64,
    /// The longest it can become, in bytes.
    pub(super) max: u64,
    pub(super) growth: Growth,
    /// The caller may store into the pages through a pointer, and each needs space of its own.
    pub(super) storable: bool,
    /// [`Resize::take_in`] syncs what is new, not this module.
    pub(super) synced_when_mapped: bool,
}

/// What other threads that write do meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Writers {
    GoOn,
    Wait,
}

/// A region that can change its length.
pub(super) trait Resize: Region {
    fn end(&self) -> End<'_>;

    /// Refuses once poisoned or closed, on a read-only region, and in a forked child.
    fn may_resize(&self, operation: Operation) -> Result<()>;

    /// Runs `work` when the file has all that was written, while nobody else syncs the open file.
    fn alone(
        &self,
        operation: Operation,
        writers: Writers,
        work: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()>;

    /// Maps what the file has past `old_len`, up to `new_len`.
    fn take_in(&self, old_len: u64, new_len: u64) -> Result<()>;
}

impl End<'_> {
    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn set_len(&self, len: u64) {
        self.file.latch.announce(len);
        self.len.store(len, Ordering::Release);
    }

    fn explain(&self, from: u64, to: u64) -> impl Fn(Error) -> Error {
        move |error: Error| error.at(self.path).over(from, to - from)
    }

    fn check_capacity(&self, old_len: u64, new_len: u64) -> Result<()> {
        if new_len <= self.max {
            return Ok(());
        }
        let error = Error::new(Operation::Grow, ErrorKind::TooLarge { max: self.max });
        Err(self.explain(old_len, new_len)(error))
    }

    /// Makes the file, which is `known` bytes long, `to` bytes long if it is not, and ready to be
    /// mapped. Durably, unless that is left to who maps it.
    fn extend(&self, from: u64, known: u64, to: u64) -> Result<()> {
        if to > known {
            if self.synced_when_mapped {
                storage::extend_mapped(self.fd, known, to)?;
            } else {
                storage::extend_by(self.growth, self.fd, known, to)?;
            }
        }
        if self.storable {
            primitive!(
                "page_cache.grow.storable",
                storage::make_storable(self.fd, from, to),
                Ok(())
            )
            .inspect_err(|_| {
                if to > known {
                    storage::shrink_back(self.fd, known);
                }
            })?;
        }
        Ok(())
    }
}

/// [`Region::grow`].
pub(super) fn grow(region: &impl Resize, new_len: u64) -> Result<()> {
    region.may_resize(Operation::Grow)?;
    let end = region.end();
    let shared = &end.file.shared;
    let growth = lock(&shared.growth);
    let old_len = end.len();
    if new_len <= old_len {
        return Ok(());
    }
    end.check_capacity(old_len, new_len)?;
    let explain = end.explain(old_len, new_len);
    // What another region has grown to is not new.
    let known = old_len.max(shared.longest());
    if new_len > known || end.storable {
        region.alone(Operation::Grow, Writers::GoOn, &mut || {
            end.extend(old_len, known, new_len)
                .map_err(|error| shared.poison_if_final(explain(error)))
        })?;
    }
    region.take_in(old_len, new_len).map_err(|error| {
        // What was mapped beyond the old length stays mapped and out of bounds.
        if new_len > known {
            storage::shrink_back(end.fd, known);
        }
        shared.poison_if_final(explain(error))
    })?;
    end.set_len(new_len);
    drop(growth);
    Ok(())
}

/// [`Region::grow_to_file`].
pub(super) fn grow_to_file(region: &impl Resize) -> Result<u64> {
    region.may_resize(Operation::Grow)?;
    let end = region.end();
    let shared = &end.file.shared;
    let growth = lock(&shared.growth);
    let old_len = end.len();
    let found = calls::fstat(end.fd)
        .map_err(|errno| Error::os(Operation::Grow, "fstat", errno).at(end.path))?;
    // That of a device is 0.
    let new_len = found.st_size.unsigned_abs();
    if new_len <= old_len {
        return Ok(old_len);
    }
    end.check_capacity(old_len, new_len)?;
    let explain = end.explain(old_len, new_len);
    region.alone(Operation::Grow, Writers::GoOn, &mut || {
        // Who made the file longer may not have made its length durable.
        let synced = if end.synced_when_mapped { Ok(()) } else { calls::fsync(end.fd) };
        synced
            .map_err(|errno| Error::os(Operation::Sync, "fsync", errno))
            .and_then(|()| end.extend(old_len, new_len, new_len))
            .map_err(|error| shared.poison_if_final(explain(error)))
    })?;
    region.take_in(old_len, new_len).map_err(|error| shared.poison_if_final(explain(error)))?;
    end.set_len(new_len);
    drop(growth);
    Ok(new_len)
}

/// [`Region::shrink`].
pub(super) fn shrink(region: &impl Resize, new_len: u64) -> Result<()> {
    region.may_resize(Operation::Shrink)?;
    let end = region.end();
    let shared = &end.file.shared;
    let growth = lock(&shared.growth);
    let old_len = end.len();
    if new_len >= old_len {
        return Ok(());
    }
    let explain = end.explain(new_len, old_len);
    if shared.others_are_longer(&end.file.latch, new_len) {
        let why = "another region of the file in this process is longer";
        return Err(explain(Error::new(Operation::Shrink, ErrorKind::Unsupported(why))));
    }
    region.alone(Operation::Shrink, Writers::Wait, &mut || {
        // First: what begins from here on is out of bounds, and does not meet a page that is gone.
        end.set_len(new_len);
        storage::shorten(end.fd, old_len, new_len).map_err(|error| {
            if error.operation() != Operation::Sync {
                end.set_len(old_len);
            }
            shared.poison_if_final(explain(error))
        })
    })?;
    drop(growth);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::{FallocateFlags, fallocate, fstat};

    use crate::{Options, Region};

    /// Old pages that were touched would have their space again.
    #[test]
    fn growth_touches_what_is_new_and_the_page_before_it() {
        const OLD: u64 = 8 << 20;
        for len in [OLD, OLD - 100] {
            let region = Options::new().len(len).in_memory().unwrap();
            let space = || fstat(region.as_fd()).unwrap().st_blocks.unsigned_abs() * 512;
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(region.as_fd(), punch, 0, OLD / 2).unwrap();
            assert_eq!(space(), OLD / 2);
            region.grow(OLD + (64 << 10)).unwrap();
            assert_eq!(space(), OLD / 2 + (64 << 10), "{len}");
            region.write(OLD - 8, &[7; 16]).unwrap();
        }
    }
}
