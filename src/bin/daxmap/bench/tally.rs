//! What has been counted and timed for one case in one phase.

use daxmap::cpu::Counts;
use hdrhistogram::Histogram;

use super::device::Reading;

/// A percentile is given only from this many updates on: below, it would be one outlier's time.
const P99_MIN: u64 = 100;
const P999_MIN: u64 = 1000;

/// Sums over all batches.
#[derive(Debug)]
pub struct Tally {
    histogram: Histogram<u64>,
    total_ns: u64,
    /// Updates that were timed and counted.
    pub updates: u64,
    /// Batches they came in.
    pub batches: u64,
    counts: Counts,
    faults: u64,
    bytes: PerBatch,
    flushes: PerBatch,
}

/// What one batch adds.
#[derive(Debug, Default)]
pub struct Batch {
    /// Nanoseconds of each update.
    pub times_ns: Vec<u64>,
    /// Write-backs and fences that this thread issued.
    pub counts: Counts,
    /// Page faults of this thread.
    pub faults: u64,
    /// What the device counted meanwhile.
    pub device: Reading,
}

/// Times of an update in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    /// Half of the updates took no longer.
    pub p50_ns: u64,
    /// `None` where there were too few updates to say.
    pub p99_ns: Option<u64>,
    /// `None` where there were too few updates to say.
    pub p999_ns: Option<u64>,
    /// The slowest.
    pub max_ns: u64,
    /// Updates per second, one after the other.
    pub per_second: f64,
}

/// A count by the device, per update: of each batch, and over all.
#[derive(Debug, Default)]
struct PerBatch {
    each: Vec<f64>,
    sum: u64,
    unknown: bool,
}

impl PerBatch {
    fn add(&mut self, count: Option<u64>, updates: u64) {
        match count {
            Some(count) => {
                self.each.push(count as f64 / updates as f64);
                self.sum += count;
            }
            None => self.unknown = true,
        }
    }

    /// The middle batch: what others wrote during a few batches does not move it.
    fn median(&self) -> Option<f64> {
        if self.unknown || self.each.is_empty() {
            return None;
        }
        let mut each = self.each.clone();
        each.sort_unstable_by(f64::total_cmp);
        Some(each[(each.len() - 1) / 2])
    }

    fn mean(&self, updates: u64) -> Option<f64> {
        (!self.unknown && updates > 0).then(|| self.sum as f64 / updates as f64)
    }
}

impl Default for Tally {
    fn default() -> Self {
        let histogram = Histogram::new(3).expect("3 significant digits are in 0..=5");
        Self {
            histogram,
            total_ns: 0,
            updates: 0,
            batches: 0,
            counts: Counts::default(),
            faults: 0,
            bytes: PerBatch::default(),
            flushes: PerBatch::default(),
        }
    }
}

impl Tally {
    /// Adds a batch; an empty one adds nothing.
    pub fn add(&mut self, batch: &Batch) {
        let updates = batch.times_ns.len() as u64;
        if updates == 0 {
            return;
        }
        for &ns in &batch.times_ns {
            // It grows as needed: no u64 is out of its range.
            let _ = self.histogram.record(ns);
            self.total_ns += ns;
        }
        self.updates += updates;
        self.batches += 1;
        self.counts.write_backs += batch.counts.write_backs;
        self.counts.non_temporal_lines += batch.counts.non_temporal_lines;
        self.counts.fences += batch.counts.fences;
        self.faults += batch.faults;
        self.bytes.add(batch.device.bytes, updates);
        self.flushes.add(batch.device.flushes, updates);
    }

    /// The times; `None` if there was no update.
    pub fn times(&self) -> Option<Times> {
        if self.updates == 0 {
            return None;
        }
        let quantile = |q, least| {
            (self.updates >= least)
                .then(|| self.histogram.value_at_quantile(q).min(self.histogram.max()))
        };
        Some(Times {
            p50_ns: quantile(0.5, 1)?,
            p99_ns: quantile(0.99, P99_MIN),
            p999_ns: quantile(0.999, P999_MIN),
            max_ns: self.histogram.max(),
            per_second: self.updates as f64 * 1e9 / self.total_ns.max(1) as f64,
        })
    }

    fn per_update(&self, count: u64) -> f64 {
        count as f64 / self.updates.max(1) as f64
    }

    /// Fences of this process per update.
    pub fn fences(&self) -> f64 {
        self.per_update(self.counts.fences)
    }

    /// Cache lines written back by an instruction, per update.
    pub fn write_backs(&self) -> f64 {
        self.per_update(self.counts.write_backs)
    }

    /// Cache lines stored past the cache, per update.
    pub fn non_temporal_lines(&self) -> f64 {
        self.per_update(self.counts.non_temporal_lines)
    }

    /// Page faults per update.
    pub fn faults(&self) -> f64 {
        self.per_update(self.faults)
    }

    /// Bytes the device wrote per update: the middle batch.
    pub fn device_bytes(&self) -> Option<f64> {
        self.bytes.median()
    }

    /// Bytes the device wrote per update: over all batches, what others wrote included.
    pub fn device_bytes_mean(&self) -> Option<f64> {
        self.bytes.mean(self.updates)
    }

    /// Bytes the device wrote over all batches; 0 if nobody counts.
    pub fn all_device_bytes(&self) -> u64 {
        self.bytes.sum
    }

    /// Nanoseconds in all updates.
    pub fn total_ns(&self) -> u64 {
        self.total_ns
    }

    /// Flushes of the device per update: the middle batch.
    pub fn device_flushes(&self) -> Option<f64> {
        self.flushes.median()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(times_ns: Vec<u64>, bytes: Option<u64>) -> Batch {
        let device = Reading { bytes, flushes: None };
        Batch { times_ns, device, ..Batch::default() }
    }

    #[test]
    fn percentiles_need_enough_updates() {
        let mut tally = Tally::default();
        assert_eq!(tally.times(), None);
        tally.add(&batch((1..=99).collect(), None));
        let times = tally.times().expect("there are updates");
        assert_eq!((times.p50_ns, times.max_ns), (50, 99));
        assert_eq!((times.p99_ns, times.p999_ns), (None, None));
        tally.add(&batch(vec![100], None));
        let times = tally.times().expect("there are updates");
        assert_eq!((times.p99_ns, times.p999_ns), (Some(99), None));
        tally.add(&batch(vec![7; 900], None));
        assert!(tally.times().expect("there are updates").p999_ns.is_some());
    }

    #[test]
    fn anothers_burst_does_not_move_the_bytes() {
        let mut tally = Tally::default();
        for bytes in [4096, 4096, 9_000_000, 4096, 4096] {
            tally.add(&batch(vec![1, 1], Some(bytes)));
        }
        assert_eq!(tally.device_bytes(), Some(2048.0));
        assert!(tally.device_bytes_mean().expect("counted") > 100_000.0);
    }

    #[test]
    fn one_unknown_count_leaves_the_sum_unknown() {
        let mut tally = Tally::default();
        tally.add(&batch(vec![1], Some(1)));
        tally.add(&batch(vec![1], None));
        assert_eq!(tally.device_bytes(), None);
        assert_eq!(tally.device_bytes_mean(), None);
    }
}
