//! A mapping of the caller's own: ranges of it become durable, an error is final, and what cannot be
//! known is not claimed.
//!
//! Needs root.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use daxmap::{Adopted, Durability, ErrorKind, Granularity, Options, Region, Result};
use memmap2::{MmapMut, MmapOptions};
use pmem_tests::blockdev::{Fault, FaultyDisk, Filesystem, Mounted};
use pmem_tests::failing::with_failing;
use rustix::io::Errno;

const PAGE: usize = 4096;
const LEN: usize = 8 << 20;
/// Further apart than the kernel caches in one piece.
const FAR: usize = 4 << 20;
const IN_PLACE: [Filesystem; 2] = [Filesystem::Ext4, Filesystem::Xfs];

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// A file of ones on a disk that can fail, and a mapping of it.
fn with_mapping(
    filesystem: Filesystem,
    test: impl FnOnce(&FaultyDisk, &Path, &File, &mut MmapMut),
) {
    let disk = FaultyDisk::new(filesystem.size()).unwrap();
    disk.fill(filesystem.template(0).unwrap());
    let mounted = Mounted::new(&disk, filesystem).unwrap();
    let path = mounted.path().join("file");
    std::fs::write(&path, vec![1; LEN]).unwrap();
    let file = open(&path);
    file.sync_all().unwrap();
    File::open(mounted.path()).unwrap().sync_all().unwrap();
    test(&disk, &path, &file, &mut map(&file));
    drop(file);
    disk.cut_power();
    mounted.unmount().unwrap();
}

#[allow(unsafe_code)]
fn map(file: &File) -> MmapMut {
    // SAFETY: nobody cuts the file while it is mapped.
    unsafe { MmapMut::map_mut(file) }.unwrap()
}

fn memory(map: &MmapMut) -> NonNull<[u8]> {
    NonNull::slice_from_raw_parts(NonNull::new(map.as_ptr().cast_mut()).unwrap(), map.len())
}

#[allow(unsafe_code)]
fn adopt<'f>(
    options: &Options,
    file: &'f File,
    map: &MmapMut,
    offset: u64,
) -> Result<Adopted<&'f File>> {
    // SAFETY: every test drops what it adopts before the mapping, and syncs by nothing else.
    unsafe { options.adopt(file, memory(map), offset) }
}

/// The byte at an offset, as a filesystem finds it that is mounted from the medium as it is now.
fn on_medium(disk: &FaultyDisk, filesystem: Filesystem, offsets: &[usize]) -> Vec<u8> {
    let other = FaultyDisk::new(filesystem.size()).unwrap();
    other.fill(disk.contents());
    let mounted = Mounted::new(&other, filesystem).unwrap();
    let file = open(&mounted.path().join("file"));
    let byte = |offset: &usize| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, *offset as u64).unwrap();
        byte[0]
    };
    let found = offsets.iter().map(byte).collect();
    drop(file);
    mounted.unmount().unwrap();
    found
}

#[test]
fn a_range_is_on_the_medium_after_the_drain_and_the_rest_is_not_written() {
    for filesystem in IN_PLACE {
        with_mapping(filesystem, |disk, _, file, map| {
            let adopted = adopt(&Options::new(), file, map, 0).unwrap();
            assert_eq!(adopted.granularity(), Granularity::Page);
            assert!(adopted.drain_blocks() && adopted.len() == LEN as u64);
            // Not at the start of a page.
            map[PAGE + 7] = 2;
            map[FAR] = 2;
            let before = disk.counts();
            adopted.flush(PAGE as u64 + 7, 1).unwrap();
            adopted.drain().unwrap();
            assert!(disk.counts().flushes > before.flushes, "{filesystem}: no flush of the device");
            assert_eq!(on_medium(disk, filesystem, &[PAGE + 7, FAR]), [2, 1], "{filesystem}");
            let before = disk.counts().writes;
            adopted.drain().unwrap();
            assert_eq!(disk.counts().writes, before, "{filesystem}: nothing was flushed since");
            // Several at once, up to the last byte.
            map[LEN - 1] = 2;
            adopted.flush(LEN as u64 - 1, 1).unwrap();
            adopted.persist(FAR as u64, 1).unwrap();
            assert_eq!(on_medium(disk, filesystem, &[FAR, LEN - 1]), [2, 2], "{filesystem}");
        });
    }
}

