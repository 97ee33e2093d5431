//! The working set: mapped, private, and written to the file as a whole.
//!
//! The file is mapped `MAP_PRIVATE`: untouched pages are the page cache's, a page that is stored
//! to becomes this process's own copy, and no write-back ever takes it to the file. A checkpoint
//! writes the whole set to a new file and gives that the name. So the bytes of a file that has
//! the name never change, which is also what makes the private mapping of it well defined:
//! mmap(2) leaves open whether a later change of the file shows in it.

#![allow(unsafe_code)]

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use daxmap::publish::{self, Commit};
use daxmap::{AnyRegion, Options, Region};
use memmap2::{MmapMut, MmapOptions};

/// How the file is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `MAP_PRIVATE`; a checkpoint replaces the file.
    Private,
    /// `MAP_SHARED`; a checkpoint is an msync. What must go wrong.
    Shared,
}

/// Bytes before the first account: magic, number of the checkpoint, checksum; a page, so that
/// accounts and header do not share one.
const HEADER: usize = 4096;
const MAGIC: &[u8; 8] = b"ckpt\0\0\0\x01";
const NUMBER: usize = 8;
const CHECKSUM: usize = 16;
/// What every account holds at first; the sum over all never changes from checkpoint to
/// checkpoint.
const OPENING_BALANCE: u64 = 1000;

/// Accounts in mapped memory.
pub struct WorkingSet {
    path: PathBuf,
    mode: Mode,
    memory: MmapMut,
}

impl WorkingSet {
    /// Maps the newest checkpoint; makes the first one if there is none.
    pub fn open(path: &Path, mode: Mode, bytes: usize) -> Result<Self, Box<dyn Error>> {
        if !path.exists() {
            let mut first = vec![0; bytes.max(HEADER + 16)];
            first[..8].copy_from_slice(MAGIC);
            for account in first[HEADER..].chunks_exact_mut(8) {
                account.copy_from_slice(&OPENING_BALANCE.to_le_bytes());
            }
            seal(&mut first, 1);
            replace(path, &first)?;
        }
        // What a killed process was writing has no name, or one that only drafts have.
        publish::clean_leftovers(directory_of(path))?;
        let file = File::options().read(true).write(mode == Mode::Shared).open(path)?;
        let memory = map(file.as_raw_fd(), mode)?;
        if mode == Mode::Private {
            inspect(&memory)?;
        }
        Ok(Self { path: path.to_owned(), mode, memory })
    }

    /// How many accounts there are.
    pub fn accounts(&self) -> usize {
        (self.memory.len() - HEADER) / 8
    }

    /// Number of the newest checkpoint.
    pub fn number(&self) -> u64 {
        word(&self.memory, NUMBER)
    }

    /// Adds to an account, or takes from it, by wrapping: the sum over all is kept by pairs.
    pub fn add(&mut self, account: usize, amount: u64) {
        let at = HEADER + account * 8;
        let balance = word(&self.memory, at).wrapping_add(amount);
        self.memory[at..at + 8].copy_from_slice(&balance.to_le_bytes());
    }

    /// What the kernel does every few seconds, at this moment: write back what is dirty.
    pub fn write_back(&self) -> io::Result<()> {
        self.memory.flush()
    }

    /// Makes the working set, as it is now, what the file holds. When it returns, the checkpoint
    /// is durable; until then the file holds the one before.
    pub fn checkpoint(&mut self) -> Result<(), Box<dyn Error>> {
        let number = self.number() + 1;
        seal(&mut self.memory, number);
        if self.mode == Mode::Shared {
            return Ok(self.memory.flush()?);
        }
        let published = replace(&self.path, &self.memory)?;
        // The old mapping would go on being right, but it keeps the old file's blocks and a
        // private copy of every page changed since. The new one starts clean. Not by the name:
        // by what was published.
        self.memory = map(published.as_fd().as_raw_fd(), self.mode)?;
        Ok(())
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
    u64::from_le_bytes(word.unwrap_or_default())
}

/// Number and checksum into the header.
fn seal(bytes: &mut [u8], number: u64) {
    bytes[NUMBER..NUMBER + 8].copy_from_slice(&number.to_le_bytes());
    let sum = checksum(bytes);
    bytes[CHECKSUM..CHECKSUM + 8].copy_from_slice(&sum.to_le_bytes());
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[NUMBER..NUMBER + 8]);
    hasher.update(&bytes[HEADER..]);
    u64::from(hasher.finalize())
}

/// The number of the checkpoint that these bytes are; an error if they are none.
pub fn inspect(bytes: &[u8]) -> Result<u64, String> {
    if bytes.len() < HEADER + 16 || &bytes[..8] != MAGIC {
        return Err(format!("{} bytes that are no checkpoint", bytes.len()));
    }
    let number = word(bytes, NUMBER);
    if word(bytes, CHECKSUM) != checksum(bytes) {
        return Err(format!("checkpoint {number} is not as it was sealed"));
    }
    let accounts = (HEADER..bytes.len() - 7).step_by(8).map(|at| word(bytes, at));
    let count = accounts.len() as u64;
    if accounts.fold(0_u64, u64::wrapping_add) != OPENING_BALANCE * count {
        return Err(format!("checkpoint {number} was taken in the middle of a transfer"));
    }
    Ok(number)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn map(file: RawFd, mode: Mode) -> io::Result<MmapMut> {
    let options = MmapOptions::new();
    match mode {
        // SAFETY: the file has its name from `replace`, and nobody writes to it or truncates it
        // from then on: checkpoints replace it. A mapping keeps the file that it maps when the
        // name goes to another.
        Mode::Private => unsafe { options.map_copy(file) },
        // SAFETY: one process at a time stores through the mapping, nobody truncates the file,
        // and those who look at it read it with read(2).
        Mode::Shared => unsafe { options.map_mut(file) },
    }
}

/// Gives `path` these bytes, all of them and durably, or leaves what was there.
fn replace(path: &Path, bytes: &[u8]) -> daxmap::Result<AnyRegion> {
    // Not locked: whoever opens the file only reads it.
    let draft = Options::new().len(bytes.len() as u64).lock(false).draft(path)?;
    draft.write_flush(0, bytes)?;
    draft.drain()?;
    draft.commit(Commit::Replace)
}
