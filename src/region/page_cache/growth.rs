//! A region of the page cache changes its length: the file first, then what is mapped of it, then
//! the length.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use rustix::mm::MapFlags;

use super::{PageCacheRegion, access};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;
use crate::region::calls;
use crate::region::contract::Region;
use crate::region::mapping::page_size;
use crate::region::siblings::lock;
use crate::region::storage;

impl PageCacheRegion {
    /// [`Region::grow`].
    pub(super) fn grow_to(&self, new_len: u64) -> Result<()> {
        self.check_writable(Operation::Grow)?;
        self.check_ours(Operation::Grow)?;
        let growth = lock(&self.file.shared.growth);
        let old_len = self.len();
        if new_len <= old_len {
            return Ok(());
        }
        self.check_capacity(old_len, new_len)?;
        let explain = |error: Error| error.at(&self.path).over(old_len, new_len - old_len);
        // What another region has grown to is not new.
        let known = old_len.max(self.file.shared.longest());
        if new_len > known || self.writable_mapping {
            self.group.alone(|| {
                self.check_writable(Operation::Grow)?;
                // So that the sync of the growth takes along what is gathered.
                primitive!(
                    "page_cache.grow.send",
                    self.send_gathered(&mut lock(&self.file.shared.gather)),
                    Ok(())
                )?;
                self.extend(old_len, known, new_len)
                    .map_err(|error| self.file.shared.poison_if_final(explain(error)))
            })?;
        }
        if let Err(error) = self.take_in(old_len, new_len) {
            if new_len > known {
                storage::shrink_back(self.fd.as_fd(), known);
            }
            return Err(explain(error));
        }
        drop(growth);
        Ok(())
    }

    /// [`Region::grow_to_file`].
    pub(super) fn adopt_length(&self) -> Result<u64> {
        self.check_writable(Operation::Grow)?;
        self.check_ours(Operation::Grow)?;
        let growth = lock(&self.file.shared.growth);
        let old_len = self.len();
        let fd = self.fd.as_fd();
        let found = calls::fstat(fd)
            .map_err(|errno| Error::os(Operation::Grow, "fstat", errno).at(&self.path))?;
        let new_len = found.st_size.cast_unsigned();
        if new_len <= old_len {
            return Ok(old_len);
        }
        self.check_capacity(old_len, new_len)?;
        let explain = |error: Error| error.at(&self.path).over(old_len, new_len - old_len);
        self.group.alone(|| {
            self.check_writable(Operation::Grow)?;
            self.send_gathered(&mut lock(&self.file.shared.gather))?;
            // Who made the file longer may not have made its length durable.
            calls::fsync(fd)
                .map_err(|errno| Error::os(Operation::Sync, "fsync", errno))
                .and_then(|()| self.extend(old_len, new_len, new_len))
                .map_err(|error| self.file.shared.poison_if_final(explain(error)))
        })?;
        self.take_in(old_len, new_len).map_err(explain)?;
        drop(growth);
        Ok(new_len)
    }

    /// [`Region::shrink`].
    pub(super) fn shrink_to(&self, new_len: u64) -> Result<()> {
        self.check_writable(Operation::Shrink)?;
        self.check_ours(Operation::Shrink)?;
        let growth = lock(&self.file.shared.growth);
        let old_len = self.len();
        if new_len >= old_len {
            return Ok(());
        }
        let explain = |error: Error| error.at(&self.path).over(new_len, old_len - new_len);
        if self.file.shared.others_are_longer(&self.file.latch, new_len) {
            let why = "another region of the file in this process is longer";
            return Err(explain(Error::new(Operation::Shrink, ErrorKind::Unsupported(why))));
        }
        self.group.alone(|| {
            // Whoever writes from here on, or waits to, meets the new length.
            let mut gather = self.writer(Operation::Shrink)?;
            self.send_gathered(&mut gather)?;
            self.set_len(new_len);
            storage::shorten(self.fd.as_fd(), old_len, new_len).map_err(|error| {
                if error.operation() != Operation::Sync {
                    self.set_len(old_len);
                }
                self.file.shared.poison_if_final(explain(error))
            })
        })?;
        drop(growth);
        Ok(())
    }

    fn set_len(&self, len: u64) {
        self.file.latch.announce(len);
        self.len.store(len, Ordering::Release);
    }

    fn check_capacity(&self, old_len: u64, new_len: u64) -> Result<()> {
        let max = self.mapping.capacity() as u64;
        if new_len <= max {
            return Ok(());
        }
        let error = Error::new(Operation::Grow, ErrorKind::TooLarge { max });
        Err(error.at(&self.path).over(old_len, new_len - old_len))
    }

    /// Maps what the file has past the region, and makes it the region's.
    fn take_in(&self, old_len: u64, new_len: u64) -> Result<()> {
        let from = (old_len as usize).next_multiple_of(page_size());
        let to = (new_len as usize).next_multiple_of(page_size());
        // Not mapped: reads are made by the kernel.
        let to_map = if self.mapped { to } else { from };
        self.mapping
            .map(self.fd.as_fd(), from, to_map, access(self.writable_mapping), MapFlags::SHARED)
            .map_err(|errno| Error::os(Operation::Grow, "mmap", errno))?;
        if self.writable_mapping {
            primitive!(
                "page_cache.grow.single_pages",
                self.mapping.fault_single_pages(from, to),
                ()
            );
        }
        self.set_len(new_len);
        Ok(())
    }

    /// Makes the file `to` bytes long, if it is not, and ready to be mapped.
    fn extend(&self, from: u64, known: u64, to: u64) -> Result<()> {
        let fd = self.fd.as_fd();
        if to > known {
            storage::extend_by(self.growth, fd, known, to)?;
        }
        if self.writable_mapping {
            primitive!("page_cache.grow.storable", storage::make_storable(fd, from, to), Ok(()))
                .inspect_err(|_| {
                    if to > known {
                        storage::shrink_back(fd, known);
                    }
                })?;
        }
        Ok(())
    }
}
