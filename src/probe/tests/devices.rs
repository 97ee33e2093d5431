//! Stacks of devices, and memory that is not an NVDIMM.

use rustix::fs::FileType;

use super::tree::{ADR, CXL, EADR, Region, Tree};
use super::{FakeFile, codes};
use crate::cpu::WriteBack;
use crate::durability::{Backend, Durability, Granularity, PersistenceDomain};
use crate::probe::extents::Extent;
use crate::probe::report::{BlockDevice, HugePages, MapSync};

const M: u64 = 1 << 20;

#[test]
fn stripe_over_two_domains_has_the_weaker_and_leaves_the_others_alone() {
    let mut tree = Tree::new();
    let adr = tree.pmem(0, "259:0", ADR, "fsdax");
    let eadr = tree.pmem(1, "259:1", EADR, "fsdax");
    tree.pmem(2, "259:2", EADR, "fsdax");
    tree.device_mapper("253:0", "dm-0", true, &[&adr, &eadr]);
    tree.mount("253:0 / /striped rw - xfs /dev/mapper/striped rw,dax=always");
    tree.mount("259:2 / /alone rw - xfs /dev/pmem2 rw,dax=always");

    let striped = FakeFile::dax("/striped/f", (253, 0)).probe(&tree.root);
    assert_eq!(striped.regions.len(), 2);
    assert_eq!(striped.persistence_domain, PersistenceDomain::MemoryController);
    assert_eq!(striped.granularity, Granularity::CacheLine, "byte only if every region is");
    assert_eq!(striped.durability, Durability::PowerFail);
    assert_eq!(striped.huge_pages, HugePages::Unknown, "the table is root's");

    let alone = FakeFile::dax("/alone/f", (259, 2)).probe(&tree.root);
    assert_eq!(alone.granularity, Granularity::Byte);
    assert_eq!(alone.persistence_domain, PersistenceDomain::CpuCache);
}

#[test]
fn stripe_with_one_nameless_region_is_unverified() {
    let mut tree = Tree::new();
    let adr = tree.pmem(0, "259:0", ADR, "fsdax");
    let nameless = tree.pmem(1, "259:1", Region { domain: None, ..ADR }, "fsdax");
    tree.device_mapper("253:0", "dm-0", true, &[&adr, &nameless]);
    tree.mount("253:0 / /m rw - ext4 /dev/mapper/x rw,dax=always");
    let report = FakeFile::dax("/m/f", (253, 0)).probe(&tree.root);
    assert_eq!(report.durability, Durability::Unverified);
    assert_eq!(codes(&report), ["persistence-domain-unknown"]);
    assert!(report.reasons[0].text.contains("region1"));
}

#[test]
fn device_mapper_that_drops_dax() {
    let mut tree = Tree::new();
    let adr = tree.pmem(0, "259:0", ADR, "fsdax");
    tree.device_mapper("253:0", "dm-0", false, &[&adr]);
    tree.mount("253:0 / /m rw - ext4 /dev/mapper/x rw");
    let report = FakeFile::new("/m/f", (253, 0)).probe(&tree.root);
    assert_eq!(codes(&report), ["no-dax-device"]);
    assert!(report.reasons[0].text.contains("does not pass on"), "{}", report.reasons[0]);
    assert_eq!(report.durability, Durability::Fsync);
}

