//! A guest whose write-backs and fences are recorded, and the images that a power cut could leave
//! of its persistent memory. `pmem-tests/recorder` says what is recorded.
//!
//! The guest can be stopped before any write-back, non-temporal store or fence. While it stands,
//! images are made of it: each 64-byte line as it is durable, as it arrived, or as it is in the
//! caches. An image is mounted like a disk that survived a crash.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use store_recorder::{Control, LINE_BYTES, Word};

use crate::guest::{Guest, GuestError, Output, PATIENCE, Persistence, Running, program, recorder};
use crate::scratch::Filesystem;

/// After that time `ci/vm` ends a guest whose test is gone. A test has limits of its own for
/// everything it waits for; how long it looks at a guest that stands depends on the number of images.
const ORPHANED: Duration = Duration::from_secs(3600);
const POLL: Duration = Duration::from_micros(300);
/// Size of the NVDIMM: what mkfs.xfs wants, and a multiple of what a namespace is aligned to.
const NVDIMM: &str = "384M";
/// Bytes compared at a time.
const CHUNK: usize = 64 << 10;
/// Bytes of a block of the filesystems.
const BLOCK: usize = 4096;
/// Where `ci/vm` says that the NVDIMM is.
const BASE: u64 = 0x1_0000_0000;

/// A filesystem on an NVDIMM, made in a guest.
#[derive(Debug)]
pub struct Prepared {
    kind: &'static str,
    /// Where the image `nvdimm0` is.
    directory: PathBuf,
    /// Where in it the filesystem begins, in bytes.
    offset: u64,
}

fn guest(directory: &Path) -> Guest {
    Guest::new().persistence(Persistence::MemoryController).nvdimm(NVDIMM).keep_files(directory)
}

impl Prepared {
    /// Makes a filesystem, ext4 or xfs, in `directory/base`. The pages' descriptions are in RAM:
    /// in the NVDIMM, nobody would write them back.
    pub fn new(kind: &'static str, directory: &Path) -> Result<Self, GuestError> {
        let directory = directory.join("base");
        let script = format!(
            "ndctl create-namespace -f -e namespace0.0 -m fsdax -M mem >/dev/null
             mkfs-dax {kind} /dev/pmem0 /mnt/dax
             umount /mnt/dax
             cat /sys/bus/nd/devices/region0/resource /sys/class/block/pmem0/device/resource"
        );
        let output = guest(&directory).run_script(&script)?;
        let address = |line: &str| u64::from_str_radix(line.trim_start_matches("0x"), 16).ok();
        let numbers: Vec<u64> = output.stdout.lines().filter_map(address).collect();
        match numbers[..] {
            [BASE, data] if output.status == 0 && data > BASE => {
                Ok(Self { kind, directory, offset: data - BASE })
            }
            _ => Err(GuestError::NoGuest {
                reason: "no filesystem was made, or not where it was expected".to_owned(),
                stdout: output.stdout,
            }),
        }
    }

    /// Boots a guest on a copy in `directory`, which is made, mounts the filesystem at /mnt/dax,
    /// and starts the guest program with these words. It prints a line, acknowledges its first
    /// step, and is stopped there. The line need not be out then: it goes through a process of the
    /// guest, which stands too. [`Recording::end`] returns it.
    ///
    /// # Errors
    ///
    /// There was no guest, or it did not get there.
    pub fn start(&self, directory: &Path, words: &str) -> Result<Recording, GuestError> {
        std::fs::create_dir_all(directory)?;
        let copy = std::process::Command::new("cp")
            .arg("--sparse=always")
            .args([self.directory.join("nvdimm0"), directory.join("nvdimm0")])
            .status()?;
        if !copy.success() {
            return Err(io::Error::other("cp failed").into());
        }
        let script = format!(
            "mkdir -p /mnt/dax
             mount -t {} -o dax=always /dev/pmem0 /mnt/dax
             exec ./guest {words}",
            self.kind
        );
        let control = Control::open(&directory.join("control"))?;
        control.set(Word::StopAfterStep, 1);
        let running = guest(directory)
            .file(program()?)
            .record(recorder()?)
            .timeout(ORPHANED)
            .spawn(&["sh", "-ec", &script])?;
        let mut recording = Recording {
            kind: self.kind,
            offset: self.offset,
            directory: directory.to_owned(),
            control,
            running,
        };
        recording.wait_for_stop(1, "the first step to be acknowledged")?;
        Ok(recording)
    }
}

