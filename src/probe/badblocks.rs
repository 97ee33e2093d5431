//! Bad ranges: the `badblocks` attribute, and which bytes of a file lie on them.
//!
//! Format: one range to a line, first sector and number of sectors in decimal, sectors of 512 bytes
//! whatever the device's own sector size (block/badblocks.c `badblocks_show`).

use std::ops::Range;

use super::extents::Extent;

/// Sectors in `/sys` are always of this many bytes (`SECTOR_SIZE` in `include/linux/blk_types.h`).
pub(super) const SECTOR_BYTES: u64 = 512;

/// Reads the attribute into byte ranges, sorted and merged. A line that cannot be understood, and a
/// range past the end of the number space, is left out.
pub(super) fn parse(text: &str) -> Vec<Range<u64>> {
    let ranges = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let first: u64 = words.next()?.parse().ok()?;
        let count: u64 = words.next()?.parse().ok()?;
        let start = first.checked_mul(SECTOR_BYTES)?;
        let end = start.checked_add(count.checked_mul(SECTOR_BYTES)?)?;
        Some(start..end)
    });
    merge(ranges.collect())
}

/// Sorts ranges and joins those that touch or overlap; empty ones go.
pub(super) fn merge(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| range.start < range.end);
    ranges.sort_unstable_by_key(|range| range.start);
    let mut out: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

/// The part of the ranges that lies in a partition, counted from its start.
pub(super) fn within(ranges: &[Range<u64>], part: &Range<u64>) -> Vec<Range<u64>> {
    ranges
        .iter()
        .map(|range| range.start.max(part.start)..range.end.min(part.end))
        .filter(|range| range.start < range.end)
        .map(|range| range.start - part.start..range.end - part.start)
        .collect()
}

/// The bytes of a file that lie on bad ranges of its device, sorted and merged.
pub(super) fn of_file(bad: &[Range<u64>], extents: &[Extent]) -> Vec<Range<u64>> {
    let mut out = Vec::new();
    for extent in extents {
        let on_device = extent.physical..extent.physical.saturating_add(extent.len);
        for range in within(bad, &on_device) {
            out.push(
                extent.logical.saturating_add(range.start)
                    ..extent.logical.saturating_add(range.end),
            );
        }
    }
    merge(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sectors_become_bytes() {
        assert_eq!(parse("8 8\n32 1\n"), [4096..8192, 16384..16896]);
        assert_eq!(parse(""), []);
        assert_eq!(parse("8 8\n16 8"), [Range { start: 4096, end: 12288 }]);
    }

    #[test]
    fn garbage_is_left_out() {
        assert_eq!(
            parse("8\nx y\n-1 4\n1 0\n18446744073709551615 8\n2 1 more\n"),
            [Range { start: 1024, end: 1536 }]
        );
    }

    #[test]
    fn a_partition_sees_its_own_part() {
        assert_eq!(
            within(&[0..10, 70..100, 90..110, 150..160, 195..300, 200..210], &(100..200)),
            [0..10, 50..60, 95..100]
        );
    }

    #[test]
    fn a_file_sees_what_its_extents_touch() {
        let extents = [
            Extent { logical: 0, physical: 8192, len: 4096 },
            Extent { logical: 4096, physical: 65536, len: 8192 },
        ];
        assert_eq!(of_file(&[8192..8704, 69632..70000, 0..512], &extents), [0..512, 8192..8560]);
        assert_eq!(of_file(&[Range { start: 12288, end: 65536 }], &extents), []);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn ranges_are_sorted_and_apart(lines in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..50)) {
            let text = lines.iter().map(|(a, b)| format!("{a} {b}")).collect::<Vec<_>>().join("\n");
            let ranges = parse(&text);
            prop_assert!(ranges.iter().all(|r| r.start < r.end));
            prop_assert!(ranges.windows(2).all(|w| w[0].end < w[1].start));
        }

        #[test]
        fn intersection_agrees_with_a_bitmap(
            bad in proptest::collection::vec((0_u64..200, 1_u64..20), 0..8),
            starts in proptest::collection::vec((0_u64..200, 1_u64..20), 0..6),
        ) {
            let bad = merge(bad.into_iter().map(|(s, l)| s..s + l).collect());
            let mut logical = 0;
            let extents: Vec<_> = starts.into_iter().map(|(physical, len)| {
                let extent = Extent { logical, physical, len };
                logical += len;
                extent
            }).collect();
            let found = of_file(&bad, &extents);
            for extent in &extents {
                for i in 0..extent.len {
                    let is_bad = bad.iter().any(|r| r.contains(&(extent.physical + i)));
                    let said = found.iter().any(|r| r.contains(&(extent.logical + i)));
                    prop_assert_eq!(is_bad, said);
                }
            }
        }
    }
}
