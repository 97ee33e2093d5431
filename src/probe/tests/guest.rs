//! Every capture of the guest, field by field.

use super::capture::load;
use super::{FakeFile, TempDir, codes};
use crate::durability::{Backend, Durability, Granularity, PersistenceDomain};
use crate::probe::extents::Extent;
use crate::probe::report::{HugePages, Report};

/// What a capture's first file gets.
struct Expected<'a> {
    backend: Backend,
    durability: Durability,
    granularity: Granularity,
    domain: PersistenceDomain,
    stack: &'a str,
    namespace: &'a str,
    reasons: &'a [&'a str],
}

fn stack(report: &Report) -> String {
    fn one(device: &crate::probe::BlockDevice) -> String {
        let below: Vec<_> = device.below.iter().map(one).collect();
        match below.len() {
            0 => format!("{}:{}", device.kind, device.name),
            _ => format!("{}:{}({})", device.kind, device.name, below.join(" ")),
        }
    }
    report.device.as_ref().map_or_else(|| "-".to_owned(), one)
}

fn check_file(name: &str, report: &Report, expected: &Expected<'_>) {
    let namespace = report
        .namespace
        .as_ref()
        .map_or_else(|| "-".to_owned(), |found| format!("{}:{}", found.mode, found.name));
    assert_eq!(report.backend, expected.backend, "{name}");
    assert_eq!(report.durability, expected.durability, "{name}");
    assert_eq!(report.granularity, expected.granularity, "{name}");
    assert_eq!(report.persistence_domain, expected.domain, "{name}");
    assert_eq!(stack(report), expected.stack, "{name}");
    assert_eq!(namespace, expected.namespace, "{name}");
    assert_eq!(codes(report), expected.reasons, "{name}: {:#?}", report.reasons);
}

fn check(name: &str, expected: &Expected<'_>) {
    let capture = load(name);
    let report = capture.files[0].probe(&capture.root);
    check_file(name, &report, expected);
}

const ADR: Expected<'static> = Expected {
    backend: Backend::FsDax,
    durability: Durability::PowerFail,
    granularity: Granularity::CacheLine,
    domain: PersistenceDomain::MemoryController,
    stack: "pmem:pmem0",
    namespace: "fsdax:namespace0.0",
    reasons: &[],
};

const PAGE_CACHE: Expected<'static> = Expected {
    backend: Backend::PageCache,
    durability: Durability::Fsync,
    granularity: Granularity::Page,
    ..ADR
};

const DISK: Expected<'static> = Expected {
    domain: PersistenceDomain::None,
    stack: "disk:vda",
    namespace: "-",
    reasons: &["no-dax-device"],
    ..PAGE_CACHE
};

#[test]
fn nvdimm_by_domain() {
    check("nvdimm-adr-ext4", &ADR);
    check("nvdimm-adr-xfs", &ADR);
    check(
        "nvdimm-eadr-ext4",
        &Expected { granularity: Granularity::Byte, domain: PersistenceDomain::CpuCache, ..ADR },
    );
    check(
        "nvdimm-absent-ext4",
        &Expected {
            durability: Durability::Unverified,
            domain: PersistenceDomain::Unknown,
            reasons: &["persistence-domain-unknown"],
            ..ADR
        },
    );
}

#[test]
fn kinds_that_are_not_nvdimms() {
    check(
        "e820-ext4",
        &Expected {
            durability: Durability::ProcessOnly,
            domain: PersistenceDomain::Volatile,
            reasons: &["e820-region"],
            ..ADR
        },
    );
    check(
        "virtio-pmem-ext4",
        &Expected {
            domain: PersistenceDomain::Unknown,
            reasons: &["virtio-pmem-asynchronous"],
            ..PAGE_CACHE
        },
    );
}

#[test]
fn namespaces_without_dax() {
    check(
        "raw-ext4",
        &Expected { namespace: "raw:namespace0.0", reasons: &["raw-namespace"], ..PAGE_CACHE },
    );
    check(
        "sector-ext4",
        &Expected {
            stack: "pmem:pmem0s",
            namespace: "sector:namespace0.0",
            reasons: &["sector-namespace"],
            ..PAGE_CACHE
        },
    );
}

#[test]
fn mounts_without_dax() {
    check("dax-never-ext4", &Expected { reasons: &["mounted-dax-never"], ..PAGE_CACHE });
    for name in ["dax-inode-ext4", "dax-inode-xfs"] {
        let capture = load(name);
        let [with, without] = [0, 1].map(|i: usize| capture.files[i].probe(&capture.root));
        check_file(name, &with, &ADR);
        check_file(
            name,
            &without,
            &Expected { reasons: &["dax-inode-without-flag"], ..PAGE_CACHE },
        );
        let before_close = capture.files[1].clone().with(|file| file.dax_flag = Some(true));
        let expected = Expected { reasons: &["dax-flag-set-file-open"], ..PAGE_CACHE };
        check_file(name, &before_close.probe(&capture.root), &expected);
    }
}

