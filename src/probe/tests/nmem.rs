//! The devices of a region: what is read of each, over trees as the kernel's ABI documents describe
//! them (sysfs-bus-nfit, sysfs-bus-papr-pmem, sysfs-bus-nvdimm, sysfs-bus-cxl), and over captures.

use super::FakeFile;
use super::capture::load;
use super::tree::{ADR, CXL, Region, Tree};
use crate::probe::report::Report;
use crate::probe::{MemoryDevice, Security};

/// A file on the fsdax namespace of region 0.
pub(super) fn file_on(tree: &mut Tree) -> FakeFile {
    tree.mount("259:0 / /m rw - ext4 /dev/pmem0 rw,dax=always");
    FakeFile::dax("/m/f", (259, 0))
}

fn bus(region: Region) -> String {
    format!("/sys/devices/{}/ndbus0", region.bus)
}

/// The report of a file on a tree with these attributes of `nmem0` written or, if `None`, removed.
pub(super) fn with(region: Region, attributes: &[(&str, Option<&str>)]) -> Report {
    let mut tree = Tree::new();
    tree.pmem(0, "259:0", region, "fsdax");
    for (name, text) in attributes {
        let path = format!("{}/nmem0/{name}", bus(region));
        match text {
            Some(text) => tree.root.write(&path, text),
            None => std::fs::remove_file(tree.root.at(&path)).unwrap(),
        }
    }
    let file = file_on(&mut tree);
    file.probe(&tree.root)
}

fn device(report: &Report) -> &MemoryDevice {
    let [device] = report.regions[0].devices.as_slice() else {
        panic!("{:#?}", report.regions);
    };
    device
}

#[test]
fn what_acpi_says_of_a_device() {
    let report = with(
        ADR,
        &[
            ("nfit/flags", Some("save_fail smart_notify \n")),
            ("security", Some("unlocked\n")),
            ("frozen", Some("1\n")),
        ],
    );
    let found = device(&report);
    assert_eq!((found.name.as_str(), found.family.as_str()), ("nmem0", "nfit"));
    assert_eq!(found.identity.as_deref(), Some("8089-a2-1842-00000000"));
    assert_eq!(found.flags.as_deref(), Some(&["save_fail", "smart_notify"].map(String::from)[..]));
    assert_eq!(found.dirty_shutdown, Some(7));
    assert_eq!((found.security, found.frozen), (Some(Security::Unlocked), true));
    assert!(found.unread.is_empty() && report.regions[0].devices_unread.is_empty());
    assert_eq!(report.shutdowns().unwrap().count, 7);
}

#[test]
fn what_cxl_says_of_a_device() {
    let report = with(CXL, &[]);
    let found = device(&report);
    assert_eq!((found.family.as_str(), found.identity.as_deref()), ("cxl", Some("3735928559")));
    assert_eq!((found.flags.as_ref(), found.dirty_shutdown), (None, Some(2)));
    assert_eq!((found.security, found.frozen), (Some(Security::Disabled), false));
    assert_eq!(report.shutdowns().unwrap().count, 2);
}

#[test]
fn what_papr_says_of_a_device() {
    let papr = Region { bus: "platform/ibm,persistent-memory:0", provider: "papr", ..ADR };
    let mut tree = Tree::new();
    tree.pmem(0, "259:0", papr, "fsdax");
    let nmem = format!("{}/nmem0", bus(papr));
    std::fs::remove_dir_all(tree.root.at(&format!("{nmem}/nfit"))).unwrap();
    tree.root.write(&format!("{nmem}/papr/flags"), "encrypted \n");
    tree.root.write(&format!("{nmem}/papr/dirty_shutdown"), "4\n");
    let guid = "7d8b2f0e-5b3a-4f5e-9d3c-0123456789ab\0";
    tree.root.write(&format!("/sys/devices/{}/of_node/ibm,unit-guid", papr.bus), guid);
    let report = file_on(&mut tree).probe(&tree.root);
    let found = device(&report);
    assert_eq!((found.family.as_str(), found.dirty_shutdown), ("papr", Some(4)));
    assert_eq!(found.identity.as_deref(), Some(guid.trim_end_matches('\0')));
    assert_eq!(found.flags.as_deref(), Some(&["encrypted".to_owned()][..]));
    assert_eq!(report.shutdowns().unwrap().count, 4);
}

