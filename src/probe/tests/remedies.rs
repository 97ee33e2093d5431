//! The commands that are offered, to the letter, and where there are only words.

use rustix::fs::FileType;

use super::FakeFile;
use super::tree::{ADR, Tree};
use crate::durability::Durability;
use crate::probe::report::{MapSync, ReasonCode, Report};
use crate::probe::{Recipe, Remedy};

/// The remedy of the only reason with this code.
fn remedy(report: &Report, code: ReasonCode) -> &Remedy {
    let found: Vec<_> = report.reasons.iter().filter(|reason| reason.code == code).collect();
    assert_eq!(found.len(), 1, "{code}: {:#?}", report.reasons);
    found[0].remedy.as_ref().unwrap()
}

fn command(report: &Report, code: ReasonCode) -> Option<&str> {
    let remedy = remedy(report, code);
    assert_eq!(remedy.command.is_some(), remedy.recipe.is_some());
    remedy.command.as_deref()
}

/// `/dev/pmem0`, mounted by these lines of mountinfo.
fn pmem(mounts: &[&str]) -> Tree {
    let mut tree = Tree::new();
    tree.pmem(0, "259:0", ADR, "fsdax");
    tree.disk("259:9", "vda");
    for mount in mounts {
        tree.mount(mount);
    }
    tree
}

fn dax_always(mounts: &[&str]) -> Option<String> {
    let report = FakeFile::new("/m/f", (259, 0)).with(|file| file.stat.mount_id = Some(1));
    let report = report.probe(&pmem(mounts).root);
    command(&report, ReasonCode::MountedDaxNever).map(str::to_owned)
}

#[test]
fn dax_always_keeps_every_other_option() {
    for (kind, options, new, old) in [
        (
            "ext4",
            "rw,nosuid,noatime - ext4 /dev/pmem0 rw,lazytime,dax=never,data=writeback,stripe=512",
            "rw,nosuid,noatime,lazytime,dax=always,data=writeback,stripe=512",
            "rw,nosuid,noatime,lazytime,dax=never,data=writeback,stripe=512",
        ),
        (
            "xfs",
            "ro,relatime shared:1 - xfs /dev/pmem0 ro,attr2,dax=never,inode32,logdev=/dev/vda,noquota",
            "ro,relatime,attr2,dax=always,inode32,logdev=/dev/vda,noquota",
            "ro,relatime,attr2,dax=never,inode32,logdev=/dev/vda,noquota",
        ),
        // Neither relatime nor noatime: mount(8) would take relatime for the default.
        (
            "ext4",
            "rw - ext4 /dev/pmem0 rw,dax=never",
            "rw,dax=always,strictatime",
            "rw,dax=never,strictatime",
        ),
    ] {
        let expected = format!(
            "umount /m && {{ mount -t {kind} -o {new} /dev/pmem0 /m || \
             {{ mount -t {kind} -o {old} /dev/pmem0 /m; false; }}; }}"
        );
        assert_eq!(dax_always(&[&format!("259:0 / /m {options}")]), Some(expected));
    }
}

