//! Stores through a pointer on ordinary filesystems: what reaches the device, and what a full
//! disk does.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use daxmap::{AnyRegion, ErrorKind, Operation, Options, Region};
use pmem_tests::scratch::Filesystem;

const HERE: &str = env!("CARGO_TARGET_TMPDIR");
const BYTES: u64 = 16 << 20;
/// Stores measured in each part of a file.
const STORES: u64 = 40;
/// A part of a file, in bytes.
const PART: u64 = 4 << 20;

/// Bytes written to the device of a filesystem so far.
fn device_bytes(directory: &Path) -> u64 {
    let device = fs::metadata(directory).expect("the directory is there").dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).expect("sysfs");
    stat.split_whitespace()
        .nth(6)
        .and_then(|sectors| sectors.parse().ok())
        .map_or(0, |n: u64| n * 512)
}

/// Offsets in a part of the file, in no order, each on a page of its own.
fn offset(part: u64, i: u64) -> u64 {
    part * PART + (i * 389 + 1) % (PART / 4096) * 4096 + i * 64
}

/// The median of the device bytes of one store in a part, and what makes it durable.
fn median_bytes(directory: &Path, part: u64, mut store: impl FnMut(u64)) -> u64 {
    let mut samples: Vec<u64> = (0..STORES)
        .map(|i| {
            let before = device_bytes(directory);
            store(offset(part, i));
            device_bytes(directory) - before
        })
        .collect();
    samples.sort_unstable();
    samples[samples.len() / 2]
}

/// As a program that knows nothing of us makes a file: the page cache keeps it in large folios.
fn build(path: &Path) -> File {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
    let file = file.expect("the file can be made");
    for at in (0..BYTES).step_by(1 << 20) {
        file.write_all_at(&vec![0; 1 << 20], at).expect("the file can be written");
    }
    file.sync_all().expect("the file can be synced");
    file
}

fn store(region: &AnyRegion, at: u64) {
    // SAFETY: nobody else accesses the region.
    let view = unsafe { region.slice_mut(at, 64) }.expect("a view for storing");
    view.fill(7);
    region.persist(at, 64).expect("the store can be persisted");
}

fn one_page_writes_one_page(kind: &str, guard: bool) {
    let filesystem = Filesystem::looped(HERE, kind, 400 << 20);
    let directory = filesystem.path();
    let options =
        Options::new().len(BYTES).max_len(2 * BYTES).writable_mapping(true).fault_guard(guard);

    // What it costs without care; if it costs nothing more, this test shows nothing.
    let file = build(&directory.join("control"));
    // SAFETY: nobody else has the file.
    let mut map = unsafe { memmap2::MmapMut::map_mut(&file) }.expect("the file can be mapped");
    let control = median_bytes(directory, 0, |at| {
        map[at as usize..at as usize + 64].fill(7);
        map.flush_range(at as usize, 64).expect("msync");
    });
    println!("{kind}: {control} device bytes for a store and msync, by hand");
    assert!(control >= 64 << 10, "{kind}: this kernel keeps small folios by itself ({control})");

    build(&directory.join("built"));
    let built = options.open(directory.join("built")).expect("open");
    let created = options.create(directory.join("created")).expect("create");
    let drafted = options.draft(directory.join("drafted")).expect("draft");
    let drafted = drafted.commit(daxmap::publish::Commit::CreateOnly).expect("commit");
    let grown = options.clone().len(PART).create(directory.join("grown")).expect("create");
    grown.grow(BYTES).expect("grow");
    for (name, region) in
        [("built", built), ("created", created), ("drafted", drafted), ("grown", grown)]
    {
        // In part 0 a long write, in part 1 a reader from front to back must not bring large
        // folios.
        region.write_persist(5, &vec![1; PART as usize - 5]).expect("write");
        let mut buffer = vec![0; 64 << 10];
        for at in (PART..2 * PART).step_by(buffer.len()) {
            region.read(at, &mut buffer).expect("read");
        }
        for part in 0..3 {
            let bytes = median_bytes(directory, part, |at| store(&region, at));
            println!("{kind}, {name}, part {part}: {bytes} device bytes for a store and persist");
            assert!(bytes > 0 && bytes <= 8 << 10, "{kind}, {name}, part {part}: {bytes} bytes");
        }
        drop(region);
        let again = Options::new().read_only(true).open(directory.join(name)).expect("open");
        for (part, i) in (0..3).flat_map(|part| (0..STORES).map(move |i| (part, i))) {
            let mut found = [0; 64];
            again.read(offset(part, i), &mut found).expect("read");
            assert_eq!(found, [7; 64], "{kind}, {name}: store {i} in part {part}");
        }
    }
}

