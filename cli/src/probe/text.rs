//! The report for people: the verdict, then why and what to change, then the facts.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};
use daxmap::Backend;
use daxmap::cpu::Cpu;
use daxmap::probe::{BlockDevice, FALLBACKS, HugePages, MapSync, MemoryDevice, Report, Target};

/// Writes the report.
pub fn write(out: &mut impl Write, report: &Report) -> io::Result<()> {
    writeln!(out, "{}", clean(&report.verdict_sentence()))?;
    for reason in &report.reasons {
        writeln!(out, "  why: {} [{}]", clean(&reason.text), reason.code)?;
        if let Some(remedy) = &reason.remedy {
            writeln!(out, "  remedy: {}", clean(&remedy.to_string()))?;
        }
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    for (name, value) in facts(report) {
        table.add_row([format!("  {name}"), clean(&value)]);
    }
    writeln!(out, "{}", table.trim_fmt())
}

/// Writes what each layer keeps, from the top down.
pub fn write_layers(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    for cap in &report.caps {
        let code = cap.reason.map_or_else(String::new, |code| format!(" [{code}]"));
        let evidence = format!("{}{code}", clean(&cap.evidence));
        table.add_row([format!("  {}", cap.layer), cap.level.to_string(), evidence]);
    }
    writeln!(out, "  what each layer keeps, of which the least counts:")?;
    writeln!(out, "{}", table.trim_fmt())
}

/// Writes the ways in which each operation is done, best first.
pub fn write_fallbacks(out: &mut impl Write) -> io::Result<()> {
    for (at, row) in FALLBACKS.iter().enumerate() {
        if at > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{}", row.operation.replace('`', ""))?;
        let ways = [row.first, row.second, row.third];
        for (way, number) in ways.iter().filter(|way| !way.is_empty()).zip(1..) {
            writeln!(out, "  {number}. {}", way.replace('`', ""))?;
        }
        if let Some(level) = row.level {
            writeln!(out, "  level of the last way: at most {level}")?;
        }
        if !row.gives_up.is_empty() {
            writeln!(out, "  the last way gives up: {}", row.gives_up.replace('`', ""))?;
        }
    }
    Ok(())
}

fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let mut rows = vec![("path", report.path.display().to_string())];
    let mut row = |name, value: String| rows.push((name, value));
    row("target", target(report.target).replace('_', " "));
    if let Some(filesystem) = &report.filesystem {
        row("filesystem", filesystem.clone());
    }
    if let Some(mount) = &report.mount {
        row("mount point", mount.point.display().to_string());
        if mount.root != std::path::Path::new("/") {
            row("mounted part", mount.root.display().to_string());
        }
        row("mount source", mount.source.clone());
        row("mount options", mount.options.join(","));
    }
    if let Some(upper) = &report.upper {
        row("upper directory in", format!("{} ({})", upper.point.display(), upper.filesystem));
    }
    if let Some(device) = &report.device {
        row("device", stack(device));
    }
    if let Some(namespace) = &report.namespace {
        let size = namespace.size.map_or_else(String::new, |size| format!(", {}", bytes(size)));
        row("namespace", format!("{} ({}{size})", namespace.name, namespace.mode));
    }
    for region in &report.regions {
        row(
            "memory region",
            format!("{} ({}, {})", region.name, region.provider, region.persistence_domain),
        );
        for device in &region.devices {
            row("memory device", memory_device(device));
        }
    }
    row("persistence domain", report.persistence_domain.to_string());
    row("statx DAX", yes_no(report.statx_dax));
    if report.dax_flag.is_some() {
        row("DAX flag", yes_no(report.dax_flag));
    }
    row("MAP_SYNC", map_sync(report.map_sync));
    row("backend", report.backend.to_string());
    row("durability", report.durability.to_string());
    row("granularity", report.granularity.to_string());
    row("huge pages", huge_pages(report.huge_pages));
    row("CPU write-back", report.write_back.to_string());
    if report.backend != Backend::PageCache {
        let ways = Cpu::get().ways();
        row("CPU copies", format!("{ways} ({})", ways.basis));
    }
    if let Some(size) = report.block_size {
        row("block size", size.to_string());
    }
    if let Some(node) = report.numa_node {
        row("NUMA node", node.to_string());
    }
    row("read only", yes_no(Some(report.read_only)));
    rows
}

