//! Pages where there is no room left, and beside a writer who has no lock.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use daxmap::pages::{FIRST, PageOptions, Pages};
use daxmap::{Lock, Options, Region};
use pmem_tests::scratch::{Directory, Filesystem};
use rustix::io::Errno;

const HERE: &str = env!("CARGO_TARGET_TMPDIR");
const PAGE: u64 = 16384;
const PAGES: u64 = 16;

/// Whether the page has this byte everywhere, or what else it has.
fn number(pages: &Pages, place: u64) -> Result<u8, String> {
    let mut page = vec![0; PAGE as usize];
    pages.read(place * PAGE, &mut page).map_err(|error| error.to_string())?;
    if page.iter().all(|&byte| byte == page[0]) {
        return Ok(page[0]);
    }
    Err(format!("page {place} is torn"))
}

/// Takes all the room that the filesystem has.
fn fill(path: &Path) {
    let mut rest = File::create(path).unwrap();
    for len in [1 << 20, 4096] {
        while rest.write_all(&vec![7; len]).is_ok() {}
    }
    let _ = rest.sync_all();
}

fn room_for_nothing(kind: &str, bytes: u64) -> (Filesystem, Pages) {
    let full = Filesystem::looped(HERE, kind, bytes);
    let pages = Pages::create(full.path().join("pages"), PAGES * PAGE).unwrap();
    for place in 0..PAGES {
        pages.write_atomic(place * PAGE, &[1; PAGE as usize]).unwrap();
    }
    fill(&full.path().join("rest"));
    (full, pages)
}

/// Both the records and the pages have had their blocks since the file was made.
#[test]
fn a_full_disk_stops_growth_and_no_write() {
    for (kind, bytes) in [("ext4", 16 << 20), ("xfs", 400 << 20)] {
        let (full, pages) = room_for_nothing(kind, bytes);
        let path = full.path().join("pages");
        let second = Pages::create(full.path().join("second"), 1 << 30).unwrap_err();
        assert_eq!(second.raw_os_error(), Some(Errno::NOSPC.raw_os_error()), "{kind}: {second}");
        assert!(!full.path().join("second").exists(), "{kind}");
        let grown = pages.grow(1 << 30).unwrap_err();
        assert_eq!(grown.raw_os_error(), Some(Errno::NOSPC.raw_os_error()), "{kind}: {grown}");
        assert_eq!(pages.len(), PAGES * PAGE, "{kind}");
        for place in 0..PAGES {
            pages.write_atomic(place * PAGE, &[2; PAGE as usize]).unwrap();
        }
        pages.abandon();
        let pages = Pages::open(&path).unwrap();
        assert!((0..PAGES).all(|place| number(&pages, place) == Ok(2)), "{kind}");
        fs::remove_file(full.path().join("rest")).unwrap();
        pages.grow(2 * PAGES * PAGE).unwrap();
        assert_eq!(number(&pages, 2 * PAGES - 1), Ok(0), "{kind}");
        pages.close().unwrap();
    }
}

/// btrfs writes every page to new blocks: a write may fail there. It is the last then, and what was
/// acknowledged stays.
#[test]
fn a_full_copy_on_write_disk_leaves_every_page_old_or_new() {
    let (full, pages) = room_for_nothing("btrfs", 128 << 20);
    let path = full.path().join("pages");
    let mut acknowledged = [1; PAGES as usize];
    let mut failed = None;
    'writes: for value in 2..12 {
        for place in 0..PAGES {
            match pages.write_atomic(place * PAGE, &[value; PAGE as usize]) {
                Ok(()) => acknowledged[place as usize] = value,
                Err(error) => {
                    println!("value {value}, page {place}: {error}");
                    assert!(error.raw_os_error().is_some(), "{error}");
                    let later = pages.write_atomic(0, &[99; PAGE as usize]).unwrap_err();
                    assert!(later.is_failed(), "{later}");
                    failed = Some((place, value));
                    break 'writes;
                }
            }
        }
    }
    if failed.is_none() {
        println!("every write found room");
    }
    drop(pages);
    fs::remove_file(full.path().join("rest")).unwrap();
    let pages = Pages::open(&path).unwrap();
    for place in 0..PAGES {
        let found = number(&pages, place).unwrap();
        let old = acknowledged[place as usize];
        let new = failed.filter(|(at, _)| *at == place).map_or(old, |(_, value)| value);
        assert!(found == old || found == new, "page {place} is {found}, not {old} or {new}");
    }
    pages.write_atomic(0, &[50; PAGE as usize]).unwrap();
    pages.close().unwrap();
}

fn without_a_lock(path: &Path) -> Pages {
    let region = Options::new().lock(Lock::None).open(path).unwrap();
    PageOptions::new().open_region(region).unwrap()
}

/// What [`PageOptions::open_region`] says of two writers: each finds what the other has acknowledged, and
/// a record of the one is overwritten by the other's.
#[test]
fn two_writers_without_the_lock_overwrite_each_others_records() {
    let directory = Directory::new(HERE);
    let path = directory.path().join("pages");
    Pages::create(&path, PAGES * PAGE).unwrap().close().unwrap();
    let write = |pages: &Pages, place, value| {
        pages.write_atomic(place * PAGE, &[value; PAGE as usize]).unwrap();
    };
    let first = without_a_lock(&path);
    write(&first, 0, 1);
    let second = without_a_lock(&path);
    assert_eq!(number(&second, 0), Ok(1));
    write(&first, 0, 2);
    // The same area of records, and nobody is told.
    write(&second, 1, 3);
    assert_eq!((number(&first, 1), number(&second, 0)), (Ok(3), Ok(2)));
    first.abandon();
    second.abandon();
    // What a power loss may leave of the first one's page.
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0x77; 4096], FIRST).unwrap();
    let pages = Pages::open(&path).unwrap();
    assert_eq!(number(&pages, 1), Ok(3));
    number(&pages, 0).unwrap_err();
}

/// A plain region of the file, whose program asks for no lock, is not kept out, and is not noticed.
#[test]
fn a_region_without_the_lock_writes_into_pages() {
    let directory = Directory::new(HERE);
    let path = directory.path().join("pages");
    let pages = Pages::create(&path, PAGES * PAGE).unwrap();
    pages.write_atomic(0, &[1; PAGE as usize]).unwrap();
    let polite = Options::new().open(&path).unwrap_err();
    assert!(matches!(polite.kind(), daxmap::ErrorKind::Locked), "{polite}");
    let region = Options::new().lock(Lock::None).open(&path).unwrap();
    region.write_persist(FIRST + 100, &[9; 10]).unwrap();
    number(&pages, 0).unwrap_err();
    // Headers and records are still the pages' own.
    pages.write_atomic(0, &[2; PAGE as usize]).unwrap();
    drop(region);
    pages.close().unwrap();
    let pages = Pages::open(&path).unwrap();
    assert_eq!((number(&pages, 0), pages.recovery().completed), (Ok(2), 0));
}
