//! Where a file's blocks lie, and what that means for 2 MiB mappings.
//!
//! A 2 MiB mapping needs the piece of the file, the blocks and their physical address equal modulo
//! 2 MiB, all in one extent and within the file (fs/dax.c `dax_iomap_pmd_fault`).

use super::report::{BlockDevice, HugePages};

/// The size of a huge page on x86-64 and on Arm with 4 KiB pages, in bytes.
pub(super) const HUGE_BYTES: u64 = 2 << 20;

/// A file in more pieces than that has no huge pages to speak of, and its list would take longer
/// than a probe may.
pub(super) const EXTENTS_MAX: usize = 16 << 10;

/// A run of a file's bytes that lies in one run of its device's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Offset in the file in bytes.
    pub(super) logical: u64,
    /// Offset on the filesystem's device in bytes.
    pub(super) physical: u64,
    /// Length in bytes.
    pub(super) len: u64,
}

/// How far the first byte of a device lies past a 2 MiB boundary of physical memory; `None` if that
/// cannot be told. A partition adds its start; device-mapper keeps its table to root. A namespace
/// itself begins on its `align`, whose default is 2 MiB, and one without it (e820, virtio) on a
/// whole range that firmware laid out in at least that.
pub(super) fn shift(device: &BlockDevice) -> Option<u64> {
    match device.kind.as_str() {
        "pmem" => {
            let align = device.namespace.as_ref()?.align.unwrap_or(HUGE_BYTES);
            (align % HUGE_BYTES == 0).then_some(0)
        }
        "partition" => {
            Some((device.start? % HUGE_BYTES + shift(device.below.first()?)?) % HUGE_BYTES)
        }
        _ => None,
    }
}

/// Judges the pieces of a file of `size` bytes.
pub(super) fn huge_pages(extents: &[Extent], size: u64, shift: Option<u64>) -> HugePages {
    let total = size / HUGE_BYTES;
    if total == 0 {
        return HugePages::NotApplicable;
    }
    let Some(shift) = shift else { return HugePages::Unknown };
    let mut aligned: u64 = 0;
    for extent in extents {
        let end = extent.logical.saturating_add(extent.len).min(total * HUGE_BYTES);
        let first = extent.logical.div_ceil(HUGE_BYTES);
        let congruent =
            (extent.physical % HUGE_BYTES + shift) % HUGE_BYTES == extent.logical % HUGE_BYTES;
        if congruent {
            aligned = aligned.saturating_add((end / HUGE_BYTES).saturating_sub(first));
        }
    }
    if aligned >= total {
        HugePages::Possible { aligned: total, total }
    } else if pieces_with_blocks(extents, total) > aligned {
        HugePages::Misaligned { aligned, total }
    } else {
        // What is missing are holes, whose blocks are still to be chosen.
        HugePages::Unknown
    }
}