#[test]
fn partition_start_decides_huge_pages() {
    for (start, aligned) in [(4096, true), (2048, false)] {
        let mut tree = Tree::new();
        let disk = tree.pmem(0, "259:0", ADR, "fsdax");
        let start_text = format!("{start}\n");
        let attributes =
            [("partition", "1\n"), ("start", start_text.as_str()), ("size", "409600\n")];
        tree.block("259:1", &format!("{disk}/pmem0p1"), &attributes);
        tree.mount("259:1 / /m rw - ext4 /dev/pmem0p1 rw,dax=always");
        let report = FakeFile::dax("/m/f", (259, 1)).probe(&tree.root);
        assert_eq!(report.backend, Backend::FsDax);
        assert_eq!(report.regions[0].name, "region0");
        let total = 32;
        if aligned {
            assert_eq!(report.huge_pages, HugePages::Possible { aligned: total, total });
            assert_eq!(codes(&report), [""; 0]);
        } else {
            assert_eq!(report.huge_pages, HugePages::Misaligned { aligned: 0, total });
            assert_eq!(codes(&report), ["huge-pages-misaligned"]);
            let directory = FakeFile::directory("/m", (259, 1)).probe(&tree.root);
            assert_eq!(directory.map_sync, MapSync::Predicted(true));
            assert_eq!(codes(&directory), ["huge-pages-misaligned"]);
        }
    }
}

#[test]
fn a_partition_between_pages_has_no_dax() {
    let mut tree = Tree::new();
    let disk = tree.pmem(0, "259:0", ADR, "fsdax");
    let attributes = [("partition", "1\n"), ("start", "2047\n"), ("size", "409600\n")];
    tree.block("259:1", &format!("{disk}/pmem0p1"), &attributes);
    tree.mount("259:1 / /m rw - ext4 /dev/pmem0p1 rw");
    let report = FakeFile::new("/m/f", (259, 1)).probe(&tree.root);
    assert_eq!(codes(&report), ["no-dax-device"]);
    let text = &report.reasons[0].text;
    assert!(text.starts_with("partition pmem0p1 does not begin and end at multiples"), "{text}");
}

#[test]
fn partition_has_its_own_bad_blocks() {
    let mut tree = Tree::new();
    let disk = tree.pmem(0, "259:0", ADR, "fsdax");
    tree.root.write(&format!("/sys/devices/{disk}/badblocks"), "0 8\n8192 8\n900000 8\n");
    let attributes = [("partition", "1\n"), ("start", "4096\n"), ("size", "409600\n")];
    tree.block("259:1", &format!("{disk}/pmem0p1"), &attributes);
    tree.mount("259:1 / /m rw - ext4 /dev/pmem0p1 rw,dax=always");
    let file = FakeFile::dax("/m/f", (259, 1));
    let bad = file.clone().with(|file| {
        file.extents = Some(vec![Extent { logical: 0, physical: 2 * M, len: 64 * M }]);
    });
    let report = bad.probe(&tree.root);
    assert_eq!(report.bad_ranges, std::slice::from_ref(&(0..4096)));
    assert_eq!(codes(&report), ["bad-blocks"]);
    assert_eq!(codes(&file.probe(&tree.root)), [""; 0], "a file elsewhere is not concerned");
    let directory = FakeFile::directory("/m", (259, 1)).probe(&tree.root);
    assert_eq!(codes(&directory), ["bad-blocks"]);
    assert!(directory.reasons[0].text.contains("pmem0p1"));
}

#[test]
fn bad_blocks_under_device_mapper_are_told_of_the_device() {
    let mut tree = Tree::new();
    let below = tree.pmem(0, "259:0", ADR, "fsdax");
    tree.root.write(&format!("/sys/devices/{below}/badblocks"), "8192 8\n");
    tree.device_mapper("253:0", "dm-0", true, &[&below]);
    tree.mount("253:0 / /m rw - ext4 /dev/mapper/x rw,dax=always");
    let report = FakeFile::dax("/m/f", (253, 0)).probe(&tree.root);
    assert!(report.bad_ranges.is_empty());
    assert_eq!(codes(&report), ["bad-blocks"]);
    assert!(report.reasons[0].text.starts_with("pmem0 "));
}

#[test]
fn cxl_persistent_memory_comes_as_an_nvdimm() {
    let mut tree = Tree::new();
    tree.pmem(0, "259:0", CXL, "fsdax");
    tree.mount("259:0 / /m rw - ext4 /dev/pmem0 rw,dax=always");
    let report = FakeFile::dax("/m/f", (259, 0)).probe(&tree.root);
    assert_eq!((report.backend, report.durability), (Backend::FsDax, Durability::PowerFail));
    assert_eq!(report.regions[0].provider, "CXL");
}

