//! A level is the least of its caps, and each cap says what it was granted by.

use super::tree::{ADR, Region, Tree};
use super::{FakeFile, codes};
use crate::durability::{Backend, Durability};
use crate::probe::report::{Cap, HugePages, Layer, Report};

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
            assert_eq!(report.huge_pages, HugePages::NotApplicable);
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

/// Memory has no layer but its filesystem, and what is found out later lowers a level like a layer.
#[test]
fn memory_and_what_is_met_later() {
    let mut tree = Tree::new();
    tree.mount("0:7 / /m rw - tmpfs tmpfs rw");
    let report = FakeFile::new("/m/f", (0, 7)).probe(&tree.root);
    let layers: Vec<_> = report.caps.iter().map(|cap| cap.layer).collect();
    assert_eq!((report.durability, layers), (Durability::ProcessOnly, vec![Layer::Filesystem]));

    let mut tree = Tree::new();
    tree.disk("8:0", "sda");
    let mut report = xfs_on(&mut tree, (8, 0));
    crate::probe::lower(&mut report, Durability::Unverified, "met".to_owned(), "go elsewhere");
    assert_eq!(report.durability, Durability::Unverified);
    check(&report);
    let reason = report.reasons.last().unwrap();
    assert_eq!((reason.text.as_str(), reason.code.as_str()), ("met", "layer-unverified"));
    assert_eq!(reason.remedy.as_ref().unwrap().text, "go elsewhere");
    crate::probe::lower(&mut report, Durability::Fsync, "met".to_owned(), "go elsewhere");
    assert_eq!(report.durability, Durability::Unverified, "it is never raised");
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

/// An xfs on the device with this number, as it is judged through the page cache.
pub(super) fn xfs_on(tree: &mut Tree, number: (u32, u32)) -> Report {
    tree.mount(&format!("{}:{} / /m rw - xfs /dev/x rw", number.0, number.1));
    let report = FakeFile::new("/m/f", number).probe(&tree.root);
    check(&report);
    report
}

pub(super) fn is_unverified(report: &Report, words: &str) {
    assert_eq!(report.durability, Durability::Unverified, "{words}: {:#?}", report.caps);
    assert_eq!(codes(report)[0], "layer-unverified", "{words}");
    assert!(report.reasons[0].text.contains(words), "{}", report.reasons[0]);
    let lowest = |cap: &&Cap| cap.level == Durability::Unverified;
    assert_eq!(report.caps.iter().filter(lowest).count(), 1, "{words}: {:#?}", report.caps);
}

#[test]
fn a_device_that_cannot_be_read_is_not_a_disk() {
    for (path, words) in
        [("queue", "cannot be read"), ("queue/write_cache", "queue/write_cache cannot be read")]
    {
        let mut tree = Tree::new();
        tree.disk("8:0", "sda");
        let at = tree.root.at(&format!("/sys/devices/pci0000:00/virtio1/block/sda/{path}"));
        if at.is_dir() {
            std::fs::remove_dir_all(at).unwrap();
        } else {
            std::fs::remove_file(at).unwrap();
        }
        let report = xfs_on(&mut tree, (8, 0));
        is_unverified(&report, words);
        let kind = if path == "queue" { "unknown" } else { "disk" };
        assert_eq!(report.device.unwrap().kind, kind);
    }
    let mut tree = Tree::new();
    tree.block("252:3", "virtual/block/nullb0", &[("queue/dax", "0\n")]);
    is_unverified(&xfs_on(&mut tree, (252, 3)), "nullb0 belongs to a driver");
    // What is made of a device that is not shown is not made of what is.
    for missing in ["dev", ""] {
        let mut tree = Tree::new();
        tree.disk("8:0", "sda");
        tree.disk("8:16", "sdb");
        let below = ["sda", "sdb"].map(|name| format!("pci0000:00/virtio1/block/{name}"));
        tree.device_mapper("253:0", "dm-0", false, &[&below[0], &below[1]]);
        let hidden = match missing {
            "dev" => "/sys/devices/pci0000:00/virtio1/block/sdb/dev",
            _ => "/sys/dev/block/8:16",
        };
        std::fs::remove_file(tree.root.at(hidden)).unwrap();
        is_unverified(&xfs_on(&mut tree, (253, 0)), "cannot be read");
    }
}

#[test]
fn memory_in_a_disks_clothes_is_memory() {
    let mut tree = Tree::new();
    tree.disk("8:0", "sda");
    tree.root.write("/sys/devices/pci0000:00/virtio1/model", "scsi_debug      \n");
    let report = xfs_on(&mut tree, (8, 0));
    assert_eq!(report.durability, Durability::ProcessOnly);
    assert_eq!(report.device.unwrap().kind, "ramdisk");
}

#[test]
fn pmem_without_its_region_is_not_a_disk() {
    let mut tree = Tree::new();
    tree.pmem(0, "259:0", ADR, "fsdax");
    let region = "/sys/devices/LNXSYSTM:00/ACPI0012:00/ndbus0/region0/uevent";
    std::fs::remove_file(tree.root.at(region)).unwrap();
    is_unverified(&xfs_on(&mut tree, (259, 0)), "no memory region is visible in /sys above pmem0");
}

/// MAP_SYNC on what shows no memory: a mapping is flushed to nobody knows where.
#[test]
fn a_mapping_without_a_visible_region_is_unverified() {
    let mut tree = Tree::new();
    tree.disk("8:0", "sda");
    tree.mount("8:0 / /m rw - xfs /dev/sda rw,dax=always");
    let report = FakeFile::dax("/m/f", (8, 0)).probe(&tree.root);
    assert_eq!(report.backend, Backend::FsDax);
    is_unverified(&report, "no memory region is visible in /sys under /m/f");
}

/// A device that is made of others is as good as they are, and of none it is not known.
#[test]
fn a_device_made_of_nothing_visible_is_unverified() {
    for (name, mark) in [("dm-0", "dm/name"), ("md0", "md/level"), ("bcache0", "bcache/label")] {
        let mut tree = Tree::new();
        tree.block(
            "252:7",
            &format!("virtual/block/{name}"),
            &[(mark, "x\n"), ("queue/dax", "0\n")],
        );
        std::fs::create_dir(tree.root.at(&format!("/sys/devices/virtual/block/{name}/slaves")))
            .unwrap();
        let report = xfs_on(&mut tree, (252, 7));
        is_unverified(&report, &format!("what is below block device {name} is not visible"));
    }
    // What has devices below and is of no driver that joins them.
    let mut tree = Tree::new();
    tree.disk("8:0", "sda");
    tree.disk("8:16", "sdb");
    let slave = "/sys/devices/pci0000:00/virtio1/block/sda/slaves/sdb";
    tree.root.link(slave, "../../sdb");
    is_unverified(&xfs_on(&mut tree, (8, 0)), "sda belongs to a driver that is not known here");
}

/// The host's disk may be full when the loop driver needs a block.
#[test]
fn a_loop_device_is_as_good_as_a_file_that_has_its_blocks() {
    for (filesystem, blocks, expected, words) in [
        ("ext4", "allocated", Durability::Fsync, ""),
        ("xfs", "allocated", Durability::Fsync, ""),
        ("ext4", "sparse", Durability::Unverified, "has holes"),
        ("xfs", "shared", Durability::Unverified, "is copied on write"),
        ("btrfs", "allocated", Durability::Unverified, "is copied on write"),
        ("f2fs", "allocated", Durability::Unverified, "is copied on write"),
        ("ext4", "unknown", Durability::Unverified, "cannot be looked at"),
    ] {
        let mut tree = Tree::new();
        tree.disk("8:0", "sda");
        tree.mount(&format!("8:0 / / rw - {filesystem} /dev/sda rw"));
        tree.loop_device("7:0", "loop0", "/image");
        tree.image("/image", blocks);
        let report = xfs_on(&mut tree, (7, 0));
        assert_eq!(report.durability, expected, "{filesystem} {blocks}: {:#?}", report.caps);
        if expected == Durability::Unverified {
            is_unverified(&report, words);
        }
    }
}

/// The path is the one of another mount namespace: only device and inode tell the file.
#[test]
fn a_loop_device_is_not_judged_by_another_file_of_that_name() {
    for (status, words) in [
        (Some("8:0 18"), "is not that file here"),
        (Some("8:1 17"), "is not that file here"),
        (None, "/dev/loop0 cannot be asked"),
    ] {
        let mut tree = Tree::new();
        tree.disk("8:0", "sda");
        tree.mount("8:0 / / rw - ext4 /dev/sda rw");
        tree.loop_device("7:0", "loop0", "/image");
        tree.image("/image", "allocated");
        match status {
            Some(status) => tree.root.write("/dev/loop0.loop", status),
            None => std::fs::remove_file(tree.root.at("/dev/loop0.loop")).unwrap(),
        }
        is_unverified(&xfs_on(&mut tree, (7, 0)), words);
    }
    let mut tree = Tree::new();
    tree.disk("8:0", "sda");
    tree.mount("8:0 / / rw - ext4 /dev/sda rw");
    tree.loop_device("7:0", "loop0", "/image");
    tree.image("/image", "allocated");
    tree.root.write("/sys/devices/virtual/block/loop0/queue/write_cache", "write through\n");
    is_unverified(&xfs_on(&mut tree, (7, 0)), "loop0 is a loop device");
}

#[test]
fn an_external_journal_counts_with_dax_and_without() {
    let mut tree = Tree::new();
    tree.pmem(0, "259:0", ADR, "fsdax");
    tree.block("1:0", "virtual/block/ram0", &[("queue/dax", "0\n")]);
    tree.root.write("/sys/class/block/ram0/dev", "1:0\n");
    tree.disk("8:0", "sda");
    tree.root.write("/sys/class/block/sda/dev", "8:0\n");
    tree.mount("259:0 / /m rw - ext4 /dev/pmem0 rw,dax=always");
    std::fs::remove_dir_all(tree.root.at("/proc/fs/jbd2/pmem0-8")).unwrap();
    let journal = |task: &str, comm: &str| {
        tree.root.write("/sys/fs/ext4/pmem0/journal_task", task);
        tree.root.write("/proc/77/comm", comm);
        let files = [FakeFile::dax("/m/f", (259, 0)), FakeFile::new("/m/f", (259, 0))];
        files.map(|file| {
            let report = file.probe(&tree.root);
            check(&report);
            (report.durability, codes(&report).first().copied().unwrap_or_default())
        })
    };
    let [memory, unknown] = ["memory-backed", "layer-unverified"];
    let power_fail = [(Durability::PowerFail, ""), (Durability::Fsync, "dax-inode-without-flag")];
    for (task, comm, mapped, code) in [
        ("77\n", "jbd2/ram0\n", Durability::ProcessOnly, memory),
        ("77\n", "jbd2/gone\n", Durability::Unverified, unknown),
        ("77\n", "something\n", Durability::Unverified, unknown),
        // A thread of another process namespace.
        ("0\n", "jbd2/pmem0-8\n", Durability::Unverified, unknown),
        ("78\n", "", Durability::Unverified, unknown),
        // Cut off: another device may have the longer name.
        ("77\n", "jbd2/ram0123456\n", Durability::Unverified, unknown),
    ] {
        tree.root.write("/sys/class/block/ram0123456/dev", "8:0\n");
        let found = journal(task, comm);
        assert_eq!(found, [(mapped, code), (mapped, code)], "{task} {comm}");
    }
    assert_eq!(journal("77\n", "jbd2/sda\n").map(|found| found.0), [Durability::Fsync; 2]);
    // A name that begins with that of the device is not the device's own.
    assert_eq!(journal("77\n", "jbd2/pmem0-x\n")[0].0, Durability::Unverified);
    for (task, comm) in [("77\n", "jbd2/pmem0-8\n"), ("<none>\n", "")] {
        let found = journal(task, comm);
        assert_eq!(found[0], power_fail[0], "{task} {comm}");
        assert_eq!(found[1].0, Durability::Fsync);
    }
    std::fs::remove_file(tree.root.at("/sys/fs/ext4/pmem0/journal_task")).unwrap();
    let report = FakeFile::dax("/m/f", (259, 0)).probe(&tree.root);
    is_unverified(&report, "/sys/fs/ext4/pmem0/journal_task cannot be read");
    tree.root.write("/proc/fs/jbd2/pmem0-8/info", "");
    assert_eq!(FakeFile::dax("/m/f", (259, 0)).probe(&tree.root).durability, Durability::PowerFail);
}

/// What container runtimes mask, and how the same is found all the same.
#[test]
fn masked_numbers_of_devices() {
    let mut tree = Tree::new();
    let pmem = tree.pmem(0, "259:0", ADR, "fsdax");
    tree.mount("259:0 / /m rw - xfs /dev/pmem0 rw,dax=always");
    std::fs::remove_dir_all(tree.root.at("/sys/dev")).unwrap();
    let hidden = FakeFile::dax("/m/f", (259, 0)).probe(&tree.root);
    assert_eq!(hidden.durability, Durability::Unverified);
    let said: Vec<_> = hidden.reasons.iter().map(|reason| reason.text.as_str()).collect();
    assert!(said[0].contains("(/sys/dev is empty or cannot be read)"), "{said:?}");
    let remedy = hidden.reasons[0].remedy.as_ref().unwrap().to_string();
    assert!(remedy.contains("container"), "{remedy}");
    tree.root.link("/sys/class/block/pmem0", &format!("../../devices/{pmem}"));
    let found = FakeFile::dax("/m/f", (259, 0)).probe(&tree.root);
    assert_eq!((found.durability, found.reasons.len()), (Durability::PowerFail, 0));

    let tree = Tree::new();
    let at = format!("{}/dax0.1", tree.region(0, ADR));
    tree.root.write(&format!("/sys/devices/{at}/uevent"), "DEVTYPE=nd_dax\n");
    tree.dax_node("252:0", &format!("{at}/dax0.0"), "2097152\n");
    std::fs::remove_dir_all(tree.root.at("/sys/dev")).unwrap();
    tree.root.write(&format!("/sys/devices/{at}/dax0.0/dev"), "252:0\n");
    tree.root.link("/sys/bus/dax/devices/dax0.0", &format!("../../../devices/{at}/dax0.0"));
    let node = FakeFile::node("/dev/dax0.0", rustix::fs::FileType::CharacterDevice, (252, 0))
        .with(|file| file.map_sync = Some(crate::probe::MapSync::Accepted))
        .probe(&tree.root);
    assert_eq!((node.backend, node.durability), (Backend::DevDax, Durability::PowerFail));

    // With the bus masked as well, nothing says that it is device DAX, or that it is not.
    std::fs::remove_dir_all(tree.root.at("/sys/bus/dax")).unwrap();
    let hidden = FakeFile::node("/dev/dax0.0", rustix::fs::FileType::CharacterDevice, (252, 0));
    let report = hidden.probe(&tree.root);
    assert_eq!(report.durability, Durability::ProcessOnly);
    let reason = &report.reasons[0];
    assert!(reason.text.contains("neither /sys/dev/char nor /sys/bus/dax"), "{reason}");
    assert!(reason.remedy.as_ref().unwrap().to_string().contains("container"), "{reason}");
    tree.root.link("/sys/dev/char/1:3", "../../devices/virtual/mem/null");
    let report = hidden.probe(&tree.root);
    assert!(report.reasons[0].text.contains("is neither a file"), "{}", report.reasons[0]);
}

#[test]
fn a_btrfs_whose_members_are_not_listed_may_have_more() {
    let mut tree = Tree::new();
    tree.disk("8:0", "sda");
    tree.mount("0:30 / /m rw - btrfs /dev/sda rw");
    let file = FakeFile::new("/m/f", (0, 31)).with(|file| file.stat.mount_id = Some(1));
    assert_eq!(file.probe(&tree.root).durability, Durability::Fsync);
    std::fs::remove_dir_all(tree.root.at("/sys/fs/btrfs")).unwrap();
    let report = file.probe(&tree.root);
    is_unverified(&report, "/sys/fs/btrfs cannot be read");
}