#[test]
fn xfs_that_gave_dax_up() {
    let capture = load("xfs-1k");
    let file = capture.files[0].clone().with(|file| file.filesystem = Some((0x5846_5342, 1024)));
    let reasons = &["block-size-not-page-size", "xfs-fell-back-to-dax-never"];
    check_file("xfs-1k", &file.probe(&capture.root), &Expected { reasons, ..PAGE_CACHE });
    check(
        "xfs-dax-always-on-disk",
        &Expected { reasons: &["no-dax-device", "xfs-fell-back-to-dax-never"], ..DISK },
    );
}

#[test]
fn btrfs_on_pmem_finds_its_device_through_the_source() {
    check("btrfs-on-pmem", &Expected { reasons: &["filesystem-without-dax"], ..PAGE_CACHE });
}

#[test]
fn overlay_has_the_dax_of_its_upper_and_no_map_sync() {
    let capture = load("overlay-xfs");
    // The capture holds no files, and an upper that is not there is another mount's.
    capture.root.write("/mnt/a/upper/file", "");
    let [overlay, upper] = [0, 1].map(|i: usize| capture.files[i].probe(&capture.root));
    let expected = Expected { reasons: &["overlay-on-dax"], ..PAGE_CACHE };
    check_file("overlay", &overlay, &expected);
    assert_eq!(overlay.statx_dax, Some(true));
    assert_eq!(overlay.upper.unwrap().point, std::path::Path::new("/mnt/a"));
    check_file("upper", &upper, &ADR);
}

/// Devices that dmsetup made of linear targets: their UUID says nothing, and the targets only root sees.
#[test]
fn device_mapper_keeps_its_regions() {
    let check = |name: &str, expected: &Expected<'_>| {
        let capture = load(name);
        let report = capture.files[0].probe(&capture.root);
        let level = expected.durability.min(Durability::Unverified);
        assert_eq!(report.durability, level, "{name}, not as root");
        for device in ["dm-0", "dm-1"] {
            capture.root.write(&format!("/dev/{device}.targets"), "linear");
        }
        check_file(name, &capture.files[0].probe(&capture.root), expected);
    };
    check("dm-linear-ext4", &Expected { stack: "device-mapper:dm-0(pmem:pmem0)", ..ADR });
    check(
        "dm-linear-on-dm-linear",
        &Expected { stack: "device-mapper:dm-1(device-mapper:dm-0(pmem:pmem0))", ..ADR },
    );
    check(
        "dm-linear-nvdimm-and-e820",
        &Expected {
            durability: Durability::ProcessOnly,
            domain: PersistenceDomain::Volatile,
            stack: "device-mapper:dm-0(pmem:pmem0 pmem:pmem1)",
            reasons: &["e820-region"],
            ..ADR
        },
    );
}

#[test]
fn partitions_keep_their_region() {
    check("partition-ext4", &Expected { stack: "partition:pmem0p2(pmem:pmem0)", ..ADR });
    check(
        "partition-unaligned-ext4",
        &Expected {
            stack: "partition:pmem0p1(pmem:pmem0)",
            reasons: &["no-dax-device"],
            ..PAGE_CACHE
        },
    );
}

#[test]
fn bind_mount_of_a_directory() {
    let capture = load("bind-mount-subdirectory");
    let report = capture.files[0].probe(&capture.root);
    check_file("bind", &report, &ADR);
    let mount = report.mount.unwrap();
    assert_eq!(mount.point, std::path::Path::new("/mnt/over there"));
    assert_eq!(mount.root, std::path::Path::new("/sub dir"));
}

#[test]
fn loop_is_as_good_as_its_file() {
    let capture = load("loop-on-dax");
    // The capture holds no files, and a file that is not there is another mount's.
    let backing = crate::probe::sources::Sources::tree(&capture.root.0)
        .path("/sys/devices/virtual/block/loop0/loop/backing_file")
        .unwrap();
    capture.root.write(backing.to_str().unwrap(), "259:0 12 allocated");
    capture.root.write("/dev/loop0.loop", "259:0 12");
    let report = capture.files[0].probe(&capture.root);
    let expected = Expected {
        domain: PersistenceDomain::None,
        stack: "loop:loop0(pmem:pmem0)",
        namespace: "-",
        reasons: &["no-dax-device"],
        ..PAGE_CACHE
    };
    check_file("loop", &report, &expected);
}

