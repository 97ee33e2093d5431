//! Two regions of one file in one process: made at once, and grown one after the other.

use std::sync::Barrier;

use daxmap::{ErrorKind, Options, Region};
use pmem_tests::scratch::{Directory, Filesystem};

use crate::{HERE, MIB};

/// Each of two finds no file, and one of them is slower to make it.
#[test]
fn of_two_that_create_the_file_the_later_finds_it() {
    let disk = Directory::new(HERE);
    for round in 0..200 {
        let path = disk.path().join(format!("region-{round}"));
        let both = Barrier::new(2);
        let attempt = || {
            both.wait();
            Options::new().len(8192).open_or_create(&path).err()
        };
        let errors = std::thread::scope(|scope| {
            let other = scope.spawn(attempt);
            [attempt(), other.join().expect("no panic")]
        });
        for error in errors.iter().flatten() {
            // The other one may still have it.
            assert!(matches!(error.kind(), ErrorKind::Locked), "{error}");
        }
    }
}

/// What lies behind the end of a region is not new where another region of the file has it.
#[test]
fn a_region_that_grows_leaves_what_others_wrote() {
    let memory = Filesystem::tmpfs(HERE, 64 * MIB);
    let disk = Directory::new(HERE);
    let options = Options::new().max_len(4 * MIB).lock(false);
    for directory in [memory.path(), disk.path()] {
        for opened_long in [false, true] {
            let path = directory.join(format!("region-{opened_long}"));
            let first = options.clone().len(65_536).create(&path).expect("a region");
            let short = options.clone().len(65_536).open(&path).expect("a region");
            first.grow(MIB).expect("it can grow");
            let long = if opened_long {
                drop(first);
                options.open(&path).expect("a region")
            } else {
                first
            };
            assert_eq!((long.len(), short.len()), (MIB, 65_536));
            long.write_persist(500_000, b"kept").expect("write");
            short.grow(2 * MIB).expect("it can grow");
            let mut found = [0; 4];
            for region in [&long, &short] {
                region.read(500_000, &mut found).expect("read");
                assert_eq!(&found, b"kept", "opened long: {opened_long}");
            }
            short.read(MIB + 500_000, &mut found).expect("read");
            assert_eq!(found, [0; 4]);
        }
    }
}
