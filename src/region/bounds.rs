//! Range checks, in one place for every backend.

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;

/// Checks that `[offset, offset + len)` lies in a region of `region_len` bytes, and returns it
/// as addressable numbers.
#[inline]
pub fn check(
    operation: Operation,
    offset: u64,
    len: u64,
    region_len: u64,
) -> Result<(usize, usize)> {
    match offset.checked_add(len) {
        Some(end) if primitive!("bounds.range", end <= region_len, true) => {
            Ok((offset as usize, len as usize))
        }
        _ => {
            Err(Error::new(operation, ErrorKind::OutOfBounds { len: region_len }).over(offset, len))
        }
    }
}

/// As [`check`], for an aligned 8-byte word.
#[inline]
pub fn check_word(operation: Operation, offset: u64, region_len: u64) -> Result<usize> {
    if primitive!("bounds.word", offset % 8 != 0, false) {
        return Err(Error::new(operation, ErrorKind::Unaligned { align: 8 }).over(offset, 8));
    }
    Ok(check(operation, offset, 8, region_len)?.0)
}

/// The least and the most bytes of a page that is written whole.
const PAGES: std::ops::RangeInclusive<u64> = 4096..=65536;

/// As [`check`], for a page that is written whole: a power of two of bytes, at a multiple of itself.
pub(crate) fn check_page(offset: u64, len: u64, region_len: u64) -> Result<()> {
    let refused = |kind| Err(Error::new(Operation::Write, kind).over(offset, len));
    if !(PAGES.contains(&len) && len.is_power_of_two()) {
        return refused(ErrorKind::PageSize { bytes: len });
    }
    if offset % len != 0 {
        return refused(ErrorKind::Unaligned { align: len });
    }
    check(Operation::Write, offset, len, region_len).map(drop)
}

/// What a region says that writes no page whole.
pub fn not_whole(offset: u64, len: u64, region_len: u64) -> Result<()> {
    check_page(offset, len, region_len)?;
    let why = "no page is written whole here: `daxmap::pages` does it by a record in the file";
    Err(Error::new(Operation::Write, ErrorKind::Unsupported(why)).over(offset, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edge() {
        for region_len in [1, 8, 4096] {
            for offset in [0, 1, region_len - 1, region_len, region_len + 1, u64::MAX] {
                for len in [0, 1, region_len - 1, region_len, region_len + 1, u64::MAX] {
                    let inside = u128::from(offset) + u128::from(len) <= u128::from(region_len);
                    let result = check(Operation::Read, offset, len, region_len);
                    assert_eq!(result.is_ok(), inside, "{offset} + {len} in {region_len}");
                }
            }
        }
        assert!(check_word(Operation::Load, 8, 16).is_ok());
        assert!(check_word(Operation::Load, 9, 32).is_err());
        assert!(check_word(Operation::Load, 8, 15).is_err());
        assert!(check_word(Operation::Load, u64::MAX - 7, 16).is_err());
    }

    #[test]
    fn pages_are_powers_of_two_at_multiples_of_themselves() {
        let kind = |offset, len| {
            check_page(offset, len, 256 << 10).map_err(|error| error.kind().clone()).err()
        };
        for len in [4096, 8192, 16384, 32768, 65536] {
            for offset in [0, len, (256 << 10) - len] {
                assert_eq!(kind(offset, len), None, "{offset} {len}");
            }
            let align = ErrorKind::Unaligned { align: len };
            for offset in [1, 2048, len / 2, len - 1, len + 1, u64::MAX] {
                assert_eq!(kind(offset, len), Some(align.clone()), "{offset} {len}");
            }
            let outside = ErrorKind::OutOfBounds { len: 256 << 10 };
            for offset in [256 << 10, 1 << 62, u64::MAX - (len - 1)] {
                assert_eq!(kind(offset, len), Some(outside.clone()), "{offset} {len}");
            }
        }
        for bytes in [0, 1, 512, 2048, 4095, 4097, 12288, 65535, 65537, 131_072] {
            assert_eq!(kind(0, bytes), Some(ErrorKind::PageSize { bytes }));
        }
    }
}
