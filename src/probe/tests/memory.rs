//! What the devices of a region, and the state of a device-DAX node, leave of a level.

use rustix::fs::FileType;

use super::nmem::with;
use super::tree::{ADR, CXL, Region, Tree};
use super::{FakeFile, codes};
use crate::durability::{Backend, Durability};
use crate::probe::report::{Layer, MapSync, ReasonCode, Report};

const EACCES: i32 = 13;
const EPERM: i32 = 1;
const ENXIO: i32 = 6;
const ENODEV: i32 = 19;
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EIO: i32 = 5;

fn flags(words: &str) -> Report {
    with(ADR, &[("nfit/flags", Some(words))])
}

fn security(region: Region, state: &str) -> Report {
    with(region, &[("security", Some(state))])
}

/// A device-DAX node whose trial mapping gives this.
fn node(region: Region, driver: &str, map_sync: MapSync) -> Report {
    let tree = Tree::new();
    tree.devdax(region, driver);
    probe_node(&tree, map_sync)
}

fn probe_node(tree: &Tree, map_sync: MapSync) -> Report {
    FakeFile::node("/dev/dax0.0", FileType::CharacterDevice, (252, 0))
        .with(|file| file.map_sync = Some(map_sync))
        .probe(&tree.root)
}

/// A name in /dev that is not there, beside a region with so many bytes free.
fn missing(path: &str, free: &str) -> Report {
    let mut tree = Tree::new();
    let at = tree.region(0, CXL);
    tree.root.write(&format!("/sys/devices/{at}/available_size"), free);
    tree.mount("0:6 / /dev rw - devtmpfs dev rw");
    FakeFile::directory(path, (0, 6)).with(|file| file.missing = true).probe(&tree.root)
}

/// A report with this reason, and what its text and its remedy must say.
pub(super) fn produce(code: ReasonCode) -> (Report, &'static str, &'static str) {
    let not_tried = |errno| node(ADR, "device_dax", MapSync::NotTried(errno));
    match code {
        ReasonCode::MemoryDeviceNotArmed => {
            (flags("not_armed \n"), "nmem0 (8089-a2-1842-00000000)", "battery")
        }
        ReasonCode::MemoryDeviceFailed => {
            (flags("save_fail \n"), "NVDIMM region region0 reports save_fail", "against a copy")
        }
        ReasonCode::MemoryDeviceLocked => (security(ADR, "locked\n"), "is locked", "load-keys"),
        ReasonCode::MemoryDeviceErasing => {
            (security(ADR, "overwrite\n"), "being overwritten", "wait-overwrite")
        }
        ReasonCode::MemoryDeviceUnknown => (
            with(ADR, &[("nfit/flags", None)]),
            "nmem0/nfit/flags cannot be read",
            "sysfs visible at /sys",
        ),
        ReasonCode::CxlFlushUnknown => {
            let report = with(CXL, &[("cxl/dirty_shutdown", None)]);
            (report, "memory_controller whatever its devices can do", "6.16")
        }
        ReasonCode::SystemRam => {
            let report = node(ADR, "kmem", MapSync::NotTried(ENXIO));
            (report, "/dev/dax0.0 is in mode system-ram", "daxctl")
        }
        ReasonCode::DeviceDaxDisabled => (not_tried(ENXIO), "no driver", "daxctl enable-device"),
        ReasonCode::MemoryLimit => (not_tried(ENOMEM), "address space", "ulimit -v"),
        ReasonCode::LeaseHeld => {
            let mut tree = Tree::new();
            tree.disk("259:0", "vda");
            tree.mount("259:0 / /m rw - ext4 /dev/vda rw");
            let file = FakeFile::new("/m/f", (259, 0))
                .with(|file| file.map_sync = Some(MapSync::NotTried(EAGAIN)));
            (file.probe(&tree.root), "/m/f could not be opened", "given the lease back")
        }
        ReasonCode::RegionWithoutNamespace => {
            (missing("/dev/pmem0", "536870912\n"), "536870912 bytes free", "-r region0")
        }
        ReasonCode::MapSyncNotTried => (not_tried(EIO), "/dev/dax0.0", "kernel log"),
        other => panic!("{other} is not a reason of memory"),
    }
}

