//! Every reason: a system that produces it, the thing it names, and the remedy it gives.

use rustix::fs::FileType;

use super::FakeFile;
use super::tree::{ADR, Region, Tree};
use crate::cpu::WriteBack;
use crate::probe::extents::Extent;
use crate::probe::report::{MapSync, ReasonCode, Report};

pub(super) const EVERY: [ReasonCode; 38] = [
    ReasonCode::MountedDaxNever,
    ReasonCode::DaxInodeWithoutFlag,
    ReasonCode::DaxFlagSetFileOpen,
    ReasonCode::NeverDax,
    ReasonCode::FilesystemWithoutDax,
    ReasonCode::BlockSizeNotPageSize,
    ReasonCode::XfsFellBackToDaxNever,
    ReasonCode::RawNamespace,
    ReasonCode::SectorNamespace,
    ReasonCode::NoDaxDevice,
    ReasonCode::VirtioPmemAsynchronous,
    ReasonCode::OverlayOnDax,
    ReasonCode::PersistenceDomainUnknown,
    ReasonCode::VolatileRegion,
    ReasonCode::E820Region,
    ReasonCode::KernelTooOld,
    ReasonCode::HugePagesMisaligned,
    ReasonCode::BadBlocks,
    ReasonCode::ReadOnly,
    ReasonCode::MemoryBacked,
    ReasonCode::LayerUnverified,
    ReasonCode::NoBarrier,
    ReasonCode::NoWriteBackInstruction,
    ReasonCode::NotARegularFile,
    ReasonCode::PermissionDenied,
    ReasonCode::MapSyncRefused,
    ReasonCode::MapSyncNotTried,
    ReasonCode::MemoryDeviceNotArmed,
    ReasonCode::MemoryDeviceFailed,
    ReasonCode::MemoryDeviceLocked,
    ReasonCode::MemoryDeviceErasing,
    ReasonCode::MemoryDeviceUnknown,
    ReasonCode::CxlFlushUnknown,
    ReasonCode::SystemRam,
    ReasonCode::DeviceDaxDisabled,
    ReasonCode::LeaseHeld,
    ReasonCode::MemoryLimit,
    ReasonCode::RegionWithoutNamespace,
];

/// An fsdax namespace mounted on `/m`, with these options.
fn pmem(region: Region, mode: &str, filesystem: &str, options: &str) -> Tree {
    let mut tree = Tree::new();
    tree.pmem(0, "259:0", region, mode);
    tree.mount(&format!("259:0 / /m rw - {filesystem} /dev/pmem0 rw{options}"));
    tree
}

fn disk(filesystem: &str, options: &str) -> Tree {
    let mut tree = Tree::new();
    tree.disk("259:0", "vda");
    tree.mount(&format!("259:0 / /m rw - {filesystem} /dev/vda rw{options}"));
    tree
}

fn file() -> FakeFile {
    FakeFile::new("/m/f", (259, 0))
}

fn dax() -> FakeFile {
    FakeFile::dax("/m/f", (259, 0))
}