#[test]
fn a_volatile_nd_region() {
    let mut tree = Tree::new();
    tree.pmem(0, "259:0", Region { devtype: "nd_volatile", ..ADR }, "fsdax");
    tree.mount("259:0 / /m rw - ext4 /dev/pmem0 rw,dax=always");
    let report = FakeFile::dax("/m/f", (259, 0)).probe(&tree.root);
    assert_eq!(report.durability, Durability::ProcessOnly);
    assert_eq!(codes(&report), ["volatile-region"]);
}

#[test]
fn page_cache_on_pmem_is_as_good_as_its_region() {
    let e820 = Region { provider: "e820", domain: None, ..ADR };
    let virtio = Region { provider: "virtio-pmem", domain: None, ..ADR };
    let nameless = Region { domain: None, ..ADR };
    for (region, expected) in [
        (ADR, Durability::Fsync),
        (EADR, Durability::Fsync),
        (virtio, Durability::Fsync),
        (nameless, Durability::Unverified),
        (e820, Durability::ProcessOnly),
    ] {
        let mut tree = Tree::new();
        tree.pmem(0, "259:0", region, "legacy");
        tree.mount("259:0 / /m rw - ext4 /dev/pmem0 rw,dax=never");
        let report = FakeFile::new("/m/f", (259, 0)).probe(&tree.root);
        assert_eq!(report.backend, Backend::PageCache);
        assert_eq!(report.durability, expected, "{}", region.provider);
    }
}

#[test]
fn the_node_of_the_memory_is_told() {
    for (text, node) in [("-1\n", None), ("0\n", Some(0)), ("3\n", Some(3)), ("", None)] {
        let mut tree = Tree::new();
        tree.pmem(0, "259:0", ADR, "fsdax");
        tree.root.write(&format!("/sys/devices/{}/ndbus0/region0/numa_node", ADR.bus), text);
        tree.mount("259:0 / /m rw - ext4 /dev/pmem0 rw,dax=always");
        let report = FakeFile::new("/m/f", (259, 0)).probe(&tree.root);
        assert_eq!(report.regions[0].numa_node, node, "{text}");
    }
}

fn dax_node(tree: &Tree) -> crate::probe::Report {
    FakeFile::node("/dev/dax0.0", FileType::CharacterDevice, (252, 0))
        .with(|file| file.map_sync = Some(MapSync::Accepted))
        .probe(&tree.root)
}

#[test]
fn device_dax_on_volatile_memory() {
    for (directory, provider) in [
        ("platform/hmem.0/dax0.0", "hmem"),
        ("platform/ACPI0017:00/root0/decoder0.0/region0/dax_region0/dax0.0", "cxl"),
    ] {
        let tree = Tree::new();
        tree.dax_node("252:0", directory, "2097152\n");
        let at = "/sys/devices/platform/ACPI0017:00/root0/decoder0.0/region0";
        tree.root.write(&format!("{at}/uevent"), "DEVTYPE=cxl_region\n");
        tree.root.write(&format!("{at}/dax_region0/uevent"), "DEVTYPE=cxl_dax_region\n");
        let report = dax_node(&tree);
        assert_eq!((report.backend, report.durability), (Backend::DevDax, Durability::ProcessOnly));
        assert_eq!(report.regions[0].provider, provider);
        let all = crate::probe::HugePages::Possible { aligned: 512, total: 512 };
        assert_eq!(report.huge_pages, all, "of 1 GiB");
        let named = if provider == "hmem" { "hmem.0" } else { "region0" };
        assert_eq!((report.regions[0].name.as_str(), report.regions[0].numa_node), (named, None));
        tree.root.write(&format!("/sys/devices/{directory}/target_node"), "0\n");
        assert_eq!(dax_node(&tree).regions[0].numa_node, Some(0));
        assert_eq!(report.persistence_domain, PersistenceDomain::Volatile);
        assert_eq!(codes(&report), ["volatile-region"]);
    }
}

