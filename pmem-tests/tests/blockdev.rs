//! The faulty block device does what it says, under real filesystems.
//!
//! Needs root.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use daxmap::Region;
use pmem_tests::blockdev::{
    Disk, Entry, Fault, FaultyDisk, Filesystem, Image, Keep, MemoryDisk, Mounted, Outcome, Request,
};
use pmem_tests::scratch;
use rustix::io::Errno;

fn disk(filesystem: Filesystem) -> FaultyDisk {
    let disk = FaultyDisk::new(filesystem.size()).unwrap();
    disk.fill(filesystem.template(0).unwrap());
    disk
}

/// A file of 16 pages, synced.
fn file(mounted: &Mounted<'_>) -> File {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(mounted.path().join("file"))
        .unwrap();
    file.write_all_at(&vec![7; 16 * 4096], 0).unwrap();
    file.sync_all().unwrap();
    file
}

fn writes(entries: &[Entry]) -> Vec<usize> {
    let lengths = entries.iter().map(|entry| match &entry.request {
        Request::Write { data, .. } => data.len(),
        Request::Zero { .. } | Request::Flush => 0,
    });
    lengths.filter(|&len| len > 0).collect()
}

/// What is written in FACTS of a persist: one block and one flush where nothing else changes.
#[test]
fn an_overwrite_and_fdatasync_is_one_write_and_one_flush() {
    for filesystem in [Filesystem::Ext4, Filesystem::Xfs] {
        let disk = disk(filesystem);
        let mounted = Mounted::new(&disk, filesystem).unwrap();
        let file = file(&mounted);
        // The first one also has the times of the file to sync.
        for _ in 0..2 {
            file.write_all_at(&[8; 64], 4096).unwrap();
            file.sync_data().unwrap();
        }
        let from = disk.log_len();
        file.write_all_at(&[9; 64], 4096).unwrap();
        file.sync_data().unwrap();
        let log = disk.log();
        let entries = &log.entries[from..];
        assert_eq!(writes(entries), [4096], "{filesystem}: {entries:?}");
        assert!(entries[1].is_flush() && entries.len() == 2, "{filesystem}: {entries:?}");
        let Request::Write { data, .. } = &entries[0].request else { panic!("{entries:?}") };
        assert!(data[..64] == [9; 64] && data[64..] == [7; 4096 - 64], "{filesystem}");
        drop(file);
        mounted.unmount().unwrap();
    }
}

#[test]
fn btrfs_writes_its_tree_twice_and_flushes_twice() {
    let disk = disk(Filesystem::Btrfs);
    let mounted = Mounted::new(&disk, Filesystem::Btrfs).unwrap();
    let file = file(&mounted);
    let from = disk.log_len();
    file.write_all_at(&[9; 64], 4096).unwrap();
    file.sync_data().unwrap();
    let log = disk.log();
    let flushes = log.entries[from..].iter().filter(|entry| entry.is_flush()).count();
    assert_eq!(flushes, 2, "{:?}", &log.entries[from..]);
    drop(file);
    mounted.unmount().unwrap();
}

#[test]
fn the_log_gives_the_medium_at_every_position() {
    for filesystem in Filesystem::ALL {
        let disk = disk(filesystem);
        let mounted = Mounted::new(&disk, filesystem).unwrap();
        let file = file(&mounted);
        file.write_all_at(&[9; 100], 10).unwrap();
        file.sync_all().unwrap();
        let at = disk.log_len();
        let contents = disk.contents();
        drop(file);
        mounted.unmount().unwrap();
        let log = disk.log();
        assert_eq!(log.image_after(at), contents, "{filesystem}");
        assert_eq!(log.image_after(log.entries.len()), disk.contents(), "{filesystem}");
        assert!(log.flushes().count() > 2, "{filesystem}");
        // What was synced is there, however little of the rest is kept.
        for keep in [Keep::Nothing, Keep::Sectors(1), Keep::Whole] {
            disk.fill(log.crash_image(at, |_, _| keep));
            let mounted = Mounted::new(&disk, filesystem).unwrap();
            let found = std::fs::read(mounted.path().join("file")).unwrap();
            assert_eq!(found.len(), 16 * 4096, "{filesystem}, {keep:?}");
            assert_eq!(&found[9..111], &[&[7][..], &[9; 100], &[7]].concat()[..]);
            mounted.unmount().unwrap();
        }
    }
}

