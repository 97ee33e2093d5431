//! Errors that say data is lost, each provoked on a device that fails.

#![allow(unsafe_code)]

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use daxmap::{ErrorKind, Options, Region};
use memmap2::MmapMut;
use rustix::fs::{Advice, fadvise, fdatasync, fsync, syncfs};
use rustix::io::Errno;

use super::device::Device;
use super::{Report, Seen, said};

/// Bytes of a file under test.
const LEN: usize = 64 << 10;
/// Write-back that is under way is over after this.
const WRITE_BACK: Duration = Duration::from_millis(200);

struct Case {
    what: &'static str,
    expected: &'static str,
    meaning: &'static str,
    run: fn(&Device) -> Seen,
}

const CASES: &[Case] = &[
    Case {
        what: "fdatasync twice, the device failing",
        expected: "EIO, ok; cache new, medium old",
        meaning: "EIO once and then silence: the pages count as clean, and the data is nowhere \
                  but in the cache",
        run: twice,
    },
    Case {
        what: "fdatasync again after the device is well again",
        expected: "EIO, ok, medium old; written again: ok, medium new",
        meaning: "a retry of the sync alone writes nothing: only who still has the data can help",
        run: retried,
    },
    Case {
        what: "two handles open when the device failed",
        expected: "one: EIO, ok; other: EIO, ok",
        meaning: "each open file description is told once",
        run: two_handles,
    },
    Case {
        what: "a handle opened after another one was told",
        expected: "one: EIO; later: ok",
        meaning: "it is never told: opening again hides the loss",
        run: later_handle,
    },
    Case {
        what: "a handle opened after a failure that nobody was told of",
        expected: "later: EIO; one: EIO",
        meaning: "since Linux 4.17 (lib/errseq.c) an error that nobody was told of waits for it, \
                  as long as the inode stays in memory",
        run: unseen,
    },
    Case {
        what: "a duplicate of the descriptor",
        expected: "one: EIO; duplicate: ok",
        meaning: "dup and fork share the open file description, and with it the one report",
        run: duplicate,
    },
    Case {
        what: "close after write-back failed",
        expected: "close ok",
        meaning: "close does not sync and does not tell",
        run: closed,
    },
    Case {
        what: "msync of a shared mapping",
        expected: "msync EIO, msync ok; fdatasync of its descriptor ok",
        meaning: "as fdatasync, and out of the same one report",
        run: mapped,
    },
    Case {
        what: "syncfs",
        expected: "syncfs EIO, syncfs ok; fdatasync of the file EIO",
        meaning: "since Linux 5.8 it tells that something was lost on this filesystem, not what; \
                  the file's own handles are still told",
        run: whole_filesystem,
    },
    Case {
        what: "write through a handle with O_DSYNC",
        expected: "write EIO; cache new, medium old",
        meaning: "the write tells of its own sync; that it failed does not mean that the cache was \
                  left alone",
        run: with_o_dsync,
    },
    Case {
        what: "a daxmap region",
        expected: "persist EIO, drain poisoned, write poisoned",
        meaning: "the first error is final, so no later success can cover it up",
        run: region,
    },
    Case {
        what: "fdatasync of a new file, no space under the device",
        expected: "write ok, fdatasync ENOSPC, fdatasync ok",
        meaning: "thin provisioning, NFS, FUSE: space that the filesystem believed to have; the \
                  data is lost as with EIO",
        run: no_space,
    },
    Case {
        what: "fsync on a filesystem mounted read-only",
        expected: "ok",
        meaning: "nothing was dirty: a read-only mount alone is no error",
        run: mounted_read_only,
    },
    // The last one: the filesystem does not come back from it.
    Case {
        what: "fdatasync after the filesystem has found itself damaged",
        expected: "write EROFS, fdatasync EROFS; cache new",
        meaning: "errors=remount-ro: what was written before and not synced is lost",
        run: damaged,
    },
];

