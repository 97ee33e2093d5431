//! A hundred million crash images of a record log, recovered and checked. Run in a release build.

use std::thread;
use std::time::Instant;

use daxmap::sim::{Explorer, Mode, Report, SplitMix64};
use pmem_tests::record_log::{self, Batch, RECORD};

/// Two threads over the seeds, so many images each.
const IMAGES: u64 = if cfg!(debug_assertions) { 200_000 } else { 50_000_000 };

/// A seeded list of batches.
fn batches(random: &mut SplitMix64) -> Vec<Batch> {
    (0..1 + random.below(4))
        .map(|_| {
            let count = 1 + random.below(6);
            if random.below(3) == 0 { Batch::Streamed(count) } else { Batch::Cached(count) }
        })
        .collect()
}

/// Explores workload after workload until enough images were seen.
fn explore(worker: u64, modes: &[Mode], images: u64) -> Report {
    let mut random = SplitMix64::new(worker);
    let mut sum = Report::default();
    let mut turn = 0;
    while sum.images < images {
        let batches = batches(&mut random);
        let records: u64 = batches
            .iter()
            .map(|b| match b {
                Batch::Cached(n) | Batch::Streamed(n) => n,
            })
            .sum();
        let mode = modes[turn % modes.len()];
        turn += 1;
        let explorer = Explorer::new(mode, (records + 2) * RECORD).seed(worker).images(20_000);
        let report =
            explorer.run_ops(&batches, record_log::append, record_log::check).expect_clean();
        sum.add(&report);
    }
    sum
}

#[test]
fn a_hundred_million_images() {
    let began = Instant::now();
    let reports: Vec<Report> = thread::scope(|scope| {
        let workers: Vec<_> = (1..=2)
            .map(|worker| scope.spawn(move || explore(worker, &Mode::ALL, IMAGES)))
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let mut sum = Report::default();
    reports.iter().for_each(|report| sum.add(report));
    let seconds = began.elapsed().as_secs_f64();
    println!("{sum} in {seconds:.1} s");
    assert!(sum.images >= 2 * IMAGES);
}
