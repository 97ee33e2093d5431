//! What is foretold for a directory is what a file made in it then is: never more.

use super::tree::{ADR, EADR, Region, Tree};
use super::{EOPNOTSUPP, FakeFile, codes};
use crate::durability::{Backend, Durability};
use crate::probe::report::{MapSync, Report};
use crate::probe::subject::HandedOn;

/// One way to make a file.
#[derive(Clone, Copy, Debug)]
struct Case {
    filesystem: &'static str,
    options: &'static str,
    kernel: &'static str,
    block: u64,
    flagged: bool,
    encrypted: bool,
    hands_on: HandedOn,
    region: Region,
    mode: &'static str,
}

/// What the kernel does with it (fs/ext4/inode.c `ext4_should_enable_dax`, fs/xfs/xfs_iops.c
/// `xfs_inode_should_enable_dax`; before 5.8 fs/ext4/inode.c `ext4_set_inode_flags`).
fn kernel_makes_it_dax(case: &Case) -> bool {
    let has = |option: &str| case.options.split(',').any(|found| found == option);
    let old = case.kernel.starts_with("5.7") || case.kernel.starts_with("4.");
    let wanted = match (old, has("dax=never"), has("dax=always") || has("dax")) {
        (_, true, _) => false,
        (_, _, true) => true,
        (true, ..) => false,
        (false, ..) => case.flagged,
    };
    let journal = has("data=journal") || case.hands_on.data_journal;
    wanted
        && matches!(case.filesystem, "ext4" | "xfs")
        && case.mode == "fsdax"
        && case.block == 4096
        && !case.encrypted
        && !(case.filesystem == "ext4" && journal)
        && !(case.filesystem == "xfs" && case.hands_on.realtime)
}

fn made(case: &Case) -> (Report, Report) {
    let mut tree = Tree::new();
    tree.root.write("/proc/sys/kernel/osrelease", case.kernel);
    tree.pmem(0, "259:0", case.region, case.mode);
    tree.mount(&format!("259:0 / /m rw - {} /dev/pmem0 rw{}", case.filesystem, case.options));
    let prepare = |file: &mut FakeFile| {
        file.filesystem = Some((0xef53, case.block));
        file.stat.encrypted = case.encrypted;
        file.dax_flag = Some(case.flagged);
        file.hands_on = Some(case.hands_on);
    };
    let directory = FakeFile::directory("/m/d", (259, 0)).with(prepare).probe(&tree.root);
    let dax = kernel_makes_it_dax(case);
    let synchronous =
        dax && case.region.provider != "virtio-pmem" && !case.kernel.starts_with("4.9");
    let file = FakeFile::new("/m/d/f", (259, 0)).with(prepare).with(|file| {
        file.stat.dax =
            (!case.kernel.starts_with("5.7") && !case.kernel.starts_with("4.")).then_some(dax);
        let refused = if case.kernel.starts_with("4.9") { 22 } else { EOPNOTSUPP };
        file.map_sync =
            Some(if synchronous { MapSync::Accepted } else { MapSync::Refused(refused) });
    });
    (directory, file.probe(&tree.root))
}

fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    let virtio = Region { provider: "virtio-pmem", domain: None, ..ADR };
    let nameless = Region { domain: None, ..ADR };
    let regions =
        [(ADR, "fsdax"), (EADR, "fsdax"), (nameless, "fsdax"), (virtio, "fsdax"), (ADR, "raw")];
    for filesystem in ["ext4", "xfs", "btrfs"] {
        for options in ["", ",dax=always", ",dax=inode", ",dax=never", ",dax", ",data=journal"] {
            for kernel in ["6.12.0", "5.8.0", "5.7.19", "4.9.0"] {
                for (region, mode) in regions {
                    for number in 0..10_u32 {
                        let bit = |n: u32| number / 2 == n;
                        out.push(Case {
                            filesystem,
                            options,
                            kernel,
                            block: if bit(0) { 1024 } else { 4096 },
                            flagged: number % 2 == 1,
                            encrypted: bit(1),
                            hands_on: HandedOn { data_journal: bit(2), realtime: bit(3) },
                            region,
                            mode,
                        });
                    }
                }
            }
        }
    }
    out
}

