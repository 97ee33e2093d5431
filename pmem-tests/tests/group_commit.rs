//! A sync vouches for no write that came after it began: on a filesystem whose syncs take long.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use daxmap::{Options, Region};
use pmem_tests::failing::with_failing;
use pmem_tests::passthrough::{SYNC_DELAY_MS, SYNCS};
use pmem_tests::scratch::{Directory, Filesystem};

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_write_made_during_a_sync_gets_a_sync_of_its_own() {
    let filesystem = Filesystem::fuse(env!("CARGO_TARGET_TMPDIR"));
    let path = filesystem.path().join("region");
    let region = Options::new().len(1 << 20).create(&path).expect("a region can be made");
    SYNC_DELAY_MS.store(300, Ordering::SeqCst);
    let before = SYNCS.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        scope.spawn(|| region.write_persist(0, b"first").expect("the first thread's"));
        let began = Instant::now();
        while SYNCS.load(Ordering::SeqCst) == before {
            assert!(began.elapsed() < PATIENCE, "the first thread does not sync");
            std::thread::yield_now();
        }
        // Gathered: nothing of it reaches the file before the drain.
        region.write_flush(8192, b"second").expect("write");
        region.drain().expect("drain");
    });
    assert_eq!(SYNCS.load(Ordering::SeqCst) - before, 2, "syncs for two writes");
    SYNC_DELAY_MS.store(0, Ordering::SeqCst);
}

/// What the filesystem gives up on when write-back starts, no later sync may speak of.
#[test]
fn a_write_back_that_cannot_start_is_final() {
    let directory = Directory::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.path().join("region");
    let region = Options::new().len(1 << 20).create(&path).expect("a region can be made");
    let data = vec![7; 64 << 10];
    let began = Instant::now();
    let failed = std::thread::scope(|scope| {
        // Company, without which nothing starts before the sync.
        scope.spawn(|| while region.write_persist(0, &data).is_ok() {});
        with_failing(libc::SYS_sync_file_range, libc::EIO, || {
            loop {
                assert!(began.elapsed() < PATIENCE, "no write-back is started beside others");
                if let Err(error) = region.write_persist(512 << 10, &data) {
                    return error;
                }
            }
        })
    });
    assert!(failed.is_durability_unknown(), "{failed}");
    assert!(failed.to_string().contains("sync_file_range"), "{failed}");
    let again = region.write(0, &[1]).expect_err("final");
    assert!(again.is_poisoned() && again.errno().is_some(), "{again}");
}
