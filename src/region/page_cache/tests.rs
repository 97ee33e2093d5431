//! One region, or two of a file, on the disk that has the sources. What the contract asks of every
//! backend, `pmem-tests/tests/conformance.rs` tries.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::Operation;
use crate::{AnyRegion, Backend, ErrorKind, Options, Region};

const LEN: u64 = 3 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

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

/// Within the last page, a look at the mapping does not tell.
#[test]
fn a_cut_within_the_last_page_is_found_by_who_writes_there() {
    for len in [LEN, 4096, 100] {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = directory.path().join("region");
        let region = Options::new().len(len).create(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(len - 50).unwrap();
        region.write(len - 8, b"the tail").unwrap();
        let error = region.drain().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Gone), "{len}: {error}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), len - 50, "{len}: longer again");
    }
}

/// What was written there and sent is not durable by a sync of a file that was cut since. What was
/// durable before is not looked for, until somebody writes there again.
#[test]
fn a_cut_within_the_last_page_is_found_by_the_sync_of_what_was_written_there() {
    let cut = |path: &PathBuf| {
        File::options().write(true).open(path).unwrap().set_len(LEN - 50).unwrap();
    };
    // Sent by itself, and by the next run; with and without something else to send.
    for (data, elsewhere) in [(20 << 10, &b""[..]), (20 << 10, b"else"), (100, b"else")] {
        let (_directory, region, path) = made();
        region.write(LEN - data as u64, &vec![1; data]).unwrap();
        region.write(0, elsewhere).unwrap();
        cut(&path);
        let error = region.drain().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Gone), "{data}, {elsewhere:?}: {error}");
        assert_eq!(error.range(), Some(LEN - 50..LEN), "{error}");
    }
    let (_directory, region, path) = made();
    region.write_persist(LEN - 20_000, &vec![1; 20_000]).unwrap();
    region.write_persist(0, b"elsewhere").unwrap();
    // Who has synced what was written there does not ask again.
    let own = region.in_page_cache();
    let counts = [&own.tails, &own.file.shared.tails].map(|tails| tails.load(Ordering::Relaxed));
    assert!(counts[0] == counts[1] && counts[0] > 0, "{counts:?}");
    cut(&path);
    region.write_persist(0, b"elsewhere").unwrap();
    let mut found = [9; 2];
    region.read(LEN - 51, &mut found).unwrap();
    assert_eq!(found, [1, 0], "the kernel zeroes what is past the end");
    assert!(matches!(
        region.write_persist(LEN - 9, b"the tail").unwrap_err().kind(),
        ErrorKind::Gone
    ));
}

/// By page: before a write that is sent at once, before one that is gathered, and before a sync of
/// writes that were sent already.
#[test]
fn a_cut_elsewhere_is_found_before_anything_is_sent() {
    for (at, data, sent_before) in
        [(0, vec![1; 20 << 10], false), (0, vec![1; 8], false), (0, vec![1; 20 << 10], true)]
    {
        let (_directory, region, path) = made();
        if sent_before {
            region.write(at, &data).unwrap();
        }
        File::options().write(true).open(&path).unwrap().set_len(LEN - 4096).unwrap();
        let done = if sent_before { region.drain() } else { region.write_persist(at, &data) };
        let error = done.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Gone), "{error}");
        assert_eq!(error.range(), Some(LEN - 4096..LEN), "{error}");
        let found = std::fs::read(&path).unwrap();
        assert_eq!(found[0] == 1, sent_before, "written past a cut");
    }
}

/// Who writes tells which bytes. The read is made while the writer has the lock, and the number is
/// odd: it waits for neither.
#[test]
fn a_read_waits_for_no_write_of_other_bytes() {
    let (_directory, region, _) = made();
    region.write(LEN - 100, &[5; 100]).unwrap();
    region.drain().unwrap();
    region.write(20_000, &[6; 10]).unwrap();
    let region = &region;
    let inner = region.in_page_cache();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let mut gather = inner.writer(Operation::Write).unwrap();
        inner.changing(&mut gather, 4096..1 << 20, |_| {
            scope.spawn(move || {
                for (at, expected) in [(0, 0), (4095, 0), (1 << 20, 0), (LEN - 100, 5)] {
                    let mut found = [9];
                    region.read(at, &mut found).unwrap();
                    assert_eq!(found, [expected], "{at}");
                    sender.send(at).unwrap();
                }
                // Until they are written.
                let mut found = [9];
                region.read(4096, &mut found).unwrap();
                sender.send(4096).unwrap();
            });
            for at in [0, 4095, 1 << 20, LEN - 100] {
                assert_eq!(receiver.recv_timeout(PATIENCE), Ok(at));
            }
            assert!(receiver.recv_timeout(PATIENCE / 100).is_err(), "read while it is changing");
        });
        drop(gather);
    });
}

/// What is gathered is in nobody's file: to read it takes the writers' lock, which one of them lets
/// go of after every piece.
#[test]
fn who_reads_what_is_gathered_waits_for_a_piece_and_not_for_a_write() {
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let region = Options::new().len(65 << 20).create(directory.path().join("region")).unwrap();
    region.write(0, b"gathered").unwrap();
    let data = vec![1; 64 << 20];
    let done = AtomicBool::new(false);
    let reads = std::thread::scope(|scope| {
        scope.spawn(|| {
            region.write(1 << 20, &data).unwrap();
            done.store(true, Ordering::Release);
        });
        let mut reads = 0;
        while !done.load(Ordering::Acquire) {
            let mut found = [0; 8];
            region.read(0, &mut found).unwrap();
            assert_eq!(&found, b"gathered");
            reads += 1;
        }
        reads
    });
    assert!(reads > 2, "{reads} reads during 256 pieces");
}

/// With others about, a long write is on its way to the device before anybody syncs.
#[test]
fn a_flush_starts_writing_where_others_sync_too() {
    let (_directory, region, _) = made();
    let data = vec![1; 64 << 10];
    for others in [false, true] {
        if others {
            region.in_page_cache().group.expect_two();
        }
        region.write(0, &data).unwrap();
        region.flush(0, data.len() as u64).unwrap();
        let dirty = crate::region::reopen::page_counts(region.as_fd()).unwrap()[1];
        assert_eq!(dirty == 0, others, "{dirty} dirty pages");
        region.write(1 << 20, &data[..4096]).unwrap();
        region.flush(1 << 20, 4096).unwrap();
        region.drain().unwrap();
    }
}