#[test]
fn one_page_writes_one_page_on_ext4() {
    one_page_writes_one_page("ext4", true);
}

#[test]
fn one_page_writes_one_page_on_xfs() {
    one_page_writes_one_page("xfs", true);
}

/// Without the guard, reads are the kernel's, which would read ahead.
#[test]
fn one_page_writes_one_page_without_the_guard() {
    one_page_writes_one_page("ext4", false);
}

/// A sparse file longer than the disk has room for: an error of open, not a SIGBUS later, and the
/// room is still there.
#[test]
fn a_full_disk_is_an_error_of_open() {
    let filesystem = Filesystem::looped(HERE, "ext4", 32 << 20);
    let options = Options::new().writable_mapping(true);
    let path = filesystem.path().join("sparse");
    File::create(&path).and_then(|file| file.set_len(64 << 20)).expect("a sparse file");
    let free = || rustix::fs::statvfs(filesystem.path()).expect("statvfs").f_bfree;
    let before = free();
    let error = options.open(&path).expect_err("there is no room for 64 MiB");
    assert_eq!(error.operation(), Operation::Allocate, "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
    assert_eq!(fs::metadata(&path).expect("it is there").len(), 64 << 20);
    assert_eq!(free(), before, "a failed open takes no space");

    File::create(&path).and_then(|file| file.set_len(4 << 20)).expect("a sparse file");
    // A length within a page: a store allocates all of the page.
    let region = options.view((4 << 20) - 5000).open(&path).expect("there is room for 4 MiB");
    let allocated = fs::metadata(&path).expect("it is there").blocks() * 512;
    assert!(allocated >= (4 << 20) - 4096, "{allocated} bytes are allocated");
    store(&region, 1 << 20);
}

/// Where fallocate does not allocate, nobody can promise space to a store.
/// What a file has already is not asked for once more.
#[test]
fn a_file_with_space_of_its_own_opens_on_a_full_disk() {
    let filesystem = Filesystem::looped(HERE, "ext4", 64 << 20);
    let path = filesystem.path().join("file");
    let options = Options::new().len(24 << 20).writable_mapping(true);
    options.create(&path).expect("create").close().expect("close");
    let space = rustix::fs::statvfs(filesystem.path()).expect("statvfs");
    let rest = space.f_bavail * space.f_frsize - (1 << 20);
    let other = File::create(filesystem.path().join("other")).expect("another file");
    rustix::fs::fallocate(&other, rustix::fs::FallocateFlags::empty(), 0, rest).expect("space");
    let region = options.open(&path).expect("open");
    store(&region, 20 << 20);
}

#[test]
fn refused_where_space_cannot_be_allocated() {
    let filesystem = Filesystem::looped(HERE, "ext3", 32 << 20);
    let path = filesystem.path().join("sparse");
    File::create(&path).and_then(|file| file.set_len(64 << 10)).expect("a sparse file");
    let error = Options::new().writable_mapping(true).open(&path).expect_err("ext3");
    assert!(matches!(error.kind(), ErrorKind::Unsupported(_)), "{error}");
}

/// Another process cuts the file below a region: a growth must notice, not make it longer again
/// with zeros where data was.
#[test]
fn a_cut_file_is_not_made_longer_again() {
    let filesystem = Filesystem::looped(HERE, "ext4", 64 << 20);
    let path = filesystem.path().join("cut");
    let file = build(&path);
    let options = Options::new().writable_mapping(true);
    let region = options.clone().view(4 << 20).open(&path).expect("open");
    let _whole = options.lock(false).open(&path).expect("another writer of the whole file");
    file.set_len(2 << 20).expect("the file can be cut");
    let error = region.grow(8 << 20).expect_err("the region's bytes are gone");
    assert!(matches!(error.kind(), ErrorKind::Gone), "{error}");
    assert_eq!(file.metadata().expect("fstat").len(), 2 << 20);
    assert!(region.write_persist(0, b"x").expect_err("it is final").is_failed());
}

/// A write that was made before a store through a pointer must not come after it.
#[test]
fn a_store_after_a_write_stays() {
    let filesystem = Filesystem::looped(HERE, "ext4", 32 << 20);
    let path = filesystem.path().join("file");
    let options = Options::new().len(1 << 20).lock(false);
    let region = options.clone().writable_mapping(true).create(&path).expect("create");
    let sibling = options.open(&path).expect("open");
    for writer in [&region, &sibling] {
        // SAFETY: nobody else accesses the region while a store is made.
        let pointer =
            unsafe { region.slice_mut(0, 4096) }.expect("a view for storing").as_mut_ptr();
        writer.write(0, b"A").expect("write");
        // SAFETY: as above; the region is mapped for as long as it lives.
        unsafe { pointer.write_volatile(b'B') };
        writer.persist(0, 1).expect("persist");
        let mut found = [0];
        File::open(&path).expect("open").read_exact_at(&mut found, 0).expect("read");
        assert_eq!(&found, b"B");
    }
}

/// What the file has past a view is not new, whoever has it open or had.
#[test]
fn what_lies_past_a_view_stays_whoever_had_the_file_open() {
    let filesystem = Filesystem::looped(HERE, "ext4", 64 << 20);
    let path = filesystem.path().join("fives");
    build(&path).write_all_at(&vec![5; 8 << 20], 0).expect("write");
    for writable_mapping in [false, true] {
        let options = Options::new().writable_mapping(writable_mapping);
        let region = options.clone().view(PART).open(&path).expect("open");
        let _reader = options.clone().read_only(true).open(&path).expect("a reader");
        drop(options.lock(false).open(&path).expect("another writer"));
        let error = region.grow(PART + 4096).expect_err("the file has bytes there");
        assert!(matches!(error.kind(), ErrorKind::FileLonger { .. }), "{error}");
        let len = region.grow_to_file().expect("they become the region's");
        let mut found = [9; 4096];
        region.read(PART, &mut found).expect("read");
        assert_eq!(len, BYTES);
        assert!(found.iter().all(|&byte| byte == 5), "the file's bytes");
        region.grow(len + 4096).expect("grow");
        region.read(len, &mut found).expect("read");
        assert!(found.iter().all(|&byte| byte == 0), "new bytes");
        drop(region);
        File::options().write(true).open(&path).and_then(|file| file.set_len(len)).expect("cut");
    }
}

/// Two files share their extents: a store through the mapping must not need new space.
#[test]
fn shared_extents_become_its_own() {
    let filesystem = Filesystem::looped(HERE, "xfs", 400 << 20);
    let (one, two) = (filesystem.path().join("one"), filesystem.path().join("two"));
    let original = build(&one);
    let clone = File::options().read(true).write(true).create_new(true).open(&two).expect("create");
    rustix::fs::ioctl_ficlone(&clone, &original).expect("xfs clones");
    let free = || rustix::fs::statvfs(filesystem.path()).expect("statvfs").f_bfree;
    let before = free();
    let region = Options::new().writable_mapping(true).open(&two).expect("open");
    let taken = before.saturating_sub(free()) * 4096;
    assert!(taken >= BYTES, "only {taken} bytes of its own");
    store(&region, 0);
    let mut found = [9; 64];
    original.read_exact_at(&mut found, 0).expect("read");
    assert_eq!(found, [0; 64], "the other file keeps its bytes");
}

#[test]
fn refused_where_an_overwrite_takes_new_space() {
    let filesystem = Filesystem::looped(HERE, "btrfs", 400 << 20);
    let path = filesystem.path().join("file");
    let error = Options::new()
        .len(1 << 20)
        .writable_mapping(true)
        .create(&path)
        .expect_err("btrfs does not overwrite in place");
    assert!(matches!(error.kind(), ErrorKind::Unsupported(_)), "{error}");
    assert!(!path.exists(), "a refused creation leaves nothing");
}
