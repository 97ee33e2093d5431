//! Pages in real files.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use daxmap::pages::{FIRST, PageOptions, Pages, Way};
use daxmap::{Emulation, ErrorKind, Options, Region};
use pmem_tests::scratch::{Directory, Filesystem};

const HERE: &str = env!("CARGO_TARGET_TMPDIR");
const MEMORY: &str = "/dev/shm";
const LEN: u64 = 256 << 10;

fn read(pages: &Pages, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    pages.read(offset, &mut bytes).unwrap();
    bytes
}

/// By a record, whatever the filesystem has: the default.
fn by_record() -> PageOptions {
    PageOptions::new()
}

/// By the kernel, where it offers that.
fn by_kernel() -> PageOptions {
    PageOptions::new().kernel(true)
}

#[test]
fn what_is_written_is_read_and_there_when_it_is_opened_again() {
    let directory = Directory::new(HERE);
    let memory = Directory::new(MEMORY);
    let emulated = |kind| PageOptions::new().region(Options::new().emulate(kind));
    for (place, options) in [
        (&directory, by_kernel()),
        (&directory, by_record()),
        (&memory, PageOptions::new()),
        (&memory, emulated(Emulation::Adr)),
        (&memory, emulated(Emulation::Eadr)),
    ] {
        let path = place.path().join("pages");
        let pages = options.create(&path, LEN).unwrap();
        assert!(options.create(&path, LEN).is_err());
        assert_eq!((pages.len(), fs::metadata(&path).unwrap().len()), (LEN, FIRST + LEN));
        assert!(read(&pages, 0, LEN as usize).iter().all(|&byte| byte == 0));
        let mut model = vec![0; LEN as usize];
        for (number, bytes) in (1..).zip([4096, 65536, 8192, 16384, 32768, 4096, 4096, 65536]) {
            let at = (number * 3 * 65536 % LEN).min(LEN - bytes) / bytes * bytes;
            // A page of any address in memory.
            let page = vec![number as u8; bytes as usize + 1];
            pages.write_atomic(at, &page[1..]).unwrap();
            model[at as usize..(at + bytes) as usize].fill(number as u8);
            assert!(read(&pages, 0, LEN as usize) == model, "{number}");
        }
        pages.close().unwrap();
        let pages = options.open(&path).unwrap();
        assert!(pages.recovery().clean, "{:?}", pages.recovery());
        assert!(read(&pages, 0, LEN as usize) == model);
        // What is cut off does not come back.
        pages.write_atomic(LEN - 4096, &[9; 4096]).unwrap();
        pages.shrink(LEN - 8192).unwrap();
        let outside = pages.write_atomic(LEN - 4096, &[9; 4096]).unwrap_err();
        assert!(matches!(outside.kind(), ErrorKind::OutOfBounds { .. }), "{outside}");
        pages.grow(LEN).unwrap();
        assert!(read(&pages, LEN - 8192, 8192).iter().all(|&byte| byte == 0));
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_wrong_page_changes_nothing() {
    let directory = Directory::new(HERE);
    let path = directory.path().join("pages");
    let pages = by_record().create(&path, LEN).unwrap();
    pages.write_atomic(0, &[1; 8192]).unwrap();
    pages.close().unwrap();
    let pages = by_record().open(&path).unwrap();
    let before = fs::read(&path).unwrap();
    for (offset, bytes, expected) in [
        (0, 0, ErrorKind::PageSize { bytes: 0 }),
        (0, 512, ErrorKind::PageSize { bytes: 512 }),
        (0, 12288, ErrorKind::PageSize { bytes: 12288 }),
        (0, 131_072, ErrorKind::PageSize { bytes: 131_072 }),
        (4096, 8192, ErrorKind::Unaligned { align: 8192 }),
        (1, 4096, ErrorKind::Unaligned { align: 4096 }),
        (LEN, 4096, ErrorKind::OutOfBounds { len: LEN }),
        (u64::MAX - 4095, 4096, ErrorKind::OutOfBounds { len: LEN }),
    ] {
        let error = pages.write_atomic(offset, &vec![7; bytes]).unwrap_err();
        assert_eq!(*error.kind(), expected, "{offset} {bytes}");
    }
    let mut rest = [0; 2];
    assert!(pages.read(LEN - 1, &mut rest).is_err());
    assert!(pages.read(u64::MAX, &mut rest).is_err());
    assert!(pages.grow(u64::MAX).is_err() && pages.grow(i64::MAX as u64).is_err());
    // Nothing of these has failed the pages.
    assert!(fs::read(&path).unwrap() == before);
    pages.write_atomic(0, &[2; 4096]).unwrap();
    drop(pages);
    let pages = PageOptions::new().read_only(true).open(&path).unwrap();
    let error = pages.write_atomic(0, &[7; 4096]).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::ReadOnly);
    assert!(pages.shrink(0).is_err() && pages.grow(2 * LEN).is_err());
    assert_eq!(read(&pages, 4095, 2), [2, 1]);
}

/// What a crash leaves between the record and the place: a record that is whole, and a page that is not.
fn interrupted(path: &Path) {
    let pages = by_record().create(path, LEN).unwrap();
    pages.write_atomic(16384, &[1; 16384]).unwrap();
    pages.write_atomic(16384, &[2; 16384]).unwrap();
    pages.abandon();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0x77; 8192], FIRST + 16384 + 4096).unwrap();
}