/// Field by field, over every case.
#[test]
fn what_is_foretold_is_what_the_file_is() {
    // A tree a case is a few files: many cases are alike, so one in some is laid out.
    let (mut mapped, mut not) = (0, 0);
    for case in cases().iter().step_by(17) {
        let (foretold, file) = made(case);
        let fields = |report: &Report| {
            (
                (report.backend, report.durability, report.granularity),
                (report.persistence_domain, report.read_only, report.numa_node),
                (report.filesystem.clone(), report.device.clone(), report.regions.clone()),
                report.caps.iter().map(|cap| (cap.layer, cap.level)).collect::<Vec<_>>(),
            )
        };
        assert_eq!(fields(&foretold), fields(&file), "{case:?}");
        let accepted = file.map_sync == MapSync::Accepted;
        assert_eq!(foretold.map_sync, MapSync::Predicted(accepted), "{case:?}");
        if accepted { mapped += 1 } else { not += 1 }
    }
    assert!(mapped > 8 && not > 100, "{mapped} {not}");
}

/// Before 5.8 there is neither a flag of an inode nor `dax=always`, and no text speaks of them.
#[test]
fn old_kernels_are_told_of_their_own_option() {
    let mut seen = 0;
    for case in cases().iter().filter(|case| case.kernel == "5.7.19").step_by(11) {
        let (foretold, file) = made(case);
        for report in [foretold, file] {
            for reason in &report.reasons {
                let text = reason.to_string();
                for word in ["dax=", "chattr +x", "decides DAX by inode", "DAX flag"] {
                    let own = word == "dax=" && text.contains("dax=never");
                    assert!(own || !text.contains(word), "{case:?}: {text}");
                }
                seen += usize::from(text.contains("-o dax"));
            }
        }
    }
    assert!(seen > 0);
}

/// Whatever keeps DAX away has its own reason, for the directory and for the file.
#[test]
fn what_rules_dax_out_is_named() {
    let plain = Case {
        filesystem: "ext4",
        options: ",dax=always",
        kernel: "6.12.0",
        block: 4096,
        flagged: true,
        encrypted: false,
        hands_on: HandedOn::default(),
        region: ADR,
        mode: "fsdax",
    };
    let journal = HandedOn { data_journal: true, realtime: false };
    let realtime = HandedOn { data_journal: false, realtime: true };
    for (case, word) in [
        (Case { encrypted: true, ..plain }, "encrypted"),
        (Case { hands_on: journal, ..plain }, "data=journal"),
        (Case { options: ",data=journal", ..plain }, "data=journal"),
        (Case { filesystem: "xfs", hands_on: realtime, ..plain }, "real-time"),
    ] {
        let (foretold, file) = made(&case);
        for report in [foretold, file] {
            assert_eq!(
                (report.backend, report.durability),
                (Backend::PageCache, Durability::Fsync)
            );
            assert_eq!(codes(&report), ["never-dax"], "{case:?}: {:?}", report.reasons);
            assert!(report.reasons[0].text.contains(word), "{}", report.reasons[0]);
        }
        let (foretold, file) = made(&case);
        let begins = |report: &Report, words| report.reasons[0].text.starts_with(words);
        assert!(begins(&foretold, "a file made in /m/d "), "{}", foretold.reasons[0]);
        assert!(begins(&file, "/m/d/f "), "{}", file.reasons[0]);
    }
    // A directory that cannot be opened may hand on anything.
    let mut tree = Tree::new();
    tree.pmem(0, "259:0", ADR, "fsdax");
    tree.mount("259:0 / /m rw - ext4 /dev/pmem0 rw,dax=always");
    let closed = FakeFile::directory("/m/d", (259, 0)).with(|file| file.hands_on = None);
    let report = closed.probe(&tree.root);
    assert_eq!(report.map_sync, MapSync::Predicted(false));
    assert_eq!(codes(&report), ["never-dax"]);
    // A file that cannot be opened is what the kernel said of it.
    let closed = FakeFile::new("/m/f", (259, 0)).with(|file| file.hands_on = None);
    assert_eq!(codes(&closed.probe(&tree.root)), ["map-sync-refused"]);
}