/// What an image takes of a line that differs between the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// What a fence made durable.
    Durable,
    /// What was written back, whether or not a fence waited for it.
    Arrived,
    /// What is in the caches.
    Live,
}

/// How much the recorder saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Cache lines written back.
    pub write_backs: u64,
    /// Lines that non-temporal stores began to fill.
    pub non_temporal: u64,
    /// Fences that had something to wait for.
    pub fences: u64,
    /// Write-backs of addresses that no page table knows.
    pub unresolved: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { write_backs, non_temporal, fences, unresolved } = self;
        write!(
            f,
            "{write_backs} lines written back, {non_temporal} filled by non-temporal stores, {fences} \
             fences, {unresolved} write-backs of unknown addresses"
        )
    }
}

/// A recorded guest. Dropping it kills it.
#[derive(Debug)]
pub struct Recording {
    kind: &'static str,
    offset: u64,
    directory: PathBuf,
    control: Control,
    running: Running,
}

impl Recording {
    /// The last step that the program acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.control.get(Word::Acknowledged)
    }

    /// What was recorded so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            write_backs: self.control.get(Word::WriteBacks),
            non_temporal: self.control.get(Word::NonTemporal),
            fences: self.control.get(Word::Fences),
            unresolved: self.control.get(Word::Unresolved),
        }
    }

    /// Lets the guest run on, and stops it before the `events`th event from now, at least the
    /// second: it stands before the first.
    ///
    /// # Errors
    ///
    /// The guest ended, or did not get there.
    pub fn stop_after(&mut self, events: u64) -> Result<(), GuestError> {
        let stop_at = self.control.get(Word::Events) + events.max(2);
        self.control.set(Word::StopAt, stop_at);
        self.wait_for_stop(stop_at, &format!("event {stop_at}"))
    }

    fn wait_for_stop(&mut self, event: u64, awaited: &str) -> Result<(), GuestError> {
        let began = Instant::now();
        while self.control.get(Word::Stopped) < event {
            if !self.running.is_running() {
                let Output { status, stdout } = self.running.wait()?;
                let reason = format!("the program ended with {status} before {awaited}");
                return Err(GuestError::NoGuest { reason, stdout });
            }
            if began.elapsed() > PATIENCE {
                return Err(io::Error::other(format!(
                    "the guest was waited for {} s for {awaited}; it is at event {}, and has \
                     acknowledged step {}",
                    PATIENCE.as_secs(),
                    self.control.get(Word::Events),
                    self.acknowledged()
                ))
                .into());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Writes an image of the stopped guest's memory: `pick` chooses for each line that is not the
    /// same everywhere, but for those that the filesystem needs to be written with their sector
    /// (`is_written_whole`), which are as they are durable. Returns how many it chose for.
    ///
    /// # Errors
    ///
    /// Of reading and writing files.
    pub fn image(&self, path: &Path, mut pick: impl FnMut() -> Line) -> io::Result<u64> {
        let open = |name: &str| File::open(self.directory.join(name));
        let (live, arrived, durable) = (open("nvdimm0")?, open("arrived")?, open("durable")?);
        let image = File::create(path)?;
        image.set_len(live.metadata()?.len())?;
        let mut chunks = [vec![0; CHUNK], vec![0; CHUNK], vec![0; CHUNK]];
        let mut differing = 0;
        // What is a hole in the live file was never stored to, and is one everywhere.
        for_data(&live, |at| {
            let [now, came, safe] = &mut chunks;
            live.read_exact_at(now, at)?;
            arrived.read_exact_at(came, at)?;
            durable.read_exact_at(safe, at)?;
            if now != safe || came != safe {
                let others = now.chunks(BLOCK).zip(came.chunks(BLOCK));
                let places = (at..).step_by(BLOCK);
                for ((safe, (now, came)), place) in safe.chunks_mut(BLOCK).zip(others).zip(places) {
                    if place == self.offset || is_written_whole(safe) || is_written_whole(now) {
                        continue;
                    }
                    differing += mix(safe, now, came, &mut pick);
                }
            }
            if safe.iter().any(|byte| *byte != 0) { image.write_all_at(safe, at) } else { Ok(()) }
        })?;
        Ok(differing)
    }

    /// Mounts an image under `parent`, as after a crash.
    ///
    /// # Errors
    ///
    /// What mount said.
    pub fn mount(&self, image: &Path, parent: &Path) -> Result<Filesystem, String> {
        Filesystem::image(parent, self.kind, image, self.offset)
    }

    /// Lets the guest run until the first line of its program is out, ends it, and removes its
    /// files. Returns the line.
    ///
    /// # Errors
    ///
    /// There was no line, or the guest could not be killed, or files not be removed.
    pub fn end(mut self) -> io::Result<String> {
        self.control.set(Word::StopAt, 0);
        let line = self.running.line("the first line of the guest's program")?;
        let line = line.ok_or_else(|| io::Error::other("the guest's program printed no line"))?;
        self.running.kill()?;
        std::fs::remove_dir_all(&self.directory)?;
        Ok(line)
    }

    /// Boots another guest on an image, which must be called `nvdimm0`, mounts it with DAX and
    /// runs the guest program with these words; returns what it printed.
    ///
    /// # Errors
    ///
    /// There was no guest, or the program failed.
    pub fn reboot(&self, image: &Path, words: &str) -> Result<String, GuestError> {
        let script = format!(
            "mkdir -p /mnt/dax
             mount -t {} -o dax=always /dev/pmem0 /mnt/dax
             exec ./guest {words}",
            self.kind
        );
        let directory = image.parent().unwrap_or(Path::new("."));
        let output = guest(directory).file(program()?).run_script(&script)?;
        if output.status == 0 {
            return Ok(output.stdout);
        }
        let reason = format!("the program ended with {}", output.status);
        Err(GuestError::NoGuest { reason, stdout: output.stdout })
    }
}

/// Chooses for the lines of a block that are not the same everywhere; returns how many.
fn mix(safe: &mut [u8], now: &[u8], came: &[u8], pick: &mut impl FnMut() -> Line) -> u64 {
    let lines = LINE_BYTES as usize;
    let mut differing = 0;
    for (safe, (now, came)) in safe.chunks_mut(lines).zip(now.chunks(lines).zip(came.chunks(lines)))
    {
        if now == safe && came == safe {
            continue;
        }
        differing += 1;
        match pick() {
            Line::Durable => {}
            Line::Arrived => safe.copy_from_slice(came),
            Line::Live => safe.copy_from_slice(now),
        }
    }
    differing
}

/// What a block of xfs begins with that holds metadata in its place: superblock and headers of an
/// allocation group, b-trees, directories, inodes (fs/xfs/libxfs/xfs_format.h, xfs_da_format.h).
const XFS_METADATA: [&[u8]; 15] = [
    b"XFSB", b"XAGF", b"XAGI", b"XAFL", b"AB3B", b"AB3C", b"IAB3", b"FIB3", b"RMB3", b"R3FC",
    b"BMA3", b"XDB3", b"XDD3", b"XDF3", b"IN",
];

/// True for a block of metadata that xfs overwrites in its place, and needs the device to write in
/// whole sectors: with lines of two versions its checksum is wrong, and recovery ends there
/// (`xfs_agi_read_verify`) instead of taking it from the log. Persistent memory without a BTT does
/// not promise whole sectors (Documentation/driver-api/nvdimm/btt.rst). That is between xfs and the
/// device, and nothing that syncs can change. ext4 takes all such blocks from its journal but the
/// superblock, which it reads first; that is in the first block of either filesystem.
fn is_written_whole(block: &[u8]) -> bool {
    XFS_METADATA.iter().any(|magic| block.starts_with(magic))
}

/// Calls `act` with the offset of every chunk of a file that may have data.
fn for_data(file: &File, mut act: impl FnMut(u64) -> io::Result<()>) -> io::Result<()> {
    let chunk = CHUNK as u64;
    let mut at = 0;
    loop {
        at = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data / chunk * chunk,
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        act(at)?;
        at += chunk;
    }
}
