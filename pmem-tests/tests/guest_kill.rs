//! The guest is killed at random moments of a load on ext4 and xfs with `MAP_SYNC`, booted again on
//! the same NVDIMM, and checked. Every store it executed is in the NVDIMM, as if the caches were
//! persistent: this tests names, sizes, extents and journals, not write-backs (guest_lines does).
//! Needs root for the mounts.
//!
//! `DAXMAP_GUEST_KILLS` sets the number of kills on each filesystem.

use std::path::Path;

use pmem_tests::guest::{Guest, Persistence, Running, program};
use pmem_tests::scratch::Filesystem;

const HERE: &str = env!("CARGO_TARGET_TMPDIR");
const SEED: u64 = 0xdead;
/// Bytes of the tmpfs that holds the NVDIMM; most of it is holes.
const ROOM: u64 = 1 << 30;
/// Acknowledgements after which a kill comes, at the most.
const STEPS_MAX: u64 = 150;

/// Steps whose acknowledgement may be on its way through the guest's pipes when the kill comes.
const LATE_MAX: u64 = 5000;
/// Kills of the control, at the most: just after a growth, which syncs, nothing is lost.
const CONTROL_KILLS: u64 = 5;

fn kills() -> u64 {
    std::env::var("DAXMAP_GUEST_KILLS").map_or(3, |n| n.parse().expect("a number of kills"))
}

fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// What is the same in all boots of one test.
struct Machine<'a> {
    files: &'a Path,
    /// `load` or `stores`.
    load: &'static str,
    kind: &'static str,
    /// `always` or `never`.
    dax: &'static str,
    care: &'static str,
}

impl Machine<'_> {
    /// Boots, runs `first`, then the load; the guest runs when this returns.
    fn boot(&self, first: &str) -> Running {
        let (load, care) = (self.load, self.care);
        Guest::new()
            .persistence(Persistence::MemoryController)
            .nvdimm("384M")
            .keep_files(self.files)
            .file(program().unwrap())
            .spawn(&[
                "sh",
                "-ec",
                &format!("{first}\nexec ./guest run-{load} /mnt/dax/load {care} console"),
            ])
            .unwrap()
    }

    /// On a filesystem just made.
    fn begin(&self) -> Running {
        let (kind, dax) = (self.kind, self.dax);
        let make = "ndctl create-namespace -f -e namespace0.0 -m fsdax >/dev/null";
        self.boot(&format!("{make}\nmkfs-dax {kind} /dev/pmem0 /mnt/dax dax={dax}"))
    }

    /// On what the kill left, which is checked first.
    fn go_on(&self, acknowledged: u64) -> Running {
        let (kind, dax, load) = (self.kind, self.dax, self.load);
        self.boot(&format!(
            "mkdir -p /mnt/dax
             mount -t {kind} -o dax={dax} /dev/pmem0 /mnt/dax
             ./guest check-{load} /mnt/dax/load {acknowledged} {}",
            acknowledged + LATE_MAX
        ))
    }

    /// Waits for some acknowledgements, kills the guest, and returns the last one that came out.
    fn kill(mut guest: Running, steps: u64) -> u64 {
        let mut seen = 0;
        while seen < steps.max(1) {
            let Some(line) = guest.line("an acknowledgement").unwrap() else {
                panic!("the guest ended by itself: {:?}", guest.wait());
            };
            seen += u64::from(line.starts_with("acknowledged "));
        }
        let said = guest.kill().unwrap();
        // A line without its end is none.
        let whole = said.rfind('\n').map_or("", |end| &said[..end]);
        let last = whole.lines().rev().find_map(|line| line.strip_prefix("acknowledged "));
        last.expect("at least one was seen").parse().unwrap()
    }
}

/// The next line that begins with `start`, and the guest; if it ended, what came instead.
fn line_with(mut guest: Running, start: &str) -> Result<(String, Running), String> {
    let mut before = Vec::new();
    while let Some(line) = guest.line(start).unwrap() {
        if line.starts_with(start) {
            return Ok((line, guest));
        }
        before.push(line);
    }
    match guest.wait() {
        Ok(_) => Err(before.join("\n")),
        Err(error) => panic!("{error}"),
    }
}

fn everything_acknowledged_is_there(kind: &'static str, load: &'static str, what: &str) {
    let room = Filesystem::tmpfs(HERE, ROOM);
    let machine = Machine { files: room.path(), load, kind, dax: "always", care: "full" };
    let mut seed = SEED;
    let mut guest = machine.begin();
    let mut ahead = 0;
    let mut acknowledged = 0;
    for kill in 0..kills() {
        let (backend, working) = line_with(guest, "backend=").unwrap();
        assert_eq!(backend, "backend=fsdax durability=PowerFail");
        acknowledged = Machine::kill(working, random(&mut seed) % STEPS_MAX);
        let (found, checked) = line_with(machine.go_on(acknowledged), "found ")
            .unwrap_or_else(|said| panic!("{kind}, kill {kill}, {acknowledged} steps: {said}"));
        guest = checked;
        let found: u64 = found["found ".len()..].parse().unwrap();
        ahead += found - acknowledged;
    }
    println!(
        "\nevidence: emulated guests killed under {what} on {kind} with MAP_SYNC | {} guests in {acknowledged} \
         steps, 0 failures; {ahead} more steps were done than acknowledged | that a write-back is \
         needed: a killed guest keeps every store",
        kills()
    );
}

/// Without DAX, and nothing synced: what was acknowledged is in the guest's page cache, and gone.
fn something_is_lost(kind: &'static str, load: &'static str) {
    let room = Filesystem::tmpfs(HERE, ROOM);
    let machine = Machine { files: room.path(), load, kind, dax: "never", care: "none" };
    let mut guest = machine.begin();
    for kill in 1..=CONTROL_KILLS {
        let (backend, working) = line_with(guest, "backend=").unwrap();
        assert_eq!(backend, "backend=page_cache durability=Fsync");
        let acknowledged = Machine::kill(working, 30 + kill);
        match line_with(machine.go_on(acknowledged), "found ") {
            Ok((_, checked)) => guest = checked,
            Err(lost) => {
                // The check says so, of a record or of a file; and not the machine, of itself.
                assert!(lost.contains(&format!("guest check-{load}: ")), "{lost}");
                println!("{kind} without sync: lost at kill {kill}: {lost}");
                return;
            }
        }
    }
    panic!("{kind} without sync: nothing was lost, so the test is void");
}

#[test]
fn everything_acknowledged_is_there_on_ext4() {
    everything_acknowledged_is_there("ext4", "load", "load");
}

#[test]
fn everything_acknowledged_is_there_on_xfs() {
    everything_acknowledged_is_there("xfs", "load", "load");
}

const STORES: &str = "stores into log, state, checkpoint and pages";

#[test]
fn everything_stored_is_there_on_ext4() {
    everything_acknowledged_is_there("ext4", "stores", STORES);
}

#[test]
fn everything_stored_is_there_on_xfs() {
    everything_acknowledged_is_there("xfs", "stores", STORES);
}

#[test]
fn without_a_sync_something_is_lost_on_ext4() {
    something_is_lost("ext4", "load");
}

#[test]
fn without_a_sync_something_is_lost_on_xfs() {
    something_is_lost("xfs", "load");
}

#[test]
fn without_a_sync_something_stored_is_lost() {
    something_is_lost("ext4", "stores");
}