#[test]
fn what_was_interrupted_is_complete_before_it_is_read() {
    let directory = Directory::new(HERE);
    let path = directory.path().join("pages");
    interrupted(&path);
    let before = fs::read(&path).unwrap();
    for _ in 0..2 {
        // In memory only.
        let pages = PageOptions::new().read_only(true).open(&path).unwrap();
        assert_eq!((pages.recovery().completed, pages.recovery().clean), (1, false));
        assert!(read(&pages, 16384, 16384) == [2; 16384]);
        assert!(read(&pages, 16380, 8) == [0, 0, 0, 0, 2, 2, 2, 2]);
        assert!(read(&pages, 32760, 16) == [[2; 8], [0; 8]].concat());
        drop(pages);
        assert!(fs::read(&path).unwrap() == before);
    }
    let pages = Pages::open(&path).unwrap();
    assert_eq!((pages.recovery().completed, pages.recovery().clean), (1, false));
    assert!(read(&pages, 16384, 16384) == [2; 16384]);
    pages.abandon();
    let at = FIRST as usize + 16384;
    assert!(fs::read(&path).unwrap()[at..at + 16384] == [2; 16384]);
    // No record is left that could be laid over what comes later.
    assert_eq!(Pages::open(&path).unwrap().recovery().completed, 0);
}

/// A page that is whole is not overwritten by an older record because its own is damaged.
#[test]
fn a_damaged_record_brings_back_nothing() {
    let directory = Directory::new(HERE);
    let path = directory.path().join("pages");
    let pages = by_record().create(&path, LEN).unwrap();
    pages.write_atomic(0, &[1; 4096]).unwrap();
    pages.write_atomic(0, &[2; 4096]).unwrap();
    // Has the kernel told what is gathered.
    let reader = fs::read(&path).unwrap();
    assert_eq!(reader[FIRST as usize], 2);
    pages.abandon();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    // In the page of the second record, which is in the first area.
    let (mut byte, at) = ([0], 8192 + 1000);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let pages = Pages::open(&path).unwrap();
    assert_eq!(pages.recovery().completed, 0);
    assert!(read(&pages, 0, 4096) == [2; 4096]);
}

