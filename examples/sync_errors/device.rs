//! A disk that fails on command: ext4 on a loop device over a file in a tmpfs.
//!
//! Below a cut lie the filesystem's own structures, above it the data of the files that the cases
//! use. Shortened to the cut, the device answers EIO above it; with the tmpfs full, it answers
//! ENOSPC for blocks never written before. The filesystem sees no difference from a disk.

#![allow(unsafe_code)]

use std::error::Error;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::FallocateFlags;

/// Bytes of the device.
const BYTES: u64 = 64 << 20;
/// What lies below stays whatever happens.
const CUT: u64 = 8 << 20;
/// Bytes of the tmpfs: what is below the cut, and some of what is above.
const TMPFS_BYTES: u64 = 32 << 20;
const BLOCK: usize = 4096;
/// Megabyte at which the journal begins, and how many it has.
const JOURNAL: [usize; 2] = [1, 4];
/// Blocks that the filesystem's own structures need at the start, and more.
const METADATA_BLOCKS: usize = 64;
/// How often it is made, until its structures are known to fill what is below the cut.
const FORMATS_MAX: usize = 4;

/// The disk, mounted. Dropping it takes everything down; a killed process leaves nothing mounted
/// either, because the mounts are in a namespace of its own.
pub struct Device {
    directory: tempfile::TempDir,
    node: PathBuf,
}

/// Runs a program that must succeed: the words of its options, then paths.
fn succeed(program: &str, options: &str, paths: &[&Path]) -> Result<String, Box<dyn Error>> {
    let output = Command::new(program)
        .args(options.split_whitespace())
        .args(paths)
        .output()
        .map_err(|error| format!("{program} is needed: {error}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(words.lines().next().unwrap_or(program).to_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

impl Device {
    /// Makes and mounts it.
    pub fn new() -> Result<Self, Box<dyn Error>> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".into());
        }
        // SAFETY: unshare changes which mounts this thread sees; there are no other threads, and
        // no memory is concerned.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        succeed("mount", "--make-rprivate", &[Path::new("/")])?;
        let mut device = Self { directory: tempfile::tempdir()?, node: PathBuf::new() };
        let (tmpfs, image, mounted) = (device.tmpfs(), device.image(), device.path());
        fs::create_dir(&tmpfs)?;
        fs::create_dir(&mounted)?;
        succeed("mount", &format!("-t tmpfs -o size={TMPFS_BYTES} none"), &[&tmpfs])?;
        let file = File::create(&image)?;
        file.set_len(BYTES)?;
        // Few inodes and a small journal, all below the cut, and nothing left to be written later.
        // The other blocks there are declared bad: the data of files then lies above.
        device.format(&image)?;
        // mkfs punches holes where it wants zeros.
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, CUT)?;
        device.node = succeed("losetup", "--find --show", &[&image])?.into();
        succeed("mount", "-t ext4 -o errors=remount-ro", &[&device.node, &mounted])?;
        Ok(device)
    }

    /// Makes the filesystem, without a free block below the cut.
    fn format(&self, image: &Path) -> Result<(), Box<dyn Error>> {
        let [start, size] = JOURNAL;
        let layout = format!(
            "-b {BLOCK} -N 128 -O ^resize_inode -J size={size},location={start}M \
             -E lazy_itable_init=0,lazy_journal_init=0,nodiscard"
        );
        let list = self.directory.path().join("bad");
        let mut bad = bad_blocks();
        for _ in 0..FORMATS_MAX {
            let lines: Vec<_> = bad.iter().map(usize::to_string).collect();
            fs::write(&list, lines.join("\n"))?;
            succeed("mkfs.ext4", &format!("-q -F {layout} -l"), &[&list, image])?;
            let free = free_blocks_below_the_cut(&succeed("dumpe2fs", "", &[image])?);
            if free.is_empty() {
                return Ok(());
            }
            // The structures took less than there was room for.
            bad.extend(free);
            bad.sort_unstable();
        }
        Err("mkfs.ext4 leaves free blocks below the cut".into())
    }

    fn tmpfs(&self) -> PathBuf {
        self.directory.path().join("tmpfs")
    }

    fn image(&self) -> PathBuf {
        self.tmpfs().join("image")
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    /// The device itself.
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// Remounts it with other options.
    pub fn remount(&self, options: &str) -> Result<(), Box<dyn Error>> {
        succeed("mount", &format!("-o remount,{options}"), &[&self.path()]).map(drop)
    }

    /// Runs `during` while writes of the files' data fail with EIO. Afterwards the device holds
    /// what it held before.
    pub fn failing<T>(&self, during: impl FnOnce() -> T) -> Result<T, Box<dyn Error>> {
        let image = File::options().read(true).write(true).open(self.image())?;
        let mut above = vec![0; (BYTES - CUT) as usize];
        image.read_exact_at(&mut above, CUT)?;
        self.resize(&image, CUT)?;
        let result = during();
        self.resize(&image, BYTES)?;
        for (block, at) in above.chunks(BLOCK).zip((CUT..).step_by(BLOCK)) {
            if block.iter().any(|byte| *byte != 0) {
                image.write_all_at(block, at)?;
            }
        }
        Ok(result)
    }

    /// A loop device ends where its file ends, as soon as it looks again.
    fn resize(&self, image: &File, bytes: u64) -> Result<(), Box<dyn Error>> {
        image.set_len(bytes)?;
        succeed("losetup", "--set-capacity", &[&self.node]).map(drop)
    }

    /// Runs `during` while blocks that were never written cannot be.
    pub fn full<T>(&self, during: impl FnOnce() -> T) -> Result<T, Box<dyn Error>> {
        let filler = self.tmpfs().join("filler");
        fill(&filler)?;
        let result = during();
        fs::remove_file(filler)?;
        Ok(result)
    }
}

/// Blocks below the cut that are neither the filesystem's own nor the journal's, sorted.
fn bad_blocks() -> Vec<usize> {
    let [start, size] = JOURNAL.map(|mib| (mib << 20) / BLOCK);
    (METADATA_BLOCKS..start).chain(start + size..CUT as usize / BLOCK).collect()
}

/// The free blocks that dumpe2fs(8) lists, below the cut: lines such as `  Free blocks: 9-63, 2048`.
fn free_blocks_below_the_cut(listed: &str) -> Vec<usize> {
    let ranges = listed.lines().filter_map(|line| line.trim().strip_prefix("Free blocks: "));
    let ranges = ranges.flat_map(|line| line.split(", ")).filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    });
    // The count of the superblock, in a line alike, is above it.
    ranges.flatten().filter(|block| *block < CUT as usize / BLOCK).collect()
}

/// Takes all the space that is left.
fn fill(filler: &Path) -> Result<(), Box<dyn Error>> {
    let mut file = File::create(filler)?;
    let piece = vec![1; 64 << 10];
    loop {
        match file.write_all(&piece) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // What stays behind goes with the mount namespace, when this process ends.
        let _ = succeed("umount", "", &[&self.path()]);
        if !self.node.as_os_str().is_empty() {
            let _ = succeed("losetup", "--detach", &[&self.node]);
        }
        let _ = succeed("umount", "", &[&self.tmpfs()]);
    }
}
