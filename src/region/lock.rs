//! Who else may have the file open: advisory locks (flock(2)) of whole files.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::fs::{self, FlockOperation};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Operation, Result};

/// The advisory lock that a region holds for as long as it is open (flock(2)). It keeps off only
/// those who ask for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lock {
    /// None: whoever opens the file may write it at the same time.
    None,
    /// Others may hold a shared lock too, and nobody an exclusive one.
    Shared,
    /// Nobody else holds a lock.
    Exclusive,
}

/// `true` is [`Lock::Exclusive`], `false` is [`Lock::None`].
impl From<bool> for Lock {
    fn from(exclusive: bool) -> Self {
        if exclusive { Self::Exclusive } else { Self::None }
    }
}

/// Pauses between two attempts, in ascending order; the last is repeated.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(1), Duration::from_millis(5), Duration::from_millis(20)];

impl Lock {
    /// Takes the lock, and waits for others until `patience` has passed. In place of another lock
    /// of the same open file: flock(2) may give that up first.
    ///
    /// # Errors
    ///
    /// `Locked`; `Os` from flock(2), where the filesystem has no locks say.
    pub(super) fn take(self, fd: BorrowedFd<'_>, patience: Duration) -> Result<()> {
        let how = match self {
            Self::None => return Ok(()),
            Self::Shared => FlockOperation::NonBlockingLockShared,
            Self::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        let began = Instant::now();
        let mut pauses = PAUSES.into_iter();
        let mut pause = PAUSES[0];
        loop {
            // Not a call that waits: nothing but a signal would end it.
            match fs::flock(fd, how) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(Error::os(Operation::Lock, "flock", errno)),
            }
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(Error::new(Operation::Lock, ErrorKind::Locked));
            }
            pause = pauses.next().unwrap_or(pause);
            std::thread::sleep(pause.min(left));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    /// The same file opened twice: two owners of locks.
    fn twice() -> (tempfile::NamedTempFile, File) {
        let one = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        let other = one.reopen().unwrap();
        (one, other)
    }

    #[test]
    fn who_may_be_there_beside_whom() {
        for (first, second, together) in [
            (Lock::None, Lock::Exclusive, true),
            (Lock::Shared, Lock::Shared, true),
            (Lock::Shared, Lock::Exclusive, false),
            (Lock::Exclusive, Lock::Shared, false),
            (Lock::Exclusive, Lock::Exclusive, false),
            (Lock::Exclusive, Lock::None, true),
        ] {
            let (one, other) = twice();
            first.take(one.as_file().as_fd(), Duration::ZERO).unwrap();
            let taken = second.take(other.as_fd(), Duration::ZERO);
            assert_eq!(taken.is_ok(), together, "{first:?} and {second:?}");
        }
    }

    #[test]
    fn waiting_ends_with_the_other_or_with_the_limit() {
        let (one, other) = twice();
        Lock::Exclusive.take(one.as_file().as_fd(), Duration::ZERO).unwrap();
        let (began, limit) = (Instant::now(), Duration::from_millis(30));
        let error = Lock::Shared.take(other.as_fd(), limit).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Locked) && began.elapsed() >= limit);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(limit);
                fs::flock(one.as_file(), FlockOperation::Unlock).unwrap();
            });
            Lock::Exclusive.take(other.as_fd(), Duration::from_secs(60)).unwrap();
        });
    }
}
