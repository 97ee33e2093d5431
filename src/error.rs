//! One error type: which operation, on which path and range, why, and whether the durability
//! of that range is now unknown.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::durability::Durability;
use crate::format::opening::UnsafeShutdown;
use crate::probe::Reason;

/// The result of everything in this library that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)] // each name is the operation
pub enum Operation {
    Open,
    Create,
    Lock,
    Probe,
    Map,
    Populate,
    Allocate,
    Read,
    Write,
    Load,
    Store,
    CompareExchange,
    View,
    Flush,
    Drain,
    Sync,
    Grow,
    Shrink,
    Publish,
    Append,
    Recover,
    Truncate,
    Checkpoint,
    Restore,
    Close,
}

impl Operation {
    /// The operation as it stands in the error message.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Lock => "lock",
            Self::Probe => "probe",
            Self::Map => "map",
            Self::Populate => "populate",
            Self::Allocate => "allocate",
            Self::Read => "read",
            Self::Write => "write",
            Self::Load => "load",
            Self::Store => "store",
            Self::CompareExchange => "compare-exchange",
            Self::View => "view",
            Self::Flush => "flush",
            Self::Drain => "drain",
            Self::Sync => "sync",
            Self::Grow => "grow",
            Self::Shrink => "shrink",
            Self::Publish => "publish",
            Self::Append => "append",
            Self::Recover => "recover",
            Self::Truncate => "truncate",
            Self::Checkpoint => "checkpoint",
            Self::Restore => "restore",
            Self::Close => "close",
        }
    }
}

/// Why it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A system call failed with this errno.
    Os(Errno),
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
    /// An earlier durability error made this region final; its message follows.
    Poisoned(Arc<Error>),
    /// The region was closed.
    Closed,
    /// A file was published under its name, and then the sync that makes this durable failed
    /// with this errno. Every reader sees the new file; after a crash the name may show what it
    /// showed before, or nothing if it is new. Nothing in between: the data was synced first.
    PublishedNotDurable(Errno),
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

/// An error: operation, path, byte range, cause, and whether durability is now unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    operation: Operation,
    path: Option<PathBuf>,
    range: Option<Range<u64>>,
    call: Option<&'static str>,
    kind: ErrorKind,
    durability_unknown: bool,
    advice: Option<&'static str>,
}

impl Error {
    pub(crate) fn new(operation: Operation, kind: ErrorKind) -> Self {
        Self(Box::new(Inner {
            operation,
            path: None,
            range: None,
            call: None,
            kind,
            durability_unknown: false,
            advice: None,
        }))
    }

    /// A failed system call, named as in its manual page.
    pub(crate) fn os(operation: Operation, call: &'static str, errno: Errno) -> Self {
        let mut error = Self::new(operation, ErrorKind::Os(errno));
        error.0.call = Some(call);
        error
    }

    pub(crate) fn at(mut self, path: &Path) -> Self {
        self.0.path.get_or_insert_with(|| path.to_owned());
        self
    }

    pub(crate) fn over(mut self, offset: u64, len: u64) -> Self {
        self.0.range = Some(offset..offset.saturating_add(len));
        self
    }

    /// The same error, met while doing something else.
    pub(crate) fn during(mut self, operation: Operation) -> Self {
        self.0.operation = operation;
        self
    }

    /// The same error, with what the reader can do.
    pub(crate) fn advise(mut self, advice: &'static str) -> Self {
        self.0.advice = Some(advice);
        self
    }

    pub(crate) fn unknown(mut self) -> Self {
        self.0.durability_unknown = true;
        self
    }

    /// The same error, of a publish whose file has its name.
    pub(crate) fn after_publish(mut self) -> Self {
        if let ErrorKind::Os(errno) = self.0.kind {
            self.0.kind = ErrorKind::PublishedNotDurable(errno);
        }
        self.during(Operation::Publish).unknown()
    }

    /// The same error, of a publish that changed nothing: the draft is gone, and what the name
    /// showed is as durable as it was.
    pub(crate) fn before_publish(mut self) -> Self {
        self.0.durability_unknown = false;
        self.during(Operation::Publish)
    }

