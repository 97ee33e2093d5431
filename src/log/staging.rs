//! The records of the next commit, as they will stand in the block.

use zerocopy::IntoBytes;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::{LINE, Line};

use super::block::{HEADER, PREFIX};

/// A block in the making. The buffer is kept, so that a commit allocates nothing.
#[derive(Debug)]
pub(super) struct Staging {
    /// Room for the header, the body, and zeros up to the end of the last line; what follows that
    /// means nothing.
    lines: Vec<Line>,
    /// Bytes of header and body.
    len: usize,
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

impl Default for Staging {
    fn default() -> Self {
        Self { lines: vec![Line::ZERO], len: HEADER, count: 0, first: 0 }
    }
}

impl Staging {
    #[inline]
    pub(super) fn mark(&self) -> Mark {
        Mark { len: self.len, count: self.count, first: self.first }
    }

    #[inline]
    pub(super) fn back_to(&mut self, mark: Mark) {
        // What is taken back must not stay behind the end.
        let line_end = mark.len.next_multiple_of(LINE as usize);
        self.lines.as_mut_bytes()[mark.len..line_end].fill(0);
        Mark { len: self.len, count: self.count, first: self.first } = mark;
    }

    #[inline]
    pub(super) fn clear(&mut self) {
        self.back_to(Mark { len: HEADER, count: 0, first: 0 });
    }

    /// Bytes of the body.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len - HEADER
    }

    /// Room for one more record, in a body of at most `room` bytes.
    #[inline]
    fn begin(&mut self, len: usize, room: u64) -> Result<&mut [u8]> {
        let prefix = self.len.next_multiple_of(PREFIX);
        let at = if self.count == 0 { HEADER } else { prefix + PREFIX };
        let taken = (at - HEADER) as u64;
        let most = room.saturating_sub(taken);
        // Also a record of no bytes takes those of its length.
        if taken > room || len as u64 > most || self.count == u32::MAX {
            return Err(Error::new(Operation::Append, ErrorKind::TooLarge { max: most }));
        }
        let end = at + len;
        self.begin_lines(end);
        let bytes = self.lines.as_mut_bytes();
        if self.count == 0 {
            self.first = len as u32;
        } else {
            bytes[prefix..at].copy_from_slice(&(len as u32).to_le_bytes());
        }
        self.count += 1;
        self.len = end;
        Ok(&mut bytes[at..end])
    }

    /// Sees to it that there are lines up to `end`, and zeros behind it in the last one.
    #[inline]
    fn begin_lines(&mut self, end: usize) {
        let last = (end - 1) / LINE as usize;
        if last >= self.lines.len() {
            self.lines.resize(last + 1, Line::ZERO);
        }
        if last > (self.len - 1) / LINE as usize {
            self.lines[last] = Line::ZERO;
        }
    }

    /// Adds a record; the body may have `room` bytes.
    #[inline]
    pub(super) fn push(&mut self, payload: &[u8], room: u64) -> Result<()> {
        self.begin(payload.len(), room)?.copy_from_slice(payload);
        Ok(())
    }

    /// Adds a record of zeros, to be written in place.
    pub(super) fn reserve(&mut self, len: usize, room: u64) -> Result<&mut [u8]> {
        let record = self.begin(len, room)?;
        record.fill(0);
        Ok(record)
    }

    #[inline]
    pub(super) fn body(&self) -> &[u8] {
        &self.lines.as_bytes()[HEADER..self.len]
    }

    /// What is pushed from here on is taken back when the guard is dropped, by an error or by a
    /// panic of the caller's code, unless it is [kept](Tentative::keep).
    pub(super) fn tentative(&mut self) -> Tentative<'_> {
        let mark = self.mark();
        Tentative { staging: self, mark: Some(mark) }
    }

    /// The block, in whole lines.
    #[inline]
    pub(super) fn finish(&mut self, header: &[u8; HEADER]) -> &[u8] {
        let bytes = self.lines.as_mut_bytes();
        bytes[..HEADER].copy_from_slice(header);
        &bytes[..self.len.next_multiple_of(LINE as usize)]
    }
}

/// Records that are staged for as long as nothing goes wrong.
#[derive(Debug)]
pub(super) struct Tentative<'a> {
    staging: &'a mut Staging,
    mark: Option<Mark>,
}

impl Tentative<'_> {
    /// Stages all of these, of a body of at most `room` bytes.
    pub(super) fn push_all<P: AsRef<[u8]>>(
        &mut self,
        payloads: impl IntoIterator<Item = P>,
        room: u64,
    ) -> Result<()> {
        let mut payloads = payloads.into_iter();
        payloads.try_for_each(|payload| self.staging.push(payload.as_ref(), room))
    }

    /// They stay. Where they can be taken back to.
    pub(super) fn keep(mut self) -> Mark {
        self.mark.take().unwrap_or_else(|| self.staging.mark())
    }
}

impl Drop for Tentative<'_> {
    fn drop(&mut self) {
        if let Some(mark) = self.mark {
            self.staging.back_to(mark);
        }
    }
}
