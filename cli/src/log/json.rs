//! For programs.

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use daxmap::log::Log;
use daxmap::{AnyRegion, Region};
use serde_json::{Value, json};

use super::{is_sound, lsns, verdict};

/// Version of the layout: raised when a field changes its meaning or goes.
const SCHEMA: u32 = 1;

/// What both have. Sizes and offsets are in bytes; `null` stands for what is not there.
fn head(file: &Path, log: &Log<AnyRegion>) -> Value {
    let seen = log.recovery();
    json!({
        "schema": SCHEMA,
        "path": file.to_string_lossy(),
        "kind": "log",
        "sound": is_sound(seen),
        "verdict": verdict(seen),
        "closed": seen.was_closed,
        "unsafe_shutdown": seen.unsafe_shutdown.as_str(),
        "records": seen.records,
        "first": lsns(seen).map(|(first, _)| first.get()),
        "last": lsns(seen).map(|(_, last)| last.get()),
        "released": log.released().get(),
        "missing": seen.missing,
    })
}

fn range(bytes: &Range<u64>) -> Value {
    json!({"start": bytes.start, "end": bytes.end})
}

/// What was found, part by part.
pub fn verify(out: &mut impl Write, file: &Path, log: &Log<AnyRegion>) -> io::Result<()> {
    let seen = log.recovery();
    let mut object = head(file, log);
    let damaged = seen.damaged.iter().map(|damage| {
        let (first, last) = (damage.lsns.start().get(), damage.lsns.end().get());
        json!({"bytes": range(&damage.bytes), "lsns": {"first": first, "last": last}})
    });
    object["damaged"] = damaged.collect();
    object["lost_segments"] = seen.lost_segments.iter().map(range).collect();
    object["copies"] = seen.healed.iter().map(range).collect();
    object["dropped"] = seen.dropped.iter().map(range).collect();
    object["truncation_interrupted"] = seen.finished_truncation.into();
    object["bytes_read"] = seen.bytes_read.into();
    writeln!(out, "{object}")
}

/// Sizes and counts.
pub fn stat(out: &mut impl Write, file: &Path, log: &Log<AnyRegion>) -> io::Result<()> {
    let space = log.space();
    let mut object = head(file, log);
    object["file_bytes"] = log.region().len().into();
    object["segment_bytes"] = space.segment_bytes.into();
    object["segments"] = space.segments.into();
    object["free_segments"] = space.free_segments.into();
    object["lost_segments"] = space.lost_segments.into();
    object["used_bytes"] = space.used_bytes.into();
    object["free_bytes"] = space.free_bytes.into();
    object["commit_bytes_max"] = log.commit_bytes_max().into();
    writeln!(out, "{object}")
}
