//! The report as JSON: one object per line, so that a reader need not wait for the last path.
//!
//! Fields are only ever added within a schema version. Sizes and offsets are in bytes; a path that
//! is not UTF-8 has the offending bytes replaced. `null` stands for what is unknown or not there.

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use daxmap::Backend;
use daxmap::probe::{
    BlockDevice, Cap, FilesystemLog, HugePages, MapSync, MemoryDevice, MemoryRegion, Namespace,
    Reason, Report, Security, Target,
};
use serde::Serialize;

/// Version of the layout: raised when a field changes its meaning or goes.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct JsonReport<'a> {
    schema: u32,
    path: String,
    target: &'static str,
    filesystem: Option<&'a str>,
    mount_point: Option<String>,
    mount_root: Option<String>,
    mount_source: Option<&'a str>,
    mount_options: &'a [String],
    upper_mount_point: Option<String>,
    device: Option<&'a str>,
    backend: &'static str,
    statx_dax: Option<bool>,
    dax_flag: Option<bool>,
    map_sync: &'static str,
    map_sync_errno: Option<i32>,
    persistence_domain: &'static str,
    durability: &'static str,
    granularity: &'static str,
    huge_pages: &'static str,
    huge_pages_aligned: Option<u64>,
    huge_pages_total: Option<u64>,
    write_back: &'static str,
    copies: Option<JsonCopies>,
    block_size: Option<u64>,
    read_only: bool,
    numa_node: Option<i32>,
    bad_ranges: Vec<[u64; 2]>,
    bad_ranges_known: bool,
    namespace: Option<JsonNamespace<'a>>,
    regions: Vec<JsonRegion<'a>>,
    device_stack: Option<JsonDevice<'a>>,
    verdict: String,
    reasons: Vec<JsonReason<'a>>,
    caps: Vec<JsonCap<'a>>,
}

#[derive(Serialize)]
struct JsonCap<'a> {
    layer: &'static str,
    level: &'static str,
    evidence: &'a str,
    reason: Option<&'static str>,
}

#[derive(Serialize)]
struct JsonNamespace<'a> {
    name: &'a str,
    mode: &'a str,
    size: Option<u64>,
    align: Option<u64>,
    claims: Option<&'a str>,
}

#[derive(Serialize)]
struct JsonRegion<'a> {
    name: &'a str,
    provider: &'a str,
    persistence_domain: &'static str,
    read_only: bool,
    numa_node: Option<i32>,
    asynchronous: bool,
    bad_blocks: Vec<[u64; 2]>,
    clears_errors: Option<bool>,
    scrubs_completed: Option<u64>,
    scrub_running: Option<bool>,
    devices: Vec<JsonMemoryDevice<'a>>,
    devices_unread: Vec<String>,
}

#[derive(Serialize)]
struct JsonMemoryDevice<'a> {
    name: &'a str,
    family: &'a str,
    identity: Option<&'a str>,
    flags: Option<&'a [String]>,
    dirty_shutdown: Option<u64>,
    security: Option<&'static str>,
    frozen: bool,
    unread: Vec<String>,
}

#[derive(Serialize)]
struct JsonDevice<'a> {
    name: &'a str,
    number: String,
    kind: &'a str,
    dax: Option<bool>,
    sector_size: Option<u32>,
    read_only: bool,
    start: Option<u64>,
    backing_file: Option<String>,
    bad_blocks: Vec<[u64; 2]>,
    namespace: Option<JsonNamespace<'a>>,
    region: Option<&'a str>,
    log: Option<&'static str>,
    log_device: Option<Box<JsonDevice<'a>>>,
    below: Vec<JsonDevice<'a>>,
}

#[derive(Serialize)]
struct JsonReason<'a> {
    code: &'static str,
    text: &'a str,
    remedy: Option<String>,
    remedy_command: Option<&'a str>,
    remedy_recipe: Option<&'static str>,
    remedy_erases_data: bool,
}

/// Writes one object and a line end.
pub fn write(out: &mut impl Write, report: &Report) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &convert(report))?;
    writeln!(out)
}