#[test]
fn an_error_is_final_here_and_in_every_region_of_the_file() {
    for filesystem in IN_PLACE {
        with_mapping(filesystem, |disk, path, file, map| {
            let adopted = adopt(&Options::new(), file, map, 0).unwrap();
            let region = Options::new().open(path).unwrap();
            map[0] = 2;
            adopted.flush(0, 1).unwrap();
            disk.plan(Fault::nth_write(1, Errno::IO));
            let error = adopted.drain().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO), "{filesystem}");
            assert!(error.is_durability_unknown() && error.range() == Some(0..1), "{error}");
            for _ in 0..2 {
                // The kernel would say that all is well.
                assert!(adopted.drain().unwrap_err().is_failed(), "{filesystem}");
                assert!(adopted.flush(0, 1).unwrap_err().is_failed(), "{filesystem}");
                assert!(adopted.sync_all().unwrap_err().is_failed(), "{filesystem}");
                assert!(region.drain().unwrap_err().is_failed(), "{filesystem}");
            }
            drop((adopted, region));

            let adopted = adopt(&Options::new(), file, map, 0).unwrap();
            adopted.persist(FAR as u64, 1).unwrap();
            let region = Options::new().open(path).unwrap();
            region.write_flush(FAR as u64, &[3]).unwrap();
            disk.plan(Fault::nth_write(1, Errno::IO));
            assert!(region.drain().is_err());
            assert!(adopted.drain().unwrap_err().is_failed(), "{filesystem}");
        });
    }
}

/// Threads that flush places of their own and drain at once: none returns before its own is synced.
#[test]
fn no_thread_returns_before_its_own_range_is_synced() {
    with_mapping(Filesystem::Ext4, |disk, _, file, map| {
        let adopted = adopt(&Options::new(), file, map, 0).unwrap();
        let base = AtomicU64::new(map.as_mut_ptr() as u64);
        std::thread::scope(|scope| {
            for thread in 0..6_u64 {
                let (adopted, base) = (&adopted, &base);
                scope.spawn(move || {
                    for round in 0..20 {
                        let at = thread * (1 << 20) + round * PAGE as u64;
                        let byte = (base.load(Ordering::Relaxed) + at) as *mut u8;
                        // SAFETY: within the mapping, and no other thread's.
                        #[allow(unsafe_code)]
                        unsafe {
                            byte.write(9);
                        }
                        adopted.persist(at, 1).unwrap();
                    }
                });
            }
        });
        let all: Vec<usize> = (0..6 * 20).map(|n| (n / 20) * (1 << 20) + (n % 20) * PAGE).collect();
        assert!(on_medium(disk, Filesystem::Ext4, &all).iter().all(|&byte| byte == 9));
        // And by itself: what one thread has flushed and nobody synced, another's drain waits for.
        adopted.flush(0, 1).unwrap();
        let failed = with_failing(libc::SYS_msync, libc::EIO, || adopted.drain());
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(libc::EIO));
    });
}

#[test]
fn what_is_not_a_shared_mapping_of_that_place_is_refused() {
    let directory = pmem_tests::scratch::Directory::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.path().join("file");
    std::fs::write(&path, vec![1; 4 * PAGE]).unwrap();
    std::fs::write(directory.path().join("other"), vec![1; 4 * PAGE]).unwrap();
    let (file, other) = (open(&path), open(&directory.path().join("other")));
    let options = Options::new();
    let refused = |file: &File, map: &MmapMut, offset| {
        let error = adopt(&options, file, map, offset).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unsupported(_)), "{error}");
    };
    refused(&other, &map(&file), 0);
    refused(&file, &map(&file), PAGE as u64);
    // SAFETY: nobody cuts the file while it is mapped.
    #[allow(unsafe_code)]
    let (private, second) = unsafe {
        let second = MmapOptions::new().offset(PAGE as u64).len(PAGE).map_mut(&file).unwrap();
        (MmapOptions::new().map_copy(&file).unwrap(), second)
    };
    refused(&file, &private, 0);
    refused(&file, &second, 0);
    let adopted = adopt(&options, &file, &second, PAGE as u64).unwrap();
    adopted.persist(0, PAGE as u64).unwrap();
    for (offset, len) in [(0, PAGE as u64 + 1), (PAGE as u64, 1), (u64::MAX, 1), (1, u64::MAX)] {
        let error = adopted.flush(offset, len).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::OutOfBounds { len: 4096 }), "{error}");
    }
    adopted.flush(PAGE as u64, 0).unwrap();
    let strict = Options::new().require(Durability::PowerFail);
    let error = adopt(&strict, &file, &second, PAGE as u64).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Durability { .. }), "{error}");
    let anonymous = MmapMut::map_anon(PAGE).unwrap();
    refused(&file, &anonymous, 0);
}

