//! The page-cache backend beside hand-written code, in one run, interleaved.
//!
//! ```text
//! cargo bench -p daxmap --bench page_cache                  in the target directory
//! cargo bench -p daxmap --bench page_cache -- DIR...        in these, one table each
//! ```
//!
//! 64-byte updates in a 64 MiB file built with 1 MiB writes. Every round gives each competitor
//! one turn of a few updates, so that none pays for what the one before left in the device; a ratio
//! is of medians over all updates.
#![allow(clippy::cast_precision_loss)] // counts and times, far below 2^52
#![allow(unsafe_code)] // pwrite's peers: a memmap2 mapping and a plain copy out of one

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use daxmap::{AnyRegion, Options, Region};

const FILE_BYTES: u64 = 64 << 20;
const RECORD: usize = 64;
const ROUNDS: usize = 60;
/// Updates in a turn.
const TURN: usize = 12;

/// Offsets spread over the file, each on a page of its own.
struct Offsets(u64);

impl Offsets {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % (FILE_BYTES / 4096) * 4096
    }
}

fn build(path: &Path) -> File {
    let file = File::options().read(true).write(true).create_new(true).open(path).expect("create");
    let piece = vec![0_u8; 1 << 20];
    for at in (0..FILE_BYTES).step_by(piece.len()) {
        file.write_all_at(&piece, at).expect("write");
    }
    file.sync_all().expect("fsync");
    file
}

fn median(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

fn percentile_99(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples[samples.len() * 99 / 100]
}

/// The counters of the device of a file's filesystem. Found once: whoever asks for a file's times
/// makes its next sync dearer.
struct Device(PathBuf);

impl Device {
    fn of(file: &File) -> Self {
        let device = file.metadata().expect("fstat").dev();
        let (major, minor) = (libc::major(device), libc::minor(device));
        Self(format!("/sys/dev/block/{major}:{minor}/stat").into())
    }

    /// Bytes written so far.
    fn bytes(&self) -> Option<u64> {
        let stat = fs::read_to_string(&self.0).ok()?;
        Some(stat.split_whitespace().nth(6)?.parse::<u64>().ok()? * 512)
    }
}

/// A name, and one turn.
type Competitor<'a> = (&'a str, Box<dyn FnMut() + 'a>);

/// Medians of competitors that take turns, and the device bytes of one turn of each.
fn turns(device: &Device, competitors: &mut [Competitor<'_>], rounds: usize) -> Vec<Duration> {
    let mut samples = vec![Vec::new(); competitors.len()];
    let mut bytes = vec![Vec::new(); competitors.len()];
    for round in 0..rounds + 5 {
        for i in 0..competitors.len() {
            // Each goes first as often as the others.
            let i = (i + round) % competitors.len();
            for _ in 0..TURN {
                let before = device.bytes();
                let began = Instant::now();
                competitors[i].1();
                let took = began.elapsed();
                if round >= 5 {
                    samples[i].push(took);
                    if let (Some(before), Some(after)) = (before, device.bytes()) {
                        bytes[i].push(after - before);
                    }
                }
            }
        }
    }
    let mut medians = Vec::new();
    for ((name, _), (times, bytes)) in competitors.iter().zip(samples.iter_mut().zip(&mut bytes)) {
        let middle = median(times);
        let (q1, q3) = (times[times.len() / 4], times[times.len() * 3 / 4]);
        bytes.sort_unstable();
        let written = bytes.get(bytes.len() / 2).map_or("?".to_owned(), ToString::to_string);
        println!("  {name:44} {middle:>10.1?}  [{q1:.1?} .. {q3:.1?}]  {written} device bytes");
        medians.push(middle);
    }
    medians
}

fn ratio(what: &str, ours: Duration, theirs: Duration, target: &str) {
    println!("  => {what}: {:.3} (target {target})", ours.as_secs_f64() / theirs.as_secs_f64());
}

fn persist(region: &AnyRegion, device: &Device, file: &File, map: &memmap2::MmapMut) {
    println!("persist of 64 B");
    let record = [7_u8; RECORD];
    let (mut a, mut b, mut c) = (Offsets(1), Offsets(2), Offsets(3));
    let base = map.as_ptr().cast_mut();
    let mut competitors: Vec<Competitor<'_>> = vec![
        ("region.write_persist", Box::new(|| region.write_persist(a.next(), &record).unwrap())),
        (
            "pwrite + fdatasync",
            Box::new(|| {
                file.write_all_at(&record, b.next()).unwrap();
                file.sync_data().unwrap();
            }),
        ),
        (
            "memmap2 store + flush_range",
            Box::new(|| {
                let at = c.next() as usize;
                // SAFETY: within the mapping, which this thread alone stores into.
                unsafe { base.add(at).copy_from_nonoverlapping(record.as_ptr(), RECORD) };
                map.flush_range(at, RECORD).unwrap();
            }),
        ),
    ];
    let medians = turns(device, &mut competitors, ROUNDS);
    ratio("region / bare", medians[0], medians[1], "<= 1.10");
    ratio("memmap2 / region", medians[2], medians[0], ">= 4");
}

fn batch(region: &AnyRegion, device: &Device, file: &File) {
    println!("64 adjacent writes of 64 B and one drain");
    let record = [9_u8; RECORD];
    let page = [9_u8; 4096];
    let (mut a, mut b) = (Offsets(4), Offsets(5));
    let mut competitors: Vec<Competitor<'_>> = vec![
        (
            "region: 64 x write_flush, drain",
            Box::new(|| {
                let at = a.next();
                for i in 0..64 {
                    region.write_flush(at + i * RECORD as u64, &record).unwrap();
                }
                region.drain().unwrap();
            }),
        ),
        (
            "one pwrite of 4 KiB + fdatasync",
            Box::new(|| {
                file.write_all_at(&page, b.next()).unwrap();
                file.sync_data().unwrap();
            }),
        ),
    ];
    let medians = turns(device, &mut competitors, ROUNDS);
    ratio("region / one pwrite", medians[0], medians[1], "<= 1.3");
}