fn convert(report: &Report) -> JsonReport<'_> {
    let mount = report.mount.as_ref();
    let (map_sync, map_sync_errno) = match report.map_sync {
        MapSync::Accepted => ("accepted", None),
        MapSync::Refused(errno) => ("refused", Some(errno)),
        MapSync::Predicted(true) => ("predicted_accepted", None),
        MapSync::Predicted(false) => ("predicted_refused", None),
        MapSync::NotTried(errno) => ("not_tried", Some(errno)),
        _ => ("unknown", None),
    };
    let (huge_pages, pieces) = match report.huge_pages {
        HugePages::Possible { aligned, total } => ("possible", Some((aligned, total))),
        HugePages::Misaligned { aligned, total } => ("misaligned", Some((aligned, total))),
        HugePages::NotApplicable => ("not_applicable", None),
        _ => ("unknown", None),
    };
    // Device DAX has no block device; its instance is the device.
    let device = match (&report.device, report.target) {
        (Some(device), _) => Some(device.name.as_str()),
        (None, Target::DaxDevice) => report.namespace.as_ref().map(|found| found.name.as_str()),
        (None, _) => None,
    };
    JsonReport {
        schema: SCHEMA,
        path: text(&report.path),
        target: super::text::target(report.target),
        filesystem: report.filesystem.as_deref(),
        mount_point: mount.map(|mount| text(&mount.point)),
        mount_root: mount.map(|mount| text(&mount.root)),
        mount_source: mount.map(|mount| mount.source.as_str()),
        mount_options: mount.map_or(&[], |mount| mount.options.as_slice()),
        upper_mount_point: report.upper.as_ref().map(|mount| text(&mount.point)),
        device,
        backend: report.backend.as_str(),
        statx_dax: report.statx_dax,
        dax_flag: report.dax_flag,
        map_sync,
        map_sync_errno,
        persistence_domain: report.persistence_domain.as_str(),
        durability: report.durability.as_str(),
        granularity: report.granularity.as_str(),
        huge_pages,
        huge_pages_aligned: pieces.map(|(aligned, _)| aligned),
        huge_pages_total: pieces.map(|(_, total)| total),
        write_back: report.write_back.as_str(),
        copies: (report.backend != Backend::PageCache).then(copies),
        block_size: report.block_size,
        read_only: report.read_only,
        numa_node: report.numa_node,
        bad_ranges: ranges(&report.bad_ranges),
        bad_ranges_known: report.bad_ranges_known,
        namespace: report.namespace.as_ref().map(namespace),
        regions: report.regions.iter().map(region).collect(),
        device_stack: report.device.as_ref().map(stack),
        verdict: report.verdict_sentence(),
        reasons: report.reasons.iter().map(reason).collect(),
        caps: report.caps.iter().map(cap).collect(),
    }
}

fn namespace(namespace: &Namespace) -> JsonNamespace<'_> {
    JsonNamespace {
        name: &namespace.name,
        mode: &namespace.mode,
        size: namespace.size,
        align: namespace.align,
        claims: namespace.claims.as_deref(),
    }
}

fn region(region: &MemoryRegion) -> JsonRegion<'_> {
    JsonRegion {
        name: &region.name,
        provider: &region.provider,
        persistence_domain: region.persistence_domain.as_str(),
        read_only: region.read_only,
        numa_node: region.numa_node,
        asynchronous: region.asynchronous,
        bad_blocks: ranges(&region.bad_blocks),
        clears_errors: region.clears_errors,
        scrubs_completed: region.scrubs.map(|scrubs| scrubs.completed),
        scrub_running: region.scrubs.map(|scrubs| scrubs.running),
        devices: region.devices.iter().map(memory_device).collect(),
        devices_unread: region.devices_unread.iter().map(|path| text(path)).collect(),
    }
}

fn memory_device(device: &MemoryDevice) -> JsonMemoryDevice<'_> {
    JsonMemoryDevice {
        name: &device.name,
        family: &device.family,
        identity: device.identity.as_deref(),
        flags: device.flags.as_deref(),
        dirty_shutdown: device.dirty_shutdown,
        security: device.security.map(Security::as_str),
        frozen: device.frozen,
        unread: device.unread.iter().map(|path| text(path)).collect(),
    }
}