#[test]
fn a_count_is_unsigned_whatever_sign_the_kernel_writes() {
    for (text, count) in [
        ("0\n", Some(0)),
        ("2147483647\n", Some(2_147_483_647)),
        ("-2147483648\n", Some(2_147_483_648)),
        ("-1\n", Some(4_294_967_295)),
        ("18446744073709551614\n", Some(u64::MAX - 1)),
        ("\n", None),
        ("many\n", None),
    ] {
        let report = with(ADR, &[("nfit/dirty_shutdown", Some(text))]);
        assert_eq!(device(&report).dirty_shutdown, count, "{text}");
        assert_eq!(report.shutdowns().map(|found| found.count), count, "{text}");
    }
}

#[test]
fn a_security_state_is_the_worst_that_is_said() {
    use Security::{Disabled, Erasing, Locked, Unknown, Unlocked};
    for (security, flags, state) in [
        ("disabled\n", "label \n", Disabled),
        ("unlocked\n", "\n", Unlocked),
        ("locked\n", "\n", Locked),
        ("overwrite\n", "\n", Erasing),
        ("new\n", "\n", Unknown),
        ("unlocked\n", "label lock \n", Locked),
        ("overwrite\n", "lock \n", Erasing),
    ] {
        let report = with(ADR, &[("security", Some(security)), ("flags", Some(flags))]);
        assert_eq!(device(&report).security, Some(state), "{security}{flags}");
    }
    assert_eq!(device(&with(ADR, &[])).security, None);
}

#[test]
fn a_cxl_device_has_its_memory_ask_too() {
    let state = |text: &str, own: Option<&str>| {
        let mut tree = Tree::new();
        tree.pmem(0, "259:0", CXL, "fsdax");
        let memory = "/sys/devices/pci0000:0c/0000:0c:00.0/0000:0d:00.0/mem0";
        tree.root.write(&format!("{memory}/security/state"), text);
        let own_path = format!("{}/nmem0/security", bus(CXL));
        match own {
            Some(own) => tree.root.write(&own_path, own),
            None => std::fs::remove_file(tree.root.at(&own_path)).unwrap(),
        }
        let report = file_on(&mut tree).probe(&tree.root);
        (device(&report).security.unwrap(), device(&report).frozen)
    };
    for (text, own, expected) in [
        ("sanitize\n", Some("disabled\n"), (Security::Erasing, false)),
        ("erase\n", Some("disabled\n"), (Security::Erasing, false)),
        ("locked\n", Some("disabled\n"), (Security::Locked, false)),
        // Frozen says nothing of whether it is locked; the nvdimm side does.
        ("frozen\n", Some("locked\n"), (Security::Locked, true)),
        ("frozen\n", Some("unlocked\n"), (Security::Unlocked, true)),
        ("frozen\n", None, (Security::Unknown, true)),
    ] {
        assert_eq!(state(text, own), expected, "{text}{own:?}");
    }
}

/// Breaks one thing on the way from the region to its device; gives the report.
fn broken(change: impl FnOnce(&Tree, &str, &str)) -> Report {
    let mut tree = Tree::new();
    tree.pmem(0, "259:0", ADR, "fsdax");
    change(&tree, &format!("{}/region0", bus(ADR)), &format!("{}/nmem0", bus(ADR)));
    file_on(&mut tree).probe(&tree.root)
}