/// The medium of a [`MemoryDisk`] is what it was filled with, whatever a filesystem wrote before.
#[test]
fn a_memory_disk_takes_one_image_after_another() {
    for filesystem in Filesystem::ALL {
        let disk = MemoryDisk::new(filesystem.size()).unwrap();
        let mut with_file = filesystem.template(0).unwrap();
        for _ in 0..2 {
            disk.fill(&with_file).unwrap();
            let mounted = Mounted::new(&disk, filesystem).unwrap();
            assert!(!mounted.path().join("file").exists(), "{filesystem}");
            drop(file(&mounted));
            mounted.unmount().unwrap();
        }
        // Shorter than a piece of an image, and where the filesystem wrote.
        with_file.zero(0, filesystem.size());
        with_file.write(70_000, &[5; 100]);
        disk.fill(&with_file).unwrap();
        let found = std::fs::read(disk.device()).unwrap();
        assert_eq!(found.len() as u64, filesystem.size());
        let held = |at: &usize| (70_000..70_100).contains(at);
        assert!(found.iter().enumerate().all(|(at, &byte)| byte == 5 * u8::from(held(&at))));
    }
}

#[test]
fn what_is_synced_through_fuse_reaches_the_device() {
    // First, so that the device is in no other namespace than the FUSE mount is.
    let _own_namespace = scratch::Filesystem::tmpfs("/dev/shm", 1 << 20);
    let disk = disk(Filesystem::Ext4);
    let mounted = Mounted::new(&disk, Filesystem::Ext4).unwrap();
    let fuse = scratch::Filesystem::fuse(mounted.path());
    let path = fuse.path().join("region");
    let region = daxmap::Options::new().len(4096).create(&path).unwrap();
    region.write_persist(100, b"acknowledged").unwrap();
    let draft = daxmap::Options::new().len(20).draft(fuse.path().join("name")).unwrap();
    draft.write(0, b"published").unwrap();
    drop(draft.commit(daxmap::publish::Commit::Replace).unwrap());
    disk.cut_power();
    let log = disk.log();
    drop((region, fuse));
    mounted.unmount().unwrap();
    disk.fill(log.crash_image(log.entries.len(), |_, _| Keep::Nothing));
    let mounted = Mounted::new(&disk, Filesystem::Ext4).unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(mounted.path()).unwrap() {
        let behind = entry.unwrap().path().join("behind");
        found.extend(["region", "name"].map(|name| std::fs::read(behind.join(name)).ok()));
    }
    let [region, name] = &found.into_iter().flatten().collect::<Vec<_>>()[..] else {
        panic!("both files are there");
    };
    assert_eq!((&region[100..112], &name[..9]), (&b"acknowledged"[..], &b"published"[..]));
    mounted.unmount().unwrap();
}

