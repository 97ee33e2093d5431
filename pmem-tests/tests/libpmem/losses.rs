//! An error of msync stays one. The kernel says it once and calls the pages clean: who asks again,
//! as programs do that retry, is told that all is well.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;

use pmem_tests::blockdev::{Fault, FaultyDisk, Filesystem, Mounted};
use rustix::io::Errno;

use crate::library::{on, ours, program};

/// What the program says on a device that fails the first write after the store.
fn losses(folder: Option<&Path>) -> String {
    let disk = FaultyDisk::new(Filesystem::Ext4.size()).unwrap();
    disk.fill(Filesystem::Ext4.template(0).unwrap());
    let mounted = Mounted::new(&disk, Filesystem::Ext4).unwrap();
    let path = mounted.path().join("file");
    let file = File::create(&path).unwrap();
    file.write_all_at(&[1; 8192], 0).unwrap();
    file.sync_all().unwrap();
    File::open(mounted.path()).unwrap().sync_all().unwrap();
    let mut command = on(folder, program("losses", &["-lpmem"]));
    let command = command.arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "mapped\n");
    disk.plan(Fault::nth_write(1, Errno::IO));
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    assert!(disk.fired(), "no write failed: {rest}");
    drop(file);
    disk.cut_power();
    mounted.unmount().unwrap();
    rest
}

#[test]
fn an_error_of_msync_stays_until_the_mapping_is_unmapped() {
    let said = losses(Some(ours()));
    let expected = "first -1 EIO\nagain -1 EIO\nelsewhere -1 EIO\ndeep -1 EIO\nunmap 0\n\
                    mapped again 0 0\n";
    assert_eq!(said, expected);
    // What it is kept for: Debian's library takes the second answer of the kernel.
    assert!(losses(None).starts_with("first -1 EIO\nagain 0 0\n"));
}
