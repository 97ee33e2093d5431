//! What the kernel says after a sync that failed, and what the medium then holds: the behaviour
//! that makes a durability error final. Pinned down here, because the library stands on it.
//!
//! Needs root.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use daxmap::{Options, Region};
use pmem_tests::blockdev::{Fault, FaultyDisk, Filesystem, Mounted};
use rustix::io::Errno;

const OLD: [u8; 4096] = [1; 4096];
const NEW: [u8; 4096] = [2; 4096];

/// A file of two pages, old and on the medium.
fn with_file(filesystem: Filesystem, test: impl FnOnce(&FaultyDisk, &Path)) {
    let disk = FaultyDisk::new(filesystem.size()).unwrap();
    disk.fill(filesystem.template(0).unwrap());
    let mounted = Mounted::new(&disk, filesystem).unwrap();
    let path = mounted.path().join("file");
    let file = File::create(&path).unwrap();
    file.write_all_at(&[OLD, OLD].concat(), 0).unwrap();
    file.sync_all().unwrap();
    File::open(mounted.path()).unwrap().sync_all().unwrap();
    drop(file);
    test(&disk, &path);
    disk.cut_power();
    mounted.unmount().unwrap();
}

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn page(file: &File) -> [u8; 4096] {
    let mut page = [0; 4096];
    file.read_exact_at(&mut page, 0).unwrap();
    page
}

/// The page as a filesystem finds it that is mounted from the medium as it is now.
fn page_on_medium(disk: &FaultyDisk, filesystem: Filesystem) -> [u8; 4096] {
    let other = FaultyDisk::new(filesystem.size()).unwrap();
    other.fill(disk.contents());
    let mounted = Mounted::new(&other, filesystem).unwrap();
    let found = page(&open(&mounted.path().join("file")));
    mounted.unmount().unwrap();
    found
}

/// Waits until the filesystem has finished what the failed write was part of.
///
/// btrfs reports a failed write a second time while its ordered extent is still being finished
/// (`btrfs_sync_file` and `btrfs_wait_ordered_range`). A `syncfs` waits for ordered extents, and
/// takes no report from the handles of the file. It has one of its own, of the whole filesystem.
fn settle(filesystem: Filesystem, path: &Path) {
    if filesystem == Filesystem::Btrfs {
        let directory = File::open(path.parent().unwrap()).unwrap();
        let synced = rustix::fs::syncfs(&directory);
        assert!(matches!(synced, Ok(()) | Err(Errno::IO | Errno::NOSPC)), "{synced:?}");
    }
}

fn errno(result: std::io::Result<()>) -> Option<i32> {
    result.err().map(|error| error.raw_os_error().unwrap())
}

const EIO: Option<i32> = Some(libc::EIO);

/// btrfs refuses a second device of the same UUID while the first is mounted.
const IN_PLACE: [Filesystem; 2] = [Filesystem::Ext4, Filesystem::Xfs];

#[test]
fn after_one_error_a_sync_succeeds_and_the_medium_holds_the_old_bytes() {
    for filesystem in IN_PLACE {
        with_file(filesystem, |disk, path| {
            let file = open(path);
            file.write_all_at(&NEW, 0).unwrap();
            disk.plan(Fault::nth_write(1, Errno::IO));
            assert_eq!(errno(file.sync_data()), EIO, "{filesystem}");
            let writes = disk.counts().writes;
            assert_eq!(errno(file.sync_data()), None, "{filesystem}: the page is clean");
            assert_eq!(disk.counts().writes, writes, "{filesystem}: nothing was written again");
            assert_eq!(errno(file.sync_all()), None, "{filesystem}");
            assert_eq!(page(&file), NEW, "{filesystem}: the cache shows what was written");
            assert_eq!(page(&open(path)), NEW, "{filesystem}: to a new handle too");
            assert_eq!(page_on_medium(disk, filesystem), OLD, "{filesystem}");
        });
    }
}

