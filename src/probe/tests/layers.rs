//! Filesystems above filesystems, and filesystems that hide their devices.

use std::path::Path;

use rustix::fs::FileType;

use super::tree::{ADR, EADR, Tree};
use super::{FakeFile, FilesystemSize, codes};
use crate::durability::{Backend, Durability};
use crate::probe::report::{Layer, MapSync, Target};

#[test]
fn only_xfs_falls_back() {
    let mut tree = Tree::new();
    tree.disk("8:0", "sda");
    tree.mount("8:0 / / rw - ext4 /dev/sda rw,dax=never");
    let report = FakeFile::new("/f", (8, 0)).probe(&tree.root);
    assert_eq!(codes(&report), ["no-dax-device"]);
}

/// A tree with an ext4 on a disk as `/`.
fn ordinary() -> Tree {
    let mut tree = Tree::new();
    tree.disk("8:0", "sda");
    tree.mount("8:0 / / rw - ext4 /dev/sda rw");
    tree
}

#[test]
fn loop_follows_its_file() {
    for (mount, expected, first) in [
        ("8:0 / /x rw - ext4 /dev/sda rw", Durability::Fsync, "no-dax-device"),
        ("8:0 / /x rw - ext4 /dev/sda rw,nobarrier", Durability::Unverified, "no-barrier"),
        ("0:9 / /x rw - tmpfs tmpfs rw", Durability::ProcessOnly, "memory-backed"),
        ("0:9 / /x rw - fuse.thing thing rw", Durability::Unverified, "layer-unverified"),
    ] {
        let mut tree = ordinary();
        tree.mount(mount);
        tree.loop_device("7:0", "loop0", "/x/an image");
        tree.image("/x/an image", "allocated");
        tree.mount("7:0 / /l rw - xfs /dev/loop0 rw");
        let report = FakeFile::new("/l/f", (7, 0)).probe(&tree.root);
        assert_eq!(report.durability, expected, "{mount}");
        assert_eq!(codes(&report)[0], first, "{mount}");
        let device = report.device.unwrap();
        assert_eq!(device.backing_file.as_deref(), Some(Path::new("/x/an image")));
    }
}

#[test]
fn loop_over_a_deleted_or_foreign_file_promises_nothing() {
    let mut tree = ordinary();
    tree.loop_device("7:0", "loop0", "/x/image (deleted)");
    tree.mount("7:0 / /l rw - xfs /dev/loop0 rw");
    let report = FakeFile::new("/l/f", (7, 0)).probe(&tree.root);
    assert_eq!(report.durability, Durability::Unverified);
    assert_eq!(codes(&report), ["layer-unverified", "no-dax-device"]);
}

#[test]
fn partition_of_a_loop_device() {
    let mut tree = ordinary();
    tree.mount("0:9 / /tmp rw - tmpfs tmpfs rw");
    tree.loop_device("7:0", "loop0", "/tmp/image");
    tree.image("/tmp/image", "allocated");
    let attributes = [("partition", "1\n"), ("start", "2048\n"), ("size", "2048\n")];
    tree.block("259:0", "virtual/block/loop0/loop0p1", &attributes);
    tree.mount("259:0 / /l rw - ext4 /dev/loop0p1 rw");
    let report = FakeFile::new("/l/f", (259, 0)).probe(&tree.root);
    assert_eq!(report.durability, Durability::ProcessOnly);
}

#[test]
fn bind_mount_is_found_by_its_number() {
    let mut tree = ordinary();
    let bind = tree.mount("8:0 /srv/data /data ro - ext4 /dev/sda rw");
    let file = FakeFile::new("/data/f", (8, 0)).with(|file| file.stat.mount_id = Some(bind));
    let report = file.probe(&tree.root);
    assert!(report.read_only, "the bind mount is, the filesystem is not");
    assert_eq!(report.mount.unwrap().root, Path::new("/srv/data"));
    let by_device = FakeFile::new("/data/f", (8, 0)).probe(&tree.root);
    assert_eq!(by_device.mount.unwrap().point, Path::new("/"));
}

