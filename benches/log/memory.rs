//! Appends to memory: the log, libpmemlog, and the bare sequence.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use daxmap::log::{Log, LogOptions, Lsn};
use daxmap::{AnyRegion, Emulation, Options, Region};
use twox_hash::XxHash3_64;

use crate::hand::{self, HANDS};
use crate::processors::{self, Figure};
use crate::{median, ratio};

const LEN: u64 = 64 << 20;
const SEGMENT: u64 = 4 << 20;

fn region() -> Options {
    Options::new().len(LEN).emulate(Emulation::Adr)
}

type Append = unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> c_int;
type Rewind = unsafe extern "C" fn(*mut c_void);

/// libpmemlog, from the distribution: libpmemlog(7).
struct Pmemlog {
    append: Append,
    rewind: Rewind,
    pool: *mut c_void,
}

impl Pmemlog {
    /// Makes a pool in a file on tmpfs, and has the library take it for persistent memory.
    fn create(path: &Path) -> Result<Self, String> {
        type Create = unsafe extern "C" fn(*const c_char, usize, libc::mode_t) -> *mut c_void;
        // SAFETY: no other thread runs yet. It makes the library flush cache lines and not call
        // msync, as on persistent memory.
        unsafe { std::env::set_var("PMEM_IS_PMEM_FORCE", "1") };
        // SAFETY: loading runs the library's constructor.
        let handle = unsafe { libc::dlopen(c"libpmemlog.so.1".as_ptr(), libc::RTLD_NOW) };
        if handle.is_null() {
            return Err("libpmemlog.so.1 cannot be loaded (package libpmemlog1)".to_owned());
        }
        let find = |name: &CStr| {
            // SAFETY: an open handle, never closed.
            let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
            if address.is_null() {
                Err(format!("no {}", name.display_lossy()))
            } else {
                Ok(address)
            }
        };
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
        // SAFETY: the symbols are functions of these signatures (libpmemlog.h).
        unsafe {
            let create: Create = std::mem::transmute(find(c"pmemlog_create")?);
            let append: Append = std::mem::transmute(find(c"pmemlog_append")?);
            let rewind: Rewind = std::mem::transmute(find(c"pmemlog_rewind")?);
            let pool = create(path.as_ptr(), LEN as usize, 0o600);
            if pool.is_null() {
                Err("pmemlog_create failed".to_owned())
            } else {
                let made = Self { append, rewind, pool };
                made.touch();
                Ok(made)
            }
        }
    }

    /// Fills the pool once and empties it: its page faults are not an append's, as those of a region
    /// are not, which are taken when it is made.
    fn touch(&self) {
        let page = [0_u8; 4096];
        // SAFETY: an open pool, used by this thread alone; a full one refuses.
        unsafe {
            while (self.append)(self.pool, page.as_ptr().cast(), page.len()) == 0 {}
            (self.rewind)(self.pool);
        }
    }
}

trait DisplayLossy {
    fn display_lossy(&self) -> String;
}

impl DisplayLossy for CStr {
    fn display_lossy(&self) -> String {
        self.to_string_lossy().into_owned()
    }
}

/// The least that a durable append with a checksum is.
struct Bare {
    name: &'static str,
    base: *mut u8,
    at: usize,
    sequence: u64,
    way: Way,
    line: Vec<u64>,
}

#[derive(Clone, Copy)]
enum Way {
    /// Build the record, check it, copy it past or through the caches, one fence.
    Staged(hand::DurableCopy),
    /// The same past the caches without a copy of the payload on the way.
    Direct,
    /// The payload first, and its check value while that is on its way.
    PayloadFirst,
    /// As `Direct`, its number from a counter that other writers may share.
    Counted(&'static AtomicU64),
}

/// Not one of those that the log is measured against: it has no order among threads.
const COUNTED: &str = "hand: nt avx, not staged, one counter";

/// The check value of a payload, without a secret to be derived for each.
fn check(seed: u64, bytes: &[u8]) -> u64 {
    if bytes.len() > 240 {
        XxHash3_64::oneshot(bytes) ^ seed
    } else {
        XxHash3_64::oneshot_with_seed(seed, bytes)
    }
}

/// Bytes before the payload.
const HEADER: usize = 40;

impl Bare {
    /// All that this processor can do. Each begins at another place, far from the others: none
    /// finds lines in the cache that another has left there.
    fn all(base: *mut u8) -> Vec<Self> {
        let hands = HANDS.iter().filter(|hand| (hand.available)());
        let mut ways: Vec<_> = hands.map(|hand| (hand.name, Way::Staged(hand.copy))).collect();
        if is_x86_feature_detected!("avx") {
            ways.push(("hand: nt avx, not staged", Way::Direct));
            ways.push(("hand: nt avx, payload first", Way::PayloadFirst));
            ways.push((COUNTED, Way::Counted(Box::leak(Box::new(AtomicU64::new(0))))));
        }
        let apart = LEN as usize / ways.len() / 64 * 64;
        let begin = |(number, (name, way))| Self {
            name,
            base,
            at: number * apart,
            sequence: 0,
            way,
            line: Vec::new(),
        };
        ways.into_iter().enumerate().map(begin).collect()
    }