/// All of them, one after the other on one device.
pub fn all(report: &mut Report) {
    let device = Device::new().map_err(|error| error.to_string());
    for (index, case) in CASES.iter().enumerate() {
        let seen = match &device {
            Ok(device) => (case.run)(device),
            Err(reason) => Err(reason.clone().into()),
        };
        report.case(&format!("{}. {}", index + 1, case.what), case.expected, case.meaning, seen);
    }
}

/// A file that holds `old`, and the device too; the handle then has `new` in the cache.
fn overwritten(device: &Device) -> Result<File, Box<dyn Error>> {
    let path = tempfile::Builder::new().tempfile_in(device.path())?.into_temp_path().keep()?;
    let file = File::options().read(true).write(true).open(path)?;
    file.write_all_at(&b"old!".repeat(LEN / 4), 0)?;
    file.sync_all()?;
    File::open(device.path())?.sync_all()?;
    write_new(&file)?;
    Ok(file)
}

fn write_new(file: &File) -> std::io::Result<()> {
    file.write_all_at(&b"new!".repeat(LEN / 4), 0)
}

/// Another open file description of the same file.
fn another(file: &File) -> std::io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::options().read(true).write(true).open(path)
}

fn content(file: &File) -> Result<&'static str, Box<dyn Error>> {
    let mut bytes = vec![0; LEN];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(if bytes.starts_with(b"new!") && bytes.ends_with(b"new!") {
        "new"
    } else if bytes.starts_with(b"old!") && bytes.ends_with(b"old!") {
        "old"
    } else {
        "a mixture"
    })
}

/// What the device holds: clean pages are dropped from the cache, and read again.
fn medium(file: &File) -> Result<&'static str, Box<dyn Error>> {
    fadvise(file, 0, None, Advice::DontNeed)?;
    content(file)
}

/// Lets the kernel write the file back by itself, and tells nobody.
fn write_back(file: &File) {
    // SAFETY: sync_file_range concerns a descriptor that is open, and no memory.
    unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    std::thread::sleep(WRITE_BACK);
}

fn twice(device: &Device) -> Seen {
    let file = overwritten(device)?;
    let seen = device.failing(|| {
        let (first, second) = (said(fdatasync(&file)), said(fdatasync(&file)));
        content(&file).map(|cache| format!("{first}, {second}; cache {cache}"))
    })??;
    Ok(format!("{seen}, medium {}", medium(&file)?))
}

fn retried(device: &Device) -> Seen {
    let file = overwritten(device)?;
    let first = device.failing(|| said(fdatasync(&file)))?;
    let again = said(fdatasync(&file));
    let held = medium(&file)?;
    write_new(&file)?;
    let written = said(fdatasync(&file));
    Ok(format!(
        "{first}, {again}, medium {held}; written again: {written}, medium {}",
        medium(&file)?
    ))
}

fn two_handles(device: &Device) -> Seen {
    let one = overwritten(device)?;
    let other = another(&one)?;
    device.failing(|| {
        let [a, b, c, d] = [&one, &one, &other, &other].map(|handle| said(fdatasync(handle)));
        format!("one: {a}, {b}; other: {c}, {d}")
    })
}

fn later_handle(device: &Device) -> Seen {
    let one = overwritten(device)?;
    device.failing(|| {
        let first = said(fdatasync(&one));
        Ok(format!("one: {first}; later: {}", said(fdatasync(another(&one)?))))
    })?
}

fn unseen(device: &Device) -> Seen {
    let one = overwritten(device)?;
    device.failing(|| {
        write_back(&one);
        let later = said(fdatasync(another(&one)?));
        Ok(format!("later: {later}; one: {}", said(fdatasync(&one))))
    })?
}

fn duplicate(device: &Device) -> Seen {
    let one = overwritten(device)?;
    let duplicate = one.try_clone()?;
    device.failing(|| {
        let first = said(fdatasync(&one));
        format!("one: {first}; duplicate: {}", said(fdatasync(&duplicate)))
    })
}

