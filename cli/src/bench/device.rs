//! What reaches the block device: bytes written and flushes, from its `stat` file.
//!
//! The counts are the whole device's, whoever caused them (Documentation/block/stat.rst, kernel
//! tree: fields 7 and 16, sectors of 512 bytes and flushes).

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use daxmap::probe::{BlockDevice, Report};

const SECTOR_BYTES: u64 = 512;
const FIELD_SECTORS_WRITTEN: usize = 6;
const FIELD_FLUSHES: usize = 15;

/// The counts of the devices under a directory.
#[derive(Debug, Default)]
pub struct Device {
    /// Where bytes are counted: the device of the filesystem.
    written: Vec<File>,
    /// Where flushes are counted: the disks, because partitions and device-mapper do not.
    flushed: Vec<File>,
    /// Why counts, or flushes, may be missing.
    state: State,
}

/// What is known of the device's counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// There is none, or it is not visible.
    #[default]
    Absent,
    /// Updates of a DAX file do not pass the block layer, where bytes and flushes are counted.
    Dax,
    /// A disk says that it keeps nothing in a volatile cache: then no flush is sent.
    WriteThrough,
    /// Nothing unusual.
    Counted,
}

/// Counts at one moment; `None` where nobody counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Bytes written since the device came up.
    pub bytes: Option<u64>,
    /// Flushes since the device came up.
    pub flushes: Option<u64>,
}

impl Device {
    /// The device that `report` found.
    pub fn of(report: &Report) -> Self {
        let Some(device) = &report.device else { return Self::default() };
        if report.statx_dax == Some(true) {
            return Self { state: State::Dax, ..Self::default() };
        }
        let mut written = Vec::new();
        collect(device, &|device| device.kind == "filesystem", &mut written);
        let mut flushed = Vec::new();
        collect(device, &passes_flushes_on, &mut flushed);
        let write_through = flushed.iter().any(|&number| write_cache(number) == Some(false));
        let (written, flushed) = (open(&written), open(&flushed));
        let state = if written.is_empty() || flushed.is_empty() {
            State::Absent
        } else if write_through {
            State::WriteThrough
        } else {
            State::Counted
        };
        Self { written, flushed, state }
    }

    /// The counts now.
    pub fn read(&self) -> Reading {
        Reading {
            bytes: sum(&self.written, FIELD_SECTORS_WRITTEN).map(|n| n * SECTOR_BYTES),
            flushes: sum(&self.flushed, FIELD_FLUSHES),
        }
    }

    /// True if every flush is sent and counted: of a device with a volatile write cache.
    pub fn counts_flushes(&self) -> bool {
        self.state == State::Counted
    }

    /// Why a flush that was asked for may not have been sent.
    pub fn why_no_flush(&self) -> &'static str {
        match self.state {
            State::Absent => "there is no block device whose flushes could be counted",
            State::Dax => "flushes of a DAX device are not counted",
            State::WriteThrough => {
                "the device has no volatile write cache, so the kernel sends it no flush"
            }
            State::Counted => "fdatasync of a clean file sends no flush on this filesystem",
        }
    }

    /// Why bytes are not counted, if they are not.
    pub fn why_no_bytes(&self) -> Option<&'static str> {
        match self.state {
            State::Absent => Some("there is no block device under this directory to count them"),
            State::Dax => Some("stores to a DAX file do not pass the block layer, which counts"),
            State::WriteThrough | State::Counted => None,
        }
    }
}

impl Reading {
    /// What was added since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        let difference = |now: Option<u64>, then: Option<u64>| Some(now?.wrapping_sub(then?));
        Self {
            bytes: difference(self.bytes, earlier.bytes),
            flushes: difference(self.flushes, earlier.flushes),
        }
    }
}

/// True if the devices below count the flushes of this one.
fn passes_flushes_on(device: &BlockDevice) -> bool {
    matches!(device.kind.as_str(), "filesystem" | "partition" | "device-mapper" | "raid")
}

/// The numbers of `device`, or of those below it if it passes the question on.
fn collect(
    device: &BlockDevice,
    passes_on: &impl Fn(&BlockDevice) -> bool,
    numbers: &mut Vec<(u32, u32)>,
) {
    if passes_on(device) && !device.below.is_empty() {
        for below in &device.below {
            collect(below, passes_on, numbers);
        }
    } else if !numbers.contains(&device.number) {
        numbers.push(device.number);
    }
}

fn open(numbers: &[(u32, u32)]) -> Vec<File> {
    let open = |(major, minor)| File::open(format!("/sys/dev/block/{major}:{minor}/stat"));
    // One that is missing would make the sum wrong: all or none.
    numbers.iter().copied().map(open).collect::<Result<_, _>>().unwrap_or_default()
}

/// Whether the device has a volatile write cache.
fn write_cache((major, minor): (u32, u32)) -> Option<bool> {
    let text = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/queue/write_cache"));
    parse_write_cache(&text.ok()?)
}

fn parse_write_cache(text: &str) -> Option<bool> {
    match text.trim() {
        "write back" => Some(true),
        "write through" => Some(false),
        _ => None,
    }
}

fn sum(files: &[File], field: usize) -> Option<u64> {
    if files.is_empty() {
        return None;
    }
    files.iter().map(|file| read(file, field)).sum()
}