#[test]
fn btrfs_too_reports_once_and_goes_on() {
    with_file(Filesystem::Btrfs, |disk, path| {
        let file = open(path);
        file.write_all_at(&NEW, 0).unwrap();
        disk.plan(Fault::nth_write(1, Errno::IO));
        assert_eq!(errno(file.sync_data()), EIO);
        settle(Filesystem::Btrfs, path);
        assert_eq!(errno(file.sync_data()), None);
    });
}

/// A second report, within the moment in which btrfs finishes the failed write: EIO, whatever the
/// device had said, and also to a handle that was opened after the first report.
#[test]
fn btrfs_may_report_once_more_and_then_goes_on() {
    let mut again = 0;
    for _ in 0..8 {
        with_file(Filesystem::Btrfs, |disk, path| {
            let file = open(path);
            file.write_all_at(&NEW, 0).unwrap();
            disk.plan(Fault::nth_write(1, Errno::NOSPC));
            assert_eq!(errno(file.sync_data()), Some(libc::ENOSPC));
            let later = open(path);
            match errno(later.sync_data()) {
                None => {}
                EIO => again += 1,
                other => panic!("{other:?}"),
            }
            for handle in [&later, &file] {
                assert_eq!(errno(handle.sync_data()), None);
            }
        });
    }
    println!("{again} of 8 failed writes reported again");
}

#[test]
fn a_failed_flush_is_reported_once_as_well() {
    for filesystem in Filesystem::ALL {
        with_file(filesystem, |disk, path| {
            let file = open(path);
            file.write_all_at(&NEW, 0).unwrap();
            disk.plan(Fault::nth_flush(1, Errno::IO));
            assert_eq!(errno(file.sync_data()), EIO, "{filesystem}");
            let again = errno(file.sync_data());
            // btrfs commits its tree with this flush, and stops when it cannot.
            let expected = if filesystem == Filesystem::Btrfs { Some(libc::EROFS) } else { None };
            assert_eq!(again, expected, "{filesystem}");
        });
    }
}

#[test]
fn each_handle_open_at_the_time_is_told_once_and_later_ones_never() {
    for filesystem in Filesystem::ALL {
        with_file(filesystem, |disk, path| {
            let writer = open(path);
            let idle = open(path);
            writer.write_all_at(&NEW, 0).unwrap();
            disk.plan(Fault::nth_write(1, Errno::IO));
            assert_eq!(errno(writer.sync_data()), EIO, "{filesystem}");
            settle(filesystem, path);
            let later = open(path);
            assert_eq!(errno(later.sync_data()), None, "{filesystem}: opened after the report");
            assert_eq!(errno(idle.sync_data()), EIO, "{filesystem}: it wrote nothing, yet is told");
            for handle in [&writer, &idle, &later] {
                assert_eq!(errno(handle.sync_data()), None, "{filesystem}");
            }
        });
    }
}

#[test]
fn an_error_that_nobody_was_told_of_waits_for_the_next_handle() {
    for filesystem in Filesystem::ALL {
        with_file(filesystem, |disk, path| {
            let writer = open(path);
            writer.write_all_at(&NEW, 0).unwrap();
            disk.plan(Fault::nth_write(1, Errno::IO));
            // Written back, as the kernel does by itself after a while, and nobody asks.
            let started = rustix::fs::fadvise(&writer, 0, None, rustix::fs::Advice::DontNeed);
            assert_eq!(started, Ok(()));
            drop(writer);
            wait_until_fired(disk);
            let later = open(path);
            assert_eq!(errno(later.sync_data()), EIO, "{filesystem}");
            settle(filesystem, path);
            assert_eq!(errno(later.sync_data()), None, "{filesystem}");
        });
    }
}

