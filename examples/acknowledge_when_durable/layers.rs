//! What each way of writing sends to the device: bytes, and requests to flush its cache.

#![allow(unsafe_code)]

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use memmap2::MmapMut;

/// Bytes of one write, which are aligned as `O_DIRECT` wants it.
const PIECE: usize = 4096;
const PIECES: u64 = 10;
/// Timestamps move in steps of this at most: what sets one, sets a new one.
const TICK: Duration = Duration::from_millis(20);

struct Way {
    name: &'static str,
    flags: i32,
    then: Option<fn(&File) -> io::Result<()>>,
}

fn start_write_back(file: &File) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the call concerns an open descriptor, and no memory.
    let answer = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const WAYS: &[Way] = &[
    Way { name: "write", flags: 0, then: None },
    Way { name: "write, sync_file_range", flags: 0, then: Some(start_write_back) },
    Way { name: "write with O_DIRECT", flags: libc::O_DIRECT, then: None },
    Way { name: "write, fdatasync", flags: 0, then: Some(File::sync_data) },
    Way { name: "write, fsync", flags: 0, then: Some(File::sync_all) },
    Way { name: "write with O_DSYNC", flags: libc::O_DSYNC, then: None },
    Way { name: "write with O_SYNC", flags: libc::O_SYNC, then: None },
    Way { name: "write with O_DIRECT|O_DSYNC", flags: libc::O_DIRECT | libc::O_DSYNC, then: None },
    Way {
        name: "write with O_DIRECT, fdatasync",
        flags: libc::O_DIRECT,
        then: Some(File::sync_data),
    },
];

/// Bytes written and flushes of the device under a file (Documentation/block/stat.rst).
fn counters(file: &File) -> Result<(u64, u64), Box<dyn Error>> {
    let device = file.metadata()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"))
        .map_err(|error| format!("no block device under this directory: {error}"))?;
    let fields: Vec<u64> = stat.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let field =
        |index: usize| fields.get(index).copied().ok_or("the kernel does not count flushes");
    Ok((field(6)? * 512, field(15)?))
}

/// Overwrites pieces of an existing file, in each way, and prints what the device was asked for.
/// Others that write to the same device are counted too.
pub fn run(directory: &Path) -> Result<(), Box<dyn Error>> {
    let path = directory.join("layers");
    let result = measure(&path);
    let _ = fs::remove_file(&path);
    result
}

fn measure(path: &Path) -> Result<(), Box<dyn Error>> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    file.write_all_at(&vec![1; PIECE * PIECES as usize], 0)?;
    file.sync_all()?;
    // Page-aligned, as O_DIRECT may want it.
    let mut piece = MmapMut::map_anon(PIECE)?;
    piece.fill(2);
    println!("{PIECES} times                        bytes to the device    flushes of its cache");
    for way in WAYS {
        let handle = File::options().write(true).custom_flags(way.flags).open(path)?;
        file.sync_all()?;
        let before = counters(&file)?;
        for index in 0..PIECES {
            thread::sleep(TICK);
            handle.write_all_at(&piece, index * PIECE as u64)?;
            way.then.map_or(Ok(()), |then| then(&handle))?;
        }
        let after = counters(&file)?;
        println!("{:32} {:>21} {:>23}", way.name, after.0 - before.0, after.1 - before.1);
    }
    Ok(())
}
