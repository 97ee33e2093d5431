//! A sync vouches for no write that came after it began: on a filesystem whose syncs take long.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daxmap::{Options, Region, Synced};
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
    assert!(again.is_failed() && again.raw_os_error().is_some(), "{again}");
}

/// What an observer is told, in the order in which it was told it.
fn observed() -> (Options, Arc<Mutex<Vec<Synced>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&told);
    let options =
        Options::new().len(1 << 20).observer(move |synced| into.lock().unwrap().push(*synced));
    (options, told)
}

#[test]
fn an_observer_is_told_of_each_sync_and_of_nothing_else() {
    let directory = Directory::new(env!("CARGO_TARGET_TMPDIR"));
    let (options, told) = observed();
    let region = options.create(directory.path().join("region")).expect("a region can be made");
    let take = || std::mem::take(&mut *told.lock().unwrap());
    region.grow(2 << 20).expect("growth");
    assert_eq!(take(), [], "what makes a region ready is no drain");
    // Gathered into one run, and sent at once.
    region.write(100, b"1234").expect("write");
    region.write(104, b"5678").expect("write");
    region.write(64 << 10, &vec![7; 100_000]).expect("write");
    region.drain().expect("drain");
    let first = take();
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].bytes, first[0].threads, first[0].errno), (100_008, 1, None));
    assert!(first[0].took > Duration::ZERO);
    region.drain().expect("drain");
    assert_eq!(take(), [], "there was nothing to sync");
    region.write(0, b"lost").expect("write");
    with_failing(libc::SYS_fdatasync, libc::EIO, || region.drain().expect_err("it fails"));
    let failed = take();
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0].bytes, failed[0].errno), (4, Some(libc::EIO)));
    region.drain().expect_err("final");
    assert_eq!(take(), []);
    // A fence is no sync.
    let (options, told) = observed();
    let memory = options.in_memory().expect("memory");
    memory.write_persist(0, b"text").expect("persist");
    assert_eq!(*told.lock().unwrap(), []);
}

/// The threads that the syncs served are all of those that waited, and a sync that is told may be
/// followed by another from there.
#[test]
fn an_observer_counts_the_threads_that_waited() {
    const THREADS: u64 = 8;
    const ROUNDS: u64 = 25;
    let directory = Directory::new(env!("CARGO_TARGET_TMPDIR"));
    let (options, told) = observed();
    let region = options.create(directory.path().join("region")).expect("a region can be made");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let region = &region;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let at = thread * (64 << 10) + round * 8;
                    region.write_persist(at, &round.to_le_bytes()).expect("persist");
                }
            });
        }
    });
    let told = told.lock().unwrap();
    let served: u64 = told.iter().map(|synced| synced.threads).sum();
    let bytes: u64 = told.iter().map(|synced| synced.bytes).sum();
    assert!(told.iter().all(|synced| (1..=THREADS).contains(&synced.threads)), "{told:?}");
    // Whoever arrives as a sync begins may be counted with it and be served by the next as well.
    let waited = THREADS * ROUNDS;
    assert!(served >= waited / 2 && served <= 2 * waited, "{served} of {waited}");
    assert_eq!(bytes, waited * 8);
}

#[test]
fn an_observer_that_panics_panics_its_own_thread_alone() {
    let directory = Directory::new(env!("CARGO_TARGET_TMPDIR"));
    let options = Options::new().len(8192).observer(|_| panic!("told"));
    let region = options.create(directory.path().join("region")).expect("a region can be made");
    region.write(0, b"text").expect("write");
    let drained = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| region.drain()));
    assert!(drained.is_err());
    // The sync was made, and nobody hangs on it.
    region.drain().expect("nothing is left to sync");
    region.read(0, &mut [0; 4]).expect("read");
    std::mem::forget(region);
}
