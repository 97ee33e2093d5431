//! What a simulated region is made of: model, image, length, latch, and what goes wrong.

use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use super::image::Image;
use super::model::Model;
use super::region::SimRegion;
use super::thread::this_thread;
use super::trace::{Kind, Step};
use daxmap::model::bounds;
use daxmap::probe::Shutdowns;
use daxmap::{Error, ErrorKind, Operation, Result};

/// What the region is made to do wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Faults {
    /// The drain with this number, counted from 1 over all threads, fails with EIO, and what it
    /// should have covered no later drain covers.
    pub failing_drain: Option<u32>,
    /// A failed drain does not poison the region: a file behind bare calls of fdatasync(2).
    pub forgets_errors: bool,
    /// A growth is durable at the next drain and not at once: ftruncate(2) without fsync(2). Until
    /// then a crash may leave the old length.
    pub lazy_growth: bool,
}

/// Whose flushes a drain covers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// The calling thread's.
    Own,
    /// Those of every thread.
    All,
}

/// Once it has left `Open` it does not return; a cause stays what later calls report.
pub(super) enum Latch {
    Open,
    Failed(Arc<Error>),
    Closed(Option<Arc<Error>>),
}

pub(super) struct State {
    pub(super) model: Model,
    /// Of a region that is a crash image: which.
    pub(super) image: Option<Image>,
    pub(super) len: u64,
    pub(super) max_len: u64,
    /// The length that a crash may fall back to.
    pub(super) old_len: Option<u64>,
    pub(super) latch: Latch,
    pub(super) faults: Faults,
    /// What the region says of its memory.
    pub(super) shutdowns: Option<Shutdowns>,
    pub(super) drains: u32,
    /// Counts the stores, growths and drains: unchanged if the images of a crash are.
    pub(super) version: u64,
    /// The version, and the count of notes, at the crash explored last.
    pub(super) explored: Option<(u64, usize)>,
    pub(super) trace: Vec<Step>,
    pub(super) traced: bool,
}

pub(super) fn failed(operation: Operation, kind: ErrorKind) -> Error {
    Error::new(operation, kind).at(Path::new("simulated"))
}

impl State {
    #[inline]
    pub(super) fn readable(&self, operation: Operation) -> Result<()> {
        match self.latch {
            Latch::Closed(_) => Err(failed(operation, ErrorKind::Closed)),
            Latch::Open | Latch::Failed(_) => Ok(()),
        }
    }

    #[inline]
    pub(super) fn writable(&self, operation: Operation) -> Result<()> {
        match &self.latch {
            Latch::Open => Ok(()),
            Latch::Closed(None) => Err(failed(operation, ErrorKind::Closed)),
            Latch::Failed(cause) | Latch::Closed(Some(cause)) => {
                Err(failed(operation, ErrorKind::Failed(Arc::clone(cause))).unknown())
            }
        }
    }

    #[inline]
    pub(super) fn range(
        &self,
        operation: Operation,
        offset: u64,
        len: u64,
    ) -> Result<(usize, usize)> {
        bounds::check(operation, offset, len, self.len).map_err(|e| e.at(Path::new("simulated")))
    }

    #[inline]
    pub(super) fn word(&self, operation: Operation, offset: u64) -> Result<usize> {
        bounds::check_word(operation, offset, self.len).map_err(|e| e.at(Path::new("simulated")))
    }

    /// Decides what the lines of a range hold, if this is a crash image.
    #[inline]
    pub(super) fn touch(&mut self, parent: Option<&SimRegion>, at: usize, len: usize) {
        let (Some(image), Some(parent)) = (&mut self.image, parent) else { return };
        if len == 0 {
            return;
        }
        for line in self.model.line_of(at)..=self.model.line_of(at + len - 1) {
            if !image.is_touched(line) && !image.take_prepared(line) {
                let range = self.model.line_range(line);
                let limit = image.len;
                resolve(image, parent, (line, 0), limit, &mut self.model.memory[range]);
            }
        }
    }

    /// Begins an operation that changes the model or its order.
    pub(super) fn step(&mut self, kind: Kind, offset: u64, len: u64) {
        self.model.op += 1;
        if self.traced {
            self.trace.push(Step { thread: this_thread(), kind, failed: false, offset, len });
        }
    }

    pub(super) fn load_word(&self, at: usize) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.model.memory[at..at + 8]);
        u64::from_ne_bytes(word)
    }

    pub(super) fn flush(&mut self, offset: u64, len: u64) -> Result<()> {
        self.writable(Operation::Flush)?;
        let (at, count) = self.range(Operation::Flush, offset, len)?;
        self.step(Kind::Flush, offset, len);
        self.model.flush(this_thread(), at, count);
        Ok(())
    }

    pub(super) fn drain(&mut self, operation: Operation, whose: Whose) -> Result<()> {
        self.writable(operation)?;
        self.step(if whose == Whose::Own { Kind::Drain } else { Kind::SyncAll }, 0, 0);
        self.drains += 1;
        if self.faults.failing_drain == Some(self.drains) {
            if let Some(step) = self.trace.last_mut() {
                step.failed = true;
            }
            match whose {
                Whose::Own => self.model.lose_captures(this_thread()),
                Whose::All => self.model.lose_all_captures(),
            }
            let cause = Error::from_call(operation, "fdatasync", Errno::IO.raw_os_error())
                .at(Path::new("simulated"));
            let cause = cause.unknown();
            if !self.faults.forgets_errors {
                self.latch = Latch::Failed(Arc::new(cause.clone()));
            }
            return Err(cause);
        }
        match whose {
            Whose::Own => self.model.drain(this_thread()),
            Whose::All => self.model.drain_all(),
        }
        self.old_len = None;
        self.version += 1;
        Ok(())
    }

    /// Of a crash image: forgets what the last run did.
    pub(super) fn rewind(&mut self) {
        self.latch = Latch::Open;
        self.old_len = None;
        self.trace.clear();
        self.drains = 0;
        self.version = 0;
        self.explored = None;
        if let Some(image) = &self.image {
            self.len = image.len;
        }
    }
}

/// Fills in the content of a line of a crash image from the region that crashed; bytes from
/// `limit` on are zero. If the crashed region is an image itself and has not touched the line, its
/// own crash, `hops` crashes back, is what left the line open.
fn resolve(
    image: &mut Image,
    crashed: &SimRegion,
    (line, hops): (usize, u8),
    limit: u64,
    memory: &mut [u8],
) {
    let state = crashed.lock();
    if let (Some(before), Some(parent)) = (&state.image, crashed.parent())
        && !before.is_touched(line)
    {
        let limit = limit.min(before.len);
        drop(state);
        resolve(image, parent, (line, hops + 1), limit, memory);
        return;
    }
    memory.copy_from_slice(state.model.durable(line));
    let start = (line as u64) << state.model.mode.line_shift();
    let room = limit.saturating_sub(start).min(memory.len() as u64);
    memory[room as usize..].fill(0);
    image.decide(state.model.mode, (line, hops), room, memory, state.model.pending(line));
}
