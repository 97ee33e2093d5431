//! Bad memory as JSON: one object per line. Fields are only ever added within a schema version.

use std::io::{self, Write};
use std::path::Path;

use daxmap::probe::{BadMemory, MemoryRegion};
use serde::Serialize;

/// Version of the layout: raised when a field changes its meaning or goes.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct JsonBad<'a> {
    schema: u32,
    name: String,
    kind: &'static str,
    mount_point: Option<String>,
    bad_ranges: Vec<[u64; 2]>,
    bad_bytes: u64,
    is_complete: bool,
    regions: Vec<JsonRegion<'a>>,
    notes: &'a [String],
    remedy: Option<String>,
}

#[derive(Serialize)]
struct JsonRegion<'a> {
    name: &'a str,
    provider: &'a str,
    devices: Vec<JsonDevice<'a>>,
    scrubs_completed: Option<u64>,
    scrub_running: Option<bool>,
    clears_errors: Option<bool>,
}

#[derive(Serialize)]
struct JsonDevice<'a> {
    name: &'a str,
    identity: Option<&'a str>,
}

/// Writes one object and a line end.
pub fn write(out: &mut impl Write, bad: &BadMemory) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &convert(bad))?;
    writeln!(out)
}

fn convert(bad: &BadMemory) -> JsonBad<'_> {
    JsonBad {
        schema: SCHEMA,
        name: text(&bad.name),
        kind: bad.kind.as_str(),
        mount_point: bad.mount.as_deref().map(text),
        bad_ranges: bad.ranges.iter().map(|range| [range.start, range.end]).collect(),
        bad_bytes: bad.ranges.iter().map(|range| range.end - range.start).sum(),
        is_complete: bad.is_complete,
        regions: bad.regions.iter().map(region).collect(),
        notes: &bad.notes,
        remedy: bad.remedy.as_ref().map(ToString::to_string),
    }
}

fn region(region: &MemoryRegion) -> JsonRegion<'_> {
    let devices = region.devices.iter();
    JsonRegion {
        name: &region.name,
        provider: &region.provider,
        devices: devices
            .map(|device| JsonDevice { name: &device.name, identity: device.identity.as_deref() })
            .collect(),
        scrubs_completed: region.scrubs.map(|scrubs| scrubs.completed),
        scrub_running: region.scrubs.map(|scrubs| scrubs.running),
        clears_errors: region.clears_errors,
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_told_with_their_bytes() {
        let program = std::env::current_exe().unwrap();
        let mut bad = daxmap::probe::probe(&program).unwrap().bad_memory().unwrap();
        bad.ranges = vec![512..1024, 4096..8192];
        bad.is_complete = false;
        let object = serde_json::to_value(convert(&bad)).unwrap();
        assert_eq!(object["bad_ranges"], serde_json::json!([[512, 1024], [4096, 8192]]));
        assert_eq!(object["bad_bytes"], 4608);
        assert_eq!(object["is_complete"], false);
        assert_eq!((&object["kind"], &object["schema"]), (&"file".into(), &1.into()));
    }
}