#[test]
fn memory_is_no_more_durable_for_being_adopted() {
    let directory = pmem_tests::scratch::Directory::new("/dev/shm");
    let path = directory.path().join("file");
    std::fs::write(&path, vec![1; PAGE]).unwrap();
    let file = open(&path);
    let map = map(&file);
    let adopted = adopt(&Options::new(), &file, &map, 0).unwrap();
    assert_eq!(adopted.durability(), Durability::ProcessOnly);
    assert!(!adopted.drain_blocks());
    // No system call that could be refused.
    with_failing(libc::SYS_msync, libc::EIO, || adopted.persist(0, PAGE as u64)).unwrap();
    assert!(std::ptr::eq(adopted.into_file(), &raw const file));
}

/// Where the kernel does not say how the file is mapped, the level is no more than `Unverified`.
#[test]
fn an_unknown_mapping_is_unverified() {
    let directory = pmem_tests::scratch::Directory::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.path().join("file");
    std::fs::write(&path, vec![1; PAGE]).unwrap();
    let file = open(&path);
    let map = map(&file);
    let level =
        |options: &Options| adopt(options, &file, &map, 0).map(|adopted| adopted.durability());
    let known = level(&Options::new()).unwrap();
    let hidden = std::thread::scope(|scope| {
        // SAFETY: the strings end in NUL, and the mounts are this thread's own.
        #[allow(unsafe_code)]
        let without_proc = scope.spawn(|| unsafe {
            assert_eq!(libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS), 0);
            let private = libc::MS_REC | libc::MS_PRIVATE;
            let root = c"/".as_ptr();
            assert_eq!(libc::mount(root, root, std::ptr::null(), private, std::ptr::null()), 0);
            assert_eq!(libc::umount2(c"/proc".as_ptr(), libc::MNT_DETACH), 0);
            let adopted = adopt(&Options::new(), &file, &map, 0).unwrap();
            let said = adopted.report().reasons.iter().any(|reason| reason.text.contains("smaps"));
            assert!(said, "{:?}", adopted.report().reasons);
            (level(&Options::new()), level(&Options::new().require(Durability::Fsync)))
        });
        without_proc.join().unwrap()
    });
    assert!(known >= Durability::Unverified);
    assert_eq!(hidden.0.unwrap(), Durability::Unverified);
    assert!(matches!(hidden.1.unwrap_err().kind(), ErrorKind::Durability { .. }));
}

/// The parent would believe the next sync: the child takes no report of the open file's errors.
#[test]
#[allow(unsafe_code)]
fn a_forked_child_drains_nothing() {
    let directory = pmem_tests::scratch::Directory::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.path().join("file");
    std::fs::write(&path, vec![1; PAGE]).unwrap();
    let file = open(&path);
    let map = map(&file);
    let adopted = adopt(&Options::new(), &file, &map, 0).unwrap();
    adopted.flush(0, 1).unwrap();
    // SAFETY: the child makes a comparison and ends at once.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = adopted.drain().is_err();
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = -1;
    // SAFETY: waits for the child just made.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0);
    adopted.drain().unwrap();
}

#[test]
fn an_observer_is_told_of_the_ranges_that_were_synced() {
    let directory = pmem_tests::scratch::Directory::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.path().join("file");
    std::fs::write(&path, vec![1; 4 * PAGE]).unwrap();
    let file = open(&path);
    let map = map(&file);
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let into = std::sync::Arc::clone(&told);
    let options = Options::new().observer(move |synced| into.lock().unwrap().push(*synced));
    let adopted = adopt(&options, &file, &map, 0).unwrap();
    adopted.drain().unwrap();
    adopted.flush(0, 10).unwrap();
    adopted.flush(2 * PAGE as u64, 5).unwrap();
    adopted.drain().unwrap();
    adopted.flush(1, 1).unwrap();
    with_failing(libc::SYS_msync, libc::EIO, || adopted.drain().unwrap_err());
    let told = told.lock().unwrap();
    let seen: Vec<_> =
        told.iter().map(|synced| (synced.bytes, synced.threads, synced.errno)).collect();
    assert_eq!(seen, [(15, 1, None), (1, 1, Some(libc::EIO))]);
}
