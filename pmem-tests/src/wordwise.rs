//! A region whose accesses come in pieces of 8 bytes, as those of a processor do.

use daxmap::{Region, Result};

use crate::pass_on;

/// Cuts every read and every write into aligned pieces of at most 8 bytes, so that those of another
/// thread come between them.
#[derive(Clone, Debug)]
pub struct Wordwise<R> {
    region: R,
}

impl<R> Wordwise<R> {
    /// The region, word by word.
    pub fn new(region: R) -> Self {
        Self { region }
    }
}

/// Ends of the pieces of a range.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from;
        let piece = 8 - (offset + start as u64) as usize % 8;
        from = len.min(start + piece);
        (start < len).then_some(start..from)
    })
}

impl<R: Region> Region for Wordwise<R> {
    pass_on!(region: sync_all len durability granularity backend is_emulated flush drain deep_flush load_u64
        store_u64 compare_exchange_u64 grow close slices);

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        pieces(offset, buf.len())
            .try_for_each(|piece| self.region.read(offset + piece.start as u64, &mut buf[piece]))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        pieces(offset, data.len())
            .try_for_each(|piece| self.region.write(offset + piece.start as u64, &data[piece]))
    }

    fn write_flush(&self, offset: u64, data: &[u8]) -> Result<()> {
        pieces(offset, data.len()).try_for_each(|piece| {
            self.region.write_flush(offset + piece.start as u64, &data[piece])
        })
    }

    fn fill_flush(&self, offset: u64, len: u64, byte: u8) -> Result<()> {
        self.write_flush(offset, &vec![byte; len as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn pieces_end_at_multiples_of_8_and_at_the_end() {
        let of = |offset, len| pieces(offset, len).collect::<Vec<_>>();
        assert_eq!(of(5, 12), [0..3, 3..11, 11..12]);
        assert_eq!(of(16, 16), [0..8, 8..16]);
        assert!(of(3, 0).is_empty());
    }
}