fn read(file: &File, field: usize) -> Option<u64> {
    let mut text = [0; 512];
    let len = file.read_at(&mut text, 0).ok()?;
    parse(std::str::from_utf8(&text[..len]).ok()?, field)
}

fn parse(stat: &str, field: usize) -> Option<u64> {
    stat.split_ascii_whitespace().nth(field)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "  1 2 3 4 5 6 2659768 8 0 10 11 12 13 14 15 1310 58\n";

    #[test]
    fn fields_of_the_stat_file() {
        assert_eq!(parse(STAT, FIELD_SECTORS_WRITTEN), Some(2_659_768));
        assert_eq!(parse(STAT, FIELD_FLUSHES), Some(1310));
        assert_eq!(parse("1 2 3 4 5 6 7 8 9 10 11", FIELD_FLUSHES), None, "before Linux 5.5");
    }

    #[test]
    fn a_missing_count_makes_no_difference_up() {
        let then = Reading { bytes: Some(100), flushes: None };
        let now = Reading { bytes: Some(612), flushes: Some(3) };
        assert_eq!(now.since(then), Reading { bytes: Some(512), flushes: None });
    }

    #[test]
    fn a_cache_is_one_that_is_written_back() {
        assert_eq!(parse_write_cache("write back\n"), Some(true));
        assert_eq!(parse_write_cache("write through\n"), Some(false));
        assert_eq!(parse_write_cache("none\n"), None);
        assert_eq!(write_cache((0, 0)), None);
        let mut known = 0;
        for device in fs::read_dir("/sys/block").unwrap().flatten() {
            let read =
                |name: &str| fs::read_to_string(device.path().join(name)).unwrap_or_default();
            let (number, state) = (read("dev"), read("queue/write_cache"));
            let Some((major, minor)) = number.trim().split_once(':') else { continue };
            let number = (major.parse().unwrap(), minor.parse().unwrap());
            assert_eq!(write_cache(number), parse_write_cache(&state), "{number:?}");
            known += usize::from(write_cache(number).is_some());
        }
        assert!(known > 0, "there are disks, or loop devices");
    }

    /// The disk that the build is on.
    fn disk() -> BlockDevice {
        let program = std::env::current_exe().unwrap();
        let mut device = daxmap::probe::probe(program).unwrap().device.expect("it lies on a disk");
        device.kind = "disk".to_owned();
        device.below.clear();
        device
    }

    #[test]
    fn devices_that_pass_on_are_not_counted_themselves() {
        let made = |kind: &str, number, below| {
            let mut device = disk();
            (device.kind, device.number, device.below) = (kind.to_owned(), number, below);
            device
        };
        let one = made("disk", (8, 0), Vec::new());
        let other = made("disk", (8, 16), Vec::new());
        let raid = made("raid", (9, 0), vec![one.clone(), other, one]);
        let whole = made("filesystem", (0, 30), vec![raid]);
        let numbers = |kinds: &[&str]| {
            let mut numbers = Vec::new();
            collect(&whole, &|device| kinds.contains(&&*device.kind), &mut numbers);
            numbers
        };
        assert_eq!(numbers(&["filesystem", "raid"]), [(8, 0), (8, 16)], "each once");
        assert_eq!(numbers(&["filesystem"]), [(9, 0)]);
        assert_eq!(numbers(&[]), [(0, 30)]);
        // A disk has nothing below it to pass on to.
        assert_eq!(numbers(&["filesystem", "raid", "disk"]), [(8, 0), (8, 16)]);
    }

    #[test]
    fn what_is_missing_has_its_reason() {
        let with = |state| Device { state, ..Device::default() };
        let mut reasons: Vec<&str> =
            [State::Absent, State::Dax, State::WriteThrough, State::Counted]
                .map(|state| with(state).why_no_flush())
                .to_vec();
        reasons.extend(
            [State::Absent, State::Dax]
                .map(|state| with(state).why_no_bytes().expect("nobody counts bytes there")),
        );
        for word in ["no block device", "DAX", "volatile write cache", "clean file"] {
            assert!(reasons.iter().any(|reason| reason.contains(word)), "{word}");
        }
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), 6);
        for state in [State::WriteThrough, State::Counted] {
            assert_eq!(with(state).why_no_bytes(), None);
        }
    }

    #[test]
    fn files_that_are_mapped_by_dax_are_not_counted() {
        let program = std::env::current_exe().unwrap();
        let mut report = daxmap::probe::probe(program).unwrap();
        report.statx_dax = Some(false);
        let counted = Device::of(&report);
        assert!(!counted.written.is_empty() && counted.read().bytes.is_some());
        let mut disks = Vec::new();
        collect(report.device.as_ref().unwrap(), &passes_flushes_on, &mut disks);
        let keeps_nothing = disks.iter().any(|disk| write_cache(*disk) == Some(false));
        let expected = if keeps_nothing { State::WriteThrough } else { State::Counted };
        assert_eq!((counted.state, counted.flushed.len()), (expected, disks.len()));
        report.statx_dax = Some(true);
        let dax = Device::of(&report);
        assert_eq!((dax.state, dax.read().bytes), (State::Dax, None));
        report.device = None;
        assert_eq!(Device::of(&report).state, State::Absent);
    }

    #[test]
    fn without_a_device_nothing_is_counted() {
        assert_eq!(Device::default().read(), Reading { bytes: None, flushes: None });
    }
}
