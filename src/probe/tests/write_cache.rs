//! Flushes that the kernel leaves out, since `queue/write_cache` says so, and the device's own word.

use super::caps::{is_unverified, xfs_on};
use super::tree::{ADR, Region, Tree};
use crate::durability::Durability;
use crate::probe::report::WriteCache;

/// A flush that the kernel leaves out, because somebody said so, over a cache that needs it.
#[test]
fn write_through_over_a_write_back_cache_drops_every_flush() {
    let at = "/sys/devices/pci0000:00/virtio1/block/vda";
    let scsi = "/sys/devices/pci0000:00/virtio1/scsi_disk/0:0:0:0/cache_type";
    let virtio = format!("{at}/cache_type");
    for (path, own, expected) in [
        (virtio.as_str(), "write back\n", Durability::Unverified),
        (virtio.as_str(), "write through\n", Durability::Fsync),
        (scsi, "write back\n", Durability::Unverified),
        (scsi, "write back, no read (daft)\n", Durability::Unverified),
        (scsi, "write through\n", Durability::Fsync),
        (scsi, "none\n", Durability::Fsync),
        (scsi, "garbage\n", Durability::Fsync),
        ("/unrelated", "", Durability::Fsync),
    ] {
        for kernel in ["write back\n", "write through\n"] {
            let mut tree = Tree::new();
            tree.disk("254:0", "vda");
            tree.root.write(&format!("{at}/queue/write_cache"), kernel);
            tree.root.write(path, own);
            let report = xfs_on(&mut tree, (254, 0));
            if kernel == "write back\n" {
                assert_eq!(report.durability, Durability::Fsync, "{path} {own}");
                continue;
            }
            assert_eq!(report.durability, expected, "{path} {own}");
            if expected == Durability::Fsync {
                let is_known = own.starts_with("write") || own.starts_with("none");
                let words = if is_known { "says so itself" } else { "taken as its own word" };
                for words in [words, "is sent no flush"] {
                    let says = report.caps.iter().any(|cap| cap.evidence.contains(words));
                    assert!(says, "the report says what it believes: {:#?}", report.caps);
                }
            } else {
                is_unverified(&report, "vda was set to write through");
            }
        }
    }
}

/// NVMe has no attribute for its own word. Its controller is asked, by those who may.
#[test]
fn write_through_over_an_nvme_cache_is_known_from_its_controller() {
    let identify = |vwc: char| format!("{}{vwc}{}", "\u{1}".repeat(525), "\u{1}".repeat(3570));
    for (page, expected, words) in [
        (Some(identify('\u{7}')), Durability::Unverified, "nvme0n1 itself says write back"),
        (Some(identify('\u{6}')), Durability::Fsync, "says so itself"),
        (Some(identify('\u{7}')[..525].to_owned()), Durability::Fsync, "taken as its own word"),
        (None, Durability::Fsync, "taken as its own word"),
    ] {
        for (name, kernel) in [
            ("nvme0n1", "write through\n"),
            ("nvme0n1", "write back\n"),
            ("nvmexpress", "write through\n"),
        ] {
            let mut tree = Tree::new();
            tree.disk("259:0", name);
            let at = format!("/sys/devices/pci0000:00/virtio1/block/{name}");
            tree.root.write(&format!("{at}/queue/write_cache"), kernel);
            if let Some(page) = &page {
                tree.root.write(&format!("/dev/{name}.identify"), page);
            }
            let report = xfs_on(&mut tree, (259, 0));
            if (name, kernel) == ("nvme0n1", "write through\n") {
                assert_eq!(report.durability, expected);
                let says = report.caps.iter().any(|cap| cap.evidence.contains(words));
                assert!(says, "{words}: {:#?}", report.caps);
            } else {
                assert_eq!(report.durability, Durability::Fsync);
                assert_eq!(report.device.unwrap().own_cache, None, "{name} is not asked");
            }
        }
    }
}

#[test]
fn write_through_on_a_stack_drops_what_its_disks_need() {
    let dm = "/sys/devices/virtual/block/dm-0/queue/write_cache";
    let disk = "pci0000:00/virtio1/block/sda";
    for (below, expected) in
        [("write back\n", Durability::Unverified), ("write through\n", Durability::Fsync)]
    {
        let mut tree = Tree::new();
        tree.disk("8:0", "sda");
        tree.root.write(&format!("/sys/devices/{disk}/queue/write_cache"), below);
        let attributes = [("partition", "1\n"), ("start", "2048\n"), ("size", "2048\n")];
        tree.block("8:1", &format!("{disk}/sda1"), &attributes);
        tree.device_mapper("253:0", "dm-0", false, &[&format!("{disk}/sda1")]);
        tree.root.write(dm, "write through\n");
        assert_eq!(xfs_on(&mut tree, (253, 0)).durability, expected, "{below}");
    }
    // Memory whose flush ends where its stores do already needs none.
    let mut tree = Tree::new();
    let pmem = tree.pmem(0, "259:0", ADR, "fsdax");
    tree.device_mapper("253:0", "dm-0", false, &[&pmem]);
    tree.root.write(dm, "write through\n");
    assert_eq!(xfs_on(&mut tree, (253, 0)).durability, Durability::Fsync);
    // That of virtio-pmem is the host's fsync.
    let mut tree = Tree::new();
    let virtio = Region { provider: "virtio-pmem", domain: None, ..ADR };
    let pmem = tree.pmem(0, "259:0", virtio, "legacy");
    tree.root.write(&format!("/sys/devices/{pmem}/queue/write_cache"), "write through\n");
    is_unverified(&xfs_on(&mut tree, (259, 0)), "pmem0 flushes through its host");
}

#[test]
fn a_cache_is_called_as_the_kernel_calls_it() {
    for (cache, text) in [(WriteCache::Back, "write back"), (WriteCache::Through, "write through")]
    {
        assert_eq!(cache.as_str(), text);
        let mut tree = Tree::new();
        tree.disk("8:0", "sda");
        tree.root.write("/sys/devices/pci0000:00/virtio1/block/sda/queue/write_cache", text);
        assert_eq!(xfs_on(&mut tree, (8, 0)).device.unwrap().write_cache, Some(cache));
    }
}