fn btrfs(tree: &mut Tree, source: &str) -> FakeFile {
    let id = tree.mount(&format!("0:30 /home /home rw - btrfs {source} rw,subvol=/home"));
    // A subvolume has a device number of its own that no table shows.
    FakeFile::new("/home/f", (0, 31)).with(|file| file.stat.mount_id = Some(id))
}

fn member(tree: &Tree, name: &str) {
    let uuid = "11111111-2222-3333-4444-555555555555";
    tree.root.link(
        &format!("/sys/fs/btrfs/{uuid}/devices/{name}"),
        &format!("../../../../devices/pci0000:00/virtio1/block/{name}"),
    );
}

#[test]
fn btrfs_subvolume_by_uuid() {
    let mut tree = ordinary();
    tree.disk("8:16", "sdb");
    member(&tree, "sdb");
    let file = btrfs(&mut tree, "/dev/renamed")
        .with(|file| file.btrfs_uuid = Some("11111111-2222-3333-4444-555555555555".to_owned()));
    let report = file.probe(&tree.root);
    assert_eq!(report.device.as_ref().unwrap().name, "sdb");
    assert_eq!(report.durability, Durability::Fsync);
    assert_eq!(codes(&report), ["filesystem-without-dax", "no-dax-device"]);
}

#[test]
fn btrfs_subvolume_by_source() {
    let mut tree = ordinary();
    tree.disk("8:16", "sdb");
    let report = btrfs(&mut tree, "/dev/sdb").probe(&tree.root);
    assert_eq!(report.device.as_ref().unwrap().name, "sdb");
    assert_eq!(report.durability, Durability::Fsync);
}

#[test]
fn btrfs_over_several_devices_is_as_good_as_the_worst() {
    let mut tree = ordinary();
    tree.disk("8:16", "sdb");
    tree.disk("8:32", "sdc");
    tree.root.write("/sys/devices/pci0000:00/virtio1/block/sdc/mm_stat", "a zram in disguise");
    for name in ["sdb", "sdc"] {
        member(&tree, name);
    }
    let report = btrfs(&mut tree, "/dev/sdb").probe(&tree.root);
    let device = report.device.as_ref().unwrap();
    assert_eq!((device.kind.as_str(), device.below.len()), ("filesystem", 2));
    assert_eq!((device.name.as_str(), device.number), ("btrfs", (0, 31)));
    assert_eq!((device.dax, device.sector_size, device.read_only), (Some(false), Some(512), false));
    let numbers: Vec<_> = device.below.iter().map(|device| device.number).collect();
    assert_eq!(numbers, [(8, 16), (8, 32)]);
    assert!(device.below.iter().all(|device| device.dax == Some(false) && !device.read_only));
    assert_eq!(report.durability, Durability::ProcessOnly);
    tree.root.write("/sys/devices/pci0000:00/virtio1/block/sdc/ro", "1\n");
    let report = btrfs(&mut tree, "/dev/sdb").probe(&tree.root);
    let device = report.device.as_ref().unwrap();
    let read_only: Vec<_> = device.below.iter().map(|device| device.read_only).collect();
    assert_eq!((device.read_only, read_only), (true, vec![false, true]));
}

#[test]
fn btrfs_whose_device_is_not_visible_is_unverified() {
    let mut tree = ordinary();
    let report = btrfs(&mut tree, "/dev/elsewhere").probe(&tree.root);
    assert_eq!(report.durability, Durability::Unverified);
    assert_eq!(codes(&report)[0], "layer-unverified");
}

#[test]
fn other_filesystems_without_a_device_number() {
    let mut tree = ordinary();
    tree.disk("8:16", "sdb");
    tree.disk("8:32", "sdc");
    tree.mount("0:40 / /z rw - zfs pool/data rw");
    tree.mount("0:41 / /b rw - bcachefs /dev/sdb:/dev/sdc rw");
    let zfs = FakeFile::new("/z/f", (0, 40)).probe(&tree.root);
    assert_eq!((zfs.backend, zfs.durability), (Backend::PageCache, Durability::Unverified));
    assert!(zfs.reasons[0].text.contains("zfs pool"), "{}", zfs.reasons[0]);
    let bcachefs = FakeFile::new("/b/f", (0, 41)).probe(&tree.root);
    assert_eq!(bcachefs.durability, Durability::Fsync);
    assert_eq!(bcachefs.device.unwrap().below.len(), 2);
}

