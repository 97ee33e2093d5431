//! Bytes that a memory error took are given again: how, by backend.
//!
//! | backend | means |
//! |---|---|
//! | fsdax | `pwrite` of whole pages: the driver clears the error, then stores (drivers/nvdimm/pmem.c, `pmem_recovery_write`, which takes whole pages alone) |
//! | page cache | an ordinary write and a sync: the drive takes another place for a bad sector |
//! | device DAX | none while it is open: the kernel clears errors of namespaces that are not in use (drivers/nvdimm/bus.c, `nd_ns_forget_poison_check`) |
//! | volatile | an ordinary write |

use super::{AnyRegion, Inner};
use crate::durability::Backend;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::region::contract::Region;
use crate::region::mapped::MappedRegion;
use crate::region::mapping::page_size;
use crate::region::{bounds, calls, storage};

impl AnyRegion {
    /// Gives a range whose memory went bad its contents again, durably.
    ///
    /// `offset` and the length of `bytes` are multiples of the page size: an error takes a page, and
    /// only a write of whole pages clears it. When it returns `Ok`, the range holds `bytes`, can be
    /// read, and survives what [`durability`](Region::durability) names. Nothing else is written, so
    /// it also serves on a range that is not bad. Where the errors are, the report says:
    /// [`Report::bad_ranges`](crate::probe::Report::bad_ranges).
    ///
    /// Not atomic: a crash may keep a part of `bytes`, and other threads may see any mix.
    ///
    /// # Errors
    ///
    /// - `Unaligned`, `OutOfBounds`, `ReadOnly`: nothing is changed.
    /// - `Unsupported` on device DAX, which has no write(2): close it everywhere and clear the errors
    ///   of its namespace (`ndctl clear-errors`).
    /// - The errno of pwrite(2): `EIO` where the platform cannot clear the error. The range holds any
    ///   mix of old and new bytes, or stays bad; the region goes on.
    /// - `Gone`: the range cannot be read afterwards; the region goes on.
    /// - A failed fdatasync(2) is final for the region.
    pub fn repair(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let len = bytes.len() as u64;
        let align = page_size() as u64;
        let refused =
            |kind| Err(Error::new(Operation::Write, kind).at(self.path()).over(offset, len));
        if offset % align != 0 || len % align != 0 {
            return refused(ErrorKind::Unaligned { align });
        }
        bounds::check(Operation::Write, offset, len, self.len())
            .map_err(|error| error.at(self.path()))?;
        match &self.inner {
            _ if self.backend() == Backend::DevDax => refused(ErrorKind::Unsupported(
                "repair on device DAX, which has no write(2): close it and clear the errors of its \
                 namespace (ndctl clear-errors)",
            )),
            // A store into a page that is gone is a fault; the kernel clears it first.
            Inner::Mapped(region) if self.backend() == Backend::FsDax => {
                through_the_kernel(region, offset, bytes)
            }
            _ => self.write_persist(offset, bytes),
        }
    }
}

fn through_the_kernel(region: &MappedRegion, offset: u64, bytes: &[u8]) -> Result<()> {
    // Refused where a store is: read-only, closed, failed.
    region.write(offset, &[])?;
    let explain = |error: Error| error.at(region.path()).over(offset, bytes.len() as u64);
    storage::pwrite_all(region.fd(), offset, bytes)
        .map_err(|errno| explain(Error::os(Operation::Write, "pwrite", errno)))?;
    calls::fdatasync(region.fd())
        .map_err(|errno| region.poison(explain(Error::os(Operation::Sync, "fdatasync", errno))))?;
    let mut page = vec![0; page_size()];
    (offset..offset + bytes.len() as u64)
        .step_by(page.len())
        .try_for_each(|at| region.read(at, &mut page))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::error::ErrorKind;
    use crate::{Options, Region};

    /// A file of two pages and a half, in the page cache and in memory.
    fn places() -> [tempfile::TempDir; 2] {
        [env!("CARGO_MANIFEST_DIR"), "/dev/shm"].map(|at| tempfile::tempdir_in(at).unwrap())
    }

    fn create(directory: &tempfile::TempDir) -> (PathBuf, crate::AnyRegion) {
        let path = directory.path().join("file");
        let region = Options::new().len(10240).create(&path).unwrap();
        region.write_persist(0, &[1; 10240]).unwrap();
        (path, region)
    }

    #[test]
    fn a_range_of_whole_pages_gets_its_contents_and_nothing_else_does() {
        for directory in places() {
            let (path, region) = create(&directory);
            region.repair(4096, &[2; 4096]).unwrap();
            region.repair(0, &[]).unwrap();
            let expected = [[1; 4096].as_slice(), &[2; 4096], &[1; 2048]].concat();
            let mut found = vec![0; 10240];
            region.read(0, &mut found).unwrap();
            assert!(found == expected && std::fs::read(&path).unwrap() == expected);
        }
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        for directory in places() {
            let (path, region) = create(&directory);
            let refusals = [
                (1, 4096, "not a multiple"),
                (4096, 4095, "not a multiple"),
                (8192, 4096, "[8192, 12288)"),
                (u64::MAX - 4095, 4096, "18446744073709547520"),
            ];
            for (offset, len, words) in refusals {
                let error = region.repair(offset, &vec![2; len]).unwrap_err();
                assert!(error.to_string().contains(words), "{error}");
                assert!(error.to_string().contains("file"), "{error}");
            }
            region.close().unwrap();
            let region = Options::new().read_only(true).open(&path).unwrap();
            let error = region.repair(0, &[2; 4096]).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::ReadOnly), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), [1; 10240]);
        }
    }
}