/// A device of a region: `nmem0 (8089-a2-1842-1): no flags, 7 unsafe shutdowns, unlocked`.
fn memory_device(device: &MemoryDevice) -> String {
    let identity = device.identity.as_deref().unwrap_or("no identity");
    let mut said = match &device.flags {
        Some(flags) if flags.is_empty() => vec!["no flags".to_owned()],
        Some(flags) => vec![flags.join(" ")],
        None if device.family == "cxl" => Vec::new(),
        None => vec!["flags unknown".to_owned()],
    };
    said.push(match device.dirty_shutdown {
        Some(1) => "1 unsafe shutdown".to_owned(),
        Some(count) => format!("{count} unsafe shutdowns"),
        None => "unsafe shutdowns unknown".to_owned(),
    });
    if let Some(security) = device.security {
        let frozen = if device.frozen { " (frozen)" } else { "" };
        said.push(format!("security {}{frozen}", security.as_str()));
    }
    format!("{} ({identity}): {}", device.name, said.join(", "))
}

/// The name of a target, as in the JSON.
pub fn target(target: Target) -> &'static str {
    match target {
        Target::File => "file",
        Target::Directory => "directory",
        Target::Missing => "missing",
        Target::BlockDevice => "block_device",
        Target::DaxDevice => "dax_device",
        _ => "other",
    }
}

/// A device and what it is made of: `dm-0 (device-mapper) on [pmem0 (pmem), pmem1 (pmem)]`.
fn stack(device: &BlockDevice) -> String {
    let mut out = format!("{} ({})", device.name, device.kind);
    if let Some(file) = &device.backing_file {
        out = format!("{out} of {}", file.display());
    }
    match device.below.as_slice() {
        [] => out,
        [one] => format!("{out} on {}", stack(one)),
        several => {
            let several: Vec<_> = several.iter().map(stack).collect();
            format!("{out} on [{}]", several.join(", "))
        }
    }
}

fn yes_no(value: Option<bool>) -> String {
    match value {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    }
    .to_owned()
}

fn map_sync(found: MapSync) -> String {
    match found {
        MapSync::Accepted => "accepted".to_owned(),
        MapSync::Refused(errno) => format!("refused: {}", io::Error::from_raw_os_error(errno)),
        MapSync::Predicted(true) => "would be accepted".to_owned(),
        MapSync::Predicted(false) => "would be refused".to_owned(),
        MapSync::NotTried(errno) => format!("not tried: {}", io::Error::from_raw_os_error(errno)),
        _ => "unknown".to_owned(),
    }
}