#[test]
fn disks_and_memory() {
    let capture = load("disk");
    let reports: Vec<_> = capture.files.iter().map(|file| file.probe(&capture.root)).collect();
    check_file("ext4", &reports[0], &DISK);
    check_file("xfs", &reports[1], &Expected { stack: "disk:vdb", ..DISK });
    let reasons = &["filesystem-without-dax", "no-dax-device"];
    check_file("btrfs", &reports[2], &Expected { stack: "disk:vdc", reasons, ..DISK });
    let expected = Expected {
        backend: Backend::Volatile,
        durability: Durability::ProcessOnly,
        granularity: Granularity::Byte,
        stack: "-",
        reasons: &["memory-backed"],
        ..DISK
    };
    check_file("shm", &reports[3], &expected);
    let expected = Expected {
        durability: Durability::Unverified,
        reasons: &["no-barrier", "no-dax-device"],
        ..DISK
    };
    check("nobarrier-ext4", &expected);
}

#[test]
fn one_region_does_not_change_anothers_level() {
    let capture = load("two-nvdimms-two-regions");
    let reports: Vec<_> = capture.files.iter().map(|file| file.probe(&capture.root)).collect();
    let eadr =
        Expected { granularity: Granularity::Byte, domain: PersistenceDomain::CpuCache, ..ADR };
    check_file("first", &reports[0], &eadr);
    let second = Expected { stack: "pmem:pmem1", namespace: "fsdax:namespace1.0", ..eadr };
    check_file("second", &reports[1], &second);
    let odd = Expected {
        durability: Durability::ProcessOnly,
        domain: PersistenceDomain::Volatile,
        stack: "pmem:pmem2",
        namespace: "fsdax:namespace2.0",
        reasons: &["e820-region"],
        ..ADR
    };
    check_file("e820", &reports[2], &odd);
}

#[test]
fn device_dax() {
    let expected =
        Expected { backend: Backend::DevDax, stack: "-", namespace: "devdax:dax0.0", ..ADR };
    check("devdax-adr", &expected);
    let e820 = Expected {
        durability: Durability::ProcessOnly,
        domain: PersistenceDomain::Volatile,
        reasons: &["e820-region"],
        ..expected
    };
    check("devdax-e820", &e820);
    let capture = load("labels-two-namespaces");
    let [file, node] = [0, 1].map(|i: usize| capture.files[i].probe(&capture.root));
    check_file("labelled fsdax", &file, &Expected { namespace: "fsdax:namespace0.0", ..ADR });
    assert_eq!((node.backend, node.durability), (Backend::DevDax, Durability::PowerFail));
    assert!(matches!(node.huge_pages, HugePages::Possible { total, .. } if total > 0));
}

#[test]
fn read_only_mount_and_region() {
    let capture = load("mount-read-only-ext4");
    let report = capture.files[0].probe(&capture.root);
    assert!(report.read_only);
    assert_eq!(report.reasons[0].text, "/mnt/a is mounted read-only");
    check_file("read-only", &report, &Expected { reasons: &["read-only"], ..ADR });

    let capture = load("unarmed-ext4");
    let report = capture.files[0].probe(&capture.root);
    assert!(report.read_only && report.regions[0].read_only);
    let reasons = &["read-only", "read-only", "memory-device-not-armed"];
    let expected = Expected { durability: Durability::Unverified, reasons, ..ADR };
    check_file("unarmed", &report, &expected);
    assert_eq!(report.reasons[0].text, "NVDIMM region region0 is read-only", "the cause first");
    let node = FakeFile::node("/dev/pmem0", rustix::fs::FileType::BlockDevice, (259, 0));
    let report = node.probe(&capture.root);
    assert!(report.read_only);
    assert_eq!(report.reasons[0].text, "NVDIMM region region0 is read-only");
}

#[test]
fn bad_blocks_are_those_of_the_file() {
    let capture = load("badblocks");
    // Sectors 264192 and 266248 and seven after each, as the capture has it.
    let bad = |sector: u64| sector * 512..(sector + 8) * 512;
    let at = |root: &TempDir, physical| {
        let extents = vec![Extent { logical: 0, physical, len: 4 << 20 }];
        FakeFile::dax("/mnt/a/bad", (259, 0)).with(|file| file.extents = Some(extents)).probe(root)
    };
    let report = at(&capture.root, 128 << 20);
    let shifted: Vec<_> = report.device.as_ref().unwrap().bad_blocks.clone();
    assert_eq!(shifted, [bad(264_192), bad(266_248)]);
    let ranges: Vec<_> =
        shifted.iter().map(|range| range.start - (128 << 20)..range.end - (128 << 20)).collect();
    assert_eq!(report.bad_ranges, ranges);
    check_file("bad", &report, &Expected { reasons: &["bad-blocks"], ..ADR });
    // The guest's bus has no clear_error, and a write there fails (seen: EFAULT on DAX, EIO without).
    assert_eq!(report.regions[0].clears_errors, Some(false));
    assert!(report.reasons[0].remedy.as_ref().unwrap().text.contains("cannot clear errors"));
    check_file("good", &at(&capture.root, 512 << 20), &ADR);
}