/// A report with this reason, and what its text and its remedy must say.
#[allow(clippy::too_many_lines)] // one arm for each code
pub(super) fn produce(code: ReasonCode) -> (Report, &'static str, &'static str) {
    let plain = |mode, filesystem, options| pmem(ADR, mode, filesystem, options).root;
    let foreign = |provider| Region { provider, domain: None, ..ADR };
    match code {
        ReasonCode::MountedDaxNever => {
            let report = file().probe(&plain("fsdax", "ext4", ",dax=never"));
            (report, "/m is mounted dax=never", "mount it with dax=always")
        }
        ReasonCode::DaxInodeWithoutFlag => {
            let report = file().probe(&plain("fsdax", "xfs", ""));
            (report, "/m/f", "xfs_io -c 'chattr +x' /m/f")
        }
        ReasonCode::DaxFlagSetFileOpen => {
            let file = file().with(|file| file.dax_flag = Some(true));
            (file.probe(&plain("fsdax", "xfs", "")), "/m/f", "close the file")
        }
        ReasonCode::NeverDax => {
            let file =
                FakeFile::directory("/m/d", (259, 0)).with(|file| file.stat.encrypted = true);
            let report = file.probe(&plain("fsdax", "ext4", ",dax=always"));
            (report, "/m/d is encrypted", "not encrypted")
        }
        ReasonCode::FilesystemWithoutDax => {
            let report = file().probe(&plain("fsdax", "f2fs", ""));
            (report, "f2fs", "ERASES DATA: copy")
        }
        ReasonCode::BlockSizeNotPageSize => {
            let file = file().with(|file| file.filesystem = Some((0xef53, 1024)));
            let report = file.probe(&plain("fsdax", "ext4", ""));
            (report, "1024 bytes", "(mkfs.ext4 -b 4096)")
        }
        ReasonCode::XfsFellBackToDaxNever => {
            (file().probe(&disk("xfs", ",dax=never").root), "/m shows dax=never", "dax=always")
        }
        ReasonCode::RawNamespace => {
            let report = file().probe(&plain("raw", "ext4", ""));
            (report, "namespace0.0 is a raw", "ERASES DATA: copy")
        }
        ReasonCode::SectorNamespace => {
            let report = file().probe(&plain("sector", "ext4", ""));
            (report, "namespace0.0 is a sector", "ERASES DATA: copy")
        }
        ReasonCode::NoDaxDevice => (file().probe(&disk("ext4", "").root), "vda", "fsdax"),
        ReasonCode::VirtioPmemAsynchronous => {
            let tree = pmem(foreign("virtio-pmem"), "legacy", "ext4", ",dax=always");
            let file = file().with(|file| file.stat.dax = Some(true));
            (file.probe(&tree.root), "region0", "-device nvdimm")
        }
        ReasonCode::OverlayOnDax => {
            let mut tree = pmem(ADR, "fsdax", "xfs", ",dax=always");
            tree.root.write("/m/u/f", "");
            tree.mount("0:9 / /o rw - overlay overlay rw,upperdir=/m/u,lowerdir=/m/l");
            (FakeFile::new("/o/f", (0, 9)).probe(&tree.root), "/o is an overlay", "of /m itself")
        }
        ReasonCode::PersistenceDomainUnknown => {
            let tree = pmem(foreign("ACPI.NFIT"), "fsdax", "ext4", ",dax=always");
            (dax().probe(&tree.root), "region0", "nvdimm-persistence")
        }
        ReasonCode::VolatileRegion => {
            let region = Region { devtype: "nd_volatile", ..foreign("ACPI.NFIT") };
            (dax().probe(&pmem(region, "fsdax", "ext4", "").root), "region0", "persistent region")
        }
        ReasonCode::E820Region => {
            let tree = pmem(foreign("e820"), "legacy", "ext4", ",dax=always");
            (dax().probe(&tree.root), "region0", "NFIT")
        }
        ReasonCode::KernelTooOld => {
            let tree = pmem(ADR, "fsdax", "ext4", ",dax");
            tree.root.write("/proc/sys/kernel/osrelease", "4.14.336-old\n");
            let file = file().with(|file| file.map_sync = Some(MapSync::Refused(22)));
            (file.probe(&tree.root), "Linux 4.14", "4.15")
        }
        ReasonCode::HugePagesMisaligned => {
            let extents = vec![Extent { logical: 0, physical: 4096, len: 64 << 20 }];
            let file = dax().with(|file| file.extents = Some(extents));
            let report = file.probe(&plain("fsdax", "xfs", ",dax=always"));
            (report, "only 0 of the 32 pieces", "mkfs.xfs -d su=2m,sw=1")
        }
        ReasonCode::BadBlocks => {
            let tree = pmem(ADR, "fsdax", "ext4", ",dax=always");
            let at =
                "/sys/devices/LNXSYSTM:00/ACPI0012:00/ndbus0/region0/pfn0.0/block/pmem0/badblocks";
            tree.root.write(at, "524304 8\n");
            (
                dax().probe(&tree.root),
                "/m/f has bad bytes [8192, 12288)",
                "whole pages of 4096 bytes",
            )
        }
        ReasonCode::ReadOnly => {
            let mut tree = Tree::new();
            tree.disk("259:0", "vda");
            tree.mount("259:0 / /m ro - ext4 /dev/vda rw");
            (file().probe(&tree.root), "/m is mounted read-only", "remount /m read-write")
        }
        ReasonCode::MemoryBacked => (file().probe(&disk("tmpfs", "").root), "tmpfs", "a disk"),
        ReasonCode::LayerUnverified => {
            (file().probe(&disk("nfs4", "").root), "nfs4 on /m", "local filesystem")
        }
        ReasonCode::NoBarrier => {
            let report = file().probe(&disk("ext4", ",nobarrier").root);
            (report, "/m is mounted nobarrier", "remount /m without nobarrier")
        }
        ReasonCode::NoWriteBackInstruction => {
            let file = dax().with(|file| file.write_back = WriteBack::None);
            (file.probe(&plain("fsdax", "ext4", ",dax=always")), "/m/f", "")
        }
        ReasonCode::NotARegularFile => {
            let fifo = FakeFile::node("/m/fifo", FileType::Fifo, (0, 0));
            (fifo.probe(&disk("ext4", "").root), "/m/fifo", "name a regular file")
        }
        ReasonCode::PermissionDenied => {
            let file = file().with(|file| file.map_sync = Some(MapSync::NotTried(13)));
            (file.probe(&disk("ext4", "").root), "/m/f", "setfacl")
        }
        ReasonCode::MapSyncRefused => {
            let report = file().probe(&plain("fsdax", "ext4", ",dax=always"));
            (report, "/m/f", "kernel log")
        }
        ReasonCode::MapSyncNotTried
        | ReasonCode::MemoryDeviceNotArmed
        | ReasonCode::MemoryDeviceFailed
        | ReasonCode::MemoryDeviceLocked
        | ReasonCode::MemoryDeviceErasing
        | ReasonCode::MemoryDeviceUnknown
        | ReasonCode::CxlFlushUnknown
        | ReasonCode::SystemRam
        | ReasonCode::DeviceDaxDisabled
        | ReasonCode::LeaseHeld
        | ReasonCode::MemoryLimit
        | ReasonCode::RegionWithoutNamespace => super::memory::produce(code),
    }
}