/// Operations per second, and each operation's time. `next` gives a thread its next offset.
fn threads(
    region: &AnyRegion,
    count: u64,
    each: u64,
    next: impl Fn(&mut Offsets) -> u64 + Sync,
) -> (f64, Vec<Duration>) {
    let barrier = Barrier::new(count as usize + 1);
    let mut began = Instant::now();
    let mut samples = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..count)
            .map(|id| {
                let (barrier, next) = (&barrier, &next);
                scope.spawn(move || {
                    let record = [id as u8; RECORD];
                    let mut offsets = Offsets(100 + id);
                    barrier.wait();
                    (0..each)
                        .map(|_| {
                            let began = Instant::now();
                            region.write_persist(next(&mut offsets), &record).unwrap();
                            began.elapsed()
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        barrier.wait();
        began = Instant::now();
        for worker in workers {
            samples.extend(worker.join().unwrap());
        }
    });
    ((count * each) as f64 / began.elapsed().as_secs_f64(), samples)
}

/// What one thread can do at best for sixteen: all their writes, then one sync. Per second.
fn sixteen_by_hand(file: &File, mut next: impl FnMut(&mut Offsets) -> u64) -> f64 {
    let mut offsets = Offsets(200);
    let began = Instant::now();
    for _ in 0..200 {
        for _ in 0..16 {
            file.write_all_at(&[1; RECORD], next(&mut offsets)).unwrap();
        }
        file.sync_data().unwrap();
    }
    200.0 * 16.0 / began.elapsed().as_secs_f64()
}

fn group_commit(
    region: &AnyRegion,
    file: &File,
    what: &str,
    next: impl Fn(&mut Offsets) -> u64 + Sync,
) {
    println!("threads persisting 64 B each, {what}");
    let (mut ratios, mut tails, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..9 {
        let (one, mut one_samples) = threads(region, 1, 400, &next);
        let (sixteen, mut sixteen_samples) = threads(region, 16, 200, &next);
        let by_hand = sixteen_by_hand(file, &next);
        ratios.push(sixteen / one);
        limits.push(by_hand / one);
        let (p1, p16) = (percentile_99(&mut one_samples), percentile_99(&mut sixteen_samples));
        tails.push(p16.as_secs_f64() / p1.as_secs_f64());
        println!(
            "  1 thread {one:.0}/s, p99 {p1:.1?}; 16 threads {sixteen:.0}/s, p99 {p16:.1?}; \
             16 writes and one fdatasync by hand {by_hand:.0}/s"
        );
    }
    for samples in [&mut ratios, &mut tails, &mut limits] {
        samples.sort_by(f64::total_cmp);
    }
    println!(
        "  => 16 threads / 1: {:.2} (target >= 8; by hand {:.2}); p99: {:.2} (target <= 4)",
        ratios[4], limits[4], tails[4]
    );
}

fn reads(region: &AnyRegion, map: &memmap2::MmapMut) {
    const OPS: usize = 4096;
    println!("safe reads");
    for len in [64_usize, 4096] {
        let mut buffer = vec![0_u8; len];
        let (mut ours, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..300 {
            let began = Instant::now();
            for i in 0..OPS {
                region.read((i % 16 * 4096) as u64, &mut buffer).unwrap();
                black_box(&mut buffer);
            }
            ours.push(began.elapsed() / OPS as u32);
            let began = Instant::now();
            for i in 0..OPS {
                // SAFETY: within the mapping; nobody stores meanwhile.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        black_box(map.as_ptr().add(i % 16 * 4096)),
                        buffer.as_mut_ptr(),
                        len,
                    );
                }
                black_box(&mut buffer);
            }
            plain.push(began.elapsed() / OPS as u32);
        }
        let (ours, plain) = (median(&mut ours), median(&mut plain));
        println!(
            "  read of {len} B: {ours:?}, plain copy {plain:?}: +{:?}, {:.2} x",
            ours.saturating_sub(plain),
            ours.as_secs_f64() / plain.as_secs_f64()
        );
    }
}

fn run(directory: &Path) {
    let path = directory.join(format!("daxmap-bench-{}", std::process::id()));
    let file = build(&path);
    // A file of its own: opening a region drops what the page cache has of its file, large folios
    // included, and they are what makes a store through a mapping dear.
    let mapped_path = directory.join(format!("daxmap-bench-mapped-{}", std::process::id()));
    let mapped = build(&mapped_path);
    // SAFETY: this program alone has the file.
    let map = unsafe { memmap2::MmapMut::map_mut(&mapped) }.expect("mmap");
    let region = Options::new().open(&path).expect("open");
    println!("== {}: {}", directory.display(), region.report().verdict_sentence());
    let device = Device::of(&file);
    persist(&region, &device, &file, &map);
    batch(&region, &device, &file);
    // A page store: every write on a page of its own.
    group_commit(&region, &file, "pages spread over the file", Offsets::next);
    // A log: every write right behind the one before it.
    let end = AtomicU64::new(0);
    group_commit(&region, &file, "one behind the other", |_| {
        end.fetch_add(RECORD as u64, Ordering::Relaxed) % FILE_BYTES
    });
    reads(&region, &map);
    fs::remove_file(&path).expect("remove");
    fs::remove_file(&mapped_path).expect("remove");
}

fn main() {
    let mut directories: Vec<PathBuf> =
        std::env::args_os().skip(1).filter(|a| a != "--bench").map(PathBuf::from).collect();
    if directories.is_empty() {
        directories.push(PathBuf::from(env!("CARGO_TARGET_TMPDIR")));
    }
    for directory in directories {
        run(&directory);
    }
}
