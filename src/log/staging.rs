//! The records of the next commit, as they will stand in the block.

use crate::error::{Error, ErrorKind, Operation, Result};

use super::block::{HEADER, PREFIX};

/// A block in the making. The buffer is kept, so that a commit allocates nothing.
#[derive(Debug)]
pub(super) struct Staging {
    /// Room for the header, then the body.
    buffer: Vec<u8>,
    pub(super) count: u32,
    pub(super) first: u32,
}

/// Where a staged record can be taken back to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    len: usize,
    count: u32,
    first: u32,
}

impl Staging {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; HEADER], count: 0, first: 0 }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { len: self.buffer.len(), count: self.count, first: self.first }
    }

    pub(super) fn back_to(&mut self, mark: Mark) {
        self.buffer.truncate(mark.len);
        (self.count, self.first) = (mark.count, mark.first);
    }

    pub(super) fn clear(&mut self) {
        self.buffer.truncate(HEADER);
        (self.count, self.first) = (0, 0);
    }

    /// Bytes of the body.
    pub(super) fn len(&self) -> usize {
        self.buffer.len() - HEADER
    }

    /// Bytes of a body of at most `room` bytes that one more record may have.
    fn begin(&mut self, len: usize, room: u64) -> Result<()> {
        let after = self.buffer.len().next_multiple_of(PREFIX);
        let before = if self.count == 0 { HEADER } else { after + PREFIX };
        let most = room.saturating_sub((before - HEADER) as u64);
        if len as u64 > most || self.count == u32::MAX {
            return Err(Error::new(Operation::Append, ErrorKind::TooLarge { max: most }));
        }
        if self.count == 0 {
            self.first = len as u32;
        } else {
            self.buffer.resize(after, 0);
            self.buffer.extend_from_slice(&(len as u32).to_le_bytes());
        }
        self.count += 1;
        Ok(())
    }

    /// Adds a record; the body may have `room` bytes.
    #[inline]
    pub(super) fn push(&mut self, payload: &[u8], room: u64) -> Result<()> {
        self.begin(payload.len(), room)?;
        self.buffer.extend_from_slice(payload);
        Ok(())
    }

    /// Adds a record of zeros, to be written in place.
    pub(super) fn reserve(&mut self, len: usize, room: u64) -> Result<&mut [u8]> {
        self.begin(len, room)?;
        let at = self.buffer.len();
        self.buffer.resize(at + len, 0);
        Ok(&mut self.buffer[at..])
    }

    #[inline]
    pub(super) fn body(&self) -> &[u8] {
        &self.buffer[HEADER..]
    }

    /// The block, with zeros up to `bytes`.
    #[inline]
    pub(super) fn finish(&mut self, header: &[u8; HEADER], bytes: usize) -> &[u8] {
        self.buffer[..HEADER].copy_from_slice(header);
        self.buffer.resize(bytes, 0);
        &self.buffer
    }

    /// Takes the zeros away again: the body has `len` bytes.
    #[inline]
    pub(super) fn unfinish(&mut self, len: usize) {
        self.buffer.truncate(HEADER + len);
    }
}