fn stack(device: &BlockDevice) -> JsonDevice<'_> {
    JsonDevice {
        name: &device.name,
        number: format!("{}:{}", device.number.0, device.number.1),
        kind: &device.kind,
        dax: device.dax,
        sector_size: device.sector_size,
        read_only: device.read_only,
        start: device.start,
        backing_file: device.backing_file.as_deref().map(text),
        bad_blocks: ranges(&device.bad_blocks),
        namespace: device.namespace.as_ref().map(namespace),
        region: device.region.as_ref().map(|region| region.name.as_str()),
        log: device.log.as_ref().map(|log| match log {
            FilesystemLog::Internal => "internal",
            FilesystemLog::External(_) => "external",
            FilesystemLog::Absent => "absent",
            _ => "unknown",
        }),
        log_device: match &device.log {
            Some(FilesystemLog::External(log)) => Some(Box::new(stack(log))),
            _ => None,
        },
        below: device.below.iter().map(stack).collect(),
    }
}

fn cap(cap: &Cap) -> JsonCap<'_> {
    JsonCap {
        layer: cap.layer.as_str(),
        level: cap.level.as_str(),
        evidence: &cap.evidence,
        reason: cap.reason.map(daxmap::probe::ReasonCode::as_str),
    }
}

fn reason(reason: &Reason) -> JsonReason<'_> {
    let remedy = reason.remedy.as_ref();
    JsonReason {
        code: reason.code.as_str(),
        text: &reason.text,
        remedy: remedy.map(ToString::to_string),
        remedy_command: remedy.and_then(|remedy| remedy.command.as_deref()),
        remedy_recipe: remedy.and_then(|remedy| remedy.recipe).map(daxmap::probe::Recipe::as_str),
        remedy_erases_data: remedy.is_some_and(|remedy| remedy.erases_data),
    }
}

fn ranges(ranges: &[Range<u64>]) -> Vec<[u64; 2]> {
    ranges.iter().map(|range| [range.start, range.end]).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_device_has_its_fields() {
        let mut device = MemoryDevice::default();
        device.name = "nmem0".to_owned();
        device.family = "nfit".to_owned();
        device.identity = Some("8089-1".to_owned());
        device.flags = Some(vec!["not_armed".to_owned()]);
        device.dirty_shutdown = Some(3);
        device.security = Some(Security::Locked);
        device.frozen = true;
        device.unread = vec!["/sys/x".into()];
        let expected = serde_json::json!({
            "name": "nmem0", "family": "nfit", "identity": "8089-1", "flags": ["not_armed"],
            "dirty_shutdown": 3, "security": "locked", "frozen": true, "unread": ["/sys/x"],
        });
        assert_eq!(serde_json::to_value(memory_device(&device)).unwrap(), expected);
    }

    #[test]
    fn each_answer_has_its_name() {
        let mut report = daxmap::probe::probe("/dev/shm").unwrap();
        for (found, name, errno) in [
            (MapSync::Accepted, "accepted", None),
            (MapSync::Refused(95), "refused", Some(95)),
            (MapSync::Predicted(true), "predicted_accepted", None),
            (MapSync::Predicted(false), "predicted_refused", None),
            (MapSync::NotTried(13), "not_tried", Some(13)),
        ] {
            report.map_sync = found;
            let object = serde_json::to_value(convert(&report)).unwrap();
            assert_eq!(object["map_sync"], name);
            assert_eq!(object["map_sync_errno"].as_i64(), errno, "{object}");
        }
        for (found, name, aligned) in [
            (HugePages::Possible { aligned: 3, total: 4 }, "possible", Some(3)),
            (HugePages::Misaligned { aligned: 1, total: 4 }, "misaligned", Some(1)),
            (HugePages::NotApplicable, "not_applicable", None),
            (HugePages::Unknown, "unknown", None),
        ] {
            report.huge_pages = found;
            let object = serde_json::to_value(convert(&report)).unwrap();
            assert_eq!(object["huge_pages"], name);
            assert_eq!(object["huge_pages_aligned"].as_u64(), aligned, "{object}");
        }
        report.bad_ranges = vec![512..1024, 4096..8192];
        report.bad_ranges_known = false;
        let object = serde_json::to_value(convert(&report)).unwrap();
        assert_eq!(object["bad_ranges_known"], false);
        assert_eq!(object["bad_ranges"], serde_json::json!([[512, 1024], [4096, 8192]]));
    }
}

/// From how many bytes on copies go which way, and where that comes from.
#[derive(Serialize)]
struct JsonCopies {
    sizes: String,
    basis: String,
}

fn copies() -> JsonCopies {
    let ways = daxmap::cpu::Cpu::get().ways();
    JsonCopies { sizes: ways.to_string(), basis: ways.basis.to_string() }
}