#[test]
fn device_dax_is_known_by_what_made_it() {
    let at = "platform/made-up.7";
    for driver in ["dax_hmem", "hmem"] {
        let tree = Tree::new();
        tree.dax_node("252:0", &format!("{at}/dax0.0"), "2097152\n");
        let drivers = "../../../bus/platform/drivers";
        tree.root.link(&format!("/sys/devices/{at}/driver"), &format!("{drivers}/{driver}"));
        let region = dax_node(&tree).regions.remove(0);
        assert_eq!((region.provider.as_str(), region.name.as_str()), ("hmem", "made-up.7"));
    }
    // The region above may be out of sight.
    let tree = Tree::new();
    tree.dax_node("252:0", "platform/dax_region3/dax0.0", "2097152\n");
    let at = "/sys/devices/platform/dax_region3";
    tree.root.write(&format!("{at}/uevent"), "DEVTYPE=cxl_dax_region\n");
    let report = dax_node(&tree);
    assert_eq!(report.durability, Durability::ProcessOnly);
    let region = &report.regions[0];
    assert_eq!((region.provider.as_str(), region.name.as_str()), ("cxl", "dax_region3"));
}

#[test]
fn device_dax_without_a_size_has_that_of_its_namespace() {
    let tree = Tree::new();
    let at = format!("{}/dax0.1", tree.region(0, ADR));
    tree.root.write(&format!("/sys/devices/{at}/uevent"), "DEVTYPE=nd_dax\n");
    tree.root.write(&format!("/sys/devices/{at}/size"), "4194304\n");
    tree.dax_node("252:0", &format!("{at}/dax0.0"), "2097152\n");
    tree.root.write(&format!("/sys/devices/{at}/dax0.0/size"), "");
    assert_eq!(dax_node(&tree).namespace.unwrap().size, Some(4 << 20));
}

#[test]
fn device_dax_without_a_write_back_is_memory_and_no_more() {
    let tree = Tree::new();
    let at = format!("{}/dax0.1/dax0.0", tree.region(0, ADR));
    tree.dax_node("252:0", &at, "2097152\n");
    for (write_back, backend) in
        [(WriteBack::Clwb, Backend::DevDax), (WriteBack::None, Backend::Volatile)]
    {
        let report = FakeFile::node("/dev/dax0.0", FileType::CharacterDevice, (252, 0))
            .with(|file| (file.map_sync, file.write_back) = (Some(MapSync::Accepted), write_back))
            .probe(&tree.root);
        assert_eq!(report.backend, backend);
    }
}

#[test]
fn device_dax_of_an_unknown_kind_promises_nothing() {
    let tree = Tree::new();
    tree.dax_node("252:0", "platform/new.0/dax0.0", "4096\n");
    let report = dax_node(&tree);
    assert_eq!(report.durability, Durability::Unverified);
    assert_eq!(codes(&report), ["persistence-domain-unknown", "huge-pages-misaligned"]);
    let remedy = report.reasons[1].remedy.as_ref().unwrap().to_string();
    assert!(remedy.contains("ndctl create-namespace --align"), "{remedy}");
}

#[test]
fn device_dax_that_may_not_be_opened_is_still_device_dax() {
    let tree = Tree::new();
    let region = tree.region(0, ADR);
    let at = format!("{region}/dax0.1");
    tree.root.write(&format!("/sys/devices/{at}/uevent"), "DEVTYPE=nd_dax\n");
    tree.dax_node("252:0", &format!("{at}/dax0.0"), "2097152\n");
    let report = FakeFile::node("/dev/dax0.0", FileType::CharacterDevice, (252, 0))
        .with(|file| file.map_sync = Some(MapSync::NotTried(13)))
        .probe(&tree.root);
    assert_eq!((report.backend, report.durability), (Backend::DevDax, Durability::PowerFail));
    assert_eq!(codes(&report), ["permission-denied"]);
    let refused =
        FakeFile::node("/dev/dax0.0", FileType::CharacterDevice, (252, 0)).probe(&tree.root);
    assert_eq!((refused.backend, refused.durability), (Backend::Volatile, Durability::ProcessOnly));
    assert_eq!(codes(&refused), ["map-sync-refused"]);
}

