//! Range checks, in one place for every backend.

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;

/// Checks that `[offset, offset + len)` lies in a region of `region_len` bytes, and returns it
/// as addressable numbers.
#[inline]
pub(crate) fn check(
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
pub(crate) fn check_word(operation: Operation, offset: u64, region_len: u64) -> Result<usize> {
    if primitive!("bounds.word", !offset.is_multiple_of(8), false) {
        return Err(Error::new(operation, ErrorKind::Unaligned { align: 8 }).over(offset, 8));
    }
    Ok(check(operation, offset, 8, region_len)?.0)
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
}