#[test]
fn xfs_with_its_log_on_other_memory() {
    let mut tree = ordinary();
    tree.pmem(0, "259:0", EADR, "fsdax");
    tree.block("1:0", "virtual/block/ram0", &[("queue/dax", "0\n")]);
    tree.root.write("/dev/ram0", "1:0");
    tree.mount("259:0 / /m rw - xfs /dev/pmem0 rw,logdev=/dev/ram0,dax=never");
    let report = FakeFile::new("/m/f", (259, 0)).probe(&tree.root);
    assert_eq!(report.durability, Durability::ProcessOnly, "a lost log loses the files");
}

#[test]
fn overlay_by_its_upper() {
    for (upper, options, expected, wanted) in [
        ("/up", "", Durability::Fsync, ""),
        ("/nobarrier", "", Durability::Unverified, "no-barrier"),
        ("/dax", "", Durability::Fsync, "overlay-on-dax"),
        ("/tmp", "", Durability::ProcessOnly, "memory-backed"),
        ("/up", ",volatile", Durability::ProcessOnly, "layer-unverified"),
        ("/up", ",fsync=volatile", Durability::ProcessOnly, "layer-unverified"),
        // DAX below, and a filesystem that has none.
        ("/f2fs", "", Durability::Fsync, ""),
        ("/over", "", Durability::Unverified, "layer-unverified"),
    ] {
        let mut tree = ordinary();
        tree.pmem(0, "259:0", ADR, "fsdax");
        tree.mount("259:0 / /dax rw - xfs /dev/pmem0 rw,dax=always");
        tree.pmem(1, "259:1", ADR, "fsdax");
        tree.mount("259:1 / /f2fs rw - f2fs /dev/pmem1 rw");
        tree.disk("8:16", "sdb");
        tree.mount("8:16 / /nobarrier rw - ext4 /dev/sdb rw,nobarrier");
        tree.mount("0:9 / /tmp rw - tmpfs tmpfs rw");
        tree.mount("0:49 / /over rw - overlay overlay rw,lowerdir=/l,upperdir=/up/v");
        tree.root.write(&format!("{upper}/u/f"), "");
        tree.mount(&format!(
            "0:50 / /o rw - overlay overlay rw,lowerdir=/l,upperdir={upper}/u{options}"
        ));
        let file = FakeFile::new("/o/f", (0, 50)).with(|file| file.stat.dax = Some(true));
        for file in [file, FakeFile::directory("/o", (0, 50))] {
            let report = file.probe(&tree.root);
            assert_eq!(report.backend, Backend::PageCache);
            assert_eq!(report.durability, expected, "{upper}{options}: {:#?}", report.caps);
            let codes = codes(&report);
            assert!(wanted.is_empty() || codes.contains(&wanted), "{upper}{options}: {codes:?}");
            assert_eq!(codes.contains(&"overlay-on-dax"), upper == "/dax", "{upper}{options}");
            assert!(!codes.contains(&"filesystem-without-dax"), "{upper}{options}");
            assert!(!report.read_only);
        }
    }
}