/// And until the kernel has taken notice of the answer.
fn wait_until_fired(disk: &FaultyDisk) {
    for _ in 0..2000 {
        if disk.fired() {
            std::thread::sleep(std::time::Duration::from_millis(20));
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("no write was made");
}

#[test]
fn enospc_of_a_thin_device_comes_at_the_sync() {
    for filesystem in Filesystem::ALL {
        with_file(filesystem, |disk, path| {
            let file = open(path);
            file.write_all_at(&NEW, 0).unwrap();
            disk.plan(Fault::nth_write(1, Errno::NOSPC));
            assert_eq!(errno(file.sync_data()), Some(libc::ENOSPC), "{filesystem}");
            settle(filesystem, path);
            assert_eq!(errno(file.sync_data()), None, "{filesystem}");
        });
    }
}

#[test]
fn the_region_stays_with_the_error_and_a_new_one_shows_the_medium() {
    for filesystem in Filesystem::ALL {
        with_file(filesystem, |disk, path| {
            let region = Options::new().open(path).unwrap();
            region.write_flush(0, &NEW).unwrap();
            disk.plan(Fault::nth_write(1, Errno::IO));
            let error = region.drain().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO), "{filesystem}");
            assert!(error.is_durability_unknown(), "{filesystem}");
            let range = error.range().expect("it says which bytes");
            assert!(range.start == 0 && range.end >= 4096, "{filesystem}: {range:?}");
            for _ in 0..2 {
                assert!(region.drain().unwrap_err().is_failed(), "{filesystem}");
                assert!(region.write(0, &NEW).unwrap_err().is_failed(), "{filesystem}");
                assert!(region.flush(0, 1).unwrap_err().is_failed(), "{filesystem}");
            }
            drop(region);
            let region = Options::new().open(path).unwrap();
            let mut found = [0; 4096];
            region.read(0, &mut found).unwrap();
            assert_eq!(found, OLD, "{filesystem}");
        });
    }
}

/// With a mapping of the file, which keeps its pages in the cache: what a new region shows is on the
/// medium all the same, since the holder of the lock has it written once more.
#[test]
fn pages_that_another_mapping_keeps_are_written_before_a_region_shows_them() {
    for filesystem in IN_PLACE {
        with_file(filesystem, |disk, path| {
            let file = File::open(path).unwrap();
            // SAFETY: nobody cuts the file while it is mapped.
            #[allow(unsafe_code)]
            let mapping = unsafe { memmap2::Mmap::map(&file) }.unwrap();
            assert_eq!(mapping[..4096], OLD);
            let region = Options::new().open(path).unwrap();
            region.write_flush(0, &NEW).unwrap();
            disk.plan(Fault::nth_write(1, Errno::IO));
            assert_eq!(region.drain().unwrap_err().raw_os_error(), Some(libc::EIO), "{filesystem}");
            drop(region);
            assert_eq!(page_on_medium(disk, filesystem), OLD, "{filesystem}");
            let region = Options::new().open(path).unwrap();
            let mut found = [0; 4096];
            region.read(0, &mut found).unwrap();
            assert_eq!(found, page_on_medium(disk, filesystem), "{filesystem}");
            assert!(region.shows_medium(), "{filesystem}");
            drop(region);
            // Where that cannot be written either, there is no region.
            let region = Options::new().open(path).unwrap();
            region.write_flush(0, &[3; 4096]).unwrap();
            disk.plan(Fault::nth_write(1, Errno::IO));
            assert!(region.drain().is_err(), "{filesystem}");
            drop(region);
            disk.plan(Fault::nth_write(1, Errno::IO));
            let error = Options::new().open(path).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO), "{filesystem}: {error}");
        });
    }
}

/// The mark of a clean close would have the next opening keep a page that the medium has not.
#[test]
fn a_close_whose_sync_fails_leaves_no_mark_and_the_next_opening_shows_the_medium() {
    let is_marked =
        |path: &Path| rustix::fs::getxattr(path, "user.daxmap.closed", &mut [0; 256]).is_ok();
    for filesystem in IN_PLACE {
        with_file(filesystem, |disk, path| {
            let region = Options::new().open(path).unwrap();
            region.close().unwrap();
            drop(region);
            assert!(is_marked(path), "{filesystem}: the control");
            let region = Options::new().open(path).unwrap();
            region.write(0, &NEW).unwrap();
            disk.plan(Fault::nth_write(1, Errno::IO));
            assert_eq!(region.close().unwrap_err().raw_os_error(), EIO, "{filesystem}");
            assert!(!is_marked(path), "{filesystem}");
            drop(region);
            let mut found = [0; 4096];
            Options::new().open(path).unwrap().read(0, &mut found).unwrap();
            assert_eq!(found, OLD, "{filesystem}");
        });
    }
}