fn closed(device: &Device) -> Seen {
    let file = overwritten(device)?;
    device.failing(|| {
        write_back(&file);
        // SAFETY: the descriptor is this function's alone, and is not used afterwards.
        let answer = unsafe { libc::close(file.into_raw_fd()) };
        format!("close {}", if answer == 0 { "ok" } else { "failed" })
    })
}

fn mapped(device: &Device) -> Seen {
    let file = overwritten(device)?;
    fdatasync(&file)?;
    // SAFETY: nobody else has the file, and it is not shortened while it is mapped.
    let mut mapping = unsafe { MmapMut::map_mut(&file)? };
    mapping.fill(b'm');
    device.failing(|| {
        let sync = || {
            let answer = mapping.flush();
            said(answer.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL)))
        };
        let (first, second) = (sync(), sync());
        format!(
            "msync {first}, msync {second}; fdatasync of its descriptor {}",
            said(fdatasync(&file))
        )
    })
}

fn whole_filesystem(device: &Device) -> Seen {
    let file = overwritten(device)?;
    let directory = File::open(device.path())?;
    device.failing(|| {
        let (first, second) = (said(syncfs(&directory)), said(syncfs(&directory)));
        format!("syncfs {first}, syncfs {second}; fdatasync of the file {}", said(fdatasync(&file)))
    })
}

fn with_o_dsync(device: &Device) -> Seen {
    let file = overwritten(device)?;
    fdatasync(&file)?;
    // Old again, and clean.
    file.write_all_at(&b"old!".repeat(LEN / 4), 0)?;
    fdatasync(&file)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let direct = File::options().write(true).custom_flags(libc::O_DSYNC).open(path)?;
    let seen = device.failing(|| {
        let answer =
            write_new(&direct).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::INVAL));
        content(&file).map(|cache| format!("write {}; cache {cache}", said(answer)))
    })??;
    Ok(format!("{seen}, medium {}", medium(&file)?))
}

fn region(device: &Device) -> Seen {
    let region = Options::new().len(LEN as u64).create(device.path().join("region"))?;
    let told = |result: daxmap::Result<()>| match result {
        Ok(()) => "ok".to_owned(),
        Err(error) if matches!(error.kind(), ErrorKind::Failed(_)) => "poisoned".to_owned(),
        Err(error) => {
            said(Err(error.raw_os_error().map_or(Errno::INVAL, Errno::from_raw_os_error)))
        }
    };
    device.failing(|| {
        let persist = told(region.write_persist(0, b"never there"));
        let (drain, write) = (told(region.drain()), told(region.write(0, b"again")));
        format!("persist {persist}, drain {drain}, write {write}")
    })
}

fn no_space(device: &Device) -> Seen {
    let mut file =
        File::options().read(true).write(true).create_new(true).open(device.path().join("new"))?;
    // Name and inode, so that only the data is missing.
    file.sync_all()?;
    File::open(device.path())?.sync_all()?;
    device.full(|| {
        let write = file.write_all(&vec![b'n'; 1 << 20]);
        let write = said(write.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::INVAL)));
        let (first, second) = (said(fdatasync(&file)), said(fdatasync(&file)));
        format!("write {write}, fdatasync {first}, fdatasync {second}")
    })
}

fn mounted_read_only(device: &Device) -> Seen {
    device.remount("ro")?;
    let answer = File::open(device.path()).map(|file| said(fsync(file)));
    device.remount("rw")?;
    Ok(answer?)
}

fn damaged(device: &Device) -> Seen {
    let file = overwritten(device)?;
    let name = device.node().file_name().ok_or("no device name")?.to_string_lossy().into_owned();
    // What a checksum or a block that is wrong does.
    std::fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "tried out")?;
    let write = file.write_all_at(b"more", 0);
    let write = said(write.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::INVAL)));
    let sync = said(fdatasync(&file));
    Ok(format!("write {write}, fdatasync {sync}; cache {}", content(&file)?))
}