#[test]
fn memory_that_poses_as_a_disk() {
    let mut tree = Tree::new();
    tree.block("252:0", "virtual/block/zram0", &[("mm_stat", "0\n"), ("queue/dax", "0\n")]);
    tree.block("1:0", "virtual/block/ram0", &[("queue/dax", "0\n")]);
    tree.device_mapper("253:0", "dm-0", false, &["virtual/block/zram0"]);
    for (number, device) in [("252:0", (252, 0)), ("1:0", (1, 0)), ("253:0", (253, 0))] {
        tree.mount(&format!("{number} / /m{} rw - ext4 /dev/x rw", device.0));
        let report = FakeFile::new("/m/f", device).probe(&tree.root);
        assert_eq!(report.durability, Durability::ProcessOnly, "{number}");
        assert_eq!(codes(&report), ["memory-backed", "no-dax-device"]);
    }
}

#[test]
fn a_disk_that_is_made_of_others_is_as_good_as_they_are() {
    let mut tree = Tree::new();
    tree.block("252:0", "virtual/block/zram0", &[("mm_stat", "0\n"), ("queue/dax", "0\n")]);
    tree.disk("8:0", "sda");
    for (number, below, expected) in [
        ((240, 0), "virtual/block/zram0", Durability::ProcessOnly),
        ((240, 1), "pci0000:00/virtio1/block/sda", Durability::Fsync),
    ] {
        let directory = format!("virtual/block/md{}", number.1);
        let attributes = [("queue/dax", "0\n"), ("md/level", "raid1\n")];
        tree.block(&format!("240:{}", number.1), &directory, &attributes);
        let slave = format!("/sys/devices/{directory}/slaves/below");
        tree.root.link(&slave, &format!("../../../../{below}"));
        tree.mount(&format!("240:{} / /m rw - ext4 /dev/x rw", number.1));
        let report = FakeFile::new("/m/f", number).probe(&tree.root);
        assert_eq!(report.durability, expected, "{below}");
    }
}

#[test]
fn disks_that_others_keep() {
    let mut tree = Tree::new();
    tree.block("43:0", "virtual/block/nbd0", &[("queue/dax", "0\n")]);
    tree.block("259:7", "virtual/block/ublkb0", &[("queue/dax", "0\n")]);
    tree.block("250:0", "virtual/block/rbd0", &[("queue/dax", "0\n")]);
    for device in [(43, 0), (259, 7), (250, 0)] {
        tree.mount(&format!("{}:{} / /m rw - xfs /dev/x rw", device.0, device.1));
        let report = FakeFile::new("/m/f", device).probe(&tree.root);
        assert_eq!(report.durability, Durability::Unverified);
        assert_eq!(codes(&report), ["layer-unverified", "no-dax-device"]);
        assert!(report.reasons[0].text.contains("a program or a server"), "{}", report.reasons[0]);
    }
}

#[test]
fn asynchronous_memory_is_never_synchronous() {
    let mut tree = Tree::new();
    tree.pmem(0, "259:0", Region { provider: "virtio-pmem", domain: None, ..ADR }, "legacy");
    tree.mount("259:0 / /m rw - ext4 /dev/pmem0 rw,dax=always");
    let directory = FakeFile::directory("/m", (259, 0)).probe(&tree.root);
    assert_eq!(directory.map_sync, MapSync::Predicted(false));
    assert_eq!(directory.durability, Durability::Fsync);
    // No kernel does this; if one did, CPU write-backs would still end before the host's fsync.
    let accepted = FakeFile::dax("/m/f", (259, 0)).probe(&tree.root);
    assert_eq!((accepted.backend, accepted.durability), (Backend::FsDax, Durability::Unverified));
}

