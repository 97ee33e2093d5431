//! The three ways, and what they are to cost of one another.
//!
//! # Safety
//!
//! The hand-written update has a region of its own, of two slots of `SLOT` bytes.
#![allow(unsafe_code)]

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

use daxmap::state::{Plain, State, StateOptions, region_bytes};
use daxmap::{AnyRegion, Emulation, Options, Region};
use twox_hash::XxHash3_64;

use super::hand::{self, HANDS};
use super::interleave::{Competitor, Outcome, Plan, run};
use super::libpmemobj::Pool;
use super::processors::{self, Figure};

const STATE: &str = "state update";
/// Of a state that is not shared.
const OWNED: &str = "state update_mut";
const BARE: &str = "bare: ";
/// The same under a mutex, as whoever shares the value with other threads has it: the unlocking waits
/// for the stores, where otherwise the next update's check value is computed meanwhile.
const LOCKED: &str = "under a mutex, bare: ";
const PMEMOBJ: &str = "libpmemobj transaction";

/// Bytes from one slot to the other.
const SLOT: usize = 8192;
/// Check value, sequence number, length and version, as the library's slots have them.
const HEADER: usize = 24;

fn memory(len: u64) -> AnyRegion {
    Options::new().len(len).emulate(Emulation::Adr).in_memory().expect("a region in memory")
}

/// The least that the same promise takes: change the value, check it, copy it to the slot whose
/// turn it is, write its lines back, one fence.
struct Bare<const LEN: usize> {
    _region: AnyRegion,
    base: *mut u8,
    copy: hand::DurableCopy,
    image: Box<Image<LEN>>,
    sequence: u64,
}

#[repr(C, align(64))]
struct Image<const LEN: usize> {
    header: [u64; 3],
    value: [u8; LEN],
}

impl<const LEN: usize> Bare<LEN> {
    fn new(copy: hand::DurableCopy) -> Self {
        let region = memory(2 * SLOT as u64);
        // SAFETY: only the address is kept; nobody else has the region, which lives as long.
        let base = unsafe { region.slice_mut(0, region.len()) }.expect("mapped").as_mut_ptr();
        let image = Box::new(Image { header: [0; 3], value: [0; LEN] });
        Self { _region: region, base, copy, image, sequence: 0 }
    }

    #[inline]
    fn update(&mut self) {
        self.sequence += 1;
        change(&mut self.image.value);
        self.image.header[1] = self.sequence;
        self.image.header[2] = LEN as u64 | 1 << 32;
        let image: *mut Image<LEN> = &raw mut *self.image;
        let slot = (self.sequence & 1) as usize * SLOT;
        // SAFETY: header and value have no padding between them; a type aligned to 64 has a size
        // that is a multiple of it, and the slots are larger.
        unsafe {
            let bytes = std::slice::from_raw_parts(image.cast::<u8>().add(8), HEADER - 8 + LEN);
            let key = black_box(0x5eed_u64).wrapping_add(slot as u64);
            (*image).header[0] = XxHash3_64::oneshot_with_seed(key, bytes);
            (self.copy)(self.base.add(slot), image.cast(), size_of::<Image<LEN>>());
        }
    }
}

/// What everybody does to the value.
#[inline]
fn change(value: &mut [u8]) {
    value[3] = black_box(value[3].wrapping_add(1));
}

fn state<T: Plain>(value: &T) -> State<T> {
    StateOptions::new()
        .format(memory(region_bytes(size_of::<T>() as u32)), value)
        .expect("a state in memory")
}

fn compare<const LEN: usize>(rounds: usize, pool: Option<&Pool>) -> Outcome
where
    [u8; LEN]: Plain,
{
    let ops = if LEN > 1024 { 64 } else { 256 };
    let plan = Plan { rounds, ops, stride: 0, len: 0, span: 4096 };
    let state = state(&[0; LEN]);
    let mut owned = self::state(&[0; LEN]);
    let mut competitors = vec![
        each(STATE, move || {
            state.update(|value| change(value)).expect("update");
        }),
        each(OWNED, move || {
            owned.update_mut(|value| change(value)).expect("update");
        }),
    ];
    for hand in HANDS.iter().filter(|hand| (hand.available)()) {
        let mut bare = Bare::<LEN>::new(hand.copy);
        let name = format!("{BARE}{}", hand.name.trim_start_matches("hand: "));
        competitors.push(each(name, move || bare.update()));
        let shared = Mutex::new(Bare::<LEN>::new(hand.copy));
        let name = format!("{LOCKED}{}", hand.name.trim_start_matches("hand: "));
        competitors.push(each(name, move || shared.lock().expect("nobody panics").update()));
    }
    if let Some(pool) = pool {
        let mut value = [0; LEN];
        competitors.push(each(PMEMOBJ, move || {
            change(&mut value);
            pool.update(black_box(&value));
        }));
    }
    run(plan, &mut competitors)
}

