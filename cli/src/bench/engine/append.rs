//! Threads that append to a `daxmap::log`.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use daxmap::log::{Log, LogOptions, Lsn, Writer};
use daxmap::{AnyRegion, ErrorKind, Options, Result};

use super::super::device::Device;
use super::super::measure::{Limits, time_updates};
use super::super::plan::Walk;
use super::super::tally::Batch;
use super::threads::{Gate, at_once};
use super::{BATCH, RECORD, THREADS};

/// Segments for each thread: one that it writes, and others that are recycled meanwhile.
const SEGMENTS: u64 = 3;

/// What a log is made for.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// At most so many threads.
    pub threads: u64,
    /// Bytes of a record.
    pub record: usize,
    /// When the batch of each thread ends.
    pub limits: Limits,
}

impl Shape {
    /// That of the table.
    pub const BENCH: Self =
        Self { threads: THREADS[THREADS.len() - 1], record: RECORD, limits: BATCH };

    /// Bytes of a log with segments of at least so many.
    pub const fn log_len(self, segment: u64) -> u64 {
        (SEGMENTS * self.threads + 1) * segment.next_multiple_of(4096)
    }
}

/// The log.
pub struct Records {
    log: Log<AnyRegion>,
    shape: Shape,
    numbers: AtomicU64,
}

impl Records {
    /// One of `len` bytes, in `directory`.
    pub fn new(directory: &Path, len: u64, shape: Shape) -> io::Result<Self> {
        let segment = len / (SEGMENTS * shape.threads + 1) / 4096 * 4096;
        let options = LogOptions::new().region(Options::new().len(len)).segment_bytes(segment);
        let log = options.create(directory.join("records"))?;
        Ok(Self { log, shape, numbers: AtomicU64::new(0) })
    }

    /// Another end for the batches that follow.
    pub fn limit(&mut self, limits: Limits) {
        self.shape.limits = limits;
    }

    /// A batch of so many threads at once, each of which commits so many records at a time.
    ///
    /// Each record waits for its commit: its time is that of them all.
    pub fn append(&self, threads: u64, records: u64, device: &Device) -> io::Result<Batch> {
        // Most of the recycling is not timed; what fills the log in a batch is.
        self.release()?;
        let mut batch = at_once(threads, device, |gate| self.work(gate, records))?;
        if records > 1 {
            let each = |&ns: &u64| (0..records).map(move |_| ns);
            batch.times_ns = batch.times_ns.iter().flat_map(each).collect();
        }
        Ok(batch)
    }

    /// One thread's part, and when it was done.
    fn work(&self, gate: Gate<'_>, records: u64) -> io::Result<(Batch, Instant)> {
        let limits = self.shape.limits;
        let mut data = vec![0xa5; self.shape.record];
        let mut batch = Batch::default();
        batch.times_ns.reserve(limits.most as usize);
        let mut writer = self.log.writer();
        // Not timed: what a thread's first commit pays for.
        let ready = self.commit(&mut writer, records, &data);
        if gate.wait(ready.map_err(io::Error::from)) {
            let next = || self.numbers.fetch_add(1, Ordering::Relaxed);
            let update =
                |_, data: &[u8]| self.commit(&mut writer, records, data).map_err(io::Error::from);
            time_updates(limits, Walk::NUMBERS, &mut data, &mut batch, next, update)?;
        }
        Ok((batch, Instant::now()))
    }

    fn commit(&self, writer: &mut Writer<'_, AnyRegion>, records: u64, data: &[u8]) -> Result<()> {
        for _ in 0..records {
            writer.stage(data)?;
        }
        loop {
            match writer.commit() {
                Ok(_) => return Ok(()),
                // What is staged stays. Somebody else may be faster than this thread.
                Err(error) if matches!(error.kind(), ErrorKind::Full { .. }) => self.release()?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives all records up, so that their space can be used again.
    fn release(&self) -> Result<()> {
        match self.log.last() {
            Lsn::ZERO => Ok(()),
            last => self.log.release_up_to(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_that_is_timed_is_in_the_log() {
        let directory = tempfile::tempdir().expect("a directory");
        let records = Records::new(directory.path(), 1 << 20, Shape::BENCH).expect("a log");
        for (threads, each) in [(1, 1), (4, 1), (16, 1), (1, 64)] {
            let before = records.log.last().get();
            let batch = records.append(threads, each, &Device::default()).expect("a batch");
            let timed = batch.times_ns.len() as u64;
            assert!(timed >= threads * each, "each makes one at least");
            let appended = records.log.last().get() - before;
            assert_eq!(appended, timed + threads * each, "and one that is not timed");
            let alike = |commit: &[u64]| commit.iter().all(|&ns| ns == commit[0]);
            assert!(batch.times_ns.chunks(each as usize).all(alike), "they wait together");
            let sum: u64 = batch.times_ns.iter().sum();
            assert!(batch.busy_ns >= sum / each / threads, "no more than {threads} at once");
        }
    }

    #[test]
    fn a_full_log_is_recycled() {
        let directory = tempfile::tempdir().expect("a directory");
        let records = Records::new(directory.path(), 1 << 20, Shape::BENCH).expect("a log");
        let mut writer = records.log.writer();
        for _ in 0..500 {
            // Together more than there is room for.
            records.commit(&mut writer, 64, &[1; RECORD]).expect("recycled");
        }
        assert!(records.log.released() > Lsn::ZERO);
        assert_eq!(records.log.last(), Lsn::new(500 * 64));
    }
}