#[test]
fn what_leads_to_a_device_and_cannot_be_read_is_named() {
    let remove = |tree: &Tree, path: &str| std::fs::remove_file(tree.root.at(path)).unwrap();
    for (ends, report) in [
        ("region0/mappings", broken(|tree, region, _| remove(tree, &format!("{region}/mappings")))),
        (
            "region0/mappings",
            broken(|tree, region, _| tree.root.write(&format!("{region}/mappings"), "33\n")),
        ),
        ("region0/mapping0", broken(|tree, region, _| remove(tree, &format!("{region}/mapping0")))),
        (
            "region0/mapping1",
            broken(|tree, region, _| tree.root.write(&format!("{region}/mappings"), "2\n")),
        ),
        (
            "ndbus0/nmem0",
            broken(|tree, _, nmem| std::fs::remove_dir_all(tree.root.at(nmem)).unwrap()),
        ),
    ] {
        let unread = &report.regions[0].devices_unread;
        assert!(unread.len() == 1 && unread[0].ends_with(ends), "{ends}: {unread:?}");
        assert_eq!(report.shutdowns(), None, "{ends}");
    }
    for garbage in [
        "",
        "nmem0",
        "nmem,0,1,0",
        "nmemx,0,1,0",
        "dimm0,0,1,0",
        "nmem0,0,1",
        "nmem0,0,1,0,0",
        "nmem0,,1,0",
        "nmem0,0,x,0",
        "../nmem0,0,1,0",
    ] {
        let report = broken(|tree, region, _| {
            tree.root.write(&format!("{region}/mapping0"), garbage);
        });
        assert_eq!(report.regions[0].devices, [], "{garbage}");
        assert_eq!(report.regions[0].devices_unread.len(), 1, "{garbage}");
    }
}

#[test]
fn what_a_device_does_not_say_is_named() {
    let flags = broken(|tree, _, nmem| {
        std::fs::remove_file(tree.root.at(&format!("{nmem}/nfit/flags"))).unwrap();
    });
    assert!(device(&flags).unread[0].ends_with("nmem0/nfit/flags"));
    let family = broken(|tree, _, nmem| {
        std::fs::remove_dir_all(tree.root.at(&format!("{nmem}/nfit"))).unwrap();
    });
    assert!(device(&family).unread[0].ends_with("nmem0"), "{:?}", device(&family));
    assert_eq!((device(&family).family.as_str(), family.shutdowns()), ("", None));
    // It is there and cannot be read: a directory in place of the attribute.
    let security = broken(|tree, _, nmem| {
        std::fs::create_dir(tree.root.at(&format!("{nmem}/security"))).unwrap();
    });
    assert!(device(&security).unread[0].ends_with("nmem0/security"));
}

#[test]
fn an_interleaved_region_has_each_device_once() {
    let mut tree = Tree::new();
    tree.pmem(0, "259:0", ADR, "fsdax");
    let at = format!("{}/ndbus0/region0", ADR.bus);
    let mapping = |n: u32, position: u32| format!("nmem{n},0,536870912,{position}");
    tree.mappings(&at, &[mapping(0, 0), mapping(1, 1), mapping(0, 2)]);
    let second = format!("{}/nmem1", bus(ADR));
    for (name, text) in [("uevent", ""), ("nfit/flags", "\n"), ("nfit/id", "8089-a2-1842-2\n")] {
        tree.root.write(&format!("{second}/{name}"), text);
    }
    let file = file_on(&mut tree);
    let report = file.probe(&tree.root);
    let names: Vec<_> = report.regions[0].devices.iter().map(|found| &found.name[..]).collect();
    assert_eq!(names, ["nmem0", "nmem1"]);
    assert_eq!(report.shutdowns(), None, "the second gives no count");
    tree.root.write(&format!("{second}/nfit/dirty_shutdown"), "1\n");
    assert_eq!(file.probe(&tree.root).shutdowns().unwrap().count, 8);
}

#[test]
fn the_devices_of_the_guest() {
    let report = |name| {
        let capture = load(name);
        capture.files[0].probe(&capture.root)
    };
    let good = report("nvdimm-adr-ext4");
    assert_eq!(device(&good).identity.as_deref(), Some("8680-56341200"));
    assert_eq!(device(&good).flags.as_deref(), Some(&[][..]));
    assert_eq!(good.shutdowns(), None, "the emulated device has no count");
    let unarmed = report("unarmed-ext4");
    assert_eq!(device(&unarmed).flags.as_deref(), Some(&["not_armed".to_owned()][..]));
    for name in ["e820-ext4", "virtio-pmem-ext4"] {
        let report = report(name);
        assert_eq!((&report.regions[0].devices[..], report.shutdowns()), (&[][..], None), "{name}");
        assert!(report.regions[0].devices_unread.is_empty(), "{name}");
    }
    let two = report("two-nvdimms-two-regions");
    assert_eq!(device(&two).name, "nmem0");
}
