//! One error type: which operation, on which path and range, why, and whether the durability
//! of that range is now unknown.

mod io;
mod kind;
mod operation;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

pub use self::kind::ErrorKind;
pub use self::operation::Operation;

/// The result of everything in this library that can fail.
pub type Result<T> = std::result::Result<T, Error>;

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
    /// An error of a region of one's own.
    #[must_use]
    pub fn new(operation: Operation, kind: ErrorKind) -> Self {
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
        let mut error = Self::new(operation, ErrorKind::Os(errno.raw_os_error()));
        error.0.call = Some(call);
        error
    }

    /// A failed system call of a region of one's own: its name as in the manual page, and its errno.
    #[must_use]
    pub fn from_call(operation: Operation, call: &'static str, errno: i32) -> Self {
        Self::os(operation, call, Errno::from_raw_os_error(errno))
    }

    /// The same error, on this path, where it names none yet.
    #[must_use]
    pub fn at(mut self, path: &Path) -> Self {
        self.0.path.get_or_insert_with(|| path.to_owned());
        self
    }

    /// The same error, about `len` bytes at `offset` of the region.
    #[must_use]
    pub fn over(mut self, offset: u64, len: u64) -> Self {
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

    /// The same error, after which the durability of the range is unknown.
    #[must_use]
    pub fn unknown(mut self) -> Self {
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

    /// The errno of the system call behind this error, looking through `Failed`. Compare it with
    /// the constants of the `libc` crate.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match &self.0.kind {
            ErrorKind::Os(errno) | ErrorKind::PublishedNotDurable(errno) => Some(*errno),
            ErrorKind::Failed(cause) => cause.raw_os_error(),
            _ => None,
        }
    }

    /// The same, as the library's own code compares it.
    pub(crate) fn errno(&self) -> Option<Errno> {
        self.raw_os_error().map(Errno::from_raw_os_error)
    }

    /// True if bytes written before this error may or may not be durable: the way on is to
    /// reopen and recover from the medium.
    #[must_use]
    pub fn is_durability_unknown(&self) -> bool {
        self.0.durability_unknown
    }

    /// True if this error is the region's latch: an earlier durability error made it final.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Failed(_))
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
        let said = matches!(self.0.kind, ErrorKind::Failed(_) | ErrorKind::PublishedNotDurable(_));
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

impl std::error::Error for Error {
    /// The error that made the region final, of `Failed`.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.kind {
            ErrorKind::Failed(cause) => Some(cause.as_ref()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn of(kind: ErrorKind) -> Error {
        Error::new(Operation::Drain, kind)
    }

    #[test]
    fn the_source_is_what_came_first() {
        use std::error::Error as _;

        let first = of(ErrorKind::Os(libc::EIO));
        assert!(first.source().is_none());
        let poisoned = of(ErrorKind::Failed(Arc::new(first.clone())));
        assert_eq!(poisoned.source().unwrap().downcast_ref::<Error>(), Some(&first));
        assert_eq!(poisoned.raw_os_error(), Some(libc::EIO));
        assert_eq!(of(ErrorKind::PublishedNotDurable(libc::EIO)).raw_os_error(), Some(libc::EIO));
        assert!(of(ErrorKind::Empty).raw_os_error().is_none());
    }

    #[test]
    fn what_is_unknown_is_said_once() {
        const UNKNOWN: &str = "durability of these bytes is unknown";
        let failed = Error::os(Operation::Drain, "fdatasync", Errno::IO).over(0, 64);
        assert_eq!(failed.to_string().matches(UNKNOWN).count(), 0, "{failed}");
        let unknown = failed.unknown();
        assert_eq!(unknown.to_string().matches(UNKNOWN).count(), 1, "{unknown}");
        let poisoned = of(ErrorKind::Failed(Arc::new(unknown))).unknown();
        assert_eq!(poisoned.to_string().matches(UNKNOWN).count(), 1, "{poisoned}");
        let published = of(ErrorKind::PublishedNotDurable(libc::EIO)).unknown();
        assert_eq!(published.to_string().matches(UNKNOWN).count(), 0, "{published}");
    }
}