#[test]
fn every_reason_is_produced_and_says_what_to_change() {
    for code in EVERY {
        let (report, text, remedy) = produce(code);
        let found = report.reasons.iter().find(|reason| reason.code == code);
        let reason = found.unwrap_or_else(|| panic!("{code}: {:#?}", report.reasons));
        assert!(reason.text.contains(text), "{code}: {}", reason.text);
        match &reason.remedy {
            Some(found) => {
                let shown = found.to_string();
                assert!(!remedy.is_empty() && shown.contains(remedy), "{code}: {found}");
            }
            None => assert!(remedy.is_empty(), "{code} has no remedy"),
        }
    }
}

#[test]
fn every_code_is_listed_once_and_has_its_own_name() {
    // `produce` matches without a wildcard, so a new code does not compile until it is there.
    let mut names: Vec<_> = EVERY.iter().map(|code| code.as_str()).collect();
    assert!(EVERY.iter().all(|code| code.to_string() == code.as_str()));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), EVERY.len());
}

#[test]
fn without_a_write_back_the_page_cache_serves() {
    let (report, _, _) = produce(ReasonCode::NoWriteBackInstruction);
    assert_eq!(report.backend, crate::Backend::PageCache);
    assert_eq!(report.durability, crate::Durability::Fsync);
    let eadr = Region { domain: Some("cpu_cache"), ..ADR };
    let file = dax().with(|file| file.write_back = WriteBack::None);
    let report = file.probe(&pmem(eadr, "fsdax", "ext4", ",dax=always").root);
    assert_eq!(report.backend, crate::Backend::PageCache);
}

/// Before 5.8 no flag of an inode counts: only the mount option does.
#[test]
fn before_the_flag_of_an_inode_the_mount_decides() {
    let tree = pmem(ADR, "fsdax", "xfs", "");
    for (release, flag, predicted, expected) in [
        ("5.7.19", true, false, &["mounted-dax-never"][..]),
        ("5.7.19", false, false, &["mounted-dax-never"]),
        ("5.8.0", true, true, &[]),
        ("5.8.0", false, false, &["dax-inode-without-flag"]),
    ] {
        tree.root.write("/proc/sys/kernel/osrelease", release);
        let directory = FakeFile::directory("/m", (259, 0)).with(|file| file.dax_flag = Some(flag));
        let report = directory.probe(&tree.root);
        assert_eq!(report.map_sync, MapSync::Predicted(predicted), "{release} {flag}");
        assert_eq!(super::codes(&report), expected, "{release} {flag}");
        if !flag {
            let report = file().probe(&tree.root);
            assert_eq!(super::codes(&report), expected, "a file refused, {release}");
        }
    }
    tree.root.write("/proc/sys/kernel/osrelease", "5.7.19");
    let report = file().probe(&tree.root);
    let remedy = report.reasons[0].remedy.as_ref().unwrap();
    assert!(remedy.text.contains("-o dax (") && remedy.command.is_none(), "{remedy}");
}

