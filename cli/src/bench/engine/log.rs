//! A region that threads use as a log, and what one thread does by hand for as many.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use daxmap::{AnyRegion, Options, Region};

use super::super::device::Device;
use super::super::measure::time_updates;
use super::super::plan::Walk;
use super::super::scratch::{doing, make_file};
use super::super::tally::Batch;
use super::threads::{Gate, at_once};
use super::{BATCH, RECORD};

/// A region and a file of the same length: two logs.
pub struct Log {
    region: AnyRegion,
    file: File,
    walk: Walk,
    /// Records that went to the region, and to the file.
    appended: AtomicU64,
    by_hand: AtomicU64,
}

impl Log {
    /// Both `len` bytes long, in `directory`.
    pub fn new(directory: &Path, len: u64) -> io::Result<Self> {
        let path = directory.join("log_by_hand");
        Ok(Self {
            region: Options::new().len(len).create(directory.join("log"))?,
            file: make_file(&path, len).map_err(doing(format!("create {}", path.display())))?,
            walk: Walk::log(len, RECORD as u64),
            appended: AtomicU64::new(0),
            by_hand: AtomicU64::new(0),
        })
    }

    /// A batch of so many threads at once.
    pub fn persist(&self, threads: u64, device: &Device) -> io::Result<Batch> {
        at_once(threads, device, |gate| self.append(gate))
    }

    /// One thread's part, and when it was done.
    fn append(&self, gate: Gate<'_>) -> io::Result<(Batch, Instant)> {
        let mut data = [0xa5; RECORD];
        let mut batch = Batch::default();
        batch.times_ns.reserve(BATCH.most as usize);
        let next = || self.appended.fetch_add(1, Ordering::Relaxed);
        let update = |at, data: &[u8]| self.region.write_persist(at, data).map_err(io::Error::from);
        // Not timed: what a thread's first update pays for.
        if gate.wait(update(self.walk.offset(next()), &data)) {
            time_updates(BATCH, self.walk, &mut data, &mut batch, next, update)?;
        }
        Ok((batch, Instant::now()))
    }

    /// A batch of one thread that writes so many records before each sync.
    ///
    /// Each of these records waits for the sync: its time is that of them all.
    pub fn by_hand(&self, writes: u64, device: &Device) -> io::Result<Batch> {
        let mut data = [0xa5; RECORD];
        let mut batch = Batch::default();
        let next = || self.by_hand.fetch_add(writes, Ordering::Relaxed);
        let update = |first: u64, data: &[u8]| {
            for number in first..first + writes {
                self.file.write_all_at(data, self.walk.offset(number))?;
            }
            self.file.sync_data()
        };
        update(next(), &data)?;
        let before = device.read();
        time_updates(BATCH, Walk::NUMBERS, &mut data, &mut batch, next, update)?;
        batch.device = device.read().since(before);
        batch.times_ns =
            batch.times_ns.iter().flat_map(|&ns| (0..writes).map(move |_| ns)).collect();
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 1 << 20;
    const SLOTS: u64 = LEN / RECORD as u64;

    /// Checks the number in each record, its place in the order; returns how many have one. Those
    /// that are not timed have none.
    fn check_numbers(read: impl Fn(u64, &mut [u8]), records: u64) -> u64 {
        let mut numbered = 0;
        for slot in 0..records.min(SLOTS) {
            let mut number = [0; 8];
            read(slot * RECORD as u64, &mut number);
            if number != [0xa5; 8] {
                assert_eq!(u64::from_ne_bytes(number) % SLOTS, slot);
                numbered += 1;
            }
        }
        numbered
    }

    #[test]
    fn threads_append_one_behind_the_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = Log::new(directory.path(), LEN).expect("a log");
        for threads in [1, 4] {
            let before = log.appended.load(Ordering::Relaxed);
            let batch = log.persist(threads, &Device::default()).expect("a batch");
            let timed = batch.times_ns.len() as u64;
            assert!(timed >= threads, "each makes one at least");
            let appended = log.appended.load(Ordering::Relaxed);
            assert_eq!(appended - before, timed + threads, "and one that is not timed");
            let sum: u64 = batch.times_ns.iter().sum();
            assert!(batch.busy_ns >= sum / threads, "no more than {threads} at once");
            assert!(batch.busy_ns >= *batch.times_ns.iter().max().expect("there are times"));
            let read = |at, to: &mut [u8]| log.region.read(at, to).expect("in the region");
            assert!(check_numbers(read, appended) > 0);
        }
    }

    #[test]
    fn by_hand_each_record_takes_as_long_as_its_sync() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = Log::new(directory.path(), LEN).expect("a log");
        let batch = log.by_hand(4, &Device::default()).expect("a batch");
        let written = log.by_hand.load(Ordering::Relaxed);
        assert_eq!(batch.times_ns.len() as u64 + 4, written);
        assert!(batch.times_ns.chunks(4).all(|sync| sync.iter().all(|&ns| ns == sync[0])));
        assert_eq!(batch.busy_ns, batch.times_ns.iter().sum::<u64>() / 4, "they wait together");
        let mut last = [0; RECORD];
        log.file.read_exact_at(&mut last, (written - 1) % SLOTS * 64).expect("in the file");
        assert_ne!(last, [0; RECORD]);
    }

    #[test]
    fn an_error_of_one_thread_is_the_batchs() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut log = Log::new(directory.path(), LEN).expect("a log");
        // Records that lie behind the end.
        log.walk = Walk::NUMBERS;
        log.appended = AtomicU64::new(LEN);
        let error = log.persist(4, &Device::default()).expect_err("out of bounds");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
}
