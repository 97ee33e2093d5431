//! The device itself, without a kernel: contents, log, and the fault that is planned.

use std::sync::Arc;

use rustix::io::Errno;

use super::image::Image;
use super::log::{Entry, Log, Outcome, Request, SECTOR};

/// Which request a fault meets. Requests are counted from 1, from the moment of planning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Write(u64),
    Flush(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Fail(Errno),
    Lose(Errno),
    TearAndCut(usize),
    Cut,
}

/// What goes wrong, and when. Discards count as writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    target: Target,
    action: Action,
}

impl Fault {
    /// The n-th write from now is answered with `errno` and changes nothing; all others succeed.
    #[must_use]
    pub fn nth_write(n: u64, errno: Errno) -> Self {
        Self { target: Target::Write(n), action: Action::Fail(errno) }
    }

    /// The n-th flush from now is answered with `errno`. What was written before stays in the
    /// device's cache, and the next flush makes it durable.
    #[must_use]
    pub fn nth_flush(n: u64, errno: Errno) -> Self {
        Self { target: Target::Flush(n), action: Action::Fail(errno) }
    }

    /// The n-th flush from now is answered with `errno`, and the device has lost everything
    /// that was written since the last successful flush.
    #[must_use]
    pub fn nth_flush_loses(n: u64, errno: Errno) -> Self {
        Self { target: Target::Flush(n), action: Action::Lose(errno) }
    }

    /// Of the n-th write from now only the first `sectors` sectors reach the medium: the power
    /// goes in the middle of it.
    #[must_use]
    pub fn tear(n: u64, sectors: usize) -> Self {
        Self { target: Target::Write(n), action: Action::TearAndCut(sectors) }
    }

    /// The power goes after n writes from now: the next one, and everything after, is refused.
    #[must_use]
    pub fn power_cut_after(n: u64) -> Self {
        Self { target: Target::Write(n + 1), action: Action::Cut }
    }
}

/// Requests counted since the fault was planned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes and discards.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
}

/// Entries that a log can have.
const ENTRIES_MAX: usize = 1 << 20;

/// Contents, log and plan.
pub(super) struct Medium {
    contents: Image,
    base: Image,
    entries: Vec<Entry>,
    logged_bytes: usize,
    logged_bytes_max: usize,
    overflowed: bool,
    fault: Option<Fault>,
    fired: bool,
    powered: bool,
    counts: Counts,
}

impl Medium {
    pub(super) fn new(contents: Image, logged_bytes_max: usize) -> Self {
        Self {
            base: contents.clone(),
            contents,
            entries: Vec::new(),
            logged_bytes: 0,
            logged_bytes_max,
            overflowed: false,
            fault: None,
            fired: false,
            powered: true,
            counts: Counts::default(),
        }
    }

    /// Other contents, an empty log, no fault, power on.
    pub(super) fn fill(&mut self, contents: Image) {
        *self = Self::new(contents, self.logged_bytes_max);
    }

    pub(super) fn plan(&mut self, fault: Option<Fault>) {
        self.fault = fault;
        self.fired = false;
        self.counts = Counts::default();
    }