/// How many of the first `total` pieces have at least one block. Extents come in the order of the
/// file.
fn pieces_with_blocks(extents: &[Extent], total: u64) -> u64 {
    let mut next = 0;
    let mut count = 0;
    for extent in extents.iter().filter(|extent| extent.len > 0) {
        let first = (extent.logical / HUGE_BYTES).max(next);
        let last = extent.logical.saturating_add(extent.len - 1) / HUGE_BYTES;
        let end = last.saturating_add(1).min(total);
        if first < end {
            count += end - first;
            next = end;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;

    fn extent(logical: u64, physical: u64, len: u64) -> Extent {
        Extent { logical, physical, len }
    }

    #[test]
    fn aligned_throughout() {
        let found = huge_pages(&[extent(0, 10 * M, 8 * M)], 8 * M, Some(0));
        assert_eq!(found, HugePages::Possible { aligned: 4, total: 4 });
    }

    #[test]
    fn two_extents_meeting_on_a_boundary() {
        let extents = [extent(0, 2 * M, 4 * M), extent(4 * M, 20 * M, 4 * M)];
        assert_eq!(
            huge_pages(&extents, 8 * M, Some(0)),
            HugePages::Possible { aligned: 4, total: 4 }
        );
    }

    #[test]
    fn two_extents_meeting_inside_a_piece() {
        let extents = [extent(0, 2 * M, 3 * M), extent(3 * M, 21 * M, 5 * M)];
        assert_eq!(
            huge_pages(&extents, 8 * M, Some(0)),
            HugePages::Misaligned { aligned: 3, total: 4 }
        );
    }

    #[test]
    fn misaligned_blocks() {
        let found = huge_pages(&[extent(0, 10 * M + 4096, 8 * M)], 8 * M, Some(0));
        assert_eq!(found, HugePages::Misaligned { aligned: 0, total: 4 });
    }

    #[test]
    fn a_partition_start_shifts_everything() {
        let extents = [extent(0, 10 * M, 8 * M)];
        assert_eq!(
            huge_pages(&extents, 8 * M, Some(M)),
            HugePages::Misaligned { aligned: 0, total: 4 }
        );
        let extents = [extent(0, 11 * M, 8 * M)];
        assert_eq!(
            huge_pages(&extents, 8 * M, Some(M)),
            HugePages::Possible { aligned: 4, total: 4 }
        );
    }

    #[test]
    fn holes_are_not_misaligned() {
        assert_eq!(huge_pages(&[], 8 * M, Some(0)), HugePages::Unknown);
        assert_eq!(huge_pages(&[extent(0, 2 * M, 2 * M)], 8 * M, Some(0)), HugePages::Unknown);
        assert_eq!(
            huge_pages(&[extent(4 * M, 3 * M, 2 * M)], 8 * M, Some(0)),
            HugePages::Misaligned { aligned: 0, total: 4 }
        );
    }

    #[test]
    fn a_tail_shorter_than_a_piece_does_not_count() {
        assert_eq!(huge_pages(&[extent(0, 2 * M, M)], M, Some(0)), HugePages::NotApplicable);
        let found = huge_pages(&[extent(0, 2 * M, 6 * M)], 5 * M, Some(0));
        assert_eq!(found, HugePages::Possible { aligned: 2, total: 2 });
    }

    #[test]
    fn blocks_past_the_end_do_not_count() {
        let extents = [extent(0, 2 * M, 2 * M), extent(2 * M, 9 * M, 90 * M)];
        assert_eq!(
            huge_pages(&extents, 3 * M, Some(0)),
            HugePages::Possible { aligned: 1, total: 1 }
        );
    }

    #[test]
    fn aligned_blocks_past_the_end_do_not_make_up_for_others() {
        let extents = [extent(0, 3 * M, 2 * M), extent(2 * M, 6 * M, 20 * M)];
        let found = huge_pages(&extents, 4 * M, Some(0));
        assert_eq!(found, HugePages::Misaligned { aligned: 1, total: 2 });
    }

    #[test]
    fn a_piece_has_blocks_if_one_lies_in_it() {
        for (extents, total, pieces) in [
            (&[][..], 4, 0),
            (&[extent(0, 9 * M, 2 * M)][..], 4, 1),
            (&[extent(0, 9 * M, 2 * M + 1)][..], 4, 2),
            (&[extent(M, 9 * M, 2 * M)][..], 4, 2),
            (&[extent(0, 9 * M, M), extent(M, 20 * M, M)][..], 4, 1),
            (&[extent(0, 9 * M, M), extent(3 * M, 20 * M, 2 * M)][..], 4, 3),
            (&[extent(0, 9 * M, 0), extent(6 * M, 20 * M, 4096)][..], 4, 1),
            (&[extent(0, 9 * M, 90 * M)][..], 4, 4),
            (&[extent(20 * M, 9 * M, M)][..], 4, 0),
        ] {
            assert_eq!(pieces_with_blocks(extents, total), pieces, "{extents:?}");
        }
    }

    #[test]
    fn an_unknown_mapping_stays_unknown() {
        assert_eq!(huge_pages(&[extent(0, 2 * M, 8 * M)], 8 * M, None), HugePages::Unknown);
    }
}
