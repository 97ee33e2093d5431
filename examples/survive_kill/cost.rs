//! What the kernel's periodic write-back costs a program that keeps storing into a mapped file.

#![allow(unsafe_code)]

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use daxmap::{AnyRegion, Options, Region};
use memmap2::{MmapMut, MmapRaw};

use super::Arguments;
use super::state::Through;

const PAGE: usize = 4096;
/// Pause between two rounds over all pages, so that the program is busy and not a benchmark.
const PAUSE: Duration = Duration::from_millis(1);
/// Pages stored to between two pauses.
const BURST: usize = 256;
/// A store that took longer counts as stalled, in microseconds: see `Stalls`.
const LIMITS_US: [u64; 4] = [1, 10, 100, 1000];

/// The memory that is stored to.
enum Memory {
    Mapping(MmapRaw),
    Region(Box<AnyRegion>),
    /// Of this process alone: what the same loop sees where there is no write-back.
    Anonymous(MmapMut),
}

impl Memory {
    fn open(path: &Path, through: Through, bytes: u64) -> Result<Self, Box<dyn Error>> {
        let _ = fs::remove_file(path);
        if through == Through::Region {
            let region = Options::new().len(bytes).create(path)?;
            println!("{}", region.report().verdict_sentence());
            return Ok(Self::Region(Box::new(region)));
        }
        // Written in large pieces, as files usually are: ext4 and xfs then keep it in large
        // folios.
        let mut file = File::options().read(true).write(true).create_new(true).open(path)?;
        let piece = vec![0; (1 << 20).min(bytes as usize)];
        for _ in 0..bytes / piece.len() as u64 {
            file.write_all(&piece)?;
        }
        file.sync_all()?;
        Ok(Self::Mapping(MmapRaw::map_raw(&file)?))
    }

    fn base(&self, bytes: u64) -> Result<*const u8, Box<dyn Error>> {
        Ok(match self {
            Self::Mapping(mapping) => mapping.as_ptr(),
            Self::Anonymous(mapping) => mapping.as_ptr(),
            // SAFETY: the slice is dropped at once, only its address is kept; the region is this
            // process's alone (it is locked), and nobody truncates its file.
            Self::Region(region) => unsafe { region.slice_mut(0, bytes)? }.as_ptr(),
        })
    }
}

/// How many stores took how long.
#[derive(Default)]
struct Stalls {
    longer: [u64; LIMITS_US.len()],
    longest: Duration,
    stores: u64,
}

impl Stalls {
    fn add(&mut self, took: Duration) {
        self.stores += 1;
        self.longest = self.longest.max(took);
        for (count, limit) in self.longer.iter_mut().zip(LIMITS_US) {
            *count += u64::from(took > Duration::from_micros(limit));
        }
    }
}

/// What the kernel has counted so far.
#[derive(Clone, Copy)]
struct Counters {
    /// Page faults of this process that needed no input: write-protection faults are such.
    faults: u64,
    /// Bytes of the page cache that this process made dirty (proc_pid_io(5), write_bytes).
    dirtied: u64,
    /// Bytes written to the device of the file by anybody; none if it is no block device.
    written: Option<u64>,
}

impl Counters {
    fn now(path: &Path) -> Result<Self, Box<dyn Error>> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        // The second field, a name in brackets, may hold anything: count after it.
        let after_name = stat.rsplit_once(") ").ok_or("no name in /proc/self/stat")?.1;
        let faults = after_name.split(' ').nth(7).ok_or("no minflt")?.parse()?;
        let dirtied = fs::read_to_string("/proc/self/io")
            .ok()
            .and_then(|io| io.lines().find_map(|l| l.strip_prefix("write_bytes: ")?.parse().ok()))
            .unwrap_or(0);
        let device = fs::metadata(path)?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let written = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"))
            .ok()
            .and_then(|stat| stat.split_whitespace().nth(6)?.parse::<u64>().ok())
            .map(|sectors| sectors * 512);
        Ok(Self { faults, dirtied, written })
    }
}

