//! Power cuts of persistent memory line by line: what a guest with `MAP_SYNC` mappings on a stock
//! kernel stored, but did not write back and fence, is dropped, or kept for any subset of the lines.
//! docs/guest_runs.md says what this shows and what it does not. Needs root for the mounts.
//!
//! `DAXMAP_GUEST_STOPS` sets the number of moments at which the load is stopped.

use std::path::Path;

use pmem_tests::load;
use pmem_tests::recorded::{Line, Prepared, Recording};
use pmem_tests::scratch::Filesystem;
use pmem_tests::storing;

const HERE: &str = env!("CARGO_TARGET_TMPDIR");
const SEED: u64 = 0x11_4e5;
/// Images of random subsets at each stop, beside the three of all lines alike.
const SUBSETS: u64 = 3;
/// Stops of a load that is expected to lose something, at the most.
const CONTROL_STOPS: u64 = 10;
/// Bytes of the tmpfs that holds what is recorded; most of it is holes.
const ROOM: u64 = 4 << 30;
/// What the load says of its region.
const BACKEND: &str = "backend=fsdax durability=PowerFail";

fn stops() -> u64 {
    std::env::var("DAXMAP_GUEST_STOPS").map_or(15, |n| n.parse().expect("a number of stops"))
}

/// A generator of numbers: Knuth's MMIX.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// Lines from all three files; of ten, `durable` come from the durable one.
    fn line(&mut self, durable: u64) -> Line {
        match self.below(10) {
            n if n < durable => Line::Durable,
            n if n % 2 == 0 => Line::Arrived,
            _ => Line::Live,
        }
    }
}

/// What runs in the guest.
#[derive(Clone, Copy)]
struct Load {
    /// How the guest's program calls it: `run-...`, `check-...`.
    name: &'static str,
    what: &'static str,
}

const REGION: Load = Load { name: "load", what: "" };
const STORES: Load = Load { name: "stores", what: " under log, state, checkpoint and pages" };

impl Load {
    /// Mounts an image and checks it with `steps` acknowledged. The steps that are there.
    fn check(self, recording: &Recording, image: &Path, steps: u64) -> Result<u64, String> {
        let mounted = recording.mount(image, Path::new(HERE))?;
        let (directory, possible) = (mounted.path().join("load"), load::possible(steps));
        match self.name {
            "stores" => storing::check(&directory, &possible),
            _ => load::check(&directory, possible).map(|found| found.steps),
        }
    }
}

/// The load as the library does it: at every stop, every image has everything acknowledged.
fn everything_acknowledged_is_there(load: Load, kind: &str, prepared: &Prepared, room: &Path) {
    let Load { name, what } = load;
    let words = format!("run-{name} /mnt/dax/load full recorder");
    let mut recording = prepared.start(&room.join("full"), &words).unwrap();
    let image = room.join("nvdimm0");
    let mut random = Random(SEED);
    let (mut images, mut differing, mut ahead) = (0, 0, 0);
    for stop in 0..stops() {
        let steps = recording.acknowledged();
        for choice in 0..3 + SUBSETS {
            let lines = recording
                .image(&image, || match choice {
                    0 => Line::Durable,
                    1 => Line::Arrived,
                    2 => Line::Live,
                    n => random.line([9, 5, 1][(n % 3) as usize]),
                })
                .unwrap();
            let found = load.check(&recording, &image, steps).unwrap_or_else(|what| {
                panic!("{kind}, seed {SEED:#x}, stop {stop}, image {choice} after {steps}: {what}")
            });
            images += 1;
            differing += lines;
            ahead += found - steps;
        }
        // Short ways for what is between a write-back and its fence, long ones for growth and files.
        let reach = [5, 50, 500, 5000][random.below(4) as usize];
        recording.stop_after(2 + random.below(reach)).unwrap();
    }
    let counts = recording.counts();
    println!("{kind}{what}, seed {SEED:#x}: {counts}; {ahead} images ahead of the last step");
    println!(
        "\nevidence: power cuts of an emulated guest on {kind} with MAP_SYNC{what}, cache line by cache line | \
         {images} images at {} moments of {} steps, {differing} lines that could be either way, 0 \
         failures | values a line held in between; several processors; hardware",
        stops(),
        recording.acknowledged()
    );
    assert_eq!(counts.unresolved, 0);
    // Nothing was tested if nothing differed.
    assert!(differing > 0 && counts.non_temporal > 0 && counts.write_backs > 0);

    // And once as a user would find it: a guest boots on the image and opens it with MAP_SYNC.
    let steps = recording.acknowledged();
    recording.image(&image, || Line::Durable).unwrap();
    let said = recording
        .reboot(&image, &format!("check-{name} /mnt/dax/load {steps} {}", steps + 1))
        .unwrap();
    assert!(said.starts_with("found "), "{said}");
    assert_eq!(recording.end().unwrap(), BACKEND);
}

