//! Ranges: what is refused, what is not, and that a refusal changes nothing.

use daxmap::Region;

use super::Verdict;
use super::support::{
    Bench, METHODS, Method, PAGE, Refusal, STORED, WORD_METHODS, contents, pattern, refused, same,
};

/// A length that ends neither with a page nor with a line nor with a word.
const LEN: u64 = 3 * PAGE + 1001;

/// Offsets around every edge.
fn edges(len: u64) -> [u64; 10] {
    [0, 1, 8, len - 8, len - 1, len, len + 1, len + 8, u64::MAX - 7, u64::MAX]
}

/// Lengths around every edge.
fn lengths(len: u64) -> [u64; 9] {
    [0, 1, 8, len - 1, len, len + 1, u64::MAX - len, u64::MAX - 7, u64::MAX]
}

fn inside(offset: u64, len: u64, region_len: u64) -> bool {
    u128::from(offset) + u128::from(len) <= u128::from(region_len)
}

fn filled(bench: &Bench<'_>, seed: u64) -> (Box<dyn Region>, Vec<u8>) {
    let region = bench.create(LEN);
    let model = pattern(region.len(), seed);
    region.write_persist(0, &model).expect("the region can be written");
    (region, model)
}

pub(super) fn refused_ranges(bench: &Bench<'_>) -> Verdict {
    let (region, model) = filled(bench, 1);
    let len = region.len();
    for method in METHODS {
        for offset in edges(len) {
            for count in lengths(len) {
                if inside(offset, count, len) || method.buffer && count > len + 1 {
                    continue;
                }
                refuse_range(&*region, method, offset, count);
            }
        }
        same(&contents(&*region), &model, method.name);
    }
    for method in WORD_METHODS {
        for offset in edges(len).map(|offset| offset & !7).into_iter().chain([len / 8 * 8]) {
            if !inside(offset, 8, len) {
                refuse_range(&*region, method, offset, 8);
            }
        }
        same(&contents(&*region), &model, method.name);
    }
    if let Some(stored) = bench.stored() {
        same(&stored, &model, "the file after refused calls");
    }
    region.write_persist(0, b"still works").expect("a refusal is not final");
    Verdict::Passed
}

fn refuse_range(region: &dyn Region, method: &Method, offset: u64, count: u64) {
    let what = format!("{}({offset}, {count}) of {}", method.name, region.len());
    let error = refused(&what, (method.call)(region, offset, count), Refusal::OutOfBounds);
    let range = error.range().unwrap_or_else(|| panic!("{what}: no range in: {error}"));
    assert_eq!(range, offset..offset.saturating_add(count), "{what}");
    let shown = format!("[{}, {})", range.start, range.end);
    assert!(error.to_string().contains(&shown), "{what}: no range in: {error}");
    assert!(!error.is_durability_unknown(), "{what}: {error}");
}

pub(super) fn accepted_ranges(bench: &Bench<'_>) -> Verdict {
    let (region, mut model) = filled(bench, 2);
    let len = region.len();
    for method in METHODS.iter().filter(|method| method.offered(&bench.facts())) {
        for offset in edges(len) {
            for count in lengths(len) {
                if !inside(offset, count, len) {
                    continue;
                }
                let what = format!("{}({offset}, {count}) of {len}", method.name);
                (method.call)(&*region, offset, count)
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                if method.name.starts_with("write") || method.name == "fill_flush" {
                    let range = offset as usize..(offset + count) as usize;
                    model[range].fill(STORED);
                    same(&contents(&*region), &model, &what);
                    model = pattern(len, offset ^ count);
                    region.write_persist(0, &model).expect("the region can be written");
                }
                same(&contents(&*region), &model, &what);
            }
        }
    }
    for method in WORD_METHODS {
        for offset in [0, 8, 64, PAGE - 8, PAGE, (len - 8) & !7] {
            let what = format!("{}({offset}) of {len}", method.name);
            (method.call)(&*region, offset, 8).unwrap_or_else(|error| panic!("{what}: {error}"));
            if method.mutates {
                let offset = offset as usize;
                model[offset..offset + 8].fill(STORED);
            }
            same(&contents(&*region), &model, &what);
        }
    }
    Verdict::Passed
}