#[test]
fn a_mount_that_cannot_be_made_again_is_left_alone() {
    let plain = "259:0 / /m rw,noatime - ext4 /dev/pmem0 rw,dax=never";
    assert!(dax_always(&[plain]).is_some());
    for mounts in [
        // Mounted twice; something else on the same point; a part of it.
        &[plain, "259:0 / /n rw - ext4 /dev/pmem0 rw,dax=never"][..],
        &[plain, "259:9 / /m rw - ext4 /dev/vda rw"],
        &["259:0 /sub /m rw,noatime - ext4 /dev/pmem0 rw,dax=never"],
        // A name that leads to no device, or to another.
        &["259:0 / /m rw,noatime - ext4 /dev/root rw,dax=never"],
        &["259:0 / /m rw,noatime - ext4 /dev/vda rw,dax=never"],
        // The mount and its filesystem differ; DAX is refused; options that cannot be given.
        &["259:0 / /m ro,noatime - ext4 /dev/pmem0 rw,dax=never"],
        &["259:0 / /m rw,noatime - ext4 /dev/pmem0 rw,dax=never,data=journal"],
        &["259:0 / /m rw,noatime,idmapped - ext4 /dev/pmem0 rw,dax=never"],
        &["259:0 / /m rw,noatime - ext4 /dev/pmem0 rw,shutdown,dax=never"],
        &[r#"259:0 / /m rw,noatime - ext4 /dev/pmem0 rw,dax=never,context="a:c1,c2""#],
        &[r"259:0 / /m rw,noatime - ext4 /dev/pmem0 rw,dax=never,x=a\054b"],
        &[r"259:0 / /m rw,noatime - ext4 /dev/pmem0 rw,dax=never,x=$(id)"],
        // A point that cannot be shown.
        &[r"259:0 / /m\012 rw,noatime - ext4 /dev/pmem0 rw,dax=never"],
    ] {
        assert_eq!(dax_always(mounts), None, "{mounts:?}");
    }
}

#[test]
fn a_point_with_spaces_and_quotes_is_one_word() {
    let found = dax_always(&[r"259:0 / /it's\040here rw,noatime - ext4 /dev/pmem0 rw,dax=never"]);
    let found = found.unwrap();
    assert!(found.starts_with(r"umount '/it'\''s here' && {"), "{found}");
    assert_eq!(found.matches(r"/dev/pmem0 '/it'\''s here'").count(), 2, "{found}");
}

#[test]
fn xfs_on_a_partition_is_left_alone() {
    for (kind, offered) in [("ext4", true), ("xfs", false)] {
        let mut tree = Tree::new();
        let disk = tree.pmem(0, "259:0", ADR, "fsdax");
        let partition = [("partition", "1\n"), ("start", "2048\n")];
        tree.block("259:1", &format!("{disk}/pmem0p1"), &partition);
        tree.root.write("/dev/pmem0p1", "259:1");
        tree.mount(&format!("259:1 / /m rw,noatime - {kind} /dev/pmem0p1 rw,dax=never"));
        let report = FakeFile::new("/m/f", (259, 1)).probe(&tree.root);
        let found = command(&report, ReasonCode::MountedDaxNever);
        assert_eq!(found.is_some(), offered, "{found:?}");
    }
}

/// ext4 does not say where its journal is; a mount finds it by what the superblock holds.
#[test]
fn an_ext4_with_a_journal_elsewhere_is_left_alone() {
    for (kind, offered) in [("xfs", true), ("ext4", false)] {
        let options = if kind == "xfs" { ",logdev=/dev/vda" } else { "" };
        let tree =
            pmem(&[&format!("259:0 / /m rw,noatime - {kind} /dev/pmem0 rw,dax=never{options}")]);
        if kind == "ext4" {
            std::fs::remove_dir_all(tree.root.at("/proc/fs/jbd2/pmem0-8")).unwrap();
            tree.root.write("/sys/fs/ext4/pmem0/journal_task", "77\n");
            tree.root.write("/proc/77/comm", "jbd2/vda\n");
            tree.root.write("/sys/class/block/vda/dev", "259:9\n");
        }
        let report = FakeFile::new("/m/f", (259, 0)).probe(&tree.root);
        assert_eq!(report.durability, Durability::Fsync, "the log is found: {:#?}", report.caps);
        let found = command(&report, ReasonCode::MountedDaxNever);
        assert_eq!(found.is_some(), offered, "{found:?}");
    }
}

/// mount(8) would change the one on top.
#[test]
fn a_point_with_another_mount_on_it_is_left_alone() {
    for (options, code) in [
        ("rw,noatime - ext4 /dev/vda rw,nobarrier", ReasonCode::NoBarrier),
        ("ro,noatime - ext4 /dev/vda ro", ReasonCode::ReadOnly),
    ] {
        let mount = format!("259:9 / /m {options}");
        assert!(command(&on_disk(&mount), code).is_some());
        let tree = pmem(&[&mount, "259:0 / /m rw - xfs /dev/pmem0 rw"]);
        let file = FakeFile::new("/m/f", (259, 9)).with(|file| file.stat.mount_id = Some(1));
        assert_eq!(command(&file.probe(&tree.root), code), None, "{code}");
    }
}

fn on_disk(mount: &str) -> Report {
    let tree = pmem(&[mount]);
    FakeFile::new("/m/f", (259, 9)).with(|file| file.stat.mount_id = Some(1)).probe(&tree.root)
}

#[test]
fn barriers_are_turned_on_with_every_other_option() {
    for (mount, expected) in [
        (
            "259:9 / /m rw,nodev,relatime - ext4 /dev/vda rw,nobarrier,commit=17",
            Some("mount -o remount,rw,nodev,relatime,barrier=1,commit=17 /dev/vda /m"),
        ),
        (
            "0:40 /s /m rw,noatime - btrfs /dev/vda rw,nobarrier,ssd,subvolid=256,subvol=/s",
            Some("mount -o remount,rw,noatime,barrier,ssd,subvolid=256,subvol=/s /dev/vda /m"),
        ),
        ("259:9 / /m rw,noatime - f2fs /dev/vda rw,fsync_mode=nobarrier", None),
        ("259:9 / /m ro,noatime - ext4 /dev/vda rw,nobarrier", None),
    ] {
        assert_eq!(command(&on_disk(mount), ReasonCode::NoBarrier), expected);
    }
}

#[test]
fn a_mount_is_made_writable_with_every_other_option() {
    for (mount, expected) in [
        (
            "259:9 / /m ro,nosuid,noatime - xfs /dev/vda ro,inode32,noquota",
            Some("mount -o remount,rw,nosuid,noatime,inode32,noquota /dev/vda /m"),
        ),
        // Only the filesystem, and only the mount.
        (
            "259:9 / /m rw,noatime - ext4 /dev/vda ro,commit=17",
            Some("mount -o remount,rw,noatime,commit=17 /dev/vda /m"),
        ),
        (
            "259:9 /d /m ro,nosuid,nodev,relatime - ext4 /dev/vda rw,commit=17",
            Some("mount -o remount,bind,rw,nosuid,nodev,relatime /dev/vda /m"),
        ),
        ("259:9 / /m ro,noatime - f2fs /dev/vda ro", None),
        ("259:9 / /m ro,noatime - ext4 /dev/vda ro,norecovery", None),
    ] {
        assert_eq!(command(&on_disk(mount), ReasonCode::ReadOnly), expected);
    }
}

/// What is below has to be writable first, and only the deepest device is named.
#[test]
fn what_is_read_only_is_made_writable_from_below() {
    let tree = pmem(&["259:9 / /m ro,noatime - ext4 /dev/vda ro"]);
    tree.root.write("/sys/devices/pci0000:00/virtio1/block/vda/ro", "1\n");
    let report = FakeFile::new("/m/f", (259, 9)).probe(&tree.root);
    let found: Vec<_> = report.reasons.iter().filter_map(|reason| reason.remedy.clone()).collect();
    assert_eq!(found[0].command.as_deref(), Some("blockdev --setrw /dev/vda"));
    assert_eq!(found[1].command, None, "{}", found[1]);
    assert!(found[1].text.starts_with("then remount /m"), "{}", found[1]);
}

/// A device that is made of others is made writable where it was made.
#[test]
fn a_made_device_is_made_writable_by_its_own_tool() {
    for (name, mark, words) in [
        ("loop0", "loop/offset", "attach loop0 again without --read-only (losetup)"),
        ("md0", "md/level", "make md0 writable (mdadm --readwrite)"),
        ("dm-0", "dm/name", "load the table of dm-0 without --readonly"),
    ] {
        let mut tree = Tree::new();
        let attributes = [("ro", "1\n"), (mark, "x\n"), ("queue/dax", "0\n")];
        tree.block("252:7", &format!("virtual/block/{name}"), &attributes);
        tree.mount(&format!("252:7 / /m rw - xfs /dev/{name} rw"));
        let report = FakeFile::new("/m/f", (252, 7)).probe(&tree.root);
        let remedy = remedy(&report, ReasonCode::ReadOnly);
        assert_eq!((remedy.text.as_str(), remedy.command.as_deref()), (words, None));
    }
}

#[test]
fn a_region_is_made_writable_only_if_each_device_is_in_order() {
    let region = "/sys/devices/LNXSYSTM:00/ACPI0012:00/ndbus0/region0";
    let node = FakeFile::node("/dev/pmem0", FileType::BlockDevice, (259, 0));
    for (flags, unread, expected) in [
        (Some(""), false, Some("echo 0 > /sys/bus/nd/devices/region0/read_only")),
        (Some("not_armed"), false, None),
        (Some("save_fail"), false, None),
        (None, false, None),
        (Some(""), true, None),
    ] {
        let tree = pmem(&[]);
        tree.root.write(&format!("{region}/read_only"), "1\n");
        let mut report = node.probe(&tree.root);
        let device = crate::probe::MemoryDevice {
            flags: flags.map(|text| text.split_whitespace().map(str::to_owned).collect()),
            ..Default::default()
        };
        report.regions[0].devices = vec![device];
        report.regions[0].devices_unread = if unread { vec!["/sys/x".into()] } else { Vec::new() };
        let found = crate::probe::commands::writable_region(&report.regions[0]);
        assert_eq!(found.command.as_deref(), expected, "{flags:?} {unread}");
        report.regions[0].devices.clear();
        assert_eq!(crate::probe::commands::writable_region(&report.regions[0]).command, None);
    }
}

#[test]
fn a_namespace_is_erased_only_where_its_device_is_named_and_not_in_use() {
    let expected = "ndctl create-namespace -f -e namespace0.0 -m fsdax";
    for (mode, code) in [("raw", ReasonCode::RawNamespace), ("sector", ReasonCode::SectorNamespace)]
    {
        let mut tree = Tree::new();
        tree.pmem(0, "259:0", ADR, mode);
        let node = FakeFile::node("/dev/pmem0", FileType::BlockDevice, (259, 0));
        let report = node.probe(&tree.root);
        assert_eq!(command(&report, code), Some(expected));
        assert!(remedy(&report, code).erases_data);
        assert!(remedy(&report, code).to_string().starts_with("ERASES DATA: "));
        // In use, by a file that is there; and of a region that is read-only for a reason.
        tree.mount("259:0 / /m rw - ext4 /dev/pmem0 rw");
        for report in [FakeFile::new("/m/f", (259, 0)).probe(&tree.root), node.probe(&tree.root)] {
            assert_eq!(command(&report, code), None);
            assert!(remedy(&report, code).erases_data);
        }
        let tree = Tree::new();
        tree.pmem(0, "259:0", ADR, mode);
        tree.root.write("/sys/devices/LNXSYSTM:00/ACPI0012:00/ndbus0/region0/read_only", "1\n");
        assert_eq!(command(&node.probe(&tree.root), code), None);
    }
}

#[test]
fn the_flag_is_set_where_it_counts() {
    let tree = pmem(&["259:0 / /m rw - xfs /dev/pmem0 rw,dax=inode"]);
    let code = ReasonCode::DaxInodeWithoutFlag;
    let file = FakeFile::new("/m/a b", (259, 0));
    assert_eq!(command(&file.probe(&tree.root), code), Some("xfs_io -c 'chattr +x' '/m/a b'"));
    let directory = FakeFile::directory("-d", (259, 0));
    assert_eq!(command(&directory.probe(&tree.root), code), Some("xfs_io -c 'chattr +x' ./-d"));
    for (path, expected) in [("/m/d/new", "/m/d"), ("new", ".")] {
        let missing = FakeFile::directory(path, (259, 0)).with(|file| file.missing = true);
        let expected = format!("xfs_io -c 'chattr +x' {expected}");
        assert_eq!(command(&missing.probe(&tree.root), code), Some(expected.as_str()));
    }
    let node = FakeFile::node("/dev/pmem0", FileType::BlockDevice, (259, 0));
    assert_eq!(command(&node.probe(&tree.root), code), Some("xfs_io -c 'chattr +x' /m"));
}

/// Whoever needs no more than `Fsync` is told nothing of DAX, and nobody of what lowers no level.
#[test]
fn an_error_names_only_what_is_in_the_way() {
    let mut tree = pmem(&["259:0 / /m rw - xfs /dev/pmem0 rw,dax=always"]);
    tree.root.write("/m/u/f", "");
    tree.mount("0:9 / /o rw - overlay overlay rw,upperdir=/m/u,lowerdir=/m/l");
    let report = FakeFile::new("/o/f", (0, 9)).probe(&tree.root);
    let below = |report: &Report, required| {
        let reasons = report.reasons_below(required);
        reasons.iter().map(|reason| reason.code.as_str()).collect::<Vec<_>>()
    };
    assert!(below(&report, Durability::PowerFail).contains(&"overlay-on-dax"));
    assert!(!below(&report, Durability::Fsync).contains(&"overlay-on-dax"));
    assert!(below(&report, report.durability).is_empty(), "the level is there");

    let report = on_disk("259:9 / /m ro - ext4 /dev/vda ro,nobarrier");
    assert_eq!(below(&report, Durability::PowerFail), ["no-barrier", "no-dax-device"]);
    assert_eq!(below(&report, Durability::Fsync), ["no-barrier"]);
    assert!(below(&report, Durability::Unverified).is_empty());

    let report = on_disk("259:9 / /m rw - tmpfs tmpfs rw");
    assert_eq!(below(&report, Durability::Unverified), ["memory-backed"]);
    assert!(below(&report, Durability::ProcessOnly).is_empty());

    let tree = pmem(&["259:0 / /m rw - xfs /dev/pmem0 rw,dax=never"]);
    let file =
        FakeFile::new("/m/f", (259, 0)).with(|file| file.map_sync = Some(MapSync::Refused(95)));
    let report = file.probe(&tree.root);
    assert_eq!(below(&report, Durability::PowerFail), ["mounted-dax-never"]);
}

#[test]
fn the_recipes_belong_to_their_reasons() {
    // A reason that gets a command needs a scenario in pmem-tests/tests/guest_remedies.rs.
    for code in super::reasons::EVERY {
        let (report, ..) = super::reasons::produce(code);
        for reason in &report.reasons {
            let Some(recipe) = reason.remedy.as_ref().and_then(|remedy| remedy.recipe) else {
                assert!(reason.remedy.as_ref().is_none_or(|remedy| remedy.command.is_none()));
                continue;
            };
            let expected: &[Recipe] = match reason.code {
                ReasonCode::MountedDaxNever => &[Recipe::DaxAlways],
                ReasonCode::DaxInodeWithoutFlag => &[Recipe::DaxFlag],
                ReasonCode::NoBarrier => &[Recipe::Barriers],
                ReasonCode::RawNamespace | ReasonCode::SectorNamespace => &[Recipe::FsdaxNamespace],
                ReasonCode::ReadOnly => {
                    &[Recipe::WritableMount, Recipe::WritableDevice, Recipe::WritableRegion]
                }
                _ => &[],
            };
            assert!(expected.contains(&recipe), "{}: {recipe:?}", reason.code);
        }
    }
}