    fn append(&mut self, payload: &[u8]) {
        let len = (HEADER + payload.len()).next_multiple_of(64);
        if self.at + len > LEN as usize {
            self.at = 0;
        }
        self.sequence += 1;
        // SAFETY: whole lines within the mapping, which this thread alone stores into.
        let to = unsafe { self.base.add(self.at) };
        match self.way {
            Way::Staged(copy) => self.staged(copy, to, len, payload),
            Way::Direct | Way::Counted(_) => self.direct(to, payload, false),
            Way::PayloadFirst => self.direct(to, payload, true),
        }
        self.at += len;
    }

    fn staged(&mut self, copy: hand::DurableCopy, to: *mut u8, len: usize, payload: &[u8]) {
        self.line.resize(len / 8, 0);
        // SAFETY: the words as bytes.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(self.line.as_mut_ptr().cast::<u8>(), len) };
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        bytes[HEADER..HEADER + payload.len()].copy_from_slice(payload);
        let seed = self.at as u64;
        let value = check(seed, &bytes[8..HEADER + payload.len()]);
        bytes[..8].copy_from_slice(&value.to_le_bytes());
        // SAFETY: `to` has room for `len`; `all` picks copies that the processor has.
        unsafe { copy(to, bytes.as_ptr(), len) };
    }

