//! A checkpoint of a working set of which little changed, beside a full rewrite of a file.
//!
//! ```text
//! cargo bench -p daxmap --bench checkpoint                          in the target directory, and in memory
//! cargo bench -p daxmap --bench checkpoint -- [--mib N] DIR...      in these, one table each; "pmem": memory
//! ```
//!
//! Of 1 GiB, one page in a hundred changes, whole, at random places; then 64 bytes of each. Rewriting: the whole set by `pwrite`
//! in pieces of 1 MiB into a file of its own that is allocated and written, then `fdatasync`; in
//! memory, emulated as persistent memory, `write_flush` and one drain. `changed` is what anything has
//! to write: the changed pages in one piece; in memory also by themselves, from where they are, each
//! with a check value. The first checkpoints find the free space in one piece,
//! the aged ones find it in the places that were given back.
#![allow(clippy::cast_precision_loss)] // counts and times, far below 2^52

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daxmap::checkpoint::{Options, Strategy, WorkingSet};
use daxmap::{AnyRegion, Emulation, Region};
use twox_hash::XxHash3_64;

const PAGE: u64 = 4096;
const PIECE: usize = 1 << 20;
/// Checkpoints until every free page has been used once, and half as many again.
const ROUNDS: usize = 150;
/// Rewrites, spread over the rounds.
const REWRITES: usize = 5;
/// Checkpoints by clones: each is slower than the one before.
const CLONES: usize = 60;
/// How many checkpoints at the beginning and at the end a row is of.
const SAMPLE: usize = 25;

/// The counter of the device that a directory's filesystem is on, from the mount's source: the
/// device number of a btrfs file is nobody's.
struct Device(Option<PathBuf>);

