//! One region, or two of a file, on the disk that has the sources. What the contract asks of every
//! backend, `pmem-tests/tests/conformance.rs` tries.

use std::fs::File;
use std::path::PathBuf;

use crate::{AnyRegion, Backend, ErrorKind, Options, Region};

const LEN: u64 = 3 << 20;

/// A directory on the disk, a region of a file in it, and where the file is.
fn made() -> (tempfile::TempDir, AnyRegion, PathBuf) {
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = directory.path().join("region");
    let region = Options::new().len(LEN).lock(false).create(&path).unwrap();
    assert_eq!(region.backend(), Backend::PageCache, "the sources are on an ordinary disk");
    (directory, region, path)
}

/// Checks that parts of the first pages, around each edge, are those of the model.
fn compare(region: &AnyRegion, model: &[u8], edges: &[usize]) {
    for &edge in edges {
        for from in edge.saturating_sub(9)..edge + 9 {
            for len in [0, 1, 7, 8, 9, 20, 4096] {
                let mut found = vec![0; len];
                region.read(from as u64, &mut found).unwrap();
                assert!(found == model[from..from + len], "{len} at {from}");
            }
        }
        let word = edge / 8 * 8;
        let expected = u64::from_ne_bytes(model[word..word + 8].try_into().unwrap());
        assert_eq!(region.load_u64(word as u64).unwrap(), expected, "the word at {word}");
    }
}

#[test]
fn what_is_gathered_is_read_by_every_region_of_the_file_at_once() {
    for (at, len) in [(0, 10), (1, 8), (100, 10), (4090, 12), (8192, 4096), (8200, 1)] {
        let (_directory, region, path) = made();
        let other = Options::new().lock(false).open(&path).unwrap();
        let reader = Options::new().lock(false).read_only(true).open(&path).unwrap();
        let mut model = vec![0; LEN as usize];
        let mut put = |region: &AnyRegion, at: usize, byte: u8, len: usize| {
            region.write(at as u64, &vec![byte; len]).unwrap();
            model[at..at + len].fill(byte);
            model.clone()
        };
        // A run that the file does not have yet; then one that goes on behind it, and one over it.
        for (at, byte, len) in [(at, 1, len), (at + len, 2, 3), (at, 3, 1)] {
            let model = put(&region, at, byte, len);
            for seen in [&region, &other, &reader] {
                compare(seen, &model, &[at, at + len, at + len + 3, 12_345]);
            }
        }
        // Of another region, elsewhere; and drained.
        let model = put(&other, 20_000, 4, 30);
        for seen in [&region, &other, &reader] {
            compare(seen, &model, &[at, at + len + 3, 20_000, 20_030]);
        }
        region.drain().unwrap();
        assert!(std::fs::read(&path).unwrap() == model);
        compare(&other, &model, &[at, at + len + 3, 20_000, 20_030]);
    }
}

#[test]
fn what_is_filled_is_filled_from_any_byte_to_any_byte() {
    for (at, len) in [(0, 2 << 20), (12_345, 2 << 20), (1 << 20, 1 << 20), ((1 << 20) - 3, 7)] {
        let (_directory, region, path) = made();
        region.fill_flush(at, len, 9).unwrap();
        region.drain().unwrap();
        let mut model = vec![0; LEN as usize];
        model[at as usize..(at + len) as usize].fill(9);
        assert!(std::fs::read(&path).unwrap() == model, "{len} at {at}");
    }
}

#[test]
fn nothing_is_read_of_a_closed_region() {
    let (_directory, region, _) = made();
    region.close().unwrap();
    let mut buffer = [0; 8];
    #[allow(unsafe_code)]
    // SAFETY: nothing is returned.
    let viewed = unsafe { region.slice(0, 8) }.map(drop);
    for result in [region.read(0, &mut buffer), region.load_u64(0).map(drop), viewed] {
        let error = result.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
    }
}

#[test]
fn a_file_that_was_cut_says_from_where_to_where() {
    let (_directory, region, path) = made();
    let write = |path: &PathBuf| File::options().write(true).open(path).unwrap();
    write(&path).set_len(1 << 20).unwrap();
    region.write(0, b"something").unwrap();
    let error = region.drain().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Gone), "{error}");
    assert_eq!(error.range(), Some(1 << 20..LEN), "{error}");
}
