//! Where a mapping is put: aligned so that the kernel can map it with large pages.

use std::ptr::{null_mut, without_provenance_mut};

use libc::c_void;

use crate::environment::{self, errno};

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// The mappings of this process.
const MAPS: &str = "/proc/self/maps";

/// What `PMEM_MMAP_HINT` says: a hexadecimal address from which on the first place that is free is
/// taken. Ignored if it is no number, or if this process's mappings cannot be read.
pub(crate) fn hint() -> Option<usize> {
    let hint = environment::address(environment::value(c"PMEM_MMAP_HINT")?)?;
    std::fs::File::open(MAPS).ok().map(|_| hint)
}

/// Bytes to which a mapping is aligned: 2 MiB, and 1 GiB from twice as much on.
fn alignment(len: usize) -> usize {
    if len >= 2 * GIB { GIB } else { 2 * MIB }
}

/// An address to ask the kernel for. Fails with an errno if there is no place of this length.
pub(crate) fn find(len: usize, hint: Option<usize>) -> Result<*mut c_void, i32> {
    let align = alignment(len);
    if let Some(hint) = hint {
        let maps = std::fs::read_to_string(MAPS)
            .map_err(|error| error.raw_os_error().unwrap_or(libc::ENOMEM))?;
        return unused(&maps, hint, len, align).map(without_provenance_mut).ok_or(libc::ENOMEM);
    }
    // The kernel's choice, with room to align in, and given back: where it was is free.
    let room = len.checked_add(align).ok_or(libc::ENOMEM)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: an anonymous mapping at an address of the kernel's choice, unmapped at once.
    unsafe {
        let base = libc::mmap(null_mut(), room, libc::PROT_READ, flags, -1, 0);
        if base == libc::MAP_FAILED {
            return Err(errno());
        }
        libc::munmap(base, room);
        Ok(base.with_addr(base.addr().next_multiple_of(align)))
    }
}

/// The first free range of `len` bytes at a multiple of `align` that is not below `from`.
fn unused(maps: &str, from: usize, len: usize, align: usize) -> Option<usize> {
    let mut at = from.max(PAGE).checked_next_multiple_of(align)?;
    for line in maps.lines() {
        let Some((low, high)) = range(line) else { continue };
        if low > at && low - at >= len {
            break;
        }
        if high > at {
            at = high.checked_next_multiple_of(align)?;
        }
    }
    (usize::MAX - at >= len).then_some(at)
}

/// The two addresses at the beginning of a line of the table.
fn range(line: &str) -> Option<(usize, usize)> {
    let (low, high) = line.split_once(' ')?.0.split_once('-')?;
    Some((usize::from_str_radix(low, 16).ok()?, usize::from_str_radix(high, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_aligned_gap_is_found() {
        let maps = "200000-210000 r-xp 0 00:00 0 /bin/x\n\
                    600000-800000 rw-p 0 00:00 0\n\
                    7fff00000000-7fff00021000 rw-p 0 00:00 0 [stack]\n";
        let find = |from, len| unused(maps, from, len, 0x20_0000);
        assert_eq!(find(0, 0x20_0000), Some(0x40_0000));
        assert_eq!(find(0, 0x20_0001), Some(0x80_0000));
        assert_eq!(find(0x1_0000_0000, PAGE), Some(0x1_0000_0000));
        assert_eq!(find(0x1_0000_0001, PAGE), Some(0x1_0020_0000));
        assert_eq!(find(0x7fff_0000_0000, PAGE), Some(0x7fff_0020_0000));
        assert_eq!(find(usize::MAX - 5, PAGE), None);
        assert_eq!(find(0, usize::MAX), None);
    }

    #[test]
    fn from_two_gibibytes_on_one_gibibyte_is_the_alignment() {
        assert_eq!(alignment(1), 2 * MIB);
        assert_eq!(alignment(2 * GIB - 1), 2 * MIB);
        assert_eq!(alignment(2 * GIB), GIB);
        let place = find(2 * GIB, None).unwrap();
        assert_eq!(place.addr() % GIB, 0);
        assert_eq!(find(usize::MAX, None), Err(libc::ENOMEM));
    }
}