    fn direct(&mut self, to: *mut u8, payload: &[u8], payload_first: bool) {
        let (seed, way, sequence) = (self.at as u64, self.way, self.sequence);
        let header = || {
            let mut header = [0; HEADER];
            header[24..32].copy_from_slice(&check(seed, payload).to_le_bytes());
            let sequence = match way {
                Way::Counted(next) => next.fetch_add(1, Ordering::AcqRel),
                _ => sequence,
            };
            header[8..16].copy_from_slice(&sequence.to_le_bytes());
            header[16..24].copy_from_slice(&(payload.len() as u64).to_le_bytes());
            let value = check(seed, &header[8..]);
            header[..8].copy_from_slice(&value.to_le_bytes());
            header
        };
        // SAFETY: `to` has room for both, in whole lines; `all` has asked for AVX.
        unsafe {
            if payload_first {
                direct(to, header, payload);
            } else {
                let header = header();
                direct(to, || header, payload);
            }
        }
    }
}

/// A record of a header and a payload, durable, filled up with zeros to whole lines: the payload's
/// lines from where they are, past the caches, then the line with the header.
///
/// # Safety
///
/// `to` is a multiple of 64 and valid for writes of as many lines; the processor has AVX.
#[target_feature(enable = "avx")]
#[allow(clippy::cast_ptr_alignment)] // the loads are unaligned ones
unsafe fn direct(to: *mut u8, header: impl FnOnce() -> [u8; HEADER], payload: &[u8]) {
    use std::arch::x86_64::{__m256i, _mm_sfence, _mm256_loadu_si256, _mm256_stream_si256};
    let line = |to: *mut u8, from: *const u8| {
        // SAFETY: 64 bytes at either, `to` aligned to them.
        unsafe {
            // Unaligned loads.
            #[allow(clippy::cast_ptr_alignment)]
            let (low, high) = (from.cast::<__m256i>(), from.add(32).cast::<__m256i>());
            let (low, high) = (_mm256_loadu_si256(low), _mm256_loadu_si256(high));
            _mm256_stream_si256(to.cast(), low);
            _mm256_stream_si256(to.add(32).cast(), high);
        }
    };
    let (begin, rest) = payload.split_at(payload.len().min(64 - HEADER));
    let (whole, end) = rest.split_at(rest.len() / 64 * 64);
    for at in (0..whole.len()).step_by(64) {
        // SAFETY: within the caller's range, and within `whole`.
        unsafe { line(to.add(64 + at), whole.as_ptr().add(at)) };
    }
    if !end.is_empty() {
        let mut last = [0; 64];
        last[..end.len()].copy_from_slice(end);
        // SAFETY: the last line of the caller's range.
        unsafe { line(to.add(64 + whole.len()), last.as_ptr()) };
    }
    let mut first = [0; 64];
    first[..HEADER].copy_from_slice(&header());
    first[HEADER..][..begin.len()].copy_from_slice(begin);
    line(to, first.as_ptr());
    _mm_sfence();
}

/// Times of so many operations, in nanoseconds each.
fn timed(count: usize, mut work: impl FnMut()) -> f64 {
    let began = Instant::now();
    for _ in 0..count {
        work();
    }
    began.elapsed().as_nanos() as f64 / count as f64
}

fn appends(
    log: &Log<AnyRegion>,
    pmemlog: Option<&Pmemlog>,
    base: *mut u8,
    rounds: usize,
) -> Vec<Figure> {
    let mut figures = Vec::new();
    println!("append, durable on return, ns (medians)");
    for (len, target_peer, batch) in [(64, 2.2, 256), (512, 1.8, 128), (4096, 1.3, 64)] {
        let payload = vec![7_u8; len];
        let mut writer = log.writer();
        let mut bares = Bare::all(base);
        // How much of the peer's log is in use.
        let mut used = u64::MAX;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let mut by_hand = vec![Vec::new(); bares.len()];
        for round in 0..rounds + 3 {
            let keep = round >= 3;
            log.release_up_to(log.last()).expect("released");
            let ns = timed(batch, || {
                black_box(writer.append(black_box(&payload)).unwrap());
            });
            if keep {
                ours.push(ns);
            }
            if let Some(pmemlog) = pmemlog {
                // Emptied when it is full, as the others begin again at the end of their space.
                if used > LEN / 2 {
                    // SAFETY: an open pool, used by this thread alone.
                    unsafe { (pmemlog.rewind)(pmemlog.pool) };
                    used = 0;
                }
                used += (batch * len) as u64;
                let ns = timed(batch, || {
                    // SAFETY: as above.
                    let failed =
                        unsafe { (pmemlog.append)(pmemlog.pool, payload.as_ptr().cast(), len) };
                    assert_eq!(failed, 0);
                });
                if keep {
                    theirs.push(ns);
                }
            }
            for (bare, times) in bares.iter_mut().zip(&mut by_hand) {
                let ns = timed(batch, || bare.append(black_box(&payload)));
                if keep {
                    times.push(ns);
                }
            }
        }
        let mut best = 0;
        for index in 1..by_hand.len() {
            if bares[index].name != COUNTED
                && median(&mut by_hand[index].clone()) < median(&mut by_hand[best].clone())
            {
                best = index;
            }
        }
        let least = &by_hand[best];
        for (way, times) in bares.iter().zip(&by_hand) {
            println!("          {}: {:.0}", way.name, median(&mut times.clone()));
        }
        println!(
            "  {len:5} B: log {:.0}, libpmemlog {:.0}, {} {:.0}",
            median(&mut ours.clone()),
            median(&mut theirs.clone()),
            bares[best].name,
            median(&mut least.clone()),
        );
        println!(
            "     => libpmemlog / log {:.2} (target >= {target_peer}); log / bare {:.3} (target <= 1.05)",
            ratio(&theirs, &ours),
            ratio(&ours, least),
        );
        figures.push(Figure {
            what: format!("log append, {len} B, the best by hand"),
            target: "<= 1.05 x".to_owned(),
            value: format!("{:.3}", ratio(&ours, least)),
        });
        if let Some(counted) = bares.iter().position(|way| way.name == COUNTED) {
            println!("     => log / bare with a counter {:.2}", ratio(&ours, &by_hand[counted]));
            figures.push(Figure {
                what: format!("log append, {len} B, by hand with a counter that writers share"),
                target: String::new(),
                value: format!("{:.3}", ratio(&ours, &by_hand[counted])),
            });
        }
    }
    figures
}

fn batches(log: &Log<AnyRegion>, rounds: usize) {
    let mut writer = log.writer();
    let mut times = Vec::new();
    for _ in 0..rounds {
        log.release_up_to(log.last()).expect("released");
        times.push(
            timed(64, || {
                for _ in 0..64 {
                    writer.stage(black_box(&[7; 64])).expect("staged");
                }
                writer.commit().expect("committed");
            }) / 64.0,
        );
    }
    println!("64 records of 64 B a commit: {:.1} ns a record (target <= 20)", median(&mut times));
}

/// Appends per second of so many threads.
fn producers(log: &Log<AnyRegion>, threads: usize) -> f64 {
    const EACH: usize = 100_000;
    log.release_up_to(log.last()).expect("released");
    let barrier = Barrier::new(threads + 1);
    let began = std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut writer = log.writer();
                barrier.wait();
                for _ in 0..EACH {
                    writer.append(black_box(&[7; 64])).expect("appended");
                }
            });
        }
        let began = Instant::now();
        barrier.wait();
        began
    });
    (threads * EACH) as f64 / began.elapsed().as_secs_f64()
}

