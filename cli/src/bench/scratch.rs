//! The directory for the files of a run, which goes when the run ends.
//!
//! The files have names: an unnamed file would need no removing, but btrfs does not log one at
//! fsync, and its figures would be of something else.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::interrupt;

/// Files are built with writes of this many bytes: the usual way, and what makes ext4 and xfs keep
/// them in large folios.
const PIECE: usize = 1 << 20;

/// A directory that is removed, with everything in it, when this goes out of scope.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes it in `parent`, for the subcommand of this name.
    pub fn new(parent: &Path, command: &str) -> io::Result<Self> {
        let path = parent.join(format!(".daxmap-{command}-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("daxmap: cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Makes a file of `len` zeros, allocated and durable.
pub fn make_file(path: &Path, len: u64) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len) {
        // No preallocation here: the zeros allocate.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(errno) => return Err(errno.into()),
    }
    let zeros = vec![0_u8; PIECE];
    let mut at = 0;
    while at < len {
        interrupt::check()?;
        let piece = (len - at).min(PIECE as u64);
        file.write_all_at(&zeros[..piece as usize], at)?;
        at += piece;
    }
    file.sync_all()?;
    Ok(file)
}

/// True for no space and the like: an error, whatever else may be missing here without being one.
pub fn is_final(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, OutOfMemory, QuotaExceeded, StorageFull};
    matches!(error.kind(), Interrupted | OutOfMemory | QuotaExceeded | StorageFull)
}

/// An error of the same kind that says what was being done.
pub fn doing(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_space_and_an_end_that_was_asked_for_are_final() {
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::NOMEM, Errno::INTR] {
            assert!(is_final(&errno.into()), "{errno}");
        }
        for errno in [Errno::OPNOTSUPP, Errno::INVAL, Errno::IO, Errno::ACCESS] {
            assert!(!is_final(&errno.into()), "{errno}");
        }
    }

    /// Space that is only allocated counts as a hole to who looks for data.
    #[test]
    fn a_file_is_as_long_as_asked_for_and_written_to_its_end() {
        use rustix::fs::{SeekFrom, seek};
        let directory = tempfile::tempdir().unwrap();
        for (name, len) in [("a", 1), ("b", PIECE as u64), ("c", 3 * PIECE as u64 + 5)] {
            let file = make_file(&directory.path().join(name), len).unwrap();
            assert_eq!(file.metadata().unwrap().len(), len);
            assert_eq!(seek(&file, SeekFrom::Data(0)), Ok(0), "{name} is written");
            assert_eq!(seek(&file, SeekFrom::Hole(0)), Ok(len), "{name} has no hole");
        }
    }
}
