//! What ext4 and xfs on persistent memory gave to the device, as dm-log-writes of a stock kernel
//! recorded it in a guest: replayed to every mark and to every flush, mounted, recovered, checked.
//! docs/guest_runs.md says what this shows and what it does not. Needs root for the mounts.
//!
//! `DAXMAP_LOG_STEPS` sets the number of steps of each load, 12 at least: the first that a control
//! of names can lose.

use std::fmt::Write;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pmem_tests::blockdev::{Disk, Filesystem, Image, MemoryDisk, Mounted};
use pmem_tests::guest::{Guest, Persistence, program};
use pmem_tests::load;
use pmem_tests::scratch;
use pmem_tests::write_log::{What, WriteLog};

const HERE: &str = env!("CARGO_TARGET_TMPDIR");
/// Bytes of the tmpfs that holds the two NVDIMMs; most of it is holes.
const ROOM: u64 = 2 << 30;
/// Of the images that are not at a mark, one in so many is given to fsck.
const FSCK_EVERY: u64 = 4;
const PAGE: u64 = 4096;
/// Each step starts a process of the guest, which is emulated.
const TIMEOUT: Duration = Duration::from_secs(1200);

fn steps() -> u64 {
    std::env::var("DAXMAP_LOG_STEPS").map_or(40, |n| n.parse().expect("a number of steps"))
}

/// What runs on the filesystem, one after the other, each in a mount of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    /// The load as the library does it, through the page cache: all of it is in the log.
    PageCache,
    /// The same without any sync.
    PageCacheUnsynced,
    /// The load as the library does it, through `MAP_SYNC`: names and lengths are in the log.
    MapSync,
    /// The same without any sync.
    MapSyncUnsynced,
    /// Stores to holes through `MAP_SYNC`: where the pages are is in the log.
    Holes,
    /// The same without `MAP_SYNC`.
    HolesPlain,
}

impl Run {
    const ALL: [Self; 6] = [
        Self::PageCache,
        Self::PageCacheUnsynced,
        Self::MapSync,
        Self::MapSyncUnsynced,
        Self::Holes,
        Self::HolesPlain,
    ];

    fn name(self) -> String {
        format!("{self:?}")
    }

    /// A control: at one mark at least, something acknowledged must be missing.
    fn must_lose(self) -> bool {
        matches!(self, Self::PageCacheUnsynced | Self::MapSyncUnsynced | Self::HolesPlain)
    }

    fn dax(self) -> &'static str {
        if matches!(self, Self::PageCache | Self::PageCacheUnsynced) { "never" } else { "always" }
    }

    /// The guest program's words, and the first line that it prints.
    fn words(self) -> (String, &'static str) {
        let (name, steps) = (self.name(), steps());
        let load = |care| format!("run-load /mnt/dax/{name} {care} log {steps}");
        let holes = |mapping| format!("sparse /mnt/dax/{name} {mapping} log {steps}");
        match self {
            Self::PageCache => (load("full"), "backend=page_cache durability=Fsync"),
            Self::PageCacheUnsynced => (load("none"), "backend=page_cache durability=Fsync"),
            Self::MapSync => (load("full"), "backend=fsdax durability=PowerFail"),
            Self::MapSyncUnsynced => (load("none"), "backend=fsdax durability=PowerFail"),
            Self::Holes => (holes("sync"), "mapped"),
            Self::HolesPlain => (holes("plain"), "mapped"),
        }
    }
}

/// What a guest left: the log, and the persistent memory as it was at the end.
struct Recorded {
    filesystem: Filesystem,
    log: WriteLog,
    memory: File,
    /// Where in `memory` the device begins, and how long it is, in bytes.
    offset: u64,
    len: u64,
}