/// Durable records per second of so many threads by hand, a place each; with the one counter that
/// numbers without gaps and in the order of commits need, or without.
fn producers_by_hand(memory: *mut u8, threads: usize, counted: bool) -> f64 {
    const EACH: usize = 100_000;
    /// Written by every thread, on a cache line of its own.
    #[repr(align(128))]
    struct Counter(AtomicU64);
    let next = &Counter(AtomicU64::new(0));
    let copy = HANDS.iter().find(|hand| hand.name == "hand: movnti").expect("there is one").copy;
    let barrier = &Barrier::new(threads + 1);
    let memory = memory as usize;
    let began = std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let apart = LEN as usize / threads;
                let to = (memory + thread * apart) as *mut u8;
                let way = Way::Staged(copy);
                let mut records =
                    Bare { name: "", base: to, at: 0, sequence: 0, way, line: Vec::new() };
                barrier.wait();
                for _ in 0..EACH {
                    if counted {
                        records.sequence = next.0.fetch_add(1, Ordering::AcqRel);
                    }
                    if records.at + 128 > apart {
                        records.at = 0;
                    }
                    records.append(black_box(&[7; 64]));
                }
            });
        }
        let began = Instant::now();
        barrier.wait();
        began
    });
    (threads * EACH) as f64 / began.elapsed().as_secs_f64()
}

fn recovery(directory: &Path, rounds: usize) {
    let path = directory.join("recovery");
    let options = LogOptions::new().region(region()).segment_bytes(SEGMENT);
    let log = options.create(&path).expect("created");
    let mut writer = log.writer();
    while writer.append(&[9; 1000]).is_ok() {}
    drop(writer);
    drop(log);
    let plain = vec![1_u64; LEN as usize / 8];
    let (mut ours, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let region = Options::new().read_only(true).open(&path).expect("opened");
        // Page faults of a new mapping are not recovery's.
        region.read(0, &mut vec![0; LEN as usize]).expect("read");
        let began = Instant::now();
        let log = LogOptions::new().read_only(true).open_region(region).expect("recovered");
        let bytes = log.recovery().bytes_read as f64;
        ours.push(bytes / began.elapsed().as_nanos() as f64);
        let began = Instant::now();
        let sums = plain.chunks_exact(8).fold([0_u64; 8], |mut sums, words| {
            sums.iter_mut().zip(words).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
            sums
        });
        black_box(sums);
        reads.push(LEN as f64 / began.elapsed().as_nanos() as f64);
    }
    println!(
        "recovery: {:.1} GB/s, memory is read at {:.1} GB/s => {:.0} % (target >= 60 %)",
        median(&mut ours.clone()),
        median(&mut reads.clone()),
        100.0 * ratio(&ours, &reads)
    );
}

pub fn run(rounds: usize) {
    println!("== memory: DRAM that imitates ADR. These are NOT persistent-memory results.");
    let directory = tempfile::tempdir_in("/dev/shm").expect("tmpfs");
    let pmemlog = Pmemlog::create(&directory.path().join("pmemlog"));
    if let Err(why) = &pmemlog {
        println!("libpmemlog: NOT COMPARED: {why}");
    }
    let mapped = region().create(directory.path().join("bare")).expect("a region");
    // SAFETY: this thread alone uses the region, through this address only.
    let base = unsafe { mapped.slice_mut(0, LEN) }.expect("mapped").as_mut_ptr();
    let options = LogOptions::new().region(region()).segment_bytes(SEGMENT);
    let log = options.create(directory.path().join("log")).expect("a log");
    let figures = appends(&log, pmemlog.as_ref().ok(), base, rounds);
    batches(&log, rounds);
    // The log, by hand with a counter, by hand without.
    let mut times = [const { (Vec::new(), Vec::new()) }; 3];
    for _ in 0..rounds.div_ceil(20) {
        for threads in [1, 2] {
            let now = [
                producers(&log, threads),
                producers_by_hand(base, threads, true),
                producers_by_hand(base, threads, false),
            ];
            for ((one, two), now) in times.iter_mut().zip(now) {
                if threads == 1 { one } else { two }.push(now);
            }
        }
    }
    for ((one, two), what) in
        times.iter().zip(["log", "by hand, one counter", "by hand, no order among threads"])
    {
        println!(
            "producers, {what}: 1 {:.2} M/s, 2 {:.2} M/s => {:.2}",
            median(&mut one.clone()) / 1e6,
            median(&mut two.clone()) / 1e6,
            ratio(two, one)
        );
    }
    println!("     (target of the log's >= 1.7)");
    recovery(directory.path(), rounds.div_ceil(20));
    assert!(log.last() > Lsn::FIRST);
    processors::compare(&figures);
}