/// A filesystem without DAX is the reason, where the device has it.
#[test]
fn only_what_is_in_the_way_is_named() {
    let f2fs = pmem(ADR, "fsdax", "f2fs", "");
    assert_eq!(super::codes(&file().probe(&f2fs.root)), ["filesystem-without-dax"]);
    // An xfs over two devices with DAX lacks only the flag of the inode.
    let mut tree = Tree::new();
    tree.pmem(0, "259:0", ADR, "fsdax");
    tree.pmem(1, "259:1", ADR, "fsdax");
    tree.root.write("/dev/pmem1", "259:1");
    tree.mount("259:0 / /m rw - xfs /dev/pmem0 rw,rtdev=/dev/pmem1");
    let report = file().probe(&tree.root);
    assert_eq!(report.device.as_ref().unwrap().below.len(), 2);
    assert_eq!(super::codes(&report), ["dax-inode-without-flag"]);
    let blocks = |filesystem: &str| {
        let file = file().with(|file| file.filesystem = Some((0xef53, 1024)));
        let report = file.probe(&pmem(ADR, "fsdax", filesystem, "").root);
        assert_eq!(super::codes(&report), ["block-size-not-page-size"]);
        report.reasons[0].remedy.as_ref().unwrap().to_string()
    };
    assert!(blocks("xfs").contains("mkfs.xfs -b size=4096"));
    assert!(blocks("ext4").contains("mkfs.ext4 -b 4096"));
}

#[test]
fn einval_on_a_new_kernel_is_not_an_old_kernel() {
    let tree = pmem(ADR, "fsdax", "ext4", ",dax=always");
    let file = file().with(|file| file.map_sync = Some(MapSync::Refused(22)));
    assert_eq!(super::codes(&file.probe(&tree.root)), ["map-sync-refused"]);
}

#[test]
fn an_old_kernel_is_foretold() {
    let tree = pmem(ADR, "fsdax", "ext4", ",dax");
    tree.root.write("/proc/sys/kernel/osrelease", "4.9.0");
    let report = FakeFile::directory("/m", (259, 0)).probe(&tree.root);
    assert_eq!(report.map_sync, MapSync::Predicted(false));
    assert_eq!(super::codes(&report), ["kernel-too-old"]);
    let tree_without = pmem(ADR, "fsdax", "ext4", "");
    tree_without.root.write("/proc/sys/kernel/osrelease", "4.9.0");
    assert_eq!(super::codes(&file().probe(&tree_without.root)), ["kernel-too-old"]);
    // What has no DAX on any kernel is not helped by a newer one.
    let disk = disk("ext4", "");
    disk.root.write("/proc/sys/kernel/osrelease", "4.9.0");
    assert_eq!(super::codes(&file().probe(&disk.root)), ["no-dax-device"]);
    // The first that has it.
    tree.root.write("/proc/sys/kernel/osrelease", "4.15.0");
    let report = FakeFile::directory("/m", (259, 0)).probe(&tree.root);
    assert_eq!((report.map_sync, report.reasons.len()), (MapSync::Predicted(true), 0));
}

#[test]
fn a_kernel_that_has_it_is_not_too_old() {
    let tree = pmem(ADR, "fsdax", "ext4", ",dax=always");
    for (release, expected) in
        [("4.14.99", &["kernel-too-old"][..]), ("4.15.0", &["map-sync-refused"][..])]
    {
        tree.root.write("/proc/sys/kernel/osrelease", release);
        let file = file().with(|file| file.map_sync = Some(MapSync::Refused(22)));
        assert_eq!(super::codes(&file.probe(&tree.root)), expected, "{release}");
    }
}

#[test]
fn the_flag_of_an_inode_explains_only_what_it_can() {
    let tree = pmem(ADR, "fsdax", "ext4", "");
    for (flag, is_dax, expected) in [
        (Some(true), Some(false), &["dax-flag-set-file-open"][..]),
        (Some(true), Some(true), &["map-sync-refused"]),
        (Some(false), Some(false), &["dax-inode-without-flag"]),
        (Some(false), Some(true), &["map-sync-refused"]),
        (None, None, &["dax-inode-without-flag"]),
    ] {
        let file = file().with(|file| {
            file.map_sync = Some(MapSync::Refused(95));
            (file.dax_flag, file.stat.dax) = (flag, is_dax);
        });
        assert_eq!(super::codes(&file.probe(&tree.root)), expected, "{flag:?} {is_dax:?}");
    }
    // A directory hands the flag on, and is not open for long.
    let directory = FakeFile::directory("/m", (259, 0)).with(|file| file.dax_flag = Some(true));
    tree.root.write("/proc/sys/kernel/osrelease", "4.9.0");
    assert_eq!(super::codes(&directory.probe(&tree.root)), ["kernel-too-old"]);
}
