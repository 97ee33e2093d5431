//! A shell command that runs while commits are measured, and is ended with what it started.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::bench::interrupt;

/// Before anything is measured beside it.
const SETTLE: Duration = Duration::from_millis(500);
/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// A running load; ended when this goes out of scope.
pub struct Load {
    child: Child,
}

impl Load {
    /// Starts `command` with a shell, in a process group of its own, and gives it time to begin.
    /// `directory` is where it may leave files.
    pub fn start(command: &str, directory: &Path) -> io::Result<Self> {
        let child = Command::new("sh")
            .args(["-c", command])
            .env("DAXMAP_CHECK_DIR", directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        let mut load = Self { child };
        let began = Instant::now();
        while began.elapsed() < SETTLE {
            interrupt::check()?;
            load.check()?;
            sleep(POLL);
        }
        Ok(load)
    }

    /// An error if it no longer runs: what was measured then was not under load.
    pub fn check(&mut self) -> io::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(io::Error::other(format!(
                "the load ended before the measurement ({status}); it must run until it is ended"
            ))),
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // ESRCH: nobody is left.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        let began = Instant::now();
        while began.elapsed() < GRACE && matches!(self.child.try_wait(), Ok(None)) {
            sleep(POLL);
        }
        // Those of its group that outlived it too.
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_has_ended_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = Load::start("exit 3", directory.path()).err().expect("it has ended");
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }

    #[test]
    fn what_a_load_started_ends_with_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let beat = directory.path().join("beat");
        // The shell goes at SIGTERM; its child ignores it.
        let command = "(trap '' TERM; while :; do date +%N > $DAXMAP_CHECK_DIR/beat; done) & wait";
        let mut load = Load::start(command, directory.path()).expect("it runs");
        load.check().expect("still");
        assert!(beat.exists());
        drop(load);
        std::fs::remove_file(&beat).expect("it is there");
        sleep(Duration::from_millis(300));
        assert!(!beat.exists(), "nobody is left that would write it");
    }
}
