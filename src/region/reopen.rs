//! What does an existing file hold: is what the page cache shows on the medium?
//!
//! After a failed sync the kernel marks the pages clean that it could not write: reads go on showing
//! them, and no later sync writes them (fsync(2), NOTES). Whoever was told of the error may be gone.
//! So the cached pages are dropped, and the file is read anew. Pages that somebody has mapped or is
//! using stay, and cachestat(2) tells that there are some (Linux 6.5; mincore(2) before).
//!
//! What stayed is made dirty again, and synced: the medium then has what the cache shows. That
//! writes no byte. A write fault alone marks a page dirty (`do_shared_fault`, mm/memory.c), and what
//! another process stores into the page at the same time stays stored. It is done for the holder
//! of the exclusive lock only: nobody else decides what the file holds. Whoever opens the file
//! without the lock, or for reading, cannot know.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{self, AtFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use super::calls;
use super::existing::Existing;
use super::ground;
use super::identity::Driver;
use super::mapping::{Mapping, page_size};
use super::reserve::Reserve;
use crate::error::{Error, Operation, Result};
use crate::primitives::primitive;
use crate::probe::Report;

/// What a region shows when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shows {
    /// What the medium holds.
    Medium,
    /// Pages that were cached before, of which nobody can say whether the medium has them.
    Cache,
}

/// Makes the size, the extents and the name of a file that somebody else made durable, once:
/// neither `MAP_SYNC` nor `fdatasync` does (mmap(2); fsync(2) on directory entries), and a
/// drained write would be lost with them.
pub(super) fn sync_existing(file: &Existing, report: &mut Report) -> Result<()> {
    primitive!("open.fsync", calls::fsync(file.fd()), Ok(()))
        .map_err(|errno| Error::os(Operation::Sync, "fsync", errno))?;
    if !file.sync_name(report.mount.as_ref().map(|mount| mount.id))? {
        ground::without_directory_sync(report);
    }
    Ok(())
}

/// Drops what is cached of a synced file of `len` bytes. Where pages stay and the file is locked
/// `exclusively`, makes the medium have them.
///
/// # Errors
///
/// `Os` where a page that stayed cannot be written: what the file shows is not on the medium.
pub(super) fn read_anew(fd: BorrowedFd<'_>, len: u64, exclusively: bool) -> Result<Shows> {
    // Advice: where it is not taken, there is nothing to be done.
    let _ = primitive!("open.forget_cached", calls::forget_cached(fd), Ok(()));
    match calls::cached_pages(fd) {
        Ok(0) => return Ok(Shows::Medium),
        _ if !exclusively => return Ok(Shows::Cache),
        Ok(_) | Err(_) => {}
    }
    match dirty_cached(fd, len) {
        // No mapping for stores: the pages cannot be marked.
        Err(Errno::NODEV | Errno::ACCESS | Errno::PERM | Errno::NOMEM) => Ok(Shows::Cache),
        Err(errno) => Err(Error::os(Operation::Sync, "madvise", errno)),
        Ok(0) => Ok(Shows::Medium),
        Ok(_) => {
            calls::fsync(fd).map_err(|errno| Error::os(Operation::Sync, "fsync", errno))?;
            Ok(Shows::Medium)
        }
    }
}

/// Bytes that are mapped at a time to look for cached pages.
const WINDOW: usize = 64 << 20;

/// Marks every page of the file dirty that is cached. Returns how many there are.
fn dirty_cached(fd: BorrowedFd<'_>, len: u64) -> std::result::Result<usize, Errno> {
    let page = page_size();
    let len = (len as usize).next_multiple_of(page);
    let mut marked = 0;
    for start in (0..len).step_by(WINDOW) {
        let bytes = WINDOW.min(len - start);
        let window = Mapping::reserve(&Reserve::exactly(bytes), page, true)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        window.map_at(fd, start as u64, bytes, access, MapFlags::SHARED)?;
        let cached = cached(&window, bytes);
        let mut at = 0;
        while let Some(first) = (at..cached.len()).find(|&page| cached[page]) {
            at = (first..cached.len()).find(|&page| !cached[page]).unwrap_or(cached.len());
            window.populate(first * page, at * page, true)?;
            marked += at - first;
        }
    }
    Ok(marked)
}

/// Which pages of a mapping are cached: all, as far as can be known, if the kernel does not say.
fn cached(window: &Mapping, bytes: usize) -> Vec<bool> {
    let mut pages = vec![1_u8; bytes / page_size()];
    // SAFETY: the mapping is `bytes` long, and the vector has a byte for each of its pages.
    let told = unsafe { libc::mincore(window.at(0).cast(), bytes, pages.as_mut_ptr()) };
    pages.into_iter().map(|page| told != 0 || page & 1 == 1).collect()
}

