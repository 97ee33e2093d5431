//! Bad memory: of one path and of everything, in the offsets of the thing named.

use std::ops::Range;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::capture::load;
use super::tree::{ADR, CXL, Tree};
use super::{FakeFile, TempDir};
use crate::probe::BadIn;
use crate::probe::Scrubs;
use crate::probe::bad_memory::{BadMemory, everything};
use crate::probe::block::Context;
use crate::probe::extents::Extent;
use crate::probe::mountinfo::Mounts;
use crate::probe::report::MapSync;
use crate::probe::sources::Sources;

const REGION: &str = "/sys/devices/LNXSYSTM:00/ACPI0012:00/ndbus0/region0";
const BUS: &str = "/sys/devices/LNXSYSTM:00/ACPI0012:00/ndbus0";

fn all(root: &TempDir) -> Vec<BadMemory> {
    let sources = Sources::tree(&root.0);
    everything(&Context::new(&sources, &Mounts::of(&sources), 4096))
}

/// One range of this many KiB.
fn kib(start: u64, len: u64) -> Vec<Range<u64>> {
    vec![Range { start: start << 10, end: (start + len) << 10 }]
}

fn named(found: &[BadMemory]) -> Vec<(&str, BadIn, Vec<Range<u64>>)> {
    let one = |bad: &BadMemory| (bad.kind, bad.ranges.clone());
    found.iter().map(|bad| (bad.name.to_str().unwrap(), one(bad).0, one(bad).1)).collect()
}

#[test]
fn everything_is_listed_mounted_or_not_in_its_own_offsets() {
    let mut tree = Tree::new();
    let block = tree.pmem(0, "259:0", ADR, "fsdax");
    tree.pmem(1, "259:1", ADR, "raw");
    // 4 KiB at 3 MiB of the region, which is 1 MiB behind the namespace's own 2 MiB.
    tree.root.write(&format!("{REGION}/badblocks"), "6144 8\n");
    tree.root.write(&format!("/sys/devices/{block}/badblocks"), "2048 8\n");
    tree.mount("259:0 / /m rw - ext4 /dev/pmem0 rw,dax=always");
    let found = all(&tree.root);
    assert_eq!(
        named(&found),
        [
            ("region0", BadIn::Region, kib(3072, 4)),
            ("/dev/pmem0", BadIn::BlockDevice, kib(1024, 4)),
            ("region1", BadIn::Region, vec![]),
            ("/dev/pmem1", BadIn::BlockDevice, vec![]),
        ]
    );
    let mounts: Vec<_> = found.iter().map(|bad| bad.mount.as_deref()).collect();
    assert_eq!(mounts, [None, Some(Path::new("/m")), None, None]);
    assert!(found.iter().all(|bad| bad.is_complete && bad.notes.is_empty()), "{found:#?}");
    assert!(found.iter().all(|bad| bad.remedy.is_some() != bad.ranges.is_empty()));
    let holders: Vec<_> = found[1].regions[0].devices.iter().map(|found| &found.name).collect();
    assert_eq!(holders, ["nmem0"]);
}

#[test]
fn a_machine_without_such_memory_has_none() {
    let tree = Tree::new();
    assert_eq!(all(&tree.root), []);
    tree.root.link("/sys/bus/nd/devices/nmem0", "../../../devices/LNXSYSTM:00/nmem0");
    tree.root.link("/sys/bus/nd/devices/ndbus0", "../../../devices/LNXSYSTM:00/ndbus0");
    tree.root.write("/sys/devices/LNXSYSTM:00/nmem0/uevent", "DEVTYPE=nvdimm\n");
    assert_eq!(all(&tree.root), []);
}

#[test]
fn device_dax_is_listed_from_its_own_start() {
    let tree = Tree::new();
    let node = tree.devdax(ADR, "device_dax");
    tree.root.write(&format!("{REGION}/badblocks"), "6144 8\n");
    tree.root.write(&format!("{REGION}/resource"), "0x100000000\n");
    tree.root.write(&format!("/sys/devices/{node}/resource"), "0x100200000\n");
    let found = all(&tree.root);
    let expected =
        [("region0", BadIn::Region, kib(3072, 4)), ("/dev/dax0.0", BadIn::DaxDevice, kib(1024, 4))];
    assert_eq!(named(&found), expected);
    assert!(found[1].is_complete);
    let remedy = found[1].remedy.as_ref().unwrap().to_string();
    assert!(remedy.contains("ndctl clear-errors namespace0.0"), "{remedy}");
    // By its path, the same.
    let node = FakeFile::node("/dev/dax0.0", FileType::CharacterDevice, (252, 0));
    let report = node.with(|file| file.map_sync = Some(MapSync::Accepted)).probe(&tree.root);
    assert_eq!(report.bad_memory().unwrap(), found[1]);

    std::fs::remove_file(tree.root.at(&format!("{REGION}/resource"))).unwrap();
    let hidden = all(&tree.root);
    assert!(hidden[0].is_complete && !hidden[1].is_complete);
    assert!(hidden[1].ranges.is_empty() && hidden[1].notes[0].contains("only root may read"));
}