#[test]
fn a_device_in_order_keeps_what_its_region_keeps() {
    for report in [with(ADR, &[]), with(CXL, &[]), node(ADR, "device_dax", MapSync::Accepted)] {
        assert_eq!((report.durability, codes(&report)), (Durability::PowerFail, vec![]));
    }
    for words in ["smart_event \n", "smart_notify \n", "smart_event smart_notify \n"] {
        let report = flags(words);
        assert_eq!((report.durability, codes(&report)), (Durability::PowerFail, vec![]), "{words}");
    }
    for state in ["disabled\n", "unlocked\n"] {
        assert_eq!(security(ADR, state).durability, Durability::PowerFail, "{state}");
    }
    let frozen = with(ADR, &[("security", Some("unlocked\n")), ("frozen", Some("1\n"))]);
    assert_eq!((frozen.durability, codes(&frozen)), (Durability::PowerFail, vec![]));
}

#[test]
fn each_flag_has_its_reason_and_lowers_the_level() {
    let failed = "memory-device-failed";
    for (words, expected) in [
        ("not_armed", vec!["memory-device-not-armed"]),
        ("save_fail", vec![failed]),
        ("restore_fail", vec![failed]),
        ("flush_fail", vec![failed]),
        ("map_fail", vec![failed]),
        ("new_flag", vec!["memory-device-unknown"]),
        // Words of POWER that ACPI has not.
        ("encrypted", vec!["memory-device-unknown"]),
        ("save_fail restore_fail smart_event map_fail", vec![failed; 3]),
        ("not_armed flush_fail", vec!["memory-device-not-armed", failed]),
    ] {
        let report = flags(words);
        assert_eq!(report.durability, Durability::Unverified, "{words}");
        assert_eq!(codes(&report), expected, "{words}");
        for flag in words.split(' ').filter(|flag| !flag.starts_with("smart")) {
            let named = |reason: &crate::probe::Reason| reason.text.contains(flag);
            assert_eq!(report.reasons.iter().filter(|reason| named(reason)).count(), 1, "{flag}");
        }
    }
}

/// The sentence of a flag says what happened, on which device, and what to do.
#[test]
fn each_flag_says_what_it_means() {
    for (flag, meaning, remedy) in [
        ("not_armed", "nothing is ready to save its contents", "replace its battery"),
        ("save_fail", "were not saved at the last power loss", "check the data against a copy"),
        ("restore_fail", "were not restored after the last power loss", "check the data"),
        ("flush_fail", "buffers did not reach it at the last power loss", "check the data"),
        ("map_fail", "firmware could not map it", "check the data"),
        ("new_flag", "does not know what that means", "look the flag up"),
    ] {
        let report = flags(flag);
        let reason = &report.reasons[0];
        let begin = "memory device nmem0 (8089-a2-1842-00000000) of NVDIMM region region0 reports";
        assert!(reason.text.starts_with(&format!("{begin} {flag}: ")), "{reason}");
        assert!(reason.text.contains(meaning), "{reason}");
        assert!(reason.remedy.as_ref().unwrap().text.starts_with(remedy), "{reason}");
    }
}

#[test]
fn the_flags_of_power() {
    let papr = Region { bus: "platform/ibm,persistent-memory:0", provider: "papr", ..ADR };
    for (words, level, expected) in [
        ("\n", Durability::PowerFail, vec![]),
        ("encrypted smart_notify \n", Durability::PowerFail, vec![]),
        ("not_armed \n", Durability::ProcessOnly, vec!["memory-device-not-armed"]),
        ("flush_fail \n", Durability::Unverified, vec!["memory-device-failed"]),
        ("restore_fail \n", Durability::Unverified, vec!["memory-device-failed"]),
        ("scrubbed locked \n", Durability::Unverified, vec!["memory-device-locked"]),
        ("fenced \n", Durability::Unverified, vec!["memory-device-unknown"]),
    ] {
        let mut tree = Tree::new();
        tree.pmem(0, "259:0", papr, "fsdax");
        let nmem = format!("/sys/devices/{}/ndbus0/nmem0", papr.bus);
        std::fs::remove_dir_all(tree.root.at(&format!("{nmem}/nfit"))).unwrap();
        tree.root.write(&format!("{nmem}/papr/flags"), words);
        let report = super::nmem::file_on(&mut tree).probe(&tree.root);
        assert_eq!((report.durability, codes(&report)), (level, expected), "{words}");
        if words.starts_with("not_armed") {
            let text = &report.reasons[0].text;
            assert!(text.ends_with("its contents do not survive a power loss"), "{text}");
        }
    }
}