fn huge_pages(found: HugePages) -> String {
    match found {
        HugePages::Possible { aligned, total } => format!("possible ({aligned} of {total})"),
        HugePages::Misaligned { aligned, total } => format!("misaligned ({aligned} of {total})"),
        HugePages::NotApplicable => "not applicable".to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// A size with a unit and one digit: `1.5 KiB`.
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut divisor = 1_u64;
    let mut name = "B";
    for unit in UNITS {
        if size / divisor < 1024 {
            break;
        }
        divisor *= 1024;
        name = unit;
    }
    format!("{}.{} {name}", size / divisor, size % divisor * 10 / divisor)
}

/// Text for a terminal: a name may hold control characters, and they would be obeyed.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use daxmap::probe::Security;

    use super::*;

    #[test]
    fn each_answer_has_its_words() {
        for (kind, words) in [
            (Target::File, "file"),
            (Target::Directory, "directory"),
            (Target::Missing, "missing"),
            (Target::BlockDevice, "block_device"),
            (Target::DaxDevice, "dax_device"),
            (Target::Other, "other"),
        ] {
            assert_eq!(target(kind), words);
        }
        for (found, words) in [
            (MapSync::Accepted, "accepted"),
            (MapSync::Refused(95), "refused: Operation not supported (os error 95)"),
            (MapSync::Predicted(true), "would be accepted"),
            (MapSync::Predicted(false), "would be refused"),
            (MapSync::NotTried(13), "not tried: Permission denied (os error 13)"),
        ] {
            assert_eq!(map_sync(found), words);
        }
        for (found, words) in [
            (HugePages::Possible { aligned: 3, total: 4 }, "possible (3 of 4)"),
            (HugePages::Misaligned { aligned: 0, total: 4 }, "misaligned (0 of 4)"),
            (HugePages::NotApplicable, "not applicable"),
            (HugePages::Unknown, "unknown"),
        ] {
            assert_eq!(huge_pages(found), words);
        }
        assert_eq!([Some(true), Some(false), None].map(yes_no), ["yes", "no", "unknown"]);
    }

    #[test]
    fn a_memory_device_is_told_in_a_line() {
        let mut device = MemoryDevice::default();
        device.name = "nmem0".to_owned();
        device.family = "nfit".to_owned();
        let unknown = "nmem0 (no identity): flags unknown, unsafe shutdowns unknown";
        assert_eq!(memory_device(&device), unknown);
        device.identity = Some("8089-1".to_owned());
        device.flags = Some(Vec::new());
        device.dirty_shutdown = Some(1);
        device.security = Some(Security::Unlocked);
        let good = "nmem0 (8089-1): no flags, 1 unsafe shutdown, security unlocked";
        assert_eq!(memory_device(&device), good);
        device.flags = Some(["not_armed", "smart_event"].map(String::from).to_vec());
        (device.dirty_shutdown, device.frozen) = (Some(2), true);
        let bad = "nmem0 (8089-1): not_armed smart_event, 2 unsafe shutdowns, security unlocked \
                   (frozen)";
        assert_eq!(memory_device(&device), bad);
        (device.family, device.flags) = ("cxl".to_owned(), None);
        assert!(memory_device(&device).starts_with("nmem0 (8089-1): 2 unsafe shutdowns"));
    }

    #[test]
    fn sizes_have_a_unit_and_one_digit() {
        for (size, words) in [
            (0, "0.0 B"),
            (1023, "1023.0 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (1 << 20, "1.0 MiB"),
            (7 << 29, "3.5 GiB"),
            (1 << 40, "1.0 TiB"),
            (3 << 50, "3.0 PiB"),
            (2048 << 50, "2048.0 PiB"),
        ] {
            assert_eq!(bytes(size), words);
        }
    }

    #[test]
    fn devices_are_told_with_what_they_are_made_of() {
        let program = std::env::current_exe().unwrap();
        let found = daxmap::probe::probe(program).unwrap().device.expect("it lies on a disk");
        let made = |name: &str, kind: &str, below: &[&BlockDevice]| {
            let mut device = found.clone();
            (device.name, device.kind) = (name.to_owned(), kind.to_owned());
            device.backing_file = None;
            device.below = below.iter().map(|device| (*device).clone()).collect();
            device
        };
        let one = made("sda", "disk", &[]);
        let part = made("sda1", "partition", &[&one]);
        let mut file = made("loop0", "loop", &[&part]);
        file.backing_file = Some("/srv/image".into());
        assert_eq!(stack(&one), "sda (disk)");
        assert_eq!(stack(&file), "loop0 (loop) of /srv/image on sda1 (partition) on sda (disk)");
        let raid = made("md0", "raid", &[&one, &part]);
        let expected = "md0 (raid) on [sda (disk), sda1 (partition) on sda (disk)]";
        assert_eq!(stack(&raid), expected);
    }

    #[test]
    fn the_part_that_is_mounted_is_told_if_it_is_not_all() {
        let mut report = daxmap::probe::probe("/dev/shm").unwrap();
        let names = |report: &Report| facts(report).into_iter().map(|(name, _)| name);
        for (root, is_told) in [("/", false), ("/srv/data", true)] {
            report.mount.as_mut().unwrap().root = root.into();
            assert_eq!(names(&report).any(|name| name == "mounted part"), is_told, "{root}");
        }
    }
}