/// A file of a lower layer is copied up when it is opened for writing; until then it is as good as
/// that layer, which nobody looked at.
#[test]
fn overlay_answers_for_what_is_in_its_upper() {
    let probe = |options: &str, upper: &[&str], change: &dyn Fn(&mut FakeFile)| {
        let mut tree = ordinary();
        tree.root.write("/u/other", "");
        for file in upper {
            tree.root.write(file, "");
        }
        let root = if options.contains("root=/part") { "/part" } else { "/" };
        tree.mount(&format!(
            "0:50 {root} /o rw - overlay overlay rw,lowerdir=/l,upperdir=/u{options}"
        ));
        let file = FakeFile::new("/o/d/f", (0, 50)).with(|file| change(file));
        let report = file.probe(&tree.root);
        let said = report.reasons.first().map(ToString::to_string).unwrap_or_default();
        (report.durability, said)
    };
    let unverified = |found: (Durability, String), words: &str| {
        assert_eq!(found.0, Durability::Unverified, "{words}");
        assert!(found.1.contains(words) && found.1.contains("volume"), "{}", found.1);
    };
    assert_eq!(probe("", &["/u/d/f"], &|_| {}).0, Durability::Fsync);
    unverified(probe("", &[], &|_| {}), "lower layer");
    unverified(probe("", &["/u/d/f/x"], &|_| {}), "lower layer");
    assert_eq!(probe("", &[], &|file| file.writable = true).0, Durability::Fsync);
    assert_eq!(probe(",root=/part", &["/u/part/d/f"], &|_| {}).0, Durability::Fsync);
    unverified(probe(",root=/part", &["/u/d/f"], &|_| {}), "lower layer");
    for option in [",metacopy=on", ",redirect_dir=on"] {
        unverified(probe(option, &["/u/d/f"], &|_| {}), "lower layer");
        assert_eq!(probe(option, &[], &|file| file.writable = true).0, Durability::Fsync);
    }
    // The upper's layers count under its own name.
    let mut tree = ordinary();
    tree.mount("0:50 / /o rw - overlay overlay rw,lowerdir=/l,upperdir=/u");
    tree.root.write("/u/f", "");
    let report = FakeFile::new("/o/f", (0, 50)).probe(&tree.root);
    let cap = report.caps.iter().find(|cap| cap.layer == Layer::Filesystem).unwrap();
    assert!(cap.evidence.contains("ext4") && !cap.evidence.contains("overlay"), "{cap:?}");
    // The same path, and another filesystem.
    let other = |file: &mut FakeFile| (file.size.blocks, file.writable) = (2, true);
    unverified(probe("", &["/u/d/f"], &other), "is not visible from here");
}

#[test]
fn overlay_of_a_container_hides_its_upper() {
    // The upper's path is the host's; here it leads nowhere, or into the overlay itself.
    for present in [false, true] {
        let mut tree = Tree::new();
        if present {
            tree.root.write("/var/upper/file", "");
        }
        tree.mount("0:50 / / rw - overlay overlay rw,lowerdir=/l,upperdir=/var/upper");
        let report = FakeFile::new("/f", (0, 50)).probe(&tree.root);
        assert!(report.upper.is_none() && report.device.is_none());
        assert_eq!(report.durability, Durability::Unverified);
        assert_eq!(codes(&report), ["layer-unverified"]);
        let remedy = report.reasons[0].remedy.as_ref().unwrap().to_string();
        assert!(remedy.starts_with("put the data on a volume"), "{remedy}");
    }
    let mut tree = ordinary();
    tree.mount("0:50 / /o rw - overlay overlay rw,lowerdir=/l,upperdir=/gone/upper");
    assert!(FakeFile::new("/o/f", (0, 50)).probe(&tree.root).upper.is_none());
}

#[test]
fn overlay_without_an_upper_is_read_only() {
    let mut tree = ordinary();
    tree.mount("0:50 / /o rw - overlay overlay rw,lowerdir=/a:/b");
    let report = FakeFile::new("/o/f", (0, 50)).probe(&tree.root);
    assert!(report.read_only);
    assert_eq!(report.durability, Durability::Unverified);
}

#[test]
fn filesystems_that_others_keep() {
    let mut tree = ordinary();
    for (n, name) in
        ["nfs4", "cifs", "9p", "virtiofs", "fuse.sshfs", "fuseblk", "unheard"].iter().enumerate()
    {
        let id = tree.mount(&format!("0:{} / /n{n} rw - {name} host:/x rw", 60 + n));
        let file = FakeFile::new("/n/f", (0, 60)).with(|file| file.stat.mount_id = Some(id));
        let report = file.probe(&tree.root);
        assert_eq!(
            (report.backend, report.durability),
            (Backend::PageCache, Durability::Unverified)
        );
        assert_eq!(codes(&report), ["layer-unverified", "filesystem-without-dax"], "{name}");
    }
}

