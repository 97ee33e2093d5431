//! What has been counted and timed for one case in one phase.

use daxmap::cpu::Counts;
use hdrhistogram::Histogram;

use super::device::Reading;

/// A percentile is given only from this many updates on: below, it would be one outlier's time.
pub const P99_MIN: u64 = 100;
pub const P999_MIN: u64 = 1000;

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
    /// Updates per second of each batch.
    rates: Vec<f64>,
}

/// What one batch adds.
#[derive(Debug, Default)]
pub struct Batch {
    /// Nanoseconds of each update.
    pub times_ns: Vec<u64>,
    /// Nanoseconds that the updates took together: the sum, unless threads made them at once.
    pub busy_ns: u64,
    /// Write-backs and fences that the updating threads issued.
    pub counts: Counts,
    /// Page faults of these threads.
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
    /// Updates per second: one after the other, or of all threads together.
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
        if self.unknown {
            return None;
        }
        median(self.each.clone())
    }

    fn mean(&self, updates: u64) -> Option<f64> {
        (!self.unknown && updates > 0).then(|| self.sum as f64 / updates as f64)
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

impl Batch {
    /// Adds what another thread did at the same time.
    pub fn join(&mut self, other: &Self) {
        self.times_ns.extend_from_slice(&other.times_ns);
        add(&mut self.counts, other.counts);
        self.faults += other.faults;
    }
}

fn add(sum: &mut Counts, counts: Counts) {
    sum.write_backs += counts.write_backs;
    sum.non_temporal_lines += counts.non_temporal_lines;
    sum.fences += counts.fences;
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
            rates: Vec::new(),
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
        }
        self.total_ns += batch.busy_ns;
        self.rates.push(updates as f64 * 1e9 / batch.busy_ns.max(1) as f64);
        self.updates += updates;
        self.batches += 1;
        add(&mut self.counts, batch.counts);
        self.faults += batch.faults;
        self.bytes.add(batch.device.bytes, updates);
        self.flushes.add(batch.device.flushes, updates);
    }

    /// The times; `None` if there was no update.
    pub fn times(&self) -> Option<Times> {
        if self.updates == 0 {
            return None;
        }
        let quantile = |q, least| (self.updates >= least).then(|| self.quantile(q));
        Some(Times {
            p50_ns: quantile(0.5, 1)?,
            p99_ns: quantile(0.99, P99_MIN),
            p999_ns: quantile(0.999, P999_MIN),
            max_ns: self.histogram.max(),
            per_second: self.updates as f64 * 1e9 / self.total_ns.max(1) as f64,
        })
    }

    /// So great a part of the updates took no longer, in nanoseconds: exact to 1 in 1000, never less
    /// than the exact value, never more than the slowest. 0 if there was none.
    pub fn quantile(&self, part: f64) -> u64 {
        self.histogram.value_at_quantile(part).min(self.histogram.max())
    }

    /// How many times as many updates per second as `base`, whose batches ran in turn with these:
    /// the middle one of the ratios within a round.
    pub fn ratio(&self, base: &Self) -> Option<f64> {
        median(self.rates.iter().zip(&base.rates).map(|(own, base)| own / base).collect())
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

    /// Nanoseconds that all updates took.
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
        let busy_ns = times_ns.iter().sum();
        Batch { times_ns, busy_ns, device, ..Batch::default() }
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
    fn threads_that_overlap_add_up_to_more_per_second() {
        let mut both = batch(vec![100, 100], None);
        let other = Batch { faults: 3, ..batch(vec![100, 100], None) };
        both.join(&other);
        assert_eq!((both.times_ns.len(), both.busy_ns, both.faults), (4, 200, 3));
        let mut tally = Tally::default();
        tally.add(&both);
        let times = tally.times().expect("there are updates");
        assert_eq!((times.p50_ns, times.per_second), (100, 2e7), "4 in 200 ns");
    }

    #[test]
    fn one_slow_round_does_not_move_the_ratio() {
        let (mut fast, mut slow) = (Tally::default(), Tally::default());
        assert_eq!(fast.ratio(&slow), None);
        for (own, base) in [(10, 40), (10, 40), (10, 9_000_000), (80, 320), (10, 40)] {
            fast.add(&batch(vec![own], None));
            slow.add(&batch(vec![base], None));
        }
        // A last round that only one of them had a turn in.
        fast.add(&batch(vec![1], None));
        assert_eq!(fast.ratio(&slow), Some(4.0));
        assert_eq!(slow.ratio(&fast), Some(0.25));
    }

    #[test]
    fn one_unknown_count_leaves_the_sum_unknown() {
        let mut tally = Tally::default();
        tally.add(&batch(vec![1], Some(1)));
        tally.add(&batch(vec![1], None));
        assert_eq!(tally.device_bytes(), None);
        assert_eq!(tally.device_bytes_mean(), None);
    }

    #[test]
    fn sums_are_of_all_batches() {
        let mut tally = Tally::default();
        assert_eq!((tally.device_bytes_mean(), tally.device_flushes()), (None, None));
        for (bytes, flushes, faults) in [(512, 6, 5), (1024, 12, 7)] {
            let device = Reading { bytes: Some(bytes), flushes: Some(flushes) };
            let counts = Counts::default();
            let times_ns = vec![10, 20, 30];
            tally.add(&Batch { times_ns, busy_ns: 60, counts, faults, device });
        }
        assert_eq!((tally.updates, tally.batches), (6, 2));
        assert_eq!((tally.all_device_bytes(), tally.total_ns()), (1536, 120));
        assert_eq!(tally.device_bytes_mean(), Some(256.0));
        assert_eq!(tally.device_flushes(), Some(2.0), "the middle of two and four");
        assert_eq!(tally.faults().to_string(), "2");
    }
}