pub(super) fn zero_length(bench: &Bench<'_>) -> Verdict {
    let (region, model) = filled(bench, 3);
    let len = region.len();
    for method in METHODS.iter().filter(|method| method.offered(&bench.facts())) {
        for offset in [0, 1, 63, 64, PAGE - 1, PAGE, len - 1, len] {
            let what = format!("{}({offset}, 0) of {len}", method.name);
            (method.call)(&*region, offset, 0).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        for offset in [len + 1, u64::MAX] {
            refuse_range(&*region, method, offset, 0);
        }
    }
    // A hint: it changes nothing, wherever it points.
    for (offset, count) in [(0, len), (len - 1, 1), (len, 1), (len + PAGE, PAGE), (u64::MAX, 2)] {
        region.prefetch(offset, count);
    }
    same(&contents(&*region), &model, "after empty ranges");
    Verdict::Passed
}

pub(super) fn unaligned_words(bench: &Bench<'_>) -> Verdict {
    let (region, model) = filled(bench, 4);
    let far = region.len() + 1 - region.len() % 2;
    for method in WORD_METHODS {
        for offset in (1..8).chain([63, PAGE - 4, PAGE + 1, far, u64::MAX]) {
            let what = format!("{}({offset})", method.name);
            let error = refused(&what, (method.call)(&*region, offset, 8), Refusal::Unaligned);
            let start = error.range().map(|range| range.start);
            assert_eq!(start, Some(offset), "{what}: {error}");
        }
    }
    same(&contents(&*region), &model, "after unaligned words");
    Verdict::Passed
}

/// Sweeps the offsets of two lines, and lengths on both sides of every change of method: word,
/// line, vector, page.
pub(super) fn odd_offsets(bench: &Bench<'_>) -> Verdict {
    const WINDOW: u64 = 2 * PAGE + 640;
    let region = bench.create(LEN);
    let lens = [1, 2, 3, 5, 7, 8, 9, 15, 31, 63, 64, 65, 127, 255, 257, 1023, 1024, 1025, 4097];
    let mut model = pattern(WINDOW, 5);
    region.write(0, &model).expect("the region can be written");
    for (turn, len) in lens.into_iter().enumerate() {
        for offset in (0..64).step_by(if len < 65 { 3 } else { 7 }).chain([64, 129, PAGE - 1]) {
            if offset + len > WINDOW {
                continue;
            }
            let what = format!("{len} bytes at {offset}");
            let data = pattern(len, offset + len);
            match (turn as u64 + offset) % 4 {
                0 => region.write(offset, &data),
                1 => region.write_flush(offset, &data),
                2 => region.fill_flush(offset, len, data[0]),
                _ => region.write(offset, &data).and_then(|()| region.flush(offset, len)),
            }
            .unwrap_or_else(|error| panic!("{what}: {error}"));
            let range = offset as usize..(offset + len) as usize;
            if (turn as u64 + offset) % 4 == 2 {
                model[range].fill(data[0]);
            } else {
                model[range].copy_from_slice(&data);
            }
            let mut found = vec![0; WINDOW as usize];
            region.read(0, &mut found).expect("the region can be read");
            same(&found, &model, &what);
            // Reads at the odd offset itself, into a buffer with bytes on both sides.
            let mut guarded = vec![0x77; len as usize + 2];
            region.read(offset, &mut guarded[1..=len as usize]).expect("the range can be read");
            assert_eq!((guarded[0], guarded[len as usize + 1]), (0x77, 0x77), "{what}");
            same(&guarded[1..=len as usize], &model[offset as usize..][..len as usize], &what);
        }
    }
    region.drain().expect("everything can be drained");
    Verdict::Passed
}
