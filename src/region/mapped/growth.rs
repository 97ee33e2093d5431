//! A mapped region changes its length: the file first, then what is mapped of it, then the length.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use rustix::mm::ProtFlags;

use super::MappedRegion;
use crate::durability::Backend;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;
use crate::region::calls;
use crate::region::contract::Region;
use crate::region::mapping::page_size;
use crate::region::siblings::lock;
use crate::region::storage;

impl MappedRegion {
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
        if new_len > known {
            storage::extend_by(self.parts.growth, self.fd.as_fd(), known, new_len)
                .map_err(|error| self.file.shared.poison_if_final(explain(error)))?;
        }
        if let Err(error) = self.take_in(old_len, new_len) {
            // What was mapped beyond the old length stays mapped and out of bounds.
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
        if self.parts.backend == Backend::DevDax {
            return Ok(old_len);
        }
        let fd = self.fd.as_fd();
        let found = calls::fstat(fd)
            .map_err(|errno| Error::os(Operation::Grow, "fstat", errno).at(&self.path))?;
        let new_len = found.st_size.cast_unsigned();
        if new_len <= old_len {
            return Ok(old_len);
        }
        self.check_capacity(old_len, new_len)?;
        let explain = |error: Error| error.at(&self.path).over(old_len, new_len - old_len);
        // Who made the file longer may not have made its length durable.
        calls::fsync(fd)
            .map_err(|errno| Error::os(Operation::Sync, "fsync", errno))
            .map_err(|error| self.file.shared.poison_if_final(explain(error)))?;
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
        let refuse = |why| Err(explain(Error::new(Operation::Shrink, ErrorKind::Unsupported(why))));
        if self.parts.backend == Backend::DevDax {
            return refuse("a device has the length it has");
        }
        if self.file.shared.others_are_longer(&self.file.latch, new_len) {
            return refuse("another region of the file in this process is longer");
        }
        // First: what begins from here on is out of bounds, and does not meet a page that is gone.
        self.set_len(new_len);
        storage::shorten(self.fd.as_fd(), old_len, new_len).map_err(|error| {
            if error.operation() != Operation::Sync {
                self.set_len(old_len);
            }
            self.file.shared.poison_if_final(explain(error))
        })?;
        drop(growth);
        Ok(())
    }

    fn set_len(&self, len: u64) {
        self.file.latch.announce(len);
        self.len.store(len, Ordering::Release);
    }

    fn check_capacity(&self, old_len: u64, new_len: u64) -> Result<()> {
        let max = match self.parts.backend {
            Backend::DevDax => old_len,
            _ => self.parts.mapping.capacity() as u64,
        };
        if new_len <= max {
            return Ok(());
        }
        let error = Error::new(Operation::Grow, ErrorKind::TooLarge { max });
        Err(error.at(&self.path).over(old_len, new_len - old_len))
    }

    /// Maps what the file has past the region, and makes it the region's.
    fn take_in(&self, old_len: u64, new_len: u64) -> Result<()> {
        let parts = &self.parts;
        let mapped = (old_len as usize).next_multiple_of(page_size());
        let wanted = (new_len as usize).next_multiple_of(page_size());
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        parts
            .mapping
            .map(self.fd.as_fd(), mapped, wanted, prot, parts.flags)
            .map_err(|errno| Error::os(Operation::Grow, "mmap", errno))?;
        // From the start: the fsync of the growth write-protected every page that was dirty, and a
        // store to it would fault.
        primitive!("mapped.grow.populate", parts.mapping.populate(0, wanted, true), Ok(()))
            .map_err(|errno| Error::os(Operation::Grow, "madvise", errno))?;
        self.set_len(new_len);
        Ok(())
    }
}