#[test]
fn garbage_in_sysfs_promises_nothing_and_breaks_nothing() {
    let mut tree = Tree::new();
    let block = tree.pmem(0, "259:0", ADR, "fsdax");
    tree.mount("259:0 / /m rw - ext4 /dev/pmem0 rw,dax=always");
    let device = format!("/sys/devices/{block}");
    let region = "/sys/devices/LNXSYSTM:00/ACPI0012:00/ndbus0/region0";
    for (path, text) in [
        (format!("{region}/persistence_domain"), "memory_cont"),
        (format!("{region}/read_only"), "maybe"),
        (format!("{region}/numa_node"), "99999999999999999999"),
        (format!("{region}/badblocks"), "8 8 8\nx"),
        (format!("{device}/badblocks"), "\u{fffd} -1\n5"),
        (format!("{device}/queue/logical_block_size"), "4k"),
        (format!("{device}/../../align"), "0"),
        (format!("{device}/../../size"), ""),
    ] {
        tree.root.write(&path, text);
    }
    let report = FakeFile::dax("/m/f", (259, 0)).probe(&tree.root);
    assert_eq!(report.persistence_domain, PersistenceDomain::Unknown);
    assert_eq!(report.durability, Durability::Unverified);
    assert!(!report.regions[0].read_only);

    std::fs::write(tree.root.at(&format!("{region}/persistence_domain")), [0xff, 0xfe]).unwrap();
    std::fs::remove_file(tree.root.at(&format!("{region}/uevent"))).unwrap();
    let report = FakeFile::dax("/m/f", (259, 0)).probe(&tree.root);
    assert_eq!(report.durability, Durability::Unverified, "no region is visible");
    assert_eq!(codes(&report)[0], "layer-unverified");
}

#[test]
fn a_device_mapper_device_passes_on_what_its_targets_do() {
    let (adr, none) = (Durability::PowerFail, Durability::Unverified);
    let unknown = "only root may read its targets";
    for (targets, uuid, level, words) in [
        (Some("linear"), "", adr, "dm-0 (device-mapper of linear) passes every flush on"),
        (Some("linear striped linear"), "", adr, "(device-mapper of linear, striped)"),
        (Some("crypt"), "test-x", adr, "of crypt"),
        (Some("linear flakey"), "", none, "dm-0 has a target of the type flakey"),
        (Some("linear flakey"), "LVM-x", none, "dm-0 has a target of the type flakey"),
        (Some("snapshot"), "", none, "dm-0 has a target of the type snapshot"),
        (Some("snapshot"), "LVM-x", adr, "of snapshot"),
        (Some(""), "", none, unknown),
        (None, "LVM-x", adr, "its UUID says that LVM made it"),
        (None, "CRYPT-LUKS2-x", adr, "its UUID says that cryptsetup made it"),
        (None, "part1-mpath-x", adr, "its UUID says that multipath made it"),
        (None, "test-x", none, unknown),
        (None, "", none, unknown),
    ] {
        let mut tree = Tree::new();
        let below = tree.pmem(0, "259:0", ADR, "fsdax");
        tree.device_mapper("253:0", "dm-0", true, &[&below]);
        match targets {
            Some(targets) => tree.root.write("/dev/dm-0.targets", targets),
            None => std::fs::remove_file(tree.root.at("/dev/dm-0.targets")).unwrap(),
        }
        tree.root.write("/sys/devices/virtual/block/dm-0/dm/uuid", &format!("{uuid}\n"));
        tree.mount("253:0 / /m rw - ext4 /dev/mapper/x rw,dax=always");
        let report = FakeFile::dax("/m/f", (253, 0)).probe(&tree.root);
        assert_eq!(report.durability, level, "{targets:?} {uuid}");
        let says = report.caps.iter().any(|cap| cap.evidence.contains(words));
        assert!(says, "{words}: {:#?}", report.caps);
    }
}

