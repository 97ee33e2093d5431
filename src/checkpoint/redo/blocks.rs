//! The blocks of a page: each has a check value, those of a page are a line of the file.

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::check::Key;
use crate::format::redo::word;
use crate::format::{LINE, PAGE};
use crate::primitives::primitive;

/// Bytes that one check value is of.
pub(super) const BLOCK: u64 = 8 * LINE;
/// Blocks of a page: their check values fill a line.
pub(super) const BLOCKS: u64 = PAGE / BLOCK;

/// Compares a page with its check values, and makes zero what nobody wrote: whatever is there was
/// there before the set was. Which blocks somebody wrote, as bits.
pub(super) fn verify_page(key: Key, at: u64, checks: &[u64], page: &mut [u8]) -> Result<u8> {
    let mut written = 0;
    let places = (at..).step_by(BLOCK as usize);
    for (number, ((block, &check), at)) in
        page.chunks_exact_mut(BLOCK as usize).zip(checks).zip(places).enumerate()
    {
        if check == blank_check(key, at) {
            block.fill(0);
            continue;
        }
        written |= 1 << number;
        if primitive!("checkpoint.redo.page_check", block_check(key, at, block) != check, false) {
            let what = "512 bytes of the working set or their check value";
            return Err(damaged(what, at, BLOCK));
        }
    }
    Ok(written)
}

pub(super) fn decode_checks(line: &[u8]) -> [u64; BLOCKS as usize] {
    let mut checks = [0; BLOCKS as usize];
    for (check, bytes) in checks.iter_mut().zip(line.chunks_exact(8)) {
        *check = word(bytes, 0).unwrap_or_default();
    }
    checks
}

/// The check values of a page as they are in the file.
pub(super) fn encode_checks(checks: &[u64; BLOCKS as usize]) -> [u8; LINE as usize] {
    let mut line = [0; LINE as usize];
    for (bytes, check) in line.chunks_exact_mut(8).zip(checks) {
        bytes.copy_from_slice(&check.to_le_bytes());
    }
    line
}

/// Never that of a block that nobody wrote.
pub(super) fn block_check(key: Key, at: u64, block: &[u8]) -> u64 {
    let check = key.check(at, block);
    if check == blank_check(key, at) { !check } else { check }
}

/// The check value of a block that nobody wrote. Not zero: check values that damage has cleared would
/// turn blocks that were saved into zeros.
pub(super) fn blank_check(key: Key, at: u64) -> u64 {
    key.check(at, &[])
}

/// All lines of the blocks that these lines are in.
pub(super) const fn whole_blocks(lines: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    // The highest bit of each byte that has any.
    let some = (((lines & LOW) + LOW) | lines) & !LOW;
    (some >> 7) * 0xff
}

/// The runs of ones: first bit and length.
pub(super) fn runs(mut lines: u64) -> impl Iterator<Item = (u64, u64)> {
    std::iter::from_fn(move || {
        if lines == 0 {
            return None;
        }
        let first = lines.trailing_zeros();
        let count = (lines >> first).trailing_ones();
        lines &= !(u64::MAX >> (64 - count) << first);
        Some((u64::from(first), u64::from(count)))
    })
}

pub(super) fn damaged(what: &'static str, at: u64, len: u64) -> Error {
    Error::new(Operation::Recover, ErrorKind::Damaged(what)).over(at, len)
}

#[cfg(test)]
mod tests {
    use super::{runs, whole_blocks};

    #[test]
    fn blocks_are_whole() {
        for (lines, blocks) in [
            (0, 0),
            (1, 0xff),
            (1 << 63, 0xff << 56),
            (0x80, 0xff),
            (0x0100_0000_0000_8001, 0xff00_0000_0000_ffff),
            (u64::MAX, u64::MAX),
        ] {
            assert_eq!(whole_blocks(lines), blocks, "{lines:x}");
        }
    }

    #[test]
    fn runs_cover_every_line_once() {
        for lines in [0, 1, u64::MAX, 1 << 63, 0b1011, 0xf0f0_0000_0000_000f, u64::MAX << 1] {
            let mut covered = 0;
            let mut end = None;
            for (first, count) in runs(lines) {
                assert!(end.is_none_or(|end| first > end), "{lines:b}: runs touch");
                end = Some(first + count);
                covered |= u64::MAX >> (64 - count) << first;
            }
            assert_eq!(covered, lines);
        }
    }
}