#[test]
fn a_lock_lowers_the_level_and_an_erasure_leaves_nothing() {
    for (region, state, level, code) in [
        (ADR, "locked\n", Durability::Unverified, "memory-device-locked"),
        (CXL, "locked\n", Durability::Unverified, "memory-device-locked"),
        (ADR, "overwrite\n", Durability::ProcessOnly, "memory-device-erasing"),
        (CXL, "sanitize\n", Durability::ProcessOnly, "memory-device-erasing"),
        (ADR, "new\n", Durability::Unverified, "memory-device-unknown"),
    ] {
        let report = security(region, state);
        assert_eq!((report.durability, codes(&report)), (level, vec![code]), "{state}");
    }
    let frozen = with(ADR, &[("security", Some("locked\n")), ("frozen", Some("1\n"))]);
    let remedy = frozen.reasons[0].remedy.as_ref().unwrap().to_string();
    assert!(remedy.contains("power the machine off and on"), "{remedy}");
}

#[test]
fn cxl_is_granted_by_its_devices() {
    let old = with(CXL, &[("cxl/dirty_shutdown", None)]);
    assert_eq!(old.durability, Durability::Unverified);
    assert_eq!(codes(&old), ["cxl-flush-unknown"]);
    // NFIT devices without a count are judged by their flags.
    let nfit = with(ADR, &[("nfit/dirty_shutdown", None)]);
    assert_eq!((nfit.durability, codes(&nfit)), (Durability::PowerFail, vec![]));
}

#[test]
fn a_region_without_visible_devices_is_not_verified() {
    let region = "/sys/devices/LNXSYSTM:00/ACPI0012:00/ndbus0/region0";
    let changed = |change: &dyn Fn(&Tree)| {
        let mut tree = Tree::new();
        tree.pmem(0, "259:0", ADR, "fsdax");
        change(&tree);
        super::nmem::file_on(&mut tree).probe(&tree.root)
    };
    let none = changed(&|tree| tree.root.write(&format!("{region}/mappings"), "0\n"));
    assert_eq!(none.durability, Durability::Unverified);
    assert!(none.reasons[0].text.contains("names no memory device"), "{}", none.reasons[0]);
    let unread = changed(&|tree| {
        std::fs::remove_file(tree.root.at(&format!("{region}/mapping0"))).unwrap();
    });
    assert_eq!(unread.durability, Durability::Unverified);
    assert_eq!(codes(&unread), ["memory-device-unknown"]);
    let path = format!("{region}/mapping0 cannot be read");
    assert!(unread.reasons[0].text.contains(&path), "{}", unread.reasons[0]);
    // Of two, one cannot be seen.
    let second = changed(&|tree| {
        tree.root.write(&format!("{region}/mappings"), "2\n");
        tree.root.write(&format!("{region}/mapping1"), "nmem1,0,1,1\n");
    });
    assert_eq!(second.durability, Durability::Unverified);
    assert!(second.reasons[0].text.contains("ndbus0/nmem1 cannot be read"));
}

#[test]
fn the_worst_device_of_a_region_counts() {
    let mut tree = Tree::new();
    tree.pmem(0, "259:0", ADR, "fsdax");
    let bus = format!("/sys/devices/{}/ndbus0", ADR.bus);
    let mapping = |n: u32| format!("nmem{n},0,536870912,{n}");
    tree.mappings(&format!("{}/ndbus0/region0", ADR.bus), &[mapping(0), mapping(1)]);
    tree.root.write(&format!("{bus}/nmem1/uevent"), "");
    let file = super::nmem::file_on(&mut tree);
    for (words, level) in [("\n", Durability::PowerFail), ("not_armed\n", Durability::Unverified)] {
        tree.root.write(&format!("{bus}/nmem1/nfit/flags"), words);
        assert_eq!(file.probe(&tree.root).durability, level, "{words}");
    }
}