/// A file of 64 KiB at 256 KiB of its device.
fn file() -> FakeFile {
    FakeFile::dax("/m/f", (259, 0)).with(|file| {
        file.stat.size = 64 << 10;
        file.extents = Some(vec![Extent { logical: 0, physical: 256 << 10, len: 64 << 10 }]);
    })
}

#[test]
fn a_path_has_the_ranges_of_what_it_names() {
    let mut tree = Tree::new();
    let block = tree.pmem(0, "259:0", ADR, "fsdax");
    tree.root.write(&format!("/sys/devices/{block}/badblocks"), "520 8\n4096 8\n");
    tree.mount("259:0 / /m rw - ext4 /dev/pmem0 rw,dax=always");
    let device = [kib(260, 4), kib(2048, 4)].concat();
    let directory = FakeFile::directory("/m", (259, 0));
    let node = FakeFile::node("/dev/pmem0", FileType::BlockDevice, (259, 0));
    for (file, name, kind, ranges) in [
        (file(), "/m/f", BadIn::File, kib(4, 4)),
        (directory.clone(), "/dev/pmem0", BadIn::BlockDevice, device.clone()),
        (node, "/dev/pmem0", BadIn::BlockDevice, device),
    ] {
        let bad = file.probe(&tree.root).bad_memory().unwrap();
        assert_eq!((bad.name.as_path(), bad.kind), (Path::new(name), kind));
        assert_eq!((bad.ranges, bad.is_complete), (ranges, true), "{name}");
        assert_eq!(bad.mount, Some(PathBuf::from("/m")));
    }
    let remedy = file().probe(&tree.root).bad_memory().unwrap().remedy.unwrap().to_string();
    assert!(remedy.contains("AnyRegion::repair"), "{remedy}");
    let missing = directory.with(|file| file.missing = true);
    assert_eq!(missing.probe(&tree.root).bad_memory(), None);
}

#[test]
fn what_cannot_be_told_is_not_complete() {
    let mut tree = Tree::new();
    let block = tree.pmem(0, "259:0", ADR, "fsdax");
    tree.mount("259:0 / /m rw - ext4 /dev/pmem0 rw,dax=always");
    let unread = file().with(|file| file.extents = None);
    let of = |file: &FakeFile, tree: &Tree| file.probe(&tree.root).bad_memory().unwrap();
    assert!(of(&unread, &tree).is_complete, "no error is anywhere");
    tree.root.write(&format!("/sys/devices/{block}/badblocks"), "4096 8\n");
    let bad = of(&unread, &tree);
    assert!(!bad.is_complete && bad.ranges.is_empty());
    assert!(bad.notes[0].contains("whether they lie in /m/f"), "{:?}", bad.notes);
    assert!(of(&file(), &tree).is_complete);
    // A device that does not show its list.
    std::fs::remove_file(tree.root.at(&format!("/sys/devices/{block}/badblocks"))).unwrap();
    tree.root.write(&format!("{REGION}/badblocks"), "6144 8\n");
    assert!(!of(&file(), &tree).is_complete);
    // A region that does not: one that is disabled.
    std::fs::remove_file(tree.root.at(&format!("{REGION}/badblocks"))).unwrap();
    let found = all(&tree.root);
    assert!(found.iter().all(|bad| !bad.is_complete), "{found:#?}");
    assert!(found[0].notes[0].contains("is the region enabled?"), "{:?}", found[0].notes);
}

#[test]
fn something_between_hides_where_an_error_lies() {
    let mut tree = Tree::new();
    let at = tree.pmem(0, "259:0", ADR, "fsdax");
    tree.device_mapper("253:0", "dm-0", true, &[&at]);
    tree.mount("253:0 / /m rw - ext4 /dev/mapper/x rw,dax=always");
    let file = FakeFile::dax("/m/f", (253, 0));
    assert!(file.probe(&tree.root).bad_memory().unwrap().is_complete);
    tree.root.write(&format!("{REGION}/badblocks"), "6144 8\n");
    let bad = file.probe(&tree.root).bad_memory().unwrap();
    assert!(!bad.is_complete && bad.notes[0].contains("something lies between"), "{bad:#?}");
    // The table of a sector namespace too.
    let sector = Tree::new();
    sector.pmem(0, "259:0", ADR, "sector");
    assert!(all(&sector.root)[1].is_complete);
    sector.root.write(&format!("{REGION}/badblocks"), "6144 8\n");
    let bad = all(&sector.root).remove(1);
    assert!(!bad.is_complete && bad.notes[0].contains("where they lie in /dev/pmem0"), "{bad:#?}");
}

