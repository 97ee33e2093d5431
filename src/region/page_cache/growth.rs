//! A region of the page cache grows: the file first, then what is mapped of it, then the length.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use rustix::mm::MapFlags;

use super::{PageCacheRegion, access};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;
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
        let explain = |error: Error| error.at(&self.path).over(old_len, new_len - old_len);
        let max = self.mapping.capacity() as u64;
        if new_len > max {
            return Err(explain(Error::new(Operation::Grow, ErrorKind::TooLarge { max })));
        }
        // What another region has grown to is not new.
        let known = old_len.max(self.file.shared.longest());
        let mut file_len = None;
        if new_len > known || self.writable_mapping {
            file_len = self.group.alone(|| {
                self.check_writable(Operation::Grow)?;
                // So that the sync of the growth takes along what is gathered.
                primitive!(
                    "page_cache.grow.send",
                    self.send(&mut lock(&self.file.shared.gather)),
                    Ok(())
                )?;
                self.extend(old_len, known, new_len)
                    .map_err(|error| self.file.shared.poison_if_final(explain(error)))
            })?;
        }
        let from = (old_len as usize).next_multiple_of(page_size());
        let to = (new_len as usize).next_multiple_of(page_size());
        if let Err(errno) = self.mapping.map(
            self.fd.as_fd(),
            from,
            to,
            access(self.writable_mapping),
            MapFlags::SHARED,
        ) {
            if let Some(file_len) = file_len {
                storage::shrink_back(self.fd.as_fd(), file_len);
            }
            return Err(explain(Error::os(Operation::Grow, "mmap", errno)));
        }
        if self.writable_mapping {
            primitive!(
                "page_cache.grow.single_pages",
                self.mapping.fault_single_pages(from, to),
                ()
            );
        }
        self.file.latch.announce(new_len);
        self.len.store(new_len, Ordering::Release);
        drop(growth);
        Ok(())
    }

    /// Makes the file `to` bytes long, if it is not, and ready to be mapped. Returns how long it
    /// was before it was made longer.
    fn extend(&self, from: u64, known: u64, to: u64) -> Result<Option<u64>> {
        let fd = self.fd.as_fd();
        let before = if to > known { Some(storage::extend(fd, known, to)?) } else { None };
        if self.writable_mapping {
            primitive!("page_cache.grow.storable", storage::make_storable(fd, from, to), Ok(()))
                .inspect_err(|_| {
                    if let Some(before) = before {
                        storage::shrink_back(fd, before);
                    }
                })?;
        }
        Ok(before)
    }
}