/// How many pages of a file are cached, by cachestat(2). None of a DAX file, which is not asked:
/// `filemap_cachestat` (mm/filemap.c) takes the entries of its mapped pages for pages that were
/// evicted, and the kernel crashes (seen on Linux 6.12, virtio-pmem).
///
/// # Errors
///
/// `ENOSYS` before Linux 6.5, where statx(2) does not say whether a file is DAX, and on an overlay,
/// whose files have their pages elsewhere.
pub(super) fn cached_pages(fd: BorrowedFd<'_>) -> std::result::Result<u64, Errno> {
    if Driver::of(fd)?.is_overlay() {
        return Err(Errno::NOSYS);
    }
    let found = fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    if !found.stx_attributes_mask.contains(StatxAttributes::DAX) {
        return Err(Errno::NOSYS);
    }
    if found.stx_attributes.contains(StatxAttributes::DAX) {
        return Ok(0);
    }
    // Cached; dirty and in write-back are among them.
    page_counts(fd).map(|found| found[0])
}

/// cachestat(2): how many pages of a file are cached, dirty, in write-back, evicted, evicted a short
/// while ago.
pub(super) fn page_counts(fd: BorrowedFd<'_>) -> std::result::Result<[u64; 5], Errno> {
    /// The same number on every architecture (include/uapi/asm-generic/unistd.h).
    const CACHESTAT: libc::c_long = 451;
    // `struct cachestat_range` and `struct cachestat` (include/uapi/linux/mman.h): a length of 0 is
    // that of the file.
    let range = [0_u64; 2];
    let mut found = [0_u64; 5];
    // SAFETY: both arrays have the size and alignment of the structures.
    let result =
        unsafe { libc::syscall(CACHESTAT, fd.as_raw_fd(), range.as_ptr(), found.as_mut_ptr(), 0) };
    if result == 0 {
        Ok(found)
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::{Durability, Options, Region};

    fn written(pages: usize) -> File {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all_at(&vec![7; pages * page_size()], 0).unwrap();
        file.sync_all().unwrap();
        file
    }

    fn mapped(file: &File, pages: usize) -> Mapping {
        let bytes = pages * page_size();
        let mapping = Mapping::reserve(&Reserve::exactly(bytes), page_size(), true).unwrap();
        mapping.map_at(file.as_fd(), 0, bytes, ProtFlags::READ, MapFlags::SHARED).unwrap();
        mapping
    }

    #[test]
    fn what_nobody_uses_leaves_the_cache() {
        let file = written(8);
        assert!(cached_pages(file.as_fd()).unwrap() > 0);
        assert_eq!(read_anew(file.as_fd(), 8 << 12, false).unwrap(), Shows::Medium);
        assert_eq!(cached_pages(file.as_fd()).unwrap(), 0);
    }

    /// Pages that are mapped stay. With the lock they are written once more, and without it nobody
    /// says that they are on the medium.
    #[test]
    fn what_is_mapped_stays_and_is_written_only_with_the_lock() {
        let file = written(8);
        let mapping = mapped(&file, 8);
        mapping.populate(0, 8 * page_size(), false).unwrap();
        let len = 8 * page_size() as u64;
        assert_eq!(read_anew(file.as_fd(), len, false).unwrap(), Shows::Cache);
        assert_eq!(dirty_cached(file.as_fd(), len), Ok(8));
        assert_eq!(read_anew(file.as_fd(), len, true).unwrap(), Shows::Medium);
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes.iter().all(|&byte| byte == 7), "no byte changes");
    }

    #[test]
    fn only_pages_that_are_cached_are_marked() {
        let file = written(64);
        let mapping = mapped(&file, 64);
        calls::forget_cached(file.as_fd()).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
        mapping.fault_single_pages(0, 64 * page_size());
        mapping.populate(0, page_size(), false).unwrap();
        let marked = dirty_cached(file.as_fd(), 64 * page_size() as u64).unwrap();
        assert!((1..64).contains(&marked), "{marked} pages");
    }

    const PAGES: u64 = 64;

    /// A directory, and a file in it that was a region, all of it written.
    fn was_region(closed: bool, lock: bool) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = directory.path().join("region");
        let region = Options::new().len(PAGES << 12).lock(lock).create(&path).unwrap();
        region.write_persist(0, &vec![7; (PAGES as usize) << 12]).unwrap();
        if closed {
            region.close().unwrap();
        }
        (directory, path)
    }

    /// How many pages are cached of a region that is opened so, and whether it shows the medium.
    fn opened(options: &Options, path: &std::path::Path) -> (u64, bool, Durability) {
        let region = options.open(path).unwrap();
        (cached_pages(region.as_fd()).unwrap(), region.shows_medium(), region.durability())
    }

    #[test]
    fn what_is_cached_stays_after_a_clean_close_and_no_other() {
        let usual = Options::new();
        let all_of = |shown: (u64, bool, Durability)| (shown.0, shown.1);
        let (_directory, path) = was_region(true, true);
        assert_eq!(all_of(opened(&usual, &path)), (PAGES, true));
        assert_eq!(all_of(opened(&usual, &path)), (0, true), "the last region was only dropped");
        for (closed, lock) in [(false, true), (true, false)] {
            let (_directory, path) = was_region(closed, lock);
            assert_eq!(all_of(opened(&usual, &path)), (0, true), "closed {closed}, locked {lock}");
        }
        let (_directory, path) = was_region(true, true);
        let file = File::options().write(true).open(&path).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        file.write_all_at(&[8], 0).unwrap();
        assert_eq!(all_of(opened(&usual, &path)), (0, true), "somebody has written");
    }

    #[test]
    fn the_caller_has_the_cache_kept_or_dropped_and_is_told_what_that_hides() {
        let (_directory, path) = was_region(true, true);
        let level = opened(&Options::new().read_only(true), &path);
        assert!(level.0 == PAGES && level.1, "a reader believes the mark, and leaves it");
        let dropped = opened(&Options::new().keep_cache(false), &path);
        assert_eq!(dropped, (0, true, level.2));
        // Of the mark nothing is left.
        let (_directory, path) = was_region(true, true);
        let kept = Options::new().keep_cache(true);
        assert_eq!(opened(&kept, &path), (PAGES, true, level.2));
        let region = kept.open(&path).unwrap();
        assert_eq!(cached_pages(region.as_fd()).unwrap(), PAGES);
        assert!(!region.shows_medium() && region.durability() <= Durability::Unverified);
        region.close().unwrap();
        drop(region);
        let after = opened(&Options::new(), &path);
        assert_eq!(after, (0, true, level.2), "a region that cannot know leaves no mark");
    }

    /// Others are at work: what a reader does not know, it leaves to the next writer.
    #[test]
    fn a_reader_leaves_mark_and_cache_and_believes_the_mark_alone() {
        let reader = Options::new().read_only(true);
        let shown = |options: &Options, path: &std::path::Path| {
            let shown = opened(options, path);
            (shown.0, shown.1)
        };
        let (_directory, path) = was_region(true, true);
        assert_eq!(shown(&reader, &path), (PAGES, true));
        assert_eq!(shown(&Options::new(), &path), (PAGES, true), "the mark was left");
        let (_directory, path) = was_region(false, true);
        assert_eq!(shown(&reader, &path), (PAGES, false), "nobody closed it");
        assert_eq!(shown(&Options::new(), &path), (0, true));
    }

    #[test]
    fn what_is_gathered_is_sent_before_the_mark_is_made() {
        let (_directory, path) = was_region(true, true);
        let region = Options::new().open(&path).unwrap();
        region.write(5, &[1]).unwrap();
        region.close().unwrap();
        drop(region);
        assert_eq!(opened(&Options::new(), &path).0, PAGES);
    }

    /// Pages that another mapping keeps.
    #[test]
    fn pages_that_stay_are_vouched_for_by_the_lock_or_by_a_region_of_this_process() {
        let (_directory, path) = was_region(false, true);
        let file = File::open(&path).unwrap();
        let others = mapped(&file, PAGES as usize);
        for page in 0..PAGES as usize {
            others.read(page * page_size(), &mut [0]).unwrap();
        }
        let shared = Options::new().lock(false);
        let (_, medium, level) = opened(&shared, &path);
        assert!(!medium && level <= Durability::Unverified, "{level}");
        let region = Options::new().open(&path).unwrap();
        let level = region.durability();
        assert!(region.shows_medium());
        let second = shared.open(&path).unwrap();
        assert!(second.shows_medium(), "the first one would know of an error");
        assert_eq!(second.durability(), level);
        drop((region, second, others));
    }

    #[test]
    fn a_region_that_failed_leaves_no_mark() {
        let (_directory, path) = was_region(true, true);
        let region = Options::new().open(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
        region.write(0, &[1]).unwrap();
        assert!(region.close().is_err() && region.close().is_err());
        assert!(!crate::region::clean::is_there(region.as_fd()));
        drop(region);
        assert_eq!(opened(&Options::new(), &path).0, 0);
    }

    /// Somebody who does not ask for the lock.
    #[test]
    fn a_clean_close_syncs_what_others_have_written() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = directory.path().join("region");
        let region = Options::new().len(PAGES << 12).create(&path).unwrap();
        File::options().write(true).open(&path).unwrap().write_all_at(&[8], 5000).unwrap();
        assert!(page_counts(region.as_fd()).unwrap()[1] > 0, "nothing is dirty");
        region.close().unwrap();
        assert_eq!(page_counts(region.as_fd()).unwrap()[1], 0, "dirty pages");
    }
}
