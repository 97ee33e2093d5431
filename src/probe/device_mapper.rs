//! What a device-mapper device does with a flush: by its targets, or by who made it.
//!
//! A target that leaves flushes out, or keeps its table in memory, looks in sysfs like any other. The
//! kernel tells the types of the targets to root alone (`DM_TABLE_STATUS`, drivers/md/dm-ioctl.c). The
//! UUID anybody may read, and its prefix names the program that made the device (libdevmapper's rule
//! for UUIDs); what those programs load passes flushes on.

use super::ioctl;
use super::report::Mapping;
use super::sources::{Number, Sources};

/// Targets that pass each flush on to the devices that hold what was written, or have written that
/// themselves first (`num_flush_bios` and the `map` of drivers/md/dm-TARGET.c, Linux 6.18).
///
/// Not here: `flakey`, which drops writes on purpose; `zero` and `error`, which keep nothing;
/// `snapshot`, since what it keeps can be found only through a table that may lie in memory.
const PASS_FLUSHES_ON: [&str; 24] = [
    "cache",
    "clone",
    "crypt",
    "delay",
    "ebs",
    "era",
    "inlinecrypt",
    "integrity",
    "linear",
    "log-writes",
    "mirror",
    "multipath",
    "raid",
    "snapshot-merge",
    "snapshot-origin",
    "striped",
    "switch",
    "thin",
    "thin-pool",
    "unstriped",
    "vdo",
    "verity",
    "writecache",
    "zoned",
];

/// Prefixes of the UUIDs of LVM, of cryptsetup, and of multipath and the partitions that kpartx makes
/// of its devices.
const MAKERS: [(&str, &str); 3] =
    [("LVM-", LVM), ("CRYPT-", "cryptsetup"), ("mpath-", "multipath")];
const LVM: &str = "LVM";

/// What is known of the device-mapper device with this number.
pub(super) fn mapping(sources: &Sources, name: &str, number: Number, uuid: &str) -> Mapping {
    let maker = maker(uuid);
    let targets = match sources.made_up() {
        Some(root) => std::fs::read_to_string(root.join(format!("dev/{name}.targets")))
            .ok()
            .map(|text| text.split_ascii_whitespace().map(str::to_owned).collect()),
        None => ioctl::device_mapper_targets(number),
    };
    match (targets, maker) {
        (Some(targets), _) => known(targets, maker),
        (None, Some(maker)) => Mapping::MadeBy(maker.to_owned()),
        (None, None) => Mapping::Unknown,
    }
}

fn maker(uuid: &str) -> Option<&'static str> {
    // kpartx: `part1-mpath-...`.
    let whole = uuid
        .strip_prefix("part")
        .and_then(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix('-'))
        .unwrap_or(uuid);
    MAKERS.iter().find(|(prefix, _)| whole.starts_with(prefix)).map(|(_, maker)| *maker)
}

fn known(mut targets: Vec<String>, maker: Option<&str>) -> Mapping {
    targets.sort_unstable();
    targets.dedup();
    // LVM keeps the table of a snapshot on the device.
    let passes = |target: &str| {
        PASS_FLUSHES_ON.contains(&target) || (target == "snapshot" && maker == Some(LVM))
    };
    match targets.iter().find(|target| !passes(target)) {
        Some(target) => Mapping::Foreign(target.clone()),
        None if targets.is_empty() => Mapping::Unknown,
        None => Mapping::PassesOn(targets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maker_is_known_by_the_beginning_of_the_uuid() {
        for (uuid, expected) in [
            ("LVM-wvVuo9Vd3ZsJX", Some("LVM")),
            ("CRYPT-LUKS2-0a1b-home", Some("cryptsetup")),
            ("CRYPT-PLAIN-swap", Some("cryptsetup")),
            ("mpath-3600508b4", Some("multipath")),
            ("part2-mpath-3600508b4", Some("multipath")),
            ("part10-LVM-x", Some("LVM")),
            ("", None),
            ("LVM", None),
            ("my-LVM-x", None),
            ("part-mpath", None),
            ("test-flakey", None),
        ] {
            assert_eq!(maker(uuid), expected, "{uuid}");
        }
    }

    #[test]
    fn every_target_of_a_table_counts() {
        let of = |targets: &[&str], maker| {
            known(targets.iter().map(|target| (*target).to_owned()).collect(), maker)
        };
        let passes = |targets: &[&str]| {
            Mapping::PassesOn(targets.iter().map(|target| (*target).to_owned()).collect())
        };
        assert_eq!(of(&["linear", "linear"], None), passes(&["linear"]));
        assert_eq!(of(&["striped", "linear"], None), passes(&["linear", "striped"]));
        assert_eq!(of(&["linear", "flakey"], Some(LVM)), Mapping::Foreign("flakey".to_owned()));
        assert_eq!(of(&["zero"], None), Mapping::Foreign("zero".to_owned()));
        assert_eq!(of(&["snapshot"], None), Mapping::Foreign("snapshot".to_owned()));
        assert_eq!(of(&["snapshot"], Some("multipath")), Mapping::Foreign("snapshot".to_owned()));
        assert_eq!(of(&["snapshot"], Some(LVM)), passes(&["snapshot"]));
        assert_eq!(of(&[], Some(LVM)), Mapping::Unknown, "a table without targets");
    }
}