    /// What was being done.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.0.operation
    }

    /// The path of the file, if the operation had one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The bytes concerned, as offsets into the region.
    #[must_use]
    pub fn range(&self) -> Option<Range<u64>> {
        self.0.range.clone()
    }

    /// Why it failed.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The errno of the system call behind this error, looking through `Poisoned`.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match &self.0.kind {
            ErrorKind::Os(errno) | ErrorKind::PublishedNotDurable(errno) => Some(*errno),
            ErrorKind::Poisoned(cause) => cause.errno(),
            _ => None,
        }
    }

    /// True if bytes written before this error may or may not be durable: the way on is to
    /// reopen and recover from the medium.
    #[must_use]
    pub fn is_durability_unknown(&self) -> bool {
        self.0.durability_unknown
    }

    /// True if this error is the region's latch: an earlier durability error made it final.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Poisoned(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.operation.as_str())?;
        if let Some(path) = &self.0.path {
            write!(f, " {}", path.display())?;
        }
        if let Some(range) = &self.0.range {
            write!(f, " [{}, {})", range.start, range.end)?;
        }
        write!(f, ": ")?;
        if let Some(call) = self.0.call {
            write!(f, "{call}: ")?;
        }
        write!(f, "{}", self.0.kind)?;
        // These say it themselves, one by quoting its cause.
        let said =
            matches!(self.0.kind, ErrorKind::Poisoned(_) | ErrorKind::PublishedNotDurable(_));
        if self.0.durability_unknown && !said {
            write!(
                f,
                "; durability of these bytes is unknown, reopen and recover from the medium"
            )?;
        }
        match self.0.advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // "File exists (os error 17)"
            Self::Os(errno) => write!(f, "{errno}"),
            Self::OutOfBounds { len } => {
                write!(f, "range past the end, the region has {len} bytes")
            }
            Self::TooLarge { max } => write!(f, "too large, at most {max} bytes are possible here"),
            Self::Empty => write!(
                f,
                "no length: set `Options::len` to create a file, and open one that is not empty"
            ),
            Self::Unaligned { align } => write!(f, "not a multiple of {align} bytes"),
            Self::TooShort { len, asked } => {
                write!(f, "{len} bytes, shorter than the {asked} that are needed")
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
            Self::Poisoned(cause) => {
                write!(f, "the region is poisoned by an earlier error: {cause}")
            }
            Self::Closed => write!(f, "the region was closed"),
            Self::PublishedNotDurable(errno) => write!(
                f,
                "{errno}; the file has its name, but not yet durably: after a crash the name may \
                 show what it showed before"
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
                write!(f, "full: {needed} bytes are needed, {free} are free")
            }
            Self::TooManyWriters { segments } => write!(
                f,
                "too many writers: others have all {segments} segments of the log; drop one, or grow \
                 the log"
            ),
            Self::SizeMismatch { found, asked } => {
                write!(f, "it holds {found} bytes, {asked} were asked for")
            }
            Self::NoCheckpoint { sequence } => write!(f, "no checkpoint {sequence} is kept"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.kind {
            ErrorKind::Os(errno) | ErrorKind::PublishedNotDurable(errno) => Some(errno),
            ErrorKind::Poisoned(cause) => Some(cause.as_ref()),
            _ => None,
        }
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Os(errno) | ErrorKind::PublishedNotDurable(errno) => {
                std::io::Error::from(*errno).kind()
            }
            ErrorKind::Locked => std::io::ErrorKind::WouldBlock,
            ErrorKind::Unsupported(_) => std::io::ErrorKind::Unsupported,
            ErrorKind::ReadOnly => std::io::ErrorKind::ReadOnlyFilesystem,
            ErrorKind::TooShort { .. } => std::io::ErrorKind::UnexpectedEof,
            ErrorKind::OutOfBounds { .. }
            | ErrorKind::TooLarge { .. }
            | ErrorKind::Empty
            | ErrorKind::Unaligned { .. }
            | ErrorKind::SizeMismatch { .. }
            | ErrorKind::FileLonger { .. }
            | ErrorKind::WrongFileType(_) => std::io::ErrorKind::InvalidInput,
            ErrorKind::WrongFormat(_)
            | ErrorKind::NewerFormat { .. }
            | ErrorKind::OlderFormat { .. }
            | ErrorKind::OtherLayout { .. }
            | ErrorKind::Damaged(_)
            | ErrorKind::DamagedRecords { .. } => std::io::ErrorKind::InvalidData,
            ErrorKind::Full { .. } => std::io::ErrorKind::StorageFull,
            ErrorKind::Busy | ErrorKind::TooManyWriters { .. } => std::io::ErrorKind::ResourceBusy,
            ErrorKind::Released { .. }
            | ErrorKind::NoRecord { .. }
            | ErrorKind::NoCheckpoint { .. } => std::io::ErrorKind::NotFound,
            _ => std::io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: ErrorKind) -> Error {
        Error::new(Operation::Drain, kind)
    }

    #[test]
    fn kinds_are_those_of_the_standard_library_as_well() {
        use std::io::ErrorKind as Io;

        let kind = |kind: ErrorKind| std::io::Error::from(of(kind)).kind();
        assert_eq!(kind(ErrorKind::Os(Errno::NOENT)), Io::NotFound);
        assert_eq!(kind(ErrorKind::PublishedNotDurable(Errno::NOSPC)), Io::StorageFull);
        assert_eq!(kind(ErrorKind::Locked), Io::WouldBlock);
        assert_eq!(kind(ErrorKind::Unsupported("this")), Io::Unsupported);
        assert_eq!(kind(ErrorKind::ReadOnly), Io::ReadOnlyFilesystem);
        assert_eq!(kind(ErrorKind::TooShort { len: 1, asked: 2 }), Io::UnexpectedEof);
        for wrong in [
            ErrorKind::OutOfBounds { len: 1 },
            ErrorKind::TooLarge { max: 1 },
            ErrorKind::Empty,
            ErrorKind::Unaligned { align: 8 },
            ErrorKind::SizeMismatch { found: 1, asked: 2 },
            ErrorKind::FileLonger { file: 2, region: 1 },
            ErrorKind::WrongFileType("a pipe"),
        ] {
            assert_eq!(kind(wrong), Io::InvalidInput);
        }
        for damaged in [
            ErrorKind::WrongFormat("a log"),
            ErrorKind::NewerFormat { found: 2, newest: 1 },
            ErrorKind::OlderFormat { found: 1, oldest: 2 },
            ErrorKind::Damaged("both copies"),
            ErrorKind::DamagedRecords { first: 1, last: 2 },
        ] {
            assert_eq!(kind(damaged), Io::InvalidData);
        }
        assert_eq!(kind(ErrorKind::Full { needed: 2, free: 1 }), Io::StorageFull);
        assert_eq!(kind(ErrorKind::Busy), Io::ResourceBusy);
        assert_eq!(kind(ErrorKind::TooManyWriters { segments: 2 }), Io::ResourceBusy);
        for missing in [
            ErrorKind::Released { first: 3 },
            ErrorKind::NoRecord { lsn: 3 },
            ErrorKind::NoCheckpoint { sequence: 3 },
        ] {
            assert_eq!(kind(missing), Io::NotFound);
        }
        let cause = of(ErrorKind::Os(Errno::IO)).unknown();
        assert_eq!(kind(ErrorKind::Poisoned(Arc::new(cause))), Io::Other);
    }

    #[test]
    fn the_source_is_the_call_or_what_came_first() {
        use std::error::Error as _;

        let called =
            |error: &Error| -> Option<Errno> { error.source()?.downcast_ref::<Errno>().copied() };
        assert_eq!(called(&of(ErrorKind::Os(Errno::IO))), Some(Errno::IO));
        let published = of(ErrorKind::PublishedNotDurable(Errno::NOSPC));
        assert_eq!(called(&published), Some(Errno::NOSPC));
        let poisoned = of(ErrorKind::Poisoned(Arc::new(of(ErrorKind::Os(Errno::IO)))));
        let first = poisoned.source().unwrap().downcast_ref::<Error>().unwrap();
        assert_eq!((called(first), poisoned.errno()), (Some(Errno::IO), Some(Errno::IO)));
        assert!(of(ErrorKind::Empty).source().is_none());
    }

    #[test]
    fn what_is_unknown_is_said_once() {
        const UNKNOWN: &str = "durability of these bytes is unknown";
        let failed = Error::os(Operation::Drain, "fdatasync", Errno::IO).over(0, 64);
        assert_eq!(failed.to_string().matches(UNKNOWN).count(), 0, "{failed}");
        let unknown = failed.unknown();
        assert_eq!(unknown.to_string().matches(UNKNOWN).count(), 1, "{unknown}");
        let poisoned = of(ErrorKind::Poisoned(Arc::new(unknown))).unknown();
        assert_eq!(poisoned.to_string().matches(UNKNOWN).count(), 1, "{poisoned}");
        let published = of(ErrorKind::PublishedNotDurable(Errno::IO)).unknown();
        assert_eq!(published.to_string().matches(UNKNOWN).count(), 0, "{published}");
    }
}