#[test]
fn a_partition_has_its_own() {
    let capture = load("partition-ext4");
    let disk = "/sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/pfn0.0/block/pmem0";
    // The second partition begins at sector 528384.
    capture.root.write(&format!("{disk}/badblocks"), "528392 8\n8 8\n");
    let (node, _) = partition_node(&capture.root);
    let bad = FakeFile::node("/dev/pmem0p2", FileType::BlockDevice, node)
        .probe(&capture.root)
        .bad_memory()
        .unwrap();
    assert_eq!((bad.ranges, bad.is_complete), (kib(4, 4), true));
}

fn partition_node(root: &TempDir) -> ((u32, u32), PathBuf) {
    let sources = Sources::tree(&root.0);
    let at = PathBuf::from(
        "/sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/pfn0.0/block/pmem0/pmem0p2",
    );
    (sources.device(at.join("dev")).unwrap(), at)
}

#[test]
fn scrubs_are_told() {
    for (text, expected) in [
        (Some("0\n"), Some((0, false))),
        (Some("3\n"), Some((3, false))),
        (Some("3+\n"), Some((3, true))),
        (Some("+\n"), None),
        (None, None),
    ] {
        let tree = Tree::new();
        tree.pmem(0, "259:0", ADR, "fsdax");
        if let Some(text) = text {
            tree.root.write(&format!("{BUS}/nfit/scrub"), text);
        }
        let expected = expected.map(|(completed, running)| Scrubs { completed, running });
        assert_eq!(all(&tree.root)[0].regions[0].scrubs, expected, "{text:?}");
    }
}

#[test]
fn a_platform_that_cannot_clear_says_so() {
    let tree = Tree::new();
    let block = tree.pmem(0, "259:0", ADR, "fsdax");
    tree.root.write(&format!("/sys/devices/{block}/badblocks"), "2048 8\n");
    for (commands, word) in [
        (Some("ars_cap ars_start clear_error cmd_call\n"), "whole pages"),
        (Some("cmd_call\n"), "cannot clear errors"),
        (None, "whole pages"),
    ] {
        let path = format!("{BUS}/commands");
        let _ = std::fs::remove_file(tree.root.at(&path));
        if let Some(commands) = commands {
            tree.root.write(&path, commands);
        }
        let remedy = all(&tree.root)[1].remedy.as_ref().unwrap().to_string();
        assert!(remedy.contains(word), "{commands:?}: {remedy}");
    }
}

#[test]
fn cxl_has_a_list_of_its_own_that_is_not_seen() {
    let tree = Tree::new();
    let block = tree.pmem(0, "259:0", CXL, "fsdax");
    let found = all(&tree.root);
    assert!(found.len() == 2 && found.iter().all(|bad| !bad.is_complete));
    for bad in &found {
        assert!(bad.notes[0].contains("poison list in its device (nmem0)"), "{:?}", bad.notes);
        assert_eq!(bad.remedy, None);
    }
    tree.root.write(&format!("/sys/devices/{block}/badblocks"), "2048 8\n");
    let remedy = all(&tree.root)[1].remedy.as_ref().unwrap().to_string();
    assert!(remedy.contains("Clear Poison"), "{remedy}");
}

#[test]
fn a_disk_has_no_such_list() {
    let mut tree = Tree::new();
    tree.disk("8:0", "sda");
    tree.mount("8:0 / / rw - ext4 /dev/sda rw");
    let bad = FakeFile::new("/f", (8, 0)).probe(&tree.root).bad_memory().unwrap();
    assert!(bad.ranges.is_empty() && bad.is_complete && bad.regions.is_empty());
    assert!(bad.notes[0].contains("no persistent memory is visible under /f"), "{:?}", bad.notes);
}

#[test]
fn kinds_have_their_names() {
    let names = [BadIn::File, BadIn::BlockDevice, BadIn::DaxDevice, BadIn::Region];
    assert_eq!(names.map(BadIn::as_str), ["file", "block_device", "dax_device", "region"]);
}

#[test]
fn the_errors_of_the_guest() {
    let capture = load("badblocks");
    let found = all(&capture.root);
    assert_eq!(found[0].kind, BadIn::Region);
    let device = found.iter().find(|bad| bad.name == Path::new("/dev/pmem0")).unwrap();
    assert_eq!(device.mount, Some(PathBuf::from("/mnt/a")));
    let bytes = |bad: &BadMemory| bad.ranges.iter().map(|r| r.end - r.start).collect::<Vec<_>>();
    assert_eq!((bytes(device), bytes(&found[0])), (vec![4096; 2], vec![4096; 2]));
    assert_ne!(device.ranges, found[0].ranges, "the device begins behind the namespace's own");
}