/// What a local filesystem does at fdatasync is known of each: not all send a flush.
#[test]
fn filesystems_that_send_no_flush_are_unverified() {
    for (name, expected, words) in [
        ("jfs", Durability::Unverified, "fdatasync on jfs on /m sends the disk no flush"),
        ("gfs2", Durability::Unverified, "fdatasync on gfs2 on /m sends the disk no flush"),
        ("hfs", Durability::Unverified, "fdatasync on hfs on /m sends the disk no flush"),
        ("reiserfs", Durability::Unverified, "where reiserfs on sda keeps its log is not known"),
        ("ext2", Durability::Fsync, ""),
        ("f2fs", Durability::Fsync, ""),
        ("exfat", Durability::Fsync, ""),
        ("hfsplus", Durability::Fsync, ""),
        ("nilfs2", Durability::Fsync, ""),
        ("ocfs2", Durability::Fsync, ""),
        ("vfat", Durability::Fsync, ""),
    ] {
        let mut tree = Tree::new();
        tree.disk("8:0", "sda");
        tree.mount(&format!("8:0 / /m rw - {name} /dev/sda rw"));
        let report = FakeFile::new("/m/f", (8, 0)).probe(&tree.root);
        assert_eq!(report.durability, expected, "{name}");
        let says = report.reasons.iter().any(|reason| reason.text.contains(words));
        assert!(says, "{name}: {:#?}", report.reasons);
    }
}

/// What sysfs does not show of several devices is named by its number.
#[test]
fn a_member_that_is_not_shown_is_named() {
    let mut tree = Tree::new();
    tree.disk("8:0", "sda");
    tree.root.write("/dev/sdb", "8:16");
    tree.mount("0:41 / /b rw - bcachefs /dev/sda:/dev/sdb rw");
    let report = FakeFile::new("/b/f", (0, 41)).probe(&tree.root);
    assert_eq!(report.durability, Durability::Unverified);
    let text = &report.reasons[0].text;
    assert!(text.contains("/sys/dev/block/8:16 cannot be read"), "{text}");
}

/// f2fs over several devices has the number of the first, and the size of all.
#[test]
fn a_filesystem_larger_than_its_device_has_others() {
    let size = |blocks| FilesystemSize { block_bytes: 4096, blocks, files: 1 };
    for (filesystem, blocks, sectors, expected) in [
        ("f2fs", 256, Some("2048\n"), Durability::Fsync),
        ("f2fs", 257, Some("2048\n"), Durability::Unverified),
        ("f2fs", u64::MAX, Some("2048\n"), Durability::Unverified),
        ("f2fs", 1, None, Durability::Unverified),
        ("ext2", 257, Some("2048\n"), Durability::Fsync),
    ] {
        let mut tree = Tree::new();
        tree.disk("8:0", "sda");
        let path = "/sys/devices/pci0000:00/virtio1/block/sda/size";
        match sectors {
            Some(sectors) => tree.root.write(path, sectors),
            None => std::fs::remove_file(tree.root.at(path)).unwrap(),
        }
        tree.mount(&format!("8:0 / /m rw - {filesystem} /dev/sda rw"));
        let file = FakeFile::new("/m/f", (8, 0)).with(|file| file.size = size(blocks));
        let report = file.probe(&tree.root);
        assert_eq!(report.durability, expected, "{filesystem} {blocks} {sectors:?}");
        let says =
            report.reasons.iter().any(|reason| reason.text.contains("f2fs is larger than sda"));
        assert_eq!(says, expected == Durability::Unverified, "{:#?}", report.reasons);
    }
}