#[test]
fn faults_come_out_of_the_device_as_planned() {
    let disk = FaultyDisk::new(1 << 20).unwrap();
    let direct = || {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_DIRECT);
        options.open(disk.device()).unwrap()
    };
    // O_DIRECT wants aligned memory: a page of a larger buffer.
    let memory = [5_u8; 3 * 4096];
    let page = &memory[memory.as_ptr().align_offset(4096)..][..4096];
    let device = direct();
    let errno = |result: std::io::Result<()>| result.err().and_then(|e| e.raw_os_error());

    disk.plan(Fault::nth_write(2, Errno::NOSPC));
    assert_eq!(errno(device.write_all_at(page, 0)), None);
    assert_eq!(errno(device.write_all_at(page, 4096)), Some(libc::ENOSPC));
    assert_eq!(errno(device.write_all_at(page, 8192)), None);
    assert_eq!(errno(device.sync_all()), None);
    assert!(disk.fired());

    disk.plan(Fault::nth_flush(1, Errno::IO));
    assert_eq!(errno(device.write_all_at(page, 0)), None);
    assert_eq!(errno(device.sync_all()), Some(libc::EIO));
    assert_eq!(errno(device.sync_all()), None);

    disk.plan(Fault::tear(1, 3));
    assert_eq!(errno(device.write_all_at(page, 4096)), Some(libc::EIO));
    assert_eq!(errno(device.write_all_at(page, 0)), Some(libc::EIO));
    assert_eq!(errno(device.sync_all()), Some(libc::EIO));
    disk.restore_power();
    let mut found = [0; 4096];
    disk.contents().read(4096, &mut found);
    assert!(found[..1536] == page[..1536] && found[1536..] == [0; 2560]);
    let outcomes: Vec<_> = disk.log().entries.iter().map(|entry| entry.outcome).collect();
    assert_eq!(
        outcomes,
        [
            Outcome::Done,
            Outcome::Failed(Errno::NOSPC),
            Outcome::Done,
            Outcome::Done,
            Outcome::Done,
            Outcome::Failed(Errno::IO),
            Outcome::Done,
            Outcome::Torn(3),
        ]
    );
}

#[test]
fn a_filled_device_shows_nothing_of_before() {
    let disk = disk(Filesystem::Ext4);
    for _ in 0..2 {
        let mounted = Mounted::new(&disk, Filesystem::Ext4).unwrap();
        assert!(!mounted.path().join("file").exists());
        drop(file(&mounted));
        mounted.unmount().unwrap();
        disk.fill(Filesystem::Ext4.template(0).unwrap());
    }
    disk.fill(Image::new(disk.size()));
    assert!(Mounted::new(&disk, Filesystem::Ext4).is_err());
}

/// Given by the test below to this program when it runs as the victim.
const VICTIM: &str = "DAXMAP_BLOCKDEV_VICTIM";

#[test]
fn a_process_killed_in_the_middle_of_a_sync_leaves_nothing() {
    if let Ok(path) = std::env::var(VICTIM) {
        be_killed(Path::new(&path));
    }
    let folder = tempfile::tempdir().unwrap();
    let said = folder.path().join("device");
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_killed_in_the_middle_of_a_sync_leaves_nothing"])
        .env(VICTIM, &said)
        .env("TMPDIR", folder.path())
        .spawn()
        .unwrap();
    let device = wait(|| std::fs::read_to_string(&said).ok().filter(|name| !name.is_empty()));
    // In its syncs, which it makes all the time.
    std::thread::sleep(Duration::from_millis(200));
    victim.kill().unwrap();
    // A process that waits for its own device for ever could not be waited for.
    wait(|| victim.try_wait().unwrap());
    let loop_folder = Path::new("/sys/block").join(device.trim_start_matches("/dev/"));
    let backing = loop_folder.join("loop/backing_file");
    // Detached, or somebody else's already.
    wait(|| match std::fs::read_to_string(&backing) {
        Ok(file) if file.contains("medium") => None,
        _ => Some(()),
    });
    wait(|| {
        let left = std::fs::read_dir(folder.path()).unwrap().filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("daxmap-blockdev")
        });
        (left.count() == 0).then_some(())
    });
}

fn wait<T>(mut what: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "waited for half a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn be_killed(say: &Path) -> ! {
    let disk = disk(Filesystem::Ext4);
    let mounted = Mounted::new(&disk, Filesystem::Ext4).unwrap();
    let file = file(&mounted);
    std::fs::write(say, disk.device().to_str().unwrap()).unwrap();
    loop {
        if disk.log_len() > 10_000 {
            // Nobody else has the log in hand; it must not fill up.
            disk.cut_power();
        }
        file.write_all_at(&[1; 4096], 0).unwrap();
        let _ = file.sync_data();
    }
}
