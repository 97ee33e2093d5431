//! Why an operation failed, and how that reads.

use std::fmt;
use std::sync::Arc;

use super::Error;
use crate::durability::Durability;
use crate::reason::Reason;
use crate::unsafe_shutdown::UnsafeShutdown;

/// Why it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A system call failed with this errno, as `libc` and [`std::io::Error::raw_os_error`] number
    /// it.
    Os(i32),
    /// The range does not lie within the region, whose length in bytes is given.
    OutOfBounds {
        /// Length of the region in bytes.
        len: u64,
    },
    /// `offset + length` is past the largest offset there is, or past what the region reserved.
    TooLarge {
        /// The largest length possible here, in bytes.
        max: u64,
    },
    /// No length was given, or one of zero bytes where at least one is needed.
    Empty,
    /// The offset is not a multiple of this many bytes.
    Unaligned {
        /// Required alignment in bytes.
        align: u64,
    },
    /// A page that is written whole has 4096, 8192, 16384, 32768 or 65536 bytes.
    PageSize {
        /// The bytes that were given.
        bytes: u64,
    },
    /// The file is shorter than the length asked for. To open a shorter file and make it longer,
    /// open it without [`Options::len`](crate::Options::len) and grow the region.
    TooShort {
        /// Length of the file in bytes.
        len: u64,
        /// Length asked for in bytes.
        asked: u64,
    },
    /// The file is longer than the region, which is a part of it or was not told of a growth. What
    /// lies past the region is not the region's to change.
    /// [`Region::grow_to_file`](crate::Region::grow_to_file) makes it the region's.
    FileLonger {
        /// Length of the file in bytes.
        file: u64,
        /// Length of the region in bytes.
        region: u64,
    },
    /// The path names something that cannot hold a region (a directory, a FIFO, ...).
    WrongFileType(&'static str),
    /// The required durability is not available here, and why.
    Durability {
        /// The level that was required.
        required: Durability,
        /// The level that this path gives.
        available: Durability,
        /// What holds the level below the required one, each with its remedy.
        reasons: Vec<Reason>,
    },
    /// Another process or another region of this process has the file open for writing.
    Locked,
    /// The region was opened read-only.
    ReadOnly,
    /// The memory under the range is gone: the file was truncated, the page is poisoned, or the
    /// medium could not be read.
    Gone,
    /// The handle has failed: an earlier error of durability is final, and its message follows.
    Failed(Arc<Error>),
    /// The region was closed.
    Closed,
    /// A file was published under its name, and then the sync that makes this durable failed
    /// with this errno. Every reader sees the new file; after a crash the name may show what it
    /// showed before, or nothing if it is new. Nothing in between: the data was synced first.
    PublishedNotDurable(i32),
    /// Not possible on this backend or on this processor, and why.
    Unsupported(&'static str),
    /// The region does not hold what was expected (`a daxmap log`, ...). Nothing was changed.
    WrongFormat(&'static str),
    /// Written by a newer version of this library, in a format that this one does not know.
    NewerFormat {
        /// The version found.
        found: u32,
        /// The newest version known.
        newest: u32,
    },
    /// Written by an older version of this library, in a format that this one no longer reads.
    /// Nothing was changed.
    OlderFormat {
        /// The version found.
        found: u32,
        /// The oldest version that can be read.
        oldest: u32,
    },
    /// The caller refuses to open a file after an unsafe shutdown of its memory, or where it is not
    /// known that there was none. Nothing was changed.
    UnsafeShutdown(UnsafeShutdown),
    /// A value of another layout than the program's: another version of it, or another size.
    OtherLayout {
        /// Layout version found.
        found: u32,
        /// Bytes found.
        found_bytes: u32,
        /// Layout version that the program has.
        expected: u32,
        /// Bytes that the program has.
        expected_bytes: u64,
    },
    /// These bytes were durable and are no longer what was written: what they are.
    Damaged(&'static str),
    /// Records of a log were durable and are no longer what was written: some or all of these
    /// Lsns. The range of the error has the bytes.
    DamagedRecords {
        /// The first Lsn that may be concerned.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The record was released: the log keeps those from `first` on.
    Released {
        /// The first Lsn that is not released.
        first: u64,
    },
    /// No record has this Lsn: it was not written yet, it was truncated, or it was never
    /// acknowledged and a crash took it.
    NoRecord {
        /// The Lsn asked for.
        lsn: u64,
    },
    /// Another process changed the file every time while it was read, so that nothing can be told
    /// of it: nothing is wrong with it. Ask again.
    Busy,
    /// There is not enough room in the file, and nothing was written: records of the log must be
    /// released, or the file grown.
    Full {
        /// Bytes needed, of a log in one segment.
        needed: u64,
        /// Bytes free, of a log in the segment that has most.
        free: u64,
    },
    /// Other writers have every segment of the log, and nothing was written. Releasing records does
    /// not help: one of the writers must be dropped, or the log grown.
    TooManyWriters {
        /// How many segments they have.
        segments: u64,
    },
    /// What the file holds has another size than was asked for, in bytes.
    SizeMismatch {
        /// The size found.
        found: u64,
        /// The size asked for.
        asked: u64,
    },
    /// No checkpoint of this number is kept.
    NoCheckpoint {
        /// The number.
        sequence: u64,
    },
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // "File exists (os error 17)"
            Self::Os(errno) => write!(f, "{}", in_words(*errno)),
            Self::OutOfBounds { len } => {
                write!(f, "range past the end, the region has {len} bytes")
            }
            Self::TooLarge { max } => write!(f, "too large, at most {max} bytes are possible here"),
            Self::Empty => write!(
                f,
                "no length: set `Options::len` to create a file, and open one that is not empty"
            ),
            Self::Unaligned { align } => write!(f, "not a multiple of {align} bytes"),
            Self::PageSize { bytes } => write!(
                f,
                "{bytes} bytes, where a page of 4096, 8192, 16384, 32768 or 65536 bytes is needed"
            ),
            Self::TooShort { len, asked } => {
                write!(f, "{len} bytes, where at least {asked} are needed")
            }
            Self::FileLonger { file, region } => write!(
                f,
                "the file is {file} bytes, longer than the region, which has {region}; \
                 `grow_to_file` takes in what lies behind"
            ),
            Self::WrongFileType(found) => {
                write!(f, "{found}, where a regular file or a device-DAX node is needed")
            }
            Self::Durability { required, available, reasons } => {
                write!(f, "{required} was required, {available} is available")?;
                for reason in reasons {
                    write!(f, "; {reason}")?;
                }
                Ok(())
            }
            Self::Locked => write!(f, "another writer has the file locked"),
            Self::ReadOnly => write!(f, "the region was opened read-only"),
            Self::Gone => write!(
                f,
                "the memory is gone: file truncated, page poisoned, or unreadable on the medium"
            ),
            Self::Failed(cause) => {
                write!(f, "the region has failed; its first error: {cause}")
            }
            Self::Closed => write!(f, "the region was closed"),
            Self::PublishedNotDurable(errno) => write!(
                f,
                "{}; the file has its name, but not yet durably: after a crash the name may show \
                 what it showed before",
                in_words(*errno)
            ),
            Self::Unsupported(why) => f.write_str(why),
            Self::WrongFormat(expected) => write!(f, "this is not {expected}"),
            Self::NewerFormat { found, newest } => {
                write!(f, "written in format version {found}, the newest known here is {newest}")
            }
            Self::OlderFormat { found, oldest } => write!(
                f,
                "written in format version {found}, which this version of the library no longer \
                 reads (from {oldest} on): copy its contents with the version that wrote it"
            ),
            Self::UnsafeShutdown(found) => write!(f, "unsafe shutdowns of the memory: {found}"),
            Self::OtherLayout { found, found_bytes, expected, expected_bytes } => write!(
                f,
                "the value has layout version {found} and {found_bytes} bytes, where version \
                 {expected} and {expected_bytes} bytes are expected"
            ),
            Self::Damaged(what) => write!(f, "damaged: {what}"),
            Self::DamagedRecords { first, last } => {
                write!(f, "damaged: records with Lsns between {first} and {last}")
            }
            Self::Released { first } => {
                write!(f, "released: the log keeps records from Lsn {first} on")
            }
            Self::NoRecord { lsn } => write!(f, "there is no record with Lsn {lsn}"),
            Self::Busy => {
                f.write_str("busy: another process changed the file while it was read; ask again")
            }
            Self::Full { needed, free } => {
                write!(
                    f,
                    "full: {needed} bytes are needed, {free} are free; release what is no longer \
                     needed, or grow"
                )
            }
            Self::TooManyWriters { segments } => write!(
                f,
                "too many writers: others have all {segments} segments of the log; drop one, or grow \
                 the log"
            ),
            Self::SizeMismatch { found, asked } => {
                write!(
                    f,
                    "it holds {found} bytes, {asked} were asked for; the size is fixed at creation"
                )
            }
            Self::NoCheckpoint { sequence } => write!(f, "no checkpoint {sequence} is kept"),
        }
    }
}

/// An errno as the system says it.
fn in_words(errno: i32) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno)
}