/// A record that a crash has torn must not become whole by the same page being written again, to another
/// place: that begins with the same bytes.
#[test]
fn a_torn_record_does_not_come_back() {
    const RECORD: u64 = 77824;
    let directory = Directory::new(HERE);
    let path = directory.path().join("pages");
    let pages = by_record().create(&path, LEN).unwrap();
    pages.write_atomic(0, &[1; 4096]).unwrap();
    pages.abandon();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    // The record has no whole page, and its place the old one.
    file.write_all_at(&[0; 1000], RECORD + 64 + 2000).unwrap();
    file.write_all_at(&[0; 4096], FIRST).unwrap();
    let pages = Pages::open(&path).unwrap();
    assert_eq!(pages.recovery().completed, 0);
    pages.abandon();
    // What a crash leaves of the next record that has written its page and not yet its list.
    file.write_all_at(&[1; 4096], RECORD + 64).unwrap();
    let pages = Pages::open(&path).unwrap();
    assert_eq!(pages.recovery().completed, 0);
    assert!(read(&pages, 0, 4096) == [0; 4096]);
}

#[test]
fn a_writer_is_alone() {
    let directory = Directory::new(HERE);
    let path = directory.path().join("pages");
    let reader = || PageOptions::new().read_only(true).open(&path);
    let locked =
        |result: daxmap::Result<Pages>| matches!(result.unwrap_err().kind(), ErrorKind::Locked);
    let pages = Pages::open_or_create(&path, LEN).unwrap();
    assert!(locked(Pages::open(&path)) && locked(reader()));
    pages.close().unwrap();
    let readers = [reader().unwrap(), reader().unwrap()];
    assert!(locked(Pages::open(&path)));
    drop(readers);
    Pages::open_or_create(&path, LEN).unwrap();
}

#[test]
fn a_file_of_another_kind_is_refused_and_stays() {
    let directory = Directory::new(HERE);
    let path = directory.path().join("other");
    for bytes in [vec![7; 4096], vec![0; 300 << 10], vec![9; 300 << 10]] {
        fs::write(&path, &bytes).unwrap();
        let error = Pages::open(&path).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WrongFormat("a daxmap page file")), "{error}");
        assert!(fs::read(&path).unwrap() == bytes);
    }
    fs::remove_file(&path).unwrap();
    Pages::create(&path, 4096).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(FIRST - 1).unwrap();
    let error = Pages::open(&path).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooShort { asked: FIRST, .. }), "{error}");
}

#[test]
fn a_forked_child_writes_nothing() {
    let directory = Directory::new(MEMORY);
    let path = directory.path().join("pages");
    let pages = Pages::create(&path, LEN).unwrap();
    pages.write_atomic(0, &[1; 4096]).unwrap();
    let before = fs::read(&path).unwrap();
    #[allow(unsafe_code)]
    // SAFETY: the child takes no lock that another thread may hold, and leaves by _exit.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0);
        if child == 0 {
            let refused = pages.write_atomic(0, &[2; 4096]).is_err();
            drop(pages);
            libc::_exit(i32::from(!refused));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0);
    }
    assert!(fs::read(&path).unwrap() == before);
    pages.write_atomic(0, &[3; 4096]).unwrap();
}

#[test]
fn a_write_that_panicked_is_the_last() {
    static PANICS: AtomicBool = AtomicBool::new(false);
    let directory = Directory::new(HERE);
    let path = directory.path().join("pages");
    let region = Options::new().observer(|_| assert!(!PANICS.load(Ordering::Relaxed), "asked to"));
    let pages = by_record().region(region).create(&path, LEN).unwrap();
    pages.write_atomic(0, &[1; 4096]).unwrap();
    PANICS.store(true, Ordering::Relaxed);
    assert!(catch_unwind(AssertUnwindSafe(|| pages.write_atomic(0, &[2; 4096]))).is_err());
    PANICS.store(false, Ordering::Relaxed);
    let error = pages.write_atomic(4096, &[3; 4096]).unwrap_err();
    assert!(error.is_failed() && error.to_string().contains("panic"), "{error}");
    assert!(pages.close().is_err());
    let pages = Pages::open(&path).unwrap();
    assert!(read(&pages, 0, 4096) == [2; 4096], "its record was durable");
    assert!(read(&pages, 4096, 4096) == [0; 4096]);
}