/// How many devices there are, and how many levels below the first.
fn size(device: &BlockDevice) -> (usize, usize) {
    let below: Vec<_> = device.below.iter().map(size).collect();
    let deepest = below.iter().map(|(_, depth)| depth + 1).max().unwrap_or_default();
    (1 + below.iter().map(|(count, _)| count).sum::<usize>(), deepest)
}

#[test]
fn devices_in_a_circle_end() {
    let mut tree = Tree::new();
    tree.device_mapper("253:0", "dm-0", true, &["virtual/block/dm-1", "virtual/block/dm-1"]);
    tree.device_mapper("253:1", "dm-1", true, &["virtual/block/dm-0", "virtual/block/dm-0"]);
    tree.mount("253:0 / /m rw - ext4 /dev/mapper/x rw");
    let report = FakeFile::new("/m/f", (253, 0)).probe(&tree.root);
    assert_eq!(report.durability, Durability::Unverified);
    // Two below each, and so many more than are looked at, and deeper.
    assert_eq!(size(&report.device.unwrap()), (512, 16));
    tree.loop_device("7:0", "loop0", "/l/image");
    tree.image("/l/image", "allocated");
    tree.mount("7:0 / /l rw - ext4 /dev/loop0 rw");
    let report = FakeFile::new("/l/f", (7, 0)).probe(&tree.root);
    assert_eq!(report.durability, Durability::Unverified);
}

/// A stack is followed to its end, or what is below the last that was looked at is not known.
#[test]
fn a_stack_of_devices_has_an_end() {
    for (stacked, level) in [(16, Durability::Fsync), (17, Durability::Unverified)] {
        let mut tree = Tree::new();
        tree.disk("8:0", "sda");
        for n in 0..stacked {
            let below = match n + 1 {
                next if next < stacked => format!("virtual/block/dm-{next}"),
                _ => "pci0000:00/virtio1/block/sda".to_owned(),
            };
            tree.device_mapper(&format!("253:{n}"), &format!("dm-{n}"), false, &[&below]);
        }
        tree.mount("253:0 / /m rw - ext4 /dev/mapper/x rw");
        let report = FakeFile::new("/m/f", (253, 0)).probe(&tree.root);
        assert_eq!(report.durability, level, "{stacked}");
    }
}

#[test]
fn block_device_without_a_filesystem() {
    let tree = Tree::new();
    tree.pmem(0, "259:0", ADR, "fsdax");
    tree.pmem(1, "259:1", ADR, "raw");
    let probe = |n: u32| {
        FakeFile::node(&format!("/dev/pmem{n}"), FileType::BlockDevice, (259, n)).probe(&tree.root)
    };
    let ready = probe(0);
    assert_eq!(ready.map_sync, MapSync::Predicted(true));
    assert_eq!((ready.backend, ready.durability), (Backend::FsDax, Durability::PowerFail));
    assert!(ready.mount.is_none() && ready.filesystem.is_none());
    let raw = probe(1);
    assert_eq!(raw.map_sync, MapSync::Predicted(false));
    assert_eq!(codes(&raw), ["raw-namespace"]);
    let gone = FakeFile::node("/dev/gone", FileType::BlockDevice, (259, 9)).probe(&tree.root);
    assert_eq!(gone.durability, Durability::Unverified);
}

#[test]
fn block_device_answers_for_the_filesystem_on_it() {
    let mut tree = Tree::new();
    tree.pmem(0, "259:0", ADR, "fsdax");
    tree.mount("259:0 / /m rw - xfs /dev/pmem0 rw,dax=never");
    let report = FakeFile::node("/dev/pmem0", FileType::BlockDevice, (259, 0)).probe(&tree.root);
    assert_eq!(report.map_sync, MapSync::Predicted(false));
    assert_eq!(codes(&report), ["mounted-dax-never"]);
    assert_eq!(report.mount.unwrap().point, std::path::Path::new("/m"));
}