#[test]
fn files_in_no_visible_mount() {
    let tree = ordinary();
    for (magic, durability) in [
        (0x0102_1994, Durability::ProcessOnly),
        (0x9584_58f6, Durability::ProcessOnly),
        (0xdead_beef, Durability::Unverified),
    ] {
        let memfd = FakeFile::new("memfd", (0, 1)).with(|file| {
            file.filesystem = Some((magic, 4096));
            file.stat.mount_id = Some(999);
        });
        let report = memfd.probe(&tree.root);
        assert!(report.mount.is_none());
        assert_eq!(report.durability, durability, "{magic:x}");
    }
    // Its device is found by its number, but nobody knows with what options it is mounted.
    tree.disk("8:16", "sdb");
    for (file, backend) in [
        (FakeFile::new("detached", (8, 16)), Backend::PageCache),
        (FakeFile::dax("detached", (8, 16)), Backend::FsDax),
    ] {
        let report = file.with(|file| file.stat.mount_id = Some(999)).probe(&tree.root);
        assert_eq!((report.backend, report.durability), (backend, Durability::Unverified));
        assert_eq!(codes(&report)[0], "layer-unverified");
        assert!(report.reasons[0].text.contains("mountinfo does not show"), "{:?}", report.reasons);
        assert_eq!(report.device.unwrap().name, "sdb");
    }
}

#[test]
fn a_filesystem_without_a_name_is_a_layer_nobody_knows() {
    let tree = ordinary();
    let file =
        FakeFile::new("/f", (0, 77)).with(|file| file.filesystem = Some((0xdead_beef, 4096)));
    let report = file.probe(&tree.root);
    assert_eq!(report.filesystem, None);
    assert_eq!(codes(&report), ["layer-unverified", "filesystem-without-dax"]);
}

#[test]
fn a_new_file_gets_what_its_directory_says() {
    let mut tree = ordinary();
    tree.pmem(0, "259:0", ADR, "fsdax");
    tree.mount("259:0 / /inode rw - ext4 /dev/pmem0 rw,dax=inode");
    for (flag, expected) in [(true, MapSync::Predicted(true)), (false, MapSync::Predicted(false))] {
        for missing in [true, false] {
            let directory = FakeFile::directory("/inode/new", (259, 0)).with(|file| {
                file.missing = missing;
                file.dax_flag = Some(flag);
            });
            let report = directory.probe(&tree.root);
            assert_eq!(report.target, if missing { Target::Missing } else { Target::Directory });
            assert_eq!(report.map_sync, expected);
            assert_eq!(report.backend == Backend::FsDax, flag);
        }
    }
}

#[test]
fn pipes_lie_on_no_device_and_are_no_memory() {
    let mut tree = ordinary();
    tree.mount("0:9 / /tmp rw - tmpfs tmpfs rw");
    for (path, device) in [("/pipe", (8, 0)), ("/tmp/pipe", (0, 9))] {
        let pipe = FakeFile::new(path, device).with(|file| file.stat.file_type = FileType::Fifo);
        let report = pipe.probe(&tree.root);
        assert_eq!((report.target, report.backend), (Target::Other, Backend::PageCache), "{path}");
        assert!(report.mount.is_some() && report.device.is_none(), "{path}");
    }
}

#[test]
fn interfaces_of_the_kernel_hold_nothing() {
    let mut tree = ordinary();
    tree.mount("0:5 / /proc rw - proc proc rw");
    let report = FakeFile::new("/proc/version", (0, 5)).probe(&tree.root);
    assert_eq!((report.target, report.durability), (Target::Other, Durability::ProcessOnly));
    assert_eq!(codes(&report), ["not-a-regular-file"]);
    assert_eq!(report.verdict_sentence(), "/proc/version cannot hold a region.");
}

#[test]
fn nothing_to_read_at_all() {
    let tree = super::TempDir::new();
    let report = FakeFile::new("/x/f", (8, 0)).with(|file| file.filesystem = None).probe(&tree);
    assert_eq!(report.durability, Durability::Unverified);
    let report = FakeFile::dax("/x/f", (259, 0)).probe(&tree);
    assert_eq!((report.backend, report.durability), (Backend::FsDax, Durability::Unverified));
}
