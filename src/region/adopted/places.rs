//! How is a file mapped at an address? What `/proc/self/maps` and `/proc/self/smaps` say
//! (proc_pid_maps(5), proc_pid_smaps(5)).

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::fs;
use rustix::io::Errno;

use crate::durability::Backend;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::probe::Report;
use crate::region::identity::{Driver, identity};

/// What is known of the mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Shared, and all of it with `MAP_SYNC`: the flag `sf` (`show_smap_vma_flags`, fs/proc/task_mmu.c).
    Synchronous,
    /// Shared.
    Shared,
    /// Nobody says.
    Unknown,
}

/// One mapping of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Area {
    addresses: Range<usize>,
    shared: bool,
    offset: u64,
    device: (u32, u32),
    inode: u64,
    synchronous: bool,
}

/// The file that is mapped there, as far as its numbers tell it from others.
type Numbers = Option<((u32, u32), u64)>;

/// Looks a range of addresses up, which is to be the file from `offset` on.
pub(super) fn of(
    file: BorrowedFd<'_>,
    addresses: Range<usize>,
    offset: u64,
    report: &Report,
) -> Result<Place> {
    if addresses.is_empty() {
        return Ok(Place::Shared);
    }
    // Only there the flags matter, which the kernel looks every page up for.
    let source = match report.backend {
        Backend::FsDax => "/proc/self/smaps",
        _ => "/proc/self/maps",
    };
    let Ok(text) = File::open(source) else { return Ok(Place::Unknown) };
    match areas(BufReader::new(text), &addresses) {
        Ok(areas) => judge(&areas, &addresses, offset, numbers(file, report)?),
        Err(_) => Ok(Place::Unknown),
    }
}

/// The numbers that the table of mappings has for the file: the filesystem's own device, which for
/// btrfs is another than stat(2) says.
fn numbers(file: BorrowedFd<'_>, report: &Report) -> Result<Numbers> {
    let failed = |call| move |errno| Error::os(Operation::Open, call, errno);
    let found = fs::fstat(file).map_err(failed("fstat"))?;
    let driver = Driver::of(file).map_err(failed("fstatfs"))?;
    if identity(driver, &found).is_none() || report.filesystem.as_deref() == Some("btrfs") {
        return Ok(None);
    }
    // Numbers of devices have 32 bits.
    let device = (fs::major(found.st_dev), fs::minor(found.st_dev));
    Ok(Some((device, found.st_ino)))
}

/// The mappings that the range meets, in order.
fn areas(text: impl BufRead, addresses: &Range<usize>) -> std::io::Result<Vec<Area>> {
    let mut areas: Vec<Area> = Vec::new();
    let mut last_is_met = false;
    for line in text.lines() {
        let line = line?;
        if let Some(area) = parse(&line) {
            if area.addresses.start >= addresses.end {
                break;
            }
            last_is_met = area.addresses.end > addresses.start;
            if last_is_met {
                areas.push(area);
            }
        } else if last_is_met {
            if let Some(flags) = line.strip_prefix("VmFlags:") {
                if let Some(area) = areas.last_mut() {
                    area.synchronous = flags.split_ascii_whitespace().any(|flag| flag == "sf");
                }
            }
        }
    }
    Ok(areas)
}

/// `7f1c64000000-7f1c64200000 rw-s 00001000 08:01 131  /path`.
fn parse(line: &str) -> Option<Area> {
    let mut parts = line.split_ascii_whitespace();
    let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = parts.next()?.split_once('-')?;
    let addresses = hexadecimal(start)? as usize..hexadecimal(end)? as usize;
    let shared = parts.next()?.ends_with('s');
    let offset = hexadecimal(parts.next()?)?;
    let (major, minor) = parts.next()?.split_once(':')?;
    let device = (hexadecimal(major)? as u32, hexadecimal(minor)? as u32);
    let inode = parts.next()?.parse().ok()?;
    Some(Area { addresses, shared, offset, device, inode, synchronous: false })
}

fn judge(areas: &[Area], addresses: &Range<usize>, offset: u64, numbers: Numbers) -> Result<Place> {
    let refused = |why| Err(Error::new(Operation::Open, ErrorKind::Unsupported(why)));
    let mut at = addresses.start;
    for area in areas {
        if area.addresses.start > at {
            break;
        }
        if !area.shared {
            return refused("a private mapping: what is stored there never reaches the file");
        }
        let here = area.offset + (at - area.addresses.start) as u64;
        let other = numbers.is_some_and(|numbers| numbers != (area.device, area.inode));
        if other || here != offset + (at - addresses.start) as u64 {
            return refused("a mapping of another file, or of another part of this one");
        }
        at = area.addresses.end;
    }
    if at < addresses.end {
        return Err(Error::os(Operation::Open, "/proc/self/maps", Errno::NOMEM));
    }
    let synchronous = areas.iter().all(|area| area.synchronous);
    Ok(if synchronous { Place::Synchronous } else { Place::Shared })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f0000000000-7f0000200000 rw-s 00001000 103:02 131                        /dax/file
Size:               2048 kB
VmFlags: rd wr sh mr mw me ms sf hg
7f0000200000-7f0000400000 rw-s 00201000 103:02 131                        /dax/file
Size:               2048 kB
VmFlags: rd wr sh mr mw me ms hg
7f0000400000-7f0000401000 rw-p 00000000 00:00 0
VmFlags: rd wr mr mw me ac sf
";
    const FILE: Numbers = Some(((0x103, 2), 131));
    const START: usize = 0x7f00_0000_0000;
    const HALF: usize = 2 << 20;

    fn looked_up(addresses: Range<usize>, offset: u64, numbers: Numbers) -> Result<Place> {
        let found = areas(SMAPS.as_bytes(), &addresses).unwrap();
        judge(&found, &addresses, offset, numbers)
    }

    #[test]
    fn all_of_the_range_has_to_be_synchronous() {
        assert_eq!(looked_up(START..START + HALF, 0x1000, FILE).unwrap(), Place::Synchronous);
        let within = START + 4096..START + 8192;
        assert_eq!(looked_up(within, 0x2000, FILE).unwrap(), Place::Synchronous);
        assert_eq!(looked_up(START..START + HALF + 1, 0x1000, FILE).unwrap(), Place::Shared);
        let second = START + HALF..START + 2 * HALF;
        assert_eq!(looked_up(second, 0x20_1000, None).unwrap(), Place::Shared);
    }

    #[test]
    fn another_file_or_place_or_kind_is_refused() {
        let whole = START..START + HALF;
        for (offset, numbers) in [
            (0, FILE),
            (0x1001, FILE),
            (0x1000, Some(((0x103, 3), 131))),
            (0x1000, Some(((0x103, 2), 132))),
        ] {
            let error = looked_up(whole.clone(), offset, numbers).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Unsupported(_)), "{error}");
        }
        let private = START + 2 * HALF..START + 2 * HALF + 1;
        let error = looked_up(private, 0, None).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unsupported(why) if why.contains("private")));
    }

    #[test]
    fn what_is_not_mapped_is_an_error() {
        for range in [START - 4096..START + 1, START + 2 * HALF + 4096..START + 2 * HALF + 4097] {
            let error = looked_up(range, 0, None).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::NOMEM), "{error}");
        }
    }
}
