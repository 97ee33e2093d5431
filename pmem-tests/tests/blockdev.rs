//! The faulty block device does what it says, on real filesystems.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use pmem_tests::blockdev::{Fault, FaultyDisk, Filesystem, Keep, Mounted, Outcome, Request};
use rustix::io::Errno;

fn disk(filesystem: Filesystem, number: u32) -> FaultyDisk {
    let disk = FaultyDisk::new(filesystem.size()).unwrap();
    disk.fill(filesystem.template(number).unwrap());
    disk
}

#[test]
fn every_filesystem_mounts_and_shows_its_requests() {
    for filesystem in Filesystem::ALL {
        let disk = disk(filesystem, 100);
        for round in 0..5 {
            let t = std::time::Instant::now();
            let mounted = Mounted::new(&disk, filesystem).unwrap();
            println!("{filesystem} {round} mount {:?}", t.elapsed());
            let mut file = File::create(mounted.path().join("file")).unwrap();
            file.write_all(&[7; 4096 * 16]).unwrap();
            file.sync_all().unwrap();
            disk.plan_nothing();
            let from = disk.log_len();
            for i in 0..2u8 {
                file.write_all_at(&[i; 64], 4096).unwrap();
                let t = std::time::Instant::now();
                file.sync_data().unwrap();
                println!("{filesystem} {round} fdatasync {:?}", t.elapsed());
            }
            println!("{filesystem}: {:?} {:?}", disk.counts(), &disk.log().entries[from..]);
            drop(file);
            let t = std::time::Instant::now();
            mounted.unmount().unwrap();
            println!("{filesystem} {round} unmount {:?} {:?}", t.elapsed(), disk.counts());
        }
    }
}