/// The load with something left out: at one stop at least, what was acknowledged is missing.
fn something_is_lost(load: Load, kind: &str, prepared: &Prepared, room: &Path, care: &str) {
    let words = format!("run-{} /mnt/dax/load {care} recorder", load.name);
    let mut recording = prepared.start(&room.join(care), &words).unwrap();
    let image = room.join("nvdimm0");
    let mut random = Random(SEED);
    let mut what_was_lost = None;
    for stop in 0..CONTROL_STOPS {
        let steps = recording.acknowledged();
        recording.image(&image, || Line::Durable).unwrap();
        let lost = load.check(&recording, &image, steps);
        // All of it is in the caches: an eADR machine, or a killed guest, would show nothing.
        recording.image(&image, || Line::Live).unwrap();
        load.check(&recording, &image, steps).unwrap();
        if let Err(what) = lost {
            println!("{kind} with {care}: lost at stop {stop}: {what}");
            what_was_lost = Some(what);
            break;
        }
        recording.stop_after(2 + random.below(50)).unwrap();
    }
    assert!(what_was_lost.is_some(), "{kind} with {care}: nothing was lost, so the test is void");
    assert_eq!(recording.end().unwrap(), BACKEND);
}

/// Stores to one page of a hole after the other, written back and fenced; returns at how many
/// stops the durable lines did not have all of them where the file says they are.
fn pages_lost(kind: &str, prepared: &Prepared, room: &Path, mapping: &str) -> u64 {
    let words = format!("sparse /mnt/dax/sparse {mapping} recorder");
    let mut recording = prepared.start(&room.join(mapping), &words).unwrap();
    let image = room.join("nvdimm0");
    let mut random = Random(SEED);
    let mut lost = 0;
    for _ in 0..CONTROL_STOPS {
        let pages = recording.acknowledged();
        recording.image(&image, || Line::Durable).unwrap();
        let mounted = recording.mount(&image, Path::new(HERE)).unwrap();
        let content = std::fs::read(mounted.path().join("sparse")).unwrap();
        let there = |page: u64| {
            let at = page as usize * 4096;
            content[at..at + 8] == page.to_le_bytes()
        };
        lost += u64::from(!(1..=pages).all(there));
        drop(mounted);
        recording.stop_after(2 + random.below(20)).unwrap();
    }
    let pages = recording.acknowledged();
    println!("{kind}, {mapping}: {lost} of {CONTROL_STOPS} moments of {pages} pages lost some");
    assert_eq!(recording.end().unwrap(), "mapped");
    lost
}

fn power_cuts(kind: &'static str) {
    let room = Filesystem::tmpfs(HERE, ROOM);
    let room = room.path();
    let prepared = Prepared::new(kind, room).unwrap();
    everything_acknowledged_is_there(REGION, kind, &prepared, room);
    something_is_lost(REGION, kind, &prepared, room, "no-write-back");
    something_is_lost(REGION, kind, &prepared, room, "no-fence");
    everything_acknowledged_is_there(STORES, kind, &prepared, room);
    something_is_lost(STORES, kind, &prepared, room, "no-fence");
    // The kernel's part: with MAP_SYNC, the place of a page in the file is durable before a store
    // to it returns. Without, the page is written back in vain.
    assert_eq!(pages_lost(kind, &prepared, room, "sync"), 0);
    let lost = pages_lost(kind, &prepared, room, "plain");
    assert!(lost > 0, "{kind} without MAP_SYNC: nothing was lost, so the test is void");
}

#[test]
fn power_cuts_on_ext4() {
    power_cuts("ext4");
}

#[test]
fn power_cuts_on_xfs() {
    power_cuts("xfs");
}