impl Recorded {
    fn new(filesystem: Filesystem, room: &Path) -> Self {
        let mkfs = match filesystem {
            Filesystem::Ext4 => {
                "mke2fs -q -F -t ext4 -b 4096 \
                 -E nodiscard,lazy_itable_init=0,lazy_journal_init=0"
            }
            Filesystem::Xfs => "mkfs.xfs -q -f -K",
            Filesystem::Btrfs => panic!("btrfs has no DAX"),
        };
        let mut script = format!(
            "ndctl create-namespace -f -e namespace0.0 -m fsdax -M mem >/dev/null
             mkdm-log-writes log /dev/pmem0 /dev/pmem1
             {mkfs} /dev/mapper/log
             mkdir /mnt/dax
             cat /sys/bus/nd/devices/region0/resource /sys/class/block/pmem0/device/resource
             blockdev --getsize64 /dev/mapper/log"
        );
        let mut expected = Vec::new();
        for run in Run::ALL {
            let (dax, name, (words, says)) = (run.dax(), run.name(), run.words());
            let _ = write!(
                script,
                "\nmount -t {filesystem} -o dax={dax} /dev/mapper/log /mnt/dax
                 dmsetup message log 0 mark {name}
                 ./guest {words}
                 umount /mnt/dax"
            );
            expected.push(says);
        }
        script += "\ndmsetup remove --noudevsync log";
        let output = Guest::new()
            .persistence(Persistence::MemoryController)
            .nvdimm("384M")
            .nvdimm("1G")
            .keep_files(room)
            .timeout(TIMEOUT)
            .file(program().unwrap())
            .run_script(&script)
            .unwrap();
        assert_eq!(output.status, 0, "{}", output.stdout);
        let lines: Vec<&str> = output.stdout.lines().skip(1).collect();
        let [base, data, len, said @ ..] = &lines[..] else { panic!("{}", output.stdout) };
        assert_eq!(said, expected);
        let address = |line: &str| u64::from_str_radix(line.trim_start_matches("0x"), 16).unwrap();
        Self {
            filesystem,
            log: WriteLog::read(File::open(room.join("nvdimm1")).unwrap()).unwrap(),
            memory: File::open(room.join("nvdimm0")).unwrap(),
            offset: address(data) - address(base),
            len: len.parse().unwrap(),
        }
    }

    /// What is missing of a run with so many steps acknowledged, and perhaps the next one done.
    fn check(&self, run: Run, mounted: &Path, possible: [u64; 2]) -> Result<(), String> {
        let place = mounted.join(run.name());
        let [least, most] = possible;
        match run {
            Run::PageCache | Run::PageCacheUnsynced => load::check(&place, least..=most).map(drop),
            Run::MapSync | Run::MapSyncUnsynced => load::check_lengths(&place, least..=most),
            Run::Holes | Run::HolesPlain => self.check_pages(&place, least),
        }
    }

    /// Each page is where the file says it is: the stores are not in the log, but in the memory,
    /// and nobody overwrote them.
    fn check_pages(&self, path: &Path, last: u64) -> Result<(), String> {
        let extents = extents(path)?;
        for page in 1..=last {
            let extent = extents.iter().find(|e| (e.first..=e.last).contains(&page));
            let extent = extent.ok_or_else(|| format!("page {page} of {last} is a hole"))?;
            if extent.unwritten {
                return Err(format!("page {page} of {last} is unwritten"));
            }
            let block = extent.physical + page - extent.first;
            let mut word = [0; 8];
            self.memory.read_exact_at(&mut word, self.offset + block * PAGE).unwrap();
            if word != page.to_le_bytes() {
                return Err(format!("page {page} of {last} is not in block {block}"));
            }
        }
        Ok(())
    }
}

/// Where a piece of a file is, in pages.
struct Extent {
    first: u64,
    last: u64,
    physical: u64,
    unwritten: bool,
}