fn sysctl(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/vm/{name}")).unwrap_or_default().trim().to_owned()
}

/// Stores to one word in every page of the file, in turn with the same store to anonymous
/// memory, and prints what that cost.
pub fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let bytes = (arguments.mib << 20).max(PAGE as u64);
    let memory = Memory::open(&arguments.file, arguments.through, bytes)?;
    let baseline = Memory::Anonymous(MmapMut::map_anon(bytes as usize)?);
    let (file_base, anonymous_base) = (memory.base(bytes)?, baseline.base(bytes)?);
    #[allow(clippy::cast_ptr_alignment)] // pages are aligned
    let word = |base: *const u8, page: usize| {
        // SAFETY: base is the start of `bytes` mapped, writable bytes that live as long as this
        // function; page * PAGE is below that; words at page starts are aligned, and all access
        // is atomic.
        unsafe { &*base.add(page * PAGE).cast::<AtomicU64>() }
    };
    let pages = bytes as usize / PAGE;
    // Every page once, so that what follows is not the price of the first touch.
    for page in 0..pages {
        word(file_base, page).store(1, Ordering::Relaxed);
        word(anonymous_base, page).store(1, Ordering::Relaxed);
    }

    let before = Counters::now(&arguments.file)?;
    let (mut file, mut anonymous) = (Stalls::default(), Stalls::default());
    let began = Instant::now();
    let mut page = 0;
    while began.elapsed() < Duration::from_secs(arguments.seconds) {
        for _ in 0..BURST {
            let start = Instant::now();
            word(file_base, page).fetch_add(1, Ordering::Relaxed);
            let between = Instant::now();
            word(anonymous_base, page).fetch_add(1, Ordering::Relaxed);
            anonymous.add(between.elapsed());
            file.add(between - start);
            page = (page + 1) % pages;
        }
        std::thread::sleep(PAUSE);
    }
    let after = Counters::now(&arguments.file)?;

    let seconds = began.elapsed().as_secs_f64();
    let interval = sysctl("dirty_writeback_centisecs");
    let expiry = sysctl("dirty_expire_centisecs");
    println!(
        "{} KiB of mapped file, one word of every page stored to, for {seconds:.0} s",
        bytes >> 10
    );
    println!(
        "  the kernel looks every {interval} centiseconds for what is {expiry} centiseconds old"
    );
    print_counts(before, after, seconds);
    if emulated_processor() {
        println!(
            "  no times: this processor is emulated, and its times are not those of any hardware"
        );
    } else {
        print_stalls("file", &file);
        print_stalls("anonymous", &anonymous);
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss)] // rates for a reader
fn print_counts(before: Counters, after: Counters, seconds: f64) {
    let faults = after.faults - before.faults;
    let dirtied = after.dirtied - before.dirtied;
    println!("  page faults: {faults} ({:.1} per second)", faults as f64 / seconds);
    println!("  made dirty again: {dirtied} bytes");
    match (before.written, after.written) {
        (Some(before), Some(after)) => {
            let written = after - before;
            println!(
                "  written to the device, by anybody: {written} bytes ({:.0} per second)",
                written as f64 / seconds
            );
        }
        _ => println!("  written to the device: not known, no block device under this file"),
    }
}

/// QEMU without hardware virtualisation names itself so.
fn emulated_processor() -> bool {
    fs::read_to_string("/proc/cpuinfo").is_ok_and(|info| info.contains("QEMU TCG"))
}

fn print_stalls(what: &str, stalls: &Stalls) {
    print!("  {} stores, {what}: ", stalls.stores);
    for (count, limit) in stalls.longer.iter().zip(LIMITS_US) {
        print!("{count} over {limit} us, ");
    }
    println!("the longest {:?}", stalls.longest);
}