#[test]
fn through_the_page_cache_a_device_counts_as_well() {
    let mut tree = Tree::new();
    tree.pmem(0, "259:0", ADR, "fsdax");
    let nmem = format!("/sys/devices/{}/ndbus0/nmem0", ADR.bus);
    tree.root.write(&format!("{nmem}/nfit/flags"), "not_armed \n");
    tree.mount("259:0 / /m rw - ext4 /dev/pmem0 rw,dax=never");
    let report = FakeFile::new("/m/f", (259, 0)).probe(&tree.root);
    assert_eq!(report.durability, Durability::Unverified);
    assert_eq!(codes(&report), ["memory-device-not-armed", "mounted-dax-never"]);
}

#[test]
fn a_node_whose_memory_the_kernel_uses_is_no_storage() {
    // Whoever asks: root gets ENXIO, others EACCES.
    for errno in [ENXIO, EACCES] {
        let report = node(ADR, "kmem", MapSync::NotTried(errno));
        let level = (report.backend, report.durability);
        assert_eq!(level, (Backend::Volatile, Durability::ProcessOnly), "{errno}");
        assert_eq!(codes(&report), ["system-ram"], "{errno}");
        assert_eq!(report.namespace.unwrap().mode, "system-ram");
    }
}

#[test]
fn a_node_without_a_driver_is_no_storage() {
    for errno in [ENXIO, ENODEV] {
        let report = node(ADR, "device_dax", MapSync::NotTried(errno));
        let level = (report.backend, report.durability);
        assert_eq!(level, (Backend::Volatile, Durability::ProcessOnly), "{errno}");
        assert_eq!(codes(&report), ["device-dax-disabled"], "{errno}");
    }
}

#[test]
fn each_errno_of_a_node_has_its_own_reason() {
    let reason = |errno| {
        let report = node(ADR, "device_dax", MapSync::NotTried(errno));
        assert_eq!(report.reasons.len(), 1, "{:?}", report.reasons);
        report.reasons[0].clone()
    };
    let codes = [EACCES, EPERM, ENOMEM, EAGAIN].map(|errno| reason(errno).code.as_str());
    assert_eq!(codes, ["permission-denied", "permission-denied", "memory-limit", "memory-limit"]);
    let texts = [EACCES, EPERM, ENXIO, ENOMEM, EAGAIN, EIO].map(|errno| reason(errno).text);
    for (i, text) in texts.iter().enumerate() {
        assert!(texts[..i].iter().all(|other| other != text), "{text}");
    }
    for (errno, word) in
        [(EACCES, "udev"), (EPERM, "container"), (ENOMEM, "ulimit -v"), (EAGAIN, "ulimit -l")]
    {
        let remedy = reason(errno).remedy.unwrap().to_string();
        assert!(remedy.contains(word), "{errno}: {remedy}");
    }
}

/// What a file answers with the errno of a node without a driver says nothing of a driver.
#[test]
fn an_errno_of_a_node_is_not_that_of_a_file() {
    let mut tree = Tree::new();
    tree.disk("8:0", "sda");
    tree.mount("8:0 / /m rw - ext4 /dev/sda rw");
    for errno in [ENXIO, ENODEV] {
        let file = FakeFile::new("/m/f", (8, 0));
        let file = file.with(|file| file.map_sync = Some(MapSync::NotTried(errno)));
        assert_eq!(
            codes(&file.probe(&tree.root)),
            ["map-sync-not-tried", "no-dax-device"],
            "{errno}"
        );
    }
}

/// What was seen of a device that lowers nothing.
#[test]
fn a_device_that_reports_no_fault_is_evidence() {
    let evidence = |report: &Report| {
        let cap = report.caps.iter().find(|cap| cap.layer == Layer::RegionDevices);
        cap.unwrap().evidence.clone()
    };
    assert_eq!(
        evidence(&flags("\n")),
        "nmem0 reports no fault; security: without security commands"
    );
    assert_eq!(
        evidence(&flags("smart_notify \n")),
        "nmem0 reports no fault, but smart_notify; security: without security commands"
    );
    assert_eq!(
        evidence(&security(CXL, "unlocked\n")),
        "nmem0 counts unsafe shutdowns; security: unlocked"
    );
}

