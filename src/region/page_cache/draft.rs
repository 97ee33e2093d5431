//! What does a draft put off, or leave out? It is mapped when somebody reads it, which few do; and when
//! all of it was written, nobody needs to ask the filesystem which parts were not.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use super::PageCacheRegion;
use super::open::View;
use crate::error::{Error, Operation, Result};
use crate::region::siblings::lock;

/// How much of a file has been written, from its beginning on, without a gap.
#[derive(Debug, Default)]
pub(super) struct Written(AtomicU64);

impl Written {
    const UNKNOWN: u64 = u64::MAX;

    /// Takes note of a write that has succeeded. By one thread at a time: whoever writes to the file
    /// holds its lock.
    pub(super) fn add(&self, at: u64, len: u64) {
        let to = self.0.load(Ordering::Relaxed);
        let end = at + len;
        if to != Self::UNKNOWN && at <= to && end > to {
            // Only forgetting runs beside this, and is final.
            let _ = self.0.compare_exchange(to, end, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// From now on it is not known: the file changes its length.
    pub(super) fn forget(&self) {
        self.0.store(Self::UNKNOWN, Ordering::Relaxed);
    }

    fn is_all_of(&self, len: u64) -> bool {
        let to = self.0.load(Ordering::Relaxed);
        to != Self::UNKNOWN && to >= len
    }
}

impl PageCacheRegion {
    /// The file as it is mapped, by now.
    #[inline]
    pub(super) fn view(&self, operation: Operation) -> Result<&View> {
        match self.view.get() {
            Some(view) => Ok(view),
            None => self.map_now(operation),
        }
    }

    /// The same, to see whether the file was cut: no draft is mapped for that.
    #[inline]
    pub(super) fn view_to_write(&self) -> Option<&View> {
        if self.draft.is_some() { self.view.get() } else { self.view(Operation::Write).ok() }
    }

    /// The first length is the one that is mapped: who changes it maps the file first. A mapping that
    /// fails is tried again by whoever needs one next.
    #[cold]
    fn map_now(&self, operation: Operation) -> Result<&View> {
        let how = lock(&self.how);
        let view = if let Some(view) = self.view.get() {
            view
        } else {
            let made = how.map(self.fd.as_fd());
            let made = made.map_err(|errno| Error::os(operation, "mmap", errno).at(&self.path))?;
            self.view.get_or_init(|| made)
        };
        drop(how);
        Ok(view)
    }

    /// Whether every byte was written by this draft.
    pub(in crate::region) fn is_written(&self) -> bool {
        let len = self.len.load(Ordering::Acquire);
        self.draft.as_ref().is_some_and(|written| written.is_all_of(len))
    }

    /// It has its name: from here on it is a region as any other.
    pub(in crate::region) fn is_published(&mut self) {
        self.draft = None;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::publish::Commit;
    use crate::{AnyRegion, Options, Region};

    fn is_mapped(region: &AnyRegion) -> bool {
        let file = std::fs::File::from(region.as_fd().try_clone_to_owned().unwrap());
        let inode = file.metadata().unwrap().ino().to_string();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().any(|line| line.split_whitespace().nth(4) == Some(inode.as_str()))
    }

    #[test]
    fn a_draft_is_mapped_when_it_is_read_and_a_published_one_when_it_is_written() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let draft = || {
            let draft = Options::new().len(3 << 20).draft(directory.path().join("file")).unwrap();
            draft.write(0, &vec![7; 2 << 20]).unwrap();
            draft.drain().unwrap();
            assert!(!is_mapped(&draft));
            draft
        };
        let read = draft();
        let mut found = [0; 2];
        read.read((2 << 20) - 1, &mut found).unwrap();
        assert_eq!(found, [7, 0]);
        assert!(is_mapped(&read));
        let grown = draft();
        grown.grow(4 << 20).unwrap();
        assert!(is_mapped(&grown));
        let published = draft().commit(Commit::Replace).unwrap();
        // Its second half was not written: the commit has read that.
        assert!(is_mapped(&published));
        let whole = draft();
        whole.write(2 << 20, &vec![8; 1 << 20]).unwrap();
        let whole = whole.commit(Commit::Replace).unwrap();
        assert!(!is_mapped(&whole));
        // In the first page: what says whether the file was cut is the mapping.
        whole.write_persist(0, b"text").unwrap();
        assert!(is_mapped(&whole));
        let mut found = [0; 5];
        whole.read(0, &mut found).unwrap();
        assert_eq!(&found, b"text\x07");
    }

    #[test]
    fn what_is_written_is_written_from_the_beginning_without_a_gap() {
        let written = Written::default();
        assert!(written.is_all_of(0) && !written.is_all_of(1));
        written.add(10, 90);
        assert!(!written.is_all_of(1));
        written.add(0, 10);
        written.add(5, 10);
        assert!(written.is_all_of(15) && !written.is_all_of(16));
        written.add(0, 3);
        written.add(15, 85);
        assert!(written.is_all_of(100) && !written.is_all_of(101));
        written.forget();
        written.add(0, 200);
        assert!(!written.is_all_of(0) && !written.is_all_of(100));
    }
}