/// A file that could not be tried without a trace is what its inode says.
#[test]
fn a_file_that_is_not_opened_is_foretold() {
    let virtio = Region { provider: "virtio-pmem", domain: None, ..ADR };
    for (region, mode, dax, expected) in [
        (ADR, "fsdax", Some(true), true),
        (ADR, "fsdax", Some(false), false),
        (ADR, "fsdax", None, false),
        (virtio, "legacy", Some(true), false),
        (ADR, "raw", Some(true), false),
    ] {
        let mut tree = Tree::new();
        tree.pmem(0, "259:0", region, mode);
        tree.mount("259:0 / /m rw - ext4 /dev/pmem0 rw,dax=inode");
        let file = FakeFile::new("/m/f", (259, 0))
            .with(|file| (file.map_sync, file.stat.dax) = (None, dax));
        let report = file.probe(&tree.root);
        assert_eq!(report.map_sync, MapSync::Predicted(expected), "{mode} {dax:?}");
        assert_eq!(report.backend == Backend::FsDax, expected);
        if expected {
            assert_eq!(report.durability, Durability::PowerFail);
            assert!(report.caps[0].evidence.contains("was not opened"), "{:?}", report.caps[0]);
            let directory = FakeFile::directory("/m", (259, 0))
                .with(|file| file.dax_flag = Some(true))
                .probe(&tree.root);
            let evidence = &directory.caps[0].evidence;
            assert_eq!(evidence, "MAP_SYNC is foretold for a file at /m");
        }
    }
}

/// Two namespaces under one md or one btrfs, and a filesystem that nobody here knows.
#[test]
fn stacks_without_dax_say_what_they_are() {
    let mut tree = Tree::new();
    let below = [(0, "259:0"), (1, "259:1")].map(|(n, number)| tree.pmem(n, number, ADR, "fsdax"));
    tree.block("9:0", "virtual/block/md0", &[("md/level", "raid0\n"), ("queue/dax", "0\n")]);
    for (i, target) in below.iter().enumerate() {
        let slave = format!("/sys/devices/virtual/block/md0/slaves/below{i}");
        tree.root.link(&slave, &format!("../../../../{target}"));
    }
    tree.mount("9:0 / /md rw - ext4 /dev/md0 rw");
    let md = FakeFile::directory("/md", (9, 0)).probe(&tree.root);
    assert_eq!((md.backend, md.durability), (Backend::PageCache, Durability::Fsync));
    assert_eq!(codes(&md), ["no-dax-device"]);
    assert!(
        md.reasons[0].text.starts_with("md0 (raid) is made of pmem0 and pmem1"),
        "{}",
        md.reasons[0]
    );
    for disk in &below {
        tree.root.write(&format!("/sys/devices/{disk}/queue/dax"), "0\n");
    }
    let md = FakeFile::directory("/md", (9, 0)).probe(&tree.root);
    assert_eq!(md.reasons[0].text, "md0 (raid) is not a DAX device");
    for disk in &below {
        tree.root.write(&format!("/sys/devices/{disk}/queue/dax"), "1\n");
    }

    for (i, target) in below.iter().enumerate() {
        let member = format!("/sys/fs/btrfs/11/devices/pmem{i}");
        tree.root.link(&member, &format!("../../../../devices/{target}"));
        tree.root.write(&format!("/dev/pmem{i}"), &format!("259:{i}"));
    }
    let id = tree.mount("0:40 / /b rw - btrfs /dev/pmem0 rw");
    let file = FakeFile::new("/b/f", (0, 41)).with(|file| file.stat.mount_id = Some(id));
    let btrfs = file.probe(&tree.root);
    assert_eq!((btrfs.backend, btrfs.durability), (Backend::PageCache, Durability::Fsync));
    assert_eq!(codes(&btrfs), ["filesystem-without-dax", "no-dax-device"]);
    assert_eq!(btrfs.regions.len(), 2);
    let text: String = btrfs.reasons.iter().map(ToString::to_string).collect();
    assert!(text.contains("btrfs (filesystem) is made of pmem0 and pmem1"), "{text}");
    assert!(!text.contains("/dev/btrfs") && !text.contains("on btrfs"), "{text}");

    tree.pmem(2, "259:2", ADR, "fsdax");
    tree.mount("259:2 / /nova rw - NOVA /dev/pmem2 rw");
    for file in [FakeFile::directory("/nova", (259, 2)), FakeFile::dax("/nova/f", (259, 2))] {
        let report = file.probe(&tree.root);
        assert_eq!(report.durability, Durability::Unverified);
        assert_eq!(codes(&report)[0], "layer-unverified");
        let text: String = report.reasons.iter().map(ToString::to_string).collect();
        assert!(text.contains("fdatasync does on NOVA on /nova"), "{text}");
        assert!(!text.contains("program") && !text.contains("server"), "{text}");
        assert!(!text.contains("has no MAP_SYNC"), "it was not tried: {text}");
    }
}
