//! Small writes on their way to the file, gathered while they touch each other.
//!
//! One run of bytes, not a set of them: a log appends, a page store writes whole pages, and both
//! fit. A write that does not touch the run sends it to the file and starts a new one.

/// Writes of more than this many bytes are not gathered: the copy would cost more than it saves.
pub(super) const WRITE_MAX: usize = 16 << 10;
/// The run is at most this long, in bytes.
const RUN_MAX: usize = 64 << 10;

/// A run of bytes that the file does not have yet.
#[derive(Debug, Default)]
pub(super) struct Gather {
    start: u64,
    bytes: Vec<u8>,
}

impl Gather {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Offset of the first byte.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Offset past the last byte.
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn overlaps(&self, offset: u64, len: usize) -> bool {
        offset < self.end() && self.start < offset + len as u64
    }

    /// Whether the write can be part of the run: it begins within it or right at its end, and
    /// does not make it too long.
    pub(super) fn accepts(&self, offset: u64, len: usize) -> bool {
        if len > WRITE_MAX {
            return false;
        }
        self.is_empty()
            || (self.start..=self.end()).contains(&offset)
                && (offset - self.start) as usize + len <= RUN_MAX
    }

    /// Adds a write that is accepted.
    pub(super) fn put(&mut self, offset: u64, data: &[u8]) {
        debug_assert!(self.accepts(offset, data.len()));
        if self.is_empty() {
            self.start = offset;
        }
        let at = (offset - self.start) as usize;
        let within = data.len().min(self.bytes.len() - at);
        self.bytes[at..at + within].copy_from_slice(&data[..within]);
        self.bytes.extend_from_slice(&data[within..]);
    }

    /// Puts what the run has of a range over what the file has of it.
    pub(super) fn overlay(&self, offset: u64, buf: &mut [u8]) {
        if !self.overlaps(offset, buf.len()) {
            return;
        }
        let from = self.start.max(offset);
        let to = self.end().min(offset + buf.len() as u64);
        buf[(from - offset) as usize..(to - offset) as usize]
            .copy_from_slice(&self.bytes[(from - self.start) as usize..(to - self.start) as usize]);
    }

    /// Forgets the run: the file has it.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a file in memory: whatever is written, a read through the run sees it, and
        /// the file has it all once the last run is sent.
        #[test]
        fn reads_see_every_write(
            writes in prop::collection::vec((0_u64..300, 1_usize..120, any::<u8>()), 1..60),
            reads in prop::collection::vec((0_u64..300, 0_usize..150), 1..60),
        ) {
            let mut model = vec![0_u8; 1024];
            let mut file = vec![0_u8; 1024];
            let mut gather = Gather::default();
            let send = |gather: &mut Gather, file: &mut Vec<u8>| {
                file[gather.start() as usize..gather.end() as usize]
                    .copy_from_slice(gather.bytes());
                gather.clear();
            };
            for (i, (offset, len, value)) in writes.into_iter().enumerate() {
                let data = vec![value; len];
                model[offset as usize..offset as usize + len].copy_from_slice(&data);
                if !gather.accepts(offset, len) {
                    send(&mut gather, &mut file);
                }
                gather.put(offset, &data);
                let (offset, len) = reads[i % reads.len()];
                let range = offset as usize..offset as usize + len;
                let mut buf = file[range.clone()].to_vec();
                gather.overlay(offset, &mut buf);
                prop_assert_eq!(&buf, &model[range]);
            }
            send(&mut gather, &mut file);
            prop_assert_eq!(file, model);
        }
    }

    #[test]
    fn limits() {
        let mut gather = Gather::default();
        assert!(gather.accepts(7, WRITE_MAX) && !gather.accepts(7, WRITE_MAX + 1));
        for piece in 0..RUN_MAX / WRITE_MAX {
            let offset = (piece * WRITE_MAX) as u64;
            assert!(gather.accepts(offset, WRITE_MAX));
            gather.put(offset, &vec![1; WRITE_MAX]);
        }
        assert!(!gather.accepts(RUN_MAX as u64, 1));
        assert!(gather.accepts(RUN_MAX as u64 - 1, 1), "a byte of the run can be replaced");
        assert!(!gather.accepts(RUN_MAX as u64 + 1, 1), "a gap is not part of a run");
    }
}