/// xfs writes a page to new blocks first. Without any, the page is not written, and a record does it.
#[test]
fn a_full_disk_takes_the_kernels_way_and_nothing_else() {
    let xfs = Filesystem::looped(HERE, "xfs", 400 << 20);
    let region = Options::new().len(LEN).create(xfs.path().join("region")).unwrap();
    let offered = region.write_atomic(0, &[1; 16384]).is_ok();
    let path = xfs.path().join("pages");
    let pages = PageOptions::new().kernel(true).create(&path, LEN).unwrap();
    pages.write_atomic(0, &[1; 16384]).unwrap();
    assert_eq!(pages.way() == Way::Kernel, offered);
    let mut rest = fs::File::create(xfs.path().join("rest")).unwrap();
    for len in [1 << 20, 4096] {
        while std::io::Write::write_all(&mut rest, &vec![7; len]).is_ok() {}
    }
    let _ = rest.sync_all();
    match region.write_atomic(16384, &[2; 16384]) {
        Ok(()) => println!("this kernel needs no new blocks"),
        Err(error) => assert!(matches!(error.kind(), ErrorKind::Unsupported(_)), "{error}"),
    }
    region.write_persist(16384, &[3; 100]).unwrap();
    pages.write_atomic(16384, &[2; 16384]).unwrap();
    pages.abandon();
    let pages = Pages::open(&path).unwrap();
    assert!(read(&pages, 0, 16384) == [1; 16384]);
    assert!(read(&pages, 16384, 16384) == [2; 16384]);
}

/// On xfs the kernel writes pages whole since Linux 6.16, and on a device that does so since 6.13.
#[test]
fn the_kernel_writes_pages_whole_where_it_offers_that() {
    let xfs = Filesystem::looped(HERE, "xfs", 400 << 20);
    let path = xfs.path().join("region");
    let region = Options::new().len(LEN).create(&path).unwrap();
    // Small writes that are gathered, before and behind and in the page.
    region.write(4096, &[1; 100]).unwrap();
    if let Err(error) = region.write_atomic(4096, &[2; 4096]) {
        assert!(matches!(error.kind(), ErrorKind::Unsupported(_)), "{error}");
        let pages = by_kernel().create(xfs.path().join("pages"), LEN).unwrap();
        pages.write_atomic(0, &[1; 4096]).unwrap();
        assert_eq!(pages.way(), Way::Record);
        println!("this kernel offers none on xfs: {error}");
        return;
    }
    region.write(4000, &[3; 97]).unwrap();
    region.write(8192, &[4; 10]).unwrap();
    region.write_atomic(8192, &[5; 8192]).unwrap();
    region.write(16383, &[6; 1]).unwrap();
    let mut expected = vec![0; LEN as usize];
    expected[4096..8192].fill(2);
    expected[4000..4097].fill(3);
    expected[8192..16384].fill(5);
    expected[16383] = 6;
    let mut found = vec![0; LEN as usize];
    region.read(0, &mut found).unwrap();
    assert!(found == expected);
    region.drain().unwrap();
    assert!(fs::read(&path).unwrap() == expected);
    for (offset, bytes) in [(0, 2048), (2048, 4096), (LEN, 4096)] {
        assert!(region.write_atomic(offset, &vec![7; bytes]).is_err());
    }
    // While a region of the file lends its memory, the kernel could not drop what it has cached.
    let lends = Options::new().lock(false).writable_mapping(true).open(&path).unwrap();
    let error = region.write_atomic(4096, &[7; 4096]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unsupported(_)), "{error}");
    drop(lends);
    region.drain().unwrap();
    assert!(fs::read(&path).unwrap() == expected);

    let path = xfs.path().join("pages");
    let pages = by_kernel().create(&path, LEN).unwrap();
    for (at, bytes) in [(0, 4096), (65536, 65536), (8192, 8192)] {
        pages.write_atomic(at, &vec![7; bytes]).unwrap();
        assert!(read(&pages, at, bytes).iter().all(|&byte| byte == 7));
    }
    assert_eq!(pages.way(), Way::Kernel);
    // No record was needed.
    pages.abandon();
    assert_eq!(Pages::open(&path).unwrap().recovery().completed, 0);
}
