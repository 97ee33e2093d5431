//! A hundred million crash images of a record log, recovered and checked, in a release build.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use daxmap_sim::{Explorer, Mode, Report, SplitMix64};
use pmem_tests::record_log::{self, Batch, RECORD};

/// Two threads over the seeds, so many images each.
const IMAGES: u64 = if cfg!(debug_assertions) { 100_000 } else { 50_000_000 };

/// What the whole may take on two cores.
const WITHIN: Duration = Duration::from_secs(300);

/// A seeded list of batches.
fn batches(random: &mut SplitMix64) -> Vec<Batch> {
    (0..=random.below(4))
        .map(|_| {
            let count = 1 + random.below(6);
            if random.below(3) == 0 { Batch::Streamed(count) } else { Batch::Cached(count) }
        })
        .collect()
}

/// Explores workload after workload until enough images were seen. One in four has a recovery
/// that writes, which is crashed as well.
fn explore(worker: u64, images: u64) -> Report {
    let mut random = SplitMix64::new(worker);
    let mut sum = Report::default();
    for turn in 0.. {
        if sum.images >= images {
            break;
        }
        let batches = batches(&mut random);
        let records: u64 = batches.iter().map(|batch| batch.records()).sum();
        let mode = Mode::ALL[turn % Mode::ALL.len()];
        let explorer = Explorer::new(mode, (records + 2) * RECORD).seed(worker).images(20_000);
        let report = if random.below(4) == 0 {
            explorer.run_ops(&batches, record_log::append, record_log::check_repairing)
        } else {
            explorer.run_ops(&batches, record_log::append, record_log::check)
        };
        sum.add(&report.expect_clean());
    }
    sum
}

/// Time that this thread has been on a processor, whatever else the machine does: the first field
/// of /proc/thread-self/schedstat, in nanoseconds.
fn on_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").expect("/proc is mounted");
    let nanoseconds = stat.split(' ').next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanoseconds.expect("the first field is a number"))
}

#[test]
fn a_million_images_a_second_on_one_core() {
    const LEAST: u64 = if cfg!(debug_assertions) { 10_000 } else { 1_000_000 };
    let began = on_cpu();
    let mut images = 0;
    for batches in (1..=6).cycle().map(|count| [Batch::Cached(count), Batch::Streamed(count)]) {
        let report = Explorer::new(Mode::Adr, 16 * RECORD)
            .run_ops(&batches, record_log::append, record_log::check)
            .expect_clean();
        images += report.images;
        if images >= 2 * LEAST {
            break;
        }
    }
    let per_second = images * 1000 / (on_cpu().saturating_sub(began).as_millis() as u64).max(1);
    println!("{images} images of 64-byte records, {per_second} a second of one core");
    assert!(per_second >= LEAST, "{per_second}");
}

#[test]
fn a_hundred_million_images() {
    let began = Instant::now();
    let reports: Vec<Report> = thread::scope(|scope| {
        let workers = [1, 2].map(|worker| scope.spawn(move || explore(worker, IMAGES)));
        workers.into_iter().map(|worker| worker.join().expect("no finding")).collect()
    });
    let took = began.elapsed();
    let mut sum = Report::default();
    for report in &reports {
        sum.add(report);
    }
    let each = sum.images / 2 * 1000 / (took.as_millis() as u64).max(1);
    println!("{sum}; {took:.1?} on two threads, {each} images a second on each");
    println!(
        "\nevidence: simulated crashes of a record log, in every mode, with crashes of its recovery \
         | {} images at {} crash points of {} runs, {} recovered states, 0 failures \
         | that the compiled library executes the flushes and fences that the model is told of",
        sum.images, sum.crash_points, sum.runs, sum.states
    );
    assert!(sum.images >= 2 * IMAGES);
    assert!(took < WITHIN, "{took:?}");
}
