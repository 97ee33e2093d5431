//! The library's errors as those of the standard library.

use super::{Error, ErrorKind};

/// The error of a failed system call ([`ErrorKind::Os`]) keeps its errno:
/// [`raw_os_error`](std::io::Error::raw_os_error) is the library's. The standard library keeps an errno
/// or a text, never both: for operation, path and range, print the [`Error`] before it is converted, or
/// convert it with [`std::io::Error::other`].
///
/// Every other error is kept whole, as the inner error, and has the
/// [kind](std::io::Error::kind) that fits: an errno alone would say less than it does. That includes
/// `Failed` (`Other`: trying again does not help) and `PublishedNotDurable` (the file has its name).
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Os(errno) => return Self::from_raw_os_error(*errno),
            ErrorKind::PublishedNotDurable(errno) => Self::from_raw_os_error(*errno).kind(),
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
    use std::sync::Arc;

    use super::*;
    use crate::error::Operation;

    fn of(kind: ErrorKind) -> Error {
        Error::new(Operation::Drain, kind)
    }

    #[test]
    fn kinds_are_those_of_the_standard_library_as_well() {
        use std::io::ErrorKind as Io;

        let kind = |kind: ErrorKind| std::io::Error::from(of(kind)).kind();
        assert_eq!(kind(ErrorKind::Os(libc::ENOENT)), Io::NotFound);
        assert_eq!(kind(ErrorKind::PublishedNotDurable(libc::ENOSPC)), Io::StorageFull);
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
        let cause = of(ErrorKind::Os(libc::EIO)).unknown();
        assert_eq!(kind(ErrorKind::Failed(Arc::new(cause))), Io::Other);
    }

    /// The errno of every failed call is kept, be it one that the standard library has a kind for.
    #[test]
    fn an_errno_stays_and_everything_else_stays_whole() {
        for errno in [libc::ENOSPC, libc::EIO, libc::EFBIG, libc::EOWNERDEAD] {
            let error = std::io::Error::from(of(ErrorKind::Os(errno)).unknown());
            assert_eq!(error.raw_os_error(), Some(errno));
        }
        let cause = of(ErrorKind::Os(libc::EIO)).unknown();
        for kind in [
            ErrorKind::Failed(Arc::new(cause)),
            ErrorKind::PublishedNotDurable(libc::EIO),
            ErrorKind::Locked,
        ] {
            let whole = of(kind);
            let error = std::io::Error::from(whole.clone());
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
            assert_eq!((error.raw_os_error(), inner), (None, Some(&whole)));
        }
    }
}
