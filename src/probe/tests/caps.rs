//! A level is the least of its caps, and each cap says what it was granted by.

use super::tree::{ADR, Region, Tree};
use super::{FakeFile, codes};
use crate::durability::{Backend, Durability};
use crate::probe::report::{Cap, Layer, Report};

/// Every cap of this layer.
fn of(report: &Report, layer: Layer) -> Vec<&Cap> {
    report.caps.iter().filter(|cap| cap.layer == layer).collect()
}

/// What holds of every report: the level is the least cap, and a cap that lowers it has a reason
/// that the report gives.
fn check(report: &Report) {
    assert_eq!(Some(report.durability), report.caps.iter().map(|cap| cap.level).min());
    for cap in &report.caps {
        assert!(!cap.evidence.is_empty());
        let Some(code) = cap.reason else { continue };
        let says =
            |reason: &crate::probe::Reason| reason.code == code && reason.text == cap.evidence;
        assert!(report.reasons.iter().any(says), "{cap:?}");
    }
}

/// ext4, xfs and btrfs on an ordinary disk that is wholly visible stay `Fsync`, and every layer
/// says why.
#[test]
fn an_ordinary_disk_is_fsync() {
    for disk in ["vda", "sda", "nvme0n1"] {
        for filesystem in ["ext4", "xfs", "btrfs"] {
            let mut tree = Tree::new();
            tree.disk("8:0", disk);
            tree.mount(&format!("8:0 / /m rw,noatime - {filesystem} /dev/{disk} rw"));
            let report = FakeFile::new("/m/f", (8, 0)).probe(&tree.root);
            check(&report);
            assert_eq!(report.durability, Durability::Fsync, "{filesystem}: {:#?}", report.caps);
            assert!(report.caps.iter().all(|cap| cap.reason.is_none()), "{:#?}", report.caps);
            let layers: Vec<_> = report.caps.iter().map(|cap| cap.layer.as_str()).collect();
            assert_eq!(layers, ["file", "filesystem", "mount-options", "log", "block-stack"]);
            let last = report.caps.last().unwrap();
            assert!(last.evidence.contains("is assumed"), "the assumption is stated: {last:?}");
        }
    }
}

#[test]
fn known_memory_is_power_fail_by_every_layer() {
    let mut tree = Tree::new();
    tree.pmem(0, "259:0", ADR, "fsdax");
    tree.mount("259:0 / /m rw - xfs /dev/pmem0 rw,dax=always");
    let report = FakeFile::dax("/m/f", (259, 0)).probe(&tree.root);
    check(&report);
    assert_eq!(report.durability, Durability::PowerFail);
    assert!(report.caps.iter().all(|cap| cap.level == Durability::PowerFail), "{:#?}", report.caps);
    let region = of(&report, Layer::Region)[0];
    assert_eq!(region.evidence, "region0 names the persistence domain memory_controller");
}

/// Options, log and region each count under a mapping, whatever the other layers bear.
#[test]
fn each_layer_alone_lowers_a_mapping() {
    let nameless = Region { domain: None, ..ADR };
    for (region, options, layer, level, code) in [
        (ADR, ",nobarrier", Layer::MountOptions, Durability::Unverified, "no-barrier"),
        (ADR, ",barrier=0", Layer::MountOptions, Durability::Unverified, "no-barrier"),
        (ADR, ",logdev=/dev/ram0", Layer::BlockStack, Durability::ProcessOnly, "memory-backed"),
        (ADR, ",logdev=/dev/gone", Layer::Log, Durability::Unverified, "layer-unverified"),
        (nameless, "", Layer::Region, Durability::Unverified, "persistence-domain-unknown"),
    ] {
        let mut tree = Tree::new();
        tree.pmem(0, "259:0", region, "fsdax");
        tree.block("1:0", "virtual/block/ram0", &[("queue/dax", "0\n")]);
        tree.root.write("/dev/ram0", "1:0");
        tree.mount(&format!("259:0 / /m rw - xfs /dev/pmem0 rw,dax=always{options}"));
        for file in [FakeFile::dax("/m/f", (259, 0)), FakeFile::directory("/m", (259, 0))] {
            let report = file.probe(&tree.root);
            check(&report);
            assert_eq!((report.backend, report.durability), (Backend::FsDax, level), "{options}");
            assert_eq!(codes(&report), [code], "{options}");
            let lowest: Vec<_> = report.caps.iter().filter(|cap| cap.level == level).collect();
            assert_eq!(lowest.len(), 1, "{options}: {:#?}", report.caps);
            assert_eq!((lowest[0].layer, lowest[0].reason.unwrap().as_str()), (layer, code));
        }
    }
}

/// A log on a disk is as safe as a disk, and no safer.
#[test]
fn a_log_on_a_disk_makes_a_mapping_as_good_as_a_disk() {
    let mut tree = Tree::new();
    tree.pmem(0, "259:0", ADR, "fsdax");
    tree.disk("8:0", "sda");
    tree.mount("259:0 / /m rw - xfs /dev/pmem0 rw,dax=always,logdev=/dev/sda");
    let report = FakeFile::dax("/m/f", (259, 0)).probe(&tree.root);
    check(&report);
    assert_eq!((report.backend, report.durability), (Backend::FsDax, Durability::Fsync));
    assert_eq!(codes(&report), [""; 0]);
    assert_eq!(of(&report, Layer::Log)[0].evidence, "the log of xfs is on sda");
}

#[test]
fn no_mount_table_is_not_a_mount_without_options() {
    let tree = Tree::new();
    tree.disk("8:0", "sda");
    for target in [FakeFile::new("/m/f", (8, 0)), FakeFile::directory("/m", (8, 0))] {
        let report = target.probe(&tree.root);
        check(&report);
        assert_eq!(report.durability, Durability::Unverified);
        assert!(report.reasons[0].text.contains("/proc/self/mountinfo cannot be read"));
        assert_eq!(of(&report, Layer::Visibility).len(), 1);
    }
}

#[test]
fn every_layer_has_its_name() {
    let mut names: Vec<_> = [
        Layer::Visibility,
        Layer::File,
        Layer::Overlay,
        Layer::Filesystem,
        Layer::MountOptions,
        Layer::Log,
        Layer::BlockStack,
        Layer::Region,
        Layer::RegionDevices,
    ]
    .map(|layer| format!("{layer}"))
    .to_vec();
    assert_eq!(names[4], "mount-options");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 9);
}