    pub(super) fn fired(&self) -> bool {
        self.fired
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn power(&mut self, on: bool) {
        self.powered = on;
    }

    pub(super) fn contents(&self) -> Image {
        self.contents.clone()
    }

    pub(super) fn entries(&self) -> usize {
        self.entries.len()
    }

    /// The log, unless it was too long.
    pub(super) fn log(&self) -> Option<Log> {
        (!self.overflowed).then(|| Log { base: self.base.clone(), entries: self.entries.clone() })
    }

    pub(super) fn size(&self) -> u64 {
        self.contents.len()
    }

    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Errno> {
        if !self.powered {
            return Err(Errno::IO);
        }
        self.contents.read(offset, buf);
        Ok(())
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Errno> {
        self.change(Request::Write { offset, data: Arc::from(data) }, data.len())
    }

    pub(super) fn zero(&mut self, offset: u64, len: u64) -> Result<(), Errno> {
        self.change(Request::Zero { offset, len }, 0)
    }

    fn change(&mut self, request: Request, bytes: usize) -> Result<(), Errno> {
        if !self.powered {
            return Err(Errno::IO);
        }
        if self.entries.len() >= ENTRIES_MAX || self.logged_bytes + bytes > self.logged_bytes_max {
            // A log with a gap would give crash images that never were.
            self.overflowed = true;
            return Err(Errno::NOSPC);
        }
        self.logged_bytes += bytes;
        self.counts.writes += 1;
        let outcome = match self.meets(Target::Write(self.counts.writes)) {
            None | Some(Action::Lose(_)) => Outcome::Done,
            Some(Action::Fail(errno)) => Outcome::Failed(errno),
            Some(Action::TearAndCut(sectors)) => {
                self.powered = false;
                Outcome::Torn(sectors)
            }
            Some(Action::Cut) => {
                self.powered = false;
                return Err(Errno::IO);
            }
        };
        match (&request, outcome) {
            (Request::Write { offset, data }, Outcome::Done) => self.contents.write(*offset, data),
            (Request::Write { offset, data }, Outcome::Torn(sectors)) => {
                self.contents.write(*offset, &data[..data.len().min(sectors * SECTOR)]);
            }
            (Request::Zero { offset, len }, Outcome::Done) => self.contents.zero(*offset, *len),
            _ => {}
        }
        self.entries.push(Entry { request, outcome });
        match outcome {
            Outcome::Done => Ok(()),
            Outcome::Failed(errno) => Err(errno),
            _ => Err(Errno::IO),
        }
    }

    pub(super) fn flush(&mut self) -> Result<(), Errno> {
        if !self.powered {
            return Err(Errno::IO);
        }
        self.counts.flushes += 1;
        let outcome = match self.meets(Target::Flush(self.counts.flushes)) {
            Some(Action::Fail(errno)) => Outcome::Failed(errno),
            Some(Action::Lose(errno)) => Outcome::Lost(errno),
            _ => Outcome::Done,
        };
        self.entries.push(Entry { request: Request::Flush, outcome });
        match outcome {
            Outcome::Failed(errno) => Err(errno),
            Outcome::Lost(errno) => {
                let log = Log { base: self.base.clone(), entries: self.entries.clone() };
                self.contents = log.image_after(self.entries.len());
                Err(errno)
            }
            _ => Ok(()),
        }
    }

    fn meets(&mut self, target: Target) -> Option<Action> {
        let fault = self.fault.filter(|fault| fault.target == target)?;
        self.fired = true;
        Some(fault.action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 16;

    fn medium(fault: Fault) -> Medium {
        let mut medium = Medium::new(Image::new(SIZE), 1 << 20);
        medium.plan(Some(fault));
        medium
    }

    fn byte(image: &Image, offset: u64) -> u8 {
        let mut byte = [0];
        image.read(offset, &mut byte);
        byte[0]
    }

    #[test]
    fn the_nth_write_fails_once() {
        let mut medium = medium(Fault::nth_write(2, Errno::NOSPC));
        assert_eq!(medium.write(0, &[1; 512]), Ok(()));
        assert!(!medium.fired());
        assert_eq!(medium.write(0, &[2; 512]), Err(Errno::NOSPC));
        assert!(medium.fired());
        assert_eq!(medium.flush(), Ok(()));
        assert_eq!(byte(&medium.contents(), 0), 1);
        assert_eq!(medium.write(0, &[3; 512]), Ok(()));
        assert_eq!(byte(&medium.contents(), 0), 3);
        assert_eq!(medium.counts(), Counts { writes: 3, flushes: 1 });
        let log = medium.log().unwrap();
        assert_eq!(log.image_after(log.entries.len()), medium.contents());
    }

    #[test]
    fn a_flush_can_lose_the_cache() {
        let mut medium = medium(Fault::nth_flush_loses(2, Errno::IO));
        medium.write(0, &[1; 512]).unwrap();
        medium.flush().unwrap();
        medium.write(0, &[2; 512]).unwrap();
        assert_eq!(medium.flush(), Err(Errno::IO));
        assert_eq!(byte(&medium.contents(), 0), 1);
        medium.write(512, &[3; 512]).unwrap();
        medium.flush().unwrap();
        let log = medium.log().unwrap();
        assert_eq!(log.image_after(log.entries.len()), medium.contents());
    }

    #[test]
    fn after_a_cut_everything_is_refused_until_the_power_is_back() {
        for fault in [Fault::power_cut_after(1), Fault::tear(2, 1)] {
            let mut medium = medium(fault);
            medium.write(0, &[1; 1024]).unwrap();
            assert_eq!(medium.write(0, &[2; 1024]), Err(Errno::IO));
            assert_eq!(medium.write(0, &[3; 1024]), Err(Errno::IO));
            assert_eq!(medium.flush(), Err(Errno::IO));
            assert_eq!(medium.read(0, &mut [0]), Err(Errno::IO));
            medium.power(true);
            let torn = fault == Fault::tear(2, 1);
            assert_eq!(byte(&medium.contents(), 0), if torn { 2 } else { 1 });
            assert_eq!(byte(&medium.contents(), 512), 1);
            assert_eq!(medium.read(0, &mut [0]), Ok(()));
        }
    }

    #[test]
    fn a_log_that_is_too_long_is_none() {
        let mut medium = Medium::new(Image::new(SIZE), 1024);
        medium.write(0, &[1; 1024]).unwrap();
        assert!(medium.log().is_some());
        assert_eq!(medium.write(0, &[1; 512]), Err(Errno::NOSPC));
        assert!(medium.log().is_none());
    }
}