#[test]
fn a_read_only_region_does_not_protect_a_node() {
    let tree = Tree::new();
    tree.devdax(ADR, "device_dax");
    let region = format!("/sys/devices/{}/ndbus0/region0", ADR.bus);
    tree.root.write(&format!("{region}/read_only"), "1\n");
    let report = probe_node(&tree, MapSync::Accepted);
    assert!(!report.read_only && report.regions[0].read_only);
    assert_eq!((report.durability, codes(&report)), (Durability::PowerFail, vec![]));
    assert!(!report.verdict_sentence().contains("Nothing can be written"));
}

#[test]
fn a_node_has_its_own_bad_bytes_from_its_own_start() {
    let tree = Tree::new();
    let at = tree.devdax(ADR, "device_dax");
    let region = format!("/sys/devices/{}/ndbus0/region0", ADR.bus);
    tree.root.write(&format!("{region}/resource"), "0x100000000\n");
    // Behind 6 MiB of its namespace's own; 1 GiB long.
    tree.root.write(&format!("/sys/devices/{at}/resource"), "0x100600000\n");
    let bad = |text: &str| {
        tree.root.write(&format!("{region}/badblocks"), text);
        probe_node(&tree, MapSync::Accepted)
    };
    // 4 KiB at 1 MiB of the node; the same at 1 MiB of the region, which is not in it.
    let report = bad("14336 8\n2048 8\n");
    assert_eq!(report.bad_ranges, [std::ops::Range { start: 1 << 20, end: (1 << 20) + 4096 }]);
    assert!(report.bad_ranges_known);
    assert_eq!(codes(&report), ["bad-blocks"]);
    assert_eq!(report.reasons[0].text, "/dev/dax0.0 has bad bytes [1048576, 1052672)");
    let remedy = report.reasons[0].remedy.as_ref().unwrap().to_string();
    assert!(remedy.contains("ndctl clear-errors namespace0.0"), "{remedy}");
    let other = bad("2048 8\n2109440 8\n");
    assert!(other.bad_ranges.is_empty() && other.bad_ranges_known && codes(&other).is_empty());
    // The last byte of the node, and the first behind it.
    let last = bad("2109432 16\n");
    assert_eq!(last.bad_ranges, [std::ops::Range { start: (1 << 30) - 4096, end: 1 << 30 }]);
    for hidden in [format!("/sys/devices/{at}/resource"), format!("{region}/resource")] {
        let kept = std::fs::read_to_string(tree.root.at(&hidden)).unwrap();
        std::fs::remove_file(tree.root.at(&hidden)).unwrap();
        let unknown = bad("14336 8\n");
        assert!(unknown.bad_ranges.is_empty() && !unknown.bad_ranges_known, "{hidden}");
        assert!(unknown.reasons[0].text.contains("cannot be told"), "{}", unknown.reasons[0]);
        assert!(bad("").bad_ranges_known, "a region without any has none in the node");
        tree.root.write(&hidden, &kept);
    }
    // The first eight are listed, and the others counted.
    let listed = |count: u64| {
        let lines: Vec<_> = (0..count).map(|i| format!("{} 8\n", 14336 + 64 * i)).collect();
        bad(&lines.concat()).reasons[0].text.clone()
    };
    assert!(listed(8).ends_with("[1277952, 1282048)"), "{}", listed(8));
    assert!(listed(9).ends_with("[1277952, 1282048) and 1 more"), "{}", listed(9));
    tree.root.write(&format!("/sys/devices/{}/ndbus0/commands", ADR.bus), "ars_cap\n");
    let remedy = bad("14336 8\n").reasons[0].remedy.as_ref().unwrap().to_string();
    assert!(remedy.contains("cannot clear errors"), "{remedy}");
}

#[test]
fn a_region_without_a_namespace_says_so_where_its_device_is_looked_for() {
    let report = missing("/dev/pmem0", "536870912\n");
    let said = "/dev/pmem0 is not there: CXL region region0 has 536870912 bytes free";
    assert!(report.verdict_sentence().starts_with(said), "{}", report.verdict_sentence());
    assert_eq!(codes(&missing("/dev/dax0.0", "1\n"))[0], "region-without-namespace");
    for (path, free) in [("/dev/pmem0", "0\n"), ("/dev/shmem", "536870912\n")] {
        let report = missing(path, free);
        assert_eq!(codes(&report), ["memory-backed"], "{path}");
        assert!(!report.verdict_sentence().contains("is not there"), "{path}");
    }
}
