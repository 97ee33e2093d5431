//! Which parts of a file are allocated but were never written.

use std::ops::{ControlFlow, Range};
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::fiemap;

/// The parts of the first `len` bytes that hold no written blocks: unwritten extents and holes.
/// Bytes still in the page cache do not count as written: sync first.
///
/// # Errors
///
/// `EOPNOTSUPP` and the like where the filesystem cannot say.
///
/// # References
///
/// Documentation/filesystems/fiemap.rst.
pub(super) fn unwritten(fd: BorrowedFd<'_>, len: u64) -> Result<Vec<Range<u64>>, Errno> {
    let mut parts = Parts { found: Vec::new(), written_to: 0 };
    fiemap::extents(fd, 0..len, |extent| {
        if extent.flags & fiemap::UNWRITTEN == 0 {
            parts.written(extent.logical, extent.logical.saturating_add(extent.length), len);
        }
        ControlFlow::Continue(())
    })?;
    parts.written(len, len, len);
    Ok(parts.found)
}

/// What lies between the written extents, which come in file order.
struct Parts {
    found: Vec<Range<u64>>,
    written_to: u64,
}

impl Parts {
    fn written(&mut self, from: u64, to: u64, len: u64) {
        let from = from.min(len);
        if from > self.written_to {
            self.found.push(self.written_to..from);
        }
        self.written_to = self.written_to.max(to.min(len));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between() {
        let mut parts = Parts { found: Vec::new(), written_to: 0 };
        for (from, to) in [(10, 20), (20, 30), (25, 28), (40, 90)] {
            parts.written(from, to, 60);
        }
        parts.written(60, 60, 60);
        assert_eq!(parts.found, vec![0..10, 30..40]);
        let mut nothing = Parts { found: Vec::new(), written_to: 0 };
        nothing.written(60, 60, 60);
        assert_eq!(nothing.found.first(), Some(&(0..60)));
    }
}
