//! The host's end of a guest that runs.
//!
//! Every wait has an end, whatever the guest and `ci/vm` do, and its error says what was waited
//! for.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, ChildStderr, ChildStdout, Command};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{GuestError, Output};

/// Time in which a guest says its next line, or gets to where it is stopped. It may share its
/// processor with others, and is emulated.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// Time in which `ci/vm` ends once the guest has, or has to.
const END: Duration = Duration::from_secs(60);
/// Time in which `ci/vm` starts the guest; the first time it fetches what it needs.
const START: Duration = Duration::from_secs(900);
const POLL: Duration = Duration::from_millis(5);

/// Exit status of `ci/vm` for a guest that ran out of time.
const STATUS_TIMED_OUT: i32 = 124;
/// Exit status of `ci/vm` for a guest that could not be had or ended without a status.
const STATUS_NO_GUEST: i32 = 125;

/// A guest that runs. Dropping it kills the guest.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: ChildStdout,
    stderr: ChildStderr,
    /// When `ci/vm` has ended at the latest.
    deadline: Instant,
    seen: Vec<u8>,
    /// Bytes of `seen` that [`line`](Self::line) has handed out.
    taken: usize,
}

impl Running {
    /// `ci/vm`, with pipes, which was told to kill the guest after `timeout`.
    pub(super) fn new(mut child: Child, timeout: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + START + timeout + END;
        match (child.stdout.take(), child.stderr.take()) {
            (Some(stdout), Some(stderr)) => {
                Ok(Self { child, stdout, stderr, deadline, seen: Vec::new(), taken: 0 })
            }
            _ => Err(io::Error::other("no pipes for the output")),
        }
    }

    /// The next line the command printed, without its end; `None` when it has ended. `awaited`
    /// says what the line is expected to tell.
    ///
    /// # Errors
    ///
    /// `TimedOut` after [`PATIENCE`], and those of reading.
    pub fn line(&mut self, awaited: &str) -> io::Result<Option<String>> {
        let until = Instant::now() + PATIENCE;
        loop {
            let rest = &self.seen[self.taken..];
            if let Some(len) = rest.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&rest[..len]).into_owned();
                self.taken += len + 1;
                return Ok(Some(line));
            }
            if !read_more(&mut self.stdout, &mut self.seen, until, awaited)? {
                return Ok(None);
            }
        }
    }

    /// True until the guest, or `ci/vm`, has ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the end of the command, at most for the guest's timeout.
    ///
    /// # Errors
    ///
    /// There was no guest, or it did not end in time.
    pub fn wait(&mut self) -> Result<Output, GuestError> {
        let until = self.deadline;
        while read_more(&mut self.stdout, &mut self.seen, until, "the end of the guest's output")? {
        }
        let status = self.reap(until)?;
        let mut said = Vec::new();
        while read_more(&mut self.stderr, &mut said, until, "the end of ci/vm's errors")? {}
        let reason = String::from_utf8_lossy(&said).into_owned();
        let stdout = String::from_utf8_lossy(&self.seen).into_owned();
        match status {
            Some(STATUS_TIMED_OUT) => Err(GuestError::TimedOut { reason, stdout }),
            None | Some(STATUS_NO_GUEST) => Err(GuestError::NoGuest { reason, stdout }),
            Some(status) => Ok(Output { status, stdout }),
        }
    }

    /// Cuts the guest's power at this moment and returns the lines it had printed. The contents
    /// of its NVDIMMs stay where [`Guest::keep_files`](super::Guest::keep_files) put them: every
    /// store it executed, flushed or not, and the disks as the host's page cache has them.
    ///
    /// # Errors
    ///
    /// Of asking for its end, `TimedOut` if that does not come, and those of reading.
    pub fn kill(mut self) -> io::Result<String> {
        self.terminate()?;
        let until = Instant::now() + END;
        let awaited = "the output of a guest that was killed";
        while read_more(&mut self.stdout, &mut self.seen, until, awaited)? {}
        self.reap(until)?;
        Ok(String::from_utf8_lossy(&self.seen).into_owned())
    }

    /// The exit status of `ci/vm`, which has nothing left to do but to end.
    fn reap(&mut self, until: Instant) -> io::Result<Option<i32>> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            if Instant::now() > until {
                return Err(timed_out("the end of ci/vm"));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Asks `ci/vm` to kill the guest and to clean up after it.
    fn terminate(&self) -> io::Result<()> {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &pid]).status()?;
        if killed.success() { Ok(()) } else { Err(io::Error::other("ci/vm is gone already")) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_running() {
            // Nothing is left to tell if this fails: the guest dies with ci/vm.
            let _ = self.terminate();
            if self.reap(Instant::now() + END).is_err() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

/// Appends what comes out of a pipe next; false at its end.
fn read_more(
    pipe: &mut (impl Read + AsFd),
    to: &mut Vec<u8>,
    until: Instant,
    awaited: &str,
) -> io::Result<bool> {
    let left = until.saturating_duration_since(Instant::now());
    let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut ready = [PollFd::new(pipe, PollFlags::IN)];
    if rustix::io::retry_on_intr(|| poll(&mut ready, Some(&left)))? == 0 {
        return Err(timed_out(awaited));
    }
    let mut chunk = [0; 4096];
    let read = pipe.read(&mut chunk)?;
    to.extend_from_slice(&chunk[..read]);
    Ok(read > 0)
}

fn timed_out(awaited: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("waited too long for {awaited}"))
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn a_wait_for_what_does_not_come_ends_and_says_for_what() {
        let mut child = Command::new("sleep").arg("60").stdout(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdout.take().unwrap();
        let mut seen = Vec::new();
        let until = Instant::now() + Duration::from_millis(50);
        let error = read_more(&mut pipe, &mut seen, until, "a word").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "waited too long for a word");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!read_more(&mut pipe, &mut seen, Instant::now() + END, "the end").unwrap());
    }
}