/// As filefrag has it: " 0:   0..  511:   33280..  33791:  512: last,unwritten,eof".
fn extents(path: &Path) -> Result<Vec<Extent>, String> {
    let search = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("filefrag")
        .args(["-b4096", "-v"])
        .arg(path)
        .env("PATH", format!("{search}:/usr/sbin:/sbin"))
        .output()
        .map_err(|error| format!("filefrag: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    }
    let extent = |line: &str| {
        let numbers: Vec<u64> = line
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect();
        let begins = line.trim_start().starts_with(|c: char| c.is_ascii_digit());
        match numbers[..] {
            [_, first, last, physical, ..] if begins => {
                Some(Extent { first, last, physical, unwritten: line.contains("unwritten") })
            }
            _ => None,
        }
    };
    Ok(said.lines().filter_map(extent).collect())
}

#[derive(Debug, Default)]
struct Tally {
    marks: u64,
    flushes: u64,
    fscks: u64,
    /// Marks of controls, and those at which something acknowledged was missing.
    control_marks: u64,
    lost: u64,
    /// Of each control.
    lost_by: Vec<(Run, u64)>,
}

/// A moment of the log.
#[derive(Clone, Copy, Debug)]
struct Moment {
    run: Run,
    acknowledged: u64,
    /// Just after the acknowledgement, and before the next step.
    at_mark: bool,
}

struct Bench<'a> {
    recorded: &'a Recorded,
    disk: MemoryDisk,
    tally: Tally,
}

impl Bench<'_> {
    /// Mounts what the device held, recovers, and checks.
    fn look(&mut self, image: &Image, moment: Moment) {
        let Moment { run, acknowledged, at_mark } = moment;
        let filesystem = self.recorded.filesystem;
        self.disk.fill(image).unwrap();
        let mounted = Mounted::new(&self.disk, filesystem)
            .unwrap_or_else(|error| panic!("{filesystem}, {moment:?}: not mounted: {error}"));
        let most = if at_mark { acknowledged } else { acknowledged + 1 };
        let checked = match acknowledged {
            // Nothing is promised.
            0 => Ok(()),
            _ => self.recorded.check(run, mounted.path(), [acknowledged, most]),
        };
        mounted.unmount().unwrap();
        let tally = &mut self.tally;
        if run.must_lose() {
            tally.control_marks += 1;
            if let Err(what) = checked {
                if tally.lost_by.last().is_none_or(|(last, _)| *last != run) {
                    println!("{filesystem}, {run:?}: lost at step {acknowledged}: {what}");
                    tally.lost_by.push((run, 0));
                }
                tally.lost += 1;
                tally.lost_by.last_mut().expect("pushed above").1 += 1;
            }
            return;
        }
        checked.unwrap_or_else(|what| panic!("{filesystem}, {moment:?}: {what}"));
        *(if at_mark { &mut tally.marks } else { &mut tally.flushes }) += 1;
        if at_mark || tally.flushes.is_multiple_of(FSCK_EVERY) {
            tally.fscks += 1;
            let verdict = filesystem.check(self.disk.device()).unwrap();
            verdict.unwrap_or_else(|what| panic!("{filesystem}, {moment:?}: {what}"));
        }
    }

    /// Every mark, and every flush; of controls the marks.
    fn replay(&mut self) {
        let log = &self.recorded.log;
        let mut image = Image::new(self.recorded.len);
        let mut moment: Option<Moment> = None;
        for entry in log.entries() {
            log.apply(entry, &mut image).unwrap();
            if let What::Mark(mark) = &entry.what {
                let begins = Run::ALL.into_iter().find(|run| run.name() == *mark);
                let step = mark.strip_prefix("step-").map(|step| step.parse().unwrap());
                moment = match (begins, step, moment) {
                    (Some(run), _, _) => Some(Moment { run, acknowledged: 0, at_mark: true }),
                    (_, Some(acknowledged), Some(Moment { run, .. })) => {
                        Some(Moment { run, acknowledged, at_mark: true })
                    }
                    // The kernel's own, at the end.
                    _ => None,
                };
                if let Some(moment) = moment {
                    self.look(&image, moment);
                }
            } else if let Some(moment) = moment
                && entry.is_durable
                && !moment.run.must_lose()
            {
                self.look(&image, Moment { at_mark: false, ..moment });
            }
        }
        assert!(moment.is_none(), "the log ends before the device was removed: {moment:?}");
    }
}

fn what_was_acknowledged_is_in_the_log(filesystem: Filesystem) {
    let room = scratch::Filesystem::tmpfs(HERE, ROOM);
    let files: PathBuf = room.path().join("guest");
    let recorded = Recorded::new(filesystem, &files);
    let disk = MemoryDisk::new(recorded.len).unwrap();
    let mut bench = Bench { recorded: &recorded, disk, tally: Tally::default() };
    bench.replay();
    let Tally { marks, flushes, fscks, control_marks, lost, lost_by } = bench.tally;
    println!(
        "{filesystem}: {} entries; lost by controls: {lost_by:?}",
        recorded.log.entries().len()
    );
    // A mark at the beginning of each run, and one after each step.
    assert_eq!(marks, 3 * (steps() + 1));
    assert!(flushes > marks, "{flushes} flushes: the steps did not sync");
    for run in Run::ALL.into_iter().filter(|run| run.must_lose()) {
        assert!(
            lost_by.iter().any(|(by, _)| *by == run),
            "{filesystem}, {run:?}: nothing was lost, so the test is void"
        );
    }
    println!(
        "\nevidence: what {filesystem} on emulated persistent memory gave to the device, by \
         dm-log-writes, through the page cache and with MAP_SYNC | {} images, at {marks} marks and \
         {flushes} flushes, mounted, recovered and checked, {fscks} of them by fsck, 0 failures; \
         without syncs or MAP_SYNC something was missing at {lost} of {control_marks} marks | data \
         stored through a DAX mapping, which no log of a block device sees",
        marks + flushes
    );
}

#[test]
fn what_was_acknowledged_is_in_the_log_of_ext4() {
    what_was_acknowledged_is_in_the_log(Filesystem::Ext4);
}

#[test]
fn what_was_acknowledged_is_in_the_log_of_xfs() {
    what_was_acknowledged_is_in_the_log(Filesystem::Xfs);
}