/// The loop is in here so that nothing but the operation itself is called through a pointer.
fn each<'a>(name: impl Into<String>, mut operation: impl FnMut() + 'a) -> Competitor<'a> {
    Competitor::new(name, move |_, ops| (0..ops).for_each(|_| operation()))
}

/// Prints what was seen, and adds it to the figures. How many targets were missed.
fn judge(title: &str, outcome: &Outcome, most: f64, figures: &mut Vec<Figure>) -> usize {
    println!("\n{title}: median [quartiles] of a batch's mean");
    for name in outcome.names() {
        let spread = outcome.spread(name).expect("measured");
        println!("  {name:42} {:8.1} ns [{:8.1}, {:8.1}]", spread.median, spread.q1, spread.q3);
    }
    let best = outcome.best(&[BARE]).expect("some hand-written copy runs everywhere");
    let mut missed = 0;
    let locked = outcome.best(&[LOCKED]).expect("as many as bare ones");
    for (ours, hand) in [(OWNED, best), (STATE, locked)] {
        let ratio = outcome.ratio(ours, hand).expect("measured").median;
        missed += usize::from(ratio > most);
        println!("  {title}: {ours} / {hand} | <= {most:.2} x | {ratio:.3} x");
        let than = if ours == OWNED { "the best by hand" } else { "the same under a mutex" };
        figures.push(Figure {
            what: format!("{ours}, {title}, {than}"),
            target: format!("<= {most:.2} x"),
            value: format!("{ratio:.3}"),
        });
    }
    let ratio = outcome.ratio(STATE, best).expect("measured").median;
    println!("  {title}: {STATE} / {best} | | {ratio:.3} x");
    if let Some(pmemobj) = outcome.ratio(PMEMOBJ, STATE) {
        missed += usize::from(pmemobj.median < 3.0);
        println!("  {title}: {PMEMOBJ} / {STATE} | >= 3 x | {:.2} x", pmemobj.median);
    } else {
        missed += 1;
        println!("  {title}: {PMEMOBJ} / {STATE} | >= 3 x | not measured: it is not installed");
    }
    missed
}

pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| words.iter().any(|found| found == word);
    if let Some(at) = words.iter().position(|word| word == "--count") {
        return count(words.get(at + 1).and_then(|n| n.parse().ok()).unwrap_or(1000));
    }
    if !hand::clwb() || !std::is_x86_feature_detected!("avx") {
        println!("the bare sequences need CLWB and AVX, which this processor lacks: not compared");
        return ExitCode::FAILURE;
    }
    println!("memory: DRAM, emulated persistent memory. These are NOT persistent-memory results.");
    let path = Path::new("/dev/shm").join(format!("daxmap-bench-{}", std::process::id()));
    let pool = Pool::create(&path, 4096);
    if let Err(why) = &pool {
        println!("libpmemobj: NOT COMPARED, cannot be used (package libpmemobj1): {why}");
    }
    let pool = pool.as_ref().ok();
    let rounds = if has("--quick") { 200 } else { 2000 };
    let mut figures = Vec::new();
    let missed = judge("64 B", &compare::<64>(rounds, pool), 1.05, &mut figures)
        + judge("4 KiB", &compare::<4096>(rounds, pool), 1.05, &mut figures);
    processors::compare(&figures);
    if missed > 0 && !has("--report-only") { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Only updates, in a loop that a counter of instructions finds.
fn count(updates: u64) -> ExitCode {
    let (small, large) = (state(&[0_u8; 64]), state(&[0_u8; 4096]));
    for _ in 0..updates {
        small.update(|value| change(value)).expect("update");
        large.update(|value| change(value)).expect("update");
    }
    ExitCode::SUCCESS
}