impl Device {
    fn of(directory: &Path) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let real = fs::canonicalize(directory).unwrap_or_default();
        let source = mounts
            .lines()
            .filter_map(|line| {
                let (before, after) = line.split_once(" - ")?;
                let point = PathBuf::from(before.split(' ').nth(4)?);
                real.starts_with(&point).then(|| (point, after.split(' ').nth(1)))
            })
            .max_by_key(|(point, _)| point.as_os_str().len())
            .and_then(|(_, source)| Some(fs::canonicalize(source?).ok()?.file_name()?.to_owned()));
        Self(source.map(|name| Path::new("/sys/class/block").join(name).join("stat")))
    }

    /// Bytes written so far, and in how many requests: the fields that
    /// Documentation/block/stat.rst calls write sectors and write I/Os.
    fn written(&self) -> Option<Written> {
        let stat = fs::read_to_string(self.0.as_ref()?).ok()?;
        let field = |number| stat.split_whitespace().nth(number)?.parse::<u64>().ok();
        Some(Written { bytes: field(6)? * 512, requests: field(4)? })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Written {
    bytes: u64,
    requests: u64,
}

/// What one piece of work took and wrote.
type Sample = (Duration, Option<Written>);

#[derive(Default)]
struct Samples(Vec<Sample>);

impl Samples {
    fn take(&mut self, device: &Device, work: impl FnOnce()) {
        let before = device.written();
        let began = Instant::now();
        work();
        let took = began.elapsed();
        let written = before.zip(device.written()).map(|(before, after)| Written {
            bytes: after.bytes - before.bytes,
            requests: after.requests - before.requests,
        });
        self.0.push((took, written));
    }

    /// Medians.
    fn middle(samples: &[Sample]) -> Sample {
        let mut times: Vec<_> = samples.iter().map(|sample| sample.0).collect();
        let mut written: Vec<_> = samples.iter().map(|sample| sample.1).collect();
        times.sort_unstable();
        written.sort_unstable();
        (times[times.len() / 2], written[written.len() / 2])
    }
}

fn row(name: &str, (time, written): Sample, whole: Sample) {
    let percent = |a: f64, b: f64| 100.0 * a / b;
    let times = percent(time.as_secs_f64(), whole.0.as_secs_f64());
    let written = match written.zip(whole.1) {
        Some((Written { bytes, requests }, whole)) => {
            let share = percent(bytes as f64, whole.bytes as f64);
            let mib = bytes as f64 / 1_048_576.0;
            format!("{mib:>8.1} MiB written, {share:>6.2} %, in {requests} requests")
        }
        None => "no device".to_owned(),
    };
    println!("  {name:30} {time:>10.2?}, {times:>6.2} %   {written}");
}

/// Writes these bytes, durably, where it wrote the last ones.
type Rewrite = Box<dyn FnMut(&[u8])>;
/// Writes these pages of the set, durably, one behind the other, each with a check value.
type Gather = Box<dyn FnMut(&[u8], &[u64])>;

/// The same checkpoint by hand where a filesystem shares extents (ioctl_ficlone(2)): a clone of the
/// file of the last one gets the changed pages and takes its name.
struct Cloned {
    file: File,
    directory: File,
    path: PathBuf,
    spare: PathBuf,
}

fn create(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(true).open(path).expect("create")
}

impl Cloned {
    /// None where files cannot be cloned.
    fn new(directory: &Path, path: PathBuf, content: &[u8]) -> Option<Self> {
        let (file, spare) = (create(&path), path.with_extension("new"));
        for (index, piece) in content.chunks(PIECE).enumerate() {
            file.write_all_at(piece, (index * PIECE) as u64).expect("pwrite");
        }
        file.sync_all().expect("fsync");
        let can = rustix::fs::ioctl_ficlone(create(&spare), &file).is_ok();
        let directory = File::open(directory).expect("a directory");
        can.then_some(Self { file, directory, path, spare })
    }

    fn save(&mut self, content: &[u8], pages: &[u64]) {
        let clone = create(&self.spare);
        rustix::fs::ioctl_ficlone(&clone, &self.file).expect("a clone");
        for page in pages {
            let at = page * PAGE;
            clone.write_all_at(&content[at as usize..][..PAGE as usize], at).expect("pwrite");
        }
        clone.sync_all().expect("fsync");
        fs::rename(&self.spare, &self.path).expect("rename");
        self.directory.sync_all().expect("fsync of the directory");
        self.file = clone;
    }
}

/// The competitors of one place.
struct Trial {
    device: Device,
    set: WorkingSet<AnyRegion>,
    rewrite: Rewrite,
    changed: Rewrite,
    /// In memory only.
    gather: Option<Gather>,
    /// Where the clones are.
    clones: Option<PathBuf>,
}

fn on_disk(directory: &Path, bytes: u64, name: &str) -> Trial {
    let path = |what| directory.join(format!("{name}-{what}"));
    let set = Options::new(bytes).create(path("set")).expect("create");
    let plain = |what| {
        let file =
            File::options().read(true).write(true).create_new(true).open(path(what)).unwrap();
        let write = move |content: &[u8]| {
            for (index, piece) in content.chunks(PIECE).enumerate() {
                file.write_all_at(piece, (index * PIECE) as u64).expect("pwrite");
            }
            file.sync_data().expect("fdatasync");
        };
        Box::new(write) as Rewrite
    };
    let device = Device::of(directory);
    let clones = Some(path("clone"));
    Trial { device, set, rewrite: plain("plain"), changed: plain("changed"), gather: None, clones }
}

fn in_memory(bytes: u64, strategy: Strategy) -> Trial {
    let options = daxmap::Options::new().emulate(Emulation::Adr);
    let set = Options::new(bytes).strategy(strategy);
    // As long as a file would be made.
    let len = 2 * bytes + bytes / 16 + (1 << 20);
    let region = options.clone().len(len).in_memory().expect("memory");
    let set = WorkingSet::format(region, &set).expect("format");
    let plain = |len: u64| {
        let region = options.clone().len(len).in_memory().expect("memory");
        let write = move |content: &[u8]| {
            for (index, piece) in content.chunks(PIECE).enumerate() {
                region.write_flush((index * PIECE) as u64, piece).expect("write");
            }
            region.drain().expect("drain");
        };
        Box::new(write) as Rewrite
    };
    let gather = {
        let region = options.clone().len(bytes).in_memory().expect("memory");
        let gather = move |content: &[u8], pages: &[u64]| {
            let mut sum = 0;
            for (to, page) in pages.iter().enumerate() {
                let page = &content[(page * PAGE) as usize..][..PAGE as usize];
                sum ^= XxHash3_64::oneshot(page);
                region.write_stream(to as u64 * PAGE, page).expect("write");
            }
            black_box(sum);
            region.drain().expect("drain");
        };
        Some(Box::new(gather) as Gather)
    };
    let (rewrite, changed) = (plain(bytes), plain(bytes));
    Trial { device: Device(None), set, rewrite, changed, gather, clones: None }
}

fn run(trial: &mut Trial, change: u64) {
    let set = &mut trial.set;
    let (pages, mut random) = (set.len() / PAGE, fastrand::Rng::with_seed(1));
    let region = set.region();
    let emulated = if region.is_emulated() { ", emulated" } else { "" };
    let (backend, strategy) = (region.backend(), set.strategy());
    println!(
        "   {backend}{emulated}, {strategy}, {} MiB, {change} bytes of a page",
        set.len() >> 20
    );
    for piece in (0..set.len()).step_by(PIECE) {
        random.fill(set.slice_mut(piece, (set.len() - piece).min(PIECE as u64)).expect("inside"));
    }
    let mut first = Samples::default();
    first.take(&trial.device, || drop(set.checkpoint().expect("checkpoint")));
    let share = (pages / 100).max(1);
    let changed = random.choose_multiple(0..pages, share as usize).len() as u64 * PAGE;
    (trial.rewrite)(set.bytes()); // allocates
    (trial.changed)(&set.bytes()[..changed as usize]);
    let (mut ours, mut whole, mut least) =
        (Samples::default(), Samples::default(), Samples::default());
    let mut cloned = trial.clones.as_ref().and_then(|path| {
        Cloned::new(path.parent().expect("in a directory"), path.clone(), set.bytes())
    });
    let (mut by_hand, mut gathered) = (Samples::default(), Samples::default());
    for round in 0..ROUNDS {
        let mut chosen = random.choose_multiple(0..pages, share as usize);
        chosen.sort_unstable();
        for page in &chosen {
            let content = set.slice_mut(page * PAGE, change).expect("inside");
            content.fill(round as u8);
        }
        ours.take(&trial.device, || drop(set.checkpoint().expect("checkpoint")));
        if let Some(cloned) = cloned.as_mut().filter(|_| round < CLONES) {
            by_hand.take(&trial.device, || cloned.save(set.bytes(), &chosen));
        }
        if let Some(gather) = &mut trial.gather {
            // Others, as warm as those that changed.
            let mut others = random.choose_multiple(0..pages, share as usize);
            others.sort_unstable();
            let touched = others
                .iter()
                .flat_map(|page| &set.bytes()[(page * PAGE) as usize..][..change as usize]);
            black_box(touched.fold(0_u8, |sum, byte| sum.wrapping_add(*byte)));
            gathered.take(&trial.device, || gather(set.bytes(), &others));
        }
        let part = &set.bytes()[..changed as usize];
        least.take(&trial.device, || (trial.changed)(part));
        if round % (ROUNDS / REWRITES) == 0 {
            whole.take(&trial.device, || (trial.rewrite)(set.bytes()));
        }
    }
    let reference = Samples::middle(&whole.0);
    row("full rewrite", reference, reference);
    row("first checkpoint, all changed", Samples::middle(&first.0), reference);
    row("checkpoint, 1 % changed", Samples::middle(&ours.0[..SAMPLE]), reference);
    row("the same, aged", Samples::middle(&ours.0[ROUNDS - SAMPLE..]), reference);
    if !by_hand.0.is_empty() {
        row("by hand: a clone, 1 % changed", Samples::middle(&by_hand.0[..SAMPLE]), reference);
        row("the same, the last of 60", Samples::middle(&by_hand.0[CLONES - SAMPLE..]), reference);
    }
    if !gathered.0.is_empty() {
        row("by hand: changed pages, checked", Samples::middle(&gathered.0), reference);
    }
    row("changed bytes alone", Samples::middle(&least.0), reference);
    println!("  => target: at most 3 % of the full rewrite");
}

fn main() {
    let (mut mib, mut places) = (1024, Vec::new());
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        if word == "--mib" {
            mib = words.next().and_then(|n| n.parse().ok()).expect("--mib needs a number");
        } else {
            places.push(word);
        }
    }
    if places.is_empty() {
        places = vec![env!("CARGO_TARGET_TMPDIR").to_owned(), "pmem".to_owned()];
    }
    for place in places {
        println!("== {place}");
        if place == "pmem" {
            for strategy in [Strategy::Shadow, Strategy::Redo] {
                let mut trial = in_memory(mib << 20, strategy);
                for change in [PAGE, 64] {
                    run(&mut trial, change);
                }
            }
            continue;
        }
        let directory = Path::new(&place);
        let name = format!("daxmap-bench-checkpoint-{}", std::process::id());
        // With shadow pages, a page is a page.
        run(&mut on_disk(directory, mib << 20, &name), PAGE);
        for what in ["set", "plain", "changed", "clone", "clone.new"] {
            let removed = fs::remove_file(directory.join(format!("{name}-{what}")));
            assert!(removed.is_ok() || what.starts_with("clone"), "{removed:?}");
        }
    }
}
